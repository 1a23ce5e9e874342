//! What a swarm does, one rule at a time, and under random faults.

mod toy;

use maelstrom_pull::{Layout, Nearness};
use proptest::prelude::*;
use toy::{BUNDLE, Mesh, ms};

const MIB: f64 = 1024.0 * 1024.0;

fn layout(mib: u64) -> Layout {
    Layout::new(vec![mib << 20]).unwrap()
}

#[test]
fn one_node_pulls_at_the_speed_of_the_link() {
    let mut mesh = Mesh::new(2, 100.0 * MIB, layout(100), 1);
    mesh.pull(1, &[(0, Nearness::Origin)]);
    mesh.run_until(ms(1_100), Mesh::all_complete);
    assert_eq!(mesh.nodes[0].sent_bytes.round(), 100.0 * MIB);
}

#[test]
fn several_providers_are_used_at_once() {
    let mut mesh = Mesh::new(5, 100.0 * MIB, layout(100), 1);
    mesh.nodes[4].link = 400.0 * MIB;
    for node in 1..4 {
        mesh.serve(node);
        mesh.nodes[node].completed = Some(mesh.now);
    }
    let providers: Vec<_> = (0..4).map(|node| (node, Nearness::Neighbour)).collect();
    mesh.pull(4, &providers);
    mesh.run_until(ms(400), Mesh::all_complete);
}

#[test]
fn the_origin_is_spared_where_neighbours_have_everything() {
    let mut mesh = Mesh::new(4, 100.0 * MIB, layout(50), 1);
    for node in 1..3 {
        mesh.serve(node);
        mesh.nodes[node].completed = Some(mesh.now);
    }
    let providers = [
        (0, Nearness::Origin),
        (1, Nearness::Neighbour),
        (2, Nearness::SameMachine),
    ];
    mesh.pull(3, &providers);
    mesh.run_until(ms(1_000), Mesh::all_complete);
    assert!(
        mesh.nodes[0].sent_bytes < 5.0 * MIB,
        "{}",
        mesh.nodes[0].sent_bytes / MIB
    );
}

#[test]
fn what_is_here_already_is_not_pulled_again() {
    let mut mesh = Mesh::new(2, 100.0 * MIB, layout(64), 1);
    let layout = mesh.layout.clone();
    let half = maelstrom_pull::Pieces::all(layout.pieces() / 2);
    mesh.with(1, |puller, now| {
        puller.pull(now, BUNDLE, layout, half, &[(0, Nearness::Origin)]);
    });
    mesh.run_until(ms(1_000), Mesh::all_complete);
    assert_eq!(mesh.nodes[0].sent_bytes.round(), 32.0 * MIB);
}

#[test]
fn a_lying_provider_is_asked_no_more() {
    let mut mesh = Mesh::new(4, 100.0 * MIB, layout(64), 1);
    for node in 1..3 {
        mesh.serve(node);
        mesh.nodes[node].completed = Some(mesh.now);
    }
    mesh.nodes[1].lies = true;
    let providers = [
        (0, Nearness::Origin),
        (1, Nearness::Neighbour),
        (2, Nearness::Neighbour),
    ];
    mesh.pull(3, &providers);
    mesh.run_until(ms(5_000), Mesh::all_complete);
    // What was on its way when the first lie was found out is stopped.
    assert_eq!(mesh.bad_fetches, [((3, 1), 1)].into());
}

#[test]
fn a_slow_provider_does_not_hold_the_others_up() {
    let mut mesh = Mesh::new(4, 100.0 * MIB, layout(64), 1);
    for node in 1..3 {
        mesh.serve(node);
        mesh.nodes[node].completed = Some(mesh.now);
    }
    mesh.nodes[1].link = 1_000.0;
    let providers = [(1, Nearness::Neighbour), (2, Nearness::Neighbour)];
    mesh.pull(3, &providers);
    mesh.run_until(ms(4_000), Mesh::all_complete);
}

#[test]
fn a_slow_provider_is_better_than_none() {
    let mut mesh = Mesh::new(2, 100_000.0, layout(2), 1);
    mesh.pull(1, &[(0, Nearness::Origin)]);
    mesh.run_until(ms(30_000), Mesh::all_complete);
    assert!(mesh.nodes[0].sent_bytes < 2.2 * MIB);
}

#[test]
fn whoever_pulls_serves() {
    // The second node knows the first only, and the third only the second.
    let mut mesh = Mesh::new(3, 10.0 * MIB, layout(64), 1);
    mesh.pull(1, &[(0, Nearness::Origin)]);
    mesh.pull(2, &[(1, Nearness::Neighbour)]);
    mesh.run_until(ms(9_000), Mesh::all_complete);
}

#[test]
fn without_any_provider_the_driver_is_told() {
    let mut mesh = Mesh::new(3, 100.0 * MIB, layout(16), 1);
    mesh.crash(2);
    mesh.pull(1, &[(2, Nearness::Origin)]);
    mesh.run_until(ms(60_000), |mesh| mesh.nodes[1].stuck == 1);
    mesh.with(1, |puller, now| {
        puller.add_provider(now, BUNDLE, 0, Nearness::Origin);
    });
    mesh.run_until(ms(5_000), Mesh::all_complete);
}

#[test]
fn a_flash_crowd_shares_the_load() {
    // Every node wants the layer at the same moment, over equal links, and knows the origin only.
    // Unoptimised, the whole crowd takes minutes.
    let crowd = if cfg!(debug_assertions) { 48 } else { 256 };
    let link = 64.0 * MIB;
    let copy = 2.0;
    let mut mesh = Mesh::new(crowd + 1, link, layout((link / MIB * copy) as u64), 1);
    for node in 1..=crowd {
        mesh.pull(node, &[(0, Nearness::Origin)]);
    }
    mesh.run_until(ms(60_000), Mesh::all_complete);
    let took = (mesh.now - mesh.start).as_secs_f64() / copy;
    let copies = mesh.nodes[0].sent_bytes / (link * copy);
    eprintln!(
        "{took:.2} copy times, {copies:.2} copies; messages {:?}",
        mesh.messages
    );
    assert!(
        took < 2.0,
        "{took:.2} times what one link needs for one copy"
    );
    assert!(copies < 2.0, "the origin sent {copies:.2} copies");
}

#[derive(Clone, Debug)]
enum Step {
    Pull { node: usize, from: usize },
    Crash { node: usize },
    Lie { node: usize },
    Slow { node: usize },
    Lost { at: usize, peer: usize },
    Wait { ms: u64 },
}

const NODES: usize = 8;

fn step() -> impl Strategy<Value = Step> {
    // The origin neither lies nor crashes.
    let node = || 1..NODES;
    prop_oneof![
        6 => (node(), 0..NODES).prop_map(|(node, from)| Step::Pull { node, from }),
        1 => node().prop_map(|node| Step::Crash { node }),
        1 => node().prop_map(|node| Step::Lie { node }),
        1 => node().prop_map(|node| Step::Slow { node }),
        1 => (0..NODES, 0..NODES).prop_map(|(at, peer)| Step::Lost { at, peer }),
        5 => (0..800_u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn everyone_gets_everything(
        steps in prop::collection::vec(step(), 1..40),
        loss in 0.0..0.3_f64,
        duplication in 0.0..0.3_f64,
        slowest in 1..60_u64,
        blobs in prop::collection::vec(0..4_000_000_u64, 0..12),
        seed in 0..u64::MAX / 2,
    ) {
        let layout = Layout::new(blobs).unwrap();
        let mut mesh = Mesh::new(NODES, 4.0 * MIB, layout, seed);
        mesh.loss = loss;
        mesh.duplication = duplication;
        mesh.delay_ms = 0..slowest + 1;
        for step in steps {
            match step {
                Step::Pull { node, from } => {
                    mesh.pull(node, &[(0, Nearness::Origin), (from, Nearness::Neighbour)]);
                }
                Step::Crash { node } => mesh.crash(node),
                Step::Lie { node } => mesh.nodes[node].lies = true,
                Step::Slow { node } => mesh.nodes[node].link = 50_000.0,
                Step::Lost { at, peer } => mesh.with(at, |puller, now| puller.peer_lost(now, peer)),
                Step::Wait { ms: time } => mesh.run_for(ms(time)),
            }
        }
        mesh.loss = 0.0;
        for node in 1..NODES {
            mesh.nodes[node].link = mesh.nodes[node].link.max(200_000.0);
            mesh.pull(node, &[(0, Nearness::Origin)]);
        }
        mesh.run_until(ms(600_000), Mesh::all_complete);
        for node in &mesh.nodes {
            if let Some(puller) = &node.puller {
                puller.check_invariants();
            }
        }
        for (&(_, from), &times) in &mesh.bad_fetches {
            prop_assert!(mesh.nodes[from].lies);
            prop_assert_eq!(times, 1, "a liar is asked no more");
        }
    }
}
