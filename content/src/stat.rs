//! What the system tells about a file without opening it.

use crate::manifest::Timestamp;
use std::{fs::Metadata, os::unix::fs::MetadataExt};

/// What names a version of a file: while none of this changes, its contents are taken to be
/// the same (but see `digests` about files that were modified just now).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size_bytes: u64,
    /// Nanoseconds since 1970.
    pub(crate) modified_ns: i64,
    /// Nanoseconds since 1970.
    pub(crate) changed_ns: i64,
}

/// What a layer takes over from a file, and its stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileStat {
    pub(crate) stamp: Stamp,
    pub(crate) mode: u32,
    pub(crate) modified: Timestamp,
}

impl FileStat {
    pub(crate) fn new(metadata: &Metadata) -> FileStat {
        FileStat {
            stamp: Stamp {
                device: metadata.dev(),
                inode: metadata.ino(),
                size_bytes: metadata.size(),
                modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
                changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            },
            mode: metadata.mode() & 0o7777,
            modified: modified(metadata),
        }
    }
}

/// When the file was last modified.
pub(crate) fn modified(metadata: &Metadata) -> Timestamp {
    Timestamp {
        seconds: metadata.mtime(),
        nanoseconds: u32::try_from(metadata.mtime_nsec())
            .unwrap_or(0)
            .min(999_999_999),
    }
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

/// "a socket", "a named pipe", …, for what a layer cannot hold.
pub(crate) fn special(file_type: std::fs::FileType) -> Option<&'static str> {
    use std::os::unix::fs::FileTypeExt;
    if file_type.is_socket() {
        Some("a socket")
    } else if file_type.is_fifo() {
        Some("a named pipe")
    } else if file_type.is_block_device() {
        Some("a block device")
    } else if file_type.is_char_device() {
        Some("a character device")
    } else {
        None
    }
}
