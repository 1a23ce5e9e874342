//! Everything goes wrong, for many seeds.

use std::{
    panic::catch_unwind,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::bail;
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

use super::{Options, Scenario};
use crate::{
    cluster::{Broken, Cluster, Fate, Sabotage, Sample, Setup, everything},
    kernel::Time,
    plot,
    report::Report,
    workload::Durations,
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "faults",
    about: "50 nodes run jobs while nodes die, sleep, slow down and leave, clocks run wrong, \
            messages get lost, late and repeated, and the network falls apart; all promises \
            are checked",
    run,
};

/// How long things go wrong.
const STORM: Duration = Duration::from_secs(40);

/// How long after the last fault everything must have come right.
const CALM: Duration = Duration::from_secs(130);

/// Draws a mesh, its jobs and its faults from a seed, and runs them.
///
/// # Errors
/// If a promise is broken.
pub fn run_seed(
    seed: u64,
    nodes: usize,
    jobs: usize,
    durations: &Durations,
    sabotage: Option<Sabotage>,
) -> Result<Cluster, Box<Broken>> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut setup = Setup::new(rng.random(), nodes, 1);
    for slots in &mut setup.slots {
        *slots = rng.random_range(1..=8);
    }
    setup.clock_skew = 0.02;
    setup.layers = (0..6)
        .map(|_| rng.random_range(100_000..200_000_000))
        .collect();
    setup.sabotage = sabotage;
    if rng.random_bool(0.3) {
        setup.lending = maelstrom_dispatch::Lending::Idle;
    }
    let slots = setup.slots.clone();
    let mut cluster = Cluster::new(setup);
    cluster.start_all(Duration::from_secs(3));

    let origins = rng.random_range(1..=4.min(nodes));
    let mut left = jobs;
    for (number, &own_slots) in slots.iter().enumerate().take(origins) {
        let share = if number + 1 == origins {
            left
        } else {
            rng.random_range(0..=left)
        };
        left -= share;
        let mut specs = durations.draw(share, 0.1, &mut rng);
        for spec in &mut specs {
            if rng.random_bool(0.3) {
                spec.layer = Some(rng.random_range(0..6));
            }
            // What no other node could run would have to wait for its own.
            if rng.random_bool(0.1) && own_slots >= 2 {
                spec.slots = 2;
            }
        }
        let at = Time::from_secs_f64(rng.random_range(3.0..20.0));
        let numbers = cluster.submit(at, number, specs);
        for job in numbers {
            if rng.random_bool(0.02) {
                let later = at + Duration::from_millis(rng.random_range(1..20_000));
                cluster.cancel(later, job);
            }
        }
    }
    let begin = Time::from_secs_f64(4.0);
    let end = begin + STORM;
    cluster.plan(everything(nodes, begin, end, &mut rng));
    cluster.run_until(end)?;
    // Usually it takes a fraction of the time that it may take.
    while !cluster.has_settled() && cluster.now() < end + CALM {
        cluster.run_until(cluster.now() + Duration::from_secs(1))?;
    }
    cluster.check_settled()?;
    // It has to stay settled, with one coordinator.
    cluster.run_until(cluster.now() + Duration::from_secs(30))?;
    cluster.check_settled()?;
    Ok(cluster)
}

/// What one seed came to.
struct Outcome {
    seed: u64,
    events: u64,
    cells: Vec<String>,
    samples: Vec<Sample>,
}

fn run(options: &Options) -> anyhow::Result<Report> {
    let nodes = options.nodes.unwrap_or(50);
    let jobs = options.jobs.unwrap_or(3_000);
    let durations = options.durations()?;
    let seeds = options.seeds.unwrap_or(1);
    let bar = options.bar(seeds, "seeds");
    let next = AtomicU64::new(options.seed);
    let outcomes = Mutex::new(Vec::new());
    let failures = Mutex::new(Vec::new());
    let work = || {
        while lock(&failures).is_empty() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= options.seed + seeds {
                break;
            }
            // A core panics where its own books don't balance.
            let ran = catch_unwind(|| run_seed(seed, nodes, jobs, &durations, None));
            match ran {
                Ok(Ok(cluster)) => lock(&outcomes).push(outcome(seed, &cluster)),
                Ok(Err(broken)) => lock(&failures).push((seed, broken.to_string())),
                Err(_) => {
                    let seen = "a core panicked, as said above (books_balance)".to_owned();
                    lock(&failures).push((seed, seen));
                }
            }
            bar.inc(1);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..options.threads.max(1) {
            scope.spawn(work);
        }
        work();
    });
    if let Some((seed, broken)) = lock(&failures).first() {
        bar.abandon();
        bail!(
            "seed {seed}: {broken}\nto see it again: {}",
            options.replay(SCENARIO.name, *seed)
        );
    }
    bar.finish();
    let mut outcomes = std::mem::take(&mut *lock(&outcomes));
    outcomes.sort_by_key(|outcome| outcome.seed);
    let mut report = Report::new(
        "Everything goes wrong",
        &[
            "seed",
            "events",
            "hash",
            "done",
            "given up",
            "cancelled",
            "orphaned",
            "last report",
        ],
    );
    const SHOWN: usize = 20;
    for outcome in outcomes.iter().take(SHOWN) {
        report.row(outcome.cells.clone());
    }
    if outcomes.len() > SHOWN {
        report.note(format!("({} more seeds)", outcomes.len() - SHOWN));
    }
    if let [outcome] = &outcomes[..] {
        report.plot(
            "faults",
            plot::samples("One run full of faults", &outcome.samples),
        );
    }
    let events: u64 = outcomes.iter().map(|outcome| outcome.events).sum();
    report.note(format!(
        "{seeds} seeds from {}, {nodes} nodes, {jobs} jobs each, {events} events: every promise \
         was kept.",
        options.seed
    ));
    Ok(report)
}

fn outcome(seed: u64, cluster: &Cluster) -> Outcome {
    let cells = vec![
        seed.to_string(),
        cluster.events().to_string(),
        format!("{:016x}", cluster.hash()),
        cluster.fates(Fate::Done).to_string(),
        cluster.fates(Fate::GivenUp).to_string(),
        cluster.fates(Fate::Cancelled).to_string(),
        cluster.fates(Fate::Orphaned).to_string(),
        format!("{:.1} s", cluster.totals().last_report.as_secs_f64()),
    ];
    Outcome {
        seed,
        events: cluster.events(),
        cells,
        samples: cluster.samples().to_vec(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_events() {
        let run = |seed| {
            let cluster = run_seed(seed, 12, 300, &Durations::TESTS, None)
                .unwrap_or_else(|broken| panic!("{broken}"));
            (cluster.hash(), cluster.events())
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}
