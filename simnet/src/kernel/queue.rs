//! What is going to happen, in order.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::Time;

/// Events in the order of their times; events of the same time in the order in which they were
/// added. So a run depends on nothing but its seed.
#[derive(Debug)]
pub struct EventQueue<E> {
    now: Time,
    /// Time, number, and place in the slab: small, as sifting moves it often.
    heap: BinaryHeap<Reverse<(Time, u64, u32)>>,
    slab: Vec<Option<E>>,
    free: Vec<u32>,
    added: u64,
    taken: u64,
}

impl<E> Default for EventQueue<E> {
    fn default() -> Self {
        Self {
            now: Time::ZERO,
            heap: BinaryHeap::new(),
            slab: Vec::new(),
            free: Vec::new(),
            added: 0,
            taken: 0,
        }
    }
}

impl<E> EventQueue<E> {
    /// The time of the event that was taken last.
    pub fn now(&self) -> Time {
        self.now
    }

    /// How many events have been taken.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// How many events are going to happen.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing is going to happen.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Adds an event. One for the past happens now.
    pub fn at(&mut self, time: Time, event: E) {
        let place = match self.free.pop() {
            Some(place) => {
                self.slab[place as usize] = Some(event);
                place
            }
            None => {
                self.slab.push(Some(event));
                (self.slab.len() - 1) as u32
            }
        };
        self.added += 1;
        self.heap
            .push(Reverse((time.max(self.now), self.added, place)));
    }

    /// Lets time pass up to a moment, or to the next event if that comes first.
    pub fn wait_until(&mut self, time: Time) {
        let until = self.next_time().map_or(time, |next| next.min(time));
        self.now = self.now.max(until);
    }

    /// When the next event happens.
    pub fn next_time(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((time, ..))| *time)
    }

    /// Takes the next event, and makes its time the present.
    pub fn pop(&mut self) -> Option<(Time, E)> {
        let Reverse((time, _, place)) = self.heap.pop()?;
        self.now = time;
        self.taken += 1;
        self.free.push(place);
        let event = self.slab[place as usize].take()?;
        Some((time, event))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn events_come_in_order(times in proptest::collection::vec(0..50u64, 0..200)) {
            let mut queue = EventQueue::default();
            for (number, time) in times.iter().enumerate() {
                queue.at(Time(*time), number);
            }
            let mut expected: Vec<(u64, usize)> =
                times.into_iter().enumerate().map(|(number, time)| (time, number)).collect();
            expected.sort();
            let mut taken = Vec::new();
            while let Some((time, number)) = queue.pop() {
                prop_assert_eq!(queue.now(), time);
                taken.push((time.0, number));
            }
            prop_assert_eq!(taken, expected);
        }
    }

    #[test]
    fn the_past_happens_now() {
        let mut queue = EventQueue::default();
        queue.at(Time(10), "first");
        queue.pop();
        queue.at(Time(3), "late");
        assert_eq!(queue.pop(), Some((Time(10), "late")));
        assert_eq!(queue.pop(), None);
        assert_eq!(queue.taken(), 2);
    }
}
