//! Turns events into what is on the screen. Knows no threads and no clocks but the one handed in.

use super::{
    Style,
    bars::Bars,
    fancy::Fancy,
    line::push_test,
    report::RoundEnd,
    sender::{Counts, Event},
    summary::{SummaryLayout, Tally, push_summary},
};
use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

/// How often the bottom of a terminal changes.
pub(super) const REDRAW_INTERVAL: Duration = Duration::from_millis(100);
/// How long lines wait for others, so that they are written together.
const FLUSH_INTERVAL: Duration = Duration::from_millis(50);
/// As soon as so much is waiting it is written.
const BUFFER_BYTES: usize = 64 << 10;
/// More of what collecting the tests left is not kept.
const MAX_COLLECTION_OUTPUT_BYTES: usize = 16 << 20;

/// Size of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// What the bottom of the screen shows.
pub(super) enum Area {
    /// Nothing: standard output is no terminal.
    None,
    Bars(Bars),
    Fancy(Fancy),
}

/// Where a round is. Each number counts tests in a state or a later one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) status: String,
    pub(super) total: u64,
    pub(super) queued: u64,
    pub(super) pending: u64,
    pub(super) running: u64,
    pub(super) complete: u64,
    pub(super) failed: u64,
}

/// The screen and what of a round has been shown on it.
pub(super) struct Screen {
    pub(super) style: Style,
    pub(super) listing: bool,
    pub(super) color: bool,
    pub(super) size: Size,
    area: Area,
    out: Box<dyn Write + Send>,
    /// Whole lines that are not yet written.
    buffer: Vec<u8>,
    buffered_since: Option<Instant>,
    redraw_at: Instant,
    tally: Tally,
    collection_output: Vec<u8>,
    collection_output_dropped: usize,
    progress: Progress,
    /// Writing failed: nothing is written any more.
    failure: Option<io::Error>,
}

impl Screen {
    pub(super) fn new(
        style: Style,
        listing: bool,
        color: bool,
        size: Size,
        area: Area,
        out: Box<dyn Write + Send>,
        now: Instant,
    ) -> Self {
        Screen {
            style,
            listing,
            color,
            size,
            area,
            out,
            buffer: Vec::new(),
            buffered_since: None,
            redraw_at: now,
            tally: Tally::default(),
            collection_output: Vec::new(),
            collection_output_dropped: 0,
            progress: Progress::default(),
            failure: None,
        }
    }

    /// When [`Screen::advance`] has something to do next, if nothing happens.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match self.area {
            Area::None => self.buffered_since.map(|since| since + FLUSH_INTERVAL),
            _ => Some(self.redraw_at),
        }
    }

    /// Takes note of an event. All but [`Event::Quit`] are known here.
    pub(super) fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Status(status) => self.progress.status = status,
            Event::Running { job, name } => {
                if let Area::Fancy(fancy) = &mut self.area {
                    fancy.running(job, name, now);
                }
            }
            Event::Finished(report) => {
                self.tally.add(&report);
                if let Area::Fancy(fancy) = &mut self.area {
                    fancy.finished(&report);
                }
                if self.style != Style::Quiet && !self.listing {
                    push_test(&mut self.buffer, &report, self.size.columns, self.color);
                }
            }
            Event::Line(line) => {
                self.buffer.extend_from_slice(line.as_bytes());
                self.buffer.push(b'\n');
            }
            Event::Log(bytes) => self.push_lines(&bytes),
            Event::BuildOutput(bytes) => {
                if let Area::Fancy(fancy) = &mut self.area {
                    fancy.build_output(&bytes);
                }
            }
            Event::CollectionOutput(bytes) => {
                let room = MAX_COLLECTION_OUTPUT_BYTES - self.collection_output.len();
                let kept = bytes.len().min(room);
                self.collection_output.extend_from_slice(&bytes[..kept]);
                self.collection_output_dropped += bytes.len() - kept;
            }
            Event::Transfer {
                id,
                label,
                bytes,
                total,
            } => match &mut self.area {
                Area::None => {}
                Area::Bars(bars) => bars.transfer(id, &label, bytes, total),
                Area::Fancy(fancy) => fancy.transfer(id, label, bytes, total),
            },
            Event::TransferDone(id) => match &mut self.area {
                Area::None => {}
                Area::Bars(bars) => bars.transfer_done(id),
                Area::Fancy(fancy) => fancy.transfer_done(id),
            },
            Event::RoundEnd(end, counts) => self.end_round(end, counts),
            Event::Quit => {}
        }
        if !self.buffer.is_empty() && self.buffered_since.is_none() {
            self.buffered_since = Some(now);
        }
        if self.buffer.len() >= BUFFER_BYTES {
            self.write_buffer();
        }
    }

    fn push_lines(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        if !bytes.is_empty() && !bytes.ends_with(b"\n") {
            self.buffer.push(b'\n');
        }
    }

    fn end_round(&mut self, end: RoundEnd, counts: Counts) {
        if !self.listing {
            let layout = SummaryLayout {
                columns: self.size.columns,
                color: self.color,
                ruled: self.style != Style::Fancy,
            };
            push_summary(&mut self.buffer, &self.tally, end, counts, layout);
        }
        let output = std::mem::take(&mut self.collection_output);
        if output.is_empty() && self.style == Style::Simple {
            self.buffer.push(b'\n');
        }
        self.push_lines(&output);
        if self.collection_output_dropped > 0 {
            let dropped = std::mem::take(&mut self.collection_output_dropped);
            self.push_lines(
                format!("({dropped} more bytes of this output are not shown)").as_bytes(),
            );
        }
        self.tally = Tally::default();
        self.progress = Progress::default();
        if let Area::Fancy(fancy) = &mut self.area {
            fancy.clear_round();
        }
        self.write_without_area();
    }

    /// Writes what is waiting and leaves nothing below it.
    fn write_without_area(&mut self) {
        if matches!(self.area, Area::Fancy(_)) {
            self.clear_area();
        }
        self.write_buffer();
        self.clear_area();
    }

    /// Writes and draws what is due.
    pub(super) fn advance(&mut self, counts: Counts, now: Instant) {
        match &mut self.area {
            Area::None => {
                if self
                    .buffered_since
                    .is_some_and(|since| since + FLUSH_INTERVAL <= now)
                {
                    self.write_buffer();
                }
            }
            _ if now < self.redraw_at => {}
            _ => {
                self.redraw_at = now + REDRAW_INTERVAL;
                self.note_progress(counts);
                if let Area::Bars(bars) = &mut self.area {
                    bars.update(&self.progress);
                }
                if let Area::Fancy(fancy) = &mut self.area {
                    fancy.update(&self.progress, self.size, now);
                }
                self.write_buffer();
            }
        }
    }

    /// A test that is complete has been through all states, whether or not they were reported.
    fn note_progress(&mut self, counts: Counts) {
        let complete = self.tally.finished();
        let progress = &mut self.progress;
        progress.complete = complete;
        progress.failed = self.tally.failed.len() as u64;
        progress.running = counts.running + self.tally.ignored.len() as u64;
        progress.running = progress.running.max(complete);
        progress.pending = counts.pending.max(progress.running);
        progress.queued = counts.queued.max(progress.pending);
        progress.total = progress.total.max(counts.expected).max(progress.queued);
    }

    fn write_buffer(&mut self) {
        self.buffered_since = None;
        if self.failure.is_none()
            && let Err(error) = self.try_write_buffer()
        {
            self.failure = Some(error);
        }
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES);
    }

    fn try_write_buffer(&mut self) -> io::Result<()> {
        match &mut self.area {
            Area::Bars(bars) if !self.buffer.is_empty() => bars.print(&mut self.out, &self.buffer),
            Area::Fancy(fancy) => fancy.print(&mut self.out, &self.buffer),
            _ if self.buffer.is_empty() => Ok(()),
            _ => {
                self.out.write_all(&self.buffer)?;
                self.out.flush()
            }
        }
    }

    fn clear_area(&mut self) {
        match &mut self.area {
            Area::None => {}
            Area::Bars(bars) => bars.clear(),
            Area::Fancy(fancy) => {
                if self.failure.is_none() {
                    // Nothing follows that could be lost.
                    let _ = fancy.hide(&mut self.out);
                }
            }
        }
    }

    /// Writes what is left and takes the bars away.
    pub(super) fn finish(&mut self) {
        self.write_without_area();
    }

    /// Whether writing has failed.
    pub(super) fn is_broken(&self) -> bool {
        self.failure.is_some()
    }

    /// Why writing failed, unless it was only that nobody reads.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure
            .take()
            .filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
    }
}
