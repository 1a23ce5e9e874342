//! Who may connect.

use iroh::{
    EndpointAddr, EndpointId,
    endpoint::{AfterHandshakeOutcome, Connection, EndpointHooks, VarInt},
};
use maelstrom_gossip::NodeId;
use maelstrom_pull::Nearness;
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
};

/// The most addresses that are tried for one member.
const MAX_ADDRESSES: usize = 8;

/// Closes connections of those who are no members.
const NO_MEMBER: VarInt = VarInt::from_u32(1);

/// The members and where they are. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Members {
    known: Arc<RwLock<HashMap<NodeId, Member>>>,
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
    pub(crate) fn address(&self, node: NodeId) -> Option<EndpointAddr> {
        let id = EndpointId::from_bytes(node.as_bytes()).ok()?;
        self.with(node, |member| {
            let addresses = member.addresses.iter();
            addresses.fold(EndpointAddr::new(id), |all, one| all.with_ip_addr(*one))
        })
    }

    fn with<T>(&self, node: NodeId, get: impl FnOnce(&Member) -> T) -> Option<T> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&node).map(get)
    }
}

/// Refuses connections of those who are no members, before any request is read.
#[derive(Debug)]
pub(crate) struct Gate {
    members: Members,
}

impl Gate {
    pub(crate) fn new(members: Members) -> Gate {
        Gate { members }
    }
}

impl EndpointHooks for Gate {
    async fn after_handshake<'a>(&'a self, connection: &'a Connection) -> AfterHandshakeOutcome {
        if self.members.contains(node_of(connection)) {
            AfterHandshakeOutcome::accept()
        } else {
            AfterHandshakeOutcome::accept().reject(NO_MEMBER, b"not a member of this mesh")
        }
    }
}

/// Whom a connection is with.
pub(crate) fn node_of(connection: &Connection) -> NodeId {
    NodeId::from_bytes(*connection.remote_id().as_bytes())
}
