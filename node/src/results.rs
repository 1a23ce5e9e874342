//! Results that need not be found out again, as nodes see them: bytes under a key that follows
//! from all that a job is.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The longest result that travels between machines.
pub const MAX_SHARED_RESULT_BYTES: usize = 256 << 10;

/// The most results that are asked for at a time.
pub const MAX_SHARED_KEYS: usize = 4096;

/// Names what a job comes to: a hash of all that its outcome follows from.
///
/// The first half stands for the container and its program, the second for the rest, so that the
/// results of one test binary are found together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ResultKey([u8; 32]);

impl ResultKey {
    /// A key of its two halves.
    pub fn new(container: [u8; 16], job: [u8; 16]) -> Self {
        let mut key = [0; 32];
        key[..16].copy_from_slice(&container);
        key[16..].copy_from_slice(&job);
        Self(key)
    }

    /// The half that stands for the container and its program.
    pub fn container(&self) -> [u8; 16] {
        half(&self.0[..16])
    }

    /// The half that stands for the rest.
    pub fn job(&self) -> [u8; 16] {
        half(&self.0[16..])
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

fn half(bytes: &[u8]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(bytes);
    half
}

impl fmt::Debug for ResultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The results that other machines know.
pub trait SharedResults: Send + Sync {
    /// The results of these jobs, as far as anybody has them, each in its key's place. The keys
    /// have their container in common; those beyond [`MAX_SHARED_KEYS`] are not asked for. Waits
    /// for a fraction of a second at most.
    ///
    /// What comes is as others sent it, no longer than [`MAX_SHARED_RESULT_BYTES`] if it comes
    /// from another machine.
    fn find(&self, keys: &[ResultKey]) -> Vec<Option<Vec<u8>>>;

    /// Tells others of a result, sooner or later and if they have room. Never waits.
    fn offer(&self, key: ResultKey, result: Vec<u8>);
}

/// Where a node keeps results for others.
pub trait ResultStore: fmt::Debug + Send + Sync {
    /// The results of these jobs, each in its key's place.
    fn get(&self, keys: &[ResultKey]) -> Vec<Option<Vec<u8>>>;

    /// Keeps those that it doesn't have. `false`: some are no results.
    fn put(&self, results: &[(ResultKey, Vec<u8>)]) -> bool;
}
