//! The summary of a round.

use super::{
    line::{Paint, printable, push_painted},
    report::{RoundEnd, TestReport, Verdict},
    sender::Counts,
};
use std::{collections::BTreeMap, sync::Arc};
use unicode_width::UnicodeWidthStr;

const TITLE: &str = "Test Summary";
const LABEL_COLUMNS: usize = 16;
const COUNT_COLUMNS: usize = 9;

/// What became of the tests of a round. Keeps the names that the summary lists, no others.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) passed: u64,
    pub(super) failed: Vec<String>,
    pub(super) ignored: Vec<String>,
    /// How many tests this node ran to their end.
    pub(super) here: u64,
    /// How many tests each other node ran.
    pub(super) elsewhere: BTreeMap<Arc<str>, u64>,
}

impl Tally {
    pub(super) fn add(&mut self, report: &TestReport) {
        if let Some(node) = &report.node {
            *self.elsewhere.entry(node.clone()).or_default() += 1;
        } else if report.duration.is_some() {
            self.here += 1;
        }
        match report.verdict {
            Verdict::Ok => self.passed += 1,
            Verdict::Ignored => self.ignored.push(printable(&report.name)),
            Verdict::Failed | Verdict::TimedOut | Verdict::Error => {
                self.failed.push(printable(&report.name));
            }
        }
    }

    pub(super) fn finished(&self) -> u64 {
        self.passed + self.failed.len() as u64 + self.ignored.len() as u64
    }
}

/// How many tests were not run, as far as that is known: exactly when all had been `queued`, else
/// by what the test listing made us expect, else at least those that were queued.
fn not_run(finished: u64, queued: u64, expected: u64, all_queued: bool) -> String {
    if all_queued {
        queued.saturating_sub(finished).to_string()
    } else if expected > 0 && expected >= queued {
        format!("~{}", expected.saturating_sub(finished))
    } else if queued > expected && queued > finished {
        format!(">{}", queued - finished)
    } else {
        "unknown number of".into()
    }
}

/// How a summary looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct SummaryLayout {
    /// Width of the screen.
    pub(super) columns: usize,
    /// Whether there are colours.
    pub(super) color: bool,
    /// Whether the title stands between rules, or only in the middle.
    pub(super) ruled: bool,
}

/// Appends the summary.
pub(super) fn push_summary(
    out: &mut Vec<u8>,
    tally: &Tally,
    end: RoundEnd,
    counts: Counts,
    layout: SummaryLayout,
) {
    let SummaryLayout {
        columns,
        color,
        ruled,
    } = layout;
    let margin = columns.saturating_sub(TITLE.len() + 2) / 2;
    out.push(b'\n');
    if ruled {
        let rule = "=".repeat(margin);
        out.extend_from_slice(format!("{rule} {TITLE} {rule}").as_bytes());
    } else {
        out.extend_from_slice(" ".repeat(margin + 1).as_bytes());
        push_painted(out, color, Paint::Bold, TITLE);
    }
    out.push(b'\n');
    push_count(out, "Successful Tests", &tally.passed.to_string());
    push_count(out, "Failed Tests", &tally.failed.len().to_string());
    push_names(out, &tally.failed, "failure", Paint::Red, color);
    if !tally.ignored.is_empty() {
        push_count(out, "Ignored Tests", &tally.ignored.len().to_string());
        push_names(out, &tally.ignored, "ignored", Paint::Yellow, color);
    }
    if !tally.elsewhere.is_empty() {
        let elsewhere: u64 = tally.elsewhere.values().sum();
        push_count(out, "Ran Here", &tally.here.to_string());
        push_count(out, "Ran Elsewhere", &elsewhere.to_string());
        let longest = tally.elsewhere.keys().map(|node| node.width()).max();
        for (node, count) in &tally.elsewhere {
            let padding = " ".repeat(longest.unwrap_or(0) - node.width());
            out.extend_from_slice(
                format!("    {node}{padding}: {count:>COUNT_COLUMNS$}\n").as_bytes(),
            );
        }
    }
    if let RoundEnd::Stopped { all_queued } = end {
        let count = not_run(tally.finished(), counts.queued, counts.expected, all_queued);
        push_count(out, "Tests Not Run", &count);
    }
}

fn push_count(out: &mut Vec<u8>, label: &str, count: &str) {
    out.extend_from_slice(format!("{label:<LABEL_COLUMNS$}: {count:>COUNT_COLUMNS$}\n").as_bytes());
}

fn push_names(out: &mut Vec<u8>, names: &[String], word: &str, paint: Paint, color: bool) {
    let longest = names.iter().map(|name| name.width()).max().unwrap_or(0);
    for name in names {
        let padding = " ".repeat(longest - name.width());
        out.extend_from_slice(format!("    {name}{padding}: ").as_bytes());
        push_painted(out, color, paint, word);
        out.push(b'\n');
    }
}
