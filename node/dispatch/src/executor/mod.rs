//! The node that runs jobs: what it asks for, starts, reports and gives back.

mod ask;
mod give_back;
mod held;
mod report;

use crate::{
    Action, Held, Ignored, Job, JobId, LeaseId, Lending, Load, NodeId, Progress,
    context::Context,
    deadlines::Deadlines,
    job::{MAX_PAYLOAD_BYTES, cut_text},
};
use bytes::Bytes;
use held::{EndedJob, FetchingJob, KillingJob, Pair, ReadyJob, RunningJob};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// How many origins a node keeps account of at a time.
const MAX_ORIGINS: usize = 64;
/// While outcomes of this many bytes wait to be acknowledged, no job is started.
const MAX_UNREPORTED_BYTES: usize = 64 << 20;

/// Why an executor wakes up by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Something is due between this node and an origin.
    Pair(NodeId),
    /// Slots are free and no origin is known to have work.
    Poll,
}

/// The executor's half of a dispatcher.
#[derive(Debug)]
pub(crate) struct Executor {
    lending: Lending,
    owner_active: bool,
    origins: BTreeMap<NodeId, Pair>,
    /// Slots of running and dying jobs.
    busy: u32,
    /// Slots of jobs that wait here.
    waiting: u32,
    /// Leases held.
    held: usize,
    unreported_bytes: usize,
    /// The number of the last request.
    requests: u64,
    starts: u64,
    /// Averages that forget: a request's round trip, and a job's run.
    round_trip: Duration,
    run: Duration,
    poll_after: Duration,
    /// Origins that this event touched.
    touched: BTreeSet<NodeId>,
    deadlines: Deadlines<Timer>,
}

impl Executor {
    pub(crate) fn new(lending: Lending, poll_after: Duration) -> Self {
        Executor {
            lending,
            owner_active: false,
            origins: BTreeMap::new(),
            busy: 0,
            waiting: 0,
            held: 0,
            unreported_bytes: 0,
            requests: 0,
            starts: 0,
            round_trip: Duration::ZERO,
            run: Duration::ZERO,
            poll_after,
            touched: BTreeSet::new(),
            deadlines: Deadlines::default(),
        }
    }

    /// Slots that run nothing.
    pub(crate) fn slots_free(&self, cx_slots: u16) -> u16 {
        let busy = u16::try_from(self.busy).unwrap_or(u16::MAX);
        cx_slots.saturating_sub(busy)
    }

    /// Whether jobs of others are run at this moment.
    pub(crate) fn lends(&self, me: NodeId) -> bool {
        match self.lending {
            Lending::Always => true,
            Lending::Idle => {
                let own_work =
                    |own: &Pair| own.has_work || own.running_slots > 0 || own.waiting_slots > 0;
                !self.owner_active && !self.origins.get(&me).is_some_and(own_work)
            }
            Lending::Never => false,
        }
    }

    pub(crate) fn set_lending(&mut self, cx: &mut Context<'_>, lending: Lending) {
        self.lending = lending;
        self.hand_back(cx, lending != Lending::Always);
        self.settle(cx);
    }

    pub(crate) fn drain(&mut self, cx: &mut Context<'_>) {
        self.lending = Lending::Never;
        self.hand_back(cx, false);
        self.settle(cx);
    }

    pub(crate) fn set_owner_active(&mut self, cx: &mut Context<'_>, active: bool) {
        self.owner_active = active;
        self.hand_back(cx, active && self.lending == Lending::Idle);
        self.settle(cx);
    }

    /// An origin has work.
    pub(crate) fn handle_wake(&mut self, cx: &mut Context<'_>, from: NodeId, load: Load) {
        let Some(pair) = self.pair(cx, from) else {
            cx.ignore(Ignored::TooManyOrigins);
            return;
        };
        pair.load = load;
        // Also where the queue is empty: then a slow job is to be run a second time.
        pair.has_work = true;
        if from == cx.me() {
            self.hand_back(cx, false);
        }
        self.settle(cx);
    }

    /// An origin answers a request.
    pub(crate) fn handle_grant(
        &mut self,
        cx: &mut Context<'_>,
        from: NodeId,
        number: u64,
        load: Load,
        leases: Vec<(LeaseId, Job)>,
    ) {
        let asked = self.origins.get(&from).and_then(|pair| pair.asked);
        let Some(asked) = asked.filter(|asked| asked.number == number) else {
            cx.ignore(Ignored::UnaskedGrant);
            return;
        };
        if asked.repeats == 0 && from != cx.me() {
            self.round_trip = average(self.round_trip, cx.now - asked.sent, 8);
        }
        let lends = from == cx.me() || self.lends(cx.me());
        let Some(pair) = self.origins.get_mut(&from) else {
            return;
        };
        pair.asked = None;
        pair.heard = cx.now;
        pair.load = load;
        pair.has_work = !leases.is_empty() && load.queued > 0;
        if pair.held() == 0 {
            pair.holding_at = cx.now + cx.shared.config.holding_interval;
        }
        if !leases.is_empty() {
            self.poll_after = cx.shared.config.poll_first;
        }
        for (lease, job) in leases {
            self.take(
                cx,
                Held {
                    origin: from,
                    lease,
                },
                job,
                lends,
            );
        }
        self.touched.insert(from);
        self.settle(cx);
    }

    /// Takes a job in, or says why not.
    fn take(&mut self, cx: &mut Context<'_>, held: Held, job: Job, lends: bool) {
        let Some(pair) = self.origins.get_mut(&held.origin) else {
            return;
        };
        if pair.knows(held.lease) {
            return;
        }
        self.held += 1;
        let offered = cx.shared.offer.capabilities();
        if !offered.satisfy(&job.needs) {
            let reason = "it asks for what this node does not offer".to_owned();
            let progress = Progress::Failed(reason);
            pair.report.push((held.lease, progress.clone()));
            pair.ended.insert(held.lease, EndedJob { progress });
            return;
        }
        if !lends || self.held > cx.shared.config.max_held {
            pair.report.push((held.lease, Progress::Returned));
            pair.ended.insert(
                held.lease,
                EndedJob {
                    progress: Progress::Returned,
                },
            );
            return;
        }
        let slots = u32::from(job.needs.slots);
        pair.waiting_slots += slots;
        self.waiting += slots;
        if job.layers.is_empty() {
            pair.queue.push(held.lease, job.rank);
            pair.ready.insert(held.lease, ReadyJob { job });
        } else {
            cx.act(Action::FetchLayers {
                held,
                layers: job.layers.clone(),
            });
            pair.fetching.insert(held.lease, FetchingJob { job });
        }
    }

    pub(crate) fn layers_ready(&mut self, cx: &mut Context<'_>, held: Held) {
        let pair = self.origins.get_mut(&held.origin);
        let Some((pair, FetchingJob { job })) =
            pair.and_then(|pair| pair.fetching.remove(&held.lease).map(|job| (pair, job)))
        else {
            cx.ignore(Ignored::UnknownLease);
            return;
        };
        pair.queue.push(held.lease, job.rank);
        pair.ready.insert(held.lease, ReadyJob { job });
        self.settle(cx);
    }

    pub(crate) fn layers_failed(&mut self, cx: &mut Context<'_>, held: Held, reason: &str) {
        let fetching = |executor: &Self| {
            Some(
                executor
                    .origins
                    .get(&held.origin)?
                    .fetching
                    .contains_key(&held.lease),
            )
        };
        if fetching(self) != Some(true) {
            cx.ignore(Ignored::UnknownLease);
            return;
        }
        self.drop_unstarted(held);
        self.end(held, Progress::Failed(cut_text(reason)));
        self.settle(cx);
    }

    pub(crate) fn job_ended(
        &mut self,
        cx: &mut Context<'_>,
        held: Held,
        result: Result<Bytes, String>,
    ) {
        let Some(pair) = self.origins.get_mut(&held.origin) else {
            cx.ignore(Ignored::UnknownLease);
            return;
        };
        if let Some(KillingJob { slots }) = pair.killing.remove(&held.lease) {
            self.busy -= u32::from(slots);
            self.touched.insert(held.origin);
        } else if let Some(RunningJob { slots, since }) = pair.running.remove(&held.lease) {
            pair.running_slots -= u32::from(slots);
            self.busy -= u32::from(slots);
            self.run = average(self.run, cx.now - since, 16);
            self.end(
                held,
                match result {
                    Ok(outcome) if outcome.len() > MAX_PAYLOAD_BYTES => Progress::Failed(format!(
                        "the outcome takes {} bytes, more than the limit of {MAX_PAYLOAD_BYTES}",
                        outcome.len()
                    )),
                    Ok(outcome) => Progress::Finished(outcome),
                    Err(reason) => Progress::Failed(cut_text(&reason)),
                },
            );
        } else {
            cx.ignore(Ignored::UnknownLease);
            return;
        }
        self.settle(cx);
    }

    /// An origin has taken note.
    pub(crate) fn handle_ack(
        &mut self,
        cx: &mut Context<'_>,
        from: NodeId,
        ended: &[LeaseId],
        load: Load,
    ) {
        self.heard(cx.now, from);
        if let Some(pair) = self.origins.get_mut(&from) {
            pair.load = load;
        }
        for &lease in ended {
            self.forget_ended(Held {
                origin: from,
                lease,
            });
        }
        self.settle(cx);
    }

    fn heard(&mut self, now: Instant, origin: NodeId) {
        if let Some(pair) = self.origins.get_mut(&origin) {
            pair.heard = now;
            self.touched.insert(origin);
        }
    }

    /// The account with an origin, made if there is room for one.
    fn pair(&mut self, cx: &Context<'_>, origin: NodeId) -> Option<&mut Pair> {
        if !self.origins.contains_key(&origin) && self.origins.len() >= MAX_ORIGINS {
            let idle = self
                .origins
                .iter()
                .find(|(node, pair)| pair.is_idle() && **node != cx.shared.me);
            let idle = idle.map(|(&node, _)| node);
            if origin != cx.shared.me {
                self.remove_pair(idle?);
            }
        }
        self.touched.insert(origin);
        Some(
            self.origins
                .entry(origin)
                .or_insert_with(|| Pair::new(cx.now)),
        )
    }

    fn remove_pair(&mut self, origin: NodeId) {
        self.origins.remove(&origin);
        self.deadlines.set(Timer::Pair(origin), None);
    }

    /// Starts what there are slots for: of the origin that runs the least here, then of the one
    /// that was served the longest ago, and within it what is next.
    fn start_ready(&mut self, cx: &mut Context<'_>) {
        let total = u32::from(cx.shared.offer.slots);
        while self.busy + self.kept_free() < total && self.unreported_bytes <= MAX_UNREPORTED_BYTES
        {
            let own_first = self.lending != Lending::Always;
            let next = self
                .origins
                .iter()
                .filter(|(_, pair)| !pair.queue.is_empty())
                .min_by_key(|(node, pair)| {
                    let lent = own_first && **node != cx.shared.me;
                    (lent, pair.running_slots, pair.served)
                });
            let Some(origin) = next.map(|(&node, _)| node) else {
                return;
            };
            if let Some(other) = self.served_less(cx, origin) {
                self.request(cx, other, 1, false, 1);
                continue;
            }
            let taken = self.busy + self.kept_free();
            let Some(pair) = self.origins.get_mut(&origin) else {
                return;
            };
            let Some((lease, _)) = pair.queue.peek() else {
                return;
            };
            let slots = pair
                .ready
                .get(&lease)
                .map_or(0, |ready| ready.job.needs.slots);
            if taken + u32::from(slots) > total {
                // Waits for its slots; smaller jobs don't go before it, or it might wait for ever.
                return;
            }
            pair.queue.pop();
            let Some(ReadyJob { job }) = pair.ready.remove(&lease) else {
                return;
            };
            pair.waiting_slots -= u32::from(slots);
            pair.running_slots += u32::from(slots);
            self.waiting -= u32::from(slots);
            self.busy += u32::from(slots);
            self.starts += 1;
            pair.served = self.starts;
            pair.running.insert(
                lease,
                RunningJob {
                    slots,
                    since: cx.now,
                },
            );
            pair.report.push((lease, Progress::Started));
            self.touched.insert(origin);
            let lent = origin != cx.me();
            cx.act(Action::Start {
                held: Held { origin, lease },
                job,
                lent,
            });
        }
    }

    /// The job of an origin that waits for nothing but a slot and is its next.
    pub(crate) fn peek_ready(&self, origin: NodeId) -> Option<(JobId, &Job)> {
        let pair = self.origins.get(&origin)?;
        let (lease, _) = pair.queue.peek()?;
        Some((lease.job, &pair.ready.get(&lease)?.job))
    }

    /// Records the end of a lease that is in no stage any more.
    fn end(&mut self, held: Held, progress: Progress) {
        let Some(pair) = self.origins.get_mut(&held.origin) else {
            return;
        };
        debug_assert!(!pair.fetching.contains_key(&held.lease));
        debug_assert!(!pair.running.contains_key(&held.lease));
        if let Progress::Finished(outcome) = &progress {
            self.unreported_bytes += outcome.len();
        }
        pair.report.push((held.lease, progress.clone()));
        pair.ended.insert(held.lease, EndedJob { progress });
        self.touched.insert(held.origin);
    }

    fn forget_ended(&mut self, held: Held) {
        let Some(pair) = self.origins.get_mut(&held.origin) else {
            return;
        };
        if let Some(EndedJob { progress }) = pair.ended.remove(&held.lease) {
            self.held -= 1;
            if let Progress::Finished(outcome) = progress {
                self.unreported_bytes -= outcome.len();
            }
            self.touched.insert(held.origin);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// How many leases of each origin are held.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Relations between counts. Takes constant time.
    pub(crate) fn check_counts(&self, slots: u16) {
        assert!(
            self.busy <= u32::from(slots),
            "{} of {slots} slots are busy",
            self.busy
        );
    }

    /// Everything. Takes time linear in the leases held.
    pub(crate) fn check_invariants(&self, slots: u16) {
        self.check_counts(slots);
        let (mut busy, mut waiting, mut held, mut bytes) = (0, 0, 0, 0);
        for pair in self.origins.values() {
            pair.check_invariants();
            busy += pair.running_slots;
            busy += pair
                .killing
                .values()
                .map(|job| u32::from(job.slots))
                .sum::<u32>();
            waiting += pair.waiting_slots;
            held += pair.held();
            bytes += pair
                .ended
                .values()
                .map(|ended| ended.bytes())
                .sum::<usize>();
        }
        assert_eq!(
            (busy, waiting, held, bytes),
            (self.busy, self.waiting, self.held, self.unreported_bytes)
        );
        assert!(self.touched.is_empty(), "every event is settled");
    }
}

/// Moves an average by one part in `weight` towards a new value; the first value is taken whole.
fn average(old: Duration, new: Duration, weight: u32) -> Duration {
    if old.is_zero() {
        new
    } else {
        old - old / weight + new / weight
    }
}
