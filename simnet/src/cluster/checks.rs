//! What must hold, whatever happens.

use std::{fmt, time::Duration};

use crate::kernel::{Record, Time, Trace};

/// The promises that are checked, each by its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Invariant {
    /// An unfinished job is known to its origin, as long as that lives.
    NoJobLost,
    /// A job's end is reported once, and with its own outcome.
    ReportedOnce,
    /// Once faults have stopped, every job of a live origin ends.
    EveryJobEnds,
    /// No node runs more than its slots.
    WithinSlots,
    /// A cancelled job runs nowhere after a while.
    CancelledStops,
    /// No origin stays below its share of the slots while another is above its own.
    FairShares,
    /// In a connected part of the mesh that has settled, at most one node coordinates.
    OneCoordinator,
    /// Nobody is elected in a term that isn't above all it knew, in all its lives.
    TermsGrow,
    /// Once faults have stopped, all nodes know the same.
    ViewsConverge,
}

impl Invariant {
    /// The name under which a broken one is reported.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoJobLost => "no_job_lost",
            Self::ReportedOnce => "reported_once",
            Self::EveryJobEnds => "every_job_ends",
            Self::WithinSlots => "within_slots",
            Self::CancelledStops => "cancelled_stops",
            Self::FairShares => "fair_shares",
            Self::OneCoordinator => "one_coordinator",
            Self::TermsGrow => "terms_grow",
            Self::ViewsConverge => "views_converge",
        }
    }
}

/// A promise that was broken.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Which.
    pub invariant: Invariant,
    /// When.
    pub at: Time,
    /// What was seen.
    pub seen: String,
    /// What happened just before, oldest first.
    pub last: Vec<Record>,
}

impl Broken {
    pub(crate) fn new(invariant: Invariant, at: Time, trace: &Trace, seen: String) -> Self {
        Self {
            invariant,
            at,
            seen,
            last: trace.last().copied().collect(),
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.invariant.name();
        writeln!(
            f,
            "invariant {name} is broken at {}: {}",
            self.at, self.seen
        )?;
        writeln!(f, "the last events before:")?;
        self.last
            .iter()
            .try_for_each(|record| writeln!(f, "  {record}"))
    }
}

impl std::error::Error for Broken {}

/// How long things may take before they count as broken.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// After a cancel, until the job runs nowhere: a lease, if its node cannot be reached.
    pub cancelled_stops: Duration,
    /// Below one's share while another is above: until its longest jobs have ended.
    pub unfair: Duration,
    /// After the last fault, until all jobs have ended.
    pub jobs_end: Duration,
    /// After the last fault, until views agree.
    pub views_converge: Duration,
    /// After views agree in a part of the mesh, until it has at most one coordinator.
    pub one_coordinator: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            cancelled_stops: Duration::from_secs(15),
            unfair: Duration::from_secs(15),
            jobs_end: Duration::from_secs(180),
            views_converge: Duration::from_secs(120),
            one_coordinator: Duration::from_secs(15),
        }
    }
}
