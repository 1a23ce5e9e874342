//! How many bytes the store uses, without counting them each time: a file of differences that
//! every process appends to. Its sum is right up to what a killed process did not get to
//! write; evicting counts anew.

use super::{layout::Layout, process::Process};
use crate::StoreError;
use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    sync::atomic::{AtomicI64, Ordering},
};

/// Space is given out in blocks of this many bytes.
const BLOCK_BYTES: u64 = 4096;

/// A longer log is replaced by its sum.
const MAX_LOG_BYTES: usize = 64 << 10;

/// What a file of this length takes of the disk, about.
pub(crate) fn file_cost(size_bytes: u64) -> u64 {
    // The second block stands for its inode and directory entry.
    size_bytes.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES) + BLOCK_BYTES / 8
}

/// What a manifest and its tree of hard links and directories take of the disk, about.
pub(crate) fn layer_cost(manifest_bytes: u64) -> u64 {
    file_cost(manifest_bytes) + 4 * manifest_bytes
}

/// What this process has added and not yet written down.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    pending: AtomicI64,
}

impl Usage {
    pub(crate) fn add(&self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.pending.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Writes the difference down. Only under the store's lock, shared or exclusive.
    pub(crate) fn flush(&self, layout: &Layout) -> Result<(), StoreError> {
        let difference = self.pending.swap(0, Ordering::Relaxed);
        if difference == 0 {
            return Ok(());
        }
        let path = layout.usage();
        // One short write to a file opened for appending is never mixed with another's.
        let result = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .and_then(|mut file| file.write_all(&difference.to_le_bytes()));
        result.map_err(|error| {
            self.pending.fetch_add(difference, Ordering::Relaxed);
            StoreError::io("write", path)(error)
        })
    }

    /// The sum; nothing if it is time to count anew.
    pub(crate) fn total(&self, layout: &Layout) -> Result<Option<u64>, StoreError> {
        match fs::read(layout.usage()) {
            Ok(bytes) if bytes.len() > MAX_LOG_BYTES => Ok(None),
            Ok(bytes) => {
                let sum = bytes.as_chunks::<8>().0.iter().fold(0i64, |sum, chunk| {
                    sum.saturating_add(i64::from_le_bytes(*chunk))
                });
                Ok(Some(u64::try_from(sum).unwrap_or(0)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::io("read", layout.usage())(source)),
        }
    }

    /// Replaces the sum by what was counted. Only under the store's exclusive lock.
    pub(crate) fn reset(
        &self,
        layout: &Layout,
        process: &Process,
        total_bytes: u64,
    ) -> Result<(), StoreError> {
        self.pending.store(0, Ordering::Relaxed);
        let total = i64::try_from(total_bytes).unwrap_or(i64::MAX);
        let tmp = process.tmp_path();
        fs::write(&tmp, total.to_le_bytes()).map_err(StoreError::io("write", &tmp))?;
        let path = layout.usage();
        fs::rename(&tmp, &path).map_err(StoreError::io("replace", path))
    }
}
