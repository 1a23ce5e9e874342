//! Jobs that a node holds for one origin, a different type at each stage.

use crate::{Job, LeaseId, Load, Progress, Queue};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Waits for its layers. The driver owes `layers_ready` or `layers_failed`.
#[derive(Clone, Debug)]
pub(crate) struct FetchingJob {
    pub(crate) job: Job,
}

/// Waits for a slot. Nobody owes anything.
#[derive(Clone, Debug)]
pub(crate) struct ReadyJob {
    pub(crate) job: Job,
}

/// Has its slots. The driver owes `job_ended`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunningJob {
    pub(crate) slots: u16,
    pub(crate) since: Instant,
}

/// Is to be no more, and has its slots until then. The driver owes `job_ended`; the origin is not
/// to hear of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KillingJob {
    pub(crate) slots: u16,
}

/// Has ended here. The origin owes an acknowledgement.
#[derive(Clone, Debug)]
pub(crate) struct EndedJob {
    pub(crate) progress: Progress,
}

/// An open request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) number: u64,
    pub(crate) slots: u16,
    pub(crate) prefetch: bool,
    /// Free slots that wait for the answer.
    pub(crate) kept_free: u32,
    pub(crate) sent: Instant,
    /// How often it was repeated.
    pub(crate) repeats: u32,
    pub(crate) repeat_at: Instant,
}

/// Everything between this node and one origin.
#[derive(Debug)]
pub(crate) struct Pair {
    /// What the origin last told of itself.
    pub(crate) load: Load,
    /// Whether it is worth asking.
    pub(crate) has_work: bool,
    pub(crate) asked: Option<Asked>,
    pub(crate) fetching: BTreeMap<LeaseId, FetchingJob>,
    pub(crate) ready: BTreeMap<LeaseId, ReadyJob>,
    /// The ready ones, in the order of starting.
    pub(crate) queue: Queue<LeaseId>,
    pub(crate) running: BTreeMap<LeaseId, RunningJob>,
    pub(crate) killing: BTreeMap<LeaseId, KillingJob>,
    pub(crate) ended: BTreeMap<LeaseId, EndedJob>,
    /// Said at the end of this event.
    pub(crate) report: Vec<(LeaseId, Progress)>,
    /// Slots of running jobs.
    pub(crate) running_slots: u32,
    /// Slots of fetching and ready jobs.
    pub(crate) waiting_slots: u32,
    /// The count of starts on this node at the last start for this origin.
    pub(crate) served: u64,
    pub(crate) heard: Instant,
    pub(crate) holding_at: Instant,
    /// When the ends that are not acknowledged are told again, and how long after that.
    pub(crate) repeat_ends: Option<(Instant, Duration)>,
}

impl Pair {
    pub(crate) fn new(now: Instant) -> Self {
        Pair {
            load: Load::default(),
            has_work: false,
            asked: None,
            fetching: BTreeMap::new(),
            ready: BTreeMap::new(),
            queue: Queue::new(),
            running: BTreeMap::new(),
            killing: BTreeMap::new(),
            ended: BTreeMap::new(),
            report: Vec::new(),
            running_slots: 0,
            waiting_slots: 0,
            served: 0,
            heard: now,
            holding_at: now,
            repeat_ends: None,
        }
    }

    /// How many leases are held, in whatever stage the origin may hear of.
    pub(crate) fn held(&self) -> usize {
        self.fetching.len() + self.ready.len() + self.running.len() + self.ended.len()
    }

    /// Slots that are taken, or will be by what waits here or has been asked for.
    pub(crate) fn slots_in_view(&self) -> u32 {
        let asked = self.asked.map_or(0, |asked| u32::from(asked.slots));
        self.running_slots + self.waiting_slots + asked
    }

    /// Whether the lease is here in any stage.
    pub(crate) fn knows(&self, lease: LeaseId) -> bool {
        self.fetching.contains_key(&lease)
            || self.ready.contains_key(&lease)
            || self.running.contains_key(&lease)
            || self.killing.contains_key(&lease)
            || self.ended.contains_key(&lease)
    }

    /// Whether nothing would be lost with this.
    pub(crate) fn is_idle(&self) -> bool {
        self.held() == 0
            && self.killing.is_empty()
            && self.asked.is_none()
            && self.report.is_empty()
    }

    pub(crate) fn check_invariants(&self) {
        let keys = |keys: &mut dyn Iterator<Item = &LeaseId>| keys.copied().collect::<Vec<_>>();
        let mut all = keys(&mut self.fetching.keys());
        all.extend(keys(&mut self.ready.keys()));
        all.extend(keys(&mut self.running.keys()));
        all.extend(keys(&mut self.ended.keys()));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "a lease is in one stage");
        // A job that is returned while it runs has ended for its origin before it is dead.
        let dying = |lease: &LeaseId| self.killing.contains_key(lease);
        assert!(
            all.iter()
                .all(|lease| !dying(lease) || self.ended.contains_key(lease))
        );
        self.queue.check_invariants();
        assert_eq!(self.queue.len(), self.ready.len());
        for (lease, rank) in self.queue.iter() {
            assert_eq!(self.ready[&lease].job.rank, rank);
        }
        let running: u32 = self.running.values().map(|job| u32::from(job.slots)).sum();
        assert_eq!(running, self.running_slots);
        let fetching = self.fetching.values().map(|fetching| &fetching.job);
        let waiting = fetching.chain(self.ready.values().map(|ready| &ready.job));
        let waiting: u32 = waiting.map(|job| u32::from(job.needs.slots)).sum();
        assert_eq!(waiting, self.waiting_slots);
        assert!(
            self.report.is_empty(),
            "everything is said at the end of an event"
        );
    }
}
