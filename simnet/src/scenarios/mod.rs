//! What can be simulated, by name.

mod coordinator;
mod fairness;
pub mod faults;
mod makespan;
mod membership;
mod pull;
mod survivors;

use std::{path::PathBuf, time::Duration};

use anyhow::ensure;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{cluster::Cluster, kernel::Time, report::Report, workload::Durations};

/// A scenario, as the command line shows it.
pub struct Scenario {
    /// What it is called.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// Runs it.
    pub run: fn(&Options) -> anyhow::Result<Report>,
}

/// What a person may choose.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The first seed.
    pub seed: u64,
    /// How many seeds are run, where a scenario runs many.
    pub seeds: Option<u64>,
    /// How many nodes there are.
    pub nodes: Option<usize>,
    /// How many jobs there are.
    pub jobs: Option<usize>,
    /// Recorded durations of jobs.
    pub durations: Option<PathBuf>,
    /// Which share of the jobs has never run before.
    pub unknown: f64,
    /// What each link carries in each direction, in bytes a second.
    pub link_bytes_per_second: u64,
    /// On how many threads seeds are run.
    pub threads: usize,
    /// Whether to show progress.
    pub progress: bool,
}

/// All scenarios.
pub const ALL: &[Scenario] = &[
    faults::SCENARIO,
    makespan::SCENARIO,
    membership::SCENARIO,
    pull::SCENARIO,
    coordinator::SCENARIO,
    survivors::SCENARIO,
    fairness::SCENARIO,
];

impl Options {
    /// A bar that shows how far a run is; hidden where nobody watches.
    pub(crate) fn bar(&self, length: u64, what: &'static str) -> ProgressBar {
        if !self.progress {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template(
            "{msg} [{bar:40}] {human_pos}/{human_len} {elapsed} (left: {eta})",
        )
        .expect("the template is right");
        ProgressBar::new(length)
            .with_style(style)
            .with_message(what)
    }

    /// Runs a mesh from `from` until `count` jobs are reported, with a progress bar.
    ///
    /// # Errors
    ///
    /// If a promise is broken, or an hour of virtual time is not enough.
    pub(crate) fn run_until_reported(
        &self,
        scenario: &str,
        cluster: &mut Cluster,
        from: Time,
        count: usize,
    ) -> anyhow::Result<()> {
        let bar = self.bar(count as u64, "jobs");
        let mut until = from;
        while (cluster.totals().reported as usize) < count {
            until = until + Duration::from_millis(100);
            cluster.run_until(until).map_err(|broken| {
                anyhow::anyhow!(
                    "{broken}\nto see it again: {}",
                    self.replay(scenario, self.seed)
                )
            })?;
            bar.set_position(cluster.totals().reported);
            ensure!(
                until < Time::from_secs_f64(3_600.0),
                "the jobs end within an hour"
            );
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// The command that runs one seed of a scenario again.
    pub(crate) fn replay(&self, scenario: &str, seed: u64) -> String {
        let mut command = format!("cargo run --release -p simnet -- {scenario} --seed {seed}");
        if let Some(nodes) = self.nodes {
            command += &format!(" --nodes {nodes}");
        }
        if let Some(jobs) = self.jobs {
            command += &format!(" --jobs {jobs}");
        }
        if let Some(durations) = &self.durations {
            command += &format!(" --durations {}", durations.display());
        }
        command += &format!(" --unknown {}", self.unknown);
        command + &format!(" --link-mbits {}", self.link_bytes_per_second / 125_000)
    }

    /// The durations that jobs are drawn from.
    pub(crate) fn durations(&self) -> anyhow::Result<Durations> {
        match &self.durations {
            Some(path) => Durations::read(path),
            None => Ok(Durations::TESTS),
        }
    }
}
