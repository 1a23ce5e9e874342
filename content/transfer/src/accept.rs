//! Taking a layer that has come into the content store.

use crate::{EXPECTED, OFFERED, TransferError, TransferStore, blocking, hash};
use iroh_blobs::api::blobs::{BlobStatus, ExportMode, ExportOptions};
use maelstrom_content::{ContentHash, LayerId, LayerImport, MAX_MANIFEST_BYTES, Manifest, Store};
use tokio::task::JoinSet;

/// Contents up to this length in bytes are inside the database of the transfer store.
const INLINE_BYTES: u64 = 16 << 10;

/// How many small contents are taken together.
const BATCH: usize = 256;

impl TransferStore {
    /// Takes a layer that has come whole into the content store, and offers it from there.
    ///
    /// All contents are compared with their hashes. Those above 16 KiB are moved if the stores
    /// are on one file system.
    ///
    /// # Errors
    ///
    /// [`TransferError::Incomplete`] if something has not come. Nothing is lost then: pull
    /// what is missing and accept again.
    pub async fn accept(&self, store: &Store, id: LayerId) -> Result<(), TransferError> {
        let encoded = self.manifest(id).await?;
        let manifest = Manifest::decode(&encoded)
            .map_err(|problem| TransferError::Manifest { id, problem })?;
        let mut import = {
            let (store, encoded) = (store.clone(), encoded.clone());
            blocking(move || store.import(id, &encoded)).await?
        };
        let missing = import.missing();
        self.check_whole(id, &missing).await?;
        let (small, large): (Vec<_>, Vec<_>) = missing
            .into_iter()
            .partition(|(_, size_bytes)| *size_bytes <= INLINE_BYTES);
        for batch in small.chunks(BATCH) {
            let bytes = self.read_small(id, batch).await?;
            import = blocking(move || {
                for (content, bytes) in bytes {
                    import.add_bytes(content, &bytes)?;
                }
                Ok::<_, TransferError>(import)
            })
            .await?;
        }
        for (content, _) in large {
            import = self.move_large(id, content, import).await?;
        }
        blocking(move || import.finish()).await?;
        self.tag(OFFERED, id, &encoded, &manifest).await?;
        let pin = {
            let store = store.clone();
            blocking(move || {
                let pin = store.pin(id);
                // The pin holds it from now on, so that withdrawing it lets go of it.
                store.release(id);
                pin
            })
            .await?
        };
        self.pins().insert(id, pin);
        self.untag(EXPECTED, id, "accept").await
    }

    async fn manifest(&self, id: LayerId) -> Result<bytes::Bytes, TransferError> {
        let hash = iroh_blobs::Hash::from_bytes(*id.as_bytes());
        let failed = TransferError::layer("read the manifest of", id);
        match self.blobs.status(hash).await.map_err(failed)? {
            BlobStatus::Complete { size } if size <= MAX_MANIFEST_BYTES as u64 => {}
            BlobStatus::Complete { .. } => {
                return Err(TransferError::Layer {
                    action: "accept",
                    id,
                    problem: "its manifest is too long".into(),
                });
            }
            _ => {
                return Err(TransferError::Layer {
                    action: "accept",
                    id,
                    problem: "its manifest has not come".into(),
                });
            }
        }
        self.blobs
            .get_bytes(hash)
            .await
            .map_err(TransferError::layer("read the manifest of", id))
    }

    async fn check_whole(
        &self,
        id: LayerId,
        missing: &[(ContentHash, u64)],
    ) -> Result<(), TransferError> {
        let mut absent = Vec::new();
        for (content, _) in missing {
            let has = self
                .blobs
                .has(hash(*content))
                .await
                .map_err(TransferError::layer("accept", id))?;
            if !has {
                absent.push(*content);
            }
        }
        match absent.first() {
            None => Ok(()),
            Some(one) => Err(TransferError::Incomplete {
                id,
                missing: absent.len(),
                one: *one,
            }),
        }
    }

    async fn read_small(
        &self,
        id: LayerId,
        batch: &[(ContentHash, u64)],
    ) -> Result<Vec<(ContentHash, bytes::Bytes)>, TransferError> {
        let mut reading = JoinSet::new();
        for (content, _) in batch {
            let (blobs, content) = (self.blobs.clone(), *content);
            reading.spawn(async move { (content, blobs.get_bytes(hash(content)).await) });
        }
        let mut read = Vec::with_capacity(batch.len());
        while let Some(result) = reading.join_next().await {
            let (content, bytes) = result.map_err(TransferError::layer("accept", id))?;
            read.push((content, bytes.map_err(TransferError::layer("accept", id))?));
        }
        Ok(read)
    }

    async fn move_large(
        &self,
        id: LayerId,
        content: ContentHash,
        mut import: LayerImport,
    ) -> Result<LayerImport, TransferError> {
        let place = import.place(content)?;
        let adopted = place.is_some();
        let (mode, target) = match place {
            Some(path) => (ExportMode::TryReference, path),
            None => (ExportMode::Copy, import.aside()),
        };
        self.blobs
            .export_with_opts(ExportOptions {
                hash: hash(content),
                mode,
                target: target.clone(),
            })
            .finish()
            .await
            .map_err(TransferError::layer("accept", id))?;
        blocking(move || {
            if adopted {
                import.adopt(content)?;
            } else {
                import.add_file(content, &target)?;
            }
            Ok(import)
        })
        .await
    }
}
