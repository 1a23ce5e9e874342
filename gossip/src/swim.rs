//! Foca's side of a membership: its timers, packets and notifications, until they are taken.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::{Duration, Instant},
};

use foca::{Notification, OwnedNotification, Timer};
use rand::rngs::Xoshiro256PlusPlus;

use crate::{
    id::Peer,
    wire::{Broadcasts, Codec, SWIM},
};

pub(crate) type Foca = foca::Foca<Peer, Codec, Xoshiro256PlusPlus, Broadcasts>;

/// What foca asked for and hasn't been given yet.
#[derive(Default)]
pub(crate) struct Wishes {
    timers: BinaryHeap<Reverse<Pending>>,
    scheduled: u64,
    pub(crate) packets: VecDeque<(Peer, Vec<u8>)>,
    pub(crate) notifications: VecDeque<OwnedNotification<Peer>>,
}

/// Ordered by time; among timers of the same time as foca wants it, then by age.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Pending {
    due: Instant,
    timer: Timer<Peer>,
    number: u64,
}

impl Wishes {
    /// Foca's runtime at this moment.
    pub(crate) fn at(&mut self, now: Instant) -> Runtime<'_> {
        Runtime { now, wishes: self }
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse(pending)| pending.due)
    }

    /// The next timer that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Timer<Peer>> {
        if self.next_due()? > now {
            return None;
        }
        self.timers.pop().map(|Reverse(pending)| pending.timer)
    }

    /// Puts all timers off.
    pub(crate) fn postpone(&mut self, by: Duration) {
        let timers = std::mem::take(&mut self.timers);
        self.timers = timers
            .into_iter()
            .map(|Reverse(mut pending)| {
                pending.due += by;
                Reverse(pending)
            })
            .collect();
    }
}

pub(crate) struct Runtime<'a> {
    now: Instant,
    wishes: &'a mut Wishes,
}

impl foca::Runtime<Peer> for Runtime<'_> {
    fn notify(&mut self, notification: Notification<'_, Peer>) {
        self.wishes.notifications.push_back(notification.to_owned());
    }

    fn send_to(&mut self, to: Peer, data: &[u8]) {
        let mut packet = Vec::with_capacity(1 + data.len());
        packet.push(SWIM);
        packet.extend_from_slice(data);
        self.wishes.packets.push_back((to, packet));
    }

    fn submit_after(&mut self, timer: Timer<Peer>, after: Duration) {
        // Forgetting is the membership's own work: it needs one timer for all.
        if matches!(timer, Timer::RemoveDown(_)) {
            return;
        }
        self.wishes.scheduled += 1;
        self.wishes.timers.push(Reverse(Pending {
            due: self.now + after,
            timer,
            number: self.wishes.scheduled,
        }));
    }
}
