//! What can go wrong with an image, told to people.

use crate::digest::Digest;
use maelstrom_content::{LayerError, StoreError};
use std::{
    io,
    path::{Path, PathBuf},
};

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("container image {image}: {problem}")]
pub struct ImageError {
    /// Its name as written.
    pub image: String,
    /// What is wrong.
    pub problem: Box<Problem>,
}

/// What is wrong with an image, or with getting it.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file system refused.
    #[error("cannot {action} {}: {source}{}", path.display(), room(source))]
    Io {
        /// What was being done, as in "cannot … PATH".
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The registry, or what it leads to, cannot be reached or broke off.
    #[error("{doing} from {host}: {what}{advice}")]
    Network {
        /// As in "getting the manifest".
        doing: String,
        /// The host that was asked.
        host: String,
        /// What happened.
        what: String,
        /// What to try, after a `;`, or nothing.
        advice: &'static str,
    },
    /// The registry answered with an error.
    #[error("{doing} from {host}: it answered {status}{message}")]
    Status {
        /// As in "getting the manifest".
        doing: String,
        /// The host that was asked.
        host: String,
        /// As in "404 Not Found".
        status: String,
        /// What it said, in brackets, and what to try, after a `;`; either may be missing.
        message: String,
    },
    /// The registry does not say in a way known here how to get access.
    #[error("getting access to {host}: {what}")]
    Challenge {
        /// The host that was asked.
        host: String,
        /// What is wrong.
        what: String,
    },
    /// What came is not what was asked for.
    #[error("{what} should have the digest {expected}, but what {from} gave has {found}{advice}")]
    WrongDigest {
        /// As in "the manifest".
        what: String,
        /// Where it came from.
        from: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
        /// What to try, after a `;`, or nothing.
        advice: &'static str,
    },
    /// What came is longer than it should be or than anybody needs.
    #[error("{what} is longer than {limit_bytes} bytes, {limit}")]
    TooLong {
        /// As in "the manifest".
        what: String,
        /// The most it may have.
        limit_bytes: u64,
        /// Where that limit comes from.
        limit: &'static str,
    },
    /// A manifest, index or configuration is malformed, or of a kind that is no image.
    #[error("{what}{}: {problem}", of(digest))]
    Document {
        /// As in "the manifest".
        what: &'static str,
        /// Which, if it is known by its digest.
        digest: Option<Digest>,
        /// What is wrong with it.
        problem: String,
    },
    /// The image is not there for this machine.
    #[error(
        "there is none for {wanted}; {}",
        if available.is_empty() {
            "its index is empty".to_owned()
        } else {
            format!("there is one for {}", available.join(", "))
        }
    )]
    Platform {
        /// As in "linux/amd64".
        wanted: String,
        /// What there is.
        available: Vec<String>,
    },
    /// An OCI layout or archive is not what it should be.
    #[error("{}: {problem}", path.display())]
    Layout {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A layer cannot be unpacked.
    #[error("its layer {number} of {count} ({digest}) cannot be unpacked: {problem}")]
    Unpack {
        /// Counted from 1, the lowest first.
        number: usize,
        /// How many there are.
        count: usize,
        /// The digest that the manifest names.
        digest: Digest,
        /// What is wrong.
        problem: String,
    },
    /// A layer cannot be made of what was unpacked.
    #[error("its layer {number} of {count} ({digest}): {error}")]
    Layer {
        /// Counted from 1, the lowest first.
        number: usize,
        /// How many there are.
        count: usize,
        /// The digest that the manifest names.
        digest: Digest,
        /// What is wrong.
        error: Box<LayerError>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The credentials that are configured cannot be had.
    #[error("{}: {problem}", path.display())]
    Credentials {
        /// The file that configures them.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl Problem {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Problem {
        let path = path.to_owned();
        move |source| Problem::Io {
            action,
            path,
            source,
        }
    }
}

fn room(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room there, or set container-image-depot-root to another place"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; check its owner and permissions, or set container-image-depot-root to another place"
        }
        _ => "",
    }
}

fn of(digest: &Option<Digest>) -> String {
    digest
        .as_ref()
        .map(|digest| format!(" {digest}"))
        .unwrap_or_default()
}
