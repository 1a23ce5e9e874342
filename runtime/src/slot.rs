//! The client's end of a slot.

use crate::{
    StartError,
    job::{ContainerJob, JobNetwork},
    launcher::{Launcher, send_with_descriptor},
    order::Order,
    slot_process::{FromSlot, ToSlot},
    wire::{self, Stream},
};
use maelstrom_spec::{JobError, JobOutcome};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

/// Runs one job at a time, each in a container of its own.
///
/// Dropping it ends its processes.
#[derive(Debug)]
pub struct Slot {
    launcher: Launcher,
    layers_root: PathBuf,
    /// For jobs with a network of their own.
    isolated: Process,
    /// For jobs on the machine's network; made when there is one.
    local: Option<Process>,
    state: Arc<Mutex<State>>,
    jobs_run: u64,
}

/// A process that runs jobs.
#[derive(Debug)]
struct Process {
    control: Arc<OwnedFd>,
    /// The last job that it was told of, at least as far as the next may share it.
    told: Option<ContainerJob>,
}

impl Process {
    fn fork(launcher: &Launcher, layers_root: &Path) -> Result<Self, StartError> {
        Ok(Self {
            control: Arc::new(launcher.fork_slot(layers_root.to_path_buf())?),
            told: None,
        })
    }
}

/// Cancels the job that a slot is running, from another thread.
#[derive(Clone, Debug)]
pub struct Canceller {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// The job that runs now, and where.
    running: Option<(u64, Arc<OwnedFd>)>,
    /// Whether a job was cancelled since the slot was last armed.
    cancelled: bool,
}

impl Slot {
    pub(crate) fn new(launcher: Launcher, layers_root: PathBuf) -> Result<Self, StartError> {
        let isolated = Process::fork(&launcher, &layers_root)?;
        Ok(Self {
            launcher,
            layers_root,
            isolated,
            local: None,
            state: Arc::default(),
            jobs_run: 0,
        })
    }

    /// A handle with which another thread can cancel the running job.
    pub fn canceller(&self) -> Canceller {
        Canceller {
            state: self.state.clone(),
        }
    }

    /// Forgets an earlier cancellation. To be called before a job is announced to those who may
    /// cancel it, so that a cancellation between here and [`Self::run`] is not lost.
    pub fn arm(&self) {
        lock(&self.state).cancelled = false;
    }

    /// Runs a job to its end.
    ///
    /// # Errors
    ///
    /// [`JobError::Execution`] and [`JobError::System`] where the job could not be started,
    /// [`JobError::Cancelled`] after [`Canceller::cancel`]. After an error that is `fatal` the
    /// slot is of no more use: make another one.
    pub fn run(&mut self, job: &ContainerJob) -> Result<JobOutcome, RunError> {
        self.run_on_terminal(job, None)
    }

    /// Runs a job to its end, with its standard streams on a terminal.
    ///
    /// # Errors
    ///
    /// As for [`Self::run`].
    pub fn run_on_terminal(
        &mut self,
        job: &ContainerJob,
        terminal: Option<BorrowedFd<'_>>,
    ) -> Result<JobOutcome, RunError> {
        self.jobs_run += 1;
        let number = self.jobs_run;
        let state = self.state.clone();
        let process = self.process_for(job.network)?;
        let order = Order::after(job, process.told.as_ref());
        let is_news = order.has_news();
        let mut frame = Vec::new();
        wire::write_frame(&mut frame, &ToSlot::Run { number, order }).map_err(RunError::gone)?;
        {
            let mut state = lock(&state);
            if state.cancelled {
                return Err(JobError::Cancelled.into());
            }
            state.running = Some((number, process.control.clone()));
            send_with_descriptor(process.control.as_fd(), &frame, terminal)
                .map_err(RunError::gone)?;
        }
        if is_news {
            process.told = Some(job.clone());
        }
        let answer = wire::read_frame(Stream(process.control.as_fd()));
        let mut state = lock(&state);
        state.running = None;
        match answer {
            Ok(Some(FromSlot::Finished(_))) if state.cancelled => Err(JobError::Cancelled.into()),
            Ok(Some(FromSlot::Finished(result))) => result.map_err(RunError::from),
            Ok(_) => Err(RunError::gone("it has ended")),
            Err(error) => Err(RunError::gone(error)),
        }
    }

    fn process_for(&mut self, network: JobNetwork) -> Result<&mut Process, RunError> {
        if network != JobNetwork::Local {
            return Ok(&mut self.isolated);
        }
        let local = match self.local.take() {
            Some(local) => local,
            None => Process::fork(&self.launcher, &self.layers_root)
                .map_err(|error| JobError::System(error.to_string()))?,
        };
        Ok(self.local.insert(local))
    }
}

impl Canceller {
    /// Kills the job that the slot is running, or else the next one that it is given before
    /// [`Slot::arm`]. Returns at once; [`Slot::run`] then returns [`JobError::Cancelled`].
    pub fn cancel(&self) {
        let mut state = lock(&self.state);
        state.cancelled = true;
        if let Some((number, control)) = &state.running {
            // If the slot has ended, `run` finds out.
            let cancel = ToSlot::Cancel { number: *number };
            let _ = wire::write_frame(Stream(control.as_fd()), &cancel);
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(|e| e.into_inner())
}

/// Why a job has no outcome, and whether its slot lives on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunError {
    /// What to tell about the job.
    pub error: JobError,
    /// Whether the slot is gone.
    pub fatal: bool,
}

impl RunError {
    fn gone(why: impl std::fmt::Display) -> Self {
        Self {
            error: JobError::System(format!("the process that runs containers has gone: {why}")),
            fatal: true,
        }
    }
}

impl From<JobError> for RunError {
    fn from(error: JobError) -> Self {
        Self {
            error,
            fatal: false,
        }
    }
}
