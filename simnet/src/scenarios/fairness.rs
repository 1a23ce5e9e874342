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

fn run(options: &Options) -> anyhow::Result<Report> {
    let nodes = options.nodes.unwrap_or(50);
    let many = options.jobs.unwrap_or(10_000);
    let durations = options.durations()?;
    let seeds = options.seeds.unwrap_or(10);
    let mut report = Report::new(
        "10 jobs beside 10,000",
        &["seed", "alone", "beside", "ratio", "bound", "many take"],
    );
    let bar = options.bar(seeds, "seeds");
    let mut worst: f64 = 0.0;
    for seed in options.seed..options.seed + seeds {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let few = durations.draw(10, options.unknown, &mut rng);
        let crowd = durations.draw(many, options.unknown, &mut rng);
        let (alone, _) = finish(options, seed, nodes, &few, &[])?;
        let (beside, cluster) = finish(options, seed, nodes, &few, &crowd)?;
        let ratio = beside / alone;
        worst = worst.max(ratio);
        report.row([
            seed.to_string(),
            format!("{alone:.3} s"),
            format!("{beside:.3} s"),
            format!("{ratio:.2}"),
            "2".to_owned(),
            format!("{:.1} s", cluster.totals().last_report.as_secs_f64() - 5.0),
        ]);
        if seed == options.seed {
            report.plot(
                "fairness",
                plot::samples("10 jobs beside 10,000", cluster.samples()),
            );
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    report.note(format!(
        "{nodes} nodes of 4 slots; the ten jobs come a second after the {many}. The worst ratio \
         is {worst:.2}."
    ));
    Ok(report)
}

/// How long the few jobs take, and the mesh when all jobs are done.
fn finish(
    options: &Options,
    seed: u64,
    nodes: usize,
    few: &[JobSpec],
    crowd: &[JobSpec],
) -> anyhow::Result<(f64, Cluster)> {
    let broken = |broken| {
        anyhow::anyhow!(
            "{broken}\nto see it again: {}",
            options.replay(SCENARIO.name, seed)
        )
    };
    let mut cluster = Cluster::new(Setup::new(seed, nodes, 4));
    cluster.start_acquainted(nodes);
    cluster.submit(Time::from_secs_f64(5.0), 0, crowd.iter().copied());
    let come = Time::from_secs_f64(6.0);
    cluster.run_until(come).map_err(broken)?;
    cluster.submit(come, 1, few.iter().copied());
    let mut until = come;
    let mut few_done = None;
    while few_done.is_none() || cluster.open_jobs() > 0 {
        until = until + Duration::from_millis(1);
        cluster.run_until(until).map_err(broken)?;
        if few_done.is_none() && cluster.open_of(1) == 0 && until > come + Duration::from_millis(1)
        {
            few_done = Some(until.since(come).as_secs_f64());
        }
        ensure!(
            until < Time::from_secs_f64(3_600.0),
            "the jobs end within an hour"
        );
    }
    Ok((few_done.unwrap_or(f64::INFINITY), cluster))
}
