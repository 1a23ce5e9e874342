//! A client with a few jobs beside one with many.

use std::time::Duration;

use anyhow::ensure;
use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};

use super::{Options, Scenario};
use crate::{
    cluster::{Cluster, Setup},
    kernel::Time,
    plot,
    report::Report,
    workload::JobSpec,
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "fairness",
    about: "an origin with 10 jobs comes while another has 10,000: how much longer it takes \
            than alone",
    run,
};

/// How long after the many jobs the few come.
const LATER: [Duration; 2] = [Duration::ZERO, Duration::from_secs(1)];

fn run(options: &Options) -> anyhow::Result<Report> {
    let nodes = options.nodes.unwrap_or(50);
    let many = options.jobs.unwrap_or(10_000);
    let durations = options.durations()?;
    let seeds = options.seeds.unwrap_or(10);
    let mut report = Report::new(
        "10 jobs beside 10,000",
        &[
            "seed",
            "alone",
            "at once",
            "ratio",
            "a second later",
            "ratio",
            "bound",
            "many take",
        ],
    );
    let bar = options.bar(seeds, "seeds");
    let mut worst = [0.0f64; 2];
    for seed in options.seed..options.seed + seeds {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let few = durations.draw(10, options.unknown, &mut rng);
        let crowd = durations.draw(many, options.unknown, &mut rng);
        let mesh = |crowd: &[JobSpec], later| finish(options, seed, nodes, &few, crowd, later);
        let (alone, _) = mesh(&[], Duration::ZERO)?;
        let mut cells = vec![seed.to_string(), format!("{alone:.3} s")];
        let mut many_take = 0.0;
        for (later, worst) in LATER.into_iter().zip(&mut worst) {
            let (beside, cluster) = mesh(&crowd, later)?;
            cells.push(format!("{beside:.3} s"));
            cells.push(format!("{:.2}", beside / alone));
            *worst = worst.max(beside / alone);
            many_take = cluster.totals().last_report.since(BEGIN).as_secs_f64();
            if seed == options.seed && later > Duration::ZERO {
                report.plot(
                    "fairness",
                    plot::samples("10 jobs beside 10,000", cluster.samples()),
                );
            }
        }
        cells.push("2".to_owned());
        cells.push(format!("{many_take:.1} s"));
        report.row(cells);
        bar.inc(1);
    }
    bar.finish_and_clear();
    report.note(format!(
        "{nodes} nodes of 4 slots. The worst ratio is {:.2} where both come at once, and {:.2} \
         where the few come a second later, when all slots run the longest of the many.",
        worst[0], worst[1]
    ));
    Ok(report)
}

/// When the many jobs come.
const BEGIN: Time = Time(5_000_000_000);

/// How long the few jobs take, and the mesh when all jobs are done.
fn finish(
    options: &Options,
    seed: u64,
    nodes: usize,
    few: &[JobSpec],
    crowd: &[JobSpec],
    later: Duration,
) -> anyhow::Result<(f64, Cluster)> {
    let broken = |broken| {
        anyhow::anyhow!(
            "{broken}\nto see it again: {}",
            options.replay(SCENARIO.name, seed)
        )
    };
    let mut cluster = Cluster::new(Setup::new(seed, nodes, 4));
    cluster.start_acquainted(nodes);
    cluster.submit(BEGIN, 0, crowd.iter().copied());
    let come = BEGIN + later;
    cluster.submit(come, 1, few.iter().copied());
    cluster.run_until(come).map_err(broken)?;
    let mut few_done = None;
    while few_done.is_none() || cluster.open_jobs() > 0 {
        let until = cluster.now() + Duration::from_millis(1);
        cluster.run_until(until).map_err(broken)?;
        if few_done.is_none() && cluster.open_of(1) == 0 {
            few_done = Some(cluster.now().since(come).as_secs_f64());
        }
        ensure!(
            until < Time::from_secs_f64(3_600.0),
            "the jobs end within an hour"
        );
    }
    Ok((few_done.unwrap_or(f64::INFINITY), cluster))
}
