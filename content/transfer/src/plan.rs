//! What of a layer is where: everything that follows from its manifest alone.

use crate::{BLOCK, GROUP_BYTES, TransferError, tree::tree_bytes};
use bao_tree::BaoTree;
use bytes::Bytes;
use maelstrom_content::{ContentHash, Entry, EntryKind, LayerId, Manifest, Store};
use maelstrom_pull::{BlobRange, Layout};
use std::collections::HashMap;

/// The disk gives out blocks of this many bytes.
const BLOCK_BYTES: u64 = 4096;

/// One of the different contents of a layer's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Their hash.
    pub hash: ContentHash,
    /// Their length in bytes.
    pub bytes: u64,
    /// Where their hash tree begins among the trees of the layer, in bytes.
    pub(crate) tree_at: u64,
    /// An entry of the manifest that has them; one that its owner may read, if there is one.
    entry: usize,
}

/// A layer's contents, how they are cut into pieces, and where their hash trees are kept.
#[derive(Debug)]
pub struct Plan {
    id: LayerId,
    encoded: Bytes,
    manifest: Manifest,
    contents: Vec<Content>,
    layout: Layout,
    tree_bytes: u64,
    sequence: [u8; 32],
}

impl Plan {
    /// Plans a layer by its encoded manifest, which may come from anyone.
    pub fn new(id: LayerId, encoded: Bytes) -> Result<Plan, TransferError> {
        let found = LayerId::of(&encoded);
        if found != id {
            return Err(maelstrom_content::StoreError::WrongLayer {
                expected: id,
                found,
            }
            .into());
        }
        let manifest = Manifest::decode(&encoded)
            .map_err(|problem| TransferError::Manifest { id, problem })?;
        let mut readers: HashMap<ContentHash, usize> = HashMap::new();
        for (index, entry) in manifest.entries().iter().enumerate() {
            if let EntryKind::File { content, .. } = entry.kind {
                let known = readers.entry(content).or_insert(index);
                if manifest.entries()[*known].mode & 0o400 == 0 && entry.mode & 0o400 != 0 {
                    *known = index;
                }
            }
        }
        let mut sequence = blake3::Hasher::new();
        sequence.update(id.as_bytes());
        let mut trees = 0;
        let contents: Vec<Content> = manifest
            .contents()
            .into_iter()
            .map(|(hash, bytes)| {
                sequence.update(hash.as_bytes());
                let tree_at = trees;
                trees += tree_bytes(bytes);
                Content {
                    hash,
                    bytes,
                    tree_at,
                    entry: readers[&hash],
                }
            })
            .collect();
        let layout = Layout::new(contents.iter().map(|content| content.bytes).collect())
            .map_err(|problem| TransferError::Layout { id, problem })?;
        Ok(Plan {
            id,
            encoded,
            manifest,
            contents,
            layout,
            tree_bytes: trees,
            sequence: *sequence.finalize().as_bytes(),
        })
    }

    /// The layer.
    pub fn id(&self) -> LayerId {
        self.id
    }

    /// The encoded manifest.
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// The different contents, sorted by hash.
    pub fn contents(&self) -> &[Content] {
        &self.contents
    }

    /// How they are cut into pieces.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The hash of the hash sequence: what requests for ranges of the layer name.
    pub fn sequence(&self) -> &[u8; 32] {
        &self.sequence
    }

    /// How much the disk has to have for the layer to come, in bytes: what the store has of it
    /// already is left out.
    pub fn missing_bytes(&self, store: &Store) -> Result<u64, TransferError> {
        let missing = store.import(self.id, &self.encoded)?.missing();
        let contents = missing.iter().fold(0, |sum: u64, (_, bytes)| {
            sum.saturating_add(bytes.next_multiple_of(BLOCK_BYTES))
        });
        let beside = self.tree_bytes + 2 * self.encoded.len() as u64;
        Ok(contents.saturating_add(beside))
    }

    pub(crate) fn all_tree_bytes(&self) -> u64 {
        self.tree_bytes
    }

    pub(crate) fn entry(&self, blob: usize) -> &Entry {
        &self.manifest.entries()[self.contents[blob].entry]
    }

    pub(crate) fn tree(&self, blob: usize) -> BaoTree {
        BaoTree::new(self.contents[blob].bytes, BLOCK)
    }

    pub(crate) fn root(&self, blob: usize) -> blake3::Hash {
        blake3::Hash::from_bytes(*self.contents[blob].hash.as_bytes())
    }

    /// The piece that these ranges are a part of, if there is one. Ranges that begin or end
    /// inside a leaf of the hash tree are part of none.
    pub fn piece_of(&self, ranges: &[BlobRange]) -> Option<usize> {
        let first = ranges.first()?;
        let piece = self.layout.piece_at(first.blob, first.bytes.start)?;
        let mut whole = self.layout.ranges(piece).into_iter();
        for range in ranges {
            let around = whole.find(|whole| whole.blob == range.blob)?;
            let bytes = &range.bytes;
            let inside = around.bytes.start <= bytes.start && bytes.end <= around.bytes.end;
            let aligned = bytes.start.is_multiple_of(GROUP_BYTES)
                && (bytes.end.is_multiple_of(GROUP_BYTES)
                    || bytes.end == self.contents[range.blob].bytes);
            if !inside || !aligned || bytes.is_empty() {
                return None;
            }
        }
        Some(piece)
    }
}
