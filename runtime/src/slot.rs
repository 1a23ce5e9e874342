//! The client's end of a slot.

use crate::{
    job::ContainerJob,
    launcher::send_with_descriptor,
    slot_process::{FromSlot, ToSlot},
    wire::{self, Stream},
};
use maelstrom_spec::{JobError, JobOutcome};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

/// Runs one job at a time, each in a container of its own.
///
/// Dropping it kills what runs in it.
#[derive(Debug)]
pub struct Slot {
    shared: Arc<Shared>,
    jobs_run: u64,
}

/// Cancels the job that a slot is running, from another thread.
#[derive(Clone, Debug)]
pub struct Canceller {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    control: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the job that runs now.
    running: Option<u64>,
    /// Whether a job was cancelled since the slot was last armed.
    cancelled: bool,
}

impl Slot {
    pub(crate) fn new(control: OwnedFd) -> Self {
        Self {
            shared: Arc::new(Shared {
                control,
                state: Mutex::default(),
            }),
            jobs_run: 0,
        }
    }

    /// A handle with which another thread can cancel the running job.
    pub fn canceller(&self) -> Canceller {
        Canceller {
            shared: self.shared.clone(),
        }
    }

    /// Forgets an earlier cancellation. To be called before a job is announced to those who may
    /// cancel it, so that a cancellation between here and [`Self::run`] is not lost.
    pub fn arm(&self) {
        self.shared.lock().cancelled = false;
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
            job: std::borrow::Cow::Borrowed(job),
        };
        wire::write_frame(&mut frame, &message).map_err(RunError::gone)?;
        {
            let mut state = self.shared.lock();
            if state.cancelled {
                return Err(JobError::Cancelled.into());
            }
            state.running = Some(self.jobs_run);
            send_with_descriptor(self.shared.control.as_fd(), &frame, terminal)
                .map_err(RunError::gone)?;
        }
        let answer = wire::read_frame(Stream(self.shared.control.as_fd()));
        let mut state = self.shared.lock();
        state.running = None;
        match answer {
            Ok(Some(FromSlot::Finished(_))) if state.cancelled => Err(JobError::Cancelled.into()),
            Ok(Some(FromSlot::Finished(result))) => result.map_err(RunError::from),
            Ok(_) => Err(RunError::gone("it has ended")),
            Err(error) => Err(RunError::gone(error)),
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Canceller {
    /// Kills the job that the slot is running, or else the next one that it is given before
    /// [`Slot::arm`]. Returns at once; [`Slot::run`] then returns [`JobError::Cancelled`].
    pub fn cancel(&self) {
        let mut state = self.shared.lock();
        state.cancelled = true;
        if let Some(number) = state.running {
            // If the slot has ended, `run` finds out.
            let _ = wire::write_frame(
                Stream(self.shared.control.as_fd()),
                &ToSlot::Cancel { number },
            );
        }
    }
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
