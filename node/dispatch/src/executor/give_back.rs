//! How a node parts with jobs that it has not finished.

use super::{Executor, FetchingJob, KillingJob, ReadyJob, RunningJob};
use crate::{Action, Body, Held, LeaseId, NodeId, Progress, context::Context};

impl Executor {
    /// Where nothing is lent, gives unstarted jobs of others back, and running ones if asked to.
    pub(super) fn hand_back(&mut self, cx: &mut Context<'_>, running_too: bool) {
        let me = cx.me();
        if self.lends(me) {
            return;
        }
        let others: Vec<NodeId> = self
            .origins
            .keys()
            .copied()
            .filter(|&node| node != me)
            .collect();
        for origin in others {
            self.return_unstarted(cx, origin, usize::MAX, 0);
            let Some(pair) = self.origins.get(&origin) else {
                continue;
            };
            let running: Vec<LeaseId> = pair.running.keys().copied().collect();
            for lease in running.into_iter().filter(|_| running_too) {
                self.kill(cx, Held { origin, lease });
                self.end(Held { origin, lease }, Progress::Returned);
            }
        }
    }

    /// An origin takes jobs back, started or not.
    pub(crate) fn handle_cancel(&mut self, cx: &mut Context<'_>, from: NodeId, leases: &[LeaseId]) {
        self.heard(cx.now, from);
        for &lease in leases {
            self.discard(
                cx,
                Held {
                    origin: from,
                    lease,
                },
            );
        }
        self.settle(cx);
    }

    /// An origin wants unstarted jobs back.
    pub(crate) fn handle_revoke(&mut self, cx: &mut Context<'_>, from: NodeId, count: u32) {
        self.heard(cx.now, from);
        // What waits for its layers and not for a slot would start no sooner elsewhere.
        let free = u32::from(self.slots_free(cx.shared.offer.slots));
        self.return_unstarted(cx, from, usize::try_from(count).unwrap_or(usize::MAX), free);
        if self
            .origins
            .get(&from)
            .is_none_or(|pair| pair.report.is_empty())
        {
            // A sign of life, so that the origin does not take the jobs for lost.
            cx.send(from, Body::Report(Vec::new()));
        }
        self.settle(cx);
    }

    /// The origin is gone, or starts a new life: its jobs are nobody's.
    pub(crate) fn origin_lost(&mut self, cx: &mut Context<'_>, origin: NodeId) {
        let Some(pair) = self.origins.get_mut(&origin) else {
            return;
        };
        pair.asked = None;
        pair.has_work = false;
        pair.report.clear();
        let leases: Vec<LeaseId> = pair
            .fetching
            .keys()
            .chain(pair.ready.keys())
            .chain(pair.running.keys())
            .chain(pair.ended.keys())
            .copied()
            .collect();
        for lease in leases {
            self.discard(cx, Held { origin, lease });
        }
        self.settle(cx);
    }

    /// Takes a job that has not started out of its stage; whether it was there. The lease still
    /// counts as held.
    pub(super) fn drop_unstarted(&mut self, held: Held) -> bool {
        let Some(pair) = self.origins.get_mut(&held.origin) else {
            return false;
        };
        let job = match pair.fetching.remove(&held.lease) {
            Some(FetchingJob { job }) => job,
            None => match pair.ready.remove(&held.lease) {
                Some(ReadyJob { job }) => {
                    pair.queue.remove(&held.lease);
                    job
                }
                None => return false,
            },
        };
        pair.waiting_slots -= u32::from(job.needs.slots);
        self.waiting -= u32::from(job.needs.slots);
        self.touched.insert(held.origin);
        true
    }

    /// Starts to end a running job; whether it ran. The lease still counts as held.
    pub(super) fn kill(&mut self, cx: &mut Context<'_>, held: Held) -> bool {
        let Some(pair) = self.origins.get_mut(&held.origin) else {
            return false;
        };
        let Some(RunningJob { slots, .. }) = pair.running.remove(&held.lease) else {
            return false;
        };
        pair.running_slots -= u32::from(slots);
        pair.killing.insert(held.lease, KillingJob { slots });
        self.touched.insert(held.origin);
        cx.act(Action::Kill { held });
        true
    }

    /// Drops a lease that the origin no longer wants, in whatever stage it is.
    pub(super) fn discard(&mut self, cx: &mut Context<'_>, held: Held) {
        if self.drop_unstarted(held) {
            self.held -= 1;
            cx.act(Action::Forget { held });
        } else if self.kill(cx, held) {
            self.held -= 1;
        } else {
            self.forget_ended(held);
        }
    }

    /// Gives up to `count` unstarted jobs back, those that would start last first, and keeps those
    /// for which there are `keep_slots`.
    pub(super) fn return_unstarted(
        &mut self,
        cx: &mut Context<'_>,
        origin: NodeId,
        count: usize,
        mut keep_slots: u32,
    ) {
        let Some(pair) = self.origins.get(&origin) else {
            return;
        };
        let ready = pair
            .queue
            .iter()
            .filter_map(|(lease, _)| Some((lease, &pair.ready.get(&lease)?.job)));
        let fetching = pair
            .fetching
            .iter()
            .map(|(&lease, fetching)| (lease, &fetching.job));
        let mut spare: Vec<LeaseId> = ready
            .chain(fetching)
            .filter(|(_, job)| {
                let keep = keep_slots > 0;
                keep_slots = keep_slots.saturating_sub(u32::from(job.needs.slots));
                !keep
            })
            .map(|(lease, _)| lease)
            .collect();
        let returned = spare.split_off(spare.len().saturating_sub(count));
        for lease in returned {
            let held = Held { origin, lease };
            self.drop_unstarted(held);
            cx.act(Action::Forget { held });
            self.end(held, Progress::Returned);
        }
    }
}
