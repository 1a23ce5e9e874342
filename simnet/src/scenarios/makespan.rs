//! How long many jobs take on many nodes, beside other ways to run them.

use std::time::Duration;

use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};

use super::{Options, Scenario};
use crate::{
    baseline::{self, Network, Sizes},
    cluster::{Cluster, Setup},
    kernel::Time,
    plot,
    report::Report,
    workload::{JobSpec, work_seconds},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "makespan",
    about: "100 jobs a node from one origin, heavy-tailed, on 10 to 10,000 nodes of one slot: \
            ours beside an omniscient scheduler, a central broker, and Sparrow",
    run,
};

/// What the broker of 0.14 moves to each worker before the first job: a test binary and a few
/// small layers.
const ARTIFACTS_BYTES: u64 = 20_000_000;

/// How long a changed advert takes to show in one node's view. Measured at 10,000 nodes by
/// the membership scenario: deciles of the time until a node knows.
pub(super) const STALENESS_MS: [u64; 10] = [600, 620, 620, 640, 640, 780, 800, 800, 820, 1_220];

/// The mesh that jobs run on, with shared views of that age.
pub(super) fn setup(seed: u64, nodes: usize, slots: u16) -> Setup {
    let mut setup = Setup::new(seed, nodes, slots);
    setup.own_views = false;
    setup.staleness = STALENESS_MS
        .into_iter()
        .map(Duration::from_millis)
        .collect();
    setup.death_shows = Duration::from_secs(12);
    setup
}

pub(super) fn draw(options: &Options, count: usize) -> anyhow::Result<Vec<JobSpec>> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(options.seed);
    Ok(options.durations()?.draw(count, options.unknown, &mut rng))
}

fn run(options: &Options) -> anyhow::Result<Report> {
    let counts = match options.nodes {
        Some(nodes) => vec![nodes],
        None => vec![10, 100, 1_000, 10_000],
    };
    let mut report = Report::new(
        "Makespan of 100 jobs a node, from one origin",
        &[
            "nodes",
            "jobs",
            "ideal",
            "ours",
            "over ideal",
            "Sparrow",
            "over ideal",
            "broker",
            "broker with 20 MB",
            "messages a job",
        ],
    );
    for nodes in counts {
        let jobs = draw(options, options.jobs.unwrap_or(nodes * 100))?;
        let ideal = baseline::ideal(&jobs, nodes).as_secs_f64();
        let network = Network {
            latency: Duration::from_micros(600),
            bytes_per_second: options.link_bytes_per_second,
        };
        let sizes = |artifacts| Sizes {
            spec: 240,
            outcome: 320,
            artifacts,
        };
        let sparrow = baseline::sparrow(&jobs, nodes, 1, network, sizes(0), options.seed);
        let broker = baseline::broker(&jobs, nodes, 1, network, sizes(0));
        let star = baseline::broker(&jobs, nodes, 1, network, sizes(ARTIFACTS_BYTES));

        let cluster = run_ours(options, nodes, &jobs)?;
        let ours = cluster.totals().last_report.as_secs_f64();
        let over = |seconds: f64| format!("{:+.1} %", (seconds / ideal - 1.0) * 100.0);
        report.row([
            nodes.to_string(),
            jobs.len().to_string(),
            format!("{ideal:.2} s"),
            format!("{ours:.2} s"),
            over(ours),
            format!("{:.2} s", sparrow.as_secs_f64()),
            over(sparrow.as_secs_f64()),
            format!("{:.2} s", broker.as_secs_f64()),
            format!("{:.1} s", star.as_secs_f64()),
            format!(
                "{:.2}",
                cluster.totals().messages as f64 / jobs.len() as f64
            ),
        ]);
        report.note(format!(
            "{nodes} nodes: {:.0} s of work, {} starts, {} events, hash {:016x}.",
            work_seconds(&jobs),
            cluster.totals().starts,
            cluster.events(),
            cluster.hash(),
        ));
        if let Some(last) = cluster.last_jobs(1).first() {
            report.note(format!(
                "The job reported last ran {:.3} s from {:.3} s on (thought to take {}) on node \
                 {}.",
                last.spec.duration.as_secs_f64(),
                last.started.as_secs_f64(),
                last.spec
                    .estimate
                    .map_or("nothing known".to_owned(), |estimate| format!(
                        "{:.3} s",
                        estimate.as_secs_f64()
                    )),
                last.node,
            ));
        }
        let title = format!("{} jobs on {nodes} nodes", jobs.len());
        report.plot(
            &format!("makespan-{nodes}"),
            plot::samples(&title, cluster.samples()),
        );
    }
    report.note(format!(
        "Views are shared and as stale as the membership scenario measured (ten deciles). Links \
         of {} Mbit/s carry specifications (240 bytes a job) and outcomes (320 bytes). {} % of \
         the jobs have never run before. The other schedulers as said in `baseline.rs`.",
        options.link_bytes_per_second / 125_000,
        options.unknown * 100.0,
    ));
    Ok(report)
}

fn run_ours(options: &Options, nodes: usize, jobs: &[JobSpec]) -> anyhow::Result<Cluster> {
    let mut setup = setup(options.seed, nodes, 1);
    setup.bytes_per_second = options.link_bytes_per_second;
    let mut cluster = Cluster::new(setup);
    cluster.start_acquainted(nodes);
    cluster.submit(Time::ZERO, 0, jobs.iter().copied());
    options.run_until_reported(SCENARIO.name, &mut cluster, Time::ZERO, jobs.len())?;
    Ok(cluster)
}
