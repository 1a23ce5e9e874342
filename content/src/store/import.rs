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

    /// Where the store will keep contents, for whoever can put a file there with less than a
    /// copy, and wants to know it by that path afterwards. The directory is there, the file is
    /// to be put there whole (renamed), and then told of by [`LayerImport::adopt`]. `None` if
    /// nothing is missing, or if the file will not be readable there.
    pub fn place(&self, content: ContentHash) -> Result<Option<PathBuf>, StoreError> {
        let Some(form) = self.missing.get(&content).and_then(|forms| forms.first()) else {
            return Ok(None);
        };
        if form.mode & 0o400 == 0 {
            return Ok(None);
        }
        let path = self.store.inner.file_of(form);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)
                .map_err(StoreError::io("create the directory", directory))?;
        }
        Ok(Some(path))
    }

    /// A path that nothing stands at, for a file that [`LayerImport::add_file`] is to move. It
    /// is removed with this process if it stays there.
    pub fn aside(&self) -> PathBuf {
        self.store.inner.process.tmp_path()
    }

    /// Takes the contents that were put at [`LayerImport::place`]. They are removed if they are
    /// not what they should be.
    pub fn adopt(&mut self, content: ContentHash) -> Result<(), StoreError> {
        let Some(forms) = self.missing.get(&content).cloned() else {
            return Ok(());
        };
        let Some((first, others)) = forms.split_first() else {
            return Ok(());
        };
        let path = self.store.inner.file_of(first);
        let mut file = File::open(&path).map_err(StoreError::io("read", &path))?;
        let (found, length) =
            files::hash_reader(&mut file).map_err(StoreError::io("read", &path))?;
        if let Err(error) = self.compare(content, found, length, &path) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        self.store.inner.finish_file(&file, &path, first)?;
        for form in others {
            self.copy_in(content, &path, form)?;
        }
        self.missing.remove(&content);
        Ok(())
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
