use maelstrom_content::{ContentHash, LayerId, ManifestError, StoreError};
use std::{fmt::Display, path::PathBuf};

/// Why a layer could not be offered or taken.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The transfer store could not be opened.
    #[error(
        "cannot open the transfer store {}: {problem}. Only one node at a time can use it",
        dir.display()
    )]
    Open {
        /// Its directory.
        dir: PathBuf,
        /// What went wrong.
        problem: String,
    },
    /// The transfer store failed.
    #[error("cannot {action} layer {id}: {problem}")]
    Layer {
        /// What was being done.
        action: &'static str,
        /// With which layer.
        id: LayerId,
        /// What went wrong.
        problem: String,
    },
    /// The transfer store failed with all layers.
    #[error("cannot {action}: {problem}")]
    Transfer {
        /// What was being done.
        action: &'static str,
        /// What went wrong.
        problem: String,
    },
    /// The layer is not here as a whole.
    #[error("layer {id} has not come whole: {missing} of its contents are missing, one is {one}")]
    Incomplete {
        /// The layer.
        id: LayerId,
        /// How many contents are missing.
        missing: usize,
        /// One of them.
        one: ContentHash,
    },
    /// What came as a manifest is none.
    #[error("layer {id} cannot be taken: {problem}")]
    Manifest {
        /// The layer.
        id: LayerId,
        /// What is wrong.
        problem: ManifestError,
    },
    /// The content store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TransferError {
    pub(crate) fn layer<E: Display>(
        action: &'static str,
        id: LayerId,
    ) -> impl Fn(E) -> TransferError {
        move |error| TransferError::Layer {
            action,
            id,
            problem: error.to_string(),
        }
    }

    pub(crate) fn transfer<E: Display>(action: &'static str) -> impl Fn(E) -> TransferError {
        move |error| TransferError::Transfer {
            action,
            problem: error.to_string(),
        }
    }
}
