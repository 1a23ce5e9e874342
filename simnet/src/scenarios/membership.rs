//! How fast news travel, and what that costs.

use std::time::Duration;

use anyhow::ensure;
use maelstrom_gossip::Load;

use super::{Options, Scenario};
use crate::{
    cluster::{Cluster, Fault, Setup, gossip_id},
    kernel::Time,
    plot::{self, Line, Panel},
    report::Report,
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "membership",
    about: "how long a join, an advert and a crash take to be known to 99 % of the nodes, false \
            deaths at 1 % loss, and bytes at rest (1,000 nodes; 10,000 take 14 GB and minutes)",
    run,
};

/// How often is looked.
const STEP: Duration = Duration::from_millis(20);

/// Which share of the nodes knows, over the seconds since.
type Spread = Vec<(f64, f64)>;

struct Watch<'a> {
    options: &'a Options,
    cluster: Cluster,
    nodes: usize,
}

impl Watch<'_> {
    fn run_until(&mut self, time: Time) -> anyhow::Result<()> {
        self.cluster.run_until(time).map_err(|broken| {
            anyhow::anyhow!(
                "{broken}\nto see it again: {}",
                self.options.replay(SCENARIO.name, self.options.seed)
            )
        })
    }

    fn run_for(&mut self, time: Duration) -> anyhow::Result<()> {
        let until = self.cluster.now() + time;
        self.run_until(until)
    }

    /// How the share of nodes for which `knows` holds grows, until it holds for all, or time is
    /// up.
    fn spread(
        &mut self,
        but: usize,
        most: Duration,
        knows: impl Fn(&maelstrom_gossip::View) -> bool,
    ) -> anyhow::Result<Spread> {
        let begin = self.cluster.now();
        let mut spread = Vec::new();
        let mut until = begin;
        loop {
            let mut asked = 0;
            let mut known = 0;
            for node in 0..self.cluster.len() {
                if node == but {
                    continue;
                }
                if let Some(membership) = self.cluster.membership(node) {
                    asked += 1;
                    known += usize::from(knows(membership.view()));
                }
            }
            let share = known as f64 / asked as f64;
            spread.push((until.since(begin).as_secs_f64(), share));
            if known == asked || until.since(begin) >= most {
                return Ok(spread);
            }
            until = until + STEP;
            self.run_until(until)?;
        }
    }
}

/// When the share is reached first.
fn reached(spread: &Spread, share: f64) -> Option<f64> {
    spread
        .iter()
        .find(|(_, known)| *known >= share)
        .map(|(at, _)| *at)
}

fn seconds(time: Option<f64>) -> String {
    time.map_or("never".to_owned(), |time| format!("{time:.2} s"))
}

fn run(options: &Options) -> anyhow::Result<Report> {
    let nodes = options.nodes.unwrap_or(1_000);
    ensure!(nodes >= 20, "this scenario needs 20 nodes at least");
    let bar = options.bar(7, "measurements");
    let mut setup = Setup::new(options.seed, nodes + 1, 4);
    setup.jobs = false;
    setup.checks = false;
    setup.eligible = 10;
    setup.clock_skew = 0.001;
    let mut cluster = Cluster::new(setup);
    cluster.start_acquainted(nodes);
    let mut watch = Watch {
        options,
        cluster,
        nodes,
    };
    watch.run_for(Duration::from_secs(5))?;
    bar.inc(1);

    // At rest.
    let before = watch.cluster.totals().gossip_bytes;
    watch.run_for(Duration::from_secs(20))?;
    let at_rest = (watch.cluster.totals().gossip_bytes - before) / nodes as u64 / 20;
    bar.inc(1);

    // A newcomer.
    let newcomer = watch.nodes;
    let now = watch.cluster.now();
    watch.cluster.plan(vec![(now, Fault::Start(newcomer))]);
    let joined = watch.spread(newcomer, Duration::from_secs(30), |view| {
        view.get(&gossip_id(newcomer)).is_some()
    })?;
    let joined_at = now;
    let mut learnt = None;
    for _ in 0..1_000 {
        let view = watch.cluster.membership(newcomer).map(|m| m.view().len());
        if view >= Some(nodes * 99 / 100) {
            learnt = Some(watch.cluster.now().since(joined_at).as_secs_f64());
            break;
        }
        watch.run_for(STEP)?;
    }
    watch.run_for(Duration::from_secs(5))?;
    bar.inc(1);

    // An advert.
    let load = Load {
        slots_free: 0,
        jobs_queued: 7,
    };
    watch.cluster.tell(3, load);
    let told = watch.spread(3, Duration::from_secs(30), |view| {
        view.get(&gossip_id(3))
            .is_some_and(|member| member.load == load)
    })?;
    watch.run_for(Duration::from_secs(5))?;
    bar.inc(1);

    // Crashes, without loss and with it.
    let mut crashed = Vec::new();
    let mut false_deaths = 0;
    for (loss, dead) in [(0.0, 11), (0.01, 12), (0.01, 13)] {
        let now = watch.cluster.now();
        let weather = Fault::Weather {
            loss,
            late: 0.0,
            twice: 0.0,
        };
        watch
            .cluster
            .plan(vec![(now, weather), (now, Fault::Kill(dead))]);
        let before = watch.cluster.totals().false_deaths;
        let spread = watch.spread(dead, Duration::from_secs(60), |view| {
            view.get(&gossip_id(dead)).is_none()
        })?;
        watch.run_for(Duration::from_secs(20))?;
        false_deaths += watch.cluster.totals().false_deaths - before;
        crashed.push(spread);
        bar.inc(1);
    }
    bar.finish_and_clear();

    let mut report = Report::new(
        "News in the membership",
        &["what", "99 % of nodes", "all nodes", "bound"],
    );
    let mut row = |what: &str, first: String, all: String, bound: &str| {
        report.row([what.to_owned(), first, all, bound.to_owned()]);
    };
    row(
        "a join is known",
        seconds(reached(&joined, 0.99)),
        seconds(reached(&joined, 1.0)),
        "5 s",
    );
    row("the newcomer knows", seconds(learnt), String::new(), "5 s");
    row(
        "an advert is known",
        seconds(reached(&told, 0.99)),
        seconds(reached(&told, 1.0)),
        "5 s",
    );
    for (spread, what) in crashed.iter().zip([
        "a crash is known",
        "a crash is known, 1 % loss",
        "another, 1 % loss",
    ]) {
        row(
            what,
            seconds(reached(spread, 0.99)),
            seconds(reached(spread, 1.0)),
            "15 s",
        );
    }
    row(
        "bytes a second and node at rest",
        at_rest.to_string(),
        String::new(),
        "10,240",
    );
    row(
        "false deaths at 1 % loss",
        false_deaths.to_string(),
        String::new(),
        "0",
    );
    let deciles: Vec<String> = (1..=10)
        .map(|tenth| seconds(reached(&told, f64::from(tenth) / 10.0)))
        .collect();
    report.note(format!(
        "{nodes} nodes, {} events, hash {:016x}. Deciles of the time until a node knows an \
         advert: {}.",
        watch.cluster.events(),
        watch.cluster.hash(),
        deciles.join(", ")
    ));
    let line = |name: &str, points: &Spread| Line {
        name: name.to_owned(),
        points: points
            .iter()
            .map(|(at, share)| (*at, share * 100.0))
            .collect(),
    };
    let panels = [
        Panel {
            title: "% know of".to_owned(),
            lines: vec![line("a join", &joined), line("an advert", &told)],
        },
        Panel {
            title: "% know of".to_owned(),
            lines: vec![
                line("a crash", &crashed[0]),
                line("a crash at 1 % loss", &crashed[1]),
            ],
        },
    ];
    let title = format!("How news spread among {nodes} nodes");
    report.plot(
        &format!("membership-{nodes}"),
        plot::panels_over(&title, "seconds since", &panels),
    );
    Ok(report)
}
