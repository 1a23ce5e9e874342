//! The record of tests from one run to the next: which there are, how their last run ended, and how
//! long they take. It says which tests to run first and how many to expect.
//!
//! It is kept in `test-listing.toml` in the state directory, in the format of Maelstrom 0.14:
//!
//! ```toml
//! version = 3
//!
//! [foo."foo(library)"."m::t1"]
//! timings = [0.12, 0.1]
//! outcome = "success"
//! ```
//!
//! The levels are package, artifact and case. `timings` are seconds, the newest last. pytest's
//! cases also have `node_id` and `markers`. A package that is called `version` cannot be told from
//! the version of the file and is not written.

mod error;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use error::ListingError;

use std::{collections::BTreeMap, time::Duration};

/// Name of the file in the state directory.
pub const FILE_NAME: &str = "test-listing.toml";

/// The version of the format.
const VERSION: i64 = 3;

/// How many run times of a case are kept.
const MAX_TIMINGS: usize = 3;

/// What is known of the tests of a project.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TestListing {
    packages: BTreeMap<Box<str>, Artifacts>,
}

type Artifacts = BTreeMap<Box<str>, Cases>;
type Cases = BTreeMap<Box<str>, Record>;

/// How the last run of a case ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// It passed.
    Success,
    /// It failed, or one of its repetitions did.
    Failure,
    /// It was never run.
    #[default]
    New,
}

impl Outcome {
    const ALL: [Outcome; 3] = [Outcome::Success, Outcome::Failure, Outcome::New];

    const fn name(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::Failure => "failure",
            Outcome::New => "new",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.name() == name)
    }
}

/// What pytest knows of a case besides its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaseMetadata {
    /// Its node id.
    pub node_id: String,
    /// Names of its markers.
    pub markers: Vec<String>,
}

/// When to run a case. Higher priorities run first; within one, unknown estimates and then the
/// longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// 1 for what is new or failed last time, else 0.
    pub priority: i8,
    /// How long it will take: the mean of the run times that were known when the listing was loaded.
    pub estimate: Option<Duration>,
}

/// What is known of a case. Small, since there may be tens of thousands.
#[derive(Clone, Debug, Default, PartialEq)]
struct Record {
    metadata: Option<Box<CaseMetadata>>,
    /// Seconds, the newest last.
    timings: [f32; MAX_TIMINGS],
    timing_count: u8,
    /// Seconds.
    estimate: Option<f32>,
    outcome: Outcome,
    outcome_at_load: Outcome,
    /// Whether it was run since the listing was loaded.
    ran: bool,
}

impl Record {
    /// What a file says of a case.
    fn loaded(timings: &[f32], outcome: Outcome, metadata: Option<CaseMetadata>) -> Self {
        let mut record = Record {
            metadata: metadata.map(Box::new),
            outcome,
            outcome_at_load: outcome,
            ..Record::default()
        };
        for seconds in timings {
            record.add_timing(*seconds);
        }
        let timings = record.timings();
        if !timings.is_empty() {
            record.estimate = Some(timings.iter().sum::<f32>() / timings.len() as f32);
        }
        record
    }

    fn timings(&self) -> &[f32] {
        &self.timings[..usize::from(self.timing_count)]
    }

    fn add_timing(&mut self, seconds: f32) {
        if usize::from(self.timing_count) == MAX_TIMINGS {
            self.timings.rotate_left(1);
        } else {
            self.timing_count += 1;
        }
        self.timings[usize::from(self.timing_count) - 1] = seconds;
    }
}

impl TestListing {
    /// Forgets the packages that `keep` does not want.
    pub fn retain_packages(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.packages.retain(|package, _| keep(package));
    }

    /// Forgets the artifacts of `package` that `keep` does not want.
    pub fn retain_artifacts(&mut self, package: &str, mut keep: impl FnMut(&str) -> bool) {
        if let Some(artifacts) = self.packages.get_mut(package) {
            artifacts.retain(|artifact, _| keep(artifact));
        }
    }

    /// Takes note of all cases that an artifact has: forgets those it no longer has, and adds new
    /// ones.
    pub fn set_cases<'a>(
        &mut self,
        package: &str,
        artifact: &str,
        cases: impl IntoIterator<Item = (&'a str, Option<CaseMetadata>)>,
    ) {
        let artifacts = entry(&mut self.packages, package);
        let mut known = artifacts.remove(artifact).unwrap_or_default();
        let cases: Cases = cases
            .into_iter()
            .map(|(case, metadata)| {
                let (case, record) = known
                    .remove_entry(case)
                    .unwrap_or_else(|| (case.into(), Record::default()));
                let metadata = metadata.map(Box::new);
                (case, Record { metadata, ..record })
            })
            .collect();
        artifacts.insert(artifact.into(), cases);
    }

    /// Takes note of a run of a case. If it is run several times, one failure makes it a failure.
    pub fn record(
        &mut self,
        package: &str,
        artifact: &str,
        case: &str,
        passed: bool,
        duration: Duration,
    ) {
        let record = entry(entry(entry(&mut self.packages, package), artifact), case);
        if !passed {
            record.outcome = Outcome::Failure;
        } else if !record.ran {
            record.outcome = Outcome::Success;
        }
        record.ran = true;
        record.add_timing(duration.as_secs_f32());
    }

    /// When to run a case: as was known when the listing was loaded.
    pub fn schedule(&self, package: &str, artifact: &str, case: &str) -> Schedule {
        let record = self
            .packages
            .get(package)
            .and_then(|artifacts| artifacts.get(artifact)?.get(case));
        let (outcome, estimate) = match record {
            Some(record) => (record.outcome_at_load, record.estimate),
            None => (Outcome::New, None),
        };
        Schedule {
            priority: i8::from(outcome != Outcome::Success),
            estimate: estimate.and_then(|seconds| Duration::try_from_secs_f32(seconds).ok()),
        }
    }

    /// How the last run of a case ended, if the case is known.
    pub fn outcome(&self, package: &str, artifact: &str, case: &str) -> Option<Outcome> {
        Some(
            self.packages
                .get(package)?
                .get(artifact)?
                .get(case)?
                .outcome,
        )
    }

    /// How many of the known cases `selects` wants, given package, artifact, case and what pytest
    /// knows of it: how many tests to expect before they are listed anew.
    pub fn count(
        &self,
        mut selects: impl FnMut(&str, &str, &str, Option<&CaseMetadata>) -> bool,
    ) -> usize {
        let mut count = 0;
        for (package, artifacts) in &self.packages {
            for (artifact, cases) in artifacts {
                for (case, record) in cases {
                    count +=
                        usize::from(selects(package, artifact, case, record.metadata.as_deref()));
                }
            }
        }
        count
    }
}

/// The value of a key, made if need be; allocates only then.
fn entry<'m, V: Default>(map: &'m mut BTreeMap<Box<str>, V>, key: &str) -> &'m mut V {
    if !map.contains_key(key) {
        map.insert(key.into(), V::default());
    }
    map.get_mut(key).expect("it is there or was just inserted")
}
