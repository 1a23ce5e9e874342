//! What dispatch knows of a job, and the bounds on it.

use crate::{NodeId, Rank};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// The longest payload of a job, and the longest outcome, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 8 << 20;
/// The most layers of one job.
pub const MAX_LAYERS: usize = 256;
/// The most labels that one job asks for or one node offers.
pub const MAX_LABELS: usize = 32;
/// The longest label, and the longest reason for a failure, in bytes.
pub const MAX_TEXT_BYTES: usize = 1024;

/// A job as dispatch sees it. Clones share everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its place among the jobs of its origin.
    pub rank: Rank,
    /// Where it can run.
    pub needs: Arc<Requirements>,
    /// What must be there before it starts. Decides where it runs cheaply.
    pub layers: Arc<[Layer]>,
    /// The job itself, which only whoever runs it reads. At most [`MAX_PAYLOAD_BYTES`].
    pub payload: Bytes,
}

impl Job {
    /// Whether the job keeps to the bounds of this module.
    pub fn check(&self) -> Result<(), JobRefused> {
        if self.payload.len() > MAX_PAYLOAD_BYTES {
            return Err(JobRefused::Payload {
                bytes: self.payload.len(),
            });
        }
        if self.layers.len() > MAX_LAYERS {
            return Err(JobRefused::Layers {
                layers: self.layers.len(),
            });
        }
        if self.needs.slots == 0 {
            return Err(JobRefused::NoSlots);
        }
        if self.needs.labels.len() > MAX_LABELS {
            return Err(JobRefused::Labels {
                labels: self.needs.labels.len(),
            });
        }
        let texts = self.needs.labels.iter().chain(&self.needs.architecture);
        if texts.into_iter().any(|text| text.len() > MAX_TEXT_BYTES) {
            return Err(JobRefused::LongText);
        }
        Ok(())
    }

    /// Slots times estimated microseconds, `None` where the estimate is unknown.
    pub(crate) fn work_us(&self) -> Option<u64> {
        let estimate_us = u64::try_from(self.rank.estimate?.as_micros()).unwrap_or(u64::MAX);
        // Cut at 25 slot-days, so that the sum over four million jobs fits into 64 bits.
        Some(
            estimate_us
                .saturating_mul(u64::from(self.needs.slots))
                .min(1 << 41),
        )
    }
}

/// Why a job cannot be queued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobRefused {
    /// The queue of this origin is full.
    #[error("the queue is full: {limit} jobs are unfinished already; wait for some to end")]
    Full {
        /// How many fit.
        limit: usize,
    },
    /// The payload is too long.
    #[error(
        "the job's specification takes {bytes} bytes, more than the limit of {MAX_PAYLOAD_BYTES}"
    )]
    Payload {
        /// Its length.
        bytes: usize,
    },
    /// Too many layers.
    #[error("the job has {layers} layers, more than the limit of {MAX_LAYERS}")]
    Layers {
        /// How many.
        layers: usize,
    },
    /// The job asks for no slot.
    #[error("the job asks for 0 slots; it needs at least 1")]
    NoSlots,
    /// Too many labels.
    #[error("the job asks for {labels} labels, more than the limit of {MAX_LABELS}")]
    Labels {
        /// How many.
        labels: usize,
    },
    /// A label or the architecture is too long.
    #[error("the job asks for a label or an architecture longer than {MAX_TEXT_BYTES} bytes")]
    LongText,
}

/// Where a job can run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Requirements {
    /// How many slots it takes while it runs: at least 1.
    pub slots: u16,
    /// The processor architecture as Rust names it, say `x86_64`. `None`: any.
    pub architecture: Option<Box<str>>,
    /// Labels that the node must carry, all of them.
    pub labels: Vec<Box<str>>,
    /// Whether it may run only on the node it was submitted to.
    pub local: bool,
}

impl Default for Requirements {
    fn default() -> Self {
        Requirements {
            slots: 1,
            architecture: None,
            labels: Vec::new(),
            local: false,
        }
    }
}

/// What a node offers. All of it may come from a stale advert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities<'a> {
    /// How many slots it has, busy or not.
    pub slots: u16,
    /// What it runs natively, as Rust names it.
    pub architecture: &'a str,
    /// Its labels.
    pub labels: &'a [Box<str>],
}

impl Capabilities<'_> {
    /// Whether a node that offers this can run what needs that, leaving aside where the job was
    /// submitted.
    pub fn satisfy(&self, needs: &Requirements) -> bool {
        needs.slots <= self.slots
            && needs
                .architecture
                .as_deref()
                .is_none_or(|wanted| wanted == self.architecture)
            && needs
                .labels
                .iter()
                .all(|wanted| self.labels.contains(wanted))
    }
}

/// A layer that a job needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Its id.
    pub id: LayerId,
    /// What pulling all of it would move.
    pub size_bytes: u64,
}

/// The hash that names a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LayerId(pub [u8; 32]);

/// One try to run a job that gave no outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Where.
    pub node: NodeId,
    /// What happened.
    pub failure: Failure,
}

/// Why a try gave no outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The node was lost while it ran the job.
    Lost,
    /// The node could not run it, with the node's reason.
    Unable(String),
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.failure {
            Failure::Lost => write!(f, "node {} was lost while it ran the job", self.node),
            Failure::Unable(reason) => {
                write!(f, "node {} could not run the job: {reason}", self.node)
            }
        }
    }
}

/// Why a job ended without an outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobFailed {
    /// It was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// Too many nodes were lost or unable. Names each of them.
    #[error(
        "given up after {} {}: {}",
        .0.len(),
        if .0.len() == 1 { "try" } else { "tries" },
        .0.iter().map(Attempt::to_string).collect::<Vec<_>>().join("; ")
    )]
    Attempts(Vec<Attempt>),
}

/// A reason that fits into a message.
pub(crate) fn cut_text(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_TEXT_BYTES);
    text[..end].to_owned()
}
