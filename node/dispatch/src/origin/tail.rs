//! When the queue is empty and nodes are idle: work is taken back, and slow jobs run twice.

use super::{Origin, Peer, Stage, Timer, grant::Request};
use crate::{Body, JobId, LeaseId, NodeId, context::Context};
use std::time::Instant;

/// How many candidates are looked at before a request goes away empty.
const LOOK_AT: usize = 16;

impl Origin {
    /// What an idle node gets that finds the queue empty: a second copy of a job that runs for too
    /// long, else a promise (unstarted work of the node that holds the most is asked back).
    pub(super) fn choose_at_tail(
        &mut self,
        cx: &mut Context<'_>,
        node: NodeId,
        request: Request,
    ) -> Vec<LeaseId> {
        if let Some((straggles, id)) = self.straggler_for(cx, node) {
            self.straggling.remove(&(straggles, id));
            let holder = self.holder(id);
            let lease = holder.and_then(|holder| self.peers.get_mut(&holder)?.leases.get_mut(&id));
            if let Some(lease) = lease {
                lease.straggles = None;
            }
            return self
                .lease(cx.now, id.job, node, request.number)
                .into_iter()
                .collect();
        }
        let loaded = self
            .unstarted
            .iter()
            .rev()
            .take(LOOK_AT)
            .find(|&&(_, holder)| {
                let worth_asking = |peer: &Peer| {
                    peer.revoking.is_none() && self.holds_something_for(cx, peer, node)
                };
                holder != node && self.peers.get(&holder).is_some_and(worth_asking)
            });
        if let Some(&(unstarted, holder)) = loaded {
            cx.send(
                holder,
                Body::Revoke {
                    count: unstarted.div_ceil(2),
                },
            );
            if let Some(peer) = self.peers.get_mut(&holder) {
                peer.revoking = Some(cx.now);
                let answer_by = cx.now + cx.shared.config.revoke_time;
                self.deadlines.set(Timer::Revoke(holder), Some(answer_by));
            }
        }
        Vec::new()
    }

    /// Whether an unstarted lease of a peer, among the last few, is better off at this node.
    fn holds_something_for(&self, cx: &Context<'_>, peer: &Peer, node: NodeId) -> bool {
        let unstarted = peer
            .leases
            .iter()
            .rev()
            .filter(|(_, lease)| lease.started.is_none());
        unstarted.take(LOOK_AT).any(|(id, _)| {
            let record = self.jobs.get(&id.job);
            record.is_some_and(|record| self.is_worth_moving(cx, &record.job, node))
        })
    }

    fn holder(&self, lease: LeaseId) -> Option<NodeId> {
        let holders = self.jobs.get(&lease.job)?.holders();
        holders
            .iter()
            .find(|&&(id, _)| id == lease)
            .map(|&(_, node)| node)
    }

    /// A lease that has run for too long and whose job this node could run as well.
    fn straggler_for(&self, cx: &Context<'_>, node: NodeId) -> Option<(Instant, LeaseId)> {
        let capabilities = cx.capabilities(node)?;
        let due = self
            .straggling
            .iter()
            .take_while(|(at, _)| *at <= cx.now)
            .take(LOOK_AT);
        due.copied().find(|&(_, lease)| {
            self.jobs.get(&lease.job).is_some_and(|record| {
                capabilities.satisfy(&record.job.needs)
                    && record.holders().iter().all(|&(_, holder)| holder != node)
                    && record.attempts().iter().all(|attempt| attempt.node != node)
            })
        })
    }

    /// Makes sure that this origin wakes up when a job has run for too long and someone is idle.
    pub(super) fn watch_stragglers(&mut self, now: Instant) {
        let first = self.straggling.first().map(|&(at, _)| at);
        match first {
            Some(at) if self.backlog.is_empty() && self.waker.any_hungry() => {
                if self.deadlines.get(Timer::Straggler).is_none() {
                    self.deadlines.set(Timer::Straggler, Some(at.max(now)));
                }
            }
            _ => self.deadlines.set(Timer::Straggler, None),
        }
    }

    /// Jobs have run for too long: idle nodes are woken to run them as well.
    pub(super) fn wake_for_stragglers(&mut self, cx: &mut Context<'_>) {
        if !self.backlog.is_empty() {
            return;
        }
        let due: Vec<JobId> = self
            .straggling
            .iter()
            .take_while(|(at, _)| *at <= cx.now)
            .take(LOOK_AT)
            .map(|&(_, lease)| lease.job)
            .collect();
        for id in &due {
            let Some(record) = self.jobs.get(id) else {
                continue;
            };
            debug_assert!(matches!(record.stage, Stage::Leased(_)));
            let holders: Vec<NodeId> = record.holders().iter().map(|&(_, node)| node).collect();
            let needs = record.job.needs.clone();
            let fits = |cx: &Context<'_>, node: NodeId| {
                !holders.contains(&node)
                    && cx
                        .capabilities(node)
                        .is_some_and(|offered| offered.satisfy(&needs))
            };
            if let Some(node) = self.waker.find_hungry(cx, fits, LOOK_AT) {
                self.wake(cx, node, 1);
            }
        }
        if !due.is_empty() {
            let again = cx.now + cx.shared.config.wake_interval;
            self.deadlines.set(Timer::Straggler, Some(again));
        }
    }

    /// A node has left a revocation unanswered: what it has not started runs elsewhere.
    pub(super) fn check_revocation(&mut self, cx: &mut Context<'_>, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        if peer.revoking.take().is_some() {
            self.void_leases(cx, node, |_, lease| lease.started.is_none(), None);
        }
    }
}
