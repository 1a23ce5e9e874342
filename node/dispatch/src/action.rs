//! What the driver has to do.

use crate::{Held, Job, JobFailed, JobId, Layer, NodeId};
use bytes::Bytes;
use std::sync::Arc;

/// What the driver has to do. Every action is given once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// As executor: make these layers available, then call
    /// [`layers_ready`](crate::Dispatcher::layers_ready) or
    /// [`layers_failed`](crate::Dispatcher::layers_failed).
    FetchLayers {
        /// For which lease.
        held: Held,
        /// Which.
        layers: Arc<[Layer]>,
    },
    /// As executor: the layers are no longer needed for a lease that never started.
    Forget {
        /// Which lease.
        held: Held,
    },
    /// As executor: run the job, then call [`job_ended`](crate::Dispatcher::job_ended). Its
    /// slots are taken from now on until then.
    Start {
        /// For which lease.
        held: Held,
        /// The job.
        job: Job,
        /// Whether it is another node's, and to be run at the lowest scheduling class.
        lent: bool,
    },
    /// As executor: end the job at once and then call
    /// [`job_ended`](crate::Dispatcher::job_ended), whatever the result.
    Kill {
        /// Which lease.
        held: Held,
    },
    /// As origin: tell the client that its job runs. May come again where a job runs again.
    Started {
        /// Which job.
        job: JobId,
        /// Where.
        node: NodeId,
    },
    /// As origin: tell the client how its job ended. Exactly once for each job.
    Completed {
        /// Which job.
        job: JobId,
        /// Its outcome, as the executing driver gave it.
        result: Result<Bytes, JobFailed>,
    },
}
