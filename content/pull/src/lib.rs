//! Which ranges of which blobs to ask from whom. No I/O, no clock.
//!
//! A bundle of blobs is cut into pieces ([`Layout`]). A [`Puller`] pulls those that are missing
//! from whoever has them, the rarest first, and serves what it has verified to others meanwhile.
//! [`Body`] tells the protocol.

mod ask;
mod config;
mod ignored;
mod layout;
mod link;
mod message;
mod pieces;
mod puller;
mod serve;
mod swarm;
mod uploads;

pub use config::{Config, Nearness};
pub use ignored::Ignored;
pub use layout::{
    BlobRange, GROUP_BYTES, Layout, LayoutError, MAX_BLOBS, MAX_PIECES, MIN_PIECE_BYTES,
};
pub use message::{Body, BundleId, MAX_ASKED, MAX_PEERS, Message};
pub use pieces::Pieces;
pub use puller::{Action, FetchError, Puller};
