//! Requests for a manifest and for ranges of a layer's contents: GET requests of iroh-blobs.
//!
//! A manifest is asked for as a blob by itself, contents as children of the layer's hash
//! sequence, so whoever asks for contents has to know the manifest.

use crate::{GROUP_BYTES, Plan};
use bao_tree::{ChunkNum, ChunkRanges};
use iroh_blobs::{
    Hash,
    protocol::{ChunkRangesSeq, GetRequest, Request},
};
use maelstrom_content::LayerId;
use maelstrom_pull::BlobRange;

/// The name of the protocol in a handshake.
pub const ALPN: &[u8] = iroh_blobs::ALPN;

/// The longest request that is read, in bytes.
pub const MAX_REQUEST_BYTES: usize = 1 << 20;

/// Contents stand in the hash sequence behind the manifest, which stands behind the sequence.
const FIRST_CONTENT: u64 = 2;

const CHUNK_BYTES: u64 = 1024;

/// The request for a manifest.
pub fn manifest(id: LayerId) -> Vec<u8> {
    encode(GetRequest::blob(Hash::from_bytes(*id.as_bytes())))
}

/// The request for ranges of contents, in order. Ranges of no bytes are left out.
pub fn ranges(plan: &Plan, ranges: &[BlobRange]) -> Vec<u8> {
    let mut specs: Vec<ChunkRanges> = Vec::new();
    for range in ranges.iter().filter(|range| !range.bytes.is_empty()) {
        let index = range.blob + FIRST_CONTENT as usize;
        specs.resize(index + 1, ChunkRanges::empty());
        specs[index] = chunks(range, plan.contents()[range.blob].bytes);
    }
    let sequence = Hash::from_bytes(*plan.sequence());
    encode(GetRequest::new(
        sequence,
        ChunkRangesSeq::from_ranges(specs),
    ))
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

fn encode(request: GetRequest) -> Vec<u8> {
    // Writing plain values to memory has nothing that could fail.
    postcard::to_stdvec(&Request::Get(request)).unwrap_or_default()
}

/// What a peer asks for.
#[derive(Clone, Debug)]
pub struct Asked(GetRequest);

impl Asked {
    /// Reads a request. Anything but a GET request is none.
    pub fn decode(bytes: &[u8]) -> Option<Asked> {
        match postcard::from_bytes(bytes) {
            Ok(Request::Get(request)) => Some(Asked(request)),
            _ => None,
        }
    }

    /// The hash that is asked for: of a manifest or of a hash sequence.
    pub fn hash(&self) -> &[u8; 32] {
        self.0.hash.as_bytes()
    }

    /// Whether it asks for the whole blob of this hash and nothing else.
    pub fn is_whole_blob(&self) -> bool {
        let mut asked = self.0.ranges.iter_non_empty_infinite();
        self.0.ranges.is_blob()
            && matches!(asked.next(), Some((0, ranges)) if ranges == &ChunkRanges::all())
    }

    /// The ranges of the contents of a layer that it asks for; nothing if it asks for something
    /// that is not there, or for several ranges of one blob.
    pub fn ranges(&self, plan: &Plan) -> Option<Vec<BlobRange>> {
        if self.hash() != plan.sequence() {
            return None;
        }
        let mut ranges = Vec::new();
        for (offset, chunks) in self.0.ranges.iter_non_empty_infinite() {
            let blob = usize::try_from(offset.checked_sub(FIRST_CONTENT)?).ok()?;
            let bytes = plan.contents().get(blob)?.bytes;
            let (start, end) = match chunks.boundaries() {
                [start] => (start.0.checked_mul(CHUNK_BYTES)?, bytes),
                [start, end] => (
                    start.0.checked_mul(CHUNK_BYTES)?,
                    end.0.checked_mul(CHUNK_BYTES)?.min(bytes),
                ),
                _ => return None,
            };
            if start >= end || !start.is_multiple_of(GROUP_BYTES) {
                return None;
            }
            ranges.push(BlobRange {
                blob,
                bytes: start..end,
            });
        }
        Some(ranges)
    }
}
