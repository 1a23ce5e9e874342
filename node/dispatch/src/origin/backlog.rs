//! Jobs of this node that nobody runs yet.

use crate::{Job, JobId, Queue, Rank, Requirements};
use std::{collections::BTreeMap, sync::Arc};

/// Queued jobs, by what they need, with sums over all of them.
///
/// Jobs that need the same stand in one queue, so that a node that asks for work never makes the
/// origin look through jobs that this node cannot run.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    classes: BTreeMap<Arc<Requirements>, Queue<JobId>>,
    jobs: usize,
    slots: u64,
    /// The work of jobs with an estimate, in slot-microseconds.
    known_us: u64,
    /// The slots of jobs without one.
    unknown_slots: u64,
}

impl Backlog {
    pub(crate) fn push(&mut self, id: JobId, job: &Job) {
        self.classes
            .entry(Arc::clone(&job.needs))
            .or_default()
            .push(id, job.rank);
        self.jobs += 1;
        self.slots += u64::from(job.needs.slots);
        match job.work_us() {
            Some(work) => self.known_us += work,
            None => self.unknown_slots += u64::from(job.needs.slots),
        }
    }

    pub(crate) fn remove(&mut self, id: JobId, job: &Job) -> bool {
        let Some(queue) = self.classes.get_mut(&job.needs) else {
            return false;
        };
        if !queue.remove(&id) {
            return false;
        }
        if queue.is_empty() {
            self.classes.remove(&job.needs);
        }
        self.jobs -= 1;
        self.slots -= u64::from(job.needs.slots);
        match job.work_us() {
            Some(work) => self.known_us -= work,
            None => self.unknown_slots -= u64::from(job.needs.slots),
        }
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.jobs
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.jobs == 0
    }

    /// Slots that all queued jobs would take at once.
    pub(crate) fn slots(&self) -> u64 {
        self.slots
    }

    /// All work, in slot-microseconds, where a job without an estimate counts as `typical_us`.
    pub(crate) fn work_us(&self, typical_us: u64) -> u64 {
        self.known_us
            .saturating_add(self.unknown_slots.saturating_mul(typical_us))
    }

    /// Every kind of requirement that a queued job has. Seldom more than a few.
    pub(crate) fn classes(&self) -> impl Iterator<Item = &Arc<Requirements>> {
        self.classes.keys()
    }

    /// Jobs of one class in order.
    pub(crate) fn class(&self, needs: &Requirements) -> Option<&Queue<JobId>> {
        self.classes.get(needs)
    }

    /// Who is next of all.
    pub(crate) fn head(&self) -> Option<(JobId, Rank)> {
        self.classes
            .values()
            .filter_map(Queue::peek)
            .min_by_key(|&(_, rank)| rank)
    }

    pub(crate) fn check_invariants<'a>(&self, job: impl Fn(JobId) -> &'a Job) {
        let mut twin = Backlog::default();
        for (needs, queue) in &self.classes {
            queue.check_invariants();
            assert!(!queue.is_empty(), "no class is kept without jobs");
            for (id, rank) in queue.iter() {
                let job = job(id);
                assert_eq!(
                    (&job.needs, job.rank),
                    (needs, rank),
                    "{id:?} stands in its class"
                );
                twin.push(id, job);
            }
        }
        assert_eq!(
            (self.jobs, self.slots, self.known_us, self.unknown_slots),
            (twin.jobs, twin.slots, twin.known_us, twin.unknown_slots),
            "the sums of the backlog are those over its jobs"
        );
    }
}
