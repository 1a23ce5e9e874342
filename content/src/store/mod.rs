//! Where layers are kept: contents, manifests and unpacked trees, shared by all processes of
//! one user.
//!
//! Everything is written under `tmp/` and renamed into place, so that a process may die at any
//! point; see `layout` for what is where, `process` for who uses what, and `evict` for what
//! goes when there is too much.

mod digests;
mod evict;
pub(crate) mod files;
mod import;
mod layout;
mod lock;
mod process;
mod remove;
mod room;
mod stack;
mod tree;
mod usage;

pub use evict::Eviction;
pub use import::LayerImport;
pub use process::Pin;
pub use room::Reservation;
pub use stack::Stack;
pub use tree::Tree;
pub(crate) use tree::stored_file;

use crate::{LayerBuilder, LayerId, Manifest, StoreError};
use digests::Digests;
use layout::Layout;
use lock::Lock;
use process::Process;
use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File, FileTimes},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};
use usage::Usage;

/// What the cache directory tag standard asks for, so that backups leave the directory out.
const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This directory holds what can be made again. It may be removed when nothing uses it.\n";

/// How long what is only in memory may wait to be saved.
const SAVE_AFTER: Duration = Duration::from_millis(50);

/// How a store behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// How much the store may take of the disk, in bytes. What is in use stays beyond that.
    pub cache_size_bytes: u64,
}

impl Default for StoreOptions {
    /// 20 GiB.
    fn default() -> Self {
        StoreOptions {
            cache_size_bytes: 20 << 30,
        }
    }
}

/// A store of layers. Clones are the same store.
///
/// Any number of processes may open the same directory. Layers built through a store stay in
/// it until the last clone of that store is dropped (or [`Store::release`] is called); the
/// others stay while a [`Tree`], [`Stack`] or [`Pin`] of theirs lives, in whichever process.
/// What is in no use goes, least recently used first, when the store outgrows its size.
///
/// Its operations may block on the disk and use all threads of rayon's global pool.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) layout: Layout,
    options: StoreOptions,
    pub(crate) process: Arc<Process>,
    pub(crate) digests: Arc<Digests>,
    pub(crate) usage: Usage,
    /// The layers that were built through this store.
    built: Mutex<HashMap<LayerId, Pin>>,
    trees: tree::Trees,
    stacks: stack::Stacks,
    evicting: AtomicBool,
    /// Evict only when more than this many bytes are used, and more than there may be.
    evict_above: AtomicU64,
    /// Bytes for which room is kept free.
    reserved: Arc<AtomicU64>,
}

impl Store {
    /// Opens the store in a cache directory, which is created if it is missing, and removes
    /// what processes that died have left there.
    ///
    /// Fails if the directory cannot be written to or its file system has no locks.
    pub fn open(root: &Path, options: StoreOptions) -> Result<Store, StoreError> {
        let root = std::path::absolute(root).map_err(StoreError::io("resolve", root))?;
        let layout = Layout::new(&root);
        create_directories(&layout)?;
        let leftovers = process::remove_leftovers(&layout)?;
        let process = Arc::new(Process::start(&layout)?);
        let inner = Arc::new(Inner {
            digests: Arc::new(Digests::new(layout.clone())),
            layout,
            options,
            process,
            usage: Usage::default(),
            built: Mutex::default(),
            trees: tree::Trees::default(),
            stacks: stack::Stacks::default(),
            evicting: AtomicBool::new(false),
            evict_above: AtomicU64::new(0),
            reserved: Arc::default(),
        });
        let store = Store { inner };
        if leftovers {
            // Someone died, maybe before it wrote down what it had added.
            store.evict_in_background();
        }
        Ok(store)
    }

    /// The directory that the store was opened with, made absolute.
    pub fn root(&self) -> &Path {
        &self.inner.layout.cache
    }

    /// A layer to be put together by calls.
    pub fn layer(&self) -> LayerBuilder {
        LayerBuilder::new(self.clone())
    }

    /// The manifest of a layer.
    pub fn manifest(&self, id: LayerId) -> Result<Manifest, StoreError> {
        let _lock = self.inner.shared_lock()?;
        self.inner.read_manifest(id)
    }

    /// Keeps a layer from being evicted while the pin lives. Fails if it is not there.
    pub fn pin(&self, id: LayerId) -> Result<Pin, StoreError> {
        let _lock = self.inner.shared_lock()?;
        self.inner.pin(id)
    }

    /// Keeps a layer as if it had been built through this store. Fails if it is not there.
    pub(crate) fn keep(&self, id: LayerId) -> Result<LayerId, StoreError> {
        let pin = self.pin(id)?;
        self.inner.built().insert(id, pin);
        Ok(id)
    }

    /// Whether the store has a manifest of this id. What it names may still be damaged.
    pub fn contains(&self, id: LayerId) -> bool {
        self.inner.layout.manifest(id).exists()
    }

    /// Where the contents of a file of a layer are kept: never to be changed, and there as
    /// long as the layer is pinned.
    pub fn file_path(&self, entry: &crate::Entry) -> Option<PathBuf> {
        match entry.kind {
            crate::EntryKind::File { content, .. } => {
                Some(self.inner.layout.file(content, entry.mode, entry.modified))
            }
            _ => None,
        }
    }

    /// Opens the contents of a file of a layer, also if its own mode forbids reading.
    /// `None` if the entry is no file.
    pub fn open_entry(&self, entry: &crate::Entry) -> Option<Result<File, StoreError>> {
        let stored = tree::stored_file(entry)?;
        Some(self.inner.open_file(&stored))
    }

    /// No longer keeps a layer for having been built through this store. For long-lived
    /// processes; others need not care.
    pub fn release(&self, id: LayerId) {
        self.inner.built().remove(&id);
    }

    /// Takes in a layer whose manifest and contents come from elsewhere.
    ///
    /// `manifest` is the encoding of the layer's manifest; it is checked against `id`.
    pub fn import(&self, id: LayerId, manifest: &[u8]) -> Result<LayerImport, StoreError> {
        LayerImport::new(self.clone(), id, manifest)
    }

    /// Drops unused stacks and saves what is only in memory. For long-lived processes that
    /// have nothing to do, and for such as are about to exit without dropping the store.
    pub fn release_idle(&self) -> Result<(), StoreError> {
        self.inner.stacks.clear();
        self.inner.digests.save(&self.inner.process)
    }
}

impl Inner {
    pub(crate) fn shared_lock(&self) -> Result<Lock, StoreError> {
        Lock::shared(&self.layout.lock())
    }

    fn built(&self) -> MutexGuard<'_, HashMap<LayerId, Pin>> {
        self.built.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pins a layer and marks it as used now. Only under the lock.
    fn pin(self: &Arc<Self>, id: LayerId) -> Result<Pin, StoreError> {
        let pin = self.process.pin(id)?;
        let path = self.layout.manifest(id);
        let now = FileTimes::new().set_modified(SystemTime::now());
        match File::open(&path).and_then(|file| file.set_times(now)) {
            Ok(()) => Ok(pin),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.unknown(id)),
            Err(source) => Err(StoreError::io("mark as used", path)(source)),
        }
    }

    fn unknown(&self, id: LayerId) -> StoreError {
        StoreError::UnknownLayer {
            id,
            root: self.layout.cache.clone(),
        }
    }

    pub(crate) fn damaged(&self, id: LayerId, what: impl Into<String>) -> StoreError {
        StoreError::Damaged {
            id,
            root: self.layout.cache.clone(),
            what: what.into(),
        }
    }

    /// Only under the lock. A damaged manifest is discarded.
    pub(crate) fn read_manifest(&self, id: LayerId) -> Result<Manifest, StoreError> {
        let path = self.layout.manifest(id);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.unknown(id)),
            Err(source) => return Err(StoreError::io("read", path)(source)),
        };
        let manifest = if LayerId::of(&bytes) == id {
            Manifest::decode(&bytes).map_err(|error| error.to_string())
        } else {
            Err("its manifest has another hash".into())
        };
        manifest.map_err(|what| {
            let _ = fs::remove_file(&path);
            self.damaged(id, what)
        })
    }

    /// Writes a manifest unless it is there, and keeps the layer for this process. Only under
    /// the lock that was held since its contents were seen to be there.
    pub(crate) fn keep_layer(
        self: &Arc<Self>,
        id: LayerId,
        encoded: &[u8],
    ) -> Result<(), StoreError> {
        let path = self.layout.manifest(id);
        if fs::read(&path).ok().as_deref() != Some(encoded) {
            let tmp = self.process.tmp_path();
            fs::write(&tmp, encoded).map_err(|source| {
                let _ = fs::remove_file(&tmp);
                StoreError::io("write", &tmp)(source)
            })?;
            fs::rename(&tmp, &path).map_err(StoreError::io("create", &path))?;
            self.usage.add(usage::layer_cost(encoded.len() as u64));
        }
        let pin = self.pin(id)?;
        self.built().insert(id, pin);
        Ok(())
    }

    /// Whether the layer has a tree that looks as its manifest says. Only under the lock.
    pub(crate) fn is_complete(&self, id: LayerId, manifest: &Manifest) -> Result<bool, StoreError> {
        self.trees.check_or_discard(self, id, manifest)
    }
}

impl Store {
    /// After something was added: writes down how much, and evicts if it is too much.
    pub(crate) fn settle(&self) {
        let result = self
            .inner
            .shared_lock()
            .and_then(|_lock| self.inner.usage.flush(&self.inner.layout));
        if let Err(error) = result {
            tracing::warn!("{error}");
        }
        let limit = self
            .inner
            .limit_bytes()
            .max(self.inner.evict_above.load(Ordering::Relaxed));
        match self.inner.usage.total(&self.inner.layout) {
            Ok(Some(total)) if total <= limit => {}
            Ok(_) => self.evict_in_background(),
            Err(error) => tracing::warn!("{error}"),
        }
        self.save_soon();
    }

    /// Saves what is only in memory a moment from now, together with what comes until then:
    /// not every process gets to its orderly end.
    fn save_soon(&self) {
        if !self.inner.digests.wants_saving() {
            return;
        }
        // The thread keeps nothing alive: whoever drops the store wants it closed.
        let digests = self.inner.digests.clone();
        let process = Arc::downgrade(&self.inner.process);
        let spawned = std::thread::Builder::new()
            .name("save digests".into())
            .spawn(move || {
                std::thread::sleep(SAVE_AFTER);
                warn_unsaved(digests.save_unless_closed(&process));
            });
        if spawned.is_err() {
            warn_unsaved(self.inner.digests.save(&self.inner.process));
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        warn_unsaved(self.digests.close(&self.process));
    }
}

fn warn_unsaved(result: Result<(), StoreError>) {
    if let Err(error) = result {
        tracing::warn!("cannot remember the hashes of files: {error}");
    }
}

fn create_directories(layout: &Layout) -> Result<(), StoreError> {
    fs::create_dir_all(&layout.cache)
        .map_err(StoreError::io("create the directory", &layout.cache))?;
    let tag = layout.cache.join("CACHEDIR.TAG");
    if !tag.exists() {
        fs::write(&tag, CACHEDIR_TAG).map_err(StoreError::io("create", tag))?;
    }
    // Only we may look inside: the trees can hold set-id programs and files that their
    // sources kept from others.
    let mut private = DirBuilder::new();
    private.recursive(true).mode(0o700);
    for directory in layout.directories() {
        private
            .create(&directory)
            .map_err(StoreError::io("create the directory", directory))?;
    }
    Ok(())
}
