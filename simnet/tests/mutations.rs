//! Each check fires on a core that is broken on purpose: a check that never fails shows nothing.

use std::time::Duration;

use simnet::{
    cluster::{Cluster, Fault, Invariant, Sabotage, Setup, gossip_id},
    kernel::Time,
    scenarios::faults::run_seed,
    workload::{Durations, JobSpec},
};

/// The invariants that break over some seeds of the fault scenario.
fn breaks(sabotage: Sabotage) -> Vec<Invariant> {
    (1..=6)
        .filter_map(|seed| run_seed(seed, 16, 600, &Durations::TESTS, Some(sabotage)).err())
        .map(|broken| {
            assert!(!broken.last.is_empty(), "the last events are kept");
            broken.invariant
        })
        .collect()
}

fn always(sabotage: Sabotage, invariant: Invariant) {
    let broken = breaks(sabotage);
    assert_eq!(broken, vec![invariant; 6], "{sabotage:?}");
}

#[test]
fn nothing_breaks_in_sound_cores() {
    for seed in 1..=6 {
        if let Err(broken) = run_seed(seed, 16, 600, &Durations::TESTS, None) {
            panic!("seed {seed}: {broken}");
        }
    }
}

#[test]
fn lost_jobs_are_noticed() {
    always(Sabotage::LoseJobs, Invariant::NoJobLost);
}

#[test]
fn double_reports_are_noticed() {
    always(Sabotage::ReportTwice, Invariant::ReportedOnce);
}

#[test]
fn mixed_up_outcomes_are_noticed() {
    always(Sabotage::MixOutcomes, Invariant::ReportedOnce);
}

#[test]
fn jobs_that_never_end_are_noticed() {
    let broken = breaks(Sabotage::KeepOutcomes);
    assert!(broken.contains(&Invariant::EveryJobEnds), "{broken:?}");
}

#[test]
fn too_many_jobs_on_a_node_are_noticed() {
    always(Sabotage::ExtraSlot, Invariant::WithinSlots);
}

fn long_jobs(count: usize, seconds: u64) -> Vec<JobSpec> {
    let duration = Duration::from_secs(seconds);
    let spec = JobSpec {
        duration,
        estimate: Some(duration),
        slots: 1,
        layer: None,
    };
    vec![spec; count]
}

#[test]
fn cancelled_jobs_that_go_on_are_noticed() {
    for sabotage in [None, Some(Sabotage::IgnoreKills)] {
        let mut setup = Setup::new(1, 4, 2);
        setup.sabotage = sabotage;
        let mut cluster = Cluster::new(setup);
        cluster.start_all(Duration::from_millis(100));
        let jobs = cluster.submit(Time::from_secs_f64(5.0), 0, long_jobs(8, 100));
        cluster.cancel(Time::from_secs_f64(10.0), jobs.start);
        let result = cluster.run_until(Time::from_secs_f64(40.0));
        let broken = result.err().map(|broken| broken.invariant);
        let expected = sabotage.map(|_| Invariant::CancelledStops);
        assert_eq!(broken, expected, "{sabotage:?}");
    }
}

#[test]
fn unfair_shares_are_noticed() {
    for sabotage in [None, Some(Sabotage::StarveOne)] {
        let mut setup = Setup::new(1, 8, 1);
        setup.sabotage = sabotage;
        // The starved node has no slot of its own to run its jobs on.
        setup.slots[1] = 1;
        let mut cluster = Cluster::new(setup);
        cluster.start_all(Duration::from_millis(100));
        for origin in 0..2 {
            cluster.submit(Time::from_secs_f64(5.0), origin, long_jobs(400, 1));
        }
        let result = cluster.run_until(Time::from_secs_f64(60.0));
        let broken = result.err().map(|broken| broken.invariant);
        let expected = sabotage.map(|_| Invariant::FairShares);
        assert_eq!(broken, expected, "{sabotage:?}");
    }
}

#[test]
fn two_coordinators_are_noticed() {
    for sabotage in [None, Some(Sabotage::GrantAll)] {
        let mut setup = Setup::new(1, 8, 1);
        setup.sabotage = sabotage;
        setup.jobs = false;
        let mut cluster = Cluster::new(setup);
        cluster.start_all(Duration::from_millis(100));
        let result = cluster.run_until(Time::from_secs_f64(60.0));
        let broken = result.err().map(|broken| broken.invariant);
        let expected = sabotage.map(|_| Invariant::OneCoordinator);
        assert_eq!(broken, expected, "{sabotage:?}");
    }
}

#[test]
fn terms_that_go_back_are_noticed() {
    for sabotage in [None, Some(Sabotage::ForgetTerms)] {
        let mut setup = Setup::new(1, 3, 1);
        setup.sabotage = sabotage;
        setup.jobs = false;
        let mut cluster = Cluster::new(setup);
        cluster.start_all(Duration::from_millis(100));
        for round in 1..6 {
            let at = Time::from_secs_f64(20.0 * f64::from(round));
            let kills = (0..3).map(|node| (at, Fault::Kill(node)));
            let starts = (0..3).map(|node| (at + Duration::from_secs(1), Fault::Start(node)));
            cluster.plan(kills.chain(starts).collect());
        }
        let result = cluster.run_until(Time::from_secs_f64(130.0));
        let broken = result.err().map(|broken| broken.invariant);
        let expected = sabotage.map(|_| Invariant::TermsGrow);
        assert_eq!(broken, expected, "{sabotage:?}");
    }
}

#[test]
fn views_that_stay_apart_are_noticed() {
    for sabotage in [None, Some(Sabotage::NeverCompare)] {
        let mut setup = Setup::new(1, 30, 1);
        setup.sabotage = sabotage;
        setup.jobs = false;
        let mut cluster = Cluster::new(setup);
        cluster.start_all(Duration::from_millis(100));
        let weather = |loss| Fault::Weather {
            loss,
            late: 0.0,
            twice: 0.0,
        };
        cluster.plan(vec![
            (Time::from_secs_f64(0.05), weather(0.75)),
            (Time::from_secs_f64(10.0), weather(0.0)),
        ]);
        cluster
            .run_until(Time::from_secs_f64(130.0))
            .unwrap_or_else(|broken| panic!("{broken}"));
        let broken = cluster.check_settled().err().map(|broken| broken.invariant);
        let expected = sabotage.map(|_| Invariant::ViewsConverge);
        assert_eq!(broken, expected, "{sabotage:?}");
        assert!(
            cluster
                .membership(0)
                .is_some_and(|m| m.node() == gossip_id(0))
        );
    }
}
