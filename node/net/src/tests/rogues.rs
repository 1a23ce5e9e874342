//! Peers that have the mesh key and break the rules: each is disconnected, refused from then on,
//! and reported.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::io::{AsyncReadExt, AsyncWriteExt};
use libp2p::swarm::{StreamProtocol, Swarm, SwarmEvent};
use libp2p::{PeerId, Stream};

use super::*;
use crate::address::{to_multiaddr, to_node, to_peer};
use crate::agreement::Hello;
use crate::control::Control;
use crate::state::Shared;

const CONTROL: &str = "/maelstrom/control/1";

/// libp2p with the mesh key, and a hand on every stream.
struct Rogue {
    id: PeerId,
    swarm: Swarm<libp2p_stream::Behaviour>,
    streams: libp2p_stream::Control,
}

impl Rogue {
    fn new(mesh: &MeshKey) -> Self {
        let key = NodeKey::generate();
        let shared = Arc::new(Shared::new(key.id(), Timing::default()));
        let transport = crate::swarm::transport(&config(&key, mesh, 0), &shared).unwrap();
        let behaviour = libp2p_stream::Behaviour::new();
        let streams = behaviour.new_control();
        let id = key.keypair().public().to_peer_id();
        let config =
            libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(BOUND);
        let swarm = Swarm::new(transport, behaviour, id, config);
        Self { id, swarm, streams }
    }

    fn node(&self) -> NodeId {
        to_node(&self.id).unwrap()
    }

    /// Connects, and from then on lets libp2p run.
    async fn connect(mut self, to: &Node) -> Connected {
        self.swarm.dial(to_multiaddr(to.address())).unwrap();
        while !matches!(
            self.swarm.select_next_some().await,
            SwarmEvent::ConnectionEstablished { .. }
        ) {}
        let node = self.node();
        tokio::spawn(async move {
            loop {
                self.swarm.select_next_some().await;
            }
        });
        Connected {
            node,
            to: to_peer(to.id()).unwrap(),
            streams: self.streams,
        }
    }
}

struct Connected {
    node: NodeId,
    to: PeerId,
    streams: libp2p_stream::Control,
}

impl Connected {
    async fn open(&mut self, protocol: &'static str) -> Stream {
        let protocol = StreamProtocol::new(protocol);
        self.streams.open_stream(self.to, protocol).await.unwrap()
    }

    /// Asks for the connection to be used, as nodes do, and hears the answer.
    async fn greet(&mut self) -> Stream {
        let mut control = self.open(CONTROL).await;
        let hello = Hello { life: 1, number: 1 };
        write(&mut control, &frame(&Control::Hello(hello).encode())).await;
        let mut answer = [0; 21];
        control.read_exact(&mut answer).await.unwrap();
        assert!(matches!(
            Control::decode(&answer[4..]),
            Some(Control::Accept(_))
        ));
        control
    }
}

fn frame(message: &[u8]) -> Vec<u8> {
    let mut bytes = (message.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    bytes
}

async fn write(stream: &mut Stream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
}

/// The victim reports what the rogue did, disconnects it, and doesn't let it in again.
async fn expect_ban(victim: &mut Node, rogue: NodeId, what: &str) {
    let (_, reason) = victim.refused().await;
    let expected = format!("node {rogue} is refused for 60 minutes: it {what}");
    assert_eq!(reason, expected);
    let bans = victim.net.stats().bans;
    assert!(
        bans.iter()
            .any(|ban| ban.peer == rogue && ban.reason == format!("it {what}"))
    );
    eventually("it is disconnected", || {
        victim
            .net
            .stats()
            .peers
            .iter()
            .all(|peer| peer.peer != rogue || peer.connection.is_none())
    })
    .await;
}

#[tokio::test]
async fn a_message_that_is_announced_longer_than_its_channel_takes() {
    let mesh = MeshKey::generate();
    let mut victim = start(&mesh).await;
    for channel in Channel::ALL {
        let mut rogue = Rogue::new(&mesh).connect(&victim).await;
        let _control = rogue.greet().await;
        assert_eq!(victim.up().await.0, rogue.node);
        let mut stream = rogue.open(channel.protocol()).await;
        write(&mut stream, &frame(b"fair")).await;
        assert_eq!(victim.message().await, (rogue.node, channel, "fair".into()));
        let most = channel.max_message_bytes();
        write(&mut stream, &(most as u32 + 1).to_be_bytes()).await;
        let what = format!(
            "announced a message of {} bytes on channel {}, which takes {most}",
            most + 1,
            channel.name()
        );
        expect_ban(&mut victim, rogue.node, &what).await;
    }
}

#[tokio::test]
async fn control_messages_that_make_no_sense() {
    let mesh = MeshKey::generate();
    let mut victim = start(&mesh).await;
    let hello = Control::Hello(Hello { life: 1, number: 2 }).encode();
    let again = "said Hello(Hello { life: 1, number: 2 }) where it makes no sense";
    let cases: [(Vec<u8>, &str); 6] = [
        (frame(&[99]), "sent a control message that makes no sense"),
        (frame(&[]), "sent a control message that makes no sense"),
        (
            frame(&[1, 2, 3]),
            "sent a control message that makes no sense",
        ),
        (frame(&[0; 33]), "announced a control message of 33 bytes"),
        (frame(&hello), again),
        (
            frame(&Control::Close.encode()),
            "said Close where it makes no sense",
        ),
    ];
    for (bytes, what) in cases {
        let mut rogue = Rogue::new(&mesh).connect(&victim).await;
        let mut control = rogue.greet().await;
        write(&mut control, &bytes).await;
        expect_ban(&mut victim, rogue.node, what).await;
    }
}

#[tokio::test]
async fn a_stream_that_is_opened_twice() {
    let mesh = MeshKey::generate();
    let mut victim = start(&mesh).await;
    for protocol in [CONTROL, Channel::Pull.protocol()] {
        let mut rogue = Rogue::new(&mesh).connect(&victim).await;
        let _control = rogue.greet().await;
        let mut streams = Vec::new();
        for _ in 0..2 {
            // The second may be cut off while it is opened.
            let opened = rogue
                .streams
                .open_stream(rogue.to, StreamProtocol::new(protocol))
                .await;
            streams.extend(opened);
        }
        let what = format!("opened the stream {protocol} a second time");
        expect_ban(&mut victim, rogue.node, &what).await;
    }
}

/// Before a connection is agreed on, nothing that comes over it is read.
#[tokio::test]
async fn messages_without_an_agreement_are_not_read() {
    let mesh = MeshKey::generate();
    let timing = Timing {
        handshake: Duration::from_secs(3),
        ..quick()
    };
    let mut victim = start_with(&mesh, NodeKey::generate(), timing).await;
    let mut rogue = Rogue::new(&mesh).connect(&victim).await;
    let mut stream = rogue.open(Channel::Dispatch.protocol()).await;
    write(&mut stream, &frame(b"run this")).await;
    // The connection is closed in the end; reading shows when.
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(BOUND, stream.read_to_end(&mut rest))
        .await
        .unwrap();
    while let Some(event) = victim.events.try_recv() {
        assert!(matches!(event, NetEvent::Listening(_)), "{event:?}");
    }
}

/// The key alone makes no node of a libp2p program.
#[tokio::test]
async fn a_program_of_another_kind_with_the_key_is_refused() {
    let mesh = MeshKey::generate();
    let mut victim = start_with(&mesh, NodeKey::generate(), quick()).await;
    let mut rogue = Rogue::new(&mesh);
    rogue
        .swarm
        .listen_on(to_multiaddr(([127, 0, 0, 1], 0).into()))
        .unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = rogue.swarm.select_next_some().await {
            break crate::address::to_socket(&address).unwrap();
        }
    };
    tokio::spawn(async move {
        loop {
            rogue.swarm.select_next_some().await;
        }
    });
    victim.net.join(&address.to_string());
    let (_, reason) = victim.refused().await;
    assert!(
        reason.contains("run the same version of maelstrom on both machines"),
        "{reason}"
    );
    assert!(victim.join_failed().await.contains("without using it"));
}

#[tokio::test]
async fn one_peer_has_a_bounded_number_of_connections() {
    let mesh = MeshKey::generate();
    let victim = start(&mesh).await;
    let mut rogue = Rogue::new(&mesh);
    for _ in 0..crate::peer::MAX_CONNECTIONS + 4 {
        let address = to_multiaddr(victim.address());
        let options = libp2p::swarm::dial_opts::DialOpts::unknown_peer_id().address(address);
        rogue.swarm.dial(options.build()).unwrap();
    }
    let (mut open, mut closed) = (0usize, 0usize);
    let finished = tokio::time::timeout(BOUND, async {
        while open + closed < crate::peer::MAX_CONNECTIONS + 4 || closed < 4 {
            match rogue.swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { .. } => open += 1,
                SwarmEvent::ConnectionClosed { .. } => (open, closed) = (open - 1, closed + 1),
                SwarmEvent::OutgoingConnectionError { .. } => closed += 1,
                _ => {}
            }
        }
    });
    assert!(finished.await.is_ok(), "{open} open, {closed} closed");
    assert_eq!((open, closed), (crate::peer::MAX_CONNECTIONS, 4));
}
