use maelstrom_spec::SourceError;
use std::{io, path::PathBuf};
use thiserror::Error;

/// Why a metadata file cannot be used.
#[derive(Debug, Error)]
pub enum MetadataError {
    /// It cannot be read.
    #[error("reading {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is absurdly large.
    #[error("reading {}: the file is larger than {} MiB", path.display(), limit_bytes >> 20)]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The largest size that is accepted.
        limit_bytes: u64,
    },
    /// It says something wrong.
    #[error(transparent)]
    Source(#[from] SourceError),
}
