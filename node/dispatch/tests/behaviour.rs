//! What a mesh does, one rule at a time.

mod toy;

use maelstrom_dispatch::{Attempt, Failure, JobFailed, Lending, Rank, Requirements};
use std::{sync::Arc, time::Duration};
use toy::{Mesh, job, layer_at, ms, node};

fn all_done(mesh: &Mesh) -> bool {
    mesh.open().is_empty()
}

#[test]
fn a_node_alone_runs_its_jobs_longest_first() {
    let mut mesh = Mesh::new(&[1], 0).boot();
    for run in [10, 5, 30, 20] {
        mesh.submit(0, job(ms(run)));
    }
    mesh.run_until(ms(100), all_done);
    let order: Vec<u64> = mesh.starts.iter().map(|((_, _, id), _)| id.0).collect();
    assert_eq!(
        order,
        [0, 2, 3, 1],
        "the first starts at once, then the longest"
    );
    assert_eq!(mesh.now - mesh.start, ms(65));
    assert!(mesh.sent.is_empty());
}

#[test]
fn idle_peers_are_woken_and_share_the_work() {
    let mut mesh = Mesh::new(&[2, 2, 2, 2], 0).boot();
    for _ in 0..80 {
        mesh.submit(0, job(ms(100)));
    }
    mesh.run_until(ms(2_000), all_done);
    // Eight slots need ten rounds of 100 ms.
    assert!(
        mesh.now - mesh.start < ms(1_150),
        "took {:?}",
        mesh.now - mesh.start
    );
    assert_eq!(mesh.starts.len(), 80, "no job ran twice");
}

#[test]
fn short_jobs_keep_all_slots_busy_over_a_slow_network() {
    let mut mesh = Mesh::new(&[4, 4, 4, 4], 0);
    mesh.weather.delay_ms = 5..6;
    let mut mesh = mesh.boot();
    for _ in 0..1_600 {
        mesh.submit(0, job(ms(10)));
    }
    mesh.run_until(ms(5_000), all_done);
    // 1,600 jobs of 10 ms on 16 slots: one second.
    assert!(
        mesh.now - mesh.start < ms(1_100),
        "took {:?}",
        mesh.now - mesh.start
    );
}

#[test]
fn a_crashed_node_loses_no_job() {
    let mut mesh = Mesh::new(&[1, 4], 0).boot();
    for _ in 0..40 {
        mesh.submit(0, job(ms(200)));
    }
    mesh.run_for(ms(500));
    mesh.crash(1);
    mesh.run_until(ms(30_000), all_done);
    assert_eq!(mesh.completed.len(), 40);
    assert!(mesh.completed.values().all(Result::is_ok));
}

#[test]
fn a_node_that_starts_again_no_longer_holds_its_leases() {
    let mut mesh = Mesh::new(&[1, 4], 0).boot();
    mesh.detection = ms(60_000);
    for _ in 0..40 {
        mesh.submit(0, job(ms(100)));
    }
    mesh.run_for(ms(250));
    mesh.crash(1);
    mesh.run_for(ms(20));
    mesh.revive(1);
    let lease = mesh.config.lease_time;
    mesh.run_until(lease + ms(2_000), all_done);
    assert!(mesh.completed.values().all(Result::is_ok));
}

#[test]
fn a_job_that_loses_three_nodes_is_an_error_that_names_them() {
    let mut mesh = Mesh::new(&[0, 1, 1, 1, 1], 0).boot();
    mesh.detection = ms(100);
    let poison = mesh.submit(0, job(ms(1_000)));
    let mut lost = Vec::new();
    while !mesh.completed.contains_key(&poison) {
        let before = mesh.starts.len();
        mesh.run_until(ms(30_000), |mesh| {
            mesh.starts.len() > before || all_done(mesh)
        });
        if let Some(&(_, at)) = mesh.starts.get(before) {
            mesh.run_for(ms(50));
            mesh.crash(at);
            lost.push(at);
        }
    }
    let Err(error @ JobFailed::Attempts(attempts)) = &mesh.completed[&poison] else {
        panic!("{:?}", mesh.completed[&poison]);
    };
    let expected: Vec<Attempt> = lost
        .iter()
        .map(|&at| Attempt {
            node: node(at),
            failure: Failure::Lost,
        })
        .collect();
    assert_eq!(attempts, &expected);
    assert_eq!(attempts.len(), 3);
    for &at in &lost {
        assert!(error.to_string().contains(&node(at).to_string()), "{error}");
    }
}

#[test]
fn a_node_that_is_unable_is_avoided() {
    let mut mesh = Mesh::new(&[0, 1, 1], 0).boot();
    mesh.unable.insert(1);
    for _ in 0..10 {
        mesh.submit(0, job(ms(50)));
    }
    mesh.run_until(ms(20_000), all_done);
    assert!(
        mesh.completed.values().all(Result::is_ok),
        "{:?}",
        mesh.completed
    );
}

#[test]
fn a_node_alone_that_is_unable_says_so_at_once() {
    let mut mesh = Mesh::new(&[1], 0).boot();
    mesh.unable.insert(0);
    let key = mesh.submit(0, job(ms(50)));
    mesh.run_until(ms(51), all_done);
    let error = mesh.completed[&key].as_ref().unwrap_err().to_string();
    let expected = format!(
        "given up after 1 try: node {} could not run the job: broken",
        node(0)
    );
    assert_eq!(error, expected);
}

#[test]
fn a_cancelled_job_stops_wherever_it_is() {
    let mut mesh = Mesh::new(&[1, 2], 0).boot();
    let keys: Vec<_> = (0..8).map(|_| mesh.submit(0, job(ms(60_000)))).collect();
    mesh.run_for(ms(100));
    assert_eq!(mesh.starts.len(), 3);
    for (_, _, id) in keys {
        assert_eq!(
            mesh.with(0, |node, now, view| node.cancel(now, view, id)),
            Some(true)
        );
        assert_eq!(
            mesh.with(0, |node, now, view| node.cancel(now, view, id)),
            Some(false)
        );
    }
    assert_eq!(mesh.completed.len(), 8);
    assert!(
        mesh.completed
            .values()
            .all(|result| *result == Err(JobFailed::Cancelled))
    );
    mesh.run_for(ms(10));
    assert_eq!(mesh.slots_of(0, 0) + mesh.slots_of(1, 0), 0);
}

#[test]
fn a_lost_cancel_is_repeated() {
    let mut mesh = Mesh::new(&[0, 2], 0).boot();
    let (_, _, id) = mesh.submit(0, job(ms(60_000)));
    mesh.run_for(ms(100));
    assert_eq!(mesh.slots_of(1, 0), 1);
    mesh.cut.insert((0, 1));
    mesh.with(0, |node, now, view| node.cancel(now, view, id));
    mesh.cut.clear();
    let interval = mesh.config.holding_interval + ms(20);
    mesh.run_until(interval, |mesh| mesh.slots_of(1, 0) == 0);
}

#[test]
fn a_job_whose_origin_is_out_of_reach_ends_with_its_lease() {
    let mut mesh = Mesh::new(&[0, 2], 0).boot();
    let (_, _, id) = mesh.submit(0, job(ms(60_000)));
    mesh.run_for(ms(100));
    mesh.cut.insert((0, 1));
    mesh.with(0, |node, now, view| node.cancel(now, view, id));
    let lease = mesh.config.lease_time + ms(20);
    mesh.run_until(lease, |mesh| mesh.slots_of(1, 0) == 0);
}

#[test]
fn a_straggler_is_run_again_and_the_first_outcome_wins() {
    let mut mesh = Mesh::new(&[0, 1, 1], 0);
    mesh.nodes[1].slowness = 100;
    let mut mesh = mesh.boot();
    for _ in 0..8 {
        mesh.submit(0, job(ms(300)));
    }
    mesh.run_until(ms(20_000), all_done);
    assert!(
        mesh.now - mesh.start < ms(5_000),
        "took {:?}",
        mesh.now - mesh.start
    );
    mesh.run_for(ms(20));
    assert_eq!(mesh.slots_of(1, 0), 0, "the slow copy is cancelled");
    assert!(mesh.starts.len() > 8);
}

#[test]
fn unstarted_work_moves_to_idle_nodes() {
    // The estimates are wrong: what looks short isn't, and one node has taken much of it.
    let mut mesh = Mesh::new(&[0, 1, 1], 0).boot();
    for _ in 0..8 {
        let mut job = job(ms(1_000));
        job.rank.estimate = Some(ms(1));
        mesh.submit(0, job);
    }
    mesh.run_until(ms(20_000), all_done);
    assert!(
        mesh.now - mesh.start < ms(4_200),
        "took {:?}",
        mesh.now - mesh.start
    );
}

#[test]
fn unstarted_work_of_a_silent_node_moves_though_nobody_asks() {
    for seed in 0..10 {
        let mut mesh = Mesh::new(&[0, 1, 1], seed).boot();
        mesh.detection = ms(60_000);
        // Afterwards both nodes have asked in vain, and wait to be told.
        mesh.submit(0, job(ms(50)));
        mesh.run_until(ms(5_000), all_done);
        mesh.run_for(ms(1_000));
        mesh.submit(0, job(ms(100)));
        mesh.run_until(ms(5_000), |mesh| mesh.leased(0) > 0);
        // The origin does not hear that the job has started.
        mesh.cut.extend([(1, 0), (2, 0)]);
        mesh.run_for(ms(10));
        let silent = if mesh.slots_of(1, 0) > 0 { 1 } else { 2 };
        mesh.cut.remove(&(3 - silent, 0));
        let before = mesh.now;
        mesh.run_until(ms(20_000), all_done);
        assert!(
            mesh.now - before < ms(3_000),
            "seed {seed}: took {:?}",
            mesh.now - before
        );
    }
}

#[test]
fn what_others_run_is_told_from_what_runs_here() {
    let mut mesh = Mesh::new(&[2, 3], 0).boot();
    for _ in 0..5 {
        mesh.submit(0, job(ms(2_000)));
    }
    mesh.run_for(ms(500));
    assert_eq!((mesh.slots_of(0, 0), mesh.slots_of(1, 0)), (2, 3));
    let counts = mesh.with(0, |node, _, _| node.counts()).unwrap();
    assert_eq!((counts.slots_held, counts.slots_elsewhere), (5, 3));
}

#[test]
fn a_small_origin_is_not_starved() {
    let mut mesh = Mesh::new(&[2, 2, 2, 2, 2, 2], 3).boot();
    for _ in 0..3_000 {
        mesh.submit(0, job(ms(100)));
    }
    mesh.run_for(ms(1_000));
    let small: Vec<_> = (0..10).map(|_| mesh.submit(1, job(ms(100)))).collect();
    let start = mesh.now;
    mesh.run_until(ms(20_000), |mesh| {
        small.iter().all(|key| mesh.completed.contains_key(key))
    });
    // Alone it takes 100 ms; its fair share is six of twelve slots.
    assert!(mesh.now - start < ms(420), "took {:?}", mesh.now - start);
}

#[test]
fn two_large_origins_share_evenly() {
    let mut mesh = Mesh::new(&[0, 0, 4, 4, 1, 1], 5).boot();
    for index in 0..2_000 {
        mesh.submit(0, job(ms(30 + index * 7 % 40)));
    }
    mesh.run_for(ms(500));
    for index in 0..2_000 {
        mesh.submit(1, job(ms(30 + index * 7 % 40)));
    }
    mesh.run_for(ms(500));
    let before = mesh.starts.len();
    mesh.run_for(ms(2_000));
    let starts = &mesh.starts[before..];
    let first = starts
        .iter()
        .filter(|((origin, ..), _)| *origin == 0)
        .count();
    let part = first as f64 / starts.len() as f64;
    assert!(
        (0.4..0.6).contains(&part),
        "the first origin has {part} of the starts"
    );
}

#[test]
fn jobs_go_only_where_they_can_run() {
    let mut mesh = Mesh::new(&[2, 2, 4], 0);
    mesh.nodes[1].offer.architecture = "aarch64".into();
    mesh.nodes[2].offer.labels = vec!["gpu".into()];
    let mut mesh = mesh.boot();
    let with = |needs: Requirements| {
        let mut job = job(ms(20));
        job.needs = Arc::new(needs);
        job
    };
    let arm = Requirements {
        architecture: Some("aarch64".into()),
        ..Default::default()
    };
    let gpu = Requirements {
        labels: vec!["gpu".into()],
        ..Default::default()
    };
    let wide = Requirements {
        slots: 3,
        ..Default::default()
    };
    let local = Requirements {
        local: true,
        ..Default::default()
    };
    let cases = [(arm, 1), (gpu, 2), (wide, 2), (local, 0)];
    let mut expected = Vec::new();
    for (needs, place) in &cases {
        for _ in 0..10 {
            expected.push((mesh.submit(0, with(needs.clone())), *place));
        }
    }
    mesh.run_until(ms(5_000), all_done);
    for (key, place) in expected {
        assert!(
            mesh.starts.contains(&(key, place)),
            "{key:?} did not run on {place}"
        );
        assert!(mesh.completed[&key].is_ok());
    }
}

#[test]
fn a_job_that_nobody_can_run_waits_without_a_storm() {
    let mut mesh = Mesh::new(&[2, 2, 2], 0).boot();
    let mut impossible = job(ms(20));
    impossible.needs = Arc::new(Requirements {
        slots: 9,
        ..Default::default()
    });
    mesh.submit(0, impossible);
    mesh.run_for(ms(10_000));
    assert_eq!(mesh.completed.len(), 0);
    let sent: usize = mesh.sent.values().sum();
    assert!(sent < 200, "{:?}", mesh.sent);
}

#[test]
fn wide_jobs_are_not_starved_by_narrow_ones() {
    let mut mesh = Mesh::new(&[4], 0).boot();
    for _ in 0..100 {
        mesh.submit(0, job(ms(20)));
    }
    let mut wide = job(ms(20));
    wide.needs = Arc::new(Requirements {
        slots: 4,
        ..Default::default()
    });
    wide.rank = Rank {
        priority: 1,
        estimate: None,
    };
    let wide = mesh.submit(0, wide);
    mesh.run_until(ms(100), |mesh| mesh.completed.contains_key(&wide));
}

#[test]
fn jobs_prefer_nodes_that_hold_their_layers() {
    let mut mesh = Mesh::new(&[0, 1, 1], 0).boot();
    let mut jobs = Vec::new();
    for index in 0..40 {
        let mut job = job(ms(20));
        let holder = 1 + index % 2;
        job.layers = Arc::from([layer_at(holder, 50_000_000)]);
        jobs.push((mesh.submit(0, job), holder));
    }
    mesh.run_until(ms(5_000), all_done);
    let at_home = jobs
        .iter()
        .filter(|(key, holder)| mesh.starts.contains(&(*key, *holder)));
    assert!(at_home.count() >= 30);
}

#[test]
fn layers_that_take_longer_than_the_queue_are_not_pulled() {
    let mut mesh = Mesh::new(&[1, 1], 0).boot();
    for _ in 0..10 {
        let mut job = job(ms(20));
        job.layers = Arc::from([layer_at(0, 10_000_000_000)]);
        mesh.submit(0, job);
    }
    mesh.run_until(ms(1_000), all_done);
    assert!(mesh.starts.iter().all(|&(_, at)| at == 0));
}

#[test]
fn the_owners_return_hands_jobs_back() {
    let mut mesh = Mesh::new(&[0, 2], 0);
    mesh.nodes[1].lending = Lending::Idle;
    let mut mesh = mesh.boot();
    for _ in 0..6 {
        mesh.submit(0, job(ms(2_000)));
    }
    mesh.run_for(ms(500));
    assert_eq!(mesh.slots_of(1, 0), 2);
    mesh.with(1, |node, now, view| node.set_owner_active(now, view, true));
    mesh.run_for(ms(20));
    assert_eq!(mesh.slots_of(1, 0), 0);
    let counts = mesh.with(0, |node, _, _| node.counts()).unwrap();
    assert_eq!((counts.queued, counts.slots_held), (6, 0));
    mesh.run_for(ms(1_000));
    assert_eq!(mesh.slots_of(1, 0), 0);
    mesh.with(1, |node, now, view| node.set_owner_active(now, view, false));
    mesh.run_until(ms(20_000), all_done);
    assert!(mesh.completed.values().all(Result::is_ok));
}

#[test]
fn a_node_that_never_lends_runs_nothing_of_others() {
    let mut mesh = Mesh::new(&[1, 8], 0);
    mesh.nodes[1].lending = Lending::Never;
    let mut mesh = mesh.boot();
    for _ in 0..10 {
        mesh.submit(0, job(ms(20)));
    }
    mesh.run_until(ms(1_000), all_done);
    assert!(mesh.starts.iter().all(|&(_, at)| at == 0));
}

#[test]
fn own_jobs_go_before_lent_ones_where_lending_is_for_idle_times() {
    let mut mesh = Mesh::new(&[0, 2], 0);
    mesh.nodes[1].lending = Lending::Idle;
    let mut mesh = mesh.boot();
    for _ in 0..50 {
        mesh.submit(0, job(ms(100)));
    }
    mesh.run_for(ms(150));
    let own: Vec<_> = (0..4).map(|_| mesh.submit(1, job(ms(100)))).collect();
    mesh.run_until(Duration::from_millis(350), |mesh| {
        own.iter().all(|key| mesh.completed.contains_key(key))
    });
    mesh.run_until(ms(20_000), all_done);
}
