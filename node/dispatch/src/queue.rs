//! Who is next.

use serde::{Deserialize, Serialize};
use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What decides who is next: higher priority first, then longest estimate first, where an unknown
/// one counts as longest of all. Ties go by arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rank {
    /// Higher runs first.
    pub priority: i8,
    /// How long the job is expected to run. `None`: unknown.
    pub estimate: Option<Duration>,
}

/// The order is the order of running: the smaller rank is next.
impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        // `None < Some(_)`, so an unknown estimate comes before every known one.
        let key = |rank: &Rank| (Reverse(rank.priority), rank.estimate.map(Reverse));
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A rank, and the number of arrivals before: unique in a queue.
type Place = (Rank, u64);

/// Keys in the order in which they are to run. Every operation on one key takes logarithmic time.
///
/// Holds as many keys as its owner pushes: the bound is the owner's.
#[derive(Clone, Debug)]
pub struct Queue<K> {
    order: BTreeMap<Place, K>,
    places: BTreeMap<K, Place>,
    arrivals: u64,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Queue {
            order: BTreeMap::new(),
            places: BTreeMap::new(),
            arrivals: 0,
        }
    }
}

impl<K: Copy + Ord> Queue<K> {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key behind all of the same rank. A key that is already queued moves there.
    pub fn push(&mut self, key: K, rank: Rank) {
        let place = (rank, self.arrivals);
        self.arrivals += 1;
        if let Some(old) = self.places.insert(key, place) {
            self.order.remove(&old);
        }
        self.order.insert(place, key);
    }

    /// Takes out who is next.
    pub fn pop(&mut self) -> Option<(K, Rank)> {
        let ((rank, _), key) = self.order.pop_first()?;
        self.places.remove(&key);
        Some((key, rank))
    }

    /// Who is next.
    pub fn peek(&self) -> Option<(K, Rank)> {
        self.order
            .first_key_value()
            .map(|(&(rank, _), &key)| (key, rank))
    }

    /// Takes a key out wherever it stands; whether it was there.
    pub fn remove(&mut self, key: &K) -> bool {
        match self.places.remove(key) {
            Some(place) => {
                let removed = self.order.remove(&place);
                debug_assert!(removed.is_some(), "a key with a place stands in the order");
                true
            }
            None => false,
        }
    }

    /// Whether the key is queued.
    pub fn contains(&self, key: &K) -> bool {
        self.places.contains_key(key)
    }

    /// Takes out the next `limit` keys, or all if there are fewer, in order.
    pub fn take_batch(&mut self, limit: usize) -> Vec<(K, Rank)> {
        std::iter::from_fn(|| self.pop()).take(limit).collect()
    }

    /// All keys in order, without taking them out.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (K, Rank)> + '_ {
        self.order.iter().map(|(&(rank, _), &key)| (key, rank))
    }

    /// How many keys are queued.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether no key is queued.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Panics where the two halves of the queue disagree. Takes time linear in its length.
    pub fn check_invariants(&self) {
        assert_eq!(
            self.order.len(),
            self.places.len(),
            "each queued key has one place"
        );
        let ordered: BTreeSet<_> = self
            .order
            .iter()
            .map(|(place, key)| (*key, *place))
            .collect();
        let placed: BTreeSet<_> = self
            .places
            .iter()
            .map(|(key, place)| (*key, *place))
            .collect();
        assert!(ordered == placed, "each queued key stands at its place");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rank(priority: i8, estimate_ms: impl Into<Option<u64>>) -> Rank {
        Rank {
            priority,
            estimate: estimate_ms.into().map(Duration::from_millis),
        }
    }

    #[test]
    fn priority_then_unknown_then_longest_then_arrival() {
        let mut queue = Queue::new();
        queue.push("short", rank(0, 10));
        queue.push("low but long", rank(-1, 9_000));
        queue.push("long", rank(0, 500));
        queue.push("unknown", rank(0, None));
        queue.push("long too", rank(0, 500));
        queue.push("urgent", rank(7, 1));
        queue.push("low and unknown", rank(-1, None));
        let order: Vec<_> = queue
            .take_batch(usize::MAX)
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        assert_eq!(
            order,
            [
                "urgent",
                "unknown",
                "long",
                "long too",
                "short",
                "low and unknown",
                "low but long"
            ]
        );
        assert!(queue.is_empty());
    }

    #[test]
    fn pushing_again_moves_a_key_to_its_new_place() {
        let mut queue = Queue::new();
        queue.push(1, rank(0, 10));
        queue.push(2, rank(0, 10));
        queue.push(1, rank(0, 10));
        assert_eq!(queue.len(), 2);
        assert_eq!(queue.pop(), Some((2, rank(0, 10))));
        assert_eq!(queue.pop(), Some((1, rank(0, 10))));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn a_batch_is_no_longer_than_asked() {
        let mut queue = Queue::new();
        for key in 0..5 {
            queue.push(key, rank(0, None));
        }
        assert_eq!(queue.take_batch(2).len(), 2);
        assert_eq!(queue.take_batch(0).len(), 0);
        assert_eq!(queue.len(), 3);
        assert_eq!(queue.peek().map(|(key, _)| key), Some(2));
        assert_eq!(
            queue.iter().map(|(key, _)| key).collect::<Vec<_>>(),
            [2, 3, 4]
        );
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(u8, i8, Option<u8>),
        Remove(u8),
        Pop,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..12_u8, -2..3_i8, prop::option::of(0..4_u8))
                .prop_map(|(k, p, e)| Step::Push(k, p, e)),
            (0..12_u8).prop_map(Step::Remove),
            Just(Step::Pop),
        ]
    }

    proptest! {
        /// A vector sorted anew for each pop is the slow twin.
        #[test]
        fn same_as_a_sorted_vector(steps in prop::collection::vec(step(), 0..80)) {
            let mut queue = Queue::new();
            let mut twin: Vec<(u8, Rank)> = Vec::new();
            for step in steps {
                match step {
                    Step::Push(key, priority, estimate) => {
                        let rank = rank(priority, estimate.map(u64::from));
                        queue.push(key, rank);
                        twin.retain(|(other, _)| *other != key);
                        twin.push((key, rank));
                    }
                    Step::Remove(key) => {
                        let before = twin.len();
                        twin.retain(|(other, _)| *other != key);
                        prop_assert_eq!(queue.remove(&key), twin.len() < before);
                    }
                    Step::Pop => {
                        twin.sort_by(|(_, a), (_, b)| {
                            b.priority.cmp(&a.priority).then_with(|| {
                                let length = |rank: &Rank| rank.estimate.unwrap_or(Duration::MAX);
                                length(b).cmp(&length(a))
                            })
                        });
                        let expected = (!twin.is_empty()).then(|| twin.remove(0));
                        prop_assert_eq!(queue.pop(), expected);
                    }
                }
                queue.check_invariants();
                prop_assert_eq!(queue.len(), twin.len());
            }
        }
    }
}
