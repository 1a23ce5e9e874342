//! Where layers are while they come.
//!
//! ```text
//! DIRECTORY/offers/LAYER            an empty file: members may ask for this layer
//! DIRECTORY/process-NUMBER/lock     locked while a process uses this directory
//! DIRECTORY/process-NUMBER/LAYER/   a layer that has come in part
//! ```
//!
//! Each process has a directory of its own and takes what it finds in those of processes that
//! are gone. What nobody is pulling any more stays for a while, and is the first to go when
//! there is no room.

use crate::{LayersError, lock};
use maelstrom_content::{LayerId, Reservation, Store, StoreError};
use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

/// What nobody has wanted for so long goes.
const KEEP_IDLE: Duration = Duration::from_secs(24 * 60 * 60);

/// The directory of this process.
#[derive(Debug)]
pub(crate) struct Directory {
    mine: PathBuf,
    offers: PathBuf,
    lock: Mutex<Option<File>>,
    /// Layers that came in part and that nobody pulls.
    idle: Mutex<HashMap<LayerId, Idle>>,
}

#[derive(Debug)]
struct Idle {
    since: Instant,
    _room: Reservation,
}

impl Directory {
    pub(crate) fn open(root: &Path, store: &Store) -> Result<Directory, LayersError> {
        let failed = |source| LayersError::Directory {
            path: root.to_owned(),
            source,
        };
        let root = std::path::absolute(root).map_err(failed)?;
        let offers = root.join("offers");
        make(&offers).map_err(failed)?;
        let mut found = None;
        for number in 0.. {
            let mine = root.join(format!("process-{number}"));
            make(&mine).map_err(failed)?;
            if let Some(lock) = try_lock(&mine).map_err(failed)? {
                found = Some((mine, lock));
                break;
            }
        }
        let Some((mine, file)) = found else {
            return Err(failed(io::Error::other("no number is left")));
        };
        let directory = Directory {
            mine,
            offers,
            lock: Mutex::new(Some(file)),
            idle: Mutex::default(),
        };
        directory.adopt(&root).map_err(failed)?;
        directory.count(store).map_err(failed)?;
        Ok(directory)
    }

    /// Leaves what is here to another process.
    pub(crate) fn release(&self) {
        drop(lock(&self.lock).take());
    }

    pub(crate) fn offers(&self) -> PathBuf {
        self.offers.clone()
    }

    /// Where a layer comes.
    pub(crate) fn layer(&self, id: LayerId) -> PathBuf {
        self.mine.join(id.to_string())
    }

    /// Where nameless files are made.
    pub(crate) fn path(&self) -> &Path {
        &self.mine
    }

    /// Takes over what processes that are gone have left.
    fn adopt(&self, root: &Path) -> io::Result<()> {
        for entry in fs::read_dir(root)? {
            let path = entry?.path();
            let is_process = path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with("process-"));
            if !is_process || path == self.mine {
                continue;
            }
            let Some(_lock) = try_lock(&path)? else {
                continue;
            };
            for (id, partial) in layers(&path)? {
                let target = self.layer(id);
                if target.exists() || fs::rename(&partial, &target).is_err() {
                    fs::remove_dir_all(&partial)?;
                }
            }
            // Another process may be opening it this moment, and finds it again by its path.
            let _ = fs::remove_file(path.join("lock"));
            let _ = fs::remove_dir(&path);
        }
        Ok(())
    }

    /// Reserves room for what is there already; what has no room goes.
    fn count(&self, store: &Store) -> io::Result<()> {
        for (id, path) in layers(&self.mine)? {
            let bytes = disk_bytes(&path)?;
            match store.reserve(bytes) {
                Ok(room) => self.set_idle(id, room),
                Err(_) => fs::remove_dir_all(&path)?,
            }
        }
        Ok(())
    }

    /// Nobody pulls the layer any more.
    pub(crate) fn set_idle(&self, id: LayerId, room: Reservation) {
        let idle = Idle {
            since: Instant::now(),
            _room: room,
        };
        lock(&self.idle).insert(id, idle);
    }

    /// Reserves room for a layer that is going to be pulled. Layers that came in part and are
    /// idle go if there is no room otherwise.
    pub(crate) fn reserve(
        &self,
        store: &Store,
        id: LayerId,
        bytes: u64,
    ) -> Result<Reservation, StoreError> {
        lock(&self.idle).remove(&id);
        loop {
            match store.reserve(bytes) {
                Err(error @ StoreError::NoRoom { .. }) => {
                    let mut idle = lock(&self.idle);
                    let oldest = idle.iter().min_by_key(|(_, idle)| idle.since);
                    let Some(oldest) = oldest.map(|(id, _)| *id) else {
                        return Err(error);
                    };
                    remove(&self.layer(oldest));
                    idle.remove(&oldest);
                }
                result => return result,
            }
        }
    }

    /// Removes what nobody has wanted for long.
    pub(crate) fn clean(&self) {
        lock(&self.idle).retain(|id, idle| {
            let keep = idle.since.elapsed() < KEEP_IDLE;
            if !keep {
                remove(&self.layer(*id));
            }
            keep
        });
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path) {
        tracing::warn!("cannot remove {}: {error}", path.display());
    }
}

fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn try_lock(directory: &Path) -> io::Result<Option<File>> {
    let path = directory.join("lock");
    let open = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let file = match open {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        Err(fs::TryLockError::Error(error)) => return Err(error),
    }
    // Whoever took the directory away took the lock's file with it.
    let same = fs::metadata(&path)
        .and_then(|named| Ok((named.dev(), named.ino(), file.metadata()?)))
        .is_ok_and(|(dev, ino, open)| (dev, ino) == (open.dev(), open.ino()));
    Ok(same.then_some(file))
}

/// The layers in the directory of a process.
fn layers(directory: &Path) -> io::Result<Vec<(LayerId, PathBuf)>> {
    let mut layers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let id = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        layers.extend(id.map(|id| (id, path)));
    }
    Ok(layers)
}

fn disk_bytes(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        bytes += entry?.metadata()?.blocks() * 512;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use maelstrom_content::StoreOptions;

    #[test]
    fn processes_share_it_and_take_over_what_the_dead_leave() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache"), StoreOptions::default()).unwrap();
        let root = dir.path().join("transfer");
        let first = Directory::open(&root, &store).unwrap();
        let second = Directory::open(&root, &store).unwrap();
        assert_ne!(first.path(), second.path());
        let layer = LayerId::of(b"layer");
        fs::create_dir(second.layer(layer)).unwrap();
        fs::write(second.layer(layer).join("pack"), vec![1; 100_000]).unwrap();
        let third = Directory::open(&root, &store).unwrap();
        assert!(!third.layer(layer).exists(), "its owner lives");
        second.release();
        drop(third);
        first.release();
        let fourth = Directory::open(&root, &store).unwrap();
        assert!(fourth.layer(layer).join("pack").exists());
        let processes = fs::read_dir(&root).unwrap().count();
        assert_eq!(processes, 2, "one directory and the offers are left");
    }

    #[test]
    fn what_came_in_part_makes_room_for_what_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            cache_size_bytes: 1 << 20,
        };
        let store = Store::open(&dir.path().join("cache"), options).unwrap();
        let root = dir.path().join("transfer");
        let directory = Directory::open(&root, &store).unwrap();
        let (old, new) = (LayerId::of(b"old"), LayerId::of(b"new"));
        fs::create_dir(directory.layer(old)).unwrap();
        fs::write(directory.layer(old).join("pack"), vec![1; 600_000]).unwrap();
        directory.release();
        let directory = Directory::open(&root, &store).unwrap();
        assert!(directory.layer(old).exists());
        let room = directory.reserve(&store, new, 300_000).unwrap();
        assert!(directory.layer(old).exists(), "both have room");
        drop(room);
        let _room = directory.reserve(&store, new, 900_000).unwrap();
        assert!(!directory.layer(old).exists());
        let refused = directory.reserve(&store, new, 200_000).unwrap_err();
        assert!(matches!(refused, StoreError::NoRoom { .. }), "{refused}");
    }
}
