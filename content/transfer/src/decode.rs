//! Reading an answer: nothing is passed on before its hash is right.

use crate::{
    BLOCK, BadData, Plan, request,
    tree::{PAIR_BYTES, leaf_hash, parent_hash},
};
use bao_tree::{
    BaoTree, ChunkRanges, TreeNode,
    iter::{BaoChunk, ResponseIter},
};
use maelstrom_pull::BlobRange;
use std::{collections::VecDeque, io};

/// What takes verified data, of an input that lives for `'a`.
pub trait Sink<'a> {
    /// A pair of hashes of the tree of a blob.
    fn pair(&mut self, blob: usize, node: TreeNode, pair: &'a [u8; PAIR_BYTES]) -> io::Result<()>;

    /// Bytes of a blob.
    fn bytes(&mut self, blob: usize, offset: u64, bytes: &'a [u8]) -> io::Result<()>;
}

/// One blob of which ranges are asked for.
#[derive(Debug)]
struct Wanted {
    blob: usize,
    root: blake3::Hash,
    /// Unknown for a manifest.
    bytes: Option<u64>,
    chunks: ChunkRanges,
}

/// Decodes the answer to one request, as it comes.
#[derive(Debug)]
pub struct Decoder {
    wanted: VecDeque<Wanted>,
    longest: u64,
    current: Option<Current>,
}

/// How far decoding came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// How much of the input was used, in bytes. The rest is to come again, with more behind it.
    pub used_bytes: usize,
    /// Whether the answer is complete.
    pub complete: bool,
}

#[derive(Debug)]
struct Current {
    blob: usize,
    tree: BaoTree,
    chunks: ResponseIter,
    next: Option<BaoChunk>,
    /// The hashes that are due, the next one last.
    due: Vec<blake3::Hash>,
}

/// Why decoding ended early.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The peer's fault.
    #[error(transparent)]
    Bad(#[from] BadData),
    /// The sink's fault.
    #[error(transparent)]
    Sink(#[from] io::Error),
}

impl Decoder {
    /// For the answer to [`request::ranges`].
    pub fn new(plan: &Plan, ranges: &[BlobRange]) -> Decoder {
        let wanted = ranges.iter().filter(|range| !range.bytes.is_empty());
        Decoder::of(
            wanted
                .map(|range| {
                    let bytes = plan.contents()[range.blob].bytes;
                    Wanted {
                        blob: range.blob,
                        root: plan.root(range.blob),
                        bytes: Some(bytes),
                        chunks: request::chunks(range, bytes),
                    }
                })
                .collect(),
            u64::MAX,
        )
    }

    /// For the answer to [`request::manifest`], which comes as blob 0. Not if it is longer than
    /// `longest` bytes.
    pub fn manifest(id: maelstrom_content::LayerId, longest: u64) -> Decoder {
        let whole = Wanted {
            blob: 0,
            root: blake3::Hash::from_bytes(*id.as_bytes()),
            bytes: None,
            chunks: ChunkRanges::all(),
        };
        Decoder::of([whole].into(), longest)
    }

    fn of(wanted: VecDeque<Wanted>, longest: u64) -> Decoder {
        Decoder {
            wanted,
            longest,
            current: None,
        }
    }

    /// Decodes what has come, as far as it goes. Inputs of 32 KiB are long enough to get ahead.
    pub fn run<'a>(
        &mut self,
        input: &'a [u8],
        sink: &mut impl Sink<'a>,
    ) -> Result<Decoded, DecodeError> {
        let mut rest = input;
        let mut complete = false;
        loop {
            if self.current.is_none() {
                if self.wanted.is_empty() {
                    complete = true;
                    if !rest.is_empty() {
                        return Err(BadData::Surplus.into());
                    }
                    break;
                }
                if !self.next_blob(&mut rest)? {
                    break;
                }
            }
            let Some(current) = &mut self.current else {
                break;
            };
            match current.next.take().or_else(|| current.chunks.next()) {
                None => self.current = None,
                Some(chunk) => {
                    if let Some(chunk) = current.item(chunk, &mut rest, sink)? {
                        current.next = Some(chunk);
                        break;
                    }
                }
            }
        }
        Ok(Decoded {
            used_bytes: input.len() - rest.len(),
            complete,
        })
    }

    fn next_blob(&mut self, rest: &mut &[u8]) -> Result<bool, DecodeError> {
        let Some((length, after)) = rest.split_first_chunk::<8>() else {
            return Ok(false);
        };
        let Some(wanted) = self.wanted.pop_front() else {
            return Ok(false);
        };
        *rest = after;
        let found = u64::from_le_bytes(*length);
        let expected = wanted.bytes.unwrap_or(found.min(self.longest));
        if found != expected {
            return Err(BadData::Length { expected, found }.into());
        }
        let tree = BaoTree::new(found, BLOCK);
        self.current = Some(Current {
            blob: wanted.blob,
            tree,
            chunks: ResponseIter::new(tree, wanted.chunks),
            next: None,
            due: vec![wanted.root],
        });
        Ok(true)
    }
}

impl Current {
    /// Decodes one item; gives it back if it has not come whole.
    fn item<'a>(
        &mut self,
        chunk: BaoChunk,
        rest: &mut &'a [u8],
        sink: &mut impl Sink<'a>,
    ) -> Result<Option<BaoChunk>, DecodeError> {
        match chunk {
            BaoChunk::Parent {
                node,
                is_root,
                left,
                right,
                ..
            } => {
                let Some((pair, after)) = rest.split_first_chunk::<PAIR_BYTES>() else {
                    return Ok(Some(chunk));
                };
                *rest = after;
                let (hashes, _) = pair.as_chunks::<32>();
                if self.due.pop() != Some(parent_hash(&hashes[0], &hashes[1], is_root)) {
                    let offset = node.chunk_range().start.to_bytes();
                    return Err(BadData::Hash { offset }.into());
                }
                if right {
                    self.due.push(blake3::Hash::from_bytes(hashes[1]));
                }
                if left {
                    self.due.push(blake3::Hash::from_bytes(hashes[0]));
                }
                if self.tree.pre_order_offset(node).is_some() {
                    sink.pair(self.blob, node, pair)?;
                }
            }
            BaoChunk::Leaf {
                start_chunk,
                size,
                is_root,
                ..
            } => {
                let Some((data, after)) = rest.split_at_checked(size) else {
                    return Ok(Some(chunk));
                };
                *rest = after;
                let offset = start_chunk.to_bytes();
                if self.due.pop() != Some(leaf_hash(offset, data, is_root)) {
                    return Err(BadData::Hash { offset }.into());
                }
                sink.bytes(self.blob, offset, data)?;
            }
        }
        Ok(None)
    }
}
