//! Thousands of the shipped gossip and dispatch cores under virtual time and faults.
//!
//! - [`kernel`] keeps time: a queue of events, a network, links, clocks, and a trace.
//! - [`cluster`] runs the real cores on it, lets things go wrong, and checks what must hold.
//! - [`scenarios`] are the runs that a person can ask for by name.
//!
//! A run depends on its seed alone: the same seed gives the same events, and the same
//! [hash](kernel::Trace::hash) over them.

pub mod baseline;
pub mod cluster;
pub mod kernel;
pub mod plot;
pub mod report;
pub mod scenarios;
pub mod workload;
