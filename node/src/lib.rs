//! The node: dispatch over the machine's slots, and the session that clients talk to.
//!
//! Today a node lives inside its client and uses the slots of this machine. What it decides with
//! is `maelstrom-dispatch`; what it runs jobs with is `maelstrom-runtime`; where their layers come
//! from is `maelstrom-content`.

mod job;
mod local;
mod results;

pub use job::{Container, Handler, Hold, Job, JobEvent, JobId, JobService};
pub use local::Node;
pub use maelstrom_dispatch::Rank;
pub use results::{
    MAX_SHARED_KEYS, MAX_SHARED_RESULT_BYTES, ResultKey, ResultStore, SharedResults,
};
