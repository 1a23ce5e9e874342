//! Layers of the tar files that container images are made of.
//!
//! They are tar files as any other (see `tar`), except for what OCI's image specification says
//! of layers: an entry `.wh.NAME` hides `NAME` of the layers below, an entry `.wh..wh..opq`
//! everything below in its directory, and neither hides anything of its own layer, wherever in
//! the tar file it stands.
//!
//! Tools unpack a layer into what the layers below have made. So parents that the tar file
//! leaves out have the mode they have below, lead through the links they are below, and a hard
//! link may be to a file below. What was made with such a look below depends on it, and is
//! remembered accordingly.
//!
//! A named pipe is left out: some old images hold one that nothing uses.

use super::{
    read_memo,
    tar::{Content, Failure, MAX_ENTRIES, hard_link, leads_out, message, read_entry},
};
use crate::{
    LayerError, LayerId, Store, StoreError,
    draft::{Draft, Node},
    path,
};
use std::{
    cell::Cell,
    collections::HashSet,
    io::{self, Read},
    path::{Path, PathBuf},
};
use tar::Archive;

/// Changes whenever the same tar file would make another layer.
const MEMO_VERSION: &[u8] = b"image layer 1";

/// What every entry that says something about the layers below starts with.
const WHITEOUT: &[u8] = b".wh.";

/// What stands for a whole directory, and what an old file system kept for itself.
const SPECIAL: &[u8] = b".wh..wh.";

/// The name of the entry that hides all that is below in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

impl Store {
    /// The layer that [`Store::build_image_layer`] has made of the same before, if all of it is
    /// still there. It is kept then as if it had been built just now.
    pub fn find_image_layer(
        &self,
        diff_id: &str,
        below: &[LayerId],
    ) -> Result<Option<LayerId>, StoreError> {
        for memo in [self.alone(diff_id), self.above(diff_id, below)] {
            if let Some(id) = read_memo(&memo)
                && self.keep_if_complete(id)?
            {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Makes a layer of the uncompressed tar file of an image's layer.
    ///
    /// `diff_id` is its digest, under which the result is remembered: `reader` must fail rather
    /// than end if what it has given does not have this digest. It is read to its end. `below`
    /// are the layers of the image below this one, the lowest first. `source` names the tar
    /// file in errors.
    pub fn build_image_layer(
        &self,
        diff_id: &str,
        below: &[LayerId],
        source: &Path,
        reader: impl Read,
    ) -> Result<LayerId, LayerError> {
        let pins = below
            .iter()
            .map(|id| self.pin(*id))
            .collect::<Result<Vec<_>, _>>()?;
        // What is stored while the tar file is read must stay.
        let lock = self.inner.shared_lock()?;
        let mut image = Image {
            store: self,
            source,
            draft: Draft::new(),
            hidden: HashSet::new(),
            hides_everything: false,
            below: Below {
                store: self,
                layers: below,
                merged: None,
                error: None,
                asked: false,
            },
        };
        image.read(reader)?;
        image.finish()?;
        let Image { draft, below, .. } = image;
        let memo = if below.asked {
            self.above(diff_id, below.layers)
        } else {
            self.alone(diff_id)
        };
        let id = self.finish_stored(draft)?;
        drop(lock);
        drop(pins);
        self.write_memo(&memo, id)?;
        Ok(id)
    }

    /// Where a layer is remembered for which it does not matter what is below.
    fn alone(&self, diff_id: &str) -> PathBuf {
        self.memo_path(MEMO_VERSION, blake3::hash(diff_id.as_bytes()).as_bytes())
    }

    fn above(&self, diff_id: &str, below: &[LayerId]) -> PathBuf {
        let mut hasher = blake3::Hasher::new();
        // Even if there is nothing below, that matters.
        hasher.update(b"above ");
        hasher.update(diff_id.as_bytes());
        for id in below {
            hasher.update(id.as_bytes());
        }
        self.memo_path(MEMO_VERSION, hasher.finalize().as_bytes())
    }
}

/// What fills up the last entry of a tar file, and says that there are no more.
const END_BYTES: u64 = 3 * 512;

/// How much a tar file has given, and whether that was all.
#[derive(Default)]
struct Given {
    bytes: Cell<u64>,
    ended: Cell<bool>,
}

/// A tar file that gets a proper end if it has none: there are tools that leave it out.
struct Ended<'a, R> {
    reader: R,
    given: &'a Given,
    left_bytes: u64,
}

impl<R: Read> Read for Ended<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if !self.given.ended.get() {
            let read = self.reader.read(buffer)?;
            self.given.bytes.update(|bytes| bytes + read as u64);
            if read > 0 {
                return Ok(read);
            }
            self.given.ended.set(true);
        }
        // A file of no entry at all is no tar file.
        let left = if self.given.bytes.get() == 0 {
            0
        } else {
            self.left_bytes
        };
        let length = usize::try_from(left)
            .unwrap_or(buffer.len())
            .min(buffer.len());
        buffer[..length].fill(0);
        self.left_bytes -= length as u64;
        Ok(length)
    }
}

/// A layer while its tar file is read.
struct Image<'a> {
    store: &'a Store,
    source: &'a Path,
    draft: Draft,
    /// Resolved paths of which nothing below is to be seen.
    hidden: HashSet<Vec<Box<[u8]>>>,
    /// Whether nothing below is to be seen at all.
    hides_everything: bool,
    below: Below<'a>,
}

impl Image<'_> {
    fn broken(&self, problem: String) -> LayerError {
        LayerError::Tar {
            tar: self.source.to_owned(),
            entry: None,
            problem,
        }
    }

    fn read(&mut self, reader: impl Read) -> Result<(), LayerError> {
        let given = Given::default();
        let mut archive = Archive::new(Ended {
            reader,
            given: &given,
            left_bytes: END_BYTES,
        });
        let entries = archive
            .entries()
            .map_err(|error| self.broken(error.to_string()))?;
        for (index, entry) in entries.enumerate() {
            let entry = entry.map_err(|error| self.broken(message(&error, index)))?;
            if index >= MAX_ENTRIES {
                return Err(self.broken("has more than 4,194,304 entries".into()));
            }
            let name = entry.path_bytes().into_owned();
            let end = entry
                .raw_file_position()
                .saturating_add(entry.header().entry_size().unwrap_or(0));
            let added = self.add(&name, entry).and_then(|()| {
                if given.ended.get() && given.bytes.get() < end {
                    return Err("is cut off: the file ends too early".into());
                }
                Ok(())
            });
            added.map_err(|failure| match failure {
                Failure::Entry(problem) => LayerError::Tar {
                    tar: self.source.to_owned(),
                    entry: Some(path::display(&name)),
                    problem,
                },
                Failure::Layer(error) => error,
            })?;
            self.below.fail()?;
        }
        // Whether it is the right one shows only at its end.
        io::copy(&mut archive.into_inner().reader, &mut io::sink())
            .map_err(|error| self.broken(error.to_string()))?;
        Ok(())
    }

    fn add<R: Read>(&mut self, name: &[u8], entry: tar::Entry<'_, R>) -> Result<(), Failure> {
        let components = path::components(name);
        if let Some(special) = components.iter().find(|name| name.starts_with(WHITEOUT)) {
            if leads_out(name) {
                return Err("its path leads out of the root directory".into());
            }
            if special.starts_with(SPECIAL) && *special != OPAQUE {
                // Of that old file system.
                return Ok(());
            }
            return self.hide(name);
        }
        let node = match read_entry(self.store, self.source, name, entry)? {
            Content::Node(node) => node,
            Content::HardLink(target) => {
                let found = match self.draft.get(&target) {
                    Some(node) => Some(node),
                    None => self.below.get(&target),
                };
                hard_link(&target, found)?
            }
            Content::Fifo => {
                tracing::debug!("leaving out the named pipe {}", path::display(name));
                return Ok(());
            }
            Content::Nothing => return Ok(()),
        };
        let (hidden, below) = (&self.hidden, &mut self.below);
        let everything = self.hides_everything;
        self.draft.put_above(name, node, &mut |path| {
            visible_link(everything, hidden, below, path)
        })?;
        Ok(())
    }

    /// Takes an entry that hides something.
    fn hide(&mut self, name: &[u8]) -> Result<(), Failure> {
        let (hidden, below) = (&self.hidden, &mut self.below);
        let everything = self.hides_everything;
        let mut path = self.draft.resolve_above(name, &mut |path| {
            visible_link(everything, hidden, below, path)
        })?;
        let Some(last) = path.pop() else {
            return Ok(());
        };
        if *last == *OPAQUE {
            if path.is_empty() {
                self.hides_everything = true;
            } else {
                self.draft.hide_in_below(&path);
                self.hidden.insert(path);
            }
            return Ok(());
        }
        match last.strip_prefix(WHITEOUT) {
            Some(b"" | b"." | b"..") | None => {
                return Err("is a whiteout of nothing".into());
            }
            Some(hidden) => path.push(hidden.into()),
        }
        self.hidden.insert(path);
        Ok(())
    }

    /// What can be done only once all entries are known.
    fn finish(&mut self) -> Result<(), LayerError> {
        let mut hidden: Vec<_> = self.hidden.iter().collect();
        hidden.sort();
        for path in &hidden {
            // Nothing can be hidden below what is no directory here.
            let stands_on_directories = (1..path.len()).all(|length| {
                matches!(
                    self.draft.at(&path[..length]),
                    None | Some(Node::Directory(_))
                )
            });
            if stands_on_directories {
                self.draft.hide_below(path);
            }
        }
        if self.hides_everything {
            let names: Vec<Box<[u8]>> = match self.below.merged() {
                Some(below) => below.top_names().map(Into::into).collect(),
                None => Vec::new(),
            };
            for name in names {
                self.draft.hide_below(&[name]);
            }
        }
        let (hidden, below) = (&self.hidden, &mut self.below);
        let everything = self.hides_everything;
        self.draft.dress_implied(&mut |path| {
            if everything || is_hidden(hidden, path) {
                return None;
            }
            match below.merged()?.at(path) {
                Some(Node::Directory(directory)) => Some((directory.mode, directory.modified)),
                _ => None,
            }
        });
        Ok(self.below.fail()?)
    }
}

fn is_hidden(hidden: &HashSet<Vec<Box<[u8]>>>, path: &[Box<[u8]>]) -> bool {
    !hidden.is_empty() && (1..=path.len()).any(|length| hidden.contains(&path[..length]))
}

fn visible_link(
    everything: bool,
    hidden: &HashSet<Vec<Box<[u8]>>>,
    below: &mut Below<'_>,
    path: &[Box<[u8]>],
) -> Option<Box<[u8]>> {
    if everything || is_hidden(hidden, path) {
        return None;
    }
    match below.merged()?.at(path) {
        Some(Node::Symlink { target, .. }) => Some(target.clone()),
        _ => None,
    }
}

/// The layers below, which are looked at only if they must be.
struct Below<'a> {
    store: &'a Store,
    layers: &'a [LayerId],
    merged: Option<Draft>,
    error: Option<StoreError>,
    /// Whether anything depends on them.
    asked: bool,
}

impl Below<'_> {
    fn merged(&mut self) -> Option<&Draft> {
        self.asked = true;
        if self.layers.is_empty() || self.error.is_some() {
            return None;
        }
        if self.merged.is_none() {
            match self.store.merge(self.layers) {
                Ok(draft) => self.merged = Some(draft),
                Err(error) => self.error = Some(error),
            }
        }
        self.merged.as_ref()
    }

    fn get(&mut self, path: &[u8]) -> Option<&Node> {
        self.merged()?.get(path)
    }

    fn fail(&mut self) -> Result<(), StoreError> {
        match self.error.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
