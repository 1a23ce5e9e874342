//! Who may ask, and where to ask them.

use maelstrom_gossip::NodeId;
use maelstrom_pull::Nearness;
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{PoisonError, RwLock},
};

/// The most addresses that are tried for one member.
const MAX_ADDRESSES: usize = 8;

/// The members and where they are.
#[derive(Debug, Default)]
pub(crate) struct Members {
    known: RwLock<HashMap<NodeId, Member>>,
}

#[derive(Clone, Debug)]
struct Member {
    addresses: Vec<SocketAddr>,
    same_machine: bool,
}

impl Members {
    pub(crate) fn insert(&self, node: NodeId, addresses: &[SocketAddr], same_machine: bool) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let addresses = addresses.iter().take(MAX_ADDRESSES).copied().collect();
        let member = Member {
            addresses,
            same_machine,
        };
        known.insert(node, member);
    }

    pub(crate) fn remove(&self, node: NodeId) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.remove(&node);
    }

    pub(crate) fn contains(&self, node: NodeId) -> bool {
        self.with(node, |_| ()).is_some()
    }

    /// How near a member is, unless it is the origin.
    pub(crate) fn nearness(&self, node: NodeId, otherwise: Nearness) -> Nearness {
        match self.with(node, |member| member.same_machine) {
            Some(true) => Nearness::SameMachine,
            _ => otherwise,
        }
    }

    /// Where to connect to a member.
    pub(crate) fn addresses(&self, node: NodeId) -> Option<Vec<SocketAddr>> {
        self.with(node, |member| member.addresses.clone())
    }

    fn with<T>(&self, node: NodeId, get: impl FnOnce(&Member) -> T) -> Option<T> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&node).map(get)
    }
}
