//! Where the socket is, and who may use it.

use crate::SessionError;
use rustix::{
    fs::{FlockOperation, flock},
    net::sockopt::socket_peercred,
    process::geteuid,
};
use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::{
        fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

/// Where the daemon of this user listens: `$XDG_RUNTIME_DIR/maelstrom/node.sock`, or below
/// `/tmp` where that is not set.
pub fn socket_path() -> PathBuf {
    let runtime = env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    match runtime {
        Some(directory) => directory.join("maelstrom"),
        None => PathBuf::from(format!("/tmp/maelstrom-{}", geteuid().as_raw())),
    }
    .join("node.sock")
}

/// A socket that this process has, alone, until it is dropped.
#[derive(Debug)]
pub struct Socket {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    /// Locked as long as the socket is in use, so that what a killed process left behind is told
    /// from what another uses.
    _lock: File,
}

impl Socket {
    /// Takes the socket. Clients that connect wait until there is a [`Server`](crate::Server).
    ///
    /// # Errors
    ///
    /// If another process has it, or its directory cannot be used.
    pub fn claim(path: &Path) -> Result<Self, SessionError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |error| SessionError::File {
                action,
                path,
                error,
            }
        };
        let directory = path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed("making the directory", directory))?;
        check_directory(directory)?;
        let lock_path = path.with_extension("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(failed("opening", &lock_path))?;
        if let Err(errno) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if errno != rustix::io::Errno::WOULDBLOCK {
                return Err(failed("locking", &lock_path)(errno.into()));
            }
            let mut text = String::new();
            let _ = lock.take(32).read_to_string(&mut text);
            return Err(SessionError::Taken {
                path: path.to_owned(),
                by: text.trim().parse().ok(),
            });
        }
        let note = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())
        };
        note(&mut lock).map_err(failed("writing", &lock_path))?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("removing", path)(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed("listening on", path))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The lock is still held: nobody else's socket is removed.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whoever may write to the directory could put another socket there.
fn check_directory(directory: &Path) -> Result<(), SessionError> {
    let wrong = |why: String| {
        Err(SessionError::Directory {
            path: directory.to_owned(),
            why,
        })
    };
    let metadata = fs::symlink_metadata(directory).map_err(|error| SessionError::File {
        action: "looking at",
        path: directory.to_owned(),
        error,
    })?;
    let us = geteuid().as_raw();
    if !metadata.is_dir() {
        return wrong("it is something else".to_owned());
    }
    if metadata.uid() != us {
        return wrong(format!("it belongs to user {}", metadata.uid()));
    }
    if metadata.mode() & 0o022 != 0 {
        return wrong(format!("its mode is {:03o}", metadata.mode() & 0o777));
    }
    Ok(())
}

/// Only processes of one's own user are talked to.
pub(crate) fn check_peer(stream: &UnixStream) -> Result<(), String> {
    let peer = socket_peercred(stream).map_err(|errno| {
        format!(
            "finding out whose process it is: {}",
            io::Error::from(errno)
        )
    })?;
    let (theirs, ours) = (peer.uid, geteuid());
    if theirs == ours {
        return Ok(());
    }
    Err(format!(
        "it is a process of user {}, not of user {}",
        theirs.as_raw(),
        ours.as_raw()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_socket_is_taken_once_and_left_behind_clean() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("maelstrom/node.sock");
        let socket = Socket::claim(&path).unwrap();
        let mode = fs::metadata(path.parent().unwrap()).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
        match Socket::claim(&path) {
            Err(SessionError::Taken { by, .. }) => assert_eq!(by, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(socket);
        assert!(!path.exists());
        // What a killed process leaves is in nobody's way.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        Socket::claim(&path).unwrap();
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("maelstrom");
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        let refused = Socket::claim(&directory.join("node.sock")).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("777"), "{text}");
        fs::remove_dir(&directory).unwrap();
        std::os::unix::fs::symlink(home.path(), &directory).unwrap();
        let refused = Socket::claim(&directory.join("node.sock")).unwrap_err();
        assert!(
            matches!(refused, SessionError::Directory { .. }),
            "{refused}"
        );
    }
}
