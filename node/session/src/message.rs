//! What the two ends say to each other after the greeting.

use maelstrom_dispatch::Rank;
use maelstrom_node::{Container, Job, ResultKey};
use maelstrom_runtime::Template;
use maelstrom_spec::{JobError, JobOutcome};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, path::PathBuf, sync::Arc, time::Duration};

/// How many unfinished jobs of one client a daemon has at a time. It can see far enough ahead to
/// share them out well; a client keeps the rest to itself.
pub const WINDOW: usize = 16_384;

/// How many containers of one client a daemon remembers.
pub(crate) const MAX_CONTAINERS: usize = 4096;

/// What a client learns of the daemon when it connects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The id of the daemon's node: its public key in hexadecimal digits.
    pub node: String,
    /// What people call the node.
    pub name: String,
    /// How many jobs it runs at once.
    pub slots: u16,
    /// The directory of its store, which the client builds its layers in.
    pub store: PathBuf,
    /// How large that store may grow, in bytes.
    pub cache_size_bytes: u64,
    /// Its process.
    pub pid: u32,
}

/// What can be asked of a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Its view of the mesh, as JSON.
    Status,
    /// A ticket with which another machine can join.
    Invite,
}

/// From a client.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request<'a> {
    /// What jobs that name `number` run in, from here on.
    Container {
        number: u32,
        container: Cow<'a, Container>,
    },
    /// Run this.
    Submit {
        number: u64,
        rank: Rank,
        container: u32,
        job: WireJob<'a>,
    },
    /// Keep a slot free for a job that the client will run.
    Hold { number: u64, rank: Rank },
    /// That job has ended.
    Release { number: u64 },
    /// End a job.
    Cancel { number: u64 },
    /// End all jobs of this client.
    CancelAll,
    /// Answer a question.
    Ask(Question),
    /// Who knows the results of these jobs?
    FindResults {
        number: u64,
        keys: Cow<'a, [ResultKey]>,
    },
    /// A job has passed, and this is its result.
    OfferResult {
        key: ResultKey,
        result: Cow<'a, [u8]>,
    },
}

/// From the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event<'a> {
    /// A job has a slot; for one that is held, this is "go".
    Running {
        number: u64,
        on: Option<Cow<'a, str>>,
    },
    /// A job has ended.
    Completed {
        number: u64,
        result: Cow<'a, Result<JobOutcome, JobError>>,
    },
    /// To what was asked.
    Answer(Result<String, String>),
    /// The results that were asked for, each in its place; none if nobody could be asked.
    FoundResults {
        number: u64,
        found: Cow<'a, [Option<Vec<u8>>]>,
    },
    /// The daemon ends the session, and why.
    Goodbye(String),
}

/// A job without its container and its terminal.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireJob<'a> {
    program: Cow<'a, str>,
    arguments: Cow<'a, [String]>,
    timeout: Option<Duration>,
    inline_limit_bytes: u64,
    outputs: Cow<'a, [String]>,
    background: bool,
    template: Cow<'a, Option<Template>>,
}

impl<'a> WireJob<'a> {
    pub(crate) fn new(job: &'a Job) -> Self {
        Self {
            program: Cow::Borrowed(&job.program),
            arguments: Cow::Borrowed(&job.arguments),
            timeout: job.timeout,
            inline_limit_bytes: job.inline_limit_bytes,
            outputs: Cow::Borrowed(&job.outputs),
            background: job.background,
            template: Cow::Borrowed(&job.template),
        }
    }

    pub(crate) fn into_job(self, container: Arc<Container>, rank: Rank) -> Job {
        Job {
            container,
            program: self.program.into_owned(),
            arguments: self.arguments.into_owned(),
            timeout: self.timeout,
            inline_limit_bytes: self.inline_limit_bytes,
            rank,
            outputs: self.outputs.into_owned().into(),
            trace_missing: false,
            background: self.background,
            template: self.template.into_owned(),
            terminal: None,
            hold: None,
        }
    }
}
