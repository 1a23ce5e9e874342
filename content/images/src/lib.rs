//! Container images: from registries, OCI layouts and archives of them, into layers of the store.
//!
//! [`Images::get`] finds an image and what its configuration says; [`Images::layers`] makes its
//! layers, which from then on are like any others: named by their contents, kept in the store,
//! sent to whoever needs them.
//!
//! What comes from a registry is kept in a depot, which all projects share. Every byte of it is
//! compared with the digest that names it before anything is made of it. A tag is looked up once,
//! and pinned in a file of the project; so a second run needs no network.
//!
//! Calls block. HTTP goes through a client with a thread of its own, which is started when the
//! first registry is asked.

mod access;
mod credentials;
mod depot;
mod digest;
mod document;
mod error;
mod files;
mod local;
mod lockfile;
mod platform;
mod progress;
mod pull;
mod registry;
mod transport;
mod unpack;

pub use digest::Digest;
pub use error::{ImageError, Problem};
pub use lockfile::LOCK_FILE_NAME;
pub use platform::Platform;
pub use progress::Progress;
pub use pull::{Image, ImageOptions, Images};
