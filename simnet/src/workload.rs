//! What the jobs are like.

use std::{path::Path, time::Duration};

use anyhow::{Context, bail};
use rand::{RngExt, rngs::Xoshiro256PlusPlus};

use crate::kernel::normal;

/// One job of a workload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JobSpec {
    /// How long it runs.
    pub duration: Duration,
    /// How long it is thought to run: by its last run, if it has run before.
    pub estimate: Option<Duration>,
    /// How many slots it takes.
    pub slots: u16,
    /// Which of the layers of the run it needs, if any.
    pub layer: Option<u16>,
}

/// Where durations come from.
#[derive(Clone, Debug)]
pub enum Durations {
    /// Log-normal: this median, this spread of the logarithm, and nothing longer than `most`.
    HeavyTailed {
        /// Half of the jobs take longer.
        median: Duration,
        /// 1.2 means that one job in a hundred takes sixteen times the median.
        sigma: f64,
        /// A time limit.
        most: Duration,
    },
    /// Each drawn from a record.
    Recorded(Vec<Duration>),
}

impl Durations {
    /// What a large suite of small tests looks like: a median of 50 ms, a mean of 100 ms, and
    /// some that take seconds.
    pub const TESTS: Self = Self::HeavyTailed {
        median: Duration::from_millis(50),
        sigma: 1.2,
        most: Duration::from_secs(5),
    };

    /// Reads a record: one duration a line, in seconds.
    ///
    /// # Errors
    /// If the file can't be read, or a line is no duration.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("reading recorded durations from {}", path.display()))?;
        let mut durations = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let duration = line.parse().ok().and_then(|seconds| {
                Duration::try_from_secs_f64(seconds)
                    .ok()
                    .filter(|_| seconds < 1e6)
            });
            match duration {
                Some(duration) => durations.push(duration),
                None => bail!(
                    "{}:{}: `{line}` is no duration in seconds; each line holds one, say 0.25",
                    path.display(),
                    index + 1
                ),
            }
        }
        if durations.is_empty() {
            bail!("{} holds no durations", path.display());
        }
        Ok(Self::Recorded(durations))
    }

    fn sample(&self, rng: &mut Xoshiro256PlusPlus) -> Duration {
        match self {
            Self::HeavyTailed {
                median,
                sigma,
                most,
            } => median.mul_f64((sigma * normal(rng)).exp()).min(*most),
            Self::Recorded(durations) => durations[rng.random_range(0..durations.len())],
        }
    }

    /// Draws a workload. This share of the jobs has never run before; the estimates of the others
    /// are wrong by a third up or down, as the last run's time is.
    pub fn draw(&self, count: usize, unknown: f64, rng: &mut Xoshiro256PlusPlus) -> Vec<JobSpec> {
        (0..count)
            .map(|_| {
                let duration = self.sample(rng);
                let wrong = (0.3 * normal(rng)).exp();
                let estimate = duration.mul_f64(wrong);
                JobSpec {
                    duration,
                    estimate: (!rng.random_bool(unknown)).then_some(estimate),
                    slots: 1,
                    layer: None,
                }
            })
            .collect()
    }
}

/// The total of the durations, in seconds of one slot.
pub fn work_seconds(jobs: &[JobSpec]) -> f64 {
    jobs.iter()
        .map(|job| job.duration.as_secs_f64() * f64::from(job.slots))
        .sum()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn heavy_tails_have_the_median_asked_for() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut jobs = Durations::TESTS.draw(20_001, 0.1, &mut rng);
        jobs.sort_by_key(|job| job.duration);
        let median = jobs[10_000].duration.as_secs_f64();
        assert!((0.047..0.053).contains(&median), "{median}");
        assert_eq!(jobs[20_000].duration, Duration::from_secs(5));
        let unknown = jobs.iter().filter(|job| job.estimate.is_none()).count();
        assert!((1_800..2_200).contains(&unknown), "{unknown}");
    }

    #[test]
    fn a_bad_record_is_named_with_its_line() {
        let path = std::env::temp_dir().join(format!("simnet-record-{}", std::process::id()));
        std::fs::write(&path, "# suite\n0.5\nsoon\n").unwrap();
        let error = Durations::read(&path).unwrap_err().to_string();
        assert!(error.contains(":3: `soon`"), "{error}");
        std::fs::write(&path, "0.5\n2\n").unwrap();
        let Durations::Recorded(durations) = Durations::read(&path).unwrap() else {
            panic!("a record");
        };
        assert_eq!(
            durations,
            [Duration::from_millis(500), Duration::from_secs(2)]
        );
        std::fs::remove_file(&path).unwrap();
    }
}
