use maelstrom_content::LayerId;
use maelstrom_gossip::NodeId;
use maelstrom_transfer::TransferError;
use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

/// Why layers cannot be pulled and served at all.
#[derive(Debug, thiserror::Error)]
pub enum LayersError {
    /// The directory cannot be used.
    #[error("cannot use {} for layers on their way: {source}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The process cannot have threads.
    #[error("starting the threads that send and receive layers: {0}")]
    Threads(std::io::Error),
    /// The node's key cannot be used.
    #[error("cannot encrypt connections for layers with this node's key: {0}")]
    Encryption(rustls::Error),
}

/// A message that no sound node sends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a message about layers: {0}")]
pub struct Rubbish(pub(crate) String);

/// Why a layer could not be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody gave the manifest.
    #[error(
        "cannot get layer {layer}: {} gave its list of files ({problem})",
        Nobody(asked)
    )]
    Manifest {
        /// Which.
        layer: LayerId,
        /// Who was asked.
        asked: Vec<NodeId>,
        /// What the last one said.
        problem: String,
    },
    /// Nobody is left who has the layer.
    #[error(
        "cannot get layer {layer}: after {done_bytes} of {total_bytes} bytes nobody who has it \
         could be reached any more{}",
        Bad(bad)
    )]
    NoProvider {
        /// Which.
        layer: LayerId,
        /// How much had come.
        done_bytes: u64,
        /// Of how much.
        total_bytes: u64,
        /// Who sent data that does not match its hash.
        bad: Vec<NodeId>,
    },
    /// Nothing came for a long time.
    #[error(
        "cannot get layer {layer}: nothing came for {} seconds, after {done_bytes} of \
         {total_bytes} bytes", waited.as_secs()
    )]
    Stalled {
        /// Which.
        layer: LayerId,
        /// For how long nothing came.
        waited: Duration,
        /// How much had come.
        done_bytes: u64,
        /// Of how much.
        total_bytes: u64,
    },
    /// The files could not be written or handed to the store.
    #[error("cannot keep layer {layer}: {problem}")]
    Keep {
        /// Which.
        layer: LayerId,
        /// What went wrong.
        problem: Arc<TransferError>,
    },
    /// This node is shutting down.
    #[error("layer {layer} was not got: this node is shutting down")]
    Stopped {
        /// Which.
        layer: LayerId,
    },
}

impl FetchError {
    pub(crate) fn keep<E: Into<TransferError>>(layer: LayerId) -> impl FnOnce(E) -> FetchError {
        move |problem| FetchError::Keep {
            layer,
            problem: Arc::new(problem.into()),
        }
    }
}

/// A node as people see it: the beginning of its key.
pub(crate) struct Short(pub(crate) NodeId);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = &self.0.as_bytes()[..5];
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

struct Nobody<'a>(&'a [NodeId]);

impl fmt::Display for Nobody<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("none of ")?;
        if self.0.is_empty() {
            return f.write_str("the members");
        }
        for (index, node) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{}", Short(*node))?;
        }
        Ok(())
    }
}

struct Bad<'a>(&'a [NodeId]);

impl fmt::Display for Bad<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, node) in self.0.iter().enumerate() {
            let before = if index == 0 {
                "; bad data came from "
            } else {
                ", "
            };
            write!(f, "{before}{}", Short(*node))?;
        }
        Ok(())
    }
}
