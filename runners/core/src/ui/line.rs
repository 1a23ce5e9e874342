//! The line of a finished test and what is shown below it.

use super::report::{Captured, TestReport, Verdict};
use std::time::Duration;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns of the duration, right-aligned.
const DURATION_COLUMNS: usize = 8;
/// What stands in place of the duration of a test that was not run again. As wide.
const CACHED: &str = "(cached)";
/// On a terminal no wider than this there are only names and verdicts.
const NARROW_COLUMNS: usize = 10;

/// Colours of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    Bold,
    Red,
    Green,
    Yellow,
}

/// Appends `text`, painted if there are colours.
pub(super) fn push_painted(out: &mut Vec<u8>, color: bool, paint: Paint, text: &str) {
    if !color {
        return out.extend_from_slice(text.as_bytes());
    }
    let code = match paint {
        Paint::Bold => "1",
        Paint::Red => "31",
        Paint::Green => "32",
        Paint::Yellow => "33",
    };
    out.extend_from_slice(format!("\x1b[{code}m{text}\x1b[0m").as_bytes());
}

impl Verdict {
    pub(super) const fn paint(self) -> Paint {
        match self {
            Verdict::Ok => Paint::Green,
            Verdict::Failed | Verdict::TimedOut | Verdict::Error => Paint::Red,
            Verdict::Ignored => Paint::Yellow,
        }
    }
}

/// A name without characters that would leave its line or steer the terminal.
pub(super) fn printable(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

/// Appends the line of a test, `columns` wide, and for one that did not pass what it left.
pub(super) fn push_test(out: &mut Vec<u8>, report: &TestReport, columns: usize, color: bool) {
    push_test_line(out, report, columns, color);
    if !report.verdict.is_failure() {
        return;
    }
    if let Some(detail) = &report.detail {
        out.extend_from_slice(detail.as_bytes());
        out.push(b'\n');
    }
    push_stdout(out, report.job, &report.stdout, color);
    push_stderr(out, report.job, &report.stderr, color);
    for line in report.notes.iter().flat_map(|note| note.lines()) {
        push_painted(out, color, Paint::Yellow, line);
        out.push(b'\n');
    }
}

fn push_test_line(out: &mut Vec<u8>, report: &TestReport, columns: usize, color: bool) {
    let name = printable(&report.name);
    let word = report.verdict.word();
    let duration = match report.duration {
        Some(_) if report.cached && !report.verdict.is_failure() => CACHED.to_owned(),
        Some(duration) if !matches!(report.verdict, Verdict::Ignored | Verdict::Error) => {
            format!("{:>DURATION_COLUMNS$}", seconds(duration))
        }
        _ => " ".repeat(DURATION_COLUMNS),
    };
    // Of what is left for the name, one column at least is a dot.
    let left = columns.saturating_sub(word.len() + 1 + duration.len());
    if columns <= NARROW_COLUMNS || left < 2 {
        push_painted(out, color, Paint::Bold, &name);
        out.push(b' ');
        push_painted(out, color, report.verdict.paint(), word);
        out.push(b'\n');
        return;
    }
    let mut shown = name;
    if shown.width() > left - 1 {
        shown = format!("<{}", end_of(&shown, left - 2));
    }
    let dots = left - shown.width();
    push_painted(out, color, Paint::Bold, &shown);
    out.extend(std::iter::repeat_n(b'.', dots));
    push_painted(out, color, report.verdict.paint(), word);
    out.push(b' ');
    out.extend_from_slice(duration.as_bytes());
    out.push(b'\n');
}

fn seconds(duration: Duration) -> String {
    format!("{:.3}s", duration.as_secs_f64())
}

/// The end of `text` that fits into `columns`.
pub(super) fn end_of(text: &str, columns: usize) -> &str {
    let mut start = text.len();
    let mut used = 0;
    for (at, c) in text.char_indices().rev() {
        used += c.width().unwrap_or(0);
        if used > columns {
            break;
        }
        start = at;
    }
    &text[start..]
}

/// The lines of an output, without their ends. What follows the last line end is a line if there is
/// anything.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\n").unwrap_or(line))
}

fn push_stdout(out: &mut Vec<u8>, job: u64, stdout: &Captured, color: bool) {
    for line in lines(&stdout.bytes) {
        push_output_line(out, line, color);
    }
    push_truncation(out, job, "stdout", stdout);
}

fn push_stderr(out: &mut Vec<u8>, job: u64, stderr: &Captured, color: bool) {
    for line in lines(&stderr.bytes) {
        if !line.is_empty() && line != b"\r" {
            push_painted(out, color, Paint::Red, "stderr: ");
            push_output_line(out, line, color);
        }
    }
    push_truncation(out, job, "stderr", stderr);
}

/// A line as the test wrote it. What it painted ends with it.
fn push_output_line(out: &mut Vec<u8>, line: &[u8], color: bool) {
    out.extend_from_slice(line);
    if color && line.contains(&b'\x1b') {
        out.extend_from_slice(b"\x1b[0m");
    }
    out.push(b'\n');
}

fn push_truncation(out: &mut Vec<u8>, job: u64, stream: &str, captured: &Captured) {
    if captured.dropped_bytes > 0 {
        let bytes = captured.dropped_bytes;
        out.extend_from_slice(
            format!("job {job}: {stream} truncated, {bytes} bytes lost\n").as_bytes(),
        );
    }
}
