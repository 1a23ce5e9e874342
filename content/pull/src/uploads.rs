//! Whose turn it is to be served.

use crate::BundleId;
use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

/// An ask that waits for its turn.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) bundle: BundleId,
    pub(crate) number: u64,
    pub(crate) pieces: Vec<u32>,
}

/// A piece that is being served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Active {
    pub(crate) bundle: BundleId,
    pub(crate) piece: u32,
    pub(crate) until: Instant,
}

/// One node that asks.
#[derive(Debug, Default)]
struct Asker {
    waiting: VecDeque<Waiting>,
    active: BTreeMap<u64, Active>,
    /// Bytes given out to it, since anyone last waited.
    bytes: u64,
}

/// All asks of this node, over all bundles.
#[derive(Debug)]
pub(crate) struct Uploads<N> {
    askers: BTreeMap<N, Asker>,
    active: usize,
}

impl<N> Default for Uploads<N> {
    fn default() -> Self {
        Uploads {
            askers: BTreeMap::new(),
            active: 0,
        }
    }
}

impl<N: Copy + Ord> Uploads<N> {
    /// The piece that this ask was given, if it is still being served.
    pub(crate) fn active(&self, node: N, number: u64) -> Option<Active> {
        self.askers.get(&node)?.active.get(&number).copied()
    }

    /// Whether a piece is being served to a node.
    pub(crate) fn serves(&self, node: N, bundle: BundleId, piece: u32) -> bool {
        self.number(node, bundle, piece).is_some()
    }

    /// The ask in answer to which a piece is being served.
    pub(crate) fn number(&self, node: N, bundle: BundleId, piece: u32) -> Option<u64> {
        let active = self.askers.get(&node)?.active.iter();
        let mut wanted =
            active.filter(|(_, active)| active.bundle == bundle && active.piece == piece);
        wanted.next().map(|(&number, _)| number)
    }

    /// Adds an ask; `false` where the node has too many.
    pub(crate) fn add(&mut self, node: N, ask: Waiting, most: usize) -> bool {
        let asker = self.askers.entry(node).or_default();
        if let Some(known) = asker
            .waiting
            .iter_mut()
            .find(|known| known.number == ask.number)
        {
            *known = ask;
            return true;
        }
        if asker.waiting.len() >= most {
            return false;
        }
        asker.waiting.push_back(ask);
        true
    }

    /// Takes the ask whose turn it is: of the node with the fewest pieces on the way to it, then
    /// of the one that was given the least.
    pub(crate) fn next(&mut self, most: usize) -> Option<(N, Waiting)> {
        if self.active >= most {
            return None;
        }
        let (&node, asker) = self
            .askers
            .iter_mut()
            .filter(|(_, asker)| !asker.waiting.is_empty())
            .min_by_key(|(_, asker)| (asker.active.len(), asker.bytes))?;
        Some((node, asker.waiting.pop_front()?))
    }

    pub(crate) fn start(&mut self, node: N, number: u64, active: Active, bytes: u64) {
        let asker = self.askers.entry(node).or_default();
        if asker.active.insert(number, active).is_none() {
            self.active += 1;
        }
        asker.bytes = asker.bytes.saturating_add(bytes);
    }

    /// The ask is over, served or not.
    pub(crate) fn end(&mut self, node: N, number: u64) {
        let Some(asker) = self.askers.get_mut(&node) else {
            return;
        };
        if asker.active.remove(&number).is_some() {
            self.active -= 1;
        }
        asker.waiting.retain(|ask| ask.number != number);
        if asker.active.is_empty() && asker.waiting.is_empty() && self.active == 0 {
            // Nobody is served: bygones.
            self.askers.retain(|_, asker| !asker.waiting.is_empty());
        }
    }

    /// Ends what a node is served of a bundle, or of all.
    pub(crate) fn drop_node(&mut self, node: N, bundle: Option<BundleId>) {
        let Some(asker) = self.askers.get_mut(&node) else {
            return;
        };
        let goes = |other: BundleId| bundle.is_none_or(|bundle| bundle == other);
        asker.waiting.retain(|ask| !goes(ask.bundle));
        let before = asker.active.len();
        asker.active.retain(|_, active| !goes(active.bundle));
        self.active -= before - asker.active.len();
        if asker.waiting.is_empty() && asker.active.is_empty() {
            self.askers.remove(&node);
        }
    }

    /// Ends everything about a bundle.
    pub(crate) fn drop_bundle(&mut self, bundle: BundleId) {
        let nodes: Vec<N> = self.askers.keys().copied().collect();
        nodes
            .into_iter()
            .for_each(|node| self.drop_node(node, Some(bundle)));
    }

    /// Ends what has taken too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        for asker in self.askers.values_mut() {
            let before = asker.active.len();
            asker.active.retain(|_, active| active.until > now);
            self.active -= before - asker.active.len();
        }
    }

    /// When the first one has taken too long.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let active = self.askers.values().flat_map(|asker| asker.active.values());
        active.map(|active| active.until).min()
    }

    /// How many pieces are being served.
    pub(crate) fn len(&self) -> usize {
        self.active
    }

    pub(crate) fn check_invariants(&self) {
        let active: usize = self.askers.values().map(|asker| asker.active.len()).sum();
        assert_eq!(active, self.active);
    }
}
