//! Nodes of one process, connected over loopback.

mod connections;
mod rogues;
mod strangers;
mod threats;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use maelstrom_gossip::NodeId;

use crate::timing::Timing;
use crate::{Channel, Events, MeshKey, Net, NetConfig, NetEvent, NodeKey};

/// How long a condition may take; far more than it does.
const BOUND: Duration = Duration::from_secs(60);

struct Node {
    net: Net,
    events: Events,
}

fn config(key: &NodeKey, mesh: &MeshKey, port: u16) -> NetConfig {
    NetConfig {
        node_key: key.clone(),
        mesh_key: mesh.clone(),
        listen: vec![SocketAddr::from(([127, 0, 0, 1], port))],
        mdns: false,
        bulk: None,
    }
}

async fn start(mesh: &MeshKey) -> Node {
    start_with(mesh, NodeKey::generate(), Timing::default()).await
}

async fn start_with(mesh: &MeshKey, key: NodeKey, timing: Timing) -> Node {
    let (net, events) = Net::start_with(config(&key, mesh, 0), timing)
        .await
        .unwrap();
    Node { net, events }
}

impl Node {
    fn address(&self) -> SocketAddr {
        self.net.addresses()[0]
    }

    fn id(&self) -> NodeId {
        self.net.id()
    }

    fn knows(&self, other: &Node) {
        self.net.learn(other.id(), &other.net.addresses());
    }

    fn send(&self, to: &Node, channel: Channel, message: impl Into<Bytes>) {
        self.net.send(to.id(), channel, message.into());
    }

    /// The next event for which `pick` finds something; others are dropped.
    async fn until<T>(&mut self, mut pick: impl FnMut(NetEvent) -> Option<T>) -> T {
        let mut others = Vec::new();
        let found = tokio::time::timeout(BOUND, async {
            loop {
                let event = self.events.recv().await.expect("the node is running");
                match pick(event.clone()) {
                    Some(found) => return found,
                    None => others.push(event),
                }
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => panic!("nothing of the kind came, but {others:?}"),
        }
    }

    async fn message(&mut self) -> (NodeId, Channel, Bytes) {
        self.until(|event| match event {
            NetEvent::Message {
                from,
                channel,
                bytes,
            } => Some((from, channel, bytes)),
            _ => None,
        })
        .await
    }

    async fn up(&mut self) -> (NodeId, SocketAddr) {
        self.until(|event| match event {
            NetEvent::PeerUp { peer, address } => Some((peer, address)),
            _ => None,
        })
        .await
    }

    async fn down(&mut self) -> NodeId {
        self.until(|event| match event {
            NetEvent::PeerDown { peer } => Some(peer),
            _ => None,
        })
        .await
    }

    async fn refused(&mut self) -> (SocketAddr, String) {
        self.until(|event| match event {
            NetEvent::Refused { address, reason } => Some((address, reason)),
            _ => None,
        })
        .await
    }

    async fn join_failed(&mut self) -> String {
        self.until(|event| match event {
            NetEvent::JoinFailed { reason, .. } => Some(reason),
            _ => None,
        })
        .await
    }
}

/// Waits until something holds.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(BOUND, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

/// Two nodes of one mesh; the first knows where the second is.
async fn pair() -> (Node, Node) {
    let mesh = MeshKey::generate();
    let (a, b) = (start(&mesh).await, start(&mesh).await);
    a.knows(&b);
    (a, b)
}

fn quick() -> Timing {
    Timing {
        tick: Duration::from_millis(20),
        redial: Duration::from_millis(20),
        redial_most: Duration::from_millis(100),
        rejoin: Duration::from_millis(20),
        rejoin_most: Duration::from_millis(100),
        ..Timing::default()
    }
}
