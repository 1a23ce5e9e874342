//! What people may want to know of a node's connections.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use maelstrom_gossip::NodeId;

use crate::{Channel, Refusal};

/// A node's connections at one moment.
#[derive(Clone, Debug, Default)]
pub struct NetStats {
    /// Peers that are connected or for which something is queued.
    pub peers: Vec<PeerStats>,
    /// How many peers an address is known of.
    pub known: usize,
    /// Who was refused, the latest first.
    pub refusals: Vec<Refusal>,
    /// Incoming connections that are being authenticated.
    pub unfinished: usize,
    /// Incoming connections that ended before they were authenticated, without a refusal: port
    /// scanners, and nodes that have dialled several addresses.
    pub abandoned: u64,
    /// Incoming connections that were closed at once because too many others were unfinished,
    /// or too many were there.
    pub turned_away: u64,
    /// Peers that broke the rules and are refused.
    pub bans: Vec<Ban>,
    /// Messages to peers of which no address is known.
    pub dropped_unknown: u64,
    /// Why multicast discovery doesn't work, if it doesn't.
    pub mdns_error: Option<String>,
}

/// One peer.
#[derive(Clone, Debug)]
pub struct PeerStats {
    /// Its key.
    pub peer: NodeId,
    /// The used connection, if there is one.
    pub connection: Option<ConnectionStats>,
    /// Messages that were thrown away, on all channels: the queue was full, or the peer could
    /// not be reached.
    pub dropped: u64,
    /// Messages, by channel, in the order of [`Channel::ALL`].
    pub channels: Vec<ChannelStats>,
}

/// A connection.
#[derive(Clone, Debug)]
pub struct ConnectionStats {
    /// The other end.
    pub address: SocketAddr,
    /// Whether this node dialled.
    pub dialled: bool,
    /// How long it has been used.
    pub age: Duration,
}

/// Messages of one channel with one peer.
#[derive(Clone, Debug)]
pub struct ChannelStats {
    /// Which.
    pub channel: Channel,
    /// Messages handed to the connection.
    pub sent: u64,
    /// Their length without framing, in bytes.
    pub sent_bytes: u64,
    /// Whole messages from the peer.
    pub received: u64,
    /// Their length without framing, in bytes.
    pub received_bytes: u64,
    /// Messages that wait.
    pub queued: usize,
    /// Their length with some overhead for each, in bytes.
    pub queued_bytes: usize,
    /// Messages that were thrown away.
    pub dropped: u64,
}

/// A peer that is refused.
#[derive(Clone, Debug)]
pub struct Ban {
    /// Its key.
    pub peer: NodeId,
    /// What it did.
    pub reason: String,
    /// Until when.
    pub until: SystemTime,
}
