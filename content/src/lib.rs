//! What a job needs: manifests, layer builders, the store, unpacked trees, eviction.
//!
//! A **layer** is a [`Manifest`], which is a sorted list of paths with modes, times and hashes
//! of contents, plus those contents. Its [`LayerId`] is the hash of the manifest: the same
//! input gives the same id on every machine and in every checkout.
//!
//! A [`Store`] keeps layers in a cache directory that any number of processes share. Layers
//! get in by [`Store::build`] (from the specifications that users write), [`Store::layer`] (by
//! calls) or [`Store::import`] (from elsewhere), and come out as directories that overlays
//! can be made of: [`Store::tree`] and [`Store::stack`].
//!
//! Nothing here uses an asynchronous runtime; operations block on the disk and spread over
//! rayon's threads.

mod build;
mod builder;
mod draft;
mod error;
mod id;
mod manifest;
mod path;
mod stat;
mod store;
mod walk;

pub use build::BuildContext;
pub use builder::{LayerBuilder, ModificationTimes};
pub use error::{LayerError, StoreError};
pub use id::{ContentHash, LayerId, ParseHashError};
pub use manifest::{
    Bytes, Entry, EntryKind, EntryPath, MAX_MANIFEST_BYTES, Manifest, ManifestError, Timestamp,
};
pub use path::PathProblem;
pub use store::{Eviction, LayerImport, Pin, Reservation, Stack, Store, StoreOptions, Tree};
