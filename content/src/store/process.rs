//! What this process has in the store while it lives: a locked file that lists the layers in
//! use, and a directory for what is unfinished. When a process dies, the system drops its
//! lock, and the next one to come along removes what it left.

use super::{layout::Layout, lock, lock::Lock};
use crate::{LayerId, StoreError, store::remove::remove_tree};
use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

const SLOT_BYTES: usize = 32;

/// This process, as others see it in the store.
#[derive(Debug)]
pub(crate) struct Process {
    file: File,
    path: PathBuf,
    tmp: PathBuf,
    next_tmp: AtomicU64,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    /// Which slot of the file names the layer, and how many pins want that.
    used: HashMap<LayerId, (u64, usize)>,
    free: Vec<u64>,
    next: u64,
}

/// Keeps a layer from being evicted, by any process, until it is dropped.
#[derive(Debug)]
pub struct Pin {
    process: Arc<Process>,
    id: LayerId,
}

impl Pin {
    /// The layer.
    pub fn id(&self) -> LayerId {
        self.id
    }
}

impl Process {
    /// Announces this process.
    pub(crate) fn start(layout: &Layout) -> Result<Process, StoreError> {
        let _lock = Lock::shared(&layout.lock())?;
        for attempt in 0.. {
            let name = unique_name(attempt);
            let path = layout.processes().join(&name);
            let file = match OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)
            {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 100 => {
                    continue;
                }
                Err(source) => return Err(StoreError::io("create", path)(source)),
            };
            // Nobody else can know the name yet, so the lock is free.
            lock::try_lock(&file).map_err(StoreError::io("lock", &path))?;
            let tmp = layout.tmp().join(&name);
            fs::create_dir(&tmp).map_err(StoreError::io("create the directory", &tmp))?;
            return Ok(Process {
                file,
                path,
                tmp,
                next_tmp: AtomicU64::new(0),
                slots: Mutex::default(),
            });
        }
        unreachable!("the loop returns at its last attempt")
    }

    /// A path that nothing stands at, on the file system of the store.
    pub(crate) fn tmp_path(&self) -> PathBuf {
        let number = self.next_tmp.fetch_add(1, Ordering::Relaxed);
        self.tmp.join(number.to_string())
    }

    /// Pins a layer. Only under the store's shared lock, or an evictor may miss it.
    pub(crate) fn pin(self: &Arc<Self>, id: LayerId) -> Result<Pin, StoreError> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        match slots.used.get_mut(&id) {
            Some((_, pins)) => *pins += 1,
            None => {
                let slot = slots.free.pop().unwrap_or(slots.next);
                self.write_slot(slot, id.as_bytes())?;
                slots.next = slots.next.max(slot + 1);
                slots.used.insert(id, (slot, 1));
            }
        }
        Ok(Pin {
            process: self.clone(),
            id,
        })
    }

    fn write_slot(&self, slot: u64, bytes: &[u8; SLOT_BYTES]) -> Result<(), StoreError> {
        self.file
            .write_all_at(bytes, slot * SLOT_BYTES as u64)
            .map_err(StoreError::io("write", &self.path))
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut slots = self
            .process
            .slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some((slot, pins)) = slots.used.get_mut(&self.id) else {
            return;
        };
        *pins -= 1;
        if *pins == 0 {
            let slot = *slot;
            slots.used.remove(&self.id);
            // If this fails, the layer stays pinned until the process ends: a small loss.
            if self.process.write_slot(slot, &[0; SLOT_BYTES]).is_ok() {
                slots.free.push(slot);
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.tmp) {
            tracing::debug!("cannot remove {}: {error}", self.tmp.display());
        }
        let _ = fs::remove_file(&self.path);
    }
}

/// The layers that living processes use. Only under the store's exclusive lock.
pub(crate) fn pinned_layers(layout: &Layout) -> Result<HashSet<LayerId>, StoreError> {
    let mut pinned = HashSet::new();
    for path in list(&layout.processes())? {
        if !is_alive(&path)? {
            continue;
        }
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(StoreError::io("read", path)(source)),
        };
        pinned.extend(
            bytes
                .as_chunks::<SLOT_BYTES>()
                .0
                .iter()
                .filter(|slot| **slot != [0; SLOT_BYTES])
                .map(|slot| LayerId::from_bytes(*slot)),
        );
    }
    Ok(pinned)
}

/// Removes what dead processes left. Returns whether one died while it wrote something: ending
/// without ceremony is nothing special.
pub(crate) fn remove_leftovers(layout: &Layout) -> Result<bool, StoreError> {
    // Whoever else holds the lock will get by without us, and we come again.
    let Some(lock) = Lock::try_exclusive(&layout.lock())? else {
        return Ok(false);
    };
    let mut living = HashSet::new();
    let mut found = false;
    for path in list(&layout.processes())? {
        if is_alive(&path)? {
            living.extend(path.file_name().map(ToOwned::to_owned));
        } else {
            remove_file_if_there(&path)?;
        }
    }
    let dead: Vec<PathBuf> = list(&layout.tmp())?
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| !living.contains(name)))
        .collect();
    drop(lock);
    // Names are never used again, so these need no lock.
    for path in &dead {
        found |= list(path).is_ok_and(|unfinished| !unfinished.is_empty());
        remove_tree(path).map_err(StoreError::io("remove", path))?;
    }
    Ok(found)
}

/// Whether someone holds the lock on a process's file.
fn is_alive(path: &Path) -> Result<bool, StoreError> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => Ok(!lock::try_lock(&file).map_err(StoreError::io("lock", path))?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(StoreError::io("open", path)(source)),
    }
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(StoreError::io("list", directory))
}

fn remove_file_if_there(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// A name that no process before had and none after will have.
fn unique_name(attempt: u32) -> String {
    use std::hash::{BuildHasher, RandomState};
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    // `RandomState` is keyed by the system's random numbers.
    let random = RandomState::new().hash_one(attempt);
    format!("{}-{:x}-{random:016x}", std::process::id(), now.as_nanos())
}
