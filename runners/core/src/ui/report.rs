//! What is told of a finished test, and of a finished round.

use maelstrom_spec::{JobError, JobOutcome, JobOutput, JobStatus};
use std::{sync::Arc, time::Duration};

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passed.
    Ok,
    /// It ended, but not well.
    Failed,
    /// It was killed because its time was over.
    TimedOut,
    /// It could not be run.
    Error,
    /// It is not to be run.
    Ignored,
}

impl Verdict {
    /// The word at the end of a test's line.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "OK",
            Verdict::Failed => "FAIL",
            Verdict::TimedOut => "TIMEOUT",
            Verdict::Error => "ERR",
            Verdict::Ignored => "IGNORED",
        }
    }

    /// Whether it counts as a failure.
    pub const fn is_failure(self) -> bool {
        matches!(self, Verdict::Failed | Verdict::TimedOut | Verdict::Error)
    }
}

/// What a test wrote to one of its streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// What was kept of it, without what the test's fixture wrote.
    pub bytes: Vec<u8>,
    /// How many bytes after it were dropped.
    pub dropped_bytes: u64,
}

impl From<JobOutput> for Captured {
    fn from(output: JobOutput) -> Self {
        let dropped_bytes = output.dropped_bytes();
        let bytes = match output {
            JobOutput::None => Vec::new(),
            JobOutput::Inline(bytes) | JobOutput::Truncated { first: bytes, .. } => bytes,
        };
        Captured {
            bytes,
            dropped_bytes,
        }
    }
}

/// A finished test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestReport {
    /// How the test is called on the screen.
    pub name: String,
    /// Number of its job; 0 if there was none.
    pub job: u64,
    /// How it ended.
    pub verdict: Verdict,
    /// Wall time from its start to its end; `None` if it was not run to an end.
    pub duration: Option<Duration>,
    /// Whether it was not run, since it passed before and nothing has changed.
    pub cached: bool,
    /// A line below the test's, such as `killed by signal 6`.
    pub detail: Option<String>,
    /// Its standard output.
    pub stdout: Captured,
    /// Its standard error.
    pub stderr: Captured,
    /// The node that ran it, if another than this one.
    pub node: Option<Arc<str>>,
    /// Lines below its output, such as advice. Each may have several lines.
    pub notes: Vec<String>,
}

impl TestReport {
    /// A test that is not to be run.
    pub fn ignored(name: impl Into<String>) -> Self {
        TestReport {
            name: name.into(),
            job: 0,
            verdict: Verdict::Ignored,
            duration: None,
            cached: false,
            detail: None,
            stdout: Captured::default(),
            stderr: Captured::default(),
            node: None,
            notes: Vec::new(),
        }
    }

    /// A test whose job ended. The caller may then take fixture noise out of `stdout`, add notes, or
    /// change the verdict of a test that says that it was skipped.
    pub fn of_job(name: impl Into<String>, job: u64, result: Result<JobOutcome, JobError>) -> Self {
        let mut report = TestReport {
            job,
            ..TestReport::ignored(name)
        };
        match result {
            Ok(outcome) => {
                (report.verdict, report.detail) = match outcome.status {
                    JobStatus::Exited(0) => (Verdict::Ok, None),
                    JobStatus::Exited(_) => (Verdict::Failed, None),
                    JobStatus::Signaled(signal) => {
                        (Verdict::Failed, Some(format!("killed by signal {signal}")))
                    }
                    JobStatus::TimedOut => (Verdict::TimedOut, None),
                    JobStatus::OutOfMemory => (
                        Verdict::Failed,
                        Some("killed for using more memory than it may".into()),
                    ),
                };
                report.duration = Some(outcome.effects.duration);
                report.stdout = outcome.effects.stdout.into();
                report.stderr = outcome.effects.stderr.into();
            }
            Err(error) => {
                report.verdict = Verdict::Error;
                report.detail = Some(error.to_string());
            }
        }
        report
    }
}

/// How a round of tests ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundEnd {
    /// Every test ended, or a listing did.
    Complete,
    /// It was stopped early, or building failed, so that tests were not run.
    Stopped {
        /// Whether all tests had been queued by then.
        all_queued: bool,
    },
}
