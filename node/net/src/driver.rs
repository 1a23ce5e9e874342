//! The task that makes and ends connections.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, ListenError, SwarmEvent};
use libp2p::{Swarm, identify, mdns};
use maelstrom_gossip::NodeId;
use tokio::sync::{mpsc, watch};

use crate::NetEvent;
use crate::address::{to_multiaddr, to_node, to_peer, to_socket};
use crate::admission::OTHER_KEY;
use crate::behaviour::{Behaviour, BehaviourEvent, name};
use crate::join::{Join, Stage, resolve};
use crate::networks::{is_on_local_network, own_addresses};
use crate::peer::{Dial, MAX_ADDRESSES};
use crate::state::{Closed, MAX_JOINS, Shared};
use crate::timing::pause;

/// The most peers that are dialled at once.
const MAX_DIALS: usize = 64;
/// The most addresses of one peer that are dialled at once.
const ADDRESSES_AT_ONCE: NonZeroU8 = NonZeroU8::new(4).unwrap();

/// After so many connections that were closed without an answer a peer counts as unreachable.
const UNANSWERED_MOST: u32 = 3;
/// Said of an address of this node's own.
const OWN_ADDRESS: &str = "that is this very node";

type Resolved = (u64, Result<Vec<SocketAddr>, String>);

pub(crate) struct Driver {
    swarm: Swarm<Behaviour>,
    shared: Arc<Shared>,
    /// Peers that are not dialled before some time, soonest first.
    pauses: BinaryHeap<Reverse<(Instant, NodeId)>>,
    dialling: HashMap<ConnectionId, NodeId>,
    joins: Vec<Join>,
    next_join: u64,
    resolved: (mpsc::Sender<Resolved>, mpsc::Receiver<Resolved>),
}

impl Driver {
    pub(crate) fn new(swarm: Swarm<Behaviour>, shared: Arc<Shared>) -> Self {
        Self {
            swarm,
            shared,
            pauses: BinaryHeap::new(),
            dialling: HashMap::new(),
            joins: Vec::new(),
            next_join: 0,
            resolved: mpsc::channel(MAX_JOINS),
        }
    }

    /// Runs until the node is stopped.
    pub(crate) async fn run(mut self, done: watch::Sender<bool>) {
        while !self.tend() {
            let due = self.due();
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                () = self.shared.driver.notified() => {}
                Some((number, found)) = self.resolved.1.recv() => self.on_resolved(number, found),
                () = tokio::time::sleep_until(due.into()) => {}
            }
        }
        self.finish().await;
        let reader = self.shared.lock().inbox.close();
        reader.into_iter().for_each(std::task::Waker::wake);
        drop(self);
        done.send_replace(true);
    }

    /// Handles events until everything that is to be listened on is, or for a second.
    pub(crate) async fn settle(&mut self, listen: &[SocketAddr]) {
        let own = own_addresses();
        // Each listener is at its address, or at all addresses of its kind.
        let mut expected: Vec<IpAddr> = listen.iter().map(SocketAddr::ip).collect();
        for wildcard in listen
            .iter()
            .filter(|address| address.ip().is_unspecified())
        {
            expected.extend(own.iter().filter(|ip| ip.is_ipv4() == wildcard.is_ipv4()));
        }
        expected.retain(|ip| !ip.is_unspecified());
        let enough = async {
            let is_there = |ip: &IpAddr, shared: &Shared| {
                shared
                    .lock()
                    .listening
                    .iter()
                    .any(|address| address.ip() == *ip)
            };
            while !expected.iter().all(|ip| is_there(ip, &self.shared)) {
                let event = self.swarm.select_next_some().await;
                self.on_event(event);
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), enough).await;
    }

    /// Does what others have asked for. True if the node is to stop.
    fn tend(&mut self) -> bool {
        let now = Instant::now();
        while let Some(Reverse((due, node))) = self.pauses.peek().copied()
            && due <= now
        {
            self.pauses.pop();
            let mut state = self.shared.lock();
            let Some(peer) = state.peers.get_mut(&node) else {
                continue;
            };
            if peer.dial == Dial::Pausing {
                peer.dial = Dial::Idle;
                if peer.has_waiting() && !peer.agreement.is_settling() {
                    peer.dial = Dial::Wanted;
                    state.wanted.push_back(node);
                } else {
                    state.tidy(node);
                }
            }
        }

        let mut state = self.shared.lock();
        let closing = std::mem::take(&mut state.closing);
        let joins = std::mem::take(&mut state.joins);
        let admitted = std::mem::take(&mut state.admitted);
        let room = MAX_DIALS.saturating_sub(self.dialling.len());
        let room = room.min(state.wanted.len());
        let wanted: Vec<NodeId> = state.wanted.drain(..room).collect();
        let is_stopping = state.stopping;
        drop(state);

        for (connection, node) in admitted {
            self.on_admitted(connection, node);
        }
        for connection in closing {
            self.swarm.close_connection(connection);
        }
        for target in joins {
            self.add_join(&target);
        }
        for node in wanted {
            self.dial(node);
        }
        self.start_joins();
        is_stopping
    }

    fn due(&self) -> Instant {
        let pause = self.pauses.peek().map(|Reverse((due, _))| *due);
        let join = self.joins.iter().filter_map(Join::due).min();
        let far = Instant::now() + Duration::from_secs(3600);
        [pause, join].into_iter().flatten().min().unwrap_or(far)
    }

    fn dial(&mut self, node: NodeId) {
        let mut state = self.shared.lock();
        let is_banned = state.is_banned(node);
        let Some(peer) = state.peers.get_mut(&node) else {
            return;
        };
        peer.dial = Dial::Idle;
        if peer.agreement.is_settling() {
            return;
        }
        if is_banned || peer.addresses.is_empty() {
            peer.drop_waiting();
            state.tidy(node);
            return;
        }
        let addresses = peer.addresses.iter().copied().map(to_multiaddr).collect();
        drop(state);
        let Some(id) = to_peer(node) else {
            return self.on_unreachable(node, "its id is not a key");
        };
        let options = DialOpts::peer_id(id)
            .condition(PeerCondition::Always)
            .addresses(addresses)
            .override_dial_concurrency_factor(ADDRESSES_AT_ONCE)
            .allocate_new_port()
            .build();
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dialling.insert(connection, node);
                self.shared.lock().peer(node).dial = Dial::Dialling(connection);
            }
            Err(error) => self.on_unreachable(node, &explain(&error)),
        }
    }

    /// A peer could not be reached: what waits for it is dropped, and it is left alone for a
    /// while.
    fn on_unreachable(&mut self, node: NodeId, reason: &str) {
        tracing::debug!(peer = %node, "the peer cannot be reached: {reason}");
        let timing = self.shared.timing;
        let mut state = self.shared.lock();
        let Some(peer) = state.peers.get_mut(&node) else {
            return;
        };
        peer.failures = peer.failures.saturating_add(1);
        let mut wait = pause(timing.redial, timing.redial_most, peer.failures);
        if reason.contains(OTHER_KEY) {
            wait = timing.redial_stranger;
        }
        peer.drop_waiting();
        peer.dial = Dial::Pausing;
        self.pauses.push(Reverse((Instant::now() + wait, node)));
        state.tidy(node);
    }

    fn add_join(&mut self, target: &str) {
        if self.joins.iter().any(|join| join.target == target) {
            return;
        }
        self.next_join += 1;
        match Join::new(self.next_join, target) {
            Ok(join) => self.joins.push(join),
            Err(reason) => {
                let reason = format!("{reason}; it is not tried again");
                self.report_join_failed(target.to_owned(), reason);
            }
        }
    }

    fn report_join_failed(&self, target: String, reason: String) {
        self.shared.event(NetEvent::JoinFailed { target, reason });
    }

    fn start_joins(&mut self) {
        let now = Instant::now();
        for join in &mut self.joins {
            if join.due().is_some_and(|due| due <= now) {
                join.stage = Stage::Resolving;
                let (number, host, port) = (join.number, join.host.clone(), join.port);
                let answer = self.resolved.0.clone();
                tokio::spawn(async move {
                    let found = resolve(host, port).await;
                    // The other end is gone only when the node stops.
                    let _ = answer.send((number, found)).await;
                });
            }
        }
    }

    fn on_resolved(&mut self, number: u64, found: Result<Vec<SocketAddr>, String>) {
        let timing = self.shared.timing;
        let Some(join) = self.joins.iter_mut().find(|join| join.number == number) else {
            return;
        };
        let mut connections = Vec::new();
        let mut errors = Vec::new();
        match found {
            Err(reason) => errors.push(reason),
            Ok(addresses) => {
                for address in addresses {
                    let options = DialOpts::unknown_peer_id()
                        .address(to_multiaddr(address))
                        .allocate_new_port()
                        .build();
                    let connection = options.connection_id();
                    match self.swarm.dial(options) {
                        Ok(()) => connections.push(connection),
                        Err(DialError::NoAddresses) => errors.push(OWN_ADDRESS.into()),
                        Err(error) => errors.push(explain(&error)),
                    }
                }
            }
        }
        if errors.iter().any(|error| error == OWN_ADDRESS) {
            let target = join.target.clone();
            self.joins.retain(|join| join.number != number);
            return self
                .report_join_failed(target, format!("{OWN_ADDRESS}; it is not tried again"));
        }
        if connections.is_empty() {
            let target = join.target.clone();
            if let Some(reason) = join.failed(errors.join("; "), &timing) {
                self.report_join_failed(target, format!("{reason}; it is tried again"));
            }
        } else {
            join.stage = Stage::Dialling(connections);
        }
    }

    fn join_of(&self, connection: ConnectionId) -> Option<usize> {
        self.joins.iter().position(|join| match &join.stage {
            Stage::Dialling(connections) => connections.contains(&connection),
            _ => false,
        })
    }

    /// A dial has failed. `None` as reason: the other node did not use the connection.
    fn on_join_dial_failed(&mut self, connection: ConnectionId, reason: Option<&str>) {
        let timing = self.shared.timing;
        if let Some(at) = self.join_of(connection) {
            let join = &mut self.joins[at];
            let target = join.target.clone();
            let news = match reason {
                Some(reason) => join.dial_failed(connection, reason, &timing),
                None => join.dial_unused(connection, &timing),
            };
            if let Some(reason) = news {
                self.report_join_failed(target, format!("{reason}; it is tried again"));
            }
        }
    }

    fn on_admitted(&mut self, connection: ConnectionId, node: NodeId) {
        if let Some(at) = self.join_of(connection) {
            let target = self.joins.remove(at).target;
            self.shared.event(NetEvent::Joined { target, peer: node });
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Identify(event)) => self.on_identify(event),
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(event)) => self.on_mdns(event),
            SwarmEvent::Behaviour(BehaviourEvent::Links(event)) => match event {},
            SwarmEvent::NewListenAddr { address, .. } => {
                if let Some(address) = to_socket(&address) {
                    let mut state = self.shared.lock();
                    if !state.listening.contains(&address) {
                        state.listening.push(address);
                    }
                    drop(state);
                    self.shared.event(NetEvent::Listening(address));
                }
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                let gone = to_socket(&address);
                let mut state = self.shared.lock();
                state.listening.retain(|address| Some(*address) != gone);
            }
            SwarmEvent::ListenerClosed {
                reason: Err(error), ..
            } => tracing::error!("no longer listening: {error}"),
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!("cannot take a connection: {error}");
            }
            SwarmEvent::ConnectionEstablished { connection_id, .. } => {
                // From here on the handler decides, and `closed` tells how it ended.
                self.dialling.remove(&connection_id);
            }
            SwarmEvent::ConnectionClosed {
                connection_id,
                peer_id,
                ..
            } => {
                if let Some(node) = to_node(&peer_id) {
                    self.on_closed(connection_id, node);
                }
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                error,
                ..
            } => self.on_dial_failed(connection_id, &error),
            SwarmEvent::IncomingConnectionError {
                send_back_addr,
                error,
                peer_id,
                ..
            } => {
                let who = peer_id.as_ref().map(name);
                tracing::debug!(address = %send_back_addr, who, "not admitted: {error:?}");
                if let (ListenError::LocalPeerId { .. }, Some(address)) =
                    (&error, to_socket(&send_back_addr))
                {
                    tracing::warn!(%address, "another node has this node's key, or it dials itself");
                }
            }
            _ => {}
        }
    }

    fn on_closed(&mut self, connection: ConnectionId, node: NodeId) {
        let closed = self.shared.closed(node, connection);
        if self.shared.is_linked(node) {
            // Another connection with it is used, perhaps since it has dialled too.
            self.on_admitted(connection, node);
        } else {
            self.on_join_dial_failed(connection, None);
        }
        match closed {
            Closed::Superfluous => {}
            // Most likely it has dialled this node at the same time, and its connection will be
            // used; but what waits doesn't wait for ever.
            Closed::Unanswered if self.failures(node) >= UNANSWERED_MOST => {
                self.on_unreachable(node, "it does not admit this node");
            }
            Closed::Unanswered | Closed::Used => self.redial(node),
        }
    }

    fn failures(&self, node: NodeId) -> u32 {
        let state = self.shared.lock();
        state.peers.get(&node).map_or(0, |peer| peer.failures)
    }

    /// What still waits for the peer goes over a new connection.
    fn redial(&mut self, node: NodeId) {
        let timing = self.shared.timing;
        let mut state = self.shared.lock();
        if let Some(peer) = state.peers.get_mut(&node)
            && peer.has_waiting()
            && peer.dial == Dial::Idle
            && !peer.agreement.is_settling()
        {
            peer.failures = peer.failures.saturating_add(1);
            peer.dial = Dial::Pausing;
            let wait = pause(timing.redial, timing.redial_most, peer.failures);
            self.pauses.push(Reverse((Instant::now() + wait, node)));
        }
    }

    fn on_dial_failed(&mut self, connection: ConnectionId, error: &DialError) {
        let reason = explain(error);
        if let Some(at) = self.join_of(connection) {
            if let DialError::LocalPeerId { .. } = error {
                let target = self.joins.remove(at).target;
                self.report_join_failed(target, format!("{OWN_ADDRESS}; it is not tried again"));
            } else {
                self.on_join_dial_failed(connection, Some(&reason));
            }
        }
        if let Some(node) = self.dialling.remove(&connection) {
            self.on_unreachable(node, &reason);
        }
    }

    fn on_identify(&mut self, event: identify::Event) {
        if let identify::Event::Received {
            peer_id,
            connection_id,
            info,
        } = event
            && let Some(node) = to_node(&peer_id)
        {
            self.shared
                .identified(node, connection_id, &info.listen_addrs);
        }
    }

    fn on_mdns(&mut self, event: mdns::Event) {
        match event {
            mdns::Event::Discovered(found) => {
                let mut by_node: HashMap<NodeId, Vec<SocketAddr>> = HashMap::new();
                for (peer, address) in found {
                    let address = address
                        .into_iter()
                        .filter(|p| !matches!(p, Protocol::P2p(_)));
                    if let Some(node) = to_node(&peer)
                        && let Some(address) = to_socket(&address.collect())
                        && is_on_local_network(address.ip())
                    {
                        let addresses = by_node.entry(node).or_default();
                        if addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
                            addresses.push(address);
                        }
                    }
                }
                for (node, addresses) in by_node {
                    self.shared.discovered(node, addresses);
                }
            }
            mdns::Event::Expired(gone) => {
                for node in gone.iter().filter_map(|(peer, _)| to_node(peer)) {
                    self.shared.vanished(node);
                }
            }
        }
    }

    /// Sends what is queued, for a bounded time, then closes all connections.
    async fn finish(&mut self) {
        let shared = self.shared.clone();
        let arrived = async {
            while !shared.lock().has_all_arrived() {
                tokio::select! {
                    event = self.swarm.select_next_some() => self.on_event(event),
                    () = shared.driver.notified() => {}
                }
            }
        };
        let _ = tokio::time::timeout(shared.timing.linger, arrived).await;
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // It was connected a moment ago; if it isn't any more, so much the better.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closed = async {
            while self
                .swarm
                .network_info()
                .connection_counters()
                .num_established()
                > 0
            {
                let event = self.swarm.select_next_some().await;
                self.on_event(event);
            }
        };
        let _ = tokio::time::timeout(shared.timing.linger, closed).await;
    }
}

/// What an error of libp2p means.
fn explain(error: &DialError) -> String {
    match error {
        DialError::Transport(errors) => {
            let errors = errors.iter().map(|(address, error)| {
                let address =
                    to_socket(address).map_or_else(|| address.to_string(), |a| a.to_string());
                format!("{address}: {}", innermost(error))
            });
            errors.collect::<Vec<_>>().join("; ")
        }
        DialError::WrongPeerId { obtained, address } => {
            let address = to_socket(address).map_or_else(|| address.to_string(), |a| a.to_string());
            format!(
                "at {address} there is another node by now, {}",
                name(obtained)
            )
        }
        DialError::LocalPeerId { .. } => OWN_ADDRESS.into(),
        DialError::NoAddresses => "no address of it is known".into(),
        DialError::Denied { cause } => cause.to_string(),
        DialError::Aborted => "the attempt was given up".into(),
        DialError::DialPeerConditionFalse(_) => "it is being dialled already".into(),
    }
}

pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = error.to_string();
        next = error.source();
    }
    text
}
