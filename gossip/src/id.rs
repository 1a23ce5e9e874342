//! Names of nodes: the full key outside, a short tag inside.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A node's public key: 32 bytes that the transport has authenticated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId([u8; 32]);

impl NodeId {
    /// The id made of a public key's bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The public key's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key's first eight bytes, which stand for the node in packets and tables.
    ///
    /// Two of 10,000 random keys share a tag with a probability of about 3 in 10^12. A node
    /// whose tag is taken by another key is refused, never confused with it: what arrives is
    /// checked against the sender's full key, and the full key travels in its [`Profile`].
    ///
    /// [`Profile`]: crate::Profile
    pub(crate) fn tag(&self) -> Tag {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_be_bytes(first)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The short name of a node, see [`NodeId::tag`].
pub(crate) type Tag = u64;

/// What foca knows a node by: its tag, and which life of the node this is.
///
/// Foca searches its members linearly, so this is as small as it can be: a foca member with
/// its state takes 16 bytes, which is why the tag is not aligned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(Rust, packed(4))]
pub(crate) struct Peer {
    pub(crate) tag: Tag,
    /// Grows whenever the node comes back after having been declared down.
    pub(crate) generation: u32,
}

impl foca::Identity for Peer {
    type Addr = Tag;

    fn renew(&self) -> Option<Self> {
        Some(Self {
            tag: self.tag,
            generation: self.generation.checked_add(1)?,
        })
    }

    fn addr(&self) -> Tag {
        self.tag
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.generation > adversary.generation
    }
}

#[cfg(test)]
mod tests {
    use foca::Identity;

    use super::*;

    #[test]
    fn a_foca_member_stays_small() {
        assert_eq!(size_of::<foca::Member<Peer>>(), 16);
    }

    #[test]
    fn a_renewed_peer_wins_over_the_old_one() {
        let old = Peer {
            tag: 7,
            generation: 3,
        };
        let new = old.renew().unwrap();
        assert!(new.win_addr_conflict(&old));
        assert!(!old.win_addr_conflict(&new));
        assert_eq!(
            Peer {
                tag: 7,
                generation: u32::MAX
            }
            .renew(),
            None
        );
    }

    #[test]
    fn ids_print_as_hexadecimal() {
        let id = NodeId::from_bytes([0xab; 32]);
        assert_eq!(id.to_string(), "ab".repeat(32));
        assert_eq!(format!("{id:?}"), "abababab");
    }
}
