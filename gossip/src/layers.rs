//! Which layers a node holds, told in 64 bytes.

use serde::{Deserialize, Serialize};

/// How many bytes a digest takes.
const SIZE_BYTES: usize = 64;

/// How many bits each layer sets.
const BITS_PER_LAYER: usize = 4;

/// A Bloom filter over layer ids: may claim a layer that is not there, never hides one.
///
/// With 50 layers it is wrong about an absent layer 1 time in 90, with 100 layers 1 time in
/// 10. A node that holds more tells the ones used last.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LayerDigest([u8; SIZE_BYTES]);

impl LayerDigest {
    /// How many layers a node puts into its digest at most; beyond, the digest says too little.
    pub const MAX_LAYERS: usize = 128;

    /// The digest of no layer.
    pub const EMPTY: Self = Self([0; SIZE_BYTES]);

    /// The digest of these layers, named by their BLAKE3 hashes; only the first
    /// [`Self::MAX_LAYERS`] count.
    pub fn of<'a>(layers: impl IntoIterator<Item = &'a [u8; 32]>) -> Self {
        let mut digest = Self::EMPTY;
        for layer in layers.into_iter().take(Self::MAX_LAYERS) {
            for bit in bits(layer) {
                digest.0[bit / 8] |= 1 << (bit % 8);
            }
        }
        digest
    }

    /// Whether the node probably holds the layer. `false` is certain.
    pub fn may_hold(&self, layer: &[u8; 32]) -> bool {
        bits(layer).all(|bit| self.0[bit / 8] & (1 << (bit % 8)) != 0)
    }
}

/// The bits of one layer: its id is a hash already, so its own bytes choose them.
fn bits(layer: &[u8; 32]) -> impl Iterator<Item = usize> {
    layer
        .chunks_exact(2)
        .take(BITS_PER_LAYER)
        .map(|pair| usize::from(u16::from_le_bytes([pair[0], pair[1]])) % (SIZE_BYTES * 8))
}

impl Default for LayerDigest {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl std::fmt::Debug for LayerDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let set: u32 = self.0.iter().map(|byte| byte.count_ones()).sum();
        write!(f, "LayerDigest({set} bits set)")
    }
}

/// An empty digest travels as nothing, any other as its 64 bytes.
impl Serialize for LayerDigest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: &[u8] = if *self == Self::EMPTY { &[] } else { &self.0 };
        bytes.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LayerDigest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes: &[u8] = Deserialize::deserialize(deserializer)?;
        if bytes.is_empty() {
            return Ok(Self::EMPTY);
        }
        let bytes = bytes.try_into().map_err(|_| {
            serde::de::Error::invalid_length(bytes.len(), &"0 or 64 bytes of layer digest")
        })?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn held_layers_are_never_hidden(
            layers in proptest::collection::vec(any::<[u8; 32]>(), 0..LayerDigest::MAX_LAYERS),
        ) {
            let digest = LayerDigest::of(&layers);
            for layer in &layers {
                prop_assert!(digest.may_hold(layer));
            }
        }
    }

    /// Reproducible bytes that look random, as hashes do.
    fn layer(number: u64) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (index, chunk) in bytes.chunks_exact_mut(8).enumerate() {
            let mut word = number.wrapping_mul(4).wrapping_add(index as u64);
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes());
        }
        bytes
    }

    #[test]
    fn few_absent_layers_are_claimed() {
        let held: Vec<[u8; 32]> = (1..=50).map(layer).collect();
        let digest = LayerDigest::of(&held);
        let wrong = (1_000..11_000)
            .filter(|number| digest.may_hold(&layer(*number)))
            .count();
        assert!(wrong < 250, "{wrong} of 10,000 absent layers claimed");
        assert!(!LayerDigest::EMPTY.may_hold(&layer(1)));
    }
}
