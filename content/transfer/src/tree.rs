//! Hash trees: the pairs of hashes above leaves of 16 KiB, in pre-order, as bao-tree keeps them.

use crate::{BLOCK, GROUP_BYTES};
use bao_tree::{BaoTree, TreeNode, io::outboard::PreOrderMemOutboard};
use blake3::{
    Hash, Hasher,
    hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root},
};
use rayon::prelude::*;
use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

/// A pair of hashes takes so many bytes.
pub(crate) const PAIR_BYTES: usize = 64;

/// How much one thread reads and hashes at a time, in bytes.
const PART_BYTES: u64 = 1 << 20;

/// How long the hash tree of a blob of this length is, in bytes.
pub(crate) fn tree_bytes(bytes: u64) -> u64 {
    BaoTree::new(bytes, BLOCK).outboard_size()
}

/// The hash of a leaf of a tree.
pub(crate) fn leaf_hash(offset: u64, data: &[u8], is_root: bool) -> Hash {
    if is_root {
        return blake3::hash(data);
    }
    Hash::from_bytes(leaf(offset, data))
}

fn leaf(offset: u64, data: &[u8]) -> ChainingValue {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(offset).update(data);
    hasher.finalize_non_root()
}

/// The hash of an inner node of a tree.
pub(crate) fn parent_hash(left: &[u8; 32], right: &[u8; 32], is_root: bool) -> Hash {
    if is_root {
        merge_subtrees_root(left, right, Mode::Hash)
    } else {
        Hash::from_bytes(merge_subtrees_non_root(left, right, Mode::Hash))
    }
}

/// The root and the hash tree of `bytes` bytes of a file from `base` on. Uses all threads.
pub(crate) fn build(file: &File, base: u64, bytes: u64) -> io::Result<(Hash, Vec<u8>)> {
    if bytes <= GROUP_BYTES {
        let mut data = vec![0; bytes as usize];
        file.read_exact_at(&mut data, base)?;
        return Ok((blake3::hash(&data), Vec::new()));
    }
    let parts: Vec<u64> = (0..bytes.div_ceil(PART_BYTES)).collect();
    let leaves: Vec<Vec<ChainingValue>> = parts
        .par_iter()
        .map_init(
            || vec![0; PART_BYTES as usize],
            |buffer, part| {
                let start = part * PART_BYTES;
                let length = PART_BYTES.min(bytes - start) as usize;
                let data = &mut buffer[..length];
                file.read_exact_at(data, base + start)?;
                let groups = data.chunks(GROUP_BYTES as usize).enumerate();
                Ok(groups
                    .map(|(index, group)| leaf(start + index as u64 * GROUP_BYTES, group))
                    .collect())
            },
        )
        .collect::<io::Result<_>>()?;
    let leaves = leaves.concat();
    let mut tree = Vec::with_capacity((leaves.len() - 1) * PAIR_BYTES);
    let (left, right) = split(&leaves, &mut tree);
    Ok((parent_hash(&left, &right, true), tree))
}

/// Appends the node above these leaves, of which there are at least two, and all below it.
fn split(leaves: &[ChainingValue], tree: &mut Vec<u8>) -> (ChainingValue, ChainingValue) {
    // The left side is the largest complete tree that leaves something for the right one.
    let left = leaves.len().div_ceil(2).next_power_of_two();
    let at = tree.len();
    tree.resize(at + PAIR_BYTES, 0);
    let pair = [
        subtree(&leaves[..left], tree),
        subtree(&leaves[left..], tree),
    ];
    tree[at..at + PAIR_BYTES].copy_from_slice(pair.as_flattened());
    (pair[0], pair[1])
}

fn subtree(leaves: &[ChainingValue], tree: &mut Vec<u8>) -> ChainingValue {
    match leaves {
        [leaf] => *leaf,
        _ => {
            let (left, right) = split(leaves, tree);
            merge_subtrees_non_root(&left, &right, Mode::Hash)
        }
    }
}

/// How many pairs are read at a time: those of a subtree of a piece stand together.
const NEAR_PAIRS: u64 = 64;

/// The hash tree of a blob in a file, of which what was read last is at hand. Above a piece's own
/// subtree stand few pairs, each elsewhere.
#[derive(Debug)]
pub(crate) struct Pairs {
    trees: Arc<File>,
    tree: BaoTree,
    /// Where it begins.
    place: u64,
    /// Pairs from this one on.
    near: (u64, Vec<u8>),
}

impl Pairs {
    pub(crate) fn new(trees: Arc<File>, tree: BaoTree, place: u64) -> Pairs {
        Pairs {
            trees,
            tree,
            place,
            near: (0, Vec::new()),
        }
    }

    /// Reads the pair of a node.
    pub(crate) fn read(&mut self, node: TreeNode, pair: &mut [u8]) -> io::Result<()> {
        let Some(index) = self.tree.pre_order_offset(node) else {
            return Err(io::Error::other("a node that no tree has"));
        };
        let (first, bytes) = &mut self.near;
        let end = *first + (bytes.len() / PAIR_BYTES) as u64;
        if !(*first..end).contains(&index) {
            let left = self.tree.outboard_size() / PAIR_BYTES as u64 - index;
            *first = index;
            bytes.resize(left.min(NEAR_PAIRS) as usize * PAIR_BYTES, 0);
            let at = self.place + index * PAIR_BYTES as u64;
            self.trees.read_exact_at(bytes, at)?;
        }
        let from = (index - *first) as usize * PAIR_BYTES;
        pair.copy_from_slice(&bytes[from..from + PAIR_BYTES]);
        Ok(())
    }
}

/// The whole answer to a request for a manifest: its length and its bytes with their proof.
pub fn manifest_response(encoded: &[u8]) -> Vec<u8> {
    let tree = PreOrderMemOutboard::create(encoded, BLOCK);
    let mut response = (encoded.len() as u64).to_le_bytes().to_vec();
    let all = bao_tree::ChunkRanges::all();
    // Memory has nothing that could fail.
    let _ = bao_tree::io::sync::encode_ranges(encoded, &tree, &all, &mut response);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_tree_is_that_of_bao() {
        let mut file = tempfile::tempfile().unwrap();
        let data: Vec<u8> = (0..3_500_000_u32).map(|i| (i % 251) as u8).collect();
        file.write_all(b"before").unwrap();
        file.write_all(&data).unwrap();
        for bytes in [
            0,
            1,
            16_383,
            16_384,
            16_385,
            32_768,
            32_769,
            49_152,
            100_000,
            1 << 20,
            3_500_000,
        ] {
            let (root, tree) = build(&file, 6, bytes).unwrap();
            let theirs = PreOrderMemOutboard::create(&data[..bytes as usize], BLOCK);
            assert_eq!(root, theirs.root, "{bytes} bytes");
            assert_eq!(tree, theirs.data, "{bytes} bytes");
            assert_eq!(tree.len() as u64, tree_bytes(bytes));
        }
    }
}
