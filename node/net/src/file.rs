//! Key files: one word in a file that only its owner may write.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::text::TextError;

/// The longest key file, in bytes: a key, and room for comments.
const MAX_FILE_BYTES: u64 = 16 << 10;

/// Who besides the owner may read a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    Owner,
    Group,
}

/// Why a key file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The operating system refused.
    #[error("cannot {doing} {what} {path:?}: {error}")]
    Io {
        /// `read` or `create`.
        doing: &'static str,
        /// Which kind of key.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
    /// The file is there, and not usable.
    #[error("{path:?} cannot be used as {what}: {reason}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Which kind of key.
        what: &'static str,
        /// Why, and what to do.
        reason: String,
    },
}

impl KeyFileError {
    fn unusable(path: &Path, what: &'static str, reason: impl Into<String>) -> Self {
        Self::Unusable {
            path: path.to_owned(),
            what,
            reason: reason.into(),
        }
    }

    pub(crate) fn not_a_key(path: &Path, what: &'static str, error: TextError) -> Self {
        Self::unusable(path, what, error.to_string())
    }

    fn is_missing_file(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

/// The one line of a key file that isn't empty or a comment (`#`).
pub(crate) fn load(
    path: &Path,
    what: &'static str,
    readers: Readers,
) -> Result<String, KeyFileError> {
    let io = |error| KeyFileError::Io {
        doing: "read",
        what,
        path: path.to_owned(),
        error,
    };
    let unusable = |reason: String| KeyFileError::unusable(path, what, reason);

    // A named pipe would block the opening.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(path)
        .map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(unusable("it is not a regular file".into()));
    }
    let mode = metadata.permissions().mode();
    if readers == Readers::Owner && mode & 0o077 != 0 {
        return Err(unusable(format!(
            "others than its owner may use it: chmod go-rwx {path:?}"
        )));
    }
    if mode & 0o022 != 0 {
        return Err(unusable(format!(
            "others than its owner may write it: chmod go-w {path:?}"
        )));
    }
    if mode & 0o007 != 0 {
        return Err(unusable(format!(
            "everybody on this machine may read it: chmod o-rwx {path:?}"
        )));
    }

    let mut text = String::new();
    let mut bounded = (&mut file).take(MAX_FILE_BYTES + 1);
    match bounded.read_to_string(&mut text) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(unusable("it is not text".into()));
        }
        Err(error) => return Err(io(error)),
    }
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(unusable(format!(
            "it is longer than {MAX_FILE_BYTES} bytes, and a key takes one line"
        )));
    }
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let line = lines.next().unwrap_or_default().to_owned();
    if lines.next().is_some() {
        return Err(unusable(
            "it has more than one line, and a key takes one".into(),
        ));
    }
    Ok(line)
}

/// As [`load`], and first makes the file where there is none. Says whether this call made it.
pub(crate) fn load_or_create(
    path: &Path,
    what: &'static str,
    readers: Readers,
    make: impl FnOnce() -> String,
) -> Result<(String, bool), KeyFileError> {
    match load(path, what, readers) {
        Err(error) if error.is_missing_file() => {}
        result => return result.map(|text| (text, false)),
    }
    let created = create(path, &make()).map_err(|error| KeyFileError::Io {
        doing: "create",
        what,
        path: path.to_owned(),
        error,
    })?;
    Ok((load(path, what, readers)?, created))
}

/// Makes the file in one step, so that nobody reads half a key; false where another process
/// has just made it.
fn create(path: &Path, text: &str) -> io::Result<bool> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(parent)?;
    let temporary = parent.join(format!(".key-{:016x}", rand::random::<u64>()));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    let written = file
        .write_all(format!("{text}\n").as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::hard_link(&temporary, path));
    let removed = std::fs::remove_file(&temporary);
    let created = match written {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error),
    };
    removed?;
    // The name survives a crash of the machine, too.
    File::open(parent)?.sync_all()?;
    Ok(created)
}
