//! Half of the nodes die in the middle of a run.

use super::{Options, Scenario, makespan};
use crate::{
    baseline,
    cluster::{Cluster, Fate, Fault, Setup},
    kernel::Time,
    plot,
    report::Report,
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "survivors",
    about: "half of the nodes are killed in the middle of a run: how much longer it takes than \
            an omniscient scheduler needs with the survivors",
    run,
};

fn run(options: &Options) -> anyhow::Result<Report> {
    let nodes = options.nodes.unwrap_or(200);
    let count = options.jobs.unwrap_or(nodes * 400);
    let jobs = makespan::draw(options, count)?;
    let alone = baseline::ideal(&jobs, nodes);
    let die_at = alone / 2;
    let ideal = baseline::ideal_with_deaths(&jobs, nodes, nodes / 2, die_at).as_secs_f64();

    let mut cluster = Cluster::new(Setup::new(options.seed, nodes, 1));
    cluster.start_acquainted(nodes);
    let begin = Time::from_secs_f64(10.0);
    cluster.submit(begin, 0, jobs);
    let deaths = (nodes - nodes / 2..nodes).map(|node| (begin + die_at, Fault::Kill(node)));
    cluster.plan(deaths.collect());
    options.run_until_reported(SCENARIO.name, &mut cluster, begin, count)?;
    let ours = cluster.totals().last_report.since(begin).as_secs_f64();
    let mut report = Report::new(
        "Half of the nodes are killed half-way",
        &[
            "nodes",
            "jobs",
            "killed at",
            "ideal",
            "ours",
            "ratio",
            "bound",
            "given up",
        ],
    );
    report.row([
        nodes.to_string(),
        count.to_string(),
        format!("{:.1} s", die_at.as_secs_f64()),
        format!("{ideal:.1} s"),
        format!("{ours:.1} s"),
        format!("{:.3}", ours / ideal),
        "1.15".to_owned(),
        cluster.fates(Fate::GivenUp).to_string(),
    ]);
    report.note(
        "Every node runs its own membership. The ideal scheduler knows who is going to die when, \
         and starts nothing there that would not end in time."
            .to_owned(),
    );
    let title = format!("{} of {nodes} nodes are killed", nodes / 2);
    report.plot("survivors", plot::samples(&title, cluster.samples()));
    Ok(report)
}
