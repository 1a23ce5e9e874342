//! Which connections libp2p may have, and a [`Handler`] for each.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Multiaddr;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandlerInEvent, ToSwarm,
};
use libp2p::{PeerId, identify, mdns};
use maelstrom_gossip::NodeId;

use crate::address::{to_node, to_socket};
use crate::handler::Handler;
use crate::refusals::machine;
use crate::state::Shared;

/// The most incoming connections that are being authenticated, from one machine and from all.
pub(crate) const MAX_UNFINISHED_OF_MACHINE: usize = 32;
pub(crate) const MAX_UNFINISHED: usize = 512;

/// Everything that runs on a node's connections.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) links: Links,
    pub(crate) identify: identify::Behaviour,
    pub(crate) mdns: Toggle<mdns::tokio::Behaviour>,
}

/// Why a connection is refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Denied(&'static str);

/// The connections that carry messages.
pub(crate) struct Links {
    shared: Arc<Shared>,
    unfinished: HashMap<ConnectionId, IpAddr>,
    unfinished_of: HashMap<IpAddr, usize>,
    established: usize,
    max_established: usize,
}

impl Links {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            unfinished: HashMap::new(),
            unfinished_of: HashMap::new(),
            established: 0,
            max_established: max_connections(),
        }
    }

    fn finished(&mut self, connection: ConnectionId) {
        let Some(machine) = self.unfinished.remove(&connection) else {
            return;
        };
        if let Some(count) = self.unfinished_of.get_mut(&machine) {
            *count -= 1;
            if *count == 0 {
                self.unfinished_of.remove(&machine);
            }
        }
        self.shared.lock().unfinished = self.unfinished.len();
    }

    fn open(
        &mut self,
        connection: ConnectionId,
        peer: &PeerId,
        address: &Multiaddr,
        dialled: bool,
    ) -> Result<Handler, ConnectionDenied> {
        let denied = |reason| ConnectionDenied::new(Denied(reason));
        self.finished(connection);
        let node = to_node(peer).ok_or_else(|| denied("its key is not an ed25519 key"))?;
        let address = to_socket(address).ok_or_else(|| denied("its address is not IP and TCP"))?;
        self.shared.opened(node, connection).map_err(denied)?;
        let shared = self.shared.clone();
        Ok(Handler::new(shared, node, connection, address, dialled))
    }
}

/// How many connections there may be: half of the files that this process may open, since
/// containers, layers and clients need some too.
fn max_connections() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let files = limit.current.unwrap_or(u64::MAX);
    (files / 2).clamp(64, 8192) as usize
}

impl NetworkBehaviour for Links {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let denied = |reason| ConnectionDenied::new(Denied(reason));
        let address: SocketAddr =
            to_socket(remote).ok_or_else(|| denied("its address is not IP and TCP"))?;
        let machine = machine(address.ip());
        let of_machine = self.unfinished_of.get(&machine).copied().unwrap_or(0);
        if self.unfinished.len() >= MAX_UNFINISHED
            || of_machine >= MAX_UNFINISHED_OF_MACHINE
            || self.established >= self.max_established
        {
            self.shared.lock().turned_away += 1;
            return Err(denied("there are too many connections"));
        }
        self.unfinished.insert(connection, machine);
        self.unfinished_of.insert(machine, of_machine + 1);
        self.shared.lock().unfinished = self.unfinished.len();
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        self.open(connection, &peer, remote, false)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        self.open(connection, &peer, address, true)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(_) => self.established += 1,
            FromSwarm::ConnectionClosed(_) => self.established -= 1,
            FromSwarm::ListenFailure(failure) => self.finished(failure.connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// Whom a peer id names, for messages about peers that aren't nodes, too.
pub(crate) fn name(peer: &PeerId) -> String {
    to_node(peer).map_or_else(|| peer.to_string(), |node: NodeId| node.to_string())
}
