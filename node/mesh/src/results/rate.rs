//! How much a peer may want in a second.

use maelstrom_gossip::NodeId;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Peers that are remembered. Whoever is forgotten starts anew.
const MAX_PEERS: usize = 4096;

/// What each peer has taken of an allowance that refills with time.
#[derive(Debug)]
pub(crate) struct Rate {
    /// What a peer that was quiet for long may take at once.
    burst: f64,
    per_second: f64,
    taken: HashMap<NodeId, (f64, Instant)>,
}

impl Rate {
    pub(crate) fn new(burst: u32, per_second: u32) -> Self {
        Self {
            burst: burst.into(),
            per_second: per_second.into(),
            taken: HashMap::new(),
        }
    }

    /// Takes so much for a peer. `false`: that is more than it may have now.
    pub(crate) fn take(&mut self, now: Instant, peer: NodeId, amount: usize) -> bool {
        if self.taken.len() >= MAX_PEERS && !self.taken.contains_key(&peer) {
            let refilled = Duration::from_secs_f64(self.burst / self.per_second);
            self.taken
                .retain(|_, (_, then)| now.saturating_duration_since(*then) < refilled);
            if self.taken.len() >= MAX_PEERS {
                self.taken.clear();
            }
        }
        let (taken, then) = self.taken.entry(peer).or_insert((0.0, now));
        let passed = now.saturating_duration_since(*then).as_secs_f64();
        *taken = (*taken - passed * self.per_second).max(0.0);
        *then = now;
        let fits = *taken + amount as f64 <= self.burst;
        if fits {
            *taken += amount as f64;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_refills_and_is_each_peers_own() {
        let mut rate = Rate::new(100, 10);
        let (one, two) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
        let start = Instant::now();
        assert!(rate.take(start, one, 100) && !rate.take(start, one, 1));
        assert!(rate.take(start, two, 60) && !rate.take(start, two, 60));
        let later = start + Duration::from_secs(5);
        assert!(rate.take(later, one, 50) && !rate.take(later, one, 1));
        assert!(!rate.take(later + Duration::from_secs(100), one, 101));
    }

    #[test]
    fn memory_is_bounded() {
        let mut rate = Rate::new(10, 1);
        let now = Instant::now();
        for n in 0..3 * MAX_PEERS {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_le_bytes());
            rate.take(now, NodeId::from_bytes(id), 1);
            assert!(rate.taken.len() <= MAX_PEERS);
        }
    }
}
