use crate::SharedResults;
use maelstrom_content::LayerId;
use maelstrom_dispatch::Rank;
use maelstrom_runtime::{ContainerMount, JobNetwork, Privileges, Root, Template, TerminalSize};
use maelstrom_spec::{JobError, JobOutcome};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

/// What a job's program sees around itself, with everything resolved: layers by hash, the
/// environment evaluated. Many jobs share one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// Layers, lowest first. At least one.
    pub layers: Vec<LayerId>,
    /// The whole environment, sorted by name.
    pub environment: Vec<(String, String)>,
    /// Where programs start.
    pub working_directory: PathBuf,
    /// What becomes of writes to the root file system.
    pub root: Root,
    /// Mounts, in the order in which they are made.
    pub mounts: Vec<ContainerMount>,
    /// What network is seen.
    pub network: JobNetwork,
    /// User id inside.
    pub user: u32,
    /// Group id inside.
    pub group: u32,
    /// What programs may do beyond what their user may do.
    pub privileges: Privileges,
    /// Whether programs lead a session of their own.
    pub leads_session: bool,
}

/// One program to run in one container.
#[derive(Debug)]
pub struct Job {
    /// The container.
    pub container: Arc<Container>,
    /// A path where it holds a `/`, else a name in the container's `PATH`.
    pub program: String,
    /// `argv[1..]`.
    pub arguments: Vec<String>,
    /// How long it may run, from its start. `None`: no limit.
    pub timeout: Option<Duration>,
    /// How many bytes of each output stream are kept.
    pub inline_limit_bytes: u64,
    /// When it runs, compared with others.
    pub rank: Rank,
    /// Globs of files that are brought back.
    pub outputs: Arc<[String]>,
    /// Whether to find out which paths the program looks for in vain. Slow.
    pub trace_missing: bool,
    /// A program that is started once for many jobs and forks for this one. Where that is not
    /// possible `program` is run, and a note in the outcome may say why.
    pub template: Option<Template>,
    /// Whether it only gets processor time that nobody else on the machine wants, as is right
    /// for jobs of other nodes.
    pub background: bool,
    /// A terminal for its standard streams.
    pub terminal: Option<(OwnedFd, TerminalSize)>,
    /// Where it is given, nothing is run: the job keeps its slot until the hold is released, and
    /// then ends like a program that ends with code 0. For a job that its client runs itself.
    pub hold: Option<Hold>,
}

impl Job {
    /// What keeps the job from running anywhere but on the machine it was submitted on, if
    /// anything: what it may use of that machine.
    pub fn needs_this_machine(&self) -> Option<&'static str> {
        if self.terminal.is_some() {
            return Some("a terminal");
        }
        if self.trace_missing {
            return Some("a look at what its container lacks");
        }
        if self.hold.is_some() {
            return Some("a slot for its client");
        }
        self.container.needs_this_machine()
    }
}

impl Container {
    /// As [`Job::needs_this_machine`], for what runs in it.
    pub fn needs_this_machine(&self) -> Option<&'static str> {
        let binds = |mount: &ContainerMount| matches!(mount, ContainerMount::Bind { .. });
        if self.mounts.iter().any(binds) {
            return Some("a directory of the machine");
        }
        if matches!(self.network, JobNetwork::Local) {
            return Some("the network of the machine");
        }
        if matches!(self.root, Root::Capture { .. }) {
            return Some("a directory for its changes");
        }
        None
    }
}

/// Keeps a slot taken until it is released. Clones are the same hold.
#[derive(Clone, Debug, Default)]
pub struct Hold(Arc<(Mutex<bool>, Condvar)>);

impl Hold {
    /// Gives the slot back, now or as soon as the hold has one.
    pub fn release(&self) {
        let (released, changed) = &*self.0;
        *released.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
    }

    /// Waits until it is released.
    pub fn wait(&self) {
        let (released, changed) = &*self.0;
        let mut released = released.lock().unwrap_or_else(PoisonError::into_inner);
        while !*released {
            released = changed
                .wait(released)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The number of a job, from 0 in the order of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What happens to a job, in this order.
#[derive(Debug)]
pub enum JobEvent {
    /// It has a slot. Comes again where a job is run again, after the loss of a node say.
    Running {
        /// The name of the node that runs it; `None`: the node it was submitted to.
        on: Option<Arc<str>>,
    },
    /// It is over. Always the last event, and always comes.
    Completed(Result<JobOutcome, JobError>),
}

/// What is told of a job: called from another thread for each event, in order.
pub type Handler = Box<dyn FnMut(JobId, JobEvent) + Send>;

/// Something that runs jobs: the slots of this machine, a whole mesh, or a daemon that is asked to.
pub trait JobService: fmt::Debug + Send + Sync {
    /// Takes the number of a job that will be submitted later. Numbers count from 0.
    fn reserve(&self) -> JobId;

    /// Queues a job under a number that was reserved for it, and returns at once. Each number
    /// is used once.
    fn submit_reserved(&self, id: JobId, job: Job, handler: Handler);

    /// Ends a job promptly with [`JobError::Cancelled`], unless it has ended.
    fn cancel(&self, id: JobId);

    /// Ends every job promptly with [`JobError::Cancelled`].
    fn cancel_all(&self);

    /// A sentence that whoever waits for the jobs should see at the end, if there is one.
    fn remark(&self) -> Option<String> {
        None
    }

    /// The results that other machines know, if there are others.
    fn results(&self) -> Option<Arc<dyn SharedResults>> {
        None
    }

    /// Cancels everything, and returns when nothing runs any more. Later jobs are cancelled at
    /// once.
    fn stop(&self);
}
