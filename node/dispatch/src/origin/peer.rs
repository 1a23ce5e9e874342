//! What an origin knows of a node that runs, or could run, its jobs.

use crate::{LayerId, LeaseId};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

/// How many layers an origin remembers to have sent a peer to.
const MAX_REMEMBERED_LAYERS: usize = 256;

/// A lease as its origin sees it.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    /// The request it answers.
    pub(crate) number: u64,
    pub(crate) slots: u16,
    /// When the node was first heard to run it.
    pub(crate) started: Option<Instant>,
    /// From when on it may be run again elsewhere.
    pub(crate) straggles: Option<Instant>,
}

/// One node.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) leases: BTreeMap<LeaseId, Lease>,
    /// How many of them have not started.
    pub(crate) unstarted: u32,
    /// The number of the last request that was answered; 0 before the first.
    pub(crate) answered: u64,
    /// When it last told what it holds.
    pub(crate) heard: Instant,
    /// It asked in vain, when the origin had queued this many jobs ever.
    pub(crate) hungry: Option<u64>,
    /// It has been told that there is work.
    pub(crate) told_of_work: bool,
    /// When it was woken, and for how many slots, until it answers.
    pub(crate) woken: Option<(Instant, u32)>,
    /// When it was asked to return work, until it answers.
    pub(crate) revoking: Option<Instant>,
    layers: BTreeSet<LayerId>,
}

impl Peer {
    pub(crate) fn new(now: Instant) -> Self {
        Peer {
            leases: BTreeMap::new(),
            unstarted: 0,
            answered: 0,
            heard: now,
            hungry: None,
            told_of_work: false,
            woken: None,
            revoking: None,
            layers: BTreeSet::new(),
        }
    }

    /// Whether a job was granted to the node that brought this layer there.
    pub(crate) fn was_sent_to(&self, layer: &LayerId) -> bool {
        self.layers.contains(layer)
    }

    pub(crate) fn remember_layer(&mut self, layer: LayerId) {
        if self.layers.len() >= MAX_REMEMBERED_LAYERS && !self.layers.contains(&layer) {
            self.layers.clear();
        }
        self.layers.insert(layer);
    }
}
