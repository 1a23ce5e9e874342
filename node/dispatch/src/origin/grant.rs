//! Which jobs a node gets that asks for work.

use super::{Origin, Peer, Stage, TYPICAL_FIRST_US, Timer};
use crate::{
    Body, Ignored, Job, JobId, Layer, LeaseId, NodeId, Requirements,
    context::Context,
    message::{MAX_LEASES, MESSAGE_BYTES},
};
use std::sync::Arc;

/// How far behind the first a job may stand that is preferred for its layers.
const WINDOW: usize = 16;
/// With more jobs than this for each slot, whoever takes work in advance takes short jobs too.
const MANY_EACH: u64 = 8;

/// What a node asks for.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub(crate) number: u64,
    pub(crate) slots: u16,
    pub(crate) prefetch: bool,
}

/// Finds jobs for one node.
struct Chooser {
    node: NodeId,
    /// The kinds of jobs that the node can run.
    classes: Vec<Arc<Requirements>>,
    /// How long the queue will last where it is worked off now: a job may be as long on its way
    /// before it is later than without the node.
    drain_us: u64,
    /// Layers of the job looked at last, and how long pulling them would take, in microseconds.
    pulling: Option<(Arc<[Layer]>, u64)>,
}

impl Origin {
    /// An executor asks for work.
    pub(crate) fn handle_request(&mut self, cx: &mut Context<'_>, from: NodeId, request: Request) {
        let now = cx.now;
        let peer = self.peers.entry(from).or_insert_with(|| Peer::new(now));
        self.waker.answered(peer);
        if request.number < peer.answered {
            cx.ignore(Ignored::OldRequest);
            return;
        }
        if request.number == peer.answered {
            self.grant_again(cx, from, request.number);
            return;
        }
        peer.answered = request.number;
        let mut leases = self.choose(cx, from, request);
        if leases.is_empty() {
            leases = self.choose_at_tail(cx, from, request);
        }
        self.send_grant(cx, from, request.number, leases);
        self.pump(cx);
    }

    /// A request was repeated: what is left of its grant is sent again.
    fn grant_again(&mut self, cx: &mut Context<'_>, to: NodeId, number: u64) {
        let Some(peer) = self.peers.get(&to) else {
            return;
        };
        let leases = peer
            .leases
            .iter()
            .filter(|(_, lease)| lease.number == number);
        let leases = leases.map(|(&id, _)| id).collect();
        self.send_grant(cx, to, number, leases);
    }

    fn send_grant(&mut self, cx: &mut Context<'_>, to: NodeId, number: u64, ids: Vec<LeaseId>) {
        let load = self.load();
        let leases: Vec<(LeaseId, Job)> = ids
            .into_iter()
            .filter_map(|id| Some((id, self.jobs.get(&id.job)?.job.clone())))
            .collect();
        let Some(peer) = self.peers.get_mut(&to) else {
            return;
        };
        if to != cx.me() && !leases.is_empty() {
            let quiet_at = cx.now + cx.shared.config.quiet_time;
            if self.deadlines.get(Timer::Silent(to)).is_none() {
                self.deadlines.set(Timer::Silent(to), Some(quiet_at));
            }
        }
        peer.told_of_work = !leases.is_empty() && load.queued > 0;
        if !peer.told_of_work {
            self.waker.add_hungry(to, peer);
        }
        cx.send(
            to,
            Body::Grant {
                number,
                load,
                leases,
            },
        );
    }

    /// Takes jobs out of the backlog: the longest first, at least enough for the slots asked for,
    /// and more as long as much is left for everyone else.
    fn choose(&mut self, cx: &mut Context<'_>, node: NodeId, request: Request) -> Vec<LeaseId> {
        let Some(capabilities) = cx.capabilities(node) else {
            return Vec::new();
        };
        let slots = capabilities.slots;
        let local = node == cx.me();
        let runs_here =
            |needs: &&Arc<Requirements>| capabilities.satisfy(needs) && (local || !needs.local);
        let classes: Vec<_> = self.backlog.classes().filter(runs_here).cloned().collect();
        if classes.is_empty() {
            return Vec::new();
        }
        let typical_us = self.typical_us.unwrap_or(TYPICAL_FIRST_US);
        let work_us = self.backlog.work_us(typical_us);
        let drain_us = work_us / self.slots_held.max(1);
        let mut chooser = Chooser {
            node,
            classes,
            drain_us,
            pulling: None,
        };

        let wanted = request.slots.min(slots);
        let batch_us = if request.prefetch && !local {
            (work_us / (2 * self.slots_to_expect(cx))).saturating_mul(u64::from(slots))
        } else {
            0
        };
        let jobs = self.backlog.len() as u64;
        let held = self.peers.get(&node).map_or(0, |peer| peer.leases.len());
        let room = MAX_LEASES.saturating_sub(held);
        let mut leases = Vec::new();
        let (mut taken_slots, mut taken_us, mut taken_bytes) = (0_u64, 0_u64, 0_usize);
        while leases.len() < room && taken_bytes < MESSAGE_BYTES {
            let Some(id) = self.next_for(cx, &mut chooser) else {
                break;
            };
            let Some(record) = self.jobs.get(&id) else {
                break;
            };
            let work_us = record
                .job
                .work_us()
                .unwrap_or_else(|| typical_us.saturating_mul(u64::from(record.job.needs.slots)));
            let enough = taken_slots >= u64::from(wanted);
            // What is not known to be short doesn't wait behind another job, nor ahead of one.
            let in_advance =
                record.job.rank.estimate.is_some() && taken_us.saturating_add(work_us) <= batch_us;
            if enough && !in_advance {
                break;
            }
            taken_slots += u64::from(record.job.needs.slots);
            taken_us = taken_us.saturating_add(work_us);
            taken_bytes += record.job.payload.len();
            leases.extend(self.lease(cx.now, id, node, request.number));
        }
        if batch_us > 0 && jobs > MANY_EACH * self.slots_to_expect(cx) {
            let even = u128::from(taken_us) * u128::from(jobs) / u128::from(work_us.max(1));
            let even = usize::try_from(even * 3 / 4)
                .unwrap_or(usize::MAX)
                .min(room);
            while leases.len() < even && taken_bytes < MESSAGE_BYTES {
                let Some(id) = self.shortest_for(cx, &mut chooser) else {
                    break;
                };
                taken_bytes += self
                    .jobs
                    .get(&id)
                    .map_or(0, |record| record.job.payload.len());
                leases.extend(self.lease(cx.now, id, node, request.number));
            }
        }
        leases
    }

    /// The shortest job of those whose turn it is by their priority.
    ///
    /// Where there are very many jobs, the longest first would leave thousands of the shortest to
    /// the end, and the end would be spent on messages. So whoever takes a part of the work takes
    /// three quarters of the same part of the jobs; the rest keeps enough short ones back to even
    /// out who ends when.
    fn shortest_for(&self, cx: &Context<'_>, chooser: &mut Chooser) -> Option<JobId> {
        let classes = chooser
            .classes
            .iter()
            .filter_map(|needs| self.backlog.class(needs));
        let queue = classes.min_by_key(|queue| queue.peek().map(|(_, rank)| rank))?;
        let (_, first) = queue.peek()?;
        let (id, last) = queue.iter().next_back()?;
        let record = self.jobs.get(&id)?;
        let same = last.priority == first.priority && last.estimate.is_some();
        let fresh = record.attempts().is_empty();
        let layers = &record.job.layers;
        (same && fresh && self.pull_us(cx, chooser, layers) == 0).then_some(id)
    }

    /// How many slots of the mesh this origin may count on: those it holds and those that are
    /// free, but no less than its share.
    fn slots_to_expect(&self, cx: &Context<'_>) -> u64 {
        let mesh = cx.view.slots();
        let total = mesh.total.max(1);
        let share = total / (cx.view.loaded_len() as u64 + 1);
        (mesh.free + self.slots_held).clamp(share, total).max(1)
    }

    /// The best job for a node, which is left in the backlog.
    fn next_for(&self, cx: &Context<'_>, chooser: &mut Chooser) -> Option<JobId> {
        loop {
            let (position, queue) = chooser
                .classes
                .iter()
                .enumerate()
                .filter_map(|(position, needs)| Some((position, self.backlog.class(needs)?)))
                .min_by_key(|(_, queue)| queue.peek().map(|(_, rank)| rank))?;
            let first_priority = queue.peek()?.1.priority;
            let mut second_best = None;
            for (id, rank) in queue.iter().take(WINDOW) {
                if rank.priority != first_priority {
                    break;
                }
                let Some(record) = self.jobs.get(&id) else {
                    continue;
                };
                if let Stage::Queued(queued) = record.stage
                    && record
                        .attempts()
                        .iter()
                        .any(|attempt| attempt.node == chooser.node)
                    && cx.now < queued.since + cx.shared.config.avoid_time
                    && !cx.view.is_empty()
                {
                    continue;
                }
                let pull_us = self.pull_us(cx, chooser, &record.job.layers);
                if pull_us == 0 {
                    return Some(id);
                }
                let run_us = self.run_us(&record.job);
                if second_best.is_none() && pull_us <= chooser.drain_us.max(run_us) {
                    second_best = Some(id);
                }
            }
            if second_best.is_some() {
                return second_best;
            }
            // Nothing near the front of this class is worth running there.
            chooser.classes.swap_remove(position);
        }
    }

    /// How long a job is expected to run, in microseconds.
    fn run_us(&self, job: &Job) -> u64 {
        let typical_us = self.typical_us.unwrap_or(TYPICAL_FIRST_US);
        job.work_us()
            .map_or(typical_us, |work| work / u64::from(job.needs.slots.max(1)))
    }

    /// How long a node would pull layers before it can run a job, in microseconds.
    fn pull_us(&self, cx: &Context<'_>, chooser: &mut Chooser, layers: &Arc<[Layer]>) -> u64 {
        if layers.is_empty() {
            return 0;
        }
        match &chooser.pulling {
            Some((known, pull_us)) if Arc::ptr_eq(known, layers) => *pull_us,
            _ => {
                let pull_us = self.pull_us_to(cx, chooser.node, layers);
                chooser.pulling = Some((Arc::clone(layers), pull_us));
                pull_us
            }
        }
    }

    fn pull_us_to(&self, cx: &Context<'_>, node: NodeId, layers: &[Layer]) -> u64 {
        if node == cx.shared.me {
            return 0;
        }
        let peer = self.peers.get(&node);
        let lacking = layers.iter().filter(|layer| {
            !peer.is_some_and(|peer| peer.was_sent_to(&layer.id))
                && !cx.view.holds_layer(node, &layer.id)
        });
        let bytes = lacking
            .map(|layer| u128::from(layer.size_bytes))
            .sum::<u128>();
        let bytes_per_second = u128::from(cx.shared.config.pull_bytes_per_second.max(1));
        u64::try_from(bytes * 1_000_000 / bytes_per_second).unwrap_or(u64::MAX)
    }

    /// Whether a node would be given this job at once were it in the queue, however short that is.
    pub(super) fn is_worth_moving(&self, cx: &Context<'_>, job: &Job, node: NodeId) -> bool {
        let runs_there = cx
            .capabilities(node)
            .is_some_and(|offered| offered.satisfy(&job.needs));
        runs_there
            && (!job.needs.local || node == cx.shared.me)
            && self.pull_us_to(cx, node, &job.layers) <= self.run_us(job)
    }
}
