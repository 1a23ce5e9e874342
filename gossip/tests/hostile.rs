//! What a broken or hostile peer sends neither panics nor grows without bound.

mod common;

use std::time::{Duration, Instant};

use common::{Mesh, id};
use maelstrom_gossip::{Config, Load, MAX_MESSAGE_BYTES, Membership, MessageError, Profile};
use proptest::prelude::*;

/// Real messages of a small mesh, for spoiling.
fn real_messages() -> Vec<Vec<u8>> {
    let now = Instant::now();
    let mut nodes: Vec<Membership> = (0..3)
        .map(|number| {
            let profile = Profile::new(id(number), 4);
            Membership::new(
                now,
                id(number),
                1,
                profile,
                Config::default(),
                number as u64,
            )
            .unwrap()
        })
        .collect();
    let mut messages = Vec::new();
    nodes[1].join(now, id(0));
    nodes[2].join(now, id(0));
    for tenth in 0..300 {
        let now = now + Duration::from_millis(tenth * 100);
        for from in 0..3 {
            nodes[from].handle_timeout(now);
            let load = Load {
                slots_free: tenth as u16 / 30,
                jobs_queued: 0,
            };
            nodes[from].set_load(now, load);
            while let Some(transmit) = nodes[from].poll_transmit() {
                let to = common::number(transmit.to);
                // Loads that broadcasts miss are found by comparing, so that all kinds of
                // messages are sent.
                let missed = tenth % 60 > 20 && transmit.message.len() > 50 && from == 0;
                if !missed || transmit.message[0] != 1 {
                    nodes[to]
                        .handle_message(now, id(from), &transmit.message)
                        .unwrap();
                }
                messages.push(transmit.message);
            }
        }
    }
    for kind in 1..=7 {
        assert!(
            messages.iter().any(|message| message[0] == kind),
            "no message of kind {kind}"
        );
    }
    messages
}

fn drain(node: &mut Membership) {
    while node.poll_transmit().is_some() {}
    while node.poll_event().is_some() {}
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_are_borne(
        messages in proptest::collection::vec((1..8u8, any::<Vec<u8>>()), 0..60),
    ) {
        let mut mesh = Mesh::of(3, 1);
        for (kind, mut message) in messages {
            message.insert(0, kind);
            mesh.with(0, |node, now| {
                let _ = node.handle_message(now, id(1), &message);
            });
            mesh.with(0, |node, now| node.handle_timeout(now + Duration::from_millis(1)));
        }
        mesh.run_for(Duration::from_secs(5));
    }

    #[test]
    fn spoilt_messages_are_borne(
        spoils in proptest::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>(), any::<bool>()),
            1..200,
        ),
    ) {
        let messages = real_messages();
        let now = Instant::now();
        let profile = Profile::new(id(0), 4);
        let mut node = Membership::new(now, id(0), 1, profile, Config::default(), 1).unwrap();
        for (at, (which, position, byte, cut)) in spoils.into_iter().enumerate() {
            let mut message = which.get(&messages).clone();
            let position = position.index(message.len());
            message[position] = byte;
            if cut {
                message.truncate(position);
            }
            let now = now + Duration::from_millis(at as u64 * 50);
            let _ = node.handle_message(now, id(1 + at % 2), &message);
            node.handle_timeout(now);
            drain(&mut node);
        }
    }
}

#[test]
fn senders_are_checked() {
    let mut mesh = Mesh::of(3, 2);
    let message = mesh.with(1, |node, now| {
        node.handle_timeout(now + Duration::from_secs(2));
        let mut sent = std::iter::from_fn(|| node.poll_transmit());
        sent.find(|transmit| transmit.message[0] == 1)
            .unwrap()
            .message
    });
    let refused = mesh.with(0, |node, now| node.handle_message(now, id(2), &message));
    assert_eq!(refused, Err(MessageError::WrongSender));
    let refused = mesh.with(0, |node, now| node.handle_message(now, id(0), &message));
    assert_eq!(refused, Err(MessageError::WrongSender));
    // Another key with the same first bytes as a member's.
    let mut twin = *id(1).as_bytes();
    twin[20] ^= 1;
    let twin = maelstrom_gossip::NodeId::from_bytes(twin);
    let refused = mesh.with(0, |node, now| node.handle_message(now, twin, &message));
    assert_eq!(refused, Err(MessageError::WrongSender));
}

#[test]
fn long_messages_are_refused() {
    let mut mesh = Mesh::of(2, 3);
    let message = vec![7; MAX_MESSAGE_BYTES + 1];
    let refused = mesh.with(0, |node, now| node.handle_message(now, id(1), &message));
    assert_eq!(refused, Err(MessageError::TooLong(MAX_MESSAGE_BYTES + 1)));
}

#[test]
fn no_more_members_than_allowed_are_held() {
    let mut mesh = Mesh::new(4);
    mesh.config.max_members = 20;
    for number in 0..10 {
        mesh.start(number, 1);
        mesh.join(number, 0);
    }
    assert!(mesh.run_until(Duration::from_secs(30), Mesh::agree));
    // A summary of invented members: no buckets, then 29 bytes for each.
    let mut refused = 0;
    for round in 0..100u64 {
        let mut message = vec![5, 0];
        for invented in 0..5u64 {
            message.extend((round * 5 + invented).to_le_bytes());
            message.extend([1, 0, 0, 0, 1]);
            message.extend([0; 16]);
        }
        let result = mesh.with(0, |node, now| node.handle_message(now, id(1), &message));
        refused += usize::from(result == Err(MessageError::TooManyMembers));
    }
    assert!(refused >= 97, "{refused}");
    assert!(mesh.node(0).view().len() <= 20);
    // Nobody answers for them, so they go again.
    assert!(mesh.run_until(Duration::from_secs(120), Mesh::agree));
}
