//! What a node remembers over a restart: the highest term, and where others were.

use crate::{MeshError, NodeId};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// How many peers are remembered.
pub(crate) const MAX_PEERS: usize = 64;

/// A file of more than this is none of ours.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// The highest term of an election.
    pub(crate) term: u64,
    /// The peers that were there last.
    pub(crate) peers: Vec<Peer>,
}

/// A node that was there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// Its public key in hexadecimal digits.
    pub(crate) id: String,
    /// Where it listened.
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Peer {
    pub(crate) fn new(id: NodeId, addresses: Vec<SocketAddr>) -> Self {
        Self {
            id: id.to_string(),
            addresses,
        }
    }

    pub(crate) fn id(&self) -> Option<NodeId> {
        let mut bytes = [0; 32];
        if self.id.len() != 64 || !self.id.is_ascii() {
            return None;
        }
        for (byte, digits) in bytes.iter_mut().zip(self.id.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(NodeId::from_bytes(bytes))
    }
}

/// Where it is kept.
#[derive(Debug)]
pub(crate) struct MemoryFile {
    path: PathBuf,
    written: Memory,
}

impl MemoryFile {
    /// Reads what an earlier start wrote. A damaged file is as good as none: all that is lost is
    /// where others were.
    pub(crate) fn open(dir: &Path) -> Result<Self, MeshError> {
        let path = dir.join("mesh.json");
        let failed = |action| {
            let path = path.clone();
            move |error| MeshError::State {
                action,
                path,
                error,
            }
        };
        fs::create_dir_all(dir).map_err(failed("making the directory of"))?;
        let written = match fs::metadata(&path) {
            Ok(metadata) if metadata.len() > MAX_FILE_BYTES => Memory::default(),
            Ok(_) => {
                let text = fs::read(&path).map_err(failed("reading"))?;
                serde_json::from_slice(&text).unwrap_or_default()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Memory::default(),
            Err(error) => return Err(failed("reading")(error)),
        };
        Ok(Self { path, written })
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.written
    }

    /// Writes it, if it has changed, so that a crash leaves the old or the new.
    pub(crate) fn write(&mut self, mut memory: Memory) -> io::Result<()> {
        memory.peers.truncate(MAX_PEERS);
        if memory == self.written {
            return Ok(());
        }
        let fresh = self.path.with_extension("json.new");
        fs::write(&fresh, serde_json::to_vec_pretty(&memory)?)?;
        fs::rename(&fresh, &self.path)?;
        self.written = memory;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_comes_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut file = MemoryFile::open(dir.path()).expect("an empty directory");
        assert_eq!(*file.memory(), Memory::default());
        let id = NodeId::from_bytes([0xa7; 32]);
        let memory = Memory {
            term: 7,
            peers: vec![Peer::new(
                id,
                vec!["10.0.0.1:7357".parse().expect("an address")],
            )],
        };
        file.write(memory.clone()).expect("it is written");
        let file = MemoryFile::open(dir.path()).expect("it is read");
        assert_eq!(*file.memory(), memory);
        assert_eq!(file.memory().peers[0].id(), Some(id));
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let dir = tempfile::tempdir().expect("a directory");
        for damaged in ["", "{", "[1]", "\u{1}"] {
            fs::write(dir.path().join("mesh.json"), damaged).expect("it is written");
            let file = MemoryFile::open(dir.path()).expect("it is overlooked");
            assert_eq!(*file.memory(), Memory::default());
        }
        let odd = Peer {
            id: "é".repeat(32),
            addresses: Vec::new(),
        };
        assert_eq!(odd.id(), None);
    }
}
