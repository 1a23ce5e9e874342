//! The fancy style: an area at the bottom of the terminal, a quarter of the screen high.

use super::{
    line::{end_of, printable},
    report::TestReport,
    screen::{Progress, Size},
    sender::TransferId,
};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    io::{self, Write},
    time::Instant,
};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The area has at least so many lines, where the screen has them.
const MIN_ROWS: usize = 6;
/// Lines of the build's output that are shown at most.
const BUILD_ROWS: usize = 3;
/// Names of failed tests that are shown at most.
const FAILED_ROWS: usize = 5;
/// A line of the build's output is cut there.
const MAX_BUILD_LINE_BYTES: usize = 1 << 10;
/// Columns of a transfer's gauge.
const GAUGE_COLUMNS: usize = 20;
const THROBBER: [char; 8] = ['⣷', '⣯', '⣟', '⡿', '⢿', '⣻', '⣽', '⣾'];

/// The area, and what it shows.
#[derive(Default)]
pub(super) struct Fancy {
    /// By number of the job, so that the one that runs longest comes first.
    running: BTreeMap<u64, (String, Instant)>,
    transfers: BTreeMap<TransferId, Transfer>,
    build: BuildOutput,
    /// The newest last.
    failed: VecDeque<String>,
    frame: usize,
    /// The lines of the area as they were last computed.
    lines: Vec<String>,
    /// How many lines of it are on the screen.
    drawn: usize,
}

struct Transfer {
    label: String,
    bytes: u64,
    total: Option<u64>,
}

/// The last lines of a program that thinks it writes to a terminal.
#[derive(Default)]
struct BuildOutput {
    lines: VecDeque<String>,
    /// What was written since the last line end.
    current: Vec<u8>,
}

impl BuildOutput {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                // A line that is written over, or ends.
                b'\n' | b'\r' => {
                    let line = plain(&String::from_utf8_lossy(&self.current));
                    self.current.clear();
                    if !line.trim().is_empty() {
                        self.lines.push_back(line);
                    }
                    if self.lines.len() > BUILD_ROWS {
                        self.lines.pop_front();
                    }
                }
                byte if self.current.len() < MAX_BUILD_LINE_BYTES => self.current.push(*byte),
                _ => {}
            }
        }
    }
}

/// A text without escape sequences and other control characters.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            if chars.next() == Some('[') {
                chars.by_ref().find(|c| ('@'..='~').contains(c));
            }
        } else if c == '\t' {
            plain.push(' ');
        } else if !c.is_control() {
            plain.push(c);
        }
    }
    plain
}

impl Fancy {
    pub(super) fn running(&mut self, job: u64, name: String, now: Instant) {
        self.running.insert(job, (name, now));
    }

    pub(super) fn finished(&mut self, report: &TestReport) {
        self.running.remove(&report.job);
        if report.verdict.is_failure() {
            self.failed.push_back(printable(&report.name));
            if self.failed.len() > FAILED_ROWS {
                self.failed.pop_front();
            }
        }
    }

    pub(super) fn build_output(&mut self, bytes: &[u8]) {
        self.build.push(bytes);
    }

    pub(super) fn transfer(
        &mut self,
        id: TransferId,
        label: String,
        bytes: u64,
        total: Option<u64>,
    ) {
        self.transfers.insert(
            id,
            Transfer {
                label,
                bytes,
                total,
            },
        );
    }

    pub(super) fn transfer_done(&mut self, id: TransferId) {
        self.transfers.remove(&id);
    }

    /// Forgets the round that ended.
    pub(super) fn clear_round(&mut self) {
        self.running.clear();
        self.transfers.clear();
        self.failed.clear();
        self.build = BuildOutput::default();
    }

    /// Computes the area anew. It is on the screen after the next [`Fancy::print`].
    pub(super) fn update(&mut self, progress: &Progress, size: Size, now: Instant) {
        self.frame += 1;
        // A cursor behind the last column may or may not be in the next line.
        let columns = size.columns.saturating_sub(1);
        let rows = (size.rows / 4)
            .max(MIN_ROWS)
            .min(size.rows.saturating_sub(1));
        let mut bottom = vec![
            gauge(progress, columns),
            self.status_line(progress, columns),
        ];
        let room = rows.saturating_sub(bottom.len());
        bottom.extend(self.failed_lines(progress.failed, columns, room / 3));
        bottom.extend(self.build_lines(progress, columns, room / 2));
        bottom.truncate(rows);
        let room = rows - bottom.len();
        let mut lines = self.transfer_lines(columns);
        lines.truncate(room);
        let mut running = self.running_lines(columns, room - lines.len(), now);
        running.append(&mut lines);
        running.extend(bottom.into_iter().rev());
        self.lines = running;
    }

    fn status_line(&self, progress: &Progress, columns: usize) -> String {
        if progress.status.is_empty() {
            return String::new();
        }
        let throbber = THROBBER[self.frame % THROBBER.len()];
        format!(
            "\x1b[36m{throbber}\x1b[0m {}",
            start_of(&plain(&progress.status), columns.saturating_sub(2))
        )
    }

    /// A box of failed tests, from the bottom up.
    fn failed_lines(&self, failed: u64, columns: usize, rows: usize) -> Vec<String> {
        let Some(newest) = self.failed.back() else {
            return Vec::new();
        };
        let title = format!("{failed} failed");
        if rows < 2 {
            let name = end_of(newest, columns.saturating_sub(title.len() + 2));
            return vec![format!(
                "\x1b[31m{}\x1b[0m",
                start_of(&format!("{title}: {name}"), columns)
            )];
        }
        let mut lines: Vec<String> = self
            .failed
            .iter()
            .rev()
            .take(rows - 1)
            .map(|name| {
                format!(
                    "\x1b[31m│\x1b[0m {}",
                    end_of(name, columns.saturating_sub(2))
                )
            })
            .collect();
        lines.push(format!(
            "\x1b[31m{}\x1b[0m",
            start_of(&format!("╭ {title}"), columns)
        ));
        lines
    }

    /// The end of the build's output, from the bottom up, while something is being done.
    fn build_lines(&self, progress: &Progress, columns: usize, rows: usize) -> Vec<String> {
        if progress.status.is_empty() {
            return Vec::new();
        }
        let lines = self.build.lines.iter().rev().take(rows);
        lines
            .map(|line| {
                format!(
                    "\x1b[2m│ {}\x1b[0m",
                    start_of(line, columns.saturating_sub(2))
                )
            })
            .collect()
    }

    fn transfer_lines(&self, columns: usize) -> Vec<String> {
        let line = |transfer: &Transfer| {
            let bytes = crate::size::ByteSize(transfer.bytes);
            let (filled, amount) = match transfer.total {
                Some(total) => {
                    let share = (transfer.bytes.min(total) as f64 / total.max(1) as f64).min(1.0);
                    let filled = (share * GAUGE_COLUMNS as f64) as usize;
                    (
                        filled,
                        format!("{bytes} of {}", crate::size::ByteSize(total)),
                    )
                }
                None => (0, bytes.to_string()),
            };
            let gauge = format!(
                "{}{}",
                "━".repeat(filled),
                "╌".repeat(GAUGE_COLUMNS - filled)
            );
            start_of(
                &format!("{gauge} {amount} {}", plain(&transfer.label)),
                columns,
            )
        };
        self.transfers.values().map(line).collect()
    }

    /// The tests that have been running longest, as many as there are lines.
    fn running_lines(&self, columns: usize, rows: usize, now: Instant) -> Vec<String> {
        let mut running: Vec<&(String, Instant)> = self.running.values().collect();
        running.sort_by_key(|(_, since)| *since);
        let line = |(name, since): &&(String, Instant)| {
            let elapsed = match now.saturating_duration_since(*since).as_secs() {
                0 => "<1s".to_owned(),
                seconds => format!("{seconds}s"),
            };
            let name = printable(name);
            let name = end_of(&name, columns.saturating_sub(elapsed.len() + 1));
            let blanks = columns.saturating_sub(name.width() + elapsed.len());
            format!("{name}{}{elapsed}", " ".repeat(blanks))
        };
        running.iter().take(rows).map(line).collect()
    }

    /// Writes whole lines above the area and draws the area below them, in one go.
    pub(super) fn print(&mut self, out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
        let mut screen = self.erase().into_bytes();
        screen.extend_from_slice(bytes);
        screen.extend_from_slice(self.lines.join("\n").as_bytes());
        self.drawn = self.lines.len();
        out.write_all(&screen)?;
        out.flush()
    }

    /// Takes the area away.
    pub(super) fn hide(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let erase = self.erase();
        self.lines.clear();
        self.drawn = 0;
        out.write_all(erase.as_bytes())?;
        out.flush()
    }

    /// What moves the cursor to the beginning of the area and erases everything from there.
    fn erase(&self) -> String {
        match self.drawn {
            0 => String::new(),
            1 => "\r\x1b[J".into(),
            lines => format!("\r\x1b[{}A\x1b[J", lines - 1),
        }
    }
}

/// The beginning of `text` that fits into `columns`.
fn start_of(text: &str, columns: usize) -> String {
    let mut used = 0;
    text.chars()
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= columns
        })
        .collect()
}

/// A line filled with a colour for each state by the number of tests in it, and those numbers.
fn gauge(progress: &Progress, columns: usize) -> String {
    let Progress {
        total,
        queued,
        pending,
        running,
        complete,
        failed,
        ..
    } = progress;
    let label = format!(
        "{}w {}p {}r {complete}c ({failed}f) / {total}e",
        queued - pending,
        pending - running,
        running - complete,
    );
    let label = start_of(&label, columns);
    let margin = (columns - label.width()) / 2;
    let text = format!("{}{label}", " ".repeat(margin));
    // Where the colours end: complete, running, pending, waiting, and none for those to come.
    let column =
        |tests: u64| (tests as u128 * columns as u128 / u128::from((*total).max(1))) as usize;
    let ends = [
        (column(*complete), 42),
        (column(*running), 44),
        (column(*pending), 43),
        (column(*queued), 41),
    ];
    let mut line = String::new();
    let mut color = None;
    for (at, c) in text
        .chars()
        .chain(std::iter::repeat(' '))
        .take(columns)
        .enumerate()
    {
        let here = ends
            .iter()
            .find(|(end, _)| at < *end)
            .map_or(100, |(_, color)| *color);
        if color != Some(here) {
            // Writing to a string cannot fail.
            let _ = write!(line, "\x1b[0;97;{here}m");
            color = Some(here);
        }
        line.push(c);
    }
    line + "\x1b[0m"
}
