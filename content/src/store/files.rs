//! The contents of files, kept once for each mode and modification time, so that trees can be
//! made of hard links to them.

use super::Inner;
use crate::{
    ContentHash, LayerError, StoreError,
    manifest::Timestamp,
    stat::{self, FileStat},
    store::usage::file_cost,
};
use rustix::fs::{Timespec, Timestamps};
use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Files up to this length are read whole before anything is written.
const SMALL_BYTES: u64 = 256 << 10;

/// How much of a larger file is in memory at once.
const BUFFER_BYTES: usize = 1 << 20;

/// Contents as they are kept, or are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredFile {
    pub(crate) content: ContentHash,
    pub(crate) size_bytes: u64,
    pub(crate) mode: u32,
    pub(crate) modified: Timestamp,
}

impl Inner {
    /// Whether these contents are there, and look as they were left.
    pub(crate) fn has_file(&self, file: &StoredFile) -> bool {
        fs::symlink_metadata(self.file_of(file)).is_ok_and(|metadata| {
            metadata.is_file()
                && metadata.size() == file.size_bytes
                && metadata.mode() & 0o7777 == file.mode
                && file.modified.is_kept_as(stat::modified(&metadata))
        })
    }

    /// Keeps the contents of a file of the user's. Its hash is remembered by its stamp.
    pub(crate) fn store_source(
        &self,
        path: &Path,
        keep_modified: bool,
    ) -> Result<StoredFile, LayerError> {
        let before = SystemTime::now();
        let mut source = OpenOptions::new()
            .read(true)
            // A named pipe must not keep us waiting before it can be refused.
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
            .open(path)
            .map_err(LayerError::source("read", path))?;
        let metadata = source
            .metadata()
            .map_err(LayerError::source("read", path))?;
        refuse_special(path, &metadata)?;
        let stat = FileStat::new(&metadata);
        let modified = if keep_modified {
            stat.modified
        } else {
            Timestamp::NORMAL
        };
        let (content, size_bytes) = self
            .store_open_file(path, &mut source, &stat, modified)
            .map_err(|error| error.while_storing(path))?;
        let after = source
            .metadata()
            .map_err(LayerError::source("read", path))?;
        if self
            .digests
            .get(&stat.stamp)
            .is_some_and(|known| known != content)
        {
            self.digests.forget(&stat.stamp);
        }
        if FileStat::new(&after).stamp == stat.stamp {
            self.digests.insert(&stat.stamp, content, before);
        } else {
            tracing::debug!("{} changed while it was read", path.display());
        }
        Ok(StoredFile {
            content,
            size_bytes,
            mode: stat.mode,
            modified,
        })
    }

    fn store_open_file(
        &self,
        path: &Path,
        source: &mut File,
        stat: &FileStat,
        modified: Timestamp,
    ) -> Result<(ContentHash, u64), LayerError> {
        if stat.stamp.size_bytes > SMALL_BYTES {
            return self.store_large(path, source, stat.mode, modified);
        }
        let mut bytes = Vec::with_capacity(stat.stamp.size_bytes as usize + 1);
        source
            .take(SMALL_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(LayerError::source("read", path))?;
        if bytes.len() as u64 > SMALL_BYTES {
            // It has grown in this moment.
            source.rewind().map_err(LayerError::source("read", path))?;
            return self.store_large(path, source, stat.mode, modified);
        }
        let stored = self.store_bytes(&bytes, stat.mode, modified)?;
        Ok((stored.content, stored.size_bytes))
    }

    /// Keeps bytes.
    pub(crate) fn store_bytes(
        &self,
        bytes: &[u8],
        mode: u32,
        modified: Timestamp,
    ) -> Result<StoredFile, StoreError> {
        let stored = StoredFile {
            content: ContentHash::of(bytes),
            size_bytes: bytes.len() as u64,
            mode,
            modified,
        };
        if !self.has_file(&stored) {
            let mut tmp = self.tmp_file()?;
            tmp.file
                .write_all(bytes)
                .map_err(StoreError::io("write", &tmp.path))?;
            self.place(tmp, &stored)?;
        }
        Ok(stored)
    }

    /// Keeps what a reader yields. `limit_bytes` is the most that is taken from it; returns
    /// what was kept.
    pub(crate) fn store_reader(
        &self,
        path: &Path,
        reader: &mut dyn Read,
        mode: u32,
        modified: Timestamp,
    ) -> Result<StoredFile, LayerError> {
        let mut bytes = Vec::new();
        reader
            .take(SMALL_BYTES)
            .read_to_end(&mut bytes)
            .map_err(LayerError::source("read", path))?;
        if (bytes.len() as u64) < SMALL_BYTES {
            return Ok(self.store_bytes(&bytes, mode, modified)?);
        }
        let mut tmp = self.tmp_file()?;
        let (content, size_bytes) =
            copy_hashing(path, &mut bytes.as_slice().chain(reader), &mut tmp)?;
        let stored = StoredFile {
            content,
            size_bytes,
            mode,
            modified,
        };
        if !self.has_file(&stored) {
            self.place(tmp, &stored)?;
        }
        Ok(stored)
    }

    fn store_large(
        &self,
        path: &Path,
        source: &mut File,
        mode: u32,
        modified: Timestamp,
    ) -> Result<(ContentHash, u64), LayerError> {
        let mut tmp = self.tmp_file()?;
        let (content, size_bytes) = if rustix::fs::ioctl_ficlone(&tmp.file, &*source).is_ok() {
            // The clone cannot change any more while it is hashed.
            hash_reader(&mut tmp.file).map_err(StoreError::io("read", &tmp.path))?
        } else {
            copy_hashing(path, source, &mut tmp)?
        };
        let stored = StoredFile {
            content,
            size_bytes,
            mode,
            modified,
        };
        if !self.has_file(&stored) {
            self.place(tmp, &stored)?;
        }
        Ok((content, size_bytes))
    }

    /// Gives a finished temporary file its attributes and its name.
    pub(crate) fn place(&self, tmp: TmpFile, stored: &StoredFile) -> Result<(), StoreError> {
        let path = self.file_of(stored);
        set_attributes(&tmp.file, &tmp.path, stored)?;
        rename_making_parent(&tmp.path, &path)?;
        self.usage.add(file_cost(stored.size_bytes));
        tmp.placed();
        Ok(())
    }

    /// Where contents are kept.
    pub(crate) fn file_of(&self, file: &StoredFile) -> PathBuf {
        self.layout.file(file.content, file.mode, file.modified)
    }

    /// A new file in the store's place for what is unfinished; removed unless it is placed.
    pub(crate) fn tmp_file(&self) -> Result<TmpFile, StoreError> {
        let path = self.process.tmp_path();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("create", &path))?;
        Ok(TmpFile {
            file,
            path,
            placed: false,
        })
    }

    /// Opens kept contents for reading, also when their own mode forbids that.
    pub(crate) fn open_file(&self, stored: &StoredFile) -> Result<File, StoreError> {
        let path = self.file_of(stored);
        open_unreadable(&path, stored.mode).map_err(StoreError::io("read", path))
    }
}

pub(crate) fn set_attributes(
    file: &File,
    path: &Path,
    stored: &StoredFile,
) -> Result<(), StoreError> {
    // Writing clears set-id bits, so the mode comes after the contents.
    file.set_permissions(Permissions::from_mode(stored.mode))
        .map_err(StoreError::io("change the mode of", path))?;
    rustix::fs::futimens(file, &times(stored.modified))
        .map_err(|error| StoreError::io("change the times of", path)(error.into()))
}

/// Opens a file of ours that may lack permission to read.
pub(crate) fn open_unreadable(path: &Path, mode: u32) -> io::Result<File> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && mode & 0o400 == 0 => {
            fs::set_permissions(path, Permissions::from_mode(mode | 0o400))?;
            let file = File::open(path);
            fs::set_permissions(path, Permissions::from_mode(mode))?;
            file
        }
        result => result,
    }
}

/// A file that is removed unless it found its place.
#[derive(Debug)]
pub(crate) struct TmpFile {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    placed: bool,
}

impl TmpFile {
    fn placed(mut self) {
        self.placed = true;
    }
}

impl Drop for TmpFile {
    fn drop(&mut self) {
        if !self.placed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Renames; makes the directory if this is its first file.
pub(crate) fn rename_making_parent(from: &Path, to: &Path) -> Result<(), StoreError> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return result.map_err(StoreError::io("create", to)),
    }
    if let Some(parent) = to.parent() {
        match fs::create_dir(parent) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(StoreError::io("create the directory", parent)(error));
            }
            _ => {}
        }
    }
    fs::rename(from, to).map_err(StoreError::io("create", to))
}

pub(crate) fn times(modified: Timestamp) -> Timestamps {
    let time = Timespec {
        tv_sec: modified.seconds,
        tv_nsec: modified.nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// The hash and length of what a reader yields. Large pieces are hashed by all threads.
pub(crate) fn hash_reader(reader: &mut dyn Read) -> io::Result<(ContentHash, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let filled = read_full(reader, &mut buffer)?;
        hasher.update_rayon(&buffer[..filled]);
        if filled < buffer.len() {
            return Ok((hasher.finalize().into(), hasher.count()));
        }
    }
}

fn copy_hashing(
    path: &Path,
    reader: &mut dyn Read,
    tmp: &mut TmpFile,
) -> Result<(ContentHash, u64), LayerError> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let filled = read_full(reader, &mut buffer).map_err(LayerError::source("read", path))?;
        hasher.update_rayon(&buffer[..filled]);
        tmp.file
            .write_all(&buffer[..filled])
            .map_err(StoreError::io("write", &tmp.path))?;
        if filled < buffer.len() {
            return Ok((hasher.finalize().into(), hasher.count()));
        }
    }
}

/// Fills the buffer as far as there is something to read.
fn read_full(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

pub(crate) fn refuse_special(path: &Path, metadata: &fs::Metadata) -> Result<(), LayerError> {
    if let Some(what) = stat::special(metadata.file_type()) {
        return Err(LayerError::Special {
            path: path.to_owned(),
            what,
        });
    }
    if metadata.is_dir() {
        return Err(LayerError::Kind {
            path: path.to_owned(),
            what: "a directory",
            advice: "a file is needed here",
        });
    }
    Ok(())
}
