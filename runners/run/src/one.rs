//! One mode: a single job, and `maelstrom-run` ends as it did.

use crate::{
    input::{Input, Inputs},
    outputs::bring_back,
    print::print,
    report::{Ending, ending, pieces_of_only_job},
};
use anyhow::{Result, bail};
use crossbeam_channel::bounded;
use maelstrom_node::JobEvent;
use maelstrom_runner::client::{Client, JobRequest};
use maelstrom_spec::{JobError, JobOutcome, JobSpec};
use std::{io::Read, path::Path};

/// Reads up to the first job, and defines the containers before it.
///
/// # Errors
///
/// Malformed input, or none with a job.
pub(crate) fn first_job<R: Read>(client: &Client, inputs: &mut Inputs<R>) -> Result<JobSpec> {
    while let Some(input) = inputs.next()? {
        match input {
            Input::Job(spec) => return Ok(*spec),
            Input::Containers(containers) => {
                for (name, container) in containers {
                    client.add_container(name, container);
                }
            }
        }
    }
    bail!("the input has no job to run")
}

/// Runs the job and says how to end.
pub(crate) fn run(client: &Client, project_dir: &Path, spec: &JobSpec) -> Ending {
    let result = run_to_end(client, spec);
    print(&pieces_of_only_job(&result));
    ending_of(project_dir, &result)
}

/// Brings back the job's files and says how to end.
pub(crate) fn ending_of(project_dir: &Path, result: &Result<JobOutcome, JobError>) -> Ending {
    let all_written = bring_back(project_dir, "", result);
    match ending(result) {
        Ending::Code(0) if !all_written => Ending::Code(1),
        ending => ending,
    }
}

fn run_to_end(client: &Client, spec: &JobSpec) -> Result<JobOutcome, JobError> {
    let request = JobRequest::from_spec(client.prepare_job(spec)?, spec);
    let (sender, receiver) = bounded(1);
    client.submit(request, move |_, event| {
        if let JobEvent::Completed(result) = event {
            let _ = sender.send(result);
        }
    });
    let gone = || JobError::System("the node dropped the job".into());
    receiver.recv().unwrap_or_else(|_| Err(gone()))
}
