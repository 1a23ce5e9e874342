//! What has arrived and has not been taken yet.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use maelstrom_gossip::NodeId;

use crate::Channel;
use crate::channel::MESSAGE_OVERHEAD_BYTES;
use crate::state::Shared;

/// What a node's connections report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetEvent {
    /// Connections to this address reach this node.
    Listening(SocketAddr),
    /// A peer that has the mesh key, and with which messages can be exchanged. Comes before its
    /// first message.
    PeerUp {
        /// Its key.
        peer: NodeId,
        /// The other end of the connection; of an incoming one, not where the peer listens.
        address: SocketAddr,
    },
    /// The connection is gone: idle, broken or replaced. Messages that were on the way in
    /// either direction may be lost. Comes after the last message.
    PeerDown {
        /// Its key.
        peer: NodeId,
    },
    /// One whole message.
    Message {
        /// Who sent it: the transport has authenticated the key.
        from: NodeId,
        /// Which kind.
        channel: Channel,
        /// At most [`Channel::max_message_bytes`].
        bytes: Bytes,
    },
    /// A node of some mesh, perhaps another, shows itself on the local network. Its addresses
    /// are remembered.
    Discovered {
        /// Its key, if it tells the truth: a connection will show.
        peer: NodeId,
        /// Where it listens.
        addresses: Vec<SocketAddr>,
    },
    /// Somebody was refused, for people to read. Once an hour for each machine and reason.
    Refused {
        /// The other end of the connection.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// An address that was to be joined has been reached.
    Joined {
        /// As it was given.
        target: String,
        /// Who is there.
        peer: NodeId,
    },
    /// An address that was to be joined could not be reached, for people to read. Unless it makes
    /// no sense, it is tried again and again, and this is reported when the reason changes.
    JoinFailed {
        /// As it was given.
        target: String,
        /// Why, and whether it is tried again.
        reason: String,
    },
}

/// How many bytes of one peer's messages may wait before no more are read from it.
const MAX_PEER_BYTES: usize = 4 << 20;
/// The same for all peers together.
const MAX_BYTES: usize = 64 << 20;

#[derive(Default)]
pub(crate) struct Inbox {
    queue: VecDeque<NetEvent>,
    bytes: usize,
    by_peer: HashMap<NodeId, usize>,
    /// Connections that wait for room.
    blocked: Vec<Waker>,
    reader: Option<Waker>,
    is_closed: bool,
}

impl Inbox {
    /// Adds an event; whoever reads is to be woken.
    #[must_use]
    pub(crate) fn push(&mut self, event: NetEvent) -> Option<Waker> {
        if self.is_closed {
            return None;
        }
        if let NetEvent::Message { from, bytes, .. } = &event {
            let bytes = bytes.len() + MESSAGE_OVERHEAD_BYTES;
            self.bytes += bytes;
            *self.by_peer.entry(*from).or_default() += bytes;
        }
        self.queue.push_back(event);
        self.reader.take()
    }

    /// Whether another message of a peer may be read; if not, `waker` is woken when it may.
    pub(crate) fn has_room(&mut self, peer: NodeId, waker: &Waker) -> bool {
        let of_peer = self.by_peer.get(&peer).copied().unwrap_or(0);
        let has_room = of_peer < MAX_PEER_BYTES && self.bytes < MAX_BYTES;
        if !has_room && !self.blocked.iter().any(|blocked| blocked.will_wake(waker)) {
            self.blocked.push(waker.clone());
        }
        has_room
    }

    /// Ends the stream of events after those that are there.
    #[must_use]
    pub(crate) fn close(&mut self) -> Option<Waker> {
        self.is_closed = true;
        self.reader.take()
    }
}

/// What a node's connections report, in order.
///
/// Dropping it stops the node's connections.
pub struct Events {
    shared: Arc<Shared>,
    /// Taken from the inbox at once, so that each event doesn't cost a lock.
    taken: VecDeque<NetEvent>,
}

impl Events {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            taken: VecDeque::new(),
        }
    }

    /// The next event; `None` once the node's connections have been shut down.
    pub async fn recv(&mut self) -> Option<NetEvent> {
        std::future::poll_fn(|context| self.poll_recv(context)).await
    }

    /// The next event if there is one already.
    pub fn try_recv(&mut self) -> Option<NetEvent> {
        if self.taken.is_empty() {
            self.refill(None);
        }
        self.taken.pop_front()
    }

    /// As [`recv`](Self::recv), for whoever polls.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<NetEvent>> {
        if self.taken.is_empty() && self.refill(Some(context.waker())) {
            return Poll::Ready(None);
        }
        match self.taken.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None => Poll::Pending,
        }
    }

    /// Takes what is there. True if nothing is and nothing will come.
    fn refill(&mut self, waker: Option<&Waker>) -> bool {
        let mut state = self.shared.lock();
        let inbox = &mut state.inbox;
        std::mem::swap(&mut self.taken, &mut inbox.queue);
        inbox.bytes = 0;
        inbox.by_peer.clear();
        let blocked = std::mem::take(&mut inbox.blocked);
        let is_empty = self.taken.is_empty();
        let is_closed = inbox.is_closed;
        if is_empty {
            inbox.reader = waker.cloned();
        }
        drop(state);
        blocked.into_iter().for_each(Waker::wake);
        is_empty && is_closed
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.shared.stop();
    }
}
