//! What the rest of the node uses.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use maelstrom_gossip::NodeId;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use crate::address::{is_reachable, to_multiaddr};
use crate::driver::Driver;
use crate::inbox::Events;
use crate::state::{MAX_JOINS, Shared};
use crate::timing::Timing;
use crate::{
    Channel, ChannelStats, ConnectionStats, MeshKey, NetError, NetStats, NodeKey, PeerStats, swarm,
};

/// What a node's connections need to know.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// The node's own key.
    pub node_key: NodeKey,
    /// The key that the mesh shares.
    pub mesh_key: MeshKey,
    /// Where to listen (TCP); port 0 stands for any. None: this node can only dial.
    pub listen: Vec<SocketAddr>,
    /// Whether to show this node on the local network, and to look for others there, by
    /// multicast DNS.
    pub mdns: bool,
    /// Where connections go that begin with [`MeshKey::opening_of_bulk`], which has been read;
    /// what is more than it holds is closed. None: there is nobody for such connections.
    pub bulk: Option<mpsc::Sender<TcpStream>>,
}

/// A node's connections.
#[derive(Clone)]
pub struct Net {
    shared: Arc<Shared>,
    done: watch::Receiver<bool>,
}

impl Net {
    /// Starts listening and looking for others. Must be called inside a tokio runtime with
    /// timers and I/O, which then runs the connections.
    ///
    /// Returns when the addresses are known, after at most a second.
    ///
    /// # Errors
    ///
    /// Where an address can't be listened on.
    pub async fn start(config: NetConfig) -> Result<(Self, Events), NetError> {
        Self::start_with(config, Timing::default()).await
    }

    pub(crate) async fn start_with(
        config: NetConfig,
        timing: Timing,
    ) -> Result<(Self, Events), NetError> {
        let shared = Arc::new(Shared::new(config.node_key.id(), timing));
        let mut swarm = swarm::build(&config, &shared)?;
        for address in &config.listen {
            let listening = swarm.listen_on(to_multiaddr(*address));
            listening.map_err(|error| NetError::Listen {
                address: *address,
                reason: crate::driver::innermost(&error),
            })?;
        }
        let mut driver = Driver::new(swarm, shared.clone());
        driver.settle(&config.listen).await;
        let (finished, done) = watch::channel(false);
        tokio::spawn(driver.run(finished));
        let events = Events::new(shared.clone());
        Ok((Self { shared, done }, events))
    }

    /// This node's public key.
    pub fn id(&self) -> NodeId {
        self.shared.me
    }

    /// Where this node listens: addresses of interfaces with the real port. Those that other
    /// machines can use; loopback addresses only if there are no others.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let listening = self.shared.lock().listening.clone();
        let mut usable: Vec<_> = listening.iter().filter(|a| is_reachable(a.ip())).collect();
        if usable.is_empty() {
            usable = listening.iter().collect();
        }
        usable.into_iter().copied().collect()
    }

    /// Finds the node at `HOST[:PORT]`: looks the name up, dials, and tries again with longer
    /// and longer pauses until it has succeeded once. At most 64 at a time; more are ignored.
    pub fn join(&self, target: &str) {
        let mut state = self.shared.lock();
        if state.joins.len() < MAX_JOINS {
            state.joins.push(target.to_owned());
        }
        drop(state);
        self.shared.driver.notify_one();
    }

    /// Remembers where a peer listens, at most 8 addresses, the best first. Nothing is dialled
    /// before a message is sent.
    pub fn learn(&self, peer: NodeId, addresses: &[SocketAddr]) {
        self.shared.learn(peer, addresses);
    }

    /// Forgets what was learnt of a peer, drops what waits for it, and closes its connections.
    pub fn forget(&self, peer: NodeId) {
        self.shared.forget(peer);
    }

    /// Sends a message; connects first where needed.
    ///
    /// Never blocks, and promises nothing: a message is dropped (and counted) if no address of
    /// the peer is known, if the peer can't be reached, if its queue for the channel is full
    /// ([`Channel::max_queue_bytes`]) or the message too long ([`Channel::max_message_bytes`]);
    /// and it is lost if the connection breaks. Messages that arrive are whole and, on one
    /// channel, in order.
    pub fn send(&self, to: NodeId, channel: Channel, message: Bytes) {
        self.shared.send(to, channel, message);
    }

    /// Disconnects a peer that breaks the rules, and refuses it for an hour. `reason` is for
    /// people, in the style of "it sent ...".
    pub fn ban(&self, peer: NodeId, reason: &str) {
        self.shared.ban(peer, reason);
    }

    /// What is going on.
    pub fn stats(&self) -> NetStats {
        let state = self.shared.lock();
        let known = state.peers.values().filter(|p| !p.addresses.is_empty());
        let known = known.count();
        let mut peers: Vec<_> = state
            .peers
            .iter()
            .filter(|(_, peer)| {
                let touched =
                    |queue: &crate::peer::Queue| queue.sent + queue.received + queue.dropped > 0;
                peer.link.is_some() || peer.has_waiting() || peer.queues.iter().any(touched)
            })
            .map(|(node, peer)| PeerStats {
                peer: *node,
                connection: peer.link.as_ref().map(|link| ConnectionStats {
                    address: link.address,
                    dialled: link.dialled,
                    age: link.since.elapsed(),
                }),
                dropped: peer.queues.iter().map(|queue| queue.dropped).sum(),
                channels: Channel::ALL
                    .into_iter()
                    .zip(&peer.queues)
                    .map(|(channel, queue)| ChannelStats {
                        channel,
                        sent: queue.sent,
                        sent_bytes: queue.sent_bytes,
                        received: queue.received,
                        received_bytes: queue.received_bytes,
                        queued: queue.waiting.len(),
                        queued_bytes: queue.waiting_bytes,
                        dropped: queue.dropped,
                    })
                    .collect(),
            })
            .collect();
        peers.sort_by_key(|peer| peer.peer);
        NetStats {
            peers,
            known,
            refusals: state.refusals.list(),
            unfinished: state.unfinished,
            abandoned: state.abandoned,
            turned_away: state.turned_away,
            bans: state.bans(),
            dropped_unknown: state.dropped_unknown,
            mdns_error: state.mdns_error.clone(),
        }
    }

    /// Sends what is queued for connected peers, for at most a second, then closes everything.
    /// The events end.
    pub async fn shutdown(mut self) {
        self.shared.stop();
        // An error means that the task is gone, and everything with it.
        let _ = self.done.wait_for(|done| *done).await;
    }
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Net({:?})", self.shared.me)
    }
}
