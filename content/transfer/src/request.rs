//! Requests for a manifest and for ranges of a layer's contents.
//!
//! A manifest is asked for by the layer's id; contents by the hash of the layer's hash sequence
//! and their place in it, so whoever asks for contents has to know the manifest. The answer has
//! the form of one to a GET request of iroh-blobs: of each blob its length and its bytes,
//! interleaved with the hashes that prove them.

use crate::{GROUP_BYTES, Plan};
use bao_tree::{ChunkNum, ChunkRanges};
use maelstrom_content::LayerId;
use maelstrom_pull::BlobRange;
use serde::{Deserialize, Serialize};

/// The longest request that is read, in bytes. A piece of a layer of nothing but files of one
/// byte takes half of it.
pub const MAX_REQUEST_BYTES: usize = 2 << 20;

const CHUNK_BYTES: u64 = 1024;

/// What a peer asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Asked {
    /// The manifest of a layer.
    Manifest(LayerId),
    /// Ranges of the contents of a layer.
    Ranges {
        /// The hash of the layer's hash sequence.
        sequence: [u8; 32],
        /// Of different blobs, in order.
        ranges: Vec<AskedRange>,
    },
}

/// A range of one blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedRange {
    /// How many blobs lie between it and the one before.
    skipped: u32,
    /// Its first byte.
    start: u64,
    /// How many bytes it has.
    bytes: u64,
}

/// The request for a manifest.
pub fn manifest(id: LayerId) -> Vec<u8> {
    encode(&Asked::Manifest(id))
}

/// The request for ranges of contents, in order. Ranges of no bytes are left out.
pub fn ranges(plan: &Plan, ranges: &[BlobRange]) -> Vec<u8> {
    let mut next = 0;
    let ranges = ranges.iter().filter(|range| !range.bytes.is_empty());
    let ranges = ranges.map(|range| {
        let skipped = (range.blob - next) as u32;
        next = range.blob + 1;
        AskedRange {
            skipped,
            start: range.bytes.start,
            bytes: range.bytes.end - range.bytes.start,
        }
    });
    encode(&Asked::Ranges {
        sequence: *plan.sequence(),
        ranges: ranges.collect(),
    })
}

/// The chunks of a range. One that reaches to the end of its blob is open, as it must be.
pub(crate) fn chunks(range: &BlobRange, blob_bytes: u64) -> ChunkRanges {
    let start = ChunkNum(range.bytes.start / CHUNK_BYTES);
    if range.bytes.end >= blob_bytes {
        ChunkRanges::from(start..)
    } else {
        ChunkRanges::from(start..ChunkNum(range.bytes.end.div_ceil(CHUNK_BYTES)))
    }
}

fn encode(request: &Asked) -> Vec<u8> {
    // Writing plain values to memory has nothing that could fail.
    postcard::to_stdvec(request).unwrap_or_default()
}

impl Asked {
    /// Reads a request. Nothing may follow it.
    pub fn decode(bytes: &[u8]) -> Option<Asked> {
        match postcard::take_from_bytes(bytes) {
            Ok((asked, [])) => Some(asked),
            _ => None,
        }
    }

    /// The hash of the hash sequence of whose contents it asks for ranges.
    pub fn sequence(&self) -> Option<&[u8; 32]> {
        match self {
            Asked::Manifest(_) => None,
            Asked::Ranges { sequence, .. } => Some(sequence),
        }
    }

    /// The ranges of the contents of a layer that it asks for; nothing if it asks for something
    /// that is not there.
    pub fn ranges(&self, plan: &Plan) -> Option<Vec<BlobRange>> {
        let Asked::Ranges { sequence, ranges } = self else {
            return None;
        };
        if sequence != plan.sequence() {
            return None;
        }
        let mut next = 0_usize;
        let ranges = ranges.iter().map(|range| {
            let blob = next.checked_add(range.skipped as usize)?;
            next = blob.checked_add(1)?;
            let bytes = range.start..range.start.checked_add(range.bytes)?;
            let inside = bytes.end <= plan.contents().get(blob)?.bytes;
            let aligned = bytes.start.is_multiple_of(GROUP_BYTES);
            (inside && aligned && !bytes.is_empty()).then_some(BlobRange { blob, bytes })
        });
        ranges.collect()
    }
}
