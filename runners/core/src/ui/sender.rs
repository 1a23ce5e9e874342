//! The side of the UI that the runner talks to.

use super::{
    LogWriter, Style,
    report::{RoundEnd, TestReport},
};
use crossbeam_channel::Sender;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

/// Numbers of tests. Each counts those that reached a state, also if they have left it since.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) expected: AtomicU64,
    pub(super) queued: AtomicU64,
    pub(super) pending: AtomicU64,
    pub(super) running: AtomicU64,
}

/// [`Counters`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) expected: u64,
    pub(super) queued: u64,
    pub(super) pending: u64,
    pub(super) running: u64,
}

impl Counters {
    pub(super) fn get(&self) -> Counts {
        Counts {
            expected: self.expected.load(Relaxed),
            queued: self.queued.load(Relaxed),
            pending: self.pending.load(Relaxed),
            running: self.running.load(Relaxed),
        }
    }

    fn take(&self) -> Counts {
        Counts {
            expected: self.expected.swap(0, Relaxed),
            queued: self.queued.swap(0, Relaxed),
            pending: self.pending.swap(0, Relaxed),
            running: self.running.swap(0, Relaxed),
        }
    }
}

/// Names a transfer while it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId(
    /// Any number that no other transfer has at the time.
    pub u64,
);

/// What is sent to the thread that owns the screen.
#[derive(Debug)]
pub(super) enum Event {
    Status(String),
    Running {
        job: u64,
        name: String,
    },
    Finished(Box<TestReport>),
    Line(String),
    Log(Vec<u8>),
    BuildOutput(Vec<u8>),
    CollectionOutput(Vec<u8>),
    Transfer {
        id: TransferId,
        label: String,
        bytes: u64,
        total: Option<u64>,
    },
    TransferDone(TransferId),
    RoundEnd(RoundEnd, Counts),
    /// Ends the thread.
    Quit,
}

/// Tells the UI what happens. Cheap to clone, and can be used from every thread. Calls wait while the
/// screen is slower than the tests; what is still waiting is bounded.
///
/// A test goes through `queued`, `pending`, `running` and `finished` in this order; states may be
/// left out. All numbers and names are those of the current round, which [`UiSender::end_round`]
/// ends.
#[derive(Clone, Debug)]
pub struct UiSender {
    pub(super) events: Sender<Event>,
    pub(super) counters: Arc<Counters>,
    pub(super) closed: Arc<AtomicBool>,
    pub(super) style: Style,
    pub(super) is_terminal: bool,
}

impl UiSender {
    /// What is being done, such as `building artifacts...`; an empty text if nothing in particular.
    pub fn status(&self, status: &str) {
        if self.is_terminal {
            self.send(Event::Status(status.to_owned()));
        }
    }

    /// How many tests there will be, as predicted from an earlier run.
    pub fn expect(&self, tests: u64) {
        self.counters.expected.fetch_max(tests, Relaxed);
    }

    /// So many more tests were found and selected, ignored ones included.
    pub fn queued(&self, tests: u64) {
        self.counters.queued.fetch_add(tests, Relaxed);
    }

    /// What a test needs is there; it waits to be run.
    pub fn pending(&self) {
        self.counters.pending.fetch_add(1, Relaxed);
    }

    /// A test runs, on another node if that is named; perhaps again, because a node was lost.
    pub fn running(&self, job: u64, name: &str, node: Option<&str>, again: bool) {
        if !again {
            self.counters.running.fetch_add(1, Relaxed);
        }
        if self.style == Style::Fancy {
            let name = match node {
                Some(node) => format!("{name} (on {node})"),
                None => name.to_owned(),
            };
            self.send(Event::Running { job, name });
        }
    }

    /// A test ended, or is not to be run.
    pub fn finished(&self, mut report: TestReport) {
        if !report.verdict.is_failure() {
            // Never shown, and may be large.
            report.stdout.bytes = Vec::new();
            report.stderr.bytes = Vec::new();
        }
        self.send(Event::Finished(Box::new(report)));
    }

    /// A line of a listing.
    pub fn line(&self, line: &str) {
        self.send(Event::Line(line.to_owned()));
    }

    /// Something that the build tool wrote, for styles that show it at once.
    pub fn build_output(&self, bytes: &[u8]) {
        if self.style == Style::Fancy {
            self.send(Event::BuildOutput(bytes.to_vec()));
        }
    }

    /// Something that collecting the tests left, such as a compiler's warnings; shown at the end
    /// of the round.
    pub fn collection_output(&self, bytes: &[u8]) {
        self.send(Event::CollectionOutput(bytes.to_vec()));
    }

    /// So much of an upload or download is done.
    pub fn transfer(&self, id: TransferId, label: &str, bytes: u64, total: Option<u64>) {
        if self.is_terminal {
            let label = label.to_owned();
            self.send(Event::Transfer {
                id,
                label,
                bytes,
                total,
            });
        }
    }

    /// A transfer is over.
    pub fn transfer_done(&self, id: TransferId) {
        if self.is_terminal {
            self.send(Event::TransferDone(id));
        }
    }

    /// The round is over: shows the summary, unless listing, and what collecting left.
    pub fn end_round(&self, end: RoundEnd) {
        let counts = self.counters.take();
        self.send(Event::RoundEnd(end, counts));
    }

    /// Whether nobody reads what is written any more, so that the run may as well stop.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Whether what tools write should be in colour.
    pub fn has_color(&self) -> bool {
        super::thread::has_color(self.is_terminal)
    }

    /// A writer for log lines.
    pub fn log_writer(&self) -> LogWriter {
        LogWriter {
            sender: self.clone(),
        }
    }

    /// Sends an event. Says whether anybody will get it.
    pub(super) fn send(&self, event: Event) -> bool {
        self.events.send(event).is_ok()
    }
}
