//! Requests that no sound node makes.

use crate::{
    host::{Host, OPENING, Post, acquaint, assert_same, noise},
    piece::PieceError,
    stream::{MAX_PART_BYTES, Stream},
    tls::Tls,
};
use maelstrom_gossip::NodeId;
use maelstrom_transfer::{Plan, request};
use std::time::Duration;
use tokio::{io::AsyncWriteExt, net::TcpStream};

const BOUND: Duration = Duration::from_secs(60);

/// A node that speaks the protocol and nothing else.
fn asker() -> Tls {
    Tls::new(&[9; 32]).unwrap()
}

async fn connect(from: &Tls, to: &Host) -> Stream {
    let mut socket = TcpStream::connect(to.address).await.unwrap();
    socket.write_all(&OPENING).await.unwrap();
    Stream::dialled(socket, from).await.unwrap()
}

async fn ask(stream: &mut Stream, request: &[u8]) -> Result<Vec<u8>, PieceError> {
    stream.ask(request).await?;
    let mut answer = Vec::new();
    let mut part = vec![0; MAX_PART_BYTES];
    while let Some(length) = stream.take_part(&mut part, 0, BOUND).await? {
        answer.extend_from_slice(&part[..length]);
    }
    Ok(answer)
}

async fn is_refused(stream: &mut Stream, request: &[u8]) -> bool {
    matches!(ask(stream, request).await, Err(PieceError::NotHere))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_gets_only_what_was_agreed_on() {
    let dir = tempfile::tempdir().unwrap();
    let post = Post::default();
    let host = Host::start(dir.path(), 1, &post, 1 << 30).await;
    let contents = noise(1_000_000, 1);
    let mut builder = host.store.layer();
    let layer = builder
        .add_bytes("file", &*contents, 0o644)
        .finish()
        .unwrap();
    host.layers.keep_offering(layer);
    let asker = asker();
    host.layers.member_up(asker.me(), &[], false);
    let mut stream = connect(&asker, &host).await;
    assert_eq!(stream.node(), Some(host.id()));

    let manifest = ask(&mut stream, &request::manifest(layer)).await.unwrap();
    assert!(manifest.len() > 8);
    let encoded = host.store.manifest(layer).unwrap().encode();
    let plan = Plan::new(layer, encoded.into()).unwrap();
    // A piece that nobody agreed to serve.
    let piece = request::ranges(&plan, &plan.layout().ranges(0));
    assert!(is_refused(&mut stream, &piece).await);
    // The contents by their own hash.
    let by_hash = maelstrom_content::LayerId::from_bytes(*plan.contents()[0].hash.as_bytes());
    assert!(is_refused(&mut stream, &request::manifest(by_hash)).await);
    for rubbish in [
        vec![],
        vec![0],
        vec![255; 100],
        vec![3; 1 << 20],
        noise(5000, 7),
    ] {
        assert!(is_refused(&mut stream, &rubbish).await);
    }
    for length in 0..piece.len() {
        assert!(is_refused(&mut stream, &piece[..length]).await);
    }
    // One that is too long ends the connection.
    let long = vec![0; request::MAX_REQUEST_BYTES + 1];
    let refused = ask(&mut stream, &long).await;
    assert!(matches!(refused, Err(PieceError::Lost(_))), "{refused:?}");
    assert!(host.layers.stats().sent_bytes < 1000);

    // It serves others all the same.
    let other = Host::start(dir.path(), 2, &post, 1 << 30).await;
    let hosts = [host, other];
    acquaint(&hosts);
    let origin = hosts[0].id();
    hosts[1].layers.fetch(layer, origin, &[]).await.unwrap();
    assert_same(&hosts[0].store, &hosts[1].store, layer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_not_heard() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), 1, &Post::default(), 1 << 30).await;
    let layer = host.layer(1, 1000, 1);
    host.layers.keep_offering(layer);
    // It has the opening, but is not known as a member.
    let mut stream = connect(&asker(), &host).await;
    let refused = ask(&mut stream, &request::manifest(layer)).await;
    assert!(matches!(refused, Err(PieceError::Lost(_))), "{refused:?}");
    assert_eq!(host.layers.stats().sent_bytes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_none_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), 1, &Post::default(), 1 << 30).await;
    let from = NodeId::from_bytes([7; 32]);
    host.layers.member_up(from, &[], false);
    for message in [vec![], vec![1; 10], vec![255; 200], vec![0; 9000]] {
        let refused = host.layers.handle_message(from, &message).unwrap_err();
        assert!(
            refused.to_string().starts_with("not a message"),
            "{refused}"
        );
    }
    for salt in 0..2000 {
        let _ = host
            .layers
            .handle_message(from, &noise(10 + salt % 200, salt as u64));
    }
}

/// Whoever answers in place of a node does not have its key, and is asked for nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_in_its_place_is_not_asked() {
    let dir = tempfile::tempdir().unwrap();
    let post = Post::default();
    let host = Host::start(dir.path(), 1, &post, 1 << 30).await;
    let other = Host::start(dir.path(), 2, &post, 1 << 30).await;
    let layer = host.layer(1, 1000, 1);
    host.layers.keep_offering(layer);
    let stranger = NodeId::from_bytes([5; 32]);
    other.layers.member_up(stranger, &[host.address], false);
    host.layers.member_up(other.id(), &[], false);
    let failed = other.layers.fetch(layer, stranger, &[]).await.unwrap_err();
    let failed = failed.to_string();
    assert!(failed.contains("another node answered"), "{failed}");
    assert_eq!(host.layers.stats().sent_bytes, 0);
}

/// Connections of one member are bounded, and those beyond the bound are closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_a_member_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), 1, &Post::default(), 1 << 30).await;
    let layer = host.layer(1, 1000, 1);
    host.layers.keep_offering(layer);
    let asker = asker();
    host.layers.member_up(asker.me(), &[], false);
    let mut served = Vec::new();
    for _ in 0..crate::serve::MAX_CONNECTIONS_EACH {
        let mut stream = connect(&asker, &host).await;
        ask(&mut stream, &request::manifest(layer)).await.unwrap();
        served.push(stream);
    }
    let mut beyond = connect(&asker, &host).await;
    let refused = ask(&mut beyond, &request::manifest(layer)).await;
    assert!(matches!(refused, Err(PieceError::Lost(_))), "{refused:?}");
    // Who is no member any more loses them all.
    host.layers.member_down(asker.me());
    for stream in &mut served {
        let refused = ask(stream, &request::manifest(layer)).await;
        assert!(matches!(refused, Err(PieceError::Lost(_))), "{refused:?}");
    }
}
