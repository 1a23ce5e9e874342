//! The node whose jobs are run: queue, leases, and outcomes reported once.

mod backlog;
mod grant;
mod peer;
mod record;
mod tail;
mod wake;

use crate::{
    Action, Body, Ignored, Job, JobFailed, JobId, JobRefused, LeaseId, Load, NodeId, Progress,
    context::Context, deadlines::Deadlines, job::Failure,
};
use backlog::Backlog;
use bytes::Bytes;
pub(crate) use grant::Request;
use peer::{Lease, Peer};
use record::{LeasedJob, QueuedJob, Record, Stage};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};
use wake::Waker;

/// How long an unknown job is taken to run before any has ended, in microseconds.
const TYPICAL_FIRST_US: u64 = 1_000_000;

/// Why an origin wakes up by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A node that holds leases may have been silent for too long.
    Silent(NodeId),
    /// A node may have left a revocation unanswered.
    Revoke(NodeId),
    /// More nodes are to be woken.
    Wake,
    /// A job may have run for too long.
    Straggler,
}

/// The origin's half of a dispatcher.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    next_job: u64,
    jobs: BTreeMap<JobId, Record>,
    backlog: Backlog,
    peers: BTreeMap<NodeId, Peer>,
    /// Nodes by how many unstarted leases they hold, those without left out.
    unstarted: BTreeSet<(u32, NodeId)>,
    /// Started leases by when they count as stragglers, those that have run out of copies left
    /// out.
    straggling: BTreeSet<(Instant, LeaseId)>,
    /// Slots over all leases.
    slots_held: u64,
    /// How long jobs take, in microseconds: an average that forgets.
    typical_us: Option<u64>,
    waker: Waker,
    deadlines: Deadlines<Timer>,
}

impl Origin {
    pub(crate) fn submit(&mut self, cx: &mut Context<'_>, job: Job) -> Result<JobId, JobRefused> {
        job.check()?;
        let limit = cx.shared.config.max_jobs;
        if self.jobs.len() >= limit {
            return Err(JobRefused::Full { limit });
        }
        let id = JobId(self.next_job);
        self.next_job += 1;
        self.backlog.push(id, &job);
        self.jobs.insert(id, Record::new(job, cx.now));
        self.waker.queued_ever += 1;
        self.pump(cx);
        Ok(id)
    }

    /// Whether the job was unfinished.
    pub(crate) fn cancel(&mut self, cx: &mut Context<'_>, id: JobId) -> bool {
        let unfinished = self.jobs.contains_key(&id);
        if unfinished {
            self.complete(cx, id, Err(JobFailed::Cancelled), None);
            self.pump(cx);
        }
        unfinished
    }

    /// The node is gone, or starts a new life.
    pub(crate) fn peer_lost(&mut self, cx: &mut Context<'_>, node: NodeId) {
        if self.peers.contains_key(&node) {
            self.void_leases(cx, node, |_, _| true, Some(Failure::Lost));
            self.waker.forget(self.peers.remove(&node).as_ref());
            self.deadlines.set(Timer::Silent(node), None);
            self.deadlines.set(Timer::Revoke(node), None);
            self.pump(cx);
        }
    }

    pub(crate) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        while let Some(timer) = self.deadlines.pop_due(cx.now) {
            match timer {
                Timer::Silent(node) => self.check_silence(cx, node),
                Timer::Revoke(node) => self.check_revocation(cx, node),
                Timer::Wake => {}
                Timer::Straggler => self.wake_for_stragglers(cx),
            }
        }
        self.pump(cx);
    }

    /// The job that is first in the queue.
    pub(crate) fn peek_queued(&self) -> Option<(JobId, &Job)> {
        let (id, _) = self.backlog.head()?;
        Some((id, &self.jobs.get(&id)?.job))
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    fn check_silence(&mut self, cx: &mut Context<'_>, node: NodeId) {
        let Some(peer) = self.peers.get(&node) else {
            return;
        };
        if peer.leases.is_empty() {
            return;
        }
        let config = &cx.shared.config;
        let quiet_at = peer.heard + config.quiet_time;
        let lost_at = peer.heard + config.lease_time;
        if lost_at <= cx.now {
            self.void_leases(cx, node, |_, _| true, Some(Failure::Lost));
        } else if quiet_at > cx.now {
            self.deadlines.set(Timer::Silent(node), Some(quiet_at));
        } else {
            self.deadlines.set(Timer::Silent(node), Some(lost_at));
            // Idle nodes have asked already and wait to be told, so nobody asks for what it holds.
            // It is not asked either: an answer would be a sign of life, also of leases that never
            // arrived.
            if self.backlog.is_empty() && self.waker.any_hungry() {
                self.void_leases(cx, node, |_, lease| lease.started.is_none(), None);
            }
        }
    }

    /// An executor says what became of its leases.
    pub(crate) fn handle_report(
        &mut self,
        cx: &mut Context<'_>,
        from: NodeId,
        progress: Vec<(LeaseId, Progress)>,
    ) {
        self.heard(cx.now, from);
        let mut ended = Vec::new();
        let mut cancel = Vec::new();
        for (lease, progress) in progress {
            let live = self.holds(from, lease);
            match progress {
                Progress::Started if live => self.mark_started(cx, from, lease),
                Progress::Started => cancel.push(lease),
                Progress::Finished(outcome) => {
                    let held = self
                        .jobs
                        .get(&lease.job)
                        .map(|job| job.was_held_by(lease, from));
                    match held {
                        Some(true) => self.finished(cx, from, lease, outcome),
                        Some(false) => {
                            cx.ignore(Ignored::NotItsLease);
                            continue;
                        }
                        None => cx.ignore(Ignored::LateOutcome),
                    }
                    ended.push(lease);
                }
                Progress::Failed(reason) => {
                    if live {
                        self.end_lease(cx, from, lease, Some(Failure::Unable(reason)));
                    }
                    ended.push(lease);
                }
                Progress::Returned => {
                    if live {
                        self.end_lease(cx, from, lease, None);
                    }
                    ended.push(lease);
                }
            }
        }
        if !cancel.is_empty() {
            cx.send(from, Body::Cancel { leases: cancel });
        }
        let load = self.load();
        cx.send(from, Body::Ack { ended, load });
        self.pump(cx);
    }

    /// An executor says what it holds.
    pub(crate) fn handle_holding(
        &mut self,
        cx: &mut Context<'_>,
        from: NodeId,
        settled: u64,
        mut leases: Vec<(LeaseId, bool)>,
    ) {
        self.heard(cx.now, from);
        leases.sort_unstable();
        let mut cancel = Vec::new();
        for &(lease, started) in &leases {
            if !self.holds(from, lease) {
                cancel.push(lease);
            } else if started {
                self.mark_started(cx, from, lease);
            }
        }
        let lost = |id: LeaseId, lease: &Lease| {
            lease.number <= settled && leases.binary_search_by_key(&id, |&(id, _)| id).is_err()
        };
        self.void_leases(cx, from, lost, None);
        if !cancel.is_empty() {
            cx.send(from, Body::Cancel { leases: cancel });
        }
        let load = self.load();
        cx.send(
            from,
            Body::Ack {
                ended: Vec::new(),
                load,
            },
        );
        self.pump(cx);
    }

    fn finished(&mut self, cx: &mut Context<'_>, from: NodeId, lease: LeaseId, outcome: Bytes) {
        let held = self
            .peers
            .get(&from)
            .and_then(|peer| peer.leases.get(&lease));
        if let Some(started) = held.and_then(|lease| lease.started) {
            let run_us = u64::try_from((cx.now - started).as_micros()).unwrap_or(u64::MAX);
            self.typical_us = Some(match self.typical_us {
                Some(typical) => typical - typical / 64 + run_us / 64,
                None => run_us,
            });
        }
        self.complete(cx, lease.job, Ok(outcome), Some(from));
    }

    /// Ends a job for good: reports it, and takes it from everyone who holds it.
    fn complete(
        &mut self,
        cx: &mut Context<'_>,
        id: JobId,
        result: Result<Bytes, JobFailed>,
        finisher: Option<NodeId>,
    ) {
        let Some(record) = self.jobs.remove(&id) else {
            return;
        };
        match record.stage {
            Stage::Queued(_) => {
                let removed = self.backlog.remove(id, &record.job);
                debug_assert!(removed, "a queued job stands in the backlog");
            }
            Stage::Leased(LeasedJob { holders }) => {
                for (lease, node) in holders {
                    self.forget_lease(node, lease);
                    if Some(node) != finisher {
                        cx.send(
                            node,
                            Body::Cancel {
                                leases: vec![lease],
                            },
                        );
                    }
                }
            }
        }
        cx.act(Action::Completed { job: id, result });
    }

    fn heard(&mut self, now: Instant, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.heard = now;
            if peer.revoking.take().is_some() {
                self.deadlines.set(Timer::Revoke(node), None);
            }
        }
    }

    fn holds(&self, node: NodeId, lease: LeaseId) -> bool {
        self.peers
            .get(&node)
            .is_some_and(|peer| peer.leases.contains_key(&lease))
    }

    fn mark_started(&mut self, cx: &mut Context<'_>, node: NodeId, id: LeaseId) {
        let Some(record) = self.jobs.get(&id.job) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let Some(lease) = peer.leases.get_mut(&id) else {
            return;
        };
        if lease.started.is_some() {
            return;
        }
        lease.started = Some(cx.now);
        let config = &cx.shared.config;
        let expected = record.job.rank.estimate.unwrap_or_else(|| {
            std::time::Duration::from_micros(self.typical_us.unwrap_or(TYPICAL_FIRST_US))
        });
        let patience = expected
            .saturating_mul(config.straggler_factor)
            .max(config.straggler_least);
        if let Some(straggles) = cx.now.checked_add(patience)
            && !record.job.needs.local
            && matches!(&record.stage, Stage::Leased(leased) if leased.holders.len() == 1)
        {
            lease.straggles = Some(straggles);
            self.straggling.insert((straggles, id));
        }
        self.count_unstarted(node, -1);
        cx.act(Action::Started { job: id.job, node });
    }

    /// Keeps the index of unstarted leases in step.
    fn count_unstarted(&mut self, node: NodeId, change: i32) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        self.unstarted.remove(&(peer.unstarted, node));
        peer.unstarted = peer.unstarted.saturating_add_signed(change);
        if peer.unstarted > 0 {
            self.unstarted.insert((peer.unstarted, node));
        }
    }

    /// Makes a queued job, or another copy of a leased one, a lease of this node.
    fn lease(&mut self, now: Instant, id: JobId, node: NodeId, number: u64) -> Option<LeaseId> {
        let record = self.jobs.get_mut(&id)?;
        let lease = LeaseId {
            job: id,
            copy: record.copies,
        };
        record.copies += 1;
        match &mut record.stage {
            Stage::Queued(_) => {
                let removed = self.backlog.remove(id, &record.job);
                debug_assert!(removed, "a queued job stands in the backlog");
                record.stage = Stage::Leased(LeasedJob {
                    holders: vec![(lease, node)],
                });
            }
            Stage::Leased(leased) => leased.holders.push((lease, node)),
        }
        let slots = record.job.needs.slots;
        self.slots_held += u64::from(slots);
        let peer = self.peers.entry(node).or_insert_with(|| Peer::new(now));
        if peer.leases.is_empty() {
            peer.heard = now;
        }
        for layer in record.job.layers.iter() {
            peer.remember_layer(layer.id);
        }
        peer.leases.insert(
            lease,
            Lease {
                number,
                slots,
                started: None,
                straggles: None,
            },
        );
        self.count_unstarted(node, 1);
        Some(lease)
    }

    /// Takes a lease off all accounts of its node, leaving the job's record alone.
    fn forget_lease(&mut self, node: NodeId, id: LeaseId) -> Option<Lease> {
        let lease = self.peers.get_mut(&node)?.leases.remove(&id)?;
        self.slots_held -= u64::from(lease.slots);
        if lease.started.is_none() {
            self.count_unstarted(node, -1);
        }
        if let Some(straggles) = lease.straggles {
            self.straggling.remove(&(straggles, id));
        }
        Some(lease)
    }

    /// A lease ended without an outcome: the job goes back to the queue, unless another node still
    /// holds it or too many tries have failed.
    fn end_lease(
        &mut self,
        cx: &mut Context<'_>,
        node: NodeId,
        id: LeaseId,
        failure: Option<Failure>,
    ) {
        if self.forget_lease(node, id).is_none() {
            return;
        }
        let Some(record) = self.jobs.get_mut(&id.job) else {
            return;
        };
        record.remember(id, node);
        if let Some(failure) = failure {
            record.failed(node, failure);
        }
        let Stage::Leased(leased) = &mut record.stage else {
            return;
        };
        leased.holders.retain(|&(lease, _)| lease != id);
        if !leased.holders.is_empty() {
            return;
        }
        // A node that knows no other gains nothing by failing twice more.
        let pointless = cx.view.is_empty()
            && record
                .attempts()
                .last()
                .is_some_and(|attempt| attempt.failure != Failure::Lost);
        if record.attempts().len() >= cx.shared.config.attempts || pointless {
            let attempts = record.attempts().to_vec();
            self.complete(cx, id.job, Err(JobFailed::Attempts(attempts)), None);
            return;
        }
        record.stage = Stage::Queued(QueuedJob { since: cx.now });
        self.backlog.push(id.job, &record.job);
        self.waker.queued_ever += 1;
    }

    /// Ends those leases of a node for which `which` says so. The failure counts only against jobs
    /// that had started.
    fn void_leases(
        &mut self,
        cx: &mut Context<'_>,
        node: NodeId,
        which: impl Fn(LeaseId, &Lease) -> bool,
        failure: Option<Failure>,
    ) {
        let Some(peer) = self.peers.get(&node) else {
            return;
        };
        let void: Vec<(LeaseId, bool)> = peer
            .leases
            .iter()
            .filter(|&(&id, lease)| which(id, lease))
            .map(|(&id, lease)| (id, lease.started.is_some()))
            .collect();
        for (id, started) in void {
            self.end_lease(cx, node, id, failure.clone().filter(|_| started));
        }
    }

    /// What this origin tells of itself.
    pub(crate) fn load(&self) -> Load {
        let layer = self.backlog.head().and_then(|(id, _)| {
            let layers = &self.jobs.get(&id)?.job.layers;
            layers
                .iter()
                .max_by_key(|layer| layer.size_bytes)
                .map(|layer| layer.id)
        });
        Load {
            queued: u32::try_from(self.backlog.len()).unwrap_or(u32::MAX),
            slots_held: u32::try_from(self.slots_held).unwrap_or(u32::MAX),
            layer,
        }
    }

    /// Slots over all leases but those of this node itself.
    pub(crate) fn slots_elsewhere(&self, me: NodeId) -> usize {
        let own = self.peers.get(&me).into_iter();
        let own = own.flat_map(|peer| peer.leases.values());
        let own: u64 = own.map(|lease| u64::from(lease.slots)).sum();
        self.slots_held.saturating_sub(own) as usize
    }

    /// How many jobs have not been reported yet.
    pub(crate) fn unfinished(&self) -> usize {
        self.jobs.len()
    }

    /// Relations between counts. Takes constant time.
    pub(crate) fn check_counts(&self) {
        assert!(
            self.backlog.len() <= self.jobs.len(),
            "no queued job without a record"
        );
        assert!(self.slots_held >= self.jobs.len() as u64 - self.backlog.len() as u64);
    }

    /// Everything. Takes time linear in jobs and leases.
    pub(crate) fn check_invariants(&self) {
        self.check_counts();
        self.backlog.check_invariants(|id| &self.jobs[&id].job);
        let mut leases = 0;
        for (&id, record) in &self.jobs {
            let queued = self
                .backlog
                .class(&record.job.needs)
                .is_some_and(|class| class.contains(&id));
            match &record.stage {
                Stage::Queued(_) => assert!(queued, "{id:?} is queued and not in the backlog"),
                Stage::Leased(leased) => {
                    assert!(!queued, "{id:?} is leased and in the backlog");
                    assert!(!leased.holders.is_empty(), "{id:?} is leased to nobody");
                    leases += leased.holders.len();
                    for &(lease, node) in &leased.holders {
                        assert_eq!(lease.job, id);
                        assert!(lease.copy < record.copies);
                        assert!(
                            self.holds(node, lease),
                            "{lease:?} has no account at {node:?}"
                        );
                    }
                    let nodes: BTreeSet<_> = leased.holders.iter().map(|&(_, node)| node).collect();
                    assert_eq!(
                        nodes.len(),
                        leased.holders.len(),
                        "{id:?} is twice on one node"
                    );
                }
            }
        }
        assert_eq!(
            leases,
            self.peers
                .values()
                .map(|peer| peer.leases.len())
                .sum::<usize>()
        );
        let mut slots = 0;
        let mut straggling = BTreeSet::new();
        let mut unstarted = BTreeSet::new();
        for (&node, peer) in &self.peers {
            let idle = peer
                .leases
                .values()
                .filter(|lease| lease.started.is_none())
                .count() as u32;
            assert_eq!(peer.unstarted, idle, "unstarted leases of {node:?}");
            if idle > 0 {
                unstarted.insert((idle, node));
            }
            slots += peer
                .leases
                .values()
                .map(|lease| u64::from(lease.slots))
                .sum::<u64>();
            straggling.extend(
                peer.leases
                    .iter()
                    .filter_map(|(&id, lease)| Some((lease.straggles?, id))),
            );
        }
        assert_eq!(slots, self.slots_held);
        assert_eq!(unstarted, self.unstarted);
        assert_eq!(straggling, self.straggling);
    }
}
