//! Results of tests that need not be run again.
//!
//! What a job does follows from its content: the layers, the environment and everything else
//! around its program, the program, and its arguments. A [`ResultKey`] is the hash of these. A
//! test that passed is remembered under its job's key, with what it wrote and the files that it
//! brought back, and a job with the same key needs not be run.
//!
//! [`ResultCache`] keeps results in files below the cache directory. What is not there is asked of
//! others, and what is new is offered to them, by a [`SharedResults`](maelstrom_node::SharedResults).

mod cache;
mod file;
mod key;
mod mesh;

pub use cache::ResultCache;
pub use key::ContainerKey;
pub use maelstrom_node::ResultKey;
pub(crate) use mesh::MeshResults;

/// A result that takes more than this is not remembered.
pub const MAX_RESULT_BYTES: usize = 4 << 20;
