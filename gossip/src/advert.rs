//! What a node tells the others about itself.
//!
//! An advert has two parts with a newest-wins register each: the [`Profile`], which seldom
//! changes and may take a kilobyte, and the [`Load`], which changes with every job and takes
//! 24 bytes. Loads can thus be told often without telling addresses and labels again.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    id::{NodeId, Tag},
    layers::LayerDigest,
};

/// When a node lends its slots to others.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Lending {
    /// Whenever a slot is free.
    Always,
    /// Only while its owner isn't using it.
    #[default]
    Idle,
    /// Not at all: it only hands out work of its own.
    Never,
}

/// The part of an advert that seldom changes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Profile {
    /// Whose profile this is.
    pub node: NodeId,
    /// What its owner calls it, say its host name: at most 64 bytes. Several nodes may have one
    /// name.
    pub name: Box<str>,
    /// How many jobs the node runs at a time.
    pub slots_total: u16,
    /// The processor architecture as Rust names it, say `x86_64`: at most 32 bytes.
    pub architecture: Box<str>,
    /// Words that jobs may ask for: at most 16, each at most 64 bytes.
    pub labels: Vec<Box<str>>,
    /// When the node lends its slots.
    pub lending: Lending,
    /// Whether the node may become coordinator.
    pub may_coordinate: bool,
    /// The version of the program, say `0.1.0`: at most 32 bytes.
    pub version: Box<str>,
    /// Where the node can be reached, in the words of the transport: at most 8 addresses, each
    /// at most 96 bytes.
    pub addresses: Vec<Box<str>>,
    /// Which layers the node holds.
    pub layers: LayerDigest,
}

/// The part of an advert that changes with every job.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// How many slots run nothing.
    pub slots_free: u16,
    /// How many jobs wait at this node for a slot anywhere.
    pub jobs_queued: u32,
}

/// Why an advert cannot be told.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum AdvertError {
    /// A text or list is longer than allowed.
    #[error("a node's {what} takes {actual} {unit}, and at most {limit} are allowed")]
    TooLong {
        /// Which part of the profile.
        what: &'static str,
        /// What is counted.
        unit: &'static str,
        /// How many there are.
        actual: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The whole does not fit into one packet.
    #[error(
        "a node's profile takes {actual} bytes, and at most {} fit into a packet: \
         shorten its labels or addresses",
        Profile::MAX_SIZE_BYTES
    )]
    TooLarge {
        /// How many bytes it takes.
        actual: usize,
    },
    /// The profile names another node.
    #[error("the profile is of node {profile}, and this is node {this}")]
    OtherNode {
        /// The node that the profile names.
        profile: NodeId,
        /// The node that was to tell it.
        this: NodeId,
    },
}

impl Profile {
    /// The size beyond which a profile is refused, encoded: what fits into a packet of 1,400
    /// bytes beside its header and a few membership updates.
    pub const MAX_SIZE_BYTES: usize = 1_024;
    const MAX_WORD_BYTES: usize = 32;
    /// The longest name of a node in bytes.
    pub const MAX_NAME_BYTES: usize = 64;
    const MAX_LABELS: usize = 16;
    const MAX_LABEL_BYTES: usize = 64;
    const MAX_ADDRESSES: usize = 8;
    const MAX_ADDRESS_BYTES: usize = 96;

    /// A profile with nothing but a name and a number of slots.
    pub fn new(node: NodeId, slots_total: u16) -> Self {
        Self {
            node,
            name: Box::default(),
            slots_total,
            architecture: Box::default(),
            labels: Vec::new(),
            lending: Lending::default(),
            may_coordinate: false,
            version: Box::default(),
            addresses: Vec::new(),
            layers: LayerDigest::EMPTY,
        }
    }

    /// Checks every limit and returns the encoded profile.
    ///
    /// # Errors
    /// When a text or list is too long, or the whole is larger than
    /// [`Self::MAX_SIZE_BYTES`].
    pub(crate) fn encode(&self) -> Result<Vec<u8>, AdvertError> {
        let limits = [
            ("name", "bytes", self.name.len(), Self::MAX_NAME_BYTES),
            (
                "architecture",
                "bytes",
                self.architecture.len(),
                Self::MAX_WORD_BYTES,
            ),
            ("version", "bytes", self.version.len(), Self::MAX_WORD_BYTES),
            (
                "list of labels",
                "entries",
                self.labels.len(),
                Self::MAX_LABELS,
            ),
            (
                "list of addresses",
                "entries",
                self.addresses.len(),
                Self::MAX_ADDRESSES,
            ),
            (
                "longest label",
                "bytes",
                longest(&self.labels),
                Self::MAX_LABEL_BYTES,
            ),
            (
                "longest address",
                "bytes",
                longest(&self.addresses),
                Self::MAX_ADDRESS_BYTES,
            ),
        ];
        for (what, unit, actual, limit) in limits {
            if actual > limit {
                return Err(AdvertError::TooLong {
                    what,
                    unit,
                    actual,
                    limit,
                });
            }
        }
        let encoded = postcard::to_stdvec(self).expect("a profile has nothing postcard refuses");
        if encoded.len() > Self::MAX_SIZE_BYTES {
            return Err(AdvertError::TooLarge {
                actual: encoded.len(),
            });
        }
        Ok(encoded)
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything that it would not have written.
    pub(crate) fn decode(encoded: &[u8]) -> Option<Self> {
        if encoded.len() > Self::MAX_SIZE_BYTES {
            return None;
        }
        let profile: Self = postcard::from_bytes(encoded).ok()?;
        profile.encode().ok().map(|_| profile)
    }
}

fn longest(texts: &[Box<str>]) -> usize {
    texts.iter().map(|text| text.len()).max().unwrap_or(0)
}

/// How new a part of an advert is: the node's boot, then its count of changes since.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct Version {
    /// The generation that the node started with.
    pub(crate) boot: u32,
    /// Counts from 1; 0 is older than anything told.
    pub(crate) sequence: u32,
}

impl Version {
    pub(crate) fn next(self) -> Self {
        Self {
            boot: self.boot,
            sequence: self.sequence.saturating_add(1),
        }
    }
}

/// One part of somebody's advert, or the coordinator's claim, as it travels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Item<'a> {
    /// A profile, still encoded.
    Profile {
        tag: Tag,
        version: Version,
        encoded: &'a [u8],
    },
    Load {
        tag: Tag,
        version: Version,
        load: Load,
    },
    Claim(Claim),
}

/// Who coordinates, and since which term. The claim of the highest term is the valid one;
/// of two in the same term, the one of the higher node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Claim {
    /// Grows with every election.
    pub term: u64,
    /// The node that was elected.
    pub coordinator: NodeId,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        Profile {
            architecture: "x86_64".into(),
            labels: vec!["gpu".into()],
            version: "0.1.0".into(),
            addresses: vec!["/ip4/10.0.0.1/tcp/4001".into()],
            ..Profile::new(NodeId::from_bytes([1; 32]), 8)
        }
    }

    #[test]
    fn profiles_come_back_as_they_were() {
        let encoded = profile().encode().unwrap();
        assert!(encoded.len() < 96, "{} bytes", encoded.len());
        assert_eq!(Profile::decode(&encoded), Some(profile()));
    }

    #[test]
    fn every_limit_is_named_in_its_error() {
        fn long(bytes: usize) -> Box<str> {
            "x".repeat(bytes).into()
        }
        type Spoil = fn(&mut Profile);
        let table: [(&str, Spoil); 7] = [
            ("architecture", |p| p.architecture = long(33)),
            ("version", |p| p.version = long(33)),
            ("labels", |p| p.labels = vec![long(1); 17]),
            ("longest label", |p| p.labels = vec![long(65)]),
            ("addresses", |p| p.addresses = vec![long(1); 9]),
            ("longest address", |p| p.addresses = vec![long(97)]),
            ("profile takes", |p| p.labels = vec![long(64); 16]),
        ];
        for (name, spoil) in table {
            let mut spoilt = profile();
            spoil(&mut spoilt);
            let error = spoilt.encode().unwrap_err().to_string();
            assert!(error.contains(name), "{name}: {error}");
            let bytes = postcard::to_stdvec(&spoilt).unwrap();
            assert_eq!(Profile::decode(&bytes), None, "{name}");
        }
    }
}
