//! What an executor tells its origins, and when.

use super::{EndedJob, Executor, Progress, Timer};
use crate::{
    Body, LeaseId, NodeId,
    context::Context,
    message::{MAX_LEASES, MESSAGE_BYTES},
};
use std::time::Instant;

impl EndedJob {
    /// The length of the outcome.
    pub(super) fn bytes(&self) -> usize {
        match &self.progress {
            Progress::Finished(outcome) => outcome.len(),
            _ => 0,
        }
    }
}

impl Executor {
    /// Ends every event: starts what can start, asks for more, says what is to be said, and sets
    /// the timers.
    pub(super) fn settle(&mut self, cx: &mut Context<'_>) {
        self.start_ready(cx);
        self.ask(cx);
        while let Some(origin) = self.touched.pop_first() {
            self.say(cx, origin);
            let idle = self
                .origins
                .get(&origin)
                .is_some_and(|pair| pair.is_idle() && !pair.has_work);
            if idle {
                self.remove_pair(origin);
            } else {
                let due = self.due(cx, origin);
                self.deadlines.set(Timer::Pair(origin), due);
            }
        }
        debug_assert!(self.busy <= u32::from(cx.shared.offer.slots));
    }

    pub(crate) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        while let Some(timer) = self.deadlines.pop_due(cx.now) {
            match timer {
                Timer::Pair(origin) => {
                    self.pair_due(cx, origin);
                    self.touched.insert(origin);
                }
                Timer::Poll => self.poll(cx),
            }
        }
        self.settle(cx);
    }

    /// Sends the report of this event.
    fn say(&mut self, cx: &mut Context<'_>, origin: NodeId) {
        let Some(pair) = self.origins.get_mut(&origin) else {
            return;
        };
        let mut part = Vec::new();
        let mut bytes = 0;
        for (lease, progress) in std::mem::take(&mut pair.report) {
            if let Progress::Finished(outcome) = &progress {
                bytes += outcome.len();
            }
            part.push((lease, progress));
            if part.len() == MAX_LEASES || bytes >= MESSAGE_BYTES {
                cx.send(origin, Body::Report(std::mem::take(&mut part)));
                bytes = 0;
            }
        }
        if !part.is_empty() {
            cx.send(origin, Body::Report(part));
        }
        if pair.ended.is_empty() {
            pair.repeat_ends = None;
        } else if pair.repeat_ends.is_none() {
            let pause = cx.shared.config.retry_first.max(self.round_trip * 4);
            pair.repeat_ends = Some((cx.now + pause, pause));
        }
    }

    /// When something is next due between this node and an origin.
    fn due(&self, cx: &Context<'_>, origin: NodeId) -> Option<Instant> {
        if origin == cx.shared.me {
            // Nothing is lost on the way to oneself.
            return None;
        }
        let pair = self.origins.get(&origin)?;
        let repeat_request = pair.asked.map(|asked| asked.repeat_at);
        let repeat_ends = pair.repeat_ends.map(|(at, _)| at);
        let holds = pair.held() > 0;
        let holding = holds.then_some(pair.holding_at);
        let silent = holds.then(|| pair.heard + cx.shared.config.lease_time);
        [repeat_request, repeat_ends, holding, silent]
            .into_iter()
            .flatten()
            .min()
    }

    fn pair_due(&mut self, cx: &mut Context<'_>, origin: NodeId) {
        let Some(pair) = self.origins.get_mut(&origin) else {
            return;
        };
        let config = &cx.shared.config;
        if pair.held() > 0 && pair.heard + config.lease_time <= cx.now {
            // It may hear this though it is not heard.
            self.origin_lost(cx, origin);
            cx.send(
                origin,
                Body::Holding {
                    settled: self.requests,
                    leases: Vec::new(),
                },
            );
            return;
        }
        if let Some((at, pause)) = pair.repeat_ends
            && at <= cx.now
        {
            let pause = (pause * 2).min(config.retry_longest);
            pair.repeat_ends = Some((cx.now + pause, pause));
            let mut bytes = 0;
            for (&lease, ended) in pair.ended.iter().take(MAX_LEASES) {
                bytes += ended.bytes();
                pair.report.push((lease, ended.progress.clone()));
                if bytes >= MESSAGE_BYTES {
                    break;
                }
            }
        }
        let mut tell = false;
        if pair.held() > 0 && pair.holding_at <= cx.now {
            pair.holding_at = cx.now + config.holding_interval;
            tell = true;
        }
        if let Some(asked) = &mut pair.asked
            && asked.repeat_at <= cx.now
        {
            if asked.repeats >= config.request_retries {
                // Given up: the next list of what is held says so.
                pair.asked = None;
                pair.has_work = false;
                tell = true;
            } else {
                asked.repeats += 1;
                let pause = (cx.now - asked.sent) * 2;
                asked.repeat_at = cx.now + pause.clamp(config.retry_first, config.retry_longest);
                let (number, slots, prefetch) = (asked.number, asked.slots, asked.prefetch);
                cx.send(
                    origin,
                    Body::Request {
                        number,
                        slots,
                        prefetch,
                    },
                );
            }
        }
        if tell {
            self.tell_holding(cx, origin);
        }
    }

    fn tell_holding(&mut self, cx: &mut Context<'_>, origin: NodeId) {
        let Some(pair) = self.origins.get(&origin) else {
            return;
        };
        let unstarted = pair
            .fetching
            .keys()
            .chain(pair.ready.keys())
            .map(|&lease| (lease, false));
        let started = pair.running.keys().map(|&lease| (lease, true));
        let ended = pair
            .ended
            .iter()
            .map(|(&lease, ended)| (lease, matches!(ended.progress, Progress::Finished(_))));
        let leases: Vec<(LeaseId, bool)> = unstarted.chain(started).chain(ended).collect();
        debug_assert!(leases.len() <= MAX_LEASES);
        let settled = pair.asked.map_or(self.requests, |asked| asked.number - 1);
        cx.send(origin, Body::Holding { settled, leases });
    }
}
