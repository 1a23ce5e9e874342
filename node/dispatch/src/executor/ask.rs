//! Whom an executor asks for work, and for how much.

use super::{Executor, Pair, Timer, held::Asked};
use crate::{Body, Lending, NodeId, context::Context};
use rand::RngExt;
use std::{cmp::Ordering, time::Duration};

/// How many requests are sent for one event at most.
const MAX_ASKED: usize = 4;
/// A queue up to this long is drawn on only when a slot is free: whichever node has one first
/// gets the next job.
const SHORT_QUEUE: u32 = 64;

impl Executor {
    /// Asks for as many jobs as there are free slots, and some in advance where jobs are short
    /// beside the round trip.
    pub(super) fn ask(&mut self, cx: &mut Context<'_>) {
        for _ in 0..MAX_ASKED {
            let free = self.free_slots(cx);
            if free + self.ahead(cx) > 0
                && let Some(origin) = self.candidate(cx)
            {
                // Nothing is asked in advance of this node itself: it is at hand.
                let ahead = if origin == cx.me() { 0 } else { self.ahead(cx) };
                if free + ahead <= 0 {
                    break;
                }
                self.request(cx, origin, free + ahead, true, 0);
                continue;
            }
            match self.short_of_share(cx) {
                Some((origin, slots)) => self.request(cx, origin, slots, false, 0),
                None => break,
            }
        }
        let asked = self.origins.values().any(|pair| pair.asked.is_some());
        if !asked && self.free_slots(cx) > 0 && self.lends(cx.me()) && !cx.view.is_empty() {
            if self.deadlines.get(Timer::Poll).is_none() {
                let part = cx.shared.rng.random_range(0.5..1.0);
                self.deadlines
                    .set(Timer::Poll, Some(cx.now + self.poll_after.mul_f64(part)));
            }
        } else {
            self.deadlines.set(Timer::Poll, None);
        }
    }

    /// Slots for which there is nothing to run, waiting or asked for. Negative where more waits
    /// than can run.
    fn free_slots(&self, cx: &Context<'_>) -> i64 {
        // A request that had to be repeated may never be answered.
        let asked: i64 = self
            .origins
            .values()
            .filter_map(|pair| pair.asked)
            .filter(|asked| asked.repeats == 0)
            .map(|asked| i64::from(asked.slots))
            .sum();
        i64::from(cx.shared.offer.slots) - i64::from(self.busy) - i64::from(self.waiting) - asked
    }

    /// How many slots' worth of jobs end here during a round trip, twice over.
    fn ahead(&self, cx: &Context<'_>) -> i64 {
        if self.run.is_zero() {
            return 0;
        }
        let slots = f64::from(cx.shared.offer.slots);
        let ends = slots * self.round_trip.as_secs_f64() / self.run.as_secs_f64();
        (2.0 * ends).round().min(2.0 * slots) as i64
    }

    fn may_ask(&self, cx: &Context<'_>, lends: bool, node: NodeId, pair: &Pair) -> bool {
        pair.has_work && pair.asked.is_none() && (lends || node == cx.shared.me)
    }

    /// The better of two origins that are known to have work.
    fn candidate(&self, cx: &mut Context<'_>) -> Option<NodeId> {
        let lends = self.lends(cx.me());
        let mut known: Vec<NodeId> = self
            .origins
            .iter()
            .filter(|(node, pair)| self.may_ask(cx, lends, **node, pair))
            .map(|(&node, _)| node)
            .collect();
        if self.lending != Lending::Always && known.contains(&cx.shared.me) {
            return Some(cx.me());
        }
        if known.len() <= 1 {
            return known.pop();
        }
        let first = known.swap_remove(cx.shared.rng.random_range(0..known.len()));
        let second = known.swap_remove(cx.shared.rng.random_range(0..known.len()));
        let better = match self.compare(cx, first, second) {
            Ordering::Greater => second,
            Ordering::Less | Ordering::Equal => first,
        };
        Some(better)
    }

    /// Which of two origins to serve: the one that holds clearly fewer slots of the mesh, else the
    /// one whose next job has its layers here, else the one with the longer queue.
    fn compare(&self, cx: &Context<'_>, a: NodeId, b: NodeId) -> Ordering {
        let (Some(first), Some(second)) = (self.origins.get(&a), self.origins.get(&b)) else {
            return Ordering::Equal;
        };
        let shares = (first.load.slots_held, second.load.slots_held);
        let close = shares.0.abs_diff(shares.1) <= shares.0.max(shares.1) / 8;
        let lacks = |node: NodeId, pair: &Pair| {
            node != cx.shared.me
                && pair
                    .load
                    .layer
                    .is_some_and(|layer| !cx.view.holds_layer(cx.shared.me, &layer))
        };
        let by_share = if close {
            Ordering::Equal
        } else {
            shares.0.cmp(&shares.1)
        };
        by_share
            .then_with(|| lacks(a, first).cmp(&lacks(b, second)))
            .then_with(|| second.load.queued.cmp(&first.load.queued))
    }

    /// Where all slots are spoken for: an origin with work that has less than its share of this
    /// node while another has more, and how much it lacks. One slot more than the share is asked
    /// for, so that the next job is at hand when one ends.
    fn short_of_share(&self, cx: &Context<'_>) -> Option<(NodeId, i64)> {
        let lends = self.lends(cx.shared.me);
        let active = self
            .origins
            .values()
            .filter(|pair| pair.has_work || pair.slots_in_view() > 0);
        let share = (u32::from(cx.shared.offer.slots) / (active.count().max(1) as u32)).max(1);
        let another_waits = |node: NodeId| {
            self.origins.iter().any(|(&other, pair)| {
                other != node && pair.running_slots + pair.waiting_slots > share
            })
        };
        self.origins
            .iter()
            .filter(|(_, pair)| pair.load.queued > SHORT_QUEUE)
            .filter(|(node, pair)| self.may_ask(cx, lends, **node, pair))
            .map(|(&node, pair)| (node, pair.slots_in_view()))
            .filter(|&(node, slots)| slots <= share && another_waits(node))
            .min_by_key(|&(_, slots)| slots)
            .map(|(node, slots)| (node, i64::from(share + 1 - slots)))
    }

    /// A slot is free, and a job of `next` would have it: an origin with a short queue that has been
    /// served less.
    pub(super) fn served_less(&self, cx: &Context<'_>, next: NodeId) -> Option<NodeId> {
        let lends = self.lends(cx.shared.me);
        let rank = |pair: &Pair| (pair.running_slots, pair.served);
        let next = rank(self.origins.get(&next)?);
        let may_ask = |node: NodeId, pair: &Pair| {
            pair.load.queued <= SHORT_QUEUE
                && pair.queue.is_empty()
                && self.may_ask(cx, lends, node, pair)
        };
        self.origins
            .iter()
            .filter(|(node, pair)| may_ask(**node, pair) && rank(pair) < next)
            .min_by_key(|(_, pair)| rank(pair))
            .map(|(&node, _)| node)
    }

    /// Slots that are free and wait for the answer to a request.
    pub(super) fn kept_free(&self) -> u32 {
        let asked = self.origins.values().filter_map(|pair| pair.asked);
        asked
            .filter(|asked| asked.repeats == 0)
            .map(|asked| asked.kept_free)
            .sum()
    }

    pub(super) fn request(
        &mut self,
        cx: &mut Context<'_>,
        origin: NodeId,
        slots: i64,
        prefetch: bool,
        kept_free: u32,
    ) {
        let Some(pair) = self.origins.get_mut(&origin) else {
            return;
        };
        let slots = u16::try_from(slots.clamp(1, i64::from(u16::MAX))).unwrap_or(u16::MAX);
        self.requests += 1;
        let pause = cx.shared.config.retry_first.max(self.round_trip * 4);
        pair.asked = Some(Asked {
            number: self.requests,
            slots,
            prefetch,
            kept_free,
            sent: cx.now,
            repeats: 0,
            repeat_at: cx.now + pause,
        });
        self.touched.insert(origin);
        cx.send(
            origin,
            Body::Request {
                number: self.requests,
                slots,
                prefetch,
            },
        );
    }

    /// Looks for two origins that say that they have a queue.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        let longest: Duration = cx.shared.config.poll_longest;
        self.poll_after = (self.poll_after * 2).min(longest);
        let loaded = cx.view.loaded_len();
        for _ in 0..loaded.min(2) {
            let index = cx.shared.rng.random_range(0..loaded);
            let Some(node) = cx.view.nth_loaded(index) else {
                continue;
            };
            if node != cx.me()
                && let Some(pair) = self.pair(cx, node)
            {
                pair.has_work = true;
            }
        }
    }
}
