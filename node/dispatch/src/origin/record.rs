//! A job at its origin, a different type at each stage.

use crate::{Attempt, Job, LeaseId, NodeId, job::Failure};
use std::time::Instant;

/// How many ended leases of a job are remembered, for outcomes that come late.
const MAX_PAST: usize = 8;

/// An unfinished job.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) job: Job,
    pub(crate) stage: Stage,
    /// How many leases it has had.
    pub(crate) copies: u32,
    history: Option<Box<History>>,
}

/// Where it is.
#[derive(Debug)]
pub(crate) enum Stage {
    /// In the backlog.
    Queued(QueuedJob),
    /// Somewhere else.
    Leased(LeasedJob),
}

/// A job in the backlog. Nobody owes a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueuedJob {
    /// Since when.
    pub(crate) since: Instant,
}

/// A job that one node holds, or several at the tail. Each of them owes its end, or its silence.
#[derive(Debug)]
pub(crate) struct LeasedJob {
    /// Never empty, never the same node twice.
    pub(crate) holders: Vec<(LeaseId, NodeId)>,
}

/// What most jobs never have.
#[derive(Debug, Default)]
struct History {
    past: Vec<(LeaseId, NodeId)>,
    attempts: Vec<Attempt>,
}

impl Record {
    pub(crate) fn new(job: Job, now: Instant) -> Self {
        Record {
            job,
            stage: Stage::Queued(QueuedJob { since: now }),
            copies: 0,
            history: None,
        }
    }

    pub(crate) fn holders(&self) -> &[(LeaseId, NodeId)] {
        match &self.stage {
            Stage::Queued(_) => &[],
            Stage::Leased(leased) => &leased.holders,
        }
    }

    /// Whether this lease was ever this node's.
    pub(crate) fn was_held_by(&self, lease: LeaseId, node: NodeId) -> bool {
        let past = self.history.iter().flat_map(|history| &history.past);
        self.holders()
            .iter()
            .chain(past)
            .any(|&held| held == (lease, node))
    }

    pub(crate) fn remember(&mut self, lease: LeaseId, node: NodeId) {
        let past = &mut self.history.get_or_insert_default().past;
        if past.len() == MAX_PAST {
            past.remove(0);
        }
        past.push((lease, node));
    }

    pub(crate) fn failed(&mut self, node: NodeId, failure: Failure) {
        self.history
            .get_or_insert_default()
            .attempts
            .push(Attempt { node, failure });
    }

    pub(crate) fn attempts(&self) -> &[Attempt] {
        self.history
            .as_ref()
            .map_or(&[], |history| &history.attempts)
    }
}
