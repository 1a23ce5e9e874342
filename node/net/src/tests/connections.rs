//! Messages between nodes of one mesh, and how connections begin and end.

use super::*;

#[tokio::test]
async fn messages_arrive_whole_and_in_order_on_each_channel() {
    let (a, mut b) = pair().await;
    for n in 0..500u32 {
        for channel in Channel::ALL {
            a.send(&b, channel, n.to_be_bytes().to_vec());
        }
    }
    let (peer, _) = b.up().await;
    assert_eq!(peer, a.id());
    let mut next = [0u32; 4];
    for _ in 0..2000 {
        let (from, channel, bytes) = b.message().await;
        assert_eq!(from, a.id());
        assert_eq!(bytes, next[channel as usize].to_be_bytes()[..]);
        next[channel as usize] += 1;
    }
    assert_eq!(next, [500; 4]);
}

#[tokio::test]
async fn answers_go_over_the_connection_that_the_question_came_by() {
    let (mut a, mut b) = pair().await;
    a.send(&b, Channel::Pull, "question");
    let (from, _, _) = b.message().await;
    // Where the other node listens is not known here, and need not be.
    b.net.send(from, Channel::Pull, "answer".into());
    assert_eq!(a.message().await, (b.id(), Channel::Pull, "answer".into()));
    let stats = b.net.stats();
    assert_eq!(stats.peers.len(), 1);
    assert!(!stats.peers[0].connection.as_ref().unwrap().dialled);
    let pull = &stats.peers[0].channels[Channel::Pull as usize];
    assert_eq!((pull.received, pull.received_bytes), (1, 8));
}

#[tokio::test]
async fn the_longest_messages_and_empty_ones_arrive() {
    let (a, mut b) = pair().await;
    for channel in Channel::ALL {
        let long: Bytes = (0..channel.max_message_bytes())
            .map(|n| (n % 251) as u8)
            .collect();
        a.send(&b, channel, long.clone());
        assert_eq!(b.message().await, (a.id(), channel, long));
        a.send(&b, channel, Bytes::new());
        assert_eq!(b.message().await, (a.id(), channel, Bytes::new()));
    }
    // One that is longer is not sent.
    let long = vec![0; Channel::Election.max_message_bytes() + 1];
    a.send(&b, Channel::Election, long);
    let election = &a.net.stats().peers[0].channels[Channel::Election as usize];
    assert_eq!(election.dropped, 1);
}

/// A peer whose node takes no messages costs bounded memory at both ends, holds up nobody else,
/// and gets what was queued once it goes on.
#[tokio::test]
async fn queues_are_bounded_where_the_other_side_does_not_read() {
    let mesh = MeshKey::generate();
    let (a, mut b, mut c) = (start(&mesh).await, start(&mesh).await, start(&mesh).await);
    a.knows(&b);
    a.knows(&c);
    let long = Bytes::from(vec![7; 500_000]);
    let queue = || {
        let peers = a.net.stats().peers;
        let peer = peers.into_iter().find(|peer| peer.peer == b.id()).unwrap();
        peer.channels[Channel::Pull as usize].clone()
    };
    eventually("some are dropped", || {
        a.net.send(b.id(), Channel::Pull, long.clone());
        queue().sent > 0 && queue().dropped > 20
    })
    .await;
    assert!(queue().queued_bytes <= Channel::Pull.max_queue_bytes());
    // What has left the queue is in the other side's inbox, or under way in bounded buffers.
    assert!(queue().sent < 60, "{}", queue().sent);

    a.send(&c, Channel::Pull, "to another");
    assert_eq!(c.message().await.2, "to another");

    for _ in 0..queue().queued as u64 + queue().sent {
        assert_eq!(b.message().await.2.len(), long.len());
    }
    a.send(&b, Channel::Gossip, "still there");
    assert_eq!(b.message().await.2, "still there");
}

#[tokio::test]
async fn simultaneous_dials_end_in_one_connection() {
    let mesh = MeshKey::generate();
    for _ in 0..10 {
        let (mut a, mut b) = (start(&mesh).await, start(&mesh).await);
        a.knows(&b);
        b.knows(&a);
        for n in 0..100u8 {
            a.send(&b, Channel::Pull, vec![n]);
            b.send(&a, Channel::Pull, vec![n]);
        }
        for n in 0..100u8 {
            assert_eq!(a.message().await.2[..], [n]);
            assert_eq!(b.message().await.2[..], [n]);
        }
        let connection = |node: &Node| node.net.stats().peers[0].connection.clone().unwrap();
        assert_ne!(connection(&a).dialled, connection(&b).dialled);
        while let Some(event) = a.events.try_recv() {
            assert!(!matches!(event, NetEvent::PeerDown { .. }), "{event:?}");
        }
    }
}

#[tokio::test]
async fn a_node_that_restarts_with_its_key_is_the_same_peer() {
    let mesh = MeshKey::generate();
    let key = NodeKey::generate();
    let mut a = start_with(&mesh, NodeKey::generate(), quick()).await;
    let mut b = start_with(&mesh, key.clone(), quick()).await;
    let address = b.address();
    a.knows(&b);
    a.send(&b, Channel::Pull, "before");
    b.message().await;
    let Node { net, .. } = b;
    net.shutdown().await;
    assert_eq!(a.down().await, key.id());

    // Nobody is there: what is sent is dropped, and counted.
    a.net.send(key.id(), Channel::Pull, "lost".into());
    eventually("the message is dropped", || {
        a.net.stats().peers[0].dropped == 1
    })
    .await;

    let again = config(&key, &mesh, address.port());
    let (net, events) = Net::start_with(again, quick()).await.unwrap();
    b = Node { net, events };
    let mut sent = 0u32;
    let first = loop {
        a.send(&b, Channel::Pull, sent.to_be_bytes().to_vec());
        sent += 1;
        if let Some(NetEvent::Message { bytes, .. }) = b.events.try_recv() {
            break bytes;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(first.len(), 4);
    assert_eq!(a.up().await.0, b.id());
}

/// A node that vanishes without a word (here: its runtime stops) and comes back dials those who
/// still believe in the old connection.
#[tokio::test]
async fn who_comes_back_replaces_the_old_connection() {
    let mesh = MeshKey::generate();
    let key = NodeKey::generate();
    let mut a = start(&mesh).await;
    let mut b = start_with(&mesh, key.clone(), Timing::default()).await;
    b.knows(&a);
    b.send(&a, Channel::Pull, "first life");
    a.message().await;

    // The first life goes on, cut off from nothing: as far as `a` can tell, its connection lives.
    let mut again = start_with(&mesh, key, Timing::default()).await;
    again.knows(&a);
    again.send(&a, Channel::Pull, "second life");
    assert_eq!(a.down().await, again.id());
    assert_eq!(a.up().await.0, again.id());
    assert_eq!(a.message().await.2, "second life");
    a.send(&again, Channel::Pull, "welcome back");
    assert_eq!(again.message().await.2, "welcome back");
    assert_eq!(b.down().await, a.id());
}

#[tokio::test]
async fn idle_connections_are_closed_and_made_again() {
    let mesh = MeshKey::generate();
    let timing = Timing {
        idle: Duration::from_millis(300),
        consent: Duration::from_millis(100),
        ..quick()
    };
    let mut a = start_with(&mesh, NodeKey::generate(), timing).await;
    let mut b = start_with(&mesh, NodeKey::generate(), timing).await;
    a.knows(&b);
    for _ in 0..2 {
        a.send(&b, Channel::Gossip, "hello");
        b.message().await;
        assert_eq!(b.down().await, a.id());
        assert_eq!(a.down().await, b.id());
    }
    let gossip = &a.net.stats().peers[0].channels[0];
    assert_eq!((gossip.sent, gossip.dropped), (2, 0));
}

/// Where one side is done and the other is not, no message is lost with the connection.
#[tokio::test]
async fn closing_an_idle_connection_loses_nothing() {
    let mesh = MeshKey::generate();
    let timing = Timing {
        idle: Duration::from_millis(30),
        consent: Duration::from_millis(10),
        tick: Duration::from_millis(1),
        ..quick()
    };
    let mut a = start_with(&mesh, NodeKey::generate(), timing).await;
    let mut b = start_with(&mesh, NodeKey::generate(), timing).await;
    a.knows(&b);
    b.knows(&a);
    for n in 0..60u32 {
        // About as long as it takes to become idle.
        tokio::time::sleep(Duration::from_millis(20 + u64::from(n % 20))).await;
        let (from, to) = if n % 3 == 0 {
            (&b, &mut a)
        } else {
            (&a, &mut b)
        };
        from.net
            .send(to.id(), Channel::Dispatch, n.to_be_bytes().to_vec().into());
        assert_eq!(to.message().await.2, n.to_be_bytes()[..]);
    }
}

#[tokio::test]
async fn a_banned_peer_is_disconnected_and_refused() {
    let (mut a, mut b) = pair().await;
    a.send(&b, Channel::Pull, "hello");
    b.message().await;
    b.net
        .ban(a.id(), "it sent a vote for a node that doesn't exist");
    let (_, reason) = b.refused().await;
    assert_eq!(a.down().await, b.id());
    assert_eq!(b.down().await, a.id());
    let expected = format!(
        "node {} is refused for 60 minutes: it sent a vote for a node that doesn't exist",
        a.id()
    );
    assert_eq!(reason, expected);
    let ban = &b.net.stats().bans[0];
    assert_eq!(ban.peer, a.id());
    // Neither side gets through.
    a.send(&b, Channel::Pull, "hello?");
    b.knows(&a);
    b.send(&a, Channel::Pull, "hello");
    eventually("both are dropped", || {
        a.net.stats().peers[0].dropped == 1 && b.net.stats().peers[0].dropped == 1
    })
    .await;
    while let Some(event) = b.events.try_recv() {
        assert!(!matches!(event, NetEvent::PeerUp { .. }), "{event:?}");
    }
}

#[tokio::test]
async fn what_is_queued_is_sent_before_a_shutdown() {
    let mesh = MeshKey::generate();
    let timing = Timing {
        linger: BOUND,
        ..Timing::default()
    };
    let a = start_with(&mesh, NodeKey::generate(), timing).await;
    let mut b = start(&mesh).await;
    a.knows(&b);
    a.send(&b, Channel::Pull, "first");
    b.message().await;
    for n in 0..50u32 {
        let mut message = vec![0; 100_000];
        message[..4].copy_from_slice(&n.to_be_bytes());
        a.send(&b, Channel::Dispatch, message);
    }
    let Node { net, mut events } = a;
    let read = async {
        for n in 0..50u32 {
            assert_eq!(b.message().await.2[..4], n.to_be_bytes());
        }
    };
    tokio::join!(net.shutdown(), read);
    b.down().await;
    while events.recv().await.is_some() {}
}

#[tokio::test]
async fn a_forgotten_peer_is_disconnected() {
    let (mut a, mut b) = pair().await;
    a.send(&b, Channel::Pull, "hello");
    b.message().await;
    assert_eq!(a.up().await.0, b.id());
    a.net.forget(b.id());
    assert_eq!(a.down().await, b.id());
    a.send(&b, Channel::Pull, "hello");
    eventually("nothing is known of it", || {
        a.net.stats().known == 0 && a.net.stats().peers.is_empty()
    })
    .await;
    assert_eq!(a.net.stats().dropped_unknown, 1);
}

#[tokio::test]
async fn join_finds_a_node_by_name_and_tries_until_it_is_there() {
    let mesh = MeshKey::generate();
    let mut a = start_with(&mesh, NodeKey::generate(), quick()).await;
    // A port that nobody listens on, for now.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let target = format!("localhost:{port}");
    a.net.join(&target);
    let reason = a.join_failed().await;
    assert!(
        reason.contains(&format!("127.0.0.1:{port}: Connection refused")),
        "{reason}"
    );
    tokio::time::sleep(Duration::from_millis(200)).await;

    let key = NodeKey::generate();
    let (_net, _events) = Net::start_with(config(&key, &mesh, port), quick())
        .await
        .unwrap();
    let (joined, peer) = a
        .until(|event| match event {
            NetEvent::Joined { target, peer } => Some((target, peer)),
            NetEvent::JoinFailed { reason, .. } => panic!("reported again: {reason}"),
            _ => None,
        })
        .await;
    assert_eq!((joined, peer), (target.clone(), key.id()));
    // Whoever is connected already has been joined, too.
    a.net.join(&target);
    a.until(|event| matches!(event, NetEvent::Joined { .. }).then_some(()))
        .await;
}

#[tokio::test]
async fn nodes_that_join_each_other_at_the_same_time_do_not_complain() {
    let mesh = MeshKey::generate();
    for _ in 0..20 {
        let (mut a, mut b) = (start(&mesh).await, start(&mesh).await);
        a.net.join(&b.address().to_string());
        b.net.join(&a.address().to_string());
        for node in [&mut a, &mut b] {
            node.until(|event| match event {
                NetEvent::Joined { .. } => Some(()),
                NetEvent::JoinFailed { reason, .. } => panic!("{reason}"),
                _ => None,
            })
            .await;
        }
    }
}

#[tokio::test]
async fn joins_that_make_no_sense_say_why() {
    let mesh = MeshKey::generate();
    let mut a = start_with(&mesh, NodeKey::generate(), quick()).await;
    a.net.join("not a host");
    let reason = a.join_failed().await;
    assert!(reason.contains("such as build-3:7357") && reason.contains("not tried again"));
    a.net.join(&a.address().to_string());
    let reason = a.join_failed().await;
    assert_eq!(reason, "that is this very node; it is not tried again");
    a.net.join("there-is-no-such-host.invalid");
    let reason = a.join_failed().await;
    assert!(reason.contains("cannot look up the host"), "{reason}");
}

#[tokio::test]
async fn a_node_that_listens_everywhere_says_where_others_reach_it() {
    let config = NetConfig {
        listen: vec![SocketAddr::from(([0, 0, 0, 0], 0))],
        ..config(&NodeKey::generate(), &MeshKey::generate(), 0)
    };
    let (net, _events) = Net::start(config).await.unwrap();
    let own = crate::networks::own_addresses();
    let reachable = own.iter().filter(|ip| ip.is_ipv4() && !ip.is_loopback());
    let mut expected: Vec<_> = reachable.copied().collect();
    if expected.is_empty() {
        expected.push([127, 0, 0, 1].into());
    }
    let mut addresses: Vec<_> = net.addresses().iter().map(SocketAddr::ip).collect();
    expected.sort();
    addresses.sort();
    assert_eq!(addresses, expected);
    assert!(net.addresses().iter().all(|address| address.port() != 0));
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let key = NodeKey::generate();
    let config = config(&key, &MeshKey::generate(), address.port());
    let error = Net::start(config)
        .await
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&format!("cannot listen on {address} (TCP)")),
        "{error}"
    );
    assert!(error.contains("another node of this machine"), "{error}");
}

#[tokio::test]
async fn many_nodes_reach_each_other() {
    let mesh = MeshKey::generate();
    let mut nodes = Vec::new();
    for _ in 0..8 {
        nodes.push(start(&mesh).await);
    }
    for from in &nodes {
        for to in &nodes {
            from.knows(to);
        }
    }
    for from in &nodes {
        for to in nodes.iter().filter(|to| to.id() != from.id()) {
            from.send(to, Channel::Gossip, "hello");
        }
    }
    for node in &mut nodes {
        let mut from = Vec::new();
        for _ in 0..7 {
            from.push(node.message().await.0);
        }
        from.sort();
        from.dedup();
        assert_eq!(from.len(), 7);
    }
    for node in &nodes {
        let connected = node
            .net
            .stats()
            .peers
            .iter()
            .filter(|p| p.connection.is_some())
            .count();
        assert_eq!(connected, 7);
    }
}
