//! What is known of one other node: where it is, which connection is used, what waits for it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use libp2p::swarm::ConnectionId;

use crate::Channel;
use crate::agreement::Agreement;
use crate::channel::{CHANNELS, MESSAGE_OVERHEAD_BYTES};

/// The most addresses of one node that are remembered.
pub(crate) const MAX_ADDRESSES: usize = 8;
/// The most connections with one node at once: one each way, and as many that replace them.
pub(crate) const MAX_CONNECTIONS: usize = 4;

/// The messages that wait for a peer on one channel, and what has passed.
#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) waiting: VecDeque<Bytes>,
    /// Length of those with their overhead, in bytes.
    pub(crate) waiting_bytes: usize,
    pub(crate) sent: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received: u64,
    pub(crate) received_bytes: u64,
    pub(crate) dropped: u64,
}

/// The used connection.
pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    pub(crate) since: Instant,
    pub(crate) dialled: bool,
    /// This node is stopping, and all that it had for the peer has arrived.
    pub(crate) is_flushed: bool,
    /// Wakes the connection when there is something to send.
    pub(crate) waker: Option<Waker>,
}

/// Whether a connection is being made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dial {
    Idle,
    /// Asked for.
    Wanted,
    Dialling(ConnectionId),
    /// After a failure.
    Pausing,
}

pub(crate) struct Peer {
    pub(crate) agreement: Agreement<ConnectionId>,
    pub(crate) link: Option<Link>,
    /// Connections that are established, used or not.
    pub(crate) connections: Vec<ConnectionId>,
    /// Where it may be, what was said last first.
    pub(crate) addresses: VecDeque<SocketAddr>,
    /// Others have said where it is, and so that it matters while it isn't connected.
    pub(crate) is_learnt: bool,
    /// It showed itself by multicast not long ago.
    pub(crate) is_discovered: bool,
    pub(crate) dial: Dial,
    /// Failures in a row.
    pub(crate) failures: u32,
    pub(crate) queues: [Queue; CHANNELS],
}

impl Peer {
    pub(crate) fn new(life: u64) -> Self {
        Self {
            agreement: Agreement::new(life),
            link: None,
            connections: Vec::new(),
            addresses: VecDeque::new(),
            is_learnt: false,
            is_discovered: false,
            dial: Dial::Idle,
            failures: 0,
            queues: Default::default(),
        }
    }

    /// Remembers addresses, the first of them as the best; says whether any is new.
    pub(crate) fn learn(&mut self, addresses: &[SocketAddr]) -> bool {
        let mut is_news = false;
        for address in addresses.iter().take(MAX_ADDRESSES).rev() {
            let known = self.addresses.iter().position(|known| known == address);
            is_news |= known.is_none();
            known.and_then(|at| self.addresses.remove(at));
            self.addresses.push_front(*address);
        }
        self.addresses.truncate(MAX_ADDRESSES);
        is_news
    }

    /// Queues a message if it fits.
    pub(crate) fn enqueue(&mut self, channel: Channel, message: Bytes) -> bool {
        let queue = &mut self.queues[channel.index()];
        let bytes = message.len() + MESSAGE_OVERHEAD_BYTES;
        // One message always fits, however long.
        let fits =
            queue.waiting.is_empty() || queue.waiting_bytes + bytes <= channel.max_queue_bytes();
        if fits && message.len() <= channel.max_message_bytes() {
            queue.waiting_bytes += bytes;
            queue.waiting.push_back(message);
            true
        } else {
            queue.dropped += 1;
            false
        }
    }

    pub(crate) fn has_waiting(&self) -> bool {
        self.queues.iter().any(|queue| !queue.waiting.is_empty())
    }

    /// Drops what waits: the peer can't be reached.
    pub(crate) fn drop_waiting(&mut self) {
        for queue in &mut self.queues {
            queue.dropped += queue.waiting.len() as u64;
            queue.waiting = VecDeque::new();
            queue.waiting_bytes = 0;
        }
    }

    /// Whether nothing speaks for remembering the peer.
    pub(crate) fn is_forgettable(&self) -> bool {
        !self.is_learnt
            && !self.is_discovered
            && self.connections.is_empty()
            && matches!(self.dial, Dial::Idle | Dial::Pausing)
            && !self.has_waiting()
    }
}

impl Queue {
    /// Takes messages of about `most` bytes, at least one if there is one.
    pub(crate) fn take(&mut self, most: usize, into: &mut Vec<Bytes>) {
        let mut taken = 0;
        while taken < most
            && let Some(message) = self.waiting.pop_front()
        {
            taken += message.len();
            self.waiting_bytes -= message.len() + MESSAGE_OVERHEAD_BYTES;
            self.sent += 1;
            self.sent_bytes += message.len() as u64;
            into.push(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_bounded_in_bytes_and_messages() {
        for channel in Channel::ALL {
            let mut peer = Peer::new(0);
            let long = Bytes::from(vec![0; channel.max_message_bytes()]);
            assert!(peer.enqueue(channel, long.clone()));
            while peer.enqueue(channel, long.clone()) {}
            let queue = &peer.queues[channel.index()];
            assert!(queue.waiting_bytes <= channel.max_queue_bytes());
            assert!(queue.waiting_bytes > channel.max_queue_bytes() / 2);
            assert_eq!(queue.dropped, 1);

            let mut peer = Peer::new(0);
            while peer.enqueue(channel, Bytes::new()) {}
            let count = peer.queues[channel.index()].waiting.len();
            assert_eq!(count, channel.max_queue_bytes() / MESSAGE_OVERHEAD_BYTES);

            let mut peer = Peer::new(0);
            let longer = Bytes::from(vec![0; channel.max_message_bytes() + 1]);
            assert!(!peer.enqueue(channel, longer));
        }
    }

    #[test]
    fn what_is_taken_leaves_room() {
        let mut peer = Peer::new(0);
        for n in 0..10u8 {
            assert!(peer.enqueue(Channel::Pull, Bytes::from(vec![n; 100])));
        }
        let mut taken = Vec::new();
        let queue = &mut peer.queues[Channel::Pull.index()];
        queue.take(250, &mut taken);
        assert_eq!(taken.len(), 3);
        queue.take(1 << 20, &mut taken);
        assert_eq!(
            taken.iter().map(|m| m[0]).collect::<Vec<_>>(),
            (0..10).collect::<Vec<_>>()
        );
        assert_eq!(
            (queue.waiting_bytes, queue.sent, queue.sent_bytes),
            (0, 10, 1000)
        );
        assert!(!peer.has_waiting());
    }

    #[test]
    fn the_latest_addresses_are_remembered() {
        let mut peer = Peer::new(0);
        let at = |port| SocketAddr::from(([10, 0, 0, 1], port));
        assert!(peer.learn(&[at(1), at(2)]));
        assert!(peer.learn(&[at(3)]));
        assert!(!peer.learn(&[at(1)]));
        assert_eq!(peer.addresses, [at(1), at(3), at(2)]);
        assert!(peer.learn(&(10..40).map(at).collect::<Vec<_>>()));
        assert_eq!(peer.addresses, (10..18).map(at).collect::<Vec<_>>());
    }
}
