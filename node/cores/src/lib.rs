//! Membership, election and dispatch of one node, wired to each other. No I/O, no clock.
//!
//! [`Cores`] is what a node on a network drives. [`MeshView`] shows the members to dispatch; the
//! simulator uses it too.

mod cores;
mod view;

pub use cores::{Cores, Event, Protocol, Rubbish, Setup};
pub use view::{MeshView, dispatch_id, gossip_id};
