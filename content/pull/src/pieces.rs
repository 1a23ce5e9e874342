//! Sets of pieces.

use crate::layout::MAX_PIECES;
use serde::{Deserialize, Serialize};

/// A set of pieces, as it travels: one bit for each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pieces {
    words: Vec<u64>,
}

impl Pieces {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// The first `count` pieces, at most [`MAX_PIECES`].
    pub fn all(count: usize) -> Self {
        let mut pieces = Self::new();
        (0..count.min(MAX_PIECES)).for_each(|piece| {
            pieces.insert(piece);
        });
        pieces
    }

    /// Adds a piece; whether it is new. Pieces from [`MAX_PIECES`] on are left out.
    pub fn insert(&mut self, piece: usize) -> bool {
        if piece >= MAX_PIECES {
            return false;
        }
        if self.words.len() <= piece / 64 {
            self.words.resize(piece / 64 + 1, 0);
        }
        let word = &mut self.words[piece / 64];
        let new = *word & 1 << (piece % 64) == 0;
        *word |= 1 << (piece % 64);
        new
    }

    /// Takes a piece out; whether it was in.
    pub fn remove(&mut self, piece: usize) -> bool {
        let Some(word) = self.words.get_mut(piece / 64) else {
            return false;
        };
        let was = *word & 1 << (piece % 64) != 0;
        *word &= !(1 << (piece % 64));
        was
    }

    /// Whether a piece is in.
    pub fn contains(&self, piece: usize) -> bool {
        self.words
            .get(piece / 64)
            .is_some_and(|word| word & 1 << (piece % 64) != 0)
    }

    /// How many pieces are in.
    pub fn len(&self) -> usize {
        self.words
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// Whether no piece is in.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// All pieces, in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        bits(self.words.iter().copied())
    }

    /// The pieces of this set that the other lacks, in order.
    pub fn without<'a>(&'a self, other: &'a Pieces) -> impl Iterator<Item = usize> + 'a {
        bits(
            self.words
                .iter()
                .enumerate()
                .map(|(index, word)| word & !other.word(index)),
        )
    }

    /// Whether the other lacks a piece of this set.
    pub fn exceeds(&self, other: &Pieces) -> bool {
        self.words
            .iter()
            .enumerate()
            .any(|(index, word)| word & !other.word(index) != 0)
    }

    /// The pieces that are in both sets, in order.
    pub fn both<'a>(&'a self, other: &'a Pieces) -> impl Iterator<Item = usize> + 'a {
        bits(
            self.words
                .iter()
                .enumerate()
                .map(|(index, word)| word & other.word(index)),
        )
    }

    /// Whether any piece is in both sets.
    pub fn meets(&self, other: &Pieces) -> bool {
        self.words
            .iter()
            .enumerate()
            .any(|(index, word)| word & other.word(index) != 0)
    }

    fn word(&self, index: usize) -> u64 {
        self.words.get(index).copied().unwrap_or(0)
    }

    /// Drops what lies beyond the pieces of a bundle, whoever sent it.
    pub(crate) fn cut(&mut self, count: usize) {
        self.words.truncate(count.div_ceil(64));
        if !count.is_multiple_of(64)
            && let Some(last) = self.words.get_mut(count / 64)
        {
            *last &= (1 << (count % 64)) - 1;
        }
    }

    /// Whether the set keeps to its bound.
    pub(crate) fn is_bounded(&self) -> bool {
        self.words.len() <= MAX_PIECES / 64
    }
}

fn bits(words: impl Iterator<Item = u64>) -> impl Iterator<Item = usize> {
    words.enumerate().flat_map(|(index, mut word)| {
        std::iter::from_fn(move || {
            let bit = word.trailing_zeros();
            word &= word.checked_sub(1)?;
            Some(index * 64 + bit as usize)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn same_as_a_tree(
            inserted in prop::collection::vec(0..300_usize, 0..60),
            removed in prop::collection::vec(0..300_usize, 0..60),
            other in prop::collection::btree_set(0..300_usize, 0..60),
            count in 0..300_usize,
        ) {
            let mut set = Pieces::new();
            let mut twin = BTreeSet::new();
            for piece in inserted {
                prop_assert_eq!(set.insert(piece), twin.insert(piece));
            }
            for piece in removed {
                prop_assert_eq!(set.remove(piece), twin.remove(&piece));
            }
            prop_assert_eq!(set.len(), twin.len());
            prop_assert_eq!(set.is_empty(), twin.is_empty());
            prop_assert_eq!(set.iter().collect::<BTreeSet<_>>(), twin.clone());
            let mut others = Pieces::new();
            other.iter().for_each(|&piece| { others.insert(piece); });
            let without: Vec<usize> = twin.difference(&other).copied().collect();
            prop_assert_eq!(set.exceeds(&others), !without.is_empty());
            prop_assert_eq!(set.without(&others).collect::<Vec<_>>(), without);
            let both: Vec<usize> = twin.intersection(&other).copied().collect();
            prop_assert_eq!(set.meets(&others), !both.is_empty());
            prop_assert_eq!(set.both(&others).collect::<Vec<_>>(), both);
            set.cut(count);
            twin.retain(|&piece| piece < count);
            prop_assert_eq!(set.iter().collect::<BTreeSet<_>>(), twin);
        }
    }

    #[test]
    fn no_piece_lies_beyond_the_bound() {
        let mut set = Pieces::all(usize::MAX);
        assert_eq!(set.len(), MAX_PIECES);
        assert!(!set.insert(MAX_PIECES));
        assert!(set.is_bounded());
    }
}
