//! Whoever lacks the mesh key, and members that break the rules.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn another_mesh_key_is_refused_and_reported_once_on_both_sides() {
    let mut a = start_with(&MeshKey::generate(), NodeKey::generate(), quick()).await;
    let mut b = start_with(&MeshKey::generate(), NodeKey::generate(), quick()).await;
    b.net.join(&a.address().to_string());
    let reason = b.join_failed().await;
    assert!(
        reason.contains("does not have this mesh's key (fingerprint "),
        "{reason}"
    );
    let (address, reason) = a.refused().await;
    assert!(address.ip().is_loopback());
    assert!(
        reason.contains("does not have this mesh's key (fingerprint "),
        "{reason}"
    );

    // It is tried again and again; each time it is counted, and not reported.
    eventually("it is counted", || {
        a.net.stats().refusals[0].times > 3 && b.net.stats().refusals[0].times > 3
    })
    .await;
    for node in [&mut a, &mut b] {
        let mut reports = 0;
        while let Some(event) = node.events.try_recv() {
            match event {
                NetEvent::Refused { .. } => reports += 1,
                NetEvent::Listening(_) => {}
                event => panic!("{event:?}"),
            }
        }
        assert!(reports <= 1, "{reports}");
    }
}

/// What a node without the key gets to see: 24 random bytes, whatever it sends.
#[tokio::test]
async fn rubbish_learns_nothing() {
    let mesh = MeshKey::generate();
    let mut a = start_with(&mesh, NodeKey::generate(), quick()).await;
    let long = vec![0xa5; 100_000];
    let cases: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: maelstrom\r\n\r\n",
        b"\x13/multistream/1.0.0\n\x07/noise\n",
        b"x",
        &[0; 64],
        &long,
    ];
    for sent in cases {
        let mut socket = TcpStream::connect(a.address()).await.unwrap();
        // The other side may close before everything is sent.
        let _ = socket.write_all(sent).await;
        let _ = socket.shutdown().await;
        let mut seen = Vec::new();
        let _ = tokio::time::timeout(BOUND, socket.read_to_end(&mut seen))
            .await
            .unwrap();
        assert!(seen.len() <= 24, "{} bytes: {seen:?}", seen.len());
    }
    let (_, reason) = a.refused().await;
    assert!(reason.contains("does not have this mesh's key") || reason.contains("not the start"));
    eventually("nothing is left", || a.net.stats().unfinished == 0).await;

    // Whoever only looks whether the port is open is not worth a word.
    let before = a.net.stats().abandoned;
    drop(TcpStream::connect(a.address()).await.unwrap());
    eventually("it is counted", || a.net.stats().abandoned == before + 1).await;
}

/// Connections that stay silent or trickle are bounded in number and time, and members get in
/// all the same.
#[tokio::test]
async fn unfinished_handshakes_are_bounded_in_number_and_time() {
    let mesh = MeshKey::generate();
    let timing = Timing {
        handshake: Duration::from_secs(2),
        ..quick()
    };
    let mut a = start_with(&mesh, NodeKey::generate(), timing).await;
    let mut sockets = Vec::new();
    for _ in 0..crate::behaviour::MAX_UNFINISHED_OF_MACHINE + 20 {
        sockets.push(TcpStream::connect(a.address()).await.unwrap());
    }
    eventually("those beyond the bound are turned away", || {
        a.net.stats().turned_away >= 20
    })
    .await;
    assert!(a.net.stats().unfinished <= crate::behaviour::MAX_UNFINISHED_OF_MACHINE);
    // One byte now and then doesn't help.
    let trickle = tokio::spawn(async move {
        loop {
            for socket in &mut sockets {
                let _ = socket.write_all(b"x").await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let (_, reason) = a.refused().await;
    assert_eq!(reason, "it did not finish the handshake within 2 seconds");
    eventually("none is left", || a.net.stats().unfinished == 0).await;
    trickle.abort();

    let b = start(&mesh).await;
    b.knows(&a);
    b.send(&a, Channel::Pull, "hello");
    assert_eq!(a.message().await.2, "hello");
}

/// Bytes that once opened a connection open none when they are sent again.
#[tokio::test]
async fn a_recorded_handshake_is_worth_nothing() {
    let mesh = MeshKey::generate();
    let mut a = start_with(&mesh, NodeKey::generate(), quick()).await;
    // A relay between b and a that records what b sends.
    let relay = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = relay.local_addr().unwrap();
    let to = a.address();
    let recording = tokio::spawn(async move {
        let (from, _) = relay.accept().await.unwrap();
        let (mut from_read, mut from_write) = from.into_split();
        let (mut to_read, mut to_write) = TcpStream::connect(to).await.unwrap().into_split();
        let back =
            tokio::spawn(async move { tokio::io::copy(&mut to_read, &mut from_write).await });
        let mut recorded = Vec::new();
        let mut buffer = vec![0; 65536];
        while let Ok(bytes @ 1..) = from_read.read(&mut buffer).await {
            recorded.extend_from_slice(&buffer[..bytes]);
            if to_write.write_all(&buffer[..bytes]).await.is_err() {
                break;
            }
        }
        back.abort();
        recorded
    });
    let b = start(&mesh).await;
    b.net.learn(a.id(), &[at]);
    b.send(&a, Channel::Pull, "secret plans");
    assert_eq!(a.message().await.2, "secret plans");
    b.net.shutdown().await;
    let recorded = recording.await.unwrap();
    let plain = b"secret plans";
    assert!(!recorded.windows(plain.len()).any(|window| window == plain));
    a.down().await;

    let mut socket = TcpStream::connect(to).await.unwrap();
    let _ = socket.write_all(&recorded).await;
    let mut seen = Vec::new();
    let _ = tokio::time::timeout(BOUND, socket.read_to_end(&mut seen))
        .await
        .unwrap();
    while let Some(event) = a.events.try_recv() {
        let is_bad = matches!(event, NetEvent::PeerUp { .. } | NetEvent::Message { .. });
        assert!(!is_bad, "{event:?}");
    }
}

/// A connection for bulk data is handed over if it begins with what the mesh key gives, in
/// however many parts that comes; any other is treated as one for control.
#[tokio::test]
async fn bulk_connections_need_the_mesh_key() {
    let mesh = MeshKey::generate();
    let (bulk, mut handed_over) = tokio::sync::mpsc::channel(1);
    let config = NetConfig {
        bulk: Some(bulk),
        ..config(&NodeKey::generate(), &mesh, 0)
    };
    let (net, _events) = Net::start_with(config, quick()).await.unwrap();
    let address = net.addresses()[0];
    let opening = mesh.opening_of_bulk();
    assert_ne!(opening, MeshKey::generate().opening_of_bulk());

    let mut stranger = TcpStream::connect(address).await.unwrap();
    let other = MeshKey::generate().opening_of_bulk();
    stranger.write_all(&other).await.unwrap();
    stranger.write_all(&[0; 100]).await.unwrap();
    let mut seen = Vec::new();
    let _ = tokio::time::timeout(BOUND, stranger.read_to_end(&mut seen))
        .await
        .unwrap();
    assert!(seen.len() <= 24, "{seen:?}");
    assert!(handed_over.try_recv().is_err());

    let mut member = TcpStream::connect(address).await.unwrap();
    member.set_nodelay(true).unwrap();
    member.write_all(&opening[..7]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    member.write_all(&opening[7..]).await.unwrap();
    member.write_all(b"data").await.unwrap();
    let taken = tokio::time::timeout(BOUND, handed_over.recv());
    let mut taken = taken.await.unwrap().unwrap();
    let mut data = [0; 4];
    taken.read_exact(&mut data).await.unwrap();
    assert_eq!(&data, b"data");
    eventually("it is not counted as unfinished", || {
        net.stats().unfinished == 0
    })
    .await;
}
