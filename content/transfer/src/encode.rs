//! Answering a request: lengths, bytes, and the hashes that prove them.

use crate::{Plan, Shelf, request, shelf::Reader, tree::PAIR_BYTES};
use bao_tree::iter::{BaoChunk, ResponseIter};
use maelstrom_pull::BlobRange;
use std::{collections::VecDeque, io, sync::Arc};

/// Encodes ranges of a layer, part by part.
///
/// What it reads is not compared with the hashes again: whoever receives it does that.
#[derive(Debug)]
pub struct Encoder {
    shelf: Arc<Shelf>,
    left: VecDeque<BlobRange>,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    blob: usize,
    chunks: ResponseIter,
    data: Reader,
}

impl Encoder {
    /// Encodes ranges that are there: a part of one piece, see [`Plan::piece_of`].
    pub fn new(shelf: Arc<Shelf>, ranges: Vec<BlobRange>) -> Encoder {
        Encoder {
            shelf,
            left: ranges.into(),
            current: None,
        }
    }

    /// Appends to `out` until it has at least `length` bytes or all is said. Returns whether
    /// there is more to come.
    pub fn fill(&mut self, out: &mut Vec<u8>, length: usize) -> io::Result<bool> {
        while out.len() < length {
            if self.current.is_none() && !self.next_blob(out)? {
                return Ok(false);
            }
            self.step(out, length)?;
        }
        Ok(self.current.is_some() || !self.left.is_empty())
    }

    fn next_blob(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let Some(range) = self.left.pop_front() else {
            return Ok(false);
        };
        let plan: &Plan = self.shelf.plan();
        let blob = range.blob;
        let bytes = plan.contents()[blob].bytes;
        out.extend_from_slice(&bytes.to_le_bytes());
        let chunks = ResponseIter::new(plan.tree(blob), request::chunks(&range, bytes));
        self.current = Some(Current {
            blob,
            chunks,
            data: self.shelf.open(blob)?,
        });
        Ok(true)
    }

    fn step(&mut self, out: &mut Vec<u8>, length: usize) -> io::Result<()> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        while out.len() < length {
            match current.chunks.next() {
                None => {
                    self.current = None;
                    return Ok(());
                }
                Some(BaoChunk::Parent { node, .. }) => {
                    let mut pair = [0; PAIR_BYTES];
                    self.shelf.read_pair(current.blob, node, &mut pair)?;
                    out.extend_from_slice(&pair);
                }
                Some(BaoChunk::Leaf {
                    start_chunk, size, ..
                }) => {
                    let at = out.len();
                    out.resize(at + size, 0);
                    current
                        .data
                        .read_exact_at(&mut out[at..], start_chunk.to_bytes())?;
                }
            }
        }
        Ok(())
    }
}
