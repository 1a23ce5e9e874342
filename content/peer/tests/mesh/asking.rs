//! Requests that no sound node makes.

use crate::host::{Host, Post, assert_same, noise};
use iroh::{
    Endpoint, EndpointAddr, SecretKey,
    endpoint::{Connection, presets},
};
use maelstrom_gossip::NodeId;
use maelstrom_transfer::{Plan, request};

async fn endpoint(seed: u8) -> Endpoint {
    Endpoint::builder(presets::Minimal)
        .secret_key(SecretKey::from_bytes(&[seed; 32]))
        .relay_mode(iroh::RelayMode::Disabled)
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")
        .unwrap()
        .bind()
        .await
        .unwrap()
}

async fn connect(from: &Endpoint, to: &Host) -> Option<Connection> {
    let id = iroh::EndpointId::from_bytes(to.id().as_bytes()).unwrap();
    let address = EndpointAddr::new(id).with_ip_addr(to.layers.addresses()[0]);
    from.connect(address, request::ALPN).await.ok()
}

async fn ask(connection: &Connection, request: &[u8]) -> Option<Vec<u8>> {
    let (mut send, mut receive) = connection.open_bi().await.ok()?;
    send.write_all(request).await.ok()?;
    send.finish().ok()?;
    receive.read_to_end(10 << 20).await.ok()
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
    let asker = endpoint(9).await;
    let id = NodeId::from_bytes(*asker.id().as_bytes());
    host.layers.member_up(id, &[], false);
    let connection = connect(&asker, &host).await.unwrap();

    let manifest = ask(&connection, &request::manifest(layer)).await.unwrap();
    assert!(manifest.len() > 8);
    let encoded = host.store.manifest(layer).unwrap().encode();
    let plan = Plan::new(layer, encoded.into()).unwrap();
    // A piece that nobody agreed to serve.
    let piece = request::ranges(&plan, &plan.layout().ranges(0));
    assert_eq!(ask(&connection, &piece).await, None);
    // The contents by their own hash.
    let by_hash = maelstrom_content::LayerId::from_bytes(*plan.contents()[0].hash.as_bytes());
    assert_eq!(ask(&connection, &request::manifest(by_hash)).await, None);
    for rubbish in [
        vec![],
        vec![0],
        vec![255; 100],
        vec![3; 1 << 20],
        noise(5000, 7),
    ] {
        assert_eq!(ask(&connection, &rubbish).await, None);
    }
    for length in 0..piece.len() {
        assert_eq!(ask(&connection, &piece[..length]).await, None);
    }
    assert!(host.layers.stats().sent_bytes < 1000);

    // It serves others all the same.
    let other = Host::start(dir.path(), 2, &post, 1 << 30).await;
    let hosts = [host, other];
    crate::host::acquaint(&hosts);
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
    let asker = endpoint(9).await;
    if let Some(connection) = connect(&asker, &host).await {
        assert_eq!(ask(&connection, &request::manifest(layer)).await, None);
        let reason = connection.closed().await.to_string();
        assert!(reason.contains("not a member"), "{reason}");
    }
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
