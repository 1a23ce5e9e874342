//! Memberships among themselves: joining, leaving, failing, and what they know of each other.

mod common;

use std::time::Duration;

use common::{Mesh, id};
use maelstrom_gossip::{Claim, Event, Load, Profile};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_newcomer_gets_the_whole_roster_and_everybody_gets_to_know_it() {
    let mut mesh = Mesh::of(150, 1);
    let began = mesh.now;
    mesh.start(150, 1);
    mesh.join(150, 17);
    assert!(mesh.run_until(5 * SECOND, |mesh| mesh.known_by(150) == 150));
    assert!(mesh.run_until(
        5 * SECOND,
        |mesh| mesh.nodes[150].as_ref().unwrap().view().len() == 150
    ));
    assert!(mesh.now - began < 5 * SECOND, "{:?}", mesh.now - began);
    assert!(mesh.events[150].contains(&Event::RosterComplete));
    assert!(mesh.run_until(30 * SECOND, Mesh::agree));
}

#[test]
fn joining_goes_on_until_somebody_answers() {
    let mut mesh = Mesh::new(2);
    mesh.start(0, 1);
    mesh.start(1, 1);
    mesh.kill(0);
    mesh.join(1, 0);
    mesh.run_for(20 * SECOND);
    assert!(mesh.node(1).is_joining());
    mesh.start(0, 2);
    assert!(mesh.run_until(10 * SECOND, Mesh::agree));
}

#[test]
fn a_crash_is_found_out_and_a_leave_is_told() {
    let mut mesh = Mesh::of(40, 3);
    mesh.kill(7);
    assert!(mesh.run_until(10 * SECOND, |mesh| mesh.known_by(7) == 0));
    let began = mesh.now;
    mesh.with(8, |node, now| node.leave(now));
    assert!(mesh.run_until(5 * SECOND, |mesh| mesh.known_by(8) == 0));
    assert!(mesh.now - began < 3 * SECOND, "{:?}", mesh.now - began);
    assert!(mesh.events[0].contains(&Event::Down(id(7))));
    assert!(mesh.events[0].contains(&Event::Down(id(8))));
}

#[test]
fn a_node_that_starts_again_is_welcome_even_with_its_clock_set_back() {
    let mut mesh = Mesh::new(4);
    mesh.start(0, 1_000);
    for number in 1..12 {
        mesh.start(number, 1_000);
        mesh.join(number, 0);
        mesh.run_for(SECOND / 10);
    }
    assert!(mesh.run_until(30 * SECOND, Mesh::agree));
    for (generation, wait) in [(2_000, 0), (10, 0), (20, 30), (2_500, 30)] {
        mesh.kill(5);
        mesh.run_for(wait * SECOND);
        mesh.start(5, generation);
        let profile = Profile {
            version: format!("0.{generation}.0").into(),
            ..Profile::new(id(5), 4)
        };
        mesh.with(5, |node, now| node.set_profile(now, profile.clone()))
            .unwrap();
        mesh.join(5, 3);
        let told = mesh.run_until(60 * SECOND, |mesh| {
            mesh.agree()
                && mesh.nodes[0]
                    .as_ref()
                    .unwrap()
                    .view()
                    .get(&id(5))
                    .unwrap()
                    .profile
                    == &profile
        });
        assert!(told, "after starting with generation {generation}");
    }
}

#[test]
fn adverts_reach_everybody_and_the_newest_wins() {
    let mut mesh = Mesh::of(60, 5);
    for queued in [3, 9, 27] {
        let load = Load {
            slots_free: 1,
            jobs_queued: queued,
        };
        mesh.with(11, |node, now| node.set_load(now, load));
        mesh.run_for(SECOND / 100);
    }
    let newest = |mesh: &Mesh| {
        let others = mesh
            .nodes
            .iter()
            .flatten()
            .filter(|node| node.node() != id(11));
        others
            .filter_map(|node| node.view().get(&id(11)))
            .all(|member| member.load.jobs_queued == 27)
    };
    assert!(mesh.run_until(5 * SECOND, newest));

    let profile = Profile {
        labels: vec!["gpu".into()],
        ..Profile::new(id(11), 4)
    };
    mesh.with(11, |node, now| node.set_profile(now, profile))
        .unwrap();
    let told = |mesh: &Mesh| {
        let others = mesh
            .nodes
            .iter()
            .flatten()
            .filter(|node| node.node() != id(11));
        others
            .filter_map(|node| node.view().get(&id(11)))
            .all(|member| member.profile.labels.len() == 1)
    };
    assert!(mesh.run_until(5 * SECOND, told));
}

#[test]
fn a_profile_that_fits_no_packet_is_refused() {
    let mut mesh = Mesh::of(2, 6);
    let profile = Profile {
        labels: vec!["x".repeat(64).into(); 16],
        ..Profile::new(id(0), 4)
    };
    let error = mesh.with(0, |node, now| node.set_profile(now, profile));
    assert!(error.unwrap_err().to_string().contains("fit into a packet"));
    let error = mesh.with(0, |node, now| node.set_profile(now, Profile::new(id(1), 4)));
    assert!(error.unwrap_err().to_string().contains("and this is node"));
}

#[test]
fn the_largest_profile_reaches_everybody() {
    let mut mesh = Mesh::of(20, 7);
    let label = |length: usize, number: usize| format!("{number:0length$}").into();
    let mut profile = Profile::new(id(3), 4);
    profile.labels = (0..14).map(|number| label(64, number)).collect();
    let largest = (0..96)
        .take_while(|length| {
            profile.addresses = vec![label(*length, 0)];
            mesh.with(3, |node, now| node.set_profile(now, profile.clone()))
                .is_ok()
        })
        .count();
    assert!((32..96).contains(&largest), "{largest}");
    let told = mesh.run_until(5 * SECOND, |mesh| {
        let others = mesh
            .nodes
            .iter()
            .flatten()
            .filter(|node| node.node() != id(3));
        others
            .filter_map(|node| node.view().get(&id(3)))
            .all(|member| member.profile.labels.len() == 14)
    });
    assert!(told);
}

#[test]
fn halves_that_were_apart_find_together() {
    let mut mesh = Mesh::of(30, 8);
    for number in 0..15 {
        mesh.groups[number] = 1;
    }
    assert!(mesh.run_until(60 * SECOND, |mesh| {
        mesh.nodes
            .iter()
            .flatten()
            .all(|node| node.view().len() == 14)
    }));
    mesh.groups.fill(0);
    let began = mesh.now;
    assert!(mesh.run_until(60 * SECOND, Mesh::agree));
    assert!(mesh.now - began < 45 * SECOND, "{:?}", mesh.now - began);
}

#[test]
fn two_nodes_that_were_apart_find_together() {
    let mut mesh = Mesh::of(2, 9);
    mesh.groups[0] = 1;
    mesh.run_for(60 * SECOND);
    assert!(
        mesh.nodes
            .iter()
            .flatten()
            .all(|node| node.view().is_empty())
    );
    mesh.groups[0] = 0;
    assert!(mesh.run_until(60 * SECOND, Mesh::agree));
}

#[test]
fn what_broadcasts_miss_is_found_by_comparing() {
    let mut mesh = Mesh::of(40, 10);
    mesh.loss = 0.7;
    for number in 0..40 {
        let load = Load {
            slots_free: number as u16,
            jobs_queued: 1,
        };
        mesh.with(number, |node, now| node.set_load(now, load));
    }
    mesh.run_for(10 * SECOND);
    mesh.loss = 0.0;
    assert!(mesh.run_until(120 * SECOND, Mesh::agree));
}

#[test]
fn a_mesh_that_starts_in_a_storm_becomes_one() {
    for seed in 0..10 {
        let mut mesh = Mesh::new(seed);
        mesh.loss = 0.75;
        for number in 0..30 {
            mesh.start(number, 1);
            if number > 0 {
                mesh.join(number, number / 2);
            }
        }
        mesh.run_for(10 * SECOND);
        mesh.loss = 0.0;
        assert!(mesh.run_until(90 * SECOND, Mesh::agree), "seed {seed}");
    }
}

#[test]
fn nobody_is_taken_for_dead_at_some_loss() {
    let mut mesh = Mesh::of(50, 11);
    mesh.events.iter_mut().for_each(Vec::clear);
    mesh.loss = 0.02;
    mesh.run_for(300 * SECOND);
    let down: Vec<&Event> = mesh
        .events
        .iter()
        .flatten()
        .filter(|event| matches!(event, Event::Down(_)))
        .collect();
    assert!(down.is_empty(), "{down:?}");
}

#[test]
fn who_slept_blames_nobody_and_comes_back() {
    let mut mesh = Mesh::of(20, 12);
    mesh.loss = 0.2;
    mesh.run_for(20 * SECOND);
    mesh.asleep.insert(4);
    mesh.run_for(40 * SECOND);
    assert_eq!(mesh.known_by(4), 0);
    mesh.loss = 0.0;
    mesh.run_for(5 * SECOND);
    mesh.events.iter_mut().for_each(Vec::clear);
    mesh.asleep.clear();
    assert!(mesh.run_until(60 * SECOND, Mesh::agree));
    assert!(mesh.events[4].contains(&Event::Rejoined));
    let blamed: Vec<(usize, &Event)> = mesh
        .events
        .iter()
        .enumerate()
        .flat_map(|(number, events)| events.iter().map(move |event| (number, event)))
        .filter(|(_, event)| matches!(event, Event::Down(node) if *node != id(4)))
        .collect();
    assert!(blamed.is_empty(), "{blamed:?}");
}

#[test]
fn claims_spread_and_the_highest_term_stays() {
    let mut mesh = Mesh::of(30, 13);
    let claim = |term, number| Claim {
        term,
        coordinator: id(number),
    };
    mesh.with(3, |node, now| node.set_claim(now, claim(2, 3)));
    mesh.with(9, |node, now| node.set_claim(now, claim(3, 9)));
    mesh.with(4, |node, now| node.set_claim(now, claim(1, 4)));
    assert!(mesh.run_until(20 * SECOND, |mesh| {
        mesh.nodes
            .iter()
            .flatten()
            .all(|node| node.claim() == Some(claim(3, 9)))
    }));
}

#[test]
fn the_dead_are_forgotten() {
    let mut mesh = Mesh::new(14);
    mesh.config.forget_down_after = 100 * SECOND;
    for number in 0..10 {
        mesh.start(number, 1);
        if number > 0 {
            mesh.join(number, 0);
        }
    }
    assert!(mesh.run_until(30 * SECOND, Mesh::agree));
    mesh.kill(9);
    mesh.run_for(240 * SECOND);
    mesh.bytes_sent = 0;
    mesh.run_for(60 * SECOND);
    mesh.start(9, 1);
    mesh.join(9, 0);
    assert!(
        mesh.run_until(3 * SECOND, Mesh::agree),
        "the same generation is welcome again"
    );
}

#[test]
fn little_is_sent_at_rest() {
    let mut mesh = Mesh::of(50, 15);
    mesh.run_for(30 * SECOND);
    mesh.bytes_sent = 0;
    mesh.run_for(60 * SECOND);
    let per_node = mesh.bytes_sent / 50 / 60;
    assert!(per_node < 256, "{per_node} bytes a second and node");
}

#[test]
fn loads_that_change_all_the_time_stay_within_their_share() {
    let mut mesh = Mesh::of(100, 16);
    mesh.run_for(10 * SECOND);
    mesh.bytes_sent = 0;
    for round in 0..600u32 {
        for number in 0..100 {
            let load = Load {
                slots_free: (round % 4) as u16,
                jobs_queued: 0,
            };
            mesh.with(number, |node, now| node.set_load(now, load));
        }
        mesh.run_for(SECOND / 20);
    }
    let per_node = mesh.bytes_sent / 100 / 30;
    assert!(per_node < 16 * 1_024, "{per_node} bytes a second and node");
    assert!(per_node > 1_024, "{per_node} bytes a second and node");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut mesh = Mesh::of(25, 17);
        mesh.loss = 0.1;
        mesh.kill(3);
        mesh.run_for(30 * SECOND);
        (mesh.bytes_sent, mesh.events)
    };
    assert_eq!(run(), run());
}
