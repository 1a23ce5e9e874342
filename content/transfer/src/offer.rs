//! Making a layer of the content store available to peers.

use crate::{OFFERED, TransferError, TransferStore, blocking, hash};
use iroh_blobs::{
    BlobFormat, Hash, HashAndFormat,
    api::{
        TempTag,
        blobs::{AddPathOptions, ImportMode},
    },
    hashseq::HashSeq,
};
use maelstrom_content::{ContentHash, Entry, EntryKind, LayerId, Manifest, Store};
use std::{collections::HashSet, io::Read, path::PathBuf};
use tokio::task::JoinSet;

/// How many contents are being added at once.
const AT_ONCE: usize = 32;

/// Files that cannot be read where they are get into memory, up to this length in bytes.
const MAX_UNREADABLE_BYTES: u64 = 256 << 20;

/// The hash sequence of a layer: its manifest, then its contents sorted by hash.
pub fn sequence(id: LayerId, manifest: &Manifest) -> HashSeq {
    std::iter::once(Hash::from_bytes(*id.as_bytes()))
        .chain(
            manifest
                .contents()
                .into_iter()
                .map(|(content, _)| hash(content)),
        )
        .collect()
}

/// Contents to be added, and where they are.
enum Source {
    Path(PathBuf),
    Bytes(bytes::Bytes),
}

impl TransferStore {
    /// Lets peers ask for a layer of the content store, which is pinned there until it is
    /// withdrawn. Contents above 16 KiB are read once for their hash trees and not copied.
    pub async fn offer(&self, store: &Store, id: LayerId) -> Result<HashAndFormat, TransferError> {
        let (pin, manifest, contents) = {
            let store = store.clone();
            blocking(move || {
                let pin = store.pin(id)?;
                let manifest = store.manifest(id)?;
                let contents = sources(&store, id, &manifest)?;
                Ok::<_, TransferError>((pin, manifest, contents))
            })
            .await?
        };
        // Held until the tag of the sequence holds everything.
        let mut held: Vec<TempTag> = Vec::with_capacity(contents.len());
        let mut adding = JoinSet::new();
        for (content, source) in contents {
            if adding.len() >= AT_ONCE {
                held.extend(joined(adding.join_next().await, id)?);
            }
            let blobs = self.blobs.clone();
            adding.spawn(async move {
                let added = match source {
                    Source::Path(path) => {
                        let options = AddPathOptions {
                            path,
                            format: BlobFormat::Raw,
                            mode: ImportMode::TryReference,
                        };
                        blobs.add_path_with_opts(options).temp_tag().await
                    }
                    Source::Bytes(bytes) => blobs.add_bytes(bytes).temp_tag().await,
                };
                (content, added)
            });
        }
        while let Some(added) = adding.join_next().await {
            held.extend(joined(Some(added), id)?);
        }
        let encoded = manifest.encode();
        let value = self.tag(OFFERED, id, &encoded, &manifest).await?;
        self.pins().insert(id, pin);
        Ok(value)
    }
}

type Added = (ContentHash, iroh_blobs::api::RequestResult<TempTag>);

fn joined(
    added: Option<Result<Added, tokio::task::JoinError>>,
    id: LayerId,
) -> Result<Option<TempTag>, TransferError> {
    let Some(added) = added else { return Ok(None) };
    let (content, added) = added.map_err(TransferError::layer("offer", id))?;
    let tag = added.map_err(TransferError::layer("offer", id))?;
    if tag.hash() != hash(content) {
        return Err(TransferError::Layer {
            action: "offer",
            id,
            problem: format!(
                "the contents {content} in the cache are damaged; build the layer again"
            ),
        });
    }
    Ok(Some(tag))
}

/// One source for each of the different contents.
fn sources(
    store: &Store,
    id: LayerId,
    manifest: &Manifest,
) -> Result<Vec<(ContentHash, Source)>, TransferError> {
    let mut seen = HashSet::new();
    let mut sources = Vec::new();
    // Readable ones first: the same contents may be there with several modes.
    let readable = |entry: &&Entry| entry.mode & 0o400 != 0;
    let entries = manifest.entries();
    let entries = entries
        .iter()
        .filter(readable)
        .chain(entries.iter().filter(|entry| !readable(entry)));
    for entry in entries {
        let EntryKind::File {
            content,
            size_bytes,
        } = entry.kind
        else {
            continue;
        };
        if !seen.insert(content) {
            continue;
        }
        let source = if readable(&entry) {
            match store.file_path(entry) {
                Some(path) => Source::Path(path),
                None => continue,
            }
        } else {
            Source::Bytes(read(store, id, entry, size_bytes)?)
        };
        sources.push((content, source));
    }
    Ok(sources)
}

fn read(
    store: &Store,
    id: LayerId,
    entry: &Entry,
    size_bytes: u64,
) -> Result<bytes::Bytes, TransferError> {
    if size_bytes > MAX_UNREADABLE_BYTES {
        return Err(TransferError::Layer {
            action: "offer",
            id,
            problem: format!(
                "`{}` may not be read by its owner and is larger than {MAX_UNREADABLE_BYTES} bytes",
                entry.path
            ),
        });
    }
    let mut bytes = Vec::new();
    if let Some(file) = store.open_entry(entry) {
        file?
            .take(size_bytes)
            .read_to_end(&mut bytes)
            .map_err(TransferError::layer("offer", id))?;
    }
    Ok(bytes.into())
}
