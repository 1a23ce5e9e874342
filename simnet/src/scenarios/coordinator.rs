//! The coordinator is killed again and again.

use std::time::Duration;

use anyhow::{bail, ensure};
use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};

use super::{Options, Scenario};
use crate::{
    cluster::{Cluster, Fate, Fault, Setup},
    kernel::Time,
    plot,
    report::Report,
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "coordinator",
    about: "the coordinator is killed 100 times while jobs run; each time a new one is there \
            within three leases, and no job is lost or reported twice",
    run,
};

const KILLS: usize = 100;

fn run(options: &Options) -> anyhow::Result<Report> {
    let nodes = options.nodes.unwrap_or(20);
    let jobs = options.jobs.unwrap_or(300_000);
    let durations = options.durations()?;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(options.seed);
    let mut setup = Setup::new(options.seed, nodes, 4);
    setup.clock_skew = 0.02;
    let lease = setup.election.lease;
    let mut cluster = Cluster::new(setup);
    cluster.start_all(Duration::from_secs(1));
    let bar = options.bar(KILLS as u64, "coordinators killed");
    let replay = || options.replay(SCENARIO.name, options.seed);
    let broken = |broken| anyhow::anyhow!("{broken}\nto see it again: {}", replay());

    // Every node submits, all through the run; those of a node that dies die with it.
    let share = jobs / nodes / KILLS.max(1);
    let mut waits = Vec::new();
    let mut until = Time::from_secs_f64(5.0);
    cluster.run_until(until).map_err(broken)?;
    for kill in 0..=KILLS {
        let killed_at = cluster.now();
        for origin in 0..nodes {
            let specs = durations.draw(share, options.unknown, &mut rng);
            cluster.submit(until, origin, specs);
        }
        while cluster.coordinators().is_empty() {
            until = until + Duration::from_millis(10);
            cluster.run_until(until).map_err(broken)?;
            if kill > 0 && until.since(killed_at) > 3 * lease {
                bail!(
                    "no coordinator {:?} after kill {kill}; {}",
                    until.since(killed_at),
                    replay()
                );
            }
        }
        if kill > 0 {
            waits.push(until.since(killed_at).as_secs_f64() / lease.as_secs_f64());
        }
        until = until + Duration::from_secs(2);
        cluster.run_until(until).map_err(broken)?;
        if kill < KILLS {
            cluster.plan(vec![(
                until,
                Fault::KillCoordinator(Duration::from_secs(8)),
            )]);
            cluster.run_until(until).map_err(broken)?;
            bar.inc(1);
        }
    }
    until = until + Duration::from_secs(90);
    cluster.run_until(until).map_err(broken)?;
    cluster.check_settled().map_err(broken)?;
    bar.finish();
    ensure!(
        cluster.fates(Fate::Open) == 0,
        "all jobs of live origins have ended"
    );

    waits.sort_by(f64::total_cmp);
    let mut report = Report::new(
        "The coordinator is killed 100 times",
        &[
            "nodes",
            "kills",
            "median wait",
            "99th of 100",
            "longest wait",
            "bound",
        ],
    );
    report.row([
        nodes.to_string(),
        waits.len().to_string(),
        format!("{:.2} leases", waits[waits.len() / 2]),
        format!("{:.2} leases", waits[waits.len() * 98 / 100]),
        format!("{:.2} leases", waits[waits.len() - 1]),
        "3 leases".to_owned(),
    ]);
    report.note(format!(
        "{} jobs done, {} died with their origin, {} given up, none lost, none reported twice; \
         a lease is {lease:?}; {} elections",
        cluster.fates(Fate::Done),
        cluster.fates(Fate::Orphaned),
        cluster.fates(Fate::GivenUp),
        cluster.totals().elections,
    ));
    report.plot(
        "coordinator",
        plot::samples("The coordinator is killed", cluster.samples()),
    );
    Ok(report)
}
