//! Locked and bounded files.

use crate::Problem;
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
};

/// Opens a file for reading and writing, created if missing, and waits until nobody else has it
/// locked. It is unlocked when it is closed. `waiting` is called if it takes waiting.
pub(crate) fn lock(path: &Path, waiting: impl FnOnce()) -> Result<File, Problem> {
    let mut waiting = Some(waiting);
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(Problem::io("open", path))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            if let Some(waiting) = waiting.take() {
                waiting();
            }
            retrying(|| flock(&file, FlockOperation::LockExclusive))
                .map_err(Problem::io("lock", path))?;
        }
        // Whoever had it may have removed or replaced it.
        let ours = file.metadata().map_err(Problem::io("read", path))?;
        match fs::metadata(path) {
            Ok(there) if there.ino() == ours.ino() && there.dev() == ours.dev() => {
                return Ok(file);
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Problem::io("read", path)(source)),
        }
    }
}

/// Waits until nobody writes to a file. It may be read until it is closed.
pub(crate) fn lock_shared(file: &File, path: &Path) -> Result<(), Problem> {
    retrying(|| flock(file, FlockOperation::LockShared)).map_err(Problem::io("lock", path))
}

fn retrying(mut call: impl FnMut() -> rustix::io::Result<()>) -> io::Result<()> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map_err(Into::into),
        }
    }
}

/// Reads a file of at most so many bytes. `None` if there is none.
pub(crate) fn read_bounded(path: &Path, limit_bytes: u64) -> Result<Option<Vec<u8>>, Problem> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Problem::io("read", path)(source)),
    };
    let bytes = read_all(file, limit_bytes).map_err(Problem::io("read", path))?;
    match bytes {
        Some(bytes) => Ok(Some(bytes)),
        None => Err(Problem::TooLong {
            what: path.display().to_string(),
            limit_bytes,
            limit: "which is the most that such a file may have",
        }),
    }
}

/// Everything that a reader gives; `None` if that is more than so many bytes.
pub(crate) fn read_all(reader: impl Read, limit_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    reader.take(limit_bytes + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit_bytes).then_some(bytes))
}

/// Puts a file in place whole.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Problem> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let file = tempfile::Builder::new()
        .prefix(".new-")
        .tempfile_in(directory)
        .map_err(Problem::io("write in", directory))?;
    fs::write(file.path(), bytes).map_err(Problem::io("write", file.path()))?;
    persist(file, path)
}

/// Moves a temporary file to where it is to stay, readable as other files are.
pub(crate) fn persist(file: tempfile::NamedTempFile, path: &Path) -> Result<(), Problem> {
    use std::os::unix::fs::PermissionsExt;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))
        .map_err(Problem::io("write", path))?;
    file.persist(path)
        .map_err(|error| Problem::io("create", path)(error.error))?;
    Ok(())
}
