//! Putting layers together by calls.

use crate::{
    LayerError, LayerId, Store,
    draft::{Directory, Draft, FileSource, Node},
    manifest::Timestamp,
    stat::{self, FileStat},
    store::files::{StoredFile, refuse_special},
    walk,
};
use rayon::prelude::*;
use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// How often sources may turn out to have changed before that is an error.
const ATTEMPTS: usize = 3;

/// What becomes of modification times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModificationTimes {
    /// All are [`Timestamp::NORMAL`], so that equal trees make equal layers.
    #[default]
    Normal,
    /// Those of the sources.
    Keep,
}

/// A layer that is put together by calls.
///
/// Destinations are paths inside the layer; a leading slash makes no difference, `.` and `..`
/// are resolved (`..` stops at the root). Things are placed as if they were extracted one
/// after the other: missing parents become directories of mode 0755, links that are already in
/// the layer are followed, and later things replace earlier ones at the same path.
///
/// The calls can be chained. The first error is kept and returned by [`LayerBuilder::finish`].
#[derive(Debug)]
pub struct LayerBuilder {
    store: Store,
    draft: Draft,
    times: ModificationTimes,
    error: Option<LayerError>,
}

impl LayerBuilder {
    pub(crate) fn new(store: Store) -> LayerBuilder {
        LayerBuilder {
            store,
            draft: Draft::new(),
            times: ModificationTimes::default(),
            error: None,
        }
    }

    /// What becomes of the modification times of everything that is added from now on, and of
    /// all files.
    pub fn modification_times(&mut self, times: ModificationTimes) -> &mut Self {
        self.times = times;
        self
    }

    /// Adds the file that `source` is or leads to, with its mode.
    pub fn add_file(
        &mut self,
        destination: impl AsRef<Path>,
        source: impl AsRef<Path>,
    ) -> &mut Self {
        let source = source.as_ref();
        let file = FileSource::Path {
            path: source.to_owned(),
            stat: None,
        };
        self.put(source.display(), destination.as_ref(), Node::File(file))
    }

    /// Adds a file of these bytes. `mode` is its permission bits.
    pub fn add_bytes(
        &mut self,
        destination: impl AsRef<Path>,
        bytes: impl Into<Vec<u8>>,
        mode: u32,
    ) -> &mut Self {
        let file = FileSource::Bytes {
            bytes: Arc::from(bytes.into()),
            mode: mode & 0o7777,
            modified: Timestamp::NORMAL,
        };
        self.put("a file", destination.as_ref(), Node::File(file))
    }

    /// Adds a directory; one that is there keeps what it holds. `mode` is its permission bits.
    pub fn add_directory(&mut self, destination: impl AsRef<Path>, mode: u32) -> &mut Self {
        let directory = Directory::new(mode & 0o7777, Timestamp::NORMAL);
        self.put(
            "a directory",
            destination.as_ref(),
            Node::Directory(directory),
        )
    }

    /// Adds a symbolic link that says `target`, whether that exists or not.
    pub fn add_symlink(
        &mut self,
        destination: impl AsRef<Path>,
        target: impl AsRef<Path>,
    ) -> &mut Self {
        let target = target.as_ref().as_os_str().as_bytes();
        let link = Node::Symlink {
            target: target.into(),
            modified: Timestamp::NORMAL,
        };
        self.put("a symbolic link", destination.as_ref(), link)
    }

    /// Hides what the layers below have at a path.
    pub fn add_whiteout(&mut self, destination: impl AsRef<Path>) -> &mut Self {
        self.put("a whiteout", destination.as_ref(), Node::Whiteout)
    }

    /// Adds a directory that hides what the layers below have in it.
    pub fn add_opaque_directory(&mut self, destination: impl AsRef<Path>, mode: u32) -> &mut Self {
        let mut directory = Directory::new(mode & 0o7777, Timestamp::NORMAL);
        directory.opaque = true;
        self.put(
            "a directory",
            destination.as_ref(),
            Node::Directory(directory),
        )
    }

    /// Adds `source` as what it is: a file, a symbolic link as a link, a directory as an empty
    /// one. Anything else is an error.
    pub fn add_path(
        &mut self,
        destination: impl AsRef<Path>,
        source: impl AsRef<Path>,
    ) -> &mut Self {
        let source = source.as_ref();
        match fs::symlink_metadata(source)
            .map_err(LayerError::source("read", source))
            .and_then(|metadata| node(source, &metadata, self.times))
        {
            Ok(node) => self.put(source.display(), destination.as_ref(), node),
            Err(error) => self.fail(error),
        }
    }

    /// Adds the directory `source` with everything below it, links as links.
    pub fn add_tree(
        &mut self,
        destination: impl AsRef<Path>,
        source: impl AsRef<Path>,
    ) -> &mut Self {
        self.add_tree_if(destination, source, |_, _| true)
    }

    /// Adds the directory `source` with what is below it and wanted. `wanted` is told the path
    /// relative to `source` and whether it is a directory; of a directory that is not wanted
    /// nothing is looked at.
    pub fn add_tree_if(
        &mut self,
        destination: impl AsRef<Path>,
        source: impl AsRef<Path>,
        wanted: impl FnMut(&Path, bool) -> bool,
    ) -> &mut Self {
        let (destination, source) = (destination.as_ref(), source.as_ref());
        if let Err(error) = self.try_add_tree(destination, source, wanted) {
            self.fail(error);
        }
        self
    }

    fn try_add_tree(
        &mut self,
        destination: &Path,
        source: &Path,
        mut wanted: impl FnMut(&Path, bool) -> bool,
    ) -> Result<(), LayerError> {
        let metadata = fs::metadata(source).map_err(LayerError::source("read", source))?;
        if !metadata.is_dir() {
            return Err(LayerError::Kind {
                path: source.to_owned(),
                what: "not a directory",
                advice: "only directories can be taken with everything below them",
            });
        }
        let top = node(source, &metadata, self.times)?;
        self.put(source.display(), destination, top);
        let times = self.times;
        walk::walk(source, &mut |found| {
            if !wanted(found.relative, found.metadata.is_dir()) {
                return Ok(walk::Descend::No);
            }
            let node = node(found.path, found.metadata, times)?;
            self.put(
                found.path.display(),
                &destination.join(found.relative),
                node,
            );
            Ok(walk::Descend::Yes)
        })
    }

    /// Stores the contents and the manifest. Returns the id of the layer, which this store
    /// keeps from being evicted. The builder is empty afterwards.
    pub fn finish(&mut self) -> Result<LayerId, LayerError> {
        let draft = std::mem::replace(&mut self.draft, Draft::new());
        match self.error.take() {
            Some(error) => Err(error),
            None => self.store.finish(draft, self.times),
        }
    }

    pub(crate) fn put(
        &mut self,
        source: impl std::fmt::Display,
        destination: &Path,
        node: Node,
    ) -> &mut Self {
        let bytes = destination.as_os_str().as_bytes();
        if let Err(problem) = self.draft.put(bytes, node) {
            self.fail(LayerError::Destination {
                source_name: source.to_string(),
                destination: bytes.to_vec(),
                problem,
            });
        }
        self
    }

    fn fail(&mut self, error: LayerError) -> &mut Self {
        self.error.get_or_insert(error);
        self
    }
}

/// What a thing of this machine is in a layer. Directories are empty.
pub(crate) fn node(
    path: &Path,
    metadata: &fs::Metadata,
    times: ModificationTimes,
) -> Result<Node, LayerError> {
    let modified = match times {
        ModificationTimes::Normal => Timestamp::NORMAL,
        ModificationTimes::Keep => stat::modified(metadata),
    };
    if metadata.is_dir() {
        let mode = metadata.mode() & 0o7777;
        return Ok(Node::Directory(Directory::new(mode, modified)));
    }
    if metadata.is_symlink() {
        let target = fs::read_link(path).map_err(LayerError::source("read the link", path))?;
        return Ok(Node::Symlink {
            target: target.as_os_str().as_bytes().into(),
            modified,
        });
    }
    refuse_special(path, metadata)?;
    Ok(Node::File(FileSource::Path {
        path: path.to_owned(),
        stat: Some(FileStat::new(metadata)),
    }))
}

/// A file whose hash was known, so that it was not opened.
struct Known {
    /// Which of the draft's files.
    index: usize,
    path: PathBuf,
    stored: StoredFile,
}

impl Store {
    /// Stores what a draft names, and its manifest.
    pub(crate) fn finish(
        &self,
        mut draft: Draft,
        times: ModificationTimes,
    ) -> Result<LayerId, LayerError> {
        let keep_modified = times == ModificationTimes::Keep;
        let lock = self.inner.shared_lock()?;
        let mut known = self.store_files(&mut draft, keep_modified)?;
        let mut attempts = 0;
        let (id, encoded) = loop {
            let manifest = draft.manifest()?;
            let encoded = manifest.encode();
            if encoded.len() > crate::MAX_MANIFEST_BYTES {
                return Err(crate::ManifestError::TooLong(encoded.len()).into());
            }
            let id = LayerId::of(&encoded);
            if self.inner.is_complete(id, &manifest)? {
                break (id, encoded);
            }
            let changed = self.store_known(&known, keep_modified)?;
            if changed.is_empty() {
                break (id, encoded);
            }
            attempts += 1;
            if attempts == ATTEMPTS {
                return Err(LayerError::Changing {
                    path: changed[0].1.clone(),
                });
            }
            let mut files = draft.files_mut();
            for (index, _, stored) in &changed {
                *files[*index] = stored_source(stored);
            }
            // What was stored just now is there for sure.
            known.retain(|known| changed.iter().all(|(index, ..)| *index != known.index));
        };
        self.inner.keep_layer(id, &encoded)?;
        drop(lock);
        self.settle();
        Ok(id)
    }

    /// As [`Store::finish`], for drafts of which everything is stored.
    pub(crate) fn finish_stored(&self, draft: Draft) -> Result<LayerId, LayerError> {
        self.finish(draft, ModificationTimes::Keep)
    }

    /// Turns all files into stored ones. Those whose hashes are known are not opened, and are
    /// returned: whether the store has their contents is still to be seen.
    fn store_files(
        &self,
        draft: &mut Draft,
        keep_modified: bool,
    ) -> Result<Vec<Known>, LayerError> {
        let known: Vec<Option<Known>> = draft
            .files_mut()
            .into_par_iter()
            .enumerate()
            .with_min_len(16)
            .map(|(index, source)| self.store_file(index, source, keep_modified))
            .collect::<Result<_, LayerError>>()?;
        Ok(known.into_iter().flatten().collect())
    }

    fn store_file(
        &self,
        index: usize,
        source: &mut FileSource,
        keep_modified: bool,
    ) -> Result<Option<Known>, LayerError> {
        let (stored, known) = match source {
            FileSource::Stored { .. } => return Ok(None),
            FileSource::Bytes {
                bytes,
                mode,
                modified,
            } => (self.inner.store_bytes(bytes, *mode, *modified)?, None),
            FileSource::Path { path, stat } => {
                let stat = match stat {
                    Some(stat) => *stat,
                    None => {
                        let metadata =
                            fs::metadata(&*path).map_err(LayerError::source("read", &*path))?;
                        refuse_special(path, &metadata)?;
                        FileStat::new(&metadata)
                    }
                };
                match self.inner.digests.get(&stat.stamp) {
                    None => (self.inner.store_source(path, keep_modified)?, None),
                    Some(content) => {
                        let stored = StoredFile {
                            content,
                            size_bytes: stat.stamp.size_bytes,
                            mode: stat.mode,
                            modified: if keep_modified {
                                stat.modified
                            } else {
                                Timestamp::NORMAL
                            },
                        };
                        let path = std::mem::take(path);
                        (
                            stored,
                            Some(Known {
                                index,
                                path,
                                stored,
                            }),
                        )
                    }
                }
            }
        };
        *source = stored_source(&stored);
        Ok(known)
    }

    /// Stores those of the known files that are missing from the store. Returns the ones that
    /// turned out to hold something else by now.
    fn store_known(
        &self,
        known: &[Known],
        keep_modified: bool,
    ) -> Result<Vec<(usize, PathBuf, StoredFile)>, LayerError> {
        let changed: Vec<Option<_>> = known
            .par_iter()
            .with_min_len(64)
            .map(|known| {
                if self.inner.has_file(&known.stored) {
                    return Ok(None);
                }
                let stored = self.inner.store_source(&known.path, keep_modified)?;
                Ok((stored != known.stored).then(|| (known.index, known.path.clone(), stored)))
            })
            .collect::<Result<_, LayerError>>()?;
        Ok(changed.into_iter().flatten().collect())
    }
}

fn stored_source(stored: &StoredFile) -> FileSource {
    FileSource::Stored {
        content: stored.content,
        size_bytes: stored.size_bytes,
        mode: stored.mode,
        modified: stored.modified,
    }
}
