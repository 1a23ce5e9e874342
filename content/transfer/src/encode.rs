//! Answering a request: lengths, bytes, and the hashes that prove them.

use crate::{
    Plan, Shelf, request,
    shelf::Reader,
    tree::{PAIR_BYTES, Pairs},
};
use bao_tree::iter::{BaoChunk, ResponseIter};
use maelstrom_pull::BlobRange;
use std::{
    collections::VecDeque,
    io::{self, IoSliceMut},
    mem,
    sync::Arc,
};

/// The most leaves that are read in one call.
const MAX_LEAVES: usize = 256;

/// What stands before the bytes of a blob: its length.
const LENGTH_BYTES: usize = 8;

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
    pairs: Pairs,
    chunks: ResponseIter,
    /// What did not fit.
    next: Option<BaoChunk>,
    data: Reader,
}

/// Adjoining leaves of a blob that have yet to be read: where each goes, and its length.
#[derive(Debug, Default)]
struct Run {
    start: u64,
    end: u64,
    leaves: Vec<(usize, usize)>,
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

    /// Writes what comes next into `out`, which has room for 20 KiB at least. Returns how much of
    /// it is filled; nothing if all is said.
    pub fn fill(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        loop {
            if self.current.is_none() {
                let Some(next) = self.left.front() else {
                    return Ok(filled);
                };
                let Some(room) = out[filled..].first_chunk_mut::<LENGTH_BYTES>() else {
                    return Ok(filled);
                };
                let bytes = self.shelf.plan().contents()[next.blob].bytes;
                *room = bytes.to_le_bytes();
                filled += LENGTH_BYTES;
                self.next_blob()?;
            }
            let Some(current) = &mut self.current else {
                return Ok(filled);
            };
            if current.fill(out, &mut filled)? {
                self.current = None;
            } else {
                return Ok(filled);
            }
        }
    }

    fn next_blob(&mut self) -> io::Result<()> {
        let Some(range) = self.left.pop_front() else {
            return Ok(());
        };
        let plan: &Plan = self.shelf.plan();
        let blob = range.blob;
        let chunks = request::chunks(&range, plan.contents()[blob].bytes);
        self.current = Some(Current {
            pairs: self.shelf.pairs(blob),
            chunks: ResponseIter::new(plan.tree(blob), chunks),
            next: None,
            data: self.shelf.open(blob)?,
        });
        Ok(())
    }
}

impl Current {
    /// Fills `out` further. Returns whether all is said of this blob.
    fn fill(&mut self, out: &mut [u8], filled: &mut usize) -> io::Result<bool> {
        let mut run = Run::default();
        loop {
            let Some(chunk) = self.next.take().or_else(|| self.chunks.next()) else {
                run.read(&self.data, out)?;
                return Ok(true);
            };
            let length = match chunk {
                BaoChunk::Parent { .. } => PAIR_BYTES,
                BaoChunk::Leaf { size, .. } => size,
            };
            let at = *filled;
            let Some(room) = out.get_mut(at..at + length) else {
                self.next = Some(chunk);
                run.read(&self.data, out)?;
                return Ok(false);
            };
            *filled += length;
            match chunk {
                BaoChunk::Parent { node, .. } => self.pairs.read(node, room)?,
                BaoChunk::Leaf { start_chunk, .. } => {
                    let start = start_chunk.to_bytes();
                    if run.end != start || run.leaves.len() == MAX_LEAVES {
                        run.read(&self.data, out)?;
                        (run.start, run.end) = (start, start);
                    }
                    run.leaves.push((at, length));
                    run.end += length as u64;
                }
            }
        }
    }
}

impl Run {
    /// Reads all of it to where it goes.
    fn read(&mut self, data: &Reader, out: &mut [u8]) -> io::Result<()> {
        let mut parts = Vec::with_capacity(self.leaves.len());
        let (mut rest, mut passed) = (out, 0);
        for (at, length) in self.leaves.drain(..) {
            let (_, from) = mem::take(&mut rest).split_at_mut(at - passed);
            let (leaf, after) = from.split_at_mut(length);
            parts.push(IoSliceMut::new(leaf));
            (rest, passed) = (after, at + length);
        }
        data.read_exact_vectored_at(&mut parts, self.start)
    }
}
