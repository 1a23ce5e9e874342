//! What is known of another node, for one bundle.

use crate::{Nearness, Pieces};
use std::time::Instant;

/// Another node.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) nearness: Nearness,
    pub(crate) stage: Stage,
    /// What it says it has.
    pub(crate) theirs: Pieces,
    /// How many pieces it was last told of.
    pub(crate) told: usize,
    pub(crate) told_at: Instant,
    pub(crate) heard: Instant,
    /// How many pieces are asked for or fetched there.
    pub(crate) in_flight: usize,
    /// It has refused, and is not asked for a piece until then.
    pub(crate) rests_until: Option<Instant>,
    /// Slow and broken fetches in a row.
    pub(crate) strikes: u32,
}

/// How far two nodes are with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Known by name. This node may join it from `at` on.
    Known {
        /// When.
        at: Instant,
    },
    /// This node has asked it for a link. The other owes a hello.
    Joining {
        /// When to ask again.
        again: Instant,
        /// How often it was asked.
        tries: u32,
    },
    /// The two tell each other what they have.
    Linked,
}

impl Link {
    pub(crate) fn new(now: Instant, nearness: Nearness) -> Self {
        Link {
            nearness,
            stage: Stage::Known { at: now },
            theirs: Pieces::new(),
            told: 0,
            told_at: now,
            heard: now,
            in_flight: 0,
            rests_until: None,
            strikes: 0,
        }
    }

    pub(crate) fn is_linked(&self) -> bool {
        self.stage == Stage::Linked
    }
}
