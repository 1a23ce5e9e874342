//! Results of tests that need not be run again.
//!
//! What a job does follows from its content: the layers, the environment and everything else
//! around its program, the program, and its arguments. A [`ResultKey`] is the hash of these. A
//! test that passed is remembered under its job's key, with what it wrote and the files that it
//! brought back, and a job with the same key needs not be run.
//!
//! [`ResultCache`] keeps results in files below the cache directory. A [`ResultExchange`] asks
//! others for what is not there, and offers them what is new.

mod cache;
mod file;
mod key;

pub use cache::{ResultCache, ResultExchange};
pub use key::{ContainerKey, ResultKey};

/// A result that takes more than this is not remembered.
pub const MAX_RESULT_BYTES: usize = 4 << 20;
