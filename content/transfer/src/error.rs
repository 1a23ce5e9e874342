use maelstrom_content::{LayerId, ManifestError, StoreError};
use maelstrom_pull::LayoutError;
use std::{io, path::PathBuf};

/// Why a layer cannot be read, or taken in.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done, as in "cannot … PATH".
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What came as a manifest is none.
    #[error("layer {id} cannot be taken: {problem}")]
    Manifest {
        /// The layer.
        id: LayerId,
        /// What is wrong.
        problem: ManifestError,
    },
    /// The layer cannot be cut into pieces.
    #[error("layer {id} cannot be taken: {problem}")]
    Layout {
        /// The layer.
        id: LayerId,
        /// What is wrong.
        problem: LayoutError,
    },
    /// Contents in the cache are not what they should be.
    #[error("contents {content} of layer {id} in the cache are damaged; build the layer again")]
    Damaged {
        /// The layer.
        id: LayerId,
        /// Whose contents.
        content: maelstrom_content::ContentHash,
    },
    /// Contents that were in the cache when the pull began have been evicted since.
    #[error("layer {id} has not come whole: {missing} of its contents are missing")]
    Incomplete {
        /// The layer.
        id: LayerId,
        /// How many contents are missing.
        missing: usize,
    },
    /// The content store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TransferError {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> TransferError {
        let path = path.into();
        move |source| TransferError::Io {
            action,
            path,
            source,
        }
    }
}

/// What a peer sent is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadData {
    /// A length that differs from the manifest's.
    #[error("it gives {found} bytes to contents that the manifest gives {expected}")]
    Length {
        /// As the manifest says.
        expected: u64,
        /// As the peer says.
        found: u64,
    },
    /// Bytes that do not have their hash.
    #[error("what it sent at byte {offset} of a file does not have the hash that it should have")]
    Hash {
        /// Where in the blob, in bytes.
        offset: u64,
    },
    /// More than was asked for.
    #[error("it sent more than was asked for")]
    Surplus,
}
