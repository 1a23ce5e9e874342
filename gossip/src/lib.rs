//! Who is there and what they offer: membership, adverts, election. No I/O, no clock.
//!
//! - [`Membership`] finds out who is there and tells everybody's adverts, over [foca]'s SWIM.
//! - [`View`] shows the members with their adverts.
//! - [`Election`] agrees on a coordinator among them.
//!
//! All are state machines: messages and the time go in; messages, the time of the next
//! timeout, and events come out. A node drives them with sockets and clocks, a simulation with
//! a queue of virtual events.
//!
//! This crate never reads a clock, never opens a socket, and never draws a random number that
//! its seed doesn't determine. No bytes that a peer sends make it panic.

mod advert;
mod config;
mod election;
mod exchange;
mod id;
mod layers;
mod membership;
mod pool;
mod swim;
mod view;
mod wire;

pub use advert::{AdvertError, Claim, Lending, Load, Profile};
pub use config::Config;
pub use election::{
    COUNCIL, Election, ElectionConfig, ElectionEvent, ElectionMessage, ElectionTransmit,
};
pub use id::NodeId;
pub use layers::LayerDigest;
pub use membership::{Event, Introduction, Membership, MessageError, Stats, Transmit};
pub use pool::ProfilePool;
pub use view::{Member, Slots, View};
pub use wire::{MAX_MESSAGE_BYTES, Malformed};
