//! Thousands of the shipped gossip and dispatch cores under virtual time and faults.
pub mod kernel;
