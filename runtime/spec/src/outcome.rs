use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf, time::Duration};

/// How a job ended that could be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOutcome {
    /// How the program ended.
    pub status: JobStatus,
    /// What it left behind.
    pub effects: JobEffects,
}

/// How the program of a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobStatus {
    /// By itself, with this code.
    Exited(u8),
    /// By this signal.
    Signaled(u8),
    /// It was killed because its time was over.
    TimedOut,
    /// It was killed because it passed its memory limit.
    OutOfMemory,
}

impl JobStatus {
    /// Whether the program ended by itself with code 0.
    pub const fn is_success(self) -> bool {
        matches!(self, JobStatus::Exited(0))
    }
}

/// What a program left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEffects {
    /// What it wrote to its standard output.
    pub stdout: JobOutput,
    /// What it wrote to its standard error.
    pub stderr: JobOutput,
    /// Wall time from its start to its end.
    pub duration: Duration,
    /// Files that the job's `outputs` globs matched.
    pub outputs: Vec<OutputFile>,
    /// Paths that the program looked for in vain and that the client's machine has. Only filled
    /// in for jobs that were run to find this out.
    pub missing: Vec<PathBuf>,
    /// Sentences that whoever reads the outcome should see, such as why an output file was left
    /// behind.
    pub notes: Vec<String>,
}

/// A regular file brought back out of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// Its absolute path inside the container.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// Its contents.
    pub contents: Vec<u8>,
}

/// What was captured of one output stream. The stream is always drained, so that a chatty
/// program never blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobOutput {
    /// Nothing was written.
    #[default]
    None,
    /// All of it: between one byte and the inline limit.
    Inline(Vec<u8>),
    /// More than the inline limit.
    Truncated {
        /// The first bytes, as many as the inline limit.
        first: Vec<u8>,
        /// How many bytes after them were dropped.
        dropped_bytes: u64,
    },
}

impl JobOutput {
    /// The bytes that were kept.
    pub fn bytes(&self) -> &[u8] {
        match self {
            JobOutput::None => &[],
            JobOutput::Inline(bytes) | JobOutput::Truncated { first: bytes, .. } => bytes,
        }
    }

    /// How many bytes were dropped after the kept ones.
    pub const fn dropped_bytes(&self) -> u64 {
        match self {
            JobOutput::None | JobOutput::Inline(_) => 0,
            JobOutput::Truncated { dropped_bytes, .. } => *dropped_bytes,
        }
    }
}

/// Why a job has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobError {
    /// The fault of the job: a program that does not exist, a working directory that is missing.
    Execution(String),
    /// The fault of the machines that run jobs.
    System(String),
    /// The client refused the job while preparing it: an unknown parent, a missing local file.
    Remote(String),
    /// The job was cancelled before it had an outcome.
    Cancelled,
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JobError::Execution(message) => write!(f, "execution error: {message}"),
            JobError::System(message) => write!(f, "system error: {message}"),
            JobError::Remote(message) => write!(f, "remote error: {message}"),
            JobError::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl std::error::Error for JobError {}
