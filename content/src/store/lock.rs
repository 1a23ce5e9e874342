//! Advisory locks between processes. The system drops them when their holder dies.

use crate::StoreError;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use std::{
    fs::{File, OpenOptions},
    io,
    path::Path,
};

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for a lock that others may share.
    pub(crate) fn shared(path: &Path) -> Result<Lock, StoreError> {
        let file = open(path)?;
        wait(&file, FlockOperation::LockShared).map_err(StoreError::io("lock", path))?;
        Ok(Lock { _file: file })
    }

    /// Waits for a lock that excludes all others.
    pub(crate) fn exclusive(path: &Path) -> Result<Lock, StoreError> {
        let file = open(path)?;
        wait(&file, FlockOperation::LockExclusive).map_err(StoreError::io("lock", path))?;
        Ok(Lock { _file: file })
    }

    /// A lock that excludes all others, if it is to be had right now.
    pub(crate) fn try_exclusive(path: &Path) -> Result<Option<Lock>, StoreError> {
        let file = open(path)?;
        let free = try_lock(&file).map_err(StoreError::io("lock", path))?;
        Ok(free.then_some(Lock { _file: file }))
    }
}

/// Locks an open file for oneself, unless someone else has; does not wait.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    match wait(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(StoreError::io("open", path))
}

fn wait(file: &File, operation: FlockOperation) -> io::Result<()> {
    loop {
        match flock(file, operation) {
            Err(Errno::INTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}
