//! Everything goes wrong, for many seeds.

use std::time::Duration;

use anyhow::bail;
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

use super::{Options, Scenario};
use crate::{
    cluster::{Broken, Cluster, Fate, Sabotage, Setup, everything},
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
    for number in 0..origins {
        let share = if number + 1 == origins {
            left
        } else {
            rng.random_range(0..=left)
        };
        left -= share;
        let mut specs = durations.draw(share, &mut rng);
        for spec in &mut specs {
            if rng.random_bool(0.3) {
                spec.layer = Some(rng.random_range(0..6));
            }
            // What no other node could run would have to wait for its own.
            if rng.random_bool(0.1) && slots[number] >= 2 {
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
    cluster.run_until(end + CALM)?;
    cluster.check_settled()?;
    Ok(cluster)
}

fn run(options: &Options) -> anyhow::Result<Report> {
    let nodes = options.nodes.unwrap_or(50);
    let jobs = options.jobs.unwrap_or(3_000);
    let durations = match &options.durations {
        Some(path) => Durations::read(path)?,
        None => Durations::TESTS,
    };
    let seeds = options.seeds.unwrap_or(1);
    let bar = options.bar(seeds, "seeds");
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
    let mut events = 0;
    for seed in options.seed..options.seed + seeds {
        let cluster = match run_seed(seed, nodes, jobs, &durations, None) {
            Ok(cluster) => cluster,
            Err(broken) => {
                bar.abandon();
                bail!(
                    "seed {seed}: {broken}\nto see it again: {}",
                    options.replay(SCENARIO.name, seed)
                );
            }
        };
        events += cluster.events();
        if seeds <= 20 {
            report.row([
                seed.to_string(),
                cluster.events().to_string(),
                format!("{:016x}", cluster.hash()),
                cluster.fates(Fate::Done).to_string(),
                cluster.fates(Fate::GivenUp).to_string(),
                cluster.fates(Fate::Cancelled).to_string(),
                cluster.fates(Fate::Orphaned).to_string(),
                format!("{:.1} s", cluster.totals().last_report.as_secs_f64()),
            ]);
            if seeds == 1 {
                report.plot(
                    "faults",
                    plot::samples("One run full of faults", cluster.samples()),
                );
            }
        }
        bar.inc(1);
    }
    bar.finish();
    report.note(format!(
        "{seeds} seeds from {}, {nodes} nodes, {jobs} jobs each, {events} events: every promise \
         was kept",
        options.seed
    ));
    Ok(report)
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
