//! One simulated machine.

use std::collections::{BTreeMap, BTreeSet};

use maelstrom_dispatch as dispatch;
use maelstrom_gossip as gossip;

use crate::kernel::{Clock, Time};

/// A machine with the processes on it.
pub(crate) struct Node {
    pub(crate) clock: Clock,
    pub(crate) slots: u16,
    /// Which life of the node's process this is; 0 before the first.
    pub(crate) life: u32,
    pub(crate) alive: bool,
    /// Until when it neither runs nor hears anything.
    pub(crate) paused_until: Time,
    /// How many times longer its jobs take.
    pub(crate) slowness: f64,
    /// The highest term that it wrote down.
    pub(crate) term: u64,
    /// The highest term in which it was elected, in all its lives.
    pub(crate) held_term: u64,
    pub(crate) machines: Option<Machines>,
    /// When its next wake-up is planned.
    pub(crate) wakes_at: Option<Time>,
    /// What runs here.
    pub(crate) running: BTreeMap<dispatch::Held, Running>,
    pub(crate) slots_running: u32,
    /// The jobs that were submitted here in this life, by their ids.
    pub(crate) submitted: Vec<u32>,
    pub(crate) unreported: usize,
    pub(crate) layers: BTreeSet<u16>,
    /// What is being pulled, and for which leases.
    pub(crate) pulling: BTreeMap<u16, Pull>,
}

/// The protocol machines of a life of a node.
pub(crate) struct Machines {
    pub(crate) membership: Option<gossip::Membership>,
    pub(crate) election: Option<gossip::Election>,
    pub(crate) dispatcher: Option<dispatch::Dispatcher>,
    pub(crate) told: gossip::Load,
    pub(crate) tells_at: Option<Time>,
}

/// A job that runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running {
    pub(crate) job: u32,
    pub(crate) slots: u16,
    /// Tells a run of a lease from another of the same.
    pub(crate) token: u64,
    pub(crate) killed: bool,
}

/// A layer on its way.
#[derive(Debug)]
pub(crate) struct Pull {
    pub(crate) flow: u64,
    pub(crate) waiting: Vec<(dispatch::Held, Vec<u16>)>,
}
