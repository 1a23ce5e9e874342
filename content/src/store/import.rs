//! Taking in layers whose contents come from elsewhere.

use super::{Store, files, files::StoredFile, lock::Lock, tree::stored_file};
use crate::{ContentHash, LayerId, Manifest, StoreError};
use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// A layer that is being taken in. The store evicts nothing while this lives, so finish soon:
/// gather the contents first. Dropping it unfinished leaves the store as it was.
#[derive(Debug)]
pub struct LayerImport {
    store: Store,
    id: LayerId,
    encoded: Vec<u8>,
    /// What is not there yet.
    missing: HashMap<ContentHash, Vec<StoredFile>>,
    _lock: Lock,
}

impl LayerImport {
    pub(super) fn new(store: Store, id: LayerId, encoded: &[u8]) -> Result<Self, StoreError> {
        let found = LayerId::of(encoded);
        if found != id {
            return Err(StoreError::WrongLayer {
                expected: id,
                found,
            });
        }
        let manifest = Manifest::decode(encoded)?;
        let lock = store.inner.shared_lock()?;
        let mut missing: HashMap<ContentHash, Vec<StoredFile>> = HashMap::new();
        for file in manifest.entries().iter().filter_map(stored_file) {
            let forms = missing.entry(file.content).or_default();
            if !forms.contains(&file) {
                forms.push(file);
            }
        }
        missing.retain(|_, forms| {
            forms.retain(|file| !store.inner.has_file(file));
            !forms.is_empty()
        });
        Ok(LayerImport {
            store,
            id,
            encoded: encoded.to_vec(),
            missing,
            _lock: lock,
        })
    }

    /// The contents that the store does not have yet, with their lengths in bytes.
    pub fn missing(&self) -> Vec<(ContentHash, u64)> {
        let mut missing: Vec<_> = self
            .missing
            .iter()
            .map(|(content, forms)| (*content, forms[0].size_bytes))
            .collect();
        missing.sort_unstable();
        missing
    }

    /// Takes contents from bytes. Contents that are not missing are ignored.
    pub fn add_bytes(&mut self, content: ContentHash, bytes: &[u8]) -> Result<(), StoreError> {
        let found = ContentHash::of(bytes);
        self.compare(content, found, bytes.len() as u64, "what came")?;
        for file in self.missing.remove(&content).unwrap_or_default() {
            self.store
                .inner
                .store_bytes(bytes, file.mode, file.modified)?;
        }
        Ok(())
    }

    /// Takes contents from a file, by moving it if possible (it must be ours alone then, and
    /// on the file system of the store), else by copying. Afterwards the file may be gone.
    pub fn add_file(&mut self, content: ContentHash, path: &Path) -> Result<(), StoreError> {
        let Some(forms) = self.missing.get(&content).cloned() else {
            return Ok(());
        };
        let inner = self.store.inner.clone();
        let Some((last, others)) = forms.split_last() else {
            return Ok(());
        };
        for file in others {
            self.copy_in(content, path, file)?;
        }
        let mut tmp = inner.tmp_file()?;
        match fs::rename(path, &tmp.path) {
            Ok(()) => {
                tmp.file = File::options()
                    .read(true)
                    .write(true)
                    .open(&tmp.path)
                    .map_err(StoreError::io("open", &tmp.path))?;
                let (found, length) =
                    files::hash_reader(&mut tmp.file).map_err(StoreError::io("read", &tmp.path))?;
                self.compare(content, found, length, path)?;
                inner.place(tmp, last)?;
            }
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                self.copy_in(content, path, last)?;
            }
            Err(source) => return Err(StoreError::io("move", path)(source)),
        }
        self.missing.remove(&content);
        Ok(())
    }

    /// Takes contents from a file whose bytes the caller has compared with their hash as they
    /// were written: by moving it, so it must be ours alone and on the file system of the store.
    /// Only its length is looked at.
    pub fn add_verified_file(
        &mut self,
        content: ContentHash,
        path: &Path,
        size_bytes: u64,
    ) -> Result<(), StoreError> {
        let Some(forms) = self.missing.get(&content).cloned() else {
            return Ok(());
        };
        let Some((last, others)) = forms.split_last() else {
            return Ok(());
        };
        let file = File::open(path).map_err(StoreError::io("open", path))?;
        let length = file.metadata().map_err(StoreError::io("read", path))?.len();
        self.compare(content, content, length.min(size_bytes), path)?;
        for form in others {
            self.copy_in(content, path, form)?;
        }
        let inner = &self.store.inner;
        files::set_attributes(&file, path, last)?;
        files::rename_making_parent(path, &inner.file_of(last))?;
        inner.usage.add(super::usage::file_cost(last.size_bytes));
        self.missing.remove(&content);
        Ok(())
    }

    /// A path that nothing stands at, for a file that [`LayerImport::add_file`] or
    /// [`LayerImport::add_verified_file`] is to move. It
    /// is removed with this process if it stays there.
    pub fn aside(&self) -> PathBuf {
        self.store.inner.process.tmp_path()
    }

    fn copy_in(
        &self,
        content: ContentHash,
        path: &Path,
        file: &StoredFile,
    ) -> Result<(), StoreError> {
        let mut source = File::open(path).map_err(StoreError::io("read", path))?;
        let mut tmp = self.store.inner.tmp_file()?;
        if rustix::fs::ioctl_ficlone(&tmp.file, &source).is_err() {
            io::copy(&mut source, &mut tmp.file).map_err(StoreError::io("write", &tmp.path))?;
        }
        io::Seek::rewind(&mut tmp.file).map_err(StoreError::io("read", &tmp.path))?;
        let (found, length) =
            files::hash_reader(&mut tmp.file).map_err(StoreError::io("read", &tmp.path))?;
        self.compare(content, found, length, path)?;
        self.store.inner.place(tmp, file)
    }

    /// Contents must have the hash and, as the manifest tells it, the length.
    fn compare(
        &self,
        expected: ContentHash,
        found: ContentHash,
        length: u64,
        from: impl AsRef<Path>,
    ) -> Result<(), StoreError> {
        let told = self.missing.get(&expected).map(|forms| forms[0].size_bytes);
        if found != expected {
            return Err(StoreError::WrongContent {
                expected,
                found,
                from: from.as_ref().display().to_string(),
            });
        }
        match told {
            Some(told) if told != length => Err(self.store.inner.damaged(
                self.id,
                format!("its manifest gives {told} bytes to {expected}, which has {length}"),
            )),
            _ => Ok(()),
        }
    }

    /// Keeps the layer. Fails if contents are still missing.
    pub fn finish(self) -> Result<LayerId, StoreError> {
        if let Some(content) = self.missing.keys().next() {
            return Err(self.store.inner.damaged(
                self.id,
                format!(
                    "{} contents have not come, one is {content}",
                    self.missing.len()
                ),
            ));
        }
        self.store.inner.keep_layer(self.id, &self.encoded)?;
        drop(self._lock);
        self.store.settle();
        Ok(self.id)
    }
}
