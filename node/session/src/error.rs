use std::{io, path::PathBuf};

/// Why a session could not be offered or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// A file or directory could not be used.
    #[error("{action} {path}: {error}", path = path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// The directory of the socket is not this user's alone.
    #[error(
        "{path} must be a directory of this user that nobody else can write to, but {why}; remove it, or set XDG_RUNTIME_DIR to another directory",
        path = path.display()
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What it is instead.
        why: String,
    },
    /// Somebody has the socket already.
    #[error(
        "a maelstrom-node of this user runs already{by}, on {path}; stop it first, or look at it with `maelstrom-node status`",
        by = by.map(|pid| format!(" (process {pid})")).unwrap_or_default(),
        path = path.display()
    )]
    Taken {
        /// The socket.
        path: PathBuf,
        /// The process that has it, if that is known.
        by: Option<u32>,
    },
    /// The other end speaks another version.
    #[error(
        "the maelstrom-node on {path} has version {theirs}, and this program has version {ours}; restart the older of the two after installing the same version",
        path = path.display()
    )]
    Version {
        /// The socket.
        path: PathBuf,
        /// What the other end said of itself.
        theirs: String,
        /// What this end is.
        ours: String,
    },
    /// The other end is no daemon, or went away.
    #[error("talking to the maelstrom-node on {path}: {why}", path = path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What happened.
        why: String,
    },
}
