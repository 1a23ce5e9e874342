//! The jobs that were submitted to this node.

use bytes::Bytes;
use maelstrom_dispatch as dispatch;
use maelstrom_node::{Handler, Job, JobId};
use maelstrom_spec::{JobError, JobOutcome};
use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex},
};

/// The first byte of an outcome that stands for one in [`OwnJobs`]: outcomes that travel begin
/// with another.
const HERE: u8 = 0xff;

/// Jobs that were submitted to this node and have not ended.
#[derive(Default)]
pub(crate) struct OwnJobs {
    jobs: HashMap<dispatch::JobId, OwnJob>,
    numbers: HashMap<JobId, dispatch::JobId>,
}

/// One of them.
pub(crate) struct OwnJob {
    /// Its number for whoever submitted it.
    pub(crate) id: JobId,
    pub(crate) job: Job,
    pub(crate) handler: Arc<Mutex<Handler>>,
    /// Outcomes of runs on this node, by lease, which need not travel as bytes.
    outcomes: Vec<(u32, Result<JobOutcome, JobError>)>,
}

impl OwnJobs {
    pub(crate) fn insert(
        &mut self,
        number: dispatch::JobId,
        id: JobId,
        job: Job,
        handler: Handler,
    ) {
        self.numbers.insert(id, number);
        self.jobs.insert(
            number,
            OwnJob {
                id,
                job,
                handler: Arc::new(Mutex::new(handler)),
                outcomes: Vec::new(),
            },
        );
    }

    pub(crate) fn get(&self, number: dispatch::JobId) -> Option<&OwnJob> {
        self.jobs.get(&number)
    }

    pub(crate) fn remove(&mut self, number: dispatch::JobId) -> Option<OwnJob> {
        let own = self.jobs.remove(&number)?;
        self.numbers.remove(&own.id);
        Some(own)
    }

    pub(crate) fn number(&self, id: JobId) -> Option<dispatch::JobId> {
        self.numbers.get(&id).copied()
    }

    pub(crate) fn all(&self) -> Vec<dispatch::JobId> {
        self.jobs.keys().copied().collect()
    }

    /// Keeps the outcome of a run on this node; what is returned stands for it.
    pub(crate) fn keep_outcome(
        &mut self,
        lease: dispatch::LeaseId,
        result: Result<JobOutcome, JobError>,
    ) -> Bytes {
        if let Some(own) = self.jobs.get_mut(&lease.job) {
            own.outcomes.push((lease.copy, result));
        }
        let mut token = vec![HERE];
        token.extend(lease.copy.to_le_bytes());
        token.into()
    }
}

impl OwnJob {
    /// The outcome that came with the end of the job.
    pub(crate) fn outcome(&mut self, bytes: &[u8]) -> Result<JobOutcome, JobError> {
        if let [HERE, copy @ ..] = bytes
            && let Ok(copy) = copy.try_into().map(u32::from_le_bytes)
            && let Some(at) = self.outcomes.iter().position(|(lease, _)| *lease == copy)
        {
            return self.outcomes.swap_remove(at).1;
        }
        crate::decode_result(bytes)
    }
}

/// Another handle to the same job, with descriptors of its own.
///
/// # Errors
///
/// If there are no descriptors left.
pub(crate) fn copy(job: &Job) -> io::Result<Job> {
    let terminal = match &job.terminal {
        Some((terminal, size)) => Some((terminal.try_clone()?, *size)),
        None => None,
    };
    Ok(Job {
        container: job.container.clone(),
        program: job.program.clone(),
        arguments: job.arguments.clone(),
        timeout: job.timeout,
        inline_limit_bytes: job.inline_limit_bytes,
        rank: job.rank,
        outputs: job.outputs.clone(),
        trace_missing: job.trace_missing,
        background: job.background,
        hold: job.hold.clone(),
        template: job.template.clone(),
        terminal,
    })
}
