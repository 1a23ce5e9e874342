//! Layers as blobs that peers may ask for: the transfer store, on iroh-blobs.
//!
//! A layer travels as its encoded manifest and the contents of its files, each a blob; all of
//! them are BLAKE3 hashes here and there, so a [`LayerId`] *is* the hash of the manifest's
//! blob. A hash sequence that begins with the manifest and goes on with the contents sorted by
//! hash ties them together; anyone who has the manifest can compute it. A tag on it keeps them
//! from being collected as garbage.
//!
//! Contents larger than 16 KiB stay in the content store and are only referred to; the layer
//! is pinned there while it is offered. What arrives from peers is moved there by
//! [`TransferStore::accept`] and referred to from then on, so there is one copy of it on disk,
//! which goes on being served.
//!
//! One process at a time can open a transfer store. The machine may kill it at any point:
//! what it had offered and what it was pulling is still tagged, and is taken up again by
//! [`TransferStore::resume`] and [`TransferStore::expect`].

mod accept;
mod error;
mod offer;

pub use error::TransferError;
pub use offer::sequence;

use iroh_blobs::{
    BlobFormat, Hash, HashAndFormat,
    api::blobs::AddBytesOptions,
    store::{
        GcConfig,
        fs::{FsStore, options::Options},
    },
};
use maelstrom_content::{ContentHash, LayerId, Manifest, Pin, Store};
use n0_future::StreamExt;
use std::{
    collections::HashMap,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How long blobs without a tag stay.
const COLLECT_EVERY: Duration = Duration::from_secs(30);

const OFFERED: &str = "offer/";
const EXPECTED: &str = "expect/";

/// The blobs that peers may ask for, and those that are being pulled from them.
///
/// Its methods need a tokio runtime (of any kind); it does its work on threads of its own.
#[derive(Debug)]
pub struct TransferStore {
    blobs: FsStore,
    /// What keeps the offered layers in the content store.
    offered: Mutex<HashMap<LayerId, Pin>>,
}

/// What is to be pulled of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The hash sequence of the layer.
    pub sequence: HashAndFormat,
    /// The contents that neither store has whole, with their lengths in bytes, sorted by hash.
    pub missing: Vec<(ContentHash, u64)>,
}

impl TransferStore {
    /// Opens the transfer store in a directory, which should be on the file system of the
    /// content store, and is created if it is missing.
    pub async fn open(dir: &Path) -> Result<TransferStore, TransferError> {
        Self::open_collecting(dir, COLLECT_EVERY).await
    }

    /// As [`TransferStore::open`], with how often blobs without a tag are collected.
    pub async fn open_collecting(
        dir: &Path,
        collect_every: Duration,
    ) -> Result<TransferStore, TransferError> {
        let failed = |problem: String| TransferError::Open {
            dir: dir.to_owned(),
            problem,
        };
        let dir = std::path::absolute(dir).map_err(|error| failed(error.to_string()))?;
        tokio::fs::create_dir_all(&dir)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let mut options = Options::new(&dir);
        options.gc = Some(GcConfig {
            interval: collect_every,
            add_protected: None,
        });
        let blobs = FsStore::load_with_opts(dir.join("blobs.db"), options)
            .await
            .map_err(|error| failed(format!("{error:#}")))?;
        Ok(TransferStore {
            blobs,
            offered: Mutex::default(),
        })
    }

    /// The blobs, for the protocols that serve and pull them.
    pub fn blobs(&self) -> &iroh_blobs::api::Store {
        &self.blobs
    }

    /// The layers that are offered.
    pub fn offered(&self) -> Vec<LayerId> {
        self.pins().keys().copied().collect()
    }

    /// Offers again what was offered when this store was last open, as far as the content
    /// store still has it. Returns these layers. To be called once, right after opening.
    pub async fn resume(&self, store: &Store) -> Result<Vec<LayerId>, TransferError> {
        let tags: Vec<_> = self
            .blobs
            .tags()
            .list_prefix(OFFERED)
            .await
            .map_err(TransferError::transfer("list what was offered"))?
            .collect()
            .await;
        let mut resumed = Vec::new();
        for tag in tags {
            let tag = tag.map_err(TransferError::transfer("list what was offered"))?;
            let id = std::str::from_utf8(&tag.name.0)
                .ok()
                .and_then(|name| name.strip_prefix(OFFERED)?.parse::<LayerId>().ok());
            match id {
                Some(id) if self.resume_layer(store, id).await => resumed.push(id),
                _ => {
                    self.blobs
                        .tags()
                        .delete(&tag.name)
                        .await
                        .map_err(TransferError::transfer("withdraw what is gone"))?;
                }
            }
        }
        Ok(resumed)
    }

    async fn resume_layer(&self, store: &Store, id: LayerId) -> bool {
        let store = store.clone();
        let pin = blocking(move || {
            let pin = store.pin(id).ok()?;
            let manifest = store.manifest(id).ok()?;
            let whole = manifest.entries().iter().all(|entry| {
                store
                    .file_path(entry)
                    .is_none_or(|path| path.symlink_metadata().is_ok())
            });
            whole.then_some(pin)
        })
        .await;
        match pin {
            Some(pin) => {
                self.pins().insert(id, pin);
                true
            }
            None => false,
        }
    }

    /// No longer offers a layer. Its blobs go with the next collection, unless another layer
    /// has them too; its contents stay in the content store as long as that wants.
    pub async fn withdraw(&self, id: LayerId) -> Result<(), TransferError> {
        self.untag(OFFERED, id, "withdraw").await?;
        self.pins().remove(&id);
        Ok(())
    }

    /// Prepares for pulling a layer of which only the manifest has come: keeps what arrives of
    /// it from being collected, and tells what is missing. What an earlier process had pulled
    /// is not missing.
    ///
    /// # Errors
    ///
    /// If `manifest` is not the encoded manifest of the layer.
    pub async fn expect(
        &self,
        store: &Store,
        id: LayerId,
        manifest: &[u8],
    ) -> Result<Expected, TransferError> {
        let found = LayerId::of(manifest);
        if found != id {
            return Err(maelstrom_content::StoreError::WrongLayer {
                expected: id,
                found,
            }
            .into());
        }
        let decoded = Manifest::decode(manifest)
            .map_err(|problem| TransferError::Manifest { id, problem })?;
        let sequence = self.tag(EXPECTED, id, manifest, &decoded).await?;
        let here = {
            let (store, manifest) = (store.clone(), manifest.to_vec());
            blocking(move || Ok(store.import(id, &manifest)?.missing())).await
        };
        let wanted = here.map_err(|error: maelstrom_content::StoreError| error)?;
        let mut missing = Vec::new();
        for (content, size_bytes) in wanted {
            let has = self
                .blobs
                .has(hash(content))
                .await
                .map_err(TransferError::layer("pull", id))?;
            if !has {
                missing.push((content, size_bytes));
            }
        }
        Ok(Expected { sequence, missing })
    }

    /// Gives up pulling a layer. What has come of it goes with the next collection.
    pub async fn abandon(&self, id: LayerId) -> Result<(), TransferError> {
        self.untag(EXPECTED, id, "abandon").await
    }

    /// Waits until everything is on disk, and closes the store.
    pub async fn shutdown(self) -> Result<(), TransferError> {
        self.blobs
            .shutdown()
            .await
            .map_err(TransferError::transfer("close the transfer store"))
    }

    /// Stores the manifest and the hash sequence of a layer under a tag.
    async fn tag(
        &self,
        prefix: &str,
        id: LayerId,
        encoded: &[u8],
        manifest: &Manifest,
    ) -> Result<HashAndFormat, TransferError> {
        let failed = TransferError::layer("tag", id);
        // Held until the tag holds them.
        let _manifest = self
            .blobs
            .add_slice(encoded)
            .temp_tag()
            .await
            .map_err(&failed)?;
        let sequence = self
            .blobs
            .add_bytes_with_opts(AddBytesOptions {
                data: sequence(id, manifest).into(),
                format: BlobFormat::HashSeq,
            })
            .temp_tag()
            .await
            .map_err(TransferError::layer("tag", id))?;
        let value = sequence.hash_and_format();
        self.blobs
            .tags()
            .set(format!("{prefix}{id}"), value)
            .await
            .map_err(TransferError::layer("tag", id))?;
        Ok(value)
    }

    async fn untag(
        &self,
        prefix: &str,
        id: LayerId,
        action: &'static str,
    ) -> Result<(), TransferError> {
        self.blobs
            .tags()
            .delete(format!("{prefix}{id}"))
            .await
            .map(drop)
            .map_err(TransferError::layer(action, id))
    }

    fn pins(&self) -> MutexGuard<'_, HashMap<LayerId, Pin>> {
        self.offered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(content: ContentHash) -> Hash {
    Hash::from_bytes(*content.as_bytes())
}

/// Runs something that blocks where that does no harm.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that is going down cancels such tasks, and then nothing is left
            // that could wait for this one.
            Err(_) => std::future::pending().await,
        },
    }
}
