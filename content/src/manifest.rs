//! What a layer is: a sorted list of entries, and the hash of its encoding.
//!
//! Encoding: one version byte, then the entries in postcard. Equal layers have equal
//! encodings, so the hash of the encoding names the layer on every machine. What
//! [`Manifest::decode`] accepts may come from anyone; it upholds everything listed at
//! [`Manifest`].

use crate::{ContentHash, LayerId, path};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{cmp::Ordering, ffi::OsStr, fmt, os::unix::ffi::OsStrExt, path::Path};

const VERSION: u8 = 1;

/// The longest encoding that is accepted, in bytes.
pub const MAX_MANIFEST_BYTES: usize = 256 << 20;

/// A directory mode plus type-free permission bits: the twelve lowest bits.
const MODE_MASK: u32 = 0o7777;

/// A moment, as file systems store it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 UTC.
    pub seconds: i64,
    /// Nanoseconds after that, below 1,000,000,000.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// What modification times are set to unless they are kept: 2024-01-11 UTC.
    pub const NORMAL: Timestamp = Timestamp {
        seconds: 1_704_931_200,
        nanoseconds: 0,
    };

    /// Whether a file that was given this time may have `found` afterwards. File systems cut
    /// off fractions of seconds, and have a first and a last moment.
    pub(crate) fn is_kept_as(self, found: Timestamp) -> bool {
        let everywhere = 0..=i64::from(i32::MAX);
        !everywhere.contains(&self.seconds)
            || (self.seconds == found.seconds && found.nanoseconds <= self.nanoseconds)
    }
}

/// A path inside a layer: relative to its root, without empty, `.` and `..` components, and
/// not empty. Any other bytes are allowed, also such that are not UTF-8.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EntryPath(Box<[u8]>);

impl EntryPath {
    /// Checks that `bytes` are such a path.
    pub fn new(bytes: &[u8]) -> Result<EntryPath, ManifestError> {
        path::check(bytes).map_err(|problem| ManifestError::Path {
            path: path::display(bytes),
            problem,
        })?;
        Ok(EntryPath(bytes.into()))
    }

    /// The bytes of the path, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path, without a leading slash.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    fn parent(&self) -> Option<&[u8]> {
        path::parent(&self.0)
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_path())
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", path::display(&self.0))
    }
}

/// Parents stand before what they hold, and each directory's contents stand together.
impl Ord for EntryPath {
    fn cmp(&self, other: &Self) -> Ordering {
        path::compare(&self.0, &other.0)
    }
}

impl PartialOrd for EntryPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// A regular file.
    File {
        /// The hash of its contents.
        content: ContentHash,
        /// Their length in bytes.
        size_bytes: u64,
    },
    /// A directory.
    Directory {
        /// Whether it hides what the layers below have in a directory of this path.
        opaque: bool,
    },
    /// A symbolic link.
    Symlink {
        /// What it says.
        target: Bytes,
    },
    /// Hides what the layers below have at this path.
    Whiteout,
}

/// One path of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where.
    pub path: EntryPath,
    /// Permission bits, set-id and sticky bits. Always `0o777` for symbolic links and 0 for
    /// whiteouts.
    pub mode: u32,
    /// When it was last modified.
    pub modified: Timestamp,
    /// What.
    pub kind: EntryKind,
}

/// A byte string that encodes compactly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes(pub Box<[u8]>);

/// The entries of a layer.
///
/// They are strictly sorted; each one's parent is a directory of the same layer (or the
/// root, which has no entry); paths stay inside the layer, are at most 4,095 bytes long with
/// components of at most 255; link targets have 1 to 4,095 bytes; modes have only permission
/// bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    entries: Vec<Entry>,
}

/// Why something is no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Longer than [`MAX_MANIFEST_BYTES`].
    #[error("a layer manifest of {0} bytes is too long; the most is {MAX_MANIFEST_BYTES}")]
    TooLong(usize),
    /// Another version, or no manifest at all.
    #[error("layer manifest version {0:?} is unknown; this program reads version {VERSION}")]
    Version(Option<u8>),
    /// The bytes do not decode.
    #[error("the layer manifest is malformed: {0}")]
    Malformed(String),
    /// A path that may not be in a layer.
    #[error("`{path}` cannot be the path of a layer's entry: {problem}")]
    Path {
        /// The path, made printable.
        path: String,
        /// What is wrong with it.
        problem: path::PathProblem,
    },
    /// Out of order, or twice the same.
    #[error("`{0}` is out of order in the layer manifest")]
    Order(String),
    /// The parent is missing, or is not a directory.
    #[error("`{0}` is in the layer manifest, but its parent directory is not")]
    Parent(String),
    /// A mode with foreign bits, a bad time stamp, a bad link target, …
    #[error("`{path}` in the layer manifest has {problem}")]
    Attribute {
        /// The path, made printable.
        path: String,
        /// What is wrong.
        problem: &'static str,
    },
}

impl Manifest {
    /// Sorts and checks the entries.
    pub fn new(mut entries: Vec<Entry>) -> Result<Manifest, ManifestError> {
        if !entries.is_sorted_by(|a, b| a.path < b.path) {
            entries.sort_by(|a, b| a.path.cmp(&b.path));
        }
        check(&entries)?;
        Ok(Manifest { entries })
    }

    /// The entries, sorted; parents before what they hold.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry at a path, given without a leading slash.
    pub fn get(&self, path: impl AsRef<Path>) -> Option<&Entry> {
        let path = path.as_ref().as_os_str().as_bytes();
        self.entries
            .binary_search_by(|entry| path::compare(entry.path.as_bytes(), path))
            .ok()
            .map(|index| &self.entries[index])
    }

    /// The different contents of the files with their lengths in bytes, sorted by hash.
    pub fn contents(&self) -> Vec<(ContentHash, u64)> {
        let mut contents: Vec<_> = self
            .entries
            .iter()
            .filter_map(|entry| match entry.kind {
                EntryKind::File {
                    content,
                    size_bytes,
                } => Some((content, size_bytes)),
                _ => None,
            })
            .collect();
        contents.sort_unstable();
        contents.dedup_by_key(|(content, _)| *content);
        contents
    }

    /// The encoding whose hash is the layer's id.
    pub fn encode(&self) -> Vec<u8> {
        let mut buffer = Vec::with_capacity(1 + self.entries.len() * 96);
        buffer.push(VERSION);
        // Writing plain values to memory has nothing that could fail.
        postcard::to_extend(&self.entries, buffer).unwrap_or_default()
    }

    /// The id of the layer. Encodes: keep it rather than asking twice.
    pub fn id(&self) -> LayerId {
        LayerId::of(&self.encode())
    }

    /// Reads an encoding that may come from anyone. Only canonical encodings are accepted, so
    /// one layer cannot have two ids.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLong(bytes.len()));
        }
        let Some((&VERSION, body)) = bytes.split_first() else {
            return Err(ManifestError::Version(bytes.first().copied()));
        };
        let (entries, rest) = postcard::take_from_bytes::<Vec<Entry>>(body)
            .map_err(|error| ManifestError::Malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(ManifestError::Malformed(format!(
                "{} bytes follow its end",
                rest.len()
            )));
        }
        check(&entries)?;
        let manifest = Manifest { entries };
        if manifest.encode() != bytes {
            return Err(ManifestError::Malformed(
                "it is not in canonical form".into(),
            ));
        }
        Ok(manifest)
    }
}

/// Everything that [`Manifest`] promises.
fn check(entries: &[Entry]) -> Result<(), ManifestError> {
    // The chain of directories that the current entry may stand in.
    let mut open: Vec<&[u8]> = Vec::new();
    let mut previous: Option<&EntryPath> = None;
    for entry in entries {
        if previous.is_some_and(|previous| *previous >= entry.path) {
            return Err(ManifestError::Order(entry.path.to_string()));
        }
        previous = Some(&entry.path);
        match entry.path.parent() {
            None => open.clear(),
            Some(parent) => {
                while open.last().is_some_and(|directory| *directory != parent) {
                    open.pop();
                }
                if open.is_empty() {
                    return Err(ManifestError::Parent(entry.path.to_string()));
                }
            }
        }
        if matches!(entry.kind, EntryKind::Directory { .. }) {
            open.push(entry.path.as_bytes());
        }
        check_attributes(entry)?;
    }
    Ok(())
}

fn check_attributes(entry: &Entry) -> Result<(), ManifestError> {
    let bad = |problem| {
        Err(ManifestError::Attribute {
            path: entry.path.to_string(),
            problem,
        })
    };
    if entry.modified.nanoseconds >= 1_000_000_000 {
        return bad("a modification time with more than 999,999,999 nanoseconds");
    }
    match &entry.kind {
        EntryKind::File { size_bytes, .. } if *size_bytes > i64::MAX as u64 => {
            bad("a size that no file can have")
        }
        EntryKind::Symlink { .. } if entry.mode != 0o777 => bad("a mode that no link has"),
        EntryKind::Whiteout if entry.mode != 0 => bad("a mode that no whiteout has"),
        EntryKind::Symlink { target } if target.0.is_empty() => bad("an empty link target"),
        EntryKind::Symlink { target } if target.0.len() > path::MAX_PATH_BYTES => {
            bad("a link target longer than 4,095 bytes")
        }
        EntryKind::Symlink { target } if target.0.contains(&0) => {
            bad("a link target with a zero byte")
        }
        _ if entry.mode & !MODE_MASK != 0 => bad("a mode with more than permission bits"),
        _ => Ok(()),
    }
}

impl Serialize for EntryPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for EntryPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Bytes(bytes) = Bytes::deserialize(deserializer)?;
        path::check(&bytes).map_err(|problem| {
            de::Error::custom(format_args!("path `{}`: {problem}", path::display(&bytes)))
        })?;
        Ok(EntryPath(bytes))
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.into()))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

pub(crate) fn display_path(path: &[u8]) -> String {
    path::display(path)
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
