//! How a bundle of blobs is cut into pieces.

use crate::Pieces;
use std::ops::Range;

/// The most pieces of a bundle.
pub const MAX_PIECES: usize = 4096;
/// Pieces are no shorter than this, but for the last.
pub const MIN_PIECE_BYTES: u64 = 256 << 10;
/// The most blobs of a bundle.
pub const MAX_BLOBS: usize = 1 << 20;
/// Hash trees verify data in groups of this many bytes: pieces of a blob begin at a multiple.
pub const GROUP_BYTES: u64 = 16 << 10;

/// About how many pieces a large bundle is cut into.
const TARGET_PIECES: u64 = 1024;

/// The pieces of a bundle: its blobs in order, cut into runs of about the same length. A large
/// blob takes many pieces, many small ones share a piece.
///
/// It follows from the lengths of the blobs alone, so every node cuts alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    blob_bytes: Vec<u64>,
    /// Where each piece begins; the end of the last is the end of the last blob.
    starts: Vec<(u32, u64)>,
    piece_bytes: u64,
    total_bytes: u64,
}

/// A part of one blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRange {
    /// The blob's position in the bundle.
    pub blob: usize,
    /// Which of its bytes. Empty only for an empty blob.
    pub bytes: Range<u64>,
}

/// Why a bundle cannot be pulled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Too many blobs.
    #[error("the layer has {blobs} files with contents, more than the limit of {MAX_BLOBS}")]
    Blobs {
        /// How many.
        blobs: usize,
    },
    /// The lengths add up to more than 64 bits hold.
    #[error("the layer's files are longer than any disk")]
    Length,
}

impl Layout {
    /// Cuts blobs of these lengths, in bytes.
    ///
    /// # Errors
    /// Where there are more than [`MAX_BLOBS`], or their length overflows.
    pub fn new(blob_bytes: Vec<u64>) -> Result<Self, LayoutError> {
        if blob_bytes.len() > MAX_BLOBS {
            return Err(LayoutError::Blobs {
                blobs: blob_bytes.len(),
            });
        }
        let total = blob_bytes
            .iter()
            .try_fold(0_u64, |sum, &bytes| sum.checked_add(bytes));
        let total_bytes = total
            .filter(|&total| total < 1 << 60)
            .ok_or(LayoutError::Length)?;
        let piece_bytes = (total_bytes / TARGET_PIECES)
            .next_power_of_two()
            .max(MIN_PIECE_BYTES);
        let mut starts = Vec::new();
        // How many bytes the open piece has; a full one is closed by what comes next.
        let mut filled = piece_bytes;
        for (blob, &bytes) in blob_bytes.iter().enumerate() {
            let mut at = 0;
            loop {
                if filled >= piece_bytes {
                    starts.push((blob as u32, at));
                    filled = 0;
                }
                let room = (piece_bytes - filled).next_multiple_of(GROUP_BYTES);
                let taken = room.min(bytes - at);
                filled += taken;
                at += taken;
                if at == bytes {
                    break;
                }
            }
        }
        debug_assert!(starts.len() <= MAX_PIECES, "{} pieces", starts.len());
        Ok(Layout {
            blob_bytes,
            starts,
            piece_bytes,
            total_bytes,
        })
    }

    /// How many pieces there are.
    pub fn pieces(&self) -> usize {
        self.starts.len()
    }

    /// About how long a piece is.
    pub fn piece_bytes(&self) -> u64 {
        self.piece_bytes
    }

    /// How long all blobs are together.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// What a piece consists of; nothing if there is no such piece.
    pub fn ranges(&self, piece: usize) -> Vec<BlobRange> {
        let Some(&(first, start)) = self.starts.get(piece) else {
            return Vec::new();
        };
        let end = self.starts.get(piece + 1).copied();
        let (last, last_end) = end.unwrap_or((self.blob_bytes.len() as u32, 0));
        let mut ranges = Vec::new();
        for blob in first..=last {
            let Some(&bytes) = self.blob_bytes.get(blob as usize) else {
                break;
            };
            let from = if blob == first { start } else { 0 };
            let to = if blob == last { last_end } else { bytes };
            if from < to || (bytes == 0 && blob != last) {
                ranges.push(BlobRange {
                    blob: blob as usize,
                    bytes: from..to,
                });
            }
        }
        ranges
    }

    /// The piece that a byte of a blob is in; for the byte after its last, the last piece that
    /// has any of it.
    pub fn piece_at(&self, blob: usize, byte: u64) -> Option<usize> {
        if byte > *self.blob_bytes.get(blob)? {
            return None;
        }
        let place = (u32::try_from(blob).ok()?, byte);
        self.starts
            .partition_point(|start| *start <= place)
            .checked_sub(1)
    }

    /// How long these pieces are together.
    pub fn sum_bytes(&self, pieces: &Pieces) -> u64 {
        if pieces.len() == self.pieces() {
            return self.total_bytes;
        }
        pieces.iter().map(|piece| self.bytes(piece)).sum()
    }

    /// How long a piece is.
    pub fn bytes(&self, piece: usize) -> u64 {
        self.ranges(piece)
            .iter()
            .map(|range| range.bytes.end - range.bytes.start)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_large_blob_takes_many_pieces() {
        let layout = Layout::new(vec![1 << 30]).unwrap();
        assert_eq!((layout.pieces(), layout.piece_bytes()), (1024, 1 << 20));
        assert_eq!(
            layout.ranges(3),
            [BlobRange {
                blob: 0,
                bytes: 3 << 20..4 << 20
            }]
        );
        assert_eq!(layout.ranges(1024), []);
    }

    #[test]
    fn small_blobs_share_a_piece() {
        let layout = Layout::new(vec![4096; 10_000]).unwrap();
        assert_eq!(layout.ranges(0).len(), 64);
        assert_eq!(layout.pieces(), 10_000_usize.div_ceil(64));
    }

    #[test]
    fn an_empty_bundle_has_no_piece() {
        assert_eq!(Layout::new(Vec::new()).unwrap().pieces(), 0);
        assert_eq!(
            Layout::new(vec![0]).unwrap().ranges(0),
            [BlobRange {
                blob: 0,
                bytes: 0..0
            }]
        );
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        assert_eq!(Layout::new(vec![u64::MAX, 2]), Err(LayoutError::Length));
        let error = Layout::new(vec![0; MAX_BLOBS + 1]).unwrap_err();
        assert!(error.to_string().contains("1048577 files"), "{error}");
    }

    proptest! {
        #[test]
        fn pieces_are_all_blobs_in_order(
            blobs in prop::collection::vec(
                prop_oneof![Just(0), 0..100_u64, 0..1_000_000_u64, 0..1_u64 << 34], 0..60
            ),
        ) {
            let layout = Layout::new(blobs.clone()).unwrap();
            prop_assert!(layout.pieces() <= MAX_PIECES);
            let mut joined: Vec<BlobRange> = Vec::new();
            for piece in 0..layout.pieces() {
                let ranges = layout.ranges(piece);
                prop_assert!(!ranges.is_empty());
                for range in ranges {
                    prop_assert_eq!(range.bytes.start % GROUP_BYTES, 0);
                    match joined.last_mut() {
                        Some(last) if last.blob == range.blob => {
                            prop_assert_eq!(last.bytes.end, range.bytes.start);
                            last.bytes.end = range.bytes.end;
                        }
                        _ => joined.push(range),
                    }
                }
            }
            let expected: Vec<BlobRange> = blobs
                .iter()
                .enumerate()
                .map(|(blob, &bytes)| BlobRange { blob, bytes: 0..bytes })
                .collect();
            prop_assert_eq!(joined, expected);
            for piece in 0..layout.pieces() {
                for range in layout.ranges(piece) {
                    let BlobRange { blob, bytes } = range;
                    prop_assert_eq!(layout.piece_at(blob, bytes.start), Some(piece));
                    if bytes.end > bytes.start {
                        prop_assert_eq!(layout.piece_at(blob, bytes.end - 1), Some(piece));
                    }
                }
            }
            let total: u64 = (0..layout.pieces()).map(|piece| layout.bytes(piece)).sum();
            prop_assert_eq!(total, layout.total_bytes());
        }
    }
}
