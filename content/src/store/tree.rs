//! Unpacked layers: directories whose files are hard links to the kept contents, to be used
//! as the lower directories of overlays.

use super::{Inner, Pin, Store, files, files::StoredFile, remove::remove_tree};
use crate::{Entry, EntryKind, LayerId, Manifest, StoreError, manifest::Timestamp};
use rayon::prelude::*;
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, Timestamps},
    io::Errno,
};
use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    fs::{self, File, Permissions},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

/// The extended attribute that makes a directory of an overlay opaque; for overlays that are
/// mounted with `userxattr`, which is what user namespaces can do.
const OPAQUE_ATTRIBUTE: &str = "user.overlay.opaque";

/// Directories are filled under this mode and get their own at the end.
const FILLING_MODE: u32 = 0o700;

/// An unpacked layer, pinned while a clone of this lives.
#[derive(Clone, Debug)]
pub struct Tree(Arc<TreeInner>);

#[derive(Debug)]
struct TreeInner {
    path: PathBuf,
    pin: Pin,
}

impl Tree {
    /// The directory. Nothing in it may be changed.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The layer.
    pub fn id(&self) -> LayerId {
        self.0.pin.id()
    }
}

/// What is known about trees in this process.
#[derive(Debug, Default)]
pub(crate) struct Trees {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<LayerId, Weak<TreeInner>>,
    /// Trees that were compared with their manifests by this process.
    sound: HashSet<LayerId>,
    /// One unpacks, others wait.
    unpacking: HashMap<LayerId, Arc<Mutex<()>>>,
}

impl Trees {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: LayerId) -> Option<Tree> {
        self.state().open.get(&id)?.upgrade().map(Tree)
    }

    pub(crate) fn forget(&self, id: LayerId) {
        self.state().sound.remove(&id);
    }

    fn is_sound(&self, id: LayerId) -> bool {
        self.state().sound.contains(&id)
    }

    fn set_sound(&self, id: LayerId) {
        self.state().sound.insert(id);
    }

    /// Whether there is a tree that looks as its manifest says. One that does not is removed.
    pub(crate) fn check_or_discard(
        &self,
        inner: &Inner,
        id: LayerId,
        manifest: &Manifest,
    ) -> Result<bool, StoreError> {
        let path = inner.layout.tree(id);
        match check(&path, manifest) {
            Ok(()) => {
                self.set_sound(id);
                Ok(true)
            }
            Err(Flaw::Missing) => {
                self.forget(id);
                Ok(false)
            }
            Err(Flaw::Damaged(what)) => {
                tracing::warn!("{} was damaged ({what}) and is made anew", path.display());
                self.forget(id);
                inner.discard(&path)?;
                Ok(false)
            }
        }
    }
}

impl Store {
    /// The unpacked layer. Unpacks it if that was not done before; a tree that does not look
    /// as its manifest says is made anew.
    ///
    /// Fails with [`StoreError::Damaged`] if contents are missing, and with
    /// [`StoreError::UnknownLayer`] if there is no such layer; in both cases building it again
    /// helps.
    pub fn tree(&self, id: LayerId) -> Result<Tree, StoreError> {
        if let Some(tree) = self.inner.trees.get(id) {
            return Ok(tree);
        }
        let turn = self
            .inner
            .trees
            .state()
            .unpacking
            .entry(id)
            .or_default()
            .clone();
        let result = {
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            match self.inner.trees.get(id) {
                Some(tree) => Ok(tree),
                None => self.open_tree(id),
            }
        };
        let mut state = self.inner.trees.state();
        state.unpacking.remove(&id);
        let tree = result?;
        state.open.insert(id, Arc::downgrade(&tree.0));
        if state.open.len().is_power_of_two() {
            state.open.retain(|_, tree| tree.strong_count() > 0);
        }
        Ok(tree)
    }

    fn open_tree(&self, id: LayerId) -> Result<Tree, StoreError> {
        let inner = &self.inner;
        let lock = inner.shared_lock()?;
        let pin = inner.pin(id)?;
        let path = inner.layout.tree(id);
        if !(inner.trees.is_sound(id) && path.exists()) {
            let manifest = inner.read_manifest(id)?;
            if !inner.trees.check_or_discard(inner, id, &manifest)? {
                inner.unpack(id, &manifest, &path)?;
                inner.trees.set_sound(id);
            }
        }
        drop(lock);
        Ok(Tree(Arc::new(TreeInner { path, pin })))
    }

    /// Reads all contents of a layer and compares them with their hashes. What is damaged is
    /// discarded and reported; building the layer again puts it right.
    pub fn verify(&self, id: LayerId) -> Result<(), StoreError> {
        let inner = &self.inner;
        let _lock = inner.shared_lock()?;
        let manifest = inner.read_manifest(id)?;
        let mut files: Vec<StoredFile> =
            manifest.entries().iter().filter_map(stored_file).collect();
        files.sort_unstable_by_key(|file| (file.content, file.mode, file.modified));
        files.dedup();
        for file in &files {
            let found = inner
                .open_file(file)
                .and_then(|mut open| {
                    files::hash_reader(&mut open).map_err(StoreError::io("read", "a kept file"))
                })
                .ok();
            if found != Some((file.content, file.size_bytes)) {
                let path = inner.layout.file(file.content, file.mode, file.modified);
                inner.discard(&path)?;
                inner.discard(&inner.layout.tree(id))?;
                inner.trees.forget(id);
                return Err(inner.damaged(id, format!("the contents {} are wrong", file.content)));
            }
        }
        inner.trees.check_or_discard(inner, id, &manifest)?;
        Ok(())
    }
}

impl Inner {
    /// Moves something out of sight, then removes it.
    pub(crate) fn discard(&self, path: &Path) -> Result<(), StoreError> {
        let tmp = self.process.tmp_path();
        match fs::rename(path, &tmp) {
            Ok(()) => remove_tree(&tmp).map_err(StoreError::io("remove", path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                // A directory must be writable to be moved.
                remove_tree(path).map_err(StoreError::io("remove", path))
            }
            Err(source) => Err(StoreError::io("remove", path)(source)),
        }
    }

    fn unpack(&self, id: LayerId, manifest: &Manifest, path: &Path) -> Result<(), StoreError> {
        let tmp = self.process.tmp_path();
        let result = self.unpack_at(id, manifest, &tmp).and_then(|()| {
            match fs::rename(&tmp, path) {
                // Another process was faster; its tree is as good.
                Err(error) if is_occupied(&error) => Ok(()),
                result => result.map_err(StoreError::io("create", path)),
            }
        });
        if let Err(error) = remove_tree(&tmp) {
            tracing::debug!("cannot remove {}: {error}", tmp.display());
        }
        result
    }

    fn unpack_at(&self, id: LayerId, manifest: &Manifest, tmp: &Path) -> Result<(), StoreError> {
        fs::create_dir(tmp).map_err(StoreError::io("create the directory", tmp))?;
        let root = open_directory(tmp).map_err(StoreError::io("open", tmp))?;
        let failed = |entry: &Entry| {
            let path = tmp.join(entry.path.as_path());
            move |error: Errno| StoreError::io("create", path)(error.into())
        };
        for entry in manifest.entries() {
            if matches!(entry.kind, EntryKind::Directory { .. }) {
                rustix::fs::mkdirat(
                    &root,
                    entry.path.as_path(),
                    Mode::from_raw_mode(FILLING_MODE),
                )
                .map_err(failed(entry))?;
            }
        }
        manifest
            .entries()
            .par_iter()
            .with_min_len(64)
            .try_for_each(|entry| self.unpack_entry(&root, entry).map_err(failed(entry)))?;
        for entry in manifest.entries().iter().rev() {
            if let EntryKind::Directory { opaque } = entry.kind {
                finish_directory(&root, entry, opaque).map_err(failed(entry))?;
            }
        }
        set_mode(&root, Path::new("."), 0o755)
            .and_then(|()| set_times(&root, Path::new("."), Timestamp::NORMAL))
            .map_err(|error| StoreError::io("create", tmp)(error.into()))?;
        // Links to contents that were damaged are found here.
        match check(tmp, manifest) {
            Ok(()) => Ok(()),
            Err(flaw) => {
                for file in manifest.entries().iter().filter_map(stored_file) {
                    if !self.has_file(&file) {
                        self.discard(&self.layout.file(file.content, file.mode, file.modified))?;
                    }
                }
                Err(self.damaged(id, flaw.to_string()))
            }
        }
    }

    /// Missing contents leave a gap, which is found and named afterwards.
    fn unpack_entry(&self, root: &OwnedFd, entry: &Entry) -> Result<(), Errno> {
        let path = entry.path.as_path();
        match &entry.kind {
            EntryKind::Directory { .. } => Ok(()),
            EntryKind::File { content, .. } => {
                let source = self.layout.file(*content, entry.mode, entry.modified);
                match rustix::fs::linkat(CWD, &source, root, path, AtFlags::empty()) {
                    Err(Errno::NOENT) => Ok(()),
                    // Too many links, or a file system or kernel that allows none here.
                    Err(Errno::MLINK | Errno::XDEV | Errno::PERM | Errno::OPNOTSUPP) => {
                        copy(&source, root, entry)
                    }
                    result => result,
                }
            }
            EntryKind::Symlink { target } => {
                rustix::fs::symlinkat(OsStr::from_bytes(&target.0), root, path)?;
                set_times(root, path, entry.modified)
            }
            // A device 0/0; every user may make it.
            EntryKind::Whiteout => {
                rustix::fs::mknodat(root, path, FileType::CharacterDevice, Mode::empty(), 0)
            }
        }
    }
}

/// The contents that an entry names, if it is a file.
pub(crate) fn stored_file(entry: &Entry) -> Option<StoredFile> {
    match entry.kind {
        EntryKind::File {
            content,
            size_bytes,
        } => Some(StoredFile {
            content,
            size_bytes,
            mode: entry.mode,
            modified: entry.modified,
        }),
        _ => None,
    }
}

fn is_occupied(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
    )
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        path,
        OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

fn finish_directory(root: &OwnedFd, entry: &Entry, opaque: bool) -> Result<(), Errno> {
    let path = entry.path.as_path();
    if opaque {
        let directory = rustix::fs::openat(
            root,
            path,
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        rustix::fs::fsetxattr(
            &directory,
            OPAQUE_ATTRIBUTE,
            b"y",
            rustix::fs::XattrFlags::empty(),
        )?;
    }
    set_times(root, path, entry.modified)?;
    // Last, since it may take our own permissions away.
    set_mode(root, path, entry.mode)
}

fn set_mode(root: &OwnedFd, path: &Path, mode: u32) -> Result<(), Errno> {
    rustix::fs::chmodat(root, path, Mode::from_raw_mode(mode), AtFlags::empty())
}

fn set_times(root: impl AsFd, path: &Path, modified: Timestamp) -> Result<(), Errno> {
    let times: Timestamps = files::times(modified);
    rustix::fs::utimensat(root, path, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// A copy, shared by the file system where it can.
fn copy(source: &Path, root: &OwnedFd, entry: &Entry) -> Result<(), Errno> {
    let to_errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let mut from = files::open_unreadable(source, entry.mode).map_err(to_errno)?;
    let to = rustix::fs::openat(
        root,
        entry.path.as_path(),
        OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o600),
    )?;
    let mut to = File::from(to);
    if rustix::fs::ioctl_ficlone(&to, &from).is_err() {
        io::copy(&mut from, &mut to).map_err(to_errno)?;
    }
    to.set_permissions(Permissions::from_mode(entry.mode))
        .map_err(to_errno)?;
    rustix::fs::futimens(&to, &files::times(entry.modified))
}

/// How a tree differs from its manifest.
#[derive(Debug, PartialEq, Eq)]
enum Flaw {
    /// There is none.
    Missing,
    /// What differs.
    Damaged(String),
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Flaw::Missing => f.write_str("it is missing"),
            Flaw::Damaged(what) => f.write_str(what),
        }
    }
}

/// Compares a tree with its manifest by what the system tells without opening anything. Files
/// that were changed, removed or added show in sizes and times, since adding and removing
/// change the time of the directory.
fn check(path: &Path, manifest: &Manifest) -> Result<(), Flaw> {
    let root = match open_directory(path) {
        Ok(root) => root,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Flaw::Missing),
        Err(error) => return Err(Flaw::Damaged(error.to_string())),
    };
    let stat = rustix::fs::fstat(&root).map_err(|error| Flaw::Damaged(error.to_string()))?;
    if timestamp(&stat) != Timestamp::NORMAL {
        return Err(Flaw::Damaged(
            "something changed in its root directory".into(),
        ));
    }
    let hidden = unsearchable(manifest);
    manifest
        .entries()
        .par_iter()
        .with_min_len(256)
        .try_for_each(|entry| {
            if hidden
                .iter()
                .any(|directory| is_below(&entry.path, directory))
            {
                return Ok(());
            }
            check_entry(&root, entry)
                .map_err(|what| Flaw::Damaged(format!("`{}` {what}", entry.path)))
        })
}

/// Directories that we may not be allowed to look into.
fn unsearchable(manifest: &Manifest) -> Vec<&[u8]> {
    manifest
        .entries()
        .iter()
        .filter(|entry| {
            matches!(entry.kind, EntryKind::Directory { .. }) && entry.mode & 0o100 == 0
        })
        .map(|entry| entry.path.as_bytes())
        .collect()
}

fn is_below(path: &crate::EntryPath, directory: &[u8]) -> bool {
    path.as_bytes()
        .strip_prefix(directory)
        .is_some_and(|rest| rest.first() == Some(&b'/'))
}

fn check_entry(root: &OwnedFd, entry: &Entry) -> Result<(), &'static str> {
    let path = entry.path.as_path();
    let stat = match rustix::fs::statat(root, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Err("is missing"),
        Err(_) => return Err("cannot be looked at"),
    };
    let file_type = FileType::from_raw_mode(stat.st_mode);
    let same_type = match &entry.kind {
        EntryKind::File { size_bytes, .. } => {
            if file_type == FileType::RegularFile && stat.st_size as u64 != *size_bytes {
                return Err("has another size");
            }
            file_type == FileType::RegularFile
        }
        EntryKind::Directory { .. } => file_type == FileType::Directory,
        EntryKind::Symlink { target } => {
            if stat.st_size as usize != target.0.len() {
                return Err("leads elsewhere");
            }
            file_type == FileType::Symlink
        }
        EntryKind::Whiteout => {
            return match file_type {
                FileType::CharacterDevice => Ok(()),
                _ => Err("is something else"),
            };
        }
    };
    if !same_type {
        return Err("is something else");
    }
    if stat.st_mode & 0o7777 != entry.mode {
        return Err("has another mode");
    }
    if !entry.modified.is_kept_as(timestamp(&stat)) {
        return Err("was changed");
    }
    Ok(())
}

fn timestamp(stat: &Stat) -> Timestamp {
    Timestamp {
        seconds: stat.st_mtime,
        nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(u32::MAX),
    }
}
