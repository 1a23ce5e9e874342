//! Making room: layers that nobody uses go, the least recently used first.
//!
//! Evicting holds the store's lock exclusively, one layer at a time, so nothing is built,
//! unpacked or pinned meanwhile. A layer goes as a whole: its manifest, its tree, and those of
//! its contents that no other layer has. Contents in trees are known by their link count;
//! those of layers that are not unpacked are read from their manifests.

use super::{
    Inner, Store,
    lock::Lock,
    process,
    tree::stored_file,
    usage::{file_cost, layer_cost},
};
use crate::{LayerId, StoreError, build::read_memo};
use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::SystemTime,
};

/// What an eviction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Eviction {
    /// How many layers went.
    pub layers: usize,
    /// How much the store took before, in bytes, about.
    pub before_bytes: u64,
    /// How much it takes now, in bytes, about.
    pub after_bytes: u64,
}

struct Candidate {
    id: LayerId,
    used: SystemTime,
    manifest_bytes: u64,
}

impl Store {
    /// Counts what is there and evicts what is too much. Happens by itself, in the background,
    /// when something was added.
    pub fn evict(&self) -> Result<Eviction, StoreError> {
        let inner = &self.inner;
        // What we only keep ready counts as unused.
        inner.stacks.clear();
        let before_bytes = inner.count()?;
        let mut eviction = Eviction {
            layers: 0,
            before_bytes,
            after_bytes: before_bytes,
        };
        if before_bytes <= inner.limit_bytes() {
            inner.evict_above.store(0, Ordering::Relaxed);
            return Ok(eviction);
        }
        let mut candidates = inner.candidates()?;
        candidates.sort_by_key(|candidate| candidate.used);
        for candidate in candidates {
            if eviction.after_bytes <= inner.limit_bytes() {
                break;
            }
            if let Some(freed) = inner.evict_layer(&candidate)? {
                eviction.layers += 1;
                eviction.after_bytes = eviction.after_bytes.saturating_sub(freed);
            }
        }
        let _lock = Lock::exclusive(&inner.layout.lock())?;
        inner
            .usage
            .reset(&inner.layout, &inner.process, eviction.after_bytes)?;
        // What is left is in use. Trying again is worthwhile only when there is more.
        let patience = inner.options.cache_size_bytes / 16;
        inner.evict_above.store(
            eviction.after_bytes.saturating_add(patience),
            Ordering::Relaxed,
        );
        Ok(eviction)
    }

    /// Evicts on a thread of its own, unless one is at it already.
    pub(crate) fn evict_in_background(&self) {
        if self.inner.evicting.swap(true, Ordering::AcqRel) {
            return;
        }
        // Holding the store would keep it, and what it has pinned, after its last user.
        let inner = std::sync::Arc::downgrade(&self.inner);
        let spawned = std::thread::Builder::new()
            .name("evict".into())
            .spawn(move || {
                let Some(inner) = inner.upgrade() else { return };
                let store = Store { inner };
                match store.evict() {
                    Ok(eviction) if eviction.layers > 0 => tracing::debug!(
                        "evicted {} layers: {} bytes before, {} after",
                        eviction.layers,
                        eviction.before_bytes,
                        eviction.after_bytes
                    ),
                    Ok(_) => {}
                    Err(error) => tracing::warn!("cannot make room in the cache: {error}"),
                }
                store.inner.evicting.store(false, Ordering::Release);
            });
        if let Err(error) = spawned {
            tracing::warn!("cannot make room in the cache: {error}");
            self.inner.evicting.store(false, Ordering::Release);
        }
    }
}

impl Inner {
    /// Adds up what is there and removes what nothing refers to. The long walk holds no lock,
    /// so others go on meanwhile.
    fn count(&self) -> Result<u64, StoreError> {
        let before = self.usage.total(&self.layout)?.unwrap_or(0);
        let mut total = 0u64;
        let mut unlinked = Vec::new();
        for directory in list(&self.layout.files())? {
            for path in list(&directory)? {
                let Ok(metadata) = fs::symlink_metadata(&path) else {
                    continue;
                };
                if metadata.nlink() > 1 {
                    total += file_cost(metadata.size());
                } else {
                    unlinked.push(path);
                }
            }
        }
        let _lock = Lock::exclusive(&self.layout.lock())?;
        let wanted = self.wanted_by_packed_layers(None)?;
        for path in unlinked {
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            if metadata.nlink() > 1 || wanted.contains(&path) {
                total += file_cost(metadata.size());
            } else {
                remove(&path)?;
            }
        }
        for path in list(&self.layout.manifests())? {
            if let Ok(metadata) = fs::symlink_metadata(&path) {
                total += layer_cost(metadata.size());
            }
        }
        let is_known = |id: Option<LayerId>| id.is_some_and(|id| self.layout.manifest(id).exists());
        for path in list(&self.layout.trees())? {
            if !is_known(layer_id(&path)) {
                self.discard(&path)?;
            }
        }
        for path in list(&self.layout.memos())? {
            if !is_known(read_memo(&path)) {
                remove(&path)?;
            }
        }
        // What others added while we walked may or may not be in our sum; better twice than
        // not at all.
        let added = self
            .usage
            .total(&self.layout)?
            .unwrap_or(0)
            .saturating_sub(before);
        total += added;
        self.usage.reset(&self.layout, &self.process, total)?;
        Ok(total)
    }

    /// The kept contents of all layers but one that have no tree to hold on to them.
    fn wanted_by_packed_layers(
        &self,
        except: Option<LayerId>,
    ) -> Result<HashSet<PathBuf>, StoreError> {
        let mut wanted = HashSet::new();
        for path in list(&self.layout.manifests())? {
            let Some(id) = layer_id(&path) else {
                remove(&path)?;
                continue;
            };
            if Some(id) == except || self.layout.tree(id).exists() {
                continue;
            }
            match self.read_manifest(id) {
                Ok(manifest) => wanted.extend(
                    manifest
                        .entries()
                        .iter()
                        .filter_map(stored_file)
                        .map(|file| self.file_of(&file)),
                ),
                Err(error) => tracing::warn!("{error}"),
            }
        }
        Ok(wanted)
    }

    fn candidates(&self) -> Result<Vec<Candidate>, StoreError> {
        let mut candidates = Vec::new();
        for path in list(&self.layout.manifests())? {
            if let Some(id) = layer_id(&path)
                && let Ok(metadata) = fs::symlink_metadata(&path)
            {
                candidates.push(Candidate {
                    id,
                    used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                    manifest_bytes: metadata.size(),
                });
            }
        }
        Ok(candidates)
    }

    /// Removes one layer, unless someone uses it. Returns the freed bytes.
    fn evict_layer(&self, candidate: &Candidate) -> Result<Option<u64>, StoreError> {
        let id = candidate.id;
        let _lock = Lock::exclusive(&self.layout.lock())?;
        if process::pinned_layers(&self.layout)?.contains(&id) {
            return Ok(None);
        }
        let manifest_path = self.layout.manifest(id);
        match fs::symlink_metadata(&manifest_path) {
            // Used since the candidates were listed.
            Ok(metadata) if metadata.modified().is_ok_and(|used| used > candidate.used) => {
                return Ok(None);
            }
            Ok(_) => {}
            Err(_) => return Ok(None),
        }
        self.trees.forget(id);
        let manifest = self.read_manifest(id);
        // The manifest goes last: while it is there, dying here leaves a layer to evict again.
        self.discard(&self.layout.tree(id))?;
        let mut freed = layer_cost(candidate.manifest_bytes);
        // A damaged manifest was removed; its contents go at the next count.
        if let Ok(manifest) = manifest {
            let wanted = self.wanted_by_packed_layers(Some(id))?;
            for file in manifest.entries().iter().filter_map(stored_file) {
                let path = self.file_of(&file);
                let alone = fs::symlink_metadata(&path).is_ok_and(|file| file.nlink() == 1);
                if alone && !wanted.contains(&path) {
                    remove(&path)?;
                    freed += file_cost(file.size_bytes);
                }
            }
        }
        remove(&manifest_path)?;
        Ok(Some(freed))
    }
}

fn layer_id(path: &Path) -> Option<LayerId> {
    path.file_name()?.to_str()?.parse().ok()
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(StoreError::io("list", directory))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}
