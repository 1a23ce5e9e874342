//! Which job runs where and when. No I/O, no clock.

pub mod queue;

pub use queue::{Queue, Rank};
