//! What can go wrong with the file.

use maelstrom_spec::Excerpt;
use std::{io, path::PathBuf};

/// Why a test listing could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// The file is there but cannot be read.
    #[error("could not read test listing {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what it should be. It is left as it is.
    #[error(
        "could not parse test listing {path}, line {line}, column {column}: {reason}\n{excerpt}\n\
         help: the file records which tests failed and how long tests take, nothing else; \
         mend it, or remove it to begin a new one",
        path = path.display(), line = excerpt.line(), column = excerpt.column()
    )]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// The spot.
        excerpt: Box<Excerpt>,
    },
    /// The new file could not be written. The old one is still there.
    #[error("could not save test listing {path}: {source}", path = path.display())]
    Save {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
