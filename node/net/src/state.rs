//! What the connections, the driver and the node's other parts share.
//!
//! Messages go from [`send`](Shared::send) into a peer's queue, from there to the connection's
//! task, and at the other end from that connection's task into the inbox. The driver's task only
//! makes and ends connections.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};
use std::task::Waker;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use libp2p::multiaddr::Multiaddr;
use libp2p::swarm::ConnectionId;
use maelstrom_gossip::NodeId;
use tokio::sync::Notify;

use crate::address::{is_reachable, to_socket};
use crate::agreement::{Accept, Answer, Hello};
use crate::channel::CHANNELS;
use crate::inbox::Inbox;
use crate::peer::{Dial, Link, MAX_ADDRESSES, MAX_CONNECTIONS, Peer};
use crate::refusals::Refusals;
use crate::timing::Timing;
use crate::{Ban, Channel, NetEvent};

/// The most bans that are remembered.
const MAX_BANS: usize = 1024;
/// The most peers that are remembered because they showed themselves by multicast.
const MAX_DISCOVERED: usize = 4096;
/// The longest reason that is kept, in bytes.
const MAX_REASON_BYTES: usize = 500;
/// The most addresses to join that are being tried.
pub(crate) const MAX_JOINS: usize = 64;

pub(crate) struct Shared {
    pub(crate) me: NodeId,
    pub(crate) timing: Timing,
    state: Mutex<State>,
    /// There is something for the driver to do.
    pub(crate) driver: Notify,
}

pub(crate) struct State {
    me: NodeId,
    life: u64,
    pub(crate) peers: HashMap<NodeId, Peer>,
    discovered: usize,
    pub(crate) inbox: Inbox,
    pub(crate) refusals: Refusals,
    bans: HashMap<NodeId, (Instant, Ban)>,
    pub(crate) listening: Vec<SocketAddr>,
    pub(crate) unfinished: usize,
    pub(crate) abandoned: u64,
    pub(crate) turned_away: u64,
    pub(crate) dropped_unknown: u64,
    pub(crate) mdns_error: Option<String>,

    // For the driver.
    /// Peers to dial.
    pub(crate) wanted: VecDeque<NodeId>,
    pub(crate) closing: Vec<ConnectionId>,
    pub(crate) joins: Vec<String>,
    /// Connections that came to be used, and whose.
    pub(crate) admitted: Vec<(ConnectionId, NodeId)>,
    pub(crate) stopping: bool,
}

/// Wakes tasks once the lock is released.
#[derive(Default)]
struct Wakers(Vec<Waker>);

impl Wakers {
    fn add(&mut self, waker: Option<Waker>) {
        self.0.extend(waker);
    }

    fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

impl Shared {
    pub(crate) fn new(me: NodeId, timing: Timing) -> Self {
        Self {
            me,
            timing,
            state: Mutex::new(State {
                me,
                life: rand::random(),
                peers: HashMap::new(),
                discovered: 0,
                inbox: Inbox::default(),
                refusals: Refusals::default(),
                bans: HashMap::new(),
                listening: Vec::new(),
                unfinished: 0,
                abandoned: 0,
                turned_away: 0,
                dropped_unknown: 0,
                mdns_error: None,
                wanted: VecDeque::new(),
                closing: Vec::new(),
                joins: Vec::new(),
                admitted: Vec::new(),
                stopping: false,
            }),
            driver: Notify::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // What a panicking thread left behind is whole: no function here can panic half way.
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn event(&self, event: NetEvent) {
        let waker = self.lock().inbox.push(event);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Makes the driver stop once what is queued has arrived, or after a while.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        for link in state.peers.values().filter_map(|peer| peer.link.as_ref()) {
            link.waker.iter().for_each(Waker::wake_by_ref);
        }
        drop(state);
        self.driver.notify_one();
    }

    /// Whether the node is stopping.
    pub(crate) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// All that was to be sent to a peer has arrived.
    pub(crate) fn flushed(&self, node: NodeId) {
        if let Some(link) = &mut self.lock().peer(node).link {
            link.is_flushed = true;
        }
        self.driver.notify_one();
    }

    /// See [`Net::send`](crate::Net::send).
    pub(crate) fn send(&self, to: NodeId, channel: Channel, message: Bytes) {
        let mut state = self.lock();
        let state = &mut *state;
        let is_refused = state.stopping || state.is_banned(to);
        let Some(peer) = state.peers.get_mut(&to) else {
            state.dropped_unknown += 1;
            return;
        };
        let is_unreachable = peer.addresses.is_empty() && !peer.agreement.is_settling();
        if is_refused || is_unreachable {
            peer.queues[channel.index()].dropped += 1;
            return;
        }
        if !peer.enqueue(channel, message) {
            return;
        }
        if let Some(link) = &mut peer.link {
            if let Some(waker) = &link.waker {
                waker.wake_by_ref();
            }
        } else if peer.dial == Dial::Idle && !peer.agreement.is_settling() {
            peer.dial = Dial::Wanted;
            state.wanted.push_back(to);
            self.driver.notify_one();
        }
    }

    /// See [`Net::learn`](crate::Net::learn).
    pub(crate) fn learn(&self, peer: NodeId, addresses: &[SocketAddr]) {
        if peer != self.me && !addresses.is_empty() {
            let mut state = self.lock();
            let peer = state.peer(peer);
            peer.is_learnt = true;
            peer.learn(addresses);
        }
    }

    /// A connected peer says where it listens.
    pub(crate) fn identified(&self, node: NodeId, connection: ConnectionId, said: &[Multiaddr]) {
        let mut state = self.lock();
        let Some(peer) = state.peers.get_mut(&node) else {
            return;
        };
        let Some(link) = &peer.link else {
            return;
        };
        if peer.agreement.used() != Some(connection) {
            return;
        }
        // Another machine's loopback address means nothing here.
        let here = link.address.ip();
        let is_usable = |ip| is_reachable(ip) || (here.is_loopback() && ip == here);
        let mut addresses: Vec<SocketAddr> = said
            .iter()
            .take(4 * MAX_ADDRESSES)
            .filter_map(to_socket)
            .filter(|address| is_usable(address.ip()))
            .collect();
        // The one that it has just been seen at is the best.
        addresses.sort_by_key(|address| address.ip() != here);
        peer.learn(&addresses);
    }

    /// A node hasn't shown itself for some time.
    pub(crate) fn vanished(&self, node: NodeId) {
        let mut state = self.lock();
        if let Some(peer) = state.peers.get_mut(&node)
            && peer.is_discovered
        {
            peer.is_discovered = false;
            state.discovered -= 1;
            state.tidy(node);
        }
    }

    /// Remembers a node that showed itself, and reports it if it or an address of it is new.
    pub(crate) fn discovered(&self, node: NodeId, addresses: Vec<SocketAddr>) {
        let mut state = self.lock();
        if node == self.me || addresses.is_empty() || state.is_banned(node) {
            return;
        }
        if !state.peer(node).is_discovered {
            if state.discovered >= MAX_DISCOVERED {
                state.tidy(node);
                return;
            }
            state.discovered += 1;
            state.peer(node).is_discovered = true;
        }
        if !state.peer(node).learn(&addresses) {
            return;
        }
        let peer = node;
        let waker = state.inbox.push(NetEvent::Discovered { peer, addresses });
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// See [`Net::forget`](crate::Net::forget).
    pub(crate) fn forget(&self, peer: NodeId) {
        let mut state = self.lock();
        let state = &mut *state;
        if let Some(entry) = state.peers.get_mut(&peer) {
            entry.is_learnt = false;
            if !entry.is_discovered {
                entry.addresses.clear();
            }
            entry.drop_waiting();
            state.closing.extend(&entry.connections);
            state.tidy(peer);
            self.driver.notify_one();
        }
    }

    /// See [`Net::ban`](crate::Net::ban).
    pub(crate) fn ban(&self, peer: NodeId, reason: &str) {
        let waker = self.lock().ban(peer, reason, &self.timing);
        self.driver.notify_one();
        waker.into_iter().for_each(Waker::wake);
    }

    /// Notes that somebody was refused, and reports it unless that has just been done.
    pub(crate) fn refused(&self, address: SocketAddr, reason: &str) {
        let waker = self.lock().refused(address, reason);
        waker.into_iter().for_each(Waker::wake);
    }

    /// A connection is authenticated. The error is for the log.
    pub(crate) fn opened(
        &self,
        node: NodeId,
        connection: ConnectionId,
    ) -> Result<(), &'static str> {
        let mut state = self.lock();
        if state.stopping {
            return Err("this node is stopping");
        }
        if state.is_banned(node) {
            return Err("the peer is banned");
        }
        let peer = state.peer(node);
        if peer.connections.len() >= MAX_CONNECTIONS {
            return Err("the peer has too many connections");
        }
        peer.connections.push(connection);
        Ok(())
    }

    /// What to ask on a connection that this node has dialled; nothing if it isn't needed.
    pub(crate) fn dialled(&self, node: NodeId, connection: ConnectionId) -> Option<Hello> {
        let mut state = self.lock();
        let peer = state.peer(node);
        if peer.dial == Dial::Dialling(connection) {
            peer.dial = Dial::Idle;
        }
        let hello = peer.agreement.dialled(connection);
        if hello.is_none()
            && let Some(used) = peer.agreement.used()
            && used != connection
        {
            // Whoever dialled this one by its address is connected all the same.
            state.admitted.push((connection, node));
            self.driver.notify_one();
        }
        hello
    }

    /// The other side asks. The answer, or nothing where the connection is to be closed.
    pub(crate) fn hello(
        &self,
        node: NodeId,
        connection: ConnectionId,
        hello: Hello,
        address: SocketAddr,
    ) -> Option<Accept> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let lower = state.me < node;
        let peer = state.peer(node);
        match peer.agreement.hello(connection, hello, lower) {
            Answer::Refuse => None,
            Answer::Accept { accept, close } => {
                let mut wakers = Wakers::default();
                if peer.link.take().is_some() {
                    wakers.add(state.inbox.push(NetEvent::PeerDown { peer: node }));
                }
                if let Some(old) = close.filter(|old| *old != connection) {
                    state.closing.push(old);
                    self.driver.notify_one();
                }
                wakers.add(state.link(node, connection, address, false));
                drop(guard);
                wakers.wake();
                Some(accept)
            }
        }
    }

    /// The other side agrees. False where the connection is to be closed.
    pub(crate) fn accepted(
        &self,
        node: NodeId,
        connection: ConnectionId,
        accept: Accept,
        address: SocketAddr,
    ) -> bool {
        let mut state = self.lock();
        if !state.peer(node).agreement.accepted(connection, accept) {
            return false;
        }
        let waker = state.link(node, connection, address, true);
        state.admitted.push((connection, node));
        self.driver.notify_one();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        true
    }

    /// Whether some connection with a peer is used.
    pub(crate) fn is_linked(&self, node: NodeId) -> bool {
        let state = self.lock();
        state
            .peers
            .get(&node)
            .is_some_and(|peer| peer.link.is_some())
    }

    /// Closes a connection.
    pub(crate) fn close(&self, connection: ConnectionId) {
        self.lock().closing.push(connection);
        self.driver.notify_one();
    }

    /// A connection is gone.
    pub(crate) fn closed(&self, node: NodeId, connection: ConnectionId) -> Closed {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(peer) = state.peers.get_mut(&node) else {
            return Closed::Superfluous;
        };
        peer.connections.retain(|open| *open != connection);
        if peer.dial == Dial::Dialling(connection) {
            peer.dial = Dial::Idle;
        }
        let was_settling = peer.agreement.is_settling();
        let was_used = peer.agreement.closed(connection);
        let closed = if was_used {
            let short = peer
                .link
                .take()
                .is_none_or(|link| link.since.elapsed() < self.timing.redial_most);
            // A peer that accepts and closes again and again is dialled less and less.
            peer.failures = if short { peer.failures } else { 0 };
            Closed::Used
        } else if was_settling && !peer.agreement.is_settling() {
            Closed::Unanswered
        } else {
            Closed::Superfluous
        };
        let waker = was_used.then(|| state.inbox.push(NetEvent::PeerDown { peer: node }));
        state.tidy(node);
        drop(guard);
        waker.flatten().into_iter().for_each(Waker::wake);
        closed
    }

    /// Takes what a connection may send now: for each channel of `ready`, messages of about
    /// `most` bytes. Returns the channels for which something waited, ready or not; nothing
    /// where another connection is used. `waker` is woken when there is more. `unwritten` says
    /// whether the connection still has something from before.
    pub(crate) fn take_outgoing(
        &self,
        node: NodeId,
        connection: ConnectionId,
        ready: [bool; CHANNELS],
        most: usize,
        waker: &Waker,
        into: &mut [Vec<Bytes>; CHANNELS],
    ) -> [bool; CHANNELS] {
        let mut state = self.lock();
        let mut waiting = [false; CHANNELS];
        let Some(peer) = state.peers.get_mut(&node) else {
            return waiting;
        };
        if peer.agreement.used() != Some(connection) {
            return waiting;
        }
        let Some(link) = &mut peer.link else {
            return waiting;
        };
        match &mut link.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        for (index, queue) in peer.queues.iter_mut().enumerate() {
            waiting[index] = !queue.waiting.is_empty();
            if ready[index] {
                queue.take(most, &mut into[index]);
            }
        }
        waiting
    }

    /// Throws away what waits on a channel that the peer doesn't have.
    pub(crate) fn drop_channel(&self, node: NodeId, channel: Channel) {
        let mut state = self.lock();
        let queue = &mut state.peer(node).queues[channel.index()];
        queue.dropped += queue.waiting.len() as u64;
        queue.waiting.clear();
        queue.waiting_bytes = 0;
    }

    /// Hands on a message. False where another connection is used by now.
    pub(crate) fn deliver(
        &self,
        node: NodeId,
        connection: ConnectionId,
        channel: Channel,
        bytes: Bytes,
    ) -> bool {
        let mut state = self.lock();
        let Some(peer) = state.peers.get_mut(&node) else {
            return false;
        };
        if peer.agreement.used() != Some(connection) {
            return false;
        }
        let queue = &mut peer.queues[channel.index()];
        queue.received += 1;
        queue.received_bytes += bytes.len() as u64;
        let from = node;
        let message = NetEvent::Message {
            from,
            channel,
            bytes,
        };
        let waker = state.inbox.push(message);
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        true
    }

    /// Whether another message may be read from a peer; if not, `waker` is woken when it may.
    pub(crate) fn has_room(&self, node: NodeId, waker: &Waker) -> bool {
        self.lock().inbox.has_room(node, waker)
    }
}

/// What a connection was when it was closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Closed {
    /// The used one.
    Used,
    /// This node had asked for it to be used, and got no answer.
    Unanswered,
    /// Another was used.
    Superfluous,
}

impl State {
    /// The entry of a peer, made if there is none.
    pub(crate) fn peer(&mut self, node: NodeId) -> &mut Peer {
        let life = self.life;
        self.peers.entry(node).or_insert_with(|| Peer::new(life))
    }

    /// Forgets a peer of which nothing is left.
    pub(crate) fn tidy(&mut self, node: NodeId) {
        if self.peers.get(&node).is_some_and(Peer::is_forgettable) {
            self.peers.remove(&node);
        }
    }

    /// Whether all that was to be sent to connected peers has arrived.
    pub(crate) fn has_all_arrived(&self) -> bool {
        let mut links = self.peers.values().filter_map(|peer| peer.link.as_ref());
        links.all(|link| link.is_flushed)
    }

    #[must_use]
    fn link(
        &mut self,
        node: NodeId,
        connection: ConnectionId,
        address: SocketAddr,
        dialled: bool,
    ) -> Option<Waker> {
        debug_assert_eq!(self.peer(node).agreement.used(), Some(connection));
        self.peer(node).link = Some(Link {
            address,
            since: Instant::now(),
            dialled,
            is_flushed: false,
            waker: None,
        });
        let peer = node;
        self.inbox.push(NetEvent::PeerUp { peer, address })
    }

    pub(crate) fn is_banned(&mut self, node: NodeId) -> bool {
        match self.bans.get(&node) {
            Some((until, _)) if *until > Instant::now() => true,
            Some(_) => {
                self.bans.remove(&node);
                false
            }
            None => false,
        }
    }

    #[must_use]
    fn ban(&mut self, node: NodeId, reason: &str, timing: &Timing) -> Option<Waker> {
        let now = Instant::now();
        self.bans.retain(|_, (until, _)| *until > now);
        if self.bans.len() >= MAX_BANS && !self.bans.contains_key(&node) {
            let soonest = self.bans.iter().min_by_key(|(_, (until, _))| *until);
            let soonest = soonest.map(|(node, _)| *node);
            soonest.and_then(|node| self.bans.remove(&node));
        }
        let ban = Ban {
            peer: node,
            reason: shorten(reason).to_owned(),
            until: SystemTime::now() + timing.ban,
        };
        self.bans.insert(node, (now + timing.ban, ban));
        let peer = self.peers.get_mut(&node)?;
        peer.drop_waiting();
        self.closing.extend(&peer.connections);
        let address = match (&peer.link, peer.addresses.front()) {
            (Some(link), _) => link.address,
            (None, address) => *address?,
        };
        let minutes = timing.ban.as_secs() / 60;
        self.refused(
            address,
            &format!("node {node} is refused for {minutes} minutes: {reason}"),
        )
    }

    #[must_use]
    fn refused(&mut self, address: SocketAddr, reason: &str) -> Option<Waker> {
        let reason = shorten(reason);
        if !self.refusals.note(address, reason, Instant::now()) {
            return None;
        }
        let reason = reason.to_owned();
        self.inbox.push(NetEvent::Refused { address, reason })
    }

    pub(crate) fn bans(&self) -> Vec<Ban> {
        let now = Instant::now();
        let bans = self.bans.values().filter(|(until, _)| *until > now);
        bans.map(|(_, ban)| ban.clone()).collect()
    }
}

fn shorten(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(MAX_REASON_BYTES)]
}
