//! Layers on their way between nodes: hash trees, verified encoding and decoding, partial layers
//! on disk.
//!
//! A layer travels as its encoded manifest and the contents of its files, each a blob named by
//! its BLAKE3 hash; a [`LayerId`](maelstrom_content::LayerId) *is* the hash of the manifest's
//! blob. A hash sequence that begins with the manifest and goes on with the contents sorted by
//! hash ties them together; anyone who has the manifest can compute it ([`Plan`]). Nodes ask each
//! other for ranges of the blobs of a sequence ([`request`]), and each is answered by its length
//! and its bytes, interleaved with the hashes that prove them ([`Encoder`], [`Decoder`]).
//!
//! A [`Shelf`] is a layer that can be read by ranges: one of the content store, together with the
//! hash trees of its contents, or one that is still coming ([`Partial`]). What has come is
//! verified before it is written, into files that the content store takes over without a copy,
//! and can be passed on at once. A process may be killed at any point: when a partial layer is
//! opened again, what is on disk is compared with the hashes and what is right is kept.
//!
//! Nothing here uses an asynchronous runtime; operations block on the disk.

mod decode;
mod encode;
mod error;
mod finish;
mod partial;
mod plan;
pub mod request;
mod shelf;
mod tree;

pub use bao_tree::TreeNode;
pub use decode::{DecodeError, Decoded, Decoder, Sink};
pub use encode::Encoder;
pub use error::{BadData, TransferError};
pub use partial::{Partial, Writer};
pub use plan::{Content, Plan};
pub use shelf::Shelf;
pub use tree::manifest_response;

/// Hash trees have leaves of 16 KiB, as those of iroh-blobs: 2⁴ chunks of BLAKE3.
pub(crate) const BLOCK: bao_tree::BlockSize = bao_tree::BlockSize::from_chunk_log(4);

/// The length of a leaf of a hash tree, in bytes.
pub(crate) const GROUP_BYTES: u64 = maelstrom_pull::GROUP_BYTES;
