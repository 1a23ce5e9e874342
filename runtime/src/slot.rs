//! The client's end of a slot.

use crate::{
    StartError,
    job::{ContainerJob, JobNetwork},
    launcher::{Launcher, send_with_descriptor},
    slot_process::{FromSlot, ToSlot},
    wire::{self, Stream},
};
use maelstrom_spec::{JobError, JobOutcome};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::{
    borrow::Cow,
    path::PathBuf,
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
    isolated: Arc<OwnedFd>,
    /// For jobs on the machine's network; made when there is one.
    local: Option<Arc<OwnedFd>>,
    state: Arc<Mutex<State>>,
    jobs_run: u64,
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
        let isolated = Arc::new(launcher.fork_slot(layers_root.clone())?);
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
        let mut frame = Vec::new();
        let message = ToSlot::Run {
            number: self.jobs_run,
            job: Cow::Borrowed(job),
        };
        wire::write_frame(&mut frame, &message).map_err(RunError::gone)?;
        let control = self.process_for(job.network)?;
        {
            let mut state = lock(&self.state);
            if state.cancelled {
                return Err(JobError::Cancelled.into());
            }
            state.running = Some((self.jobs_run, control.clone()));
            send_with_descriptor(control.as_fd(), &frame, terminal).map_err(RunError::gone)?;
        }
        let answer = wire::read_frame(Stream(control.as_fd()));
        let mut state = lock(&self.state);
        state.running = None;
        match answer {
            Ok(Some(FromSlot::Finished(_))) if state.cancelled => Err(JobError::Cancelled.into()),
            Ok(Some(FromSlot::Finished(result))) => result.map_err(RunError::from),
            Ok(_) => Err(RunError::gone("it has ended")),
            Err(error) => Err(RunError::gone(error)),
        }
    }

    fn process_for(&mut self, network: JobNetwork) -> Result<Arc<OwnedFd>, RunError> {
        if network != JobNetwork::Local {
            return Ok(self.isolated.clone());
        }
        if let Some(local) = &self.local {
            return Ok(local.clone());
        }
        let local = self
            .launcher
            .fork_slot(self.layers_root.clone())
            .map_err(|error| JobError::System(error.to_string()))?;
        Ok(self.local.insert(Arc::new(local)).clone())
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
            let _ = wire::write_frame(Stream(control.as_fd()), &ToSlot::Cancel { number: *number });
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
