//! The default mode: all jobs of the input, as many at once as there are slots.

use crate::{
    input::{Input, Inputs},
    outputs::bring_back,
    print::print,
    report::{exit_contribution, pieces},
};
use anyhow::{Context as _, Result};
use crossbeam_channel::{Receiver, Sender, bounded};
use maelstrom_node::{JobEvent, JobId};
use maelstrom_runner::client::{Client, JobRequest};
use maelstrom_spec::{ContainerSpec, JobError, JobOutcome, JobSpec, collapse};
use std::{
    collections::HashMap,
    io::Read,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
};

/// How many jobs may be under way. Reading goes on when some of them have ended.
const MAX_JOBS_UNDER_WAY: usize = 10_000;
/// How many jobs are prepared at once: their layers are built, that is.
const PREPARERS: usize = 8;
/// How many jobs may wait for being prepared and submitted.
const MAX_JOBS_UNPREPARED: usize = 64;

/// What has become of the jobs so far.
#[derive(Debug)]
struct Progress {
    state: Mutex<State>,
    changed: Condvar,
    project_dir: PathBuf,
}

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    /// The first contribution that is not 0.
    exit_code: u8,
    /// Whether results are no longer of interest.
    given_up: bool,
}

type Prepared = Result<JobRequest, JobError>;

/// A job on its way to its container.
struct Unprepared {
    spec: JobSpec,
    result: Sender<Prepared>,
}

/// Runs all jobs of the input and returns the exit code.
///
/// # Errors
///
/// Malformed input. Jobs are still under way then, but nothing more is printed about them.
pub(crate) fn run<R: Read>(client: &Client, project_dir: PathBuf, inputs: Inputs<R>) -> Result<u8> {
    let progress = Arc::new(Progress {
        state: Mutex::default(),
        changed: Condvar::new(),
        project_dir,
    });
    let (to_prepare, unprepared) = bounded(MAX_JOBS_UNPREPARED);
    let (in_order, submissions) = bounded(MAX_JOBS_UNPREPARED);
    // Nobody waits for these threads: they have nothing to do when all jobs have ended, and after
    // malformed input the process ends whatever they do.
    for index in 0..PREPARERS {
        let (client, unprepared) = (client.clone(), unprepared.clone());
        let work = move || prepare_all(&client, &unprepared);
        spawn(format!("prepare {index}"), work)?;
    }
    let (for_submitter, submitter) = (progress.clone(), client.clone());
    let work = move || submit_all(&submitter, &for_submitter, &submissions);
    spawn("submit".into(), work)?;
    if let Err(error) = read_all(client, &progress, inputs, to_prepare, in_order) {
        progress.lock().given_up = true;
        return Err(error);
    }
    let mut state = progress.lock();
    while state.under_way > 0 {
        state = progress.wait(state);
    }
    Ok(state.exit_code)
}

fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = thread::Builder::new().name(name);
    thread.spawn(work).context("starting a thread").map(drop)
}

/// Reads the input to its end. Named containers count for the jobs after them, so that what a job
/// inherits is settled here.
fn read_all<R: Read>(
    client: &Client,
    progress: &Arc<Progress>,
    mut inputs: Inputs<R>,
    to_prepare: Sender<Unprepared>,
    in_order: Sender<(JobId, Receiver<Prepared>)>,
) -> Result<()> {
    let mut containers: HashMap<String, ContainerSpec> = HashMap::new();
    while let Some(input) = inputs.next()? {
        let mut spec = match input {
            Input::Containers(named) => {
                containers.extend(named);
                continue;
            }
            Input::Job(spec) => *spec,
        };
        progress.begin();
        let id = client.reserve();
        match collapse(&spec.container, |name| containers.get(name)) {
            Err(error) => progress.complete(id, &Err(JobError::Remote(error.to_string()))),
            Ok(collapsed) => {
                spec.container = collapsed.into_container();
                let (result, prepared) = bounded(1);
                // Both receivers live as long as their senders.
                let _ = to_prepare.send(Unprepared { spec, result });
                let _ = in_order.send((id, prepared));
            }
        }
    }
    Ok(())
}

fn prepare_all(client: &Client, unprepared: &Receiver<Unprepared>) {
    for Unprepared { spec, result } in unprepared {
        let prepared = client
            .prepare_job(&spec)
            .map(|container| JobRequest::from_spec(container, &spec));
        let _ = result.send(prepared);
    }
}

/// Submits jobs in the order of the input, whichever was prepared first.
fn submit_all(
    client: &Client,
    progress: &Arc<Progress>,
    submissions: &Receiver<(JobId, Receiver<Prepared>)>,
) {
    for (id, prepared) in submissions {
        let gone = || JobError::System("the thread that prepared it has ended".into());
        let prepared = prepared.recv().unwrap_or_else(|_| Err(gone()));
        if progress.lock().given_up {
            continue;
        }
        match prepared {
            Err(error) => progress.complete(id, &Err(error)),
            Ok(request) => {
                let progress = progress.clone();
                client.submit_reserved(id, request, move |id, event| {
                    if let JobEvent::Completed(result) = event {
                        progress.complete(id, &result);
                    }
                });
            }
        }
    }
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(|e| e.into_inner())
    }

    /// Counts a job, once there is room for it.
    fn begin(&self) {
        let mut state = self.lock();
        while state.under_way >= MAX_JOBS_UNDER_WAY {
            state = self.wait(state);
        }
        state.under_way += 1;
    }

    /// Prints a result. Holds the lock meanwhile, so that nothing comes between its lines.
    fn complete(&self, id: JobId, result: &Result<JobOutcome, JobError>) {
        let mut state = self.lock();
        if !state.given_up {
            print(&pieces(id, result));
            let mut contribution = exit_contribution(result);
            if !bring_back(&self.project_dir, &format!("job {id}: "), result) {
                contribution = contribution.max(1);
            }
            if state.exit_code == 0 {
                state.exit_code = contribution;
            }
        }
        state.under_way -= 1;
        self.changed.notify_all();
    }
}
