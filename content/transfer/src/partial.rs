//! A layer that is coming, on disk.
//!
//! ```text
//! LAYER/manifest   the encoded manifest
//! LAYER/trees      hash trees of all contents, one behind the other
//! LAYER/pack       contents of less than 256 KiB, one behind the other
//! LAYER/NUMBER     larger contents, each a file that the content store takes over
//! ```
//!
//! All are sparse. What is in them is trusted only as far as the hash trees prove it.

use crate::{
    Plan, Sink, TransferError,
    shelf::{Reader, open_stored, read_pair},
    tree::{self, PAIR_BYTES},
};
use bao_tree::{BaoTree, ChunkRanges, TreeNode, io::sync::Outboard};
use maelstrom_content::{ContentHash, Store};
use maelstrom_pull::{BlobRange, Pieces};
use rustix::fs::Advice;
use std::{
    collections::HashSet,
    fs::{self, DirBuilder, File},
    io::{self, IoSlice},
    num::NonZeroU64,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Contents from this length on, in bytes, have a file of their own.
const OWN_FILE_BYTES: u64 = 256 << 10;

/// Where contents are while the layer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// In the content store already.
    Store,
    /// In the pack, from here on.
    Pack(u64),
    /// In a file of their own.
    Own,
}

/// A layer that is coming.
#[derive(Debug)]
pub struct Partial {
    plan: Arc<Plan>,
    store: Store,
    directory: PathBuf,
    homes: Vec<Home>,
    trees: Arc<File>,
    pack: File,
    /// Whether contents are still taken. Held while they are written: the file system lets only
    /// one thread at a time write to a file, and the others would spin.
    taking: Mutex<bool>,
}

impl Partial {
    /// Opens or makes the files of a layer in `directory`, which is its alone. Returns also the
    /// pieces that are here already: because they came before, or because the content store has
    /// the same contents.
    pub fn open(
        directory: &Path,
        plan: Arc<Plan>,
        store: &Store,
    ) -> Result<(Partial, Pieces), TransferError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(TransferError::io("create the directory", directory))?;
        let manifest = directory.join("manifest");
        let resumes = fs::read(&manifest).is_ok_and(|known| known == **plan.encoded());
        if !resumes {
            fs::write(&manifest, plan.encoded()).map_err(TransferError::io("write", &manifest))?;
        }
        let missing: HashSet<ContentHash> = store
            .import(plan.id(), plan.encoded())?
            .missing()
            .into_iter()
            .map(|(content, _)| content)
            .collect();
        let mut packed = 0;
        let homes = plan.contents().iter().map(|content| {
            let place = packed;
            if content.bytes < OWN_FILE_BYTES {
                packed += content.bytes;
            }
            match (missing.contains(&content.hash), content.bytes) {
                (false, _) => Home::Store,
                (true, OWN_FILE_BYTES..) => Home::Own,
                (true, _) => Home::Pack(place),
            }
        });
        let mut partial = Partial {
            homes: homes.collect(),
            trees: Arc::new(create(&directory.join("trees"), plan.all_tree_bytes())?),
            pack: create(&directory.join("pack"), packed)?,
            taking: Mutex::new(true),
            plan,
            store: store.clone(),
            directory: directory.to_owned(),
        };
        let have = partial.find(resumes)?;
        Ok((partial, have))
    }

    /// What is where.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    pub(crate) fn trees(&self) -> &Arc<File> {
        &self.trees
    }

    pub(crate) fn home(&self, blob: usize) -> Home {
        self.homes[blob]
    }

    pub(crate) fn own_path(&self, blob: usize) -> PathBuf {
        self.directory.join(blob.to_string())
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn reader(&self, blob: usize) -> io::Result<Reader> {
        match self.homes[blob] {
            Home::Store => open_stored(&self.store, &self.plan, blob).map_err(io::Error::other),
            Home::Pack(base) => Ok(Reader {
                file: self.pack.try_clone()?,
                base,
            }),
            Home::Own => Ok(Reader {
                file: File::open(self.own_path(blob))?,
                base: 0,
            }),
        }
    }

    /// The parts of ranges that have to be fetched: those that the content store does not have.
    pub fn missing(&self, ranges: Vec<BlobRange>) -> Vec<BlobRange> {
        let mut ranges = ranges;
        ranges.retain(|range| !range.bytes.is_empty() && self.homes[range.blob] != Home::Store);
        ranges
    }

    /// Finds out which pieces are here.
    fn find(&mut self, resumes: bool) -> Result<Pieces, TransferError> {
        let mut valid = Vec::with_capacity(self.homes.len());
        for blob in 0..self.homes.len() {
            valid.push(match self.homes[blob] {
                Home::Store => self.index_stored(blob)?,
                _ if resumes => self.check(blob)?,
                _ => ChunkRanges::empty(),
            });
        }
        let mut have = Pieces::new();
        let layout = self.plan.layout();
        for piece in 0..layout.pieces() {
            let here = |range: &BlobRange| {
                let bytes = self.plan.contents()[range.blob].bytes;
                let wanted = crate::request::chunks(range, bytes);
                range.bytes.is_empty() || wanted.is_subset(&valid[range.blob])
            };
            if layout.ranges(piece).iter().all(here) {
                have.insert(piece);
            }
        }
        Ok(have)
    }

    /// Makes the hash tree of contents that the content store has.
    fn index_stored(&self, blob: usize) -> Result<ChunkRanges, TransferError> {
        let content = self.plan.contents()[blob];
        let reader = open_stored(&self.store, &self.plan, blob)?;
        let (root, pairs) = tree::build(&reader.file, 0, content.bytes)
            .map_err(TransferError::io("read the contents of", self.store.root()))?;
        if root != self.plan.root(blob) {
            return Err(TransferError::Damaged {
                id: self.plan.id(),
                content: content.hash,
            });
        }
        self.trees
            .write_all_at(&pairs, content.tree_at)
            .map_err(TransferError::io("write a hash tree in", &self.directory))?;
        Ok(ChunkRanges::all())
    }

    /// Compares what an earlier process has left of a blob with its hashes.
    fn check(&self, blob: usize) -> Result<ChunkRanges, TransferError> {
        let bytes = self.plan.contents()[blob].bytes;
        let failed = |error| TransferError::io("read", &self.directory)(error);
        let pairs = Pairs {
            partial: self,
            blob,
        };
        let all = ChunkRanges::all();
        let mut valid = ChunkRanges::empty();
        match self.homes[blob] {
            Home::Pack(base) => {
                let mut data = vec![0; bytes as usize];
                self.pack.read_exact_at(&mut data, base).map_err(failed)?;
                for range in bao_tree::io::sync::valid_ranges(pairs, data.as_slice(), &all) {
                    valid |= ChunkRanges::from(range.map_err(failed)?);
                }
            }
            Home::Own => {
                let path = self.own_path(blob);
                let Ok(file) = File::open(&path) else {
                    return Ok(valid);
                };
                if !file.metadata().is_ok_and(|found| found.size() == bytes) {
                    return Ok(valid);
                }
                for range in bao_tree::io::sync::valid_ranges(pairs, file, &all) {
                    valid |= ChunkRanges::from(range.map_err(failed)?);
                }
            }
            Home::Store => valid = all,
        }
        // A range that reaches to the end is open.
        let end = BaoTree::new(bytes, crate::BLOCK).chunks();
        if valid.boundaries().last() == Some(&end) {
            valid |= ChunkRanges::from(end..);
        }
        Ok(valid)
    }

    /// Takes no more contents. When this has returned, the files are not written to any more by
    /// those who hold this: what they still have is dropped.
    ///
    /// Whoever asks two nodes for the same may get it a second time when all is there, and files
    /// that the content store has taken over must stay as they are.
    pub fn close(&self) {
        *self.taking() = false;
    }

    fn taking(&self) -> MutexGuard<'_, bool> {
        self.taking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes a layer that has come whole, or is given up.
    pub fn remove(&self) {
        remove(&self.directory);
    }
}

/// Removes what is there of a partial layer.
pub(crate) fn remove(directory: &Path) {
    if let Err(error) = fs::remove_dir_all(directory)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("cannot remove {}: {error}", directory.display());
    }
}

fn create(path: &Path, bytes: u64) -> Result<File, TransferError> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(TransferError::io("create", path))?;
    file.set_len(bytes)
        .map_err(TransferError::io("make room for", path))?;
    Ok(file)
}

/// The hash tree of one blob, for comparing.
struct Pairs<'a> {
    partial: &'a Partial,
    blob: usize,
}

impl Outboard for Pairs<'_> {
    fn root(&self) -> blake3::Hash {
        self.partial.plan.root(self.blob)
    }

    fn tree(&self) -> BaoTree {
        self.partial.plan.tree(self.blob)
    }

    fn load(&self, node: TreeNode) -> io::Result<Option<(blake3::Hash, blake3::Hash)>> {
        if self.tree().pre_order_offset(node).is_none() {
            return Ok(None);
        }
        let mut pair = [0; PAIR_BYTES];
        let partial = self.partial;
        read_pair(&partial.trees, &partial.plan, self.blob, node, &mut pair)?;
        let (hashes, _) = pair.as_chunks::<32>();
        Ok(Some((
            blake3::Hash::from_bytes(hashes[0]),
            blake3::Hash::from_bytes(hashes[1]),
        )))
    }
}

/// Writes what was decoded, in few calls. What it was given is written when
/// [`flush`](Writer::flush) has returned, or dropped where the layer [takes no
/// more](Partial::close).
#[derive(Debug)]
pub struct Writer<'a> {
    partial: &'a Partial,
    /// Adjoining bytes of one blob.
    bytes: Vec<&'a [u8]>,
    blob: usize,
    start: u64,
    end: u64,
    pairs: Vec<(u64, &'a [u8; PAIR_BYTES])>,
}

/// The most parts that the system takes in one call.
const MAX_PARTS: usize = 512;

impl<'a> Writer<'a> {
    /// Writes to the files of a layer.
    pub fn new(partial: &'a Partial) -> Self {
        Writer {
            partial,
            bytes: Vec::new(),
            blob: 0,
            start: 0,
            end: 0,
            pairs: Vec::new(),
        }
    }

    /// Writes everything.
    pub fn flush(&mut self) -> io::Result<()> {
        self.flush_bytes()?;
        self.pairs.sort_unstable_by_key(|(at, _)| *at);
        let mut run: Vec<u8> = Vec::with_capacity(self.pairs.len() * PAIR_BYTES);
        let mut from = 0;
        for (at, pair) in self.pairs.drain(..) {
            if at != from + run.len() as u64 {
                self.partial.trees.write_all_at(&run, from)?;
                run.clear();
                from = at;
            }
            run.extend_from_slice(pair);
        }
        self.partial.trees.write_all_at(&run, from)
    }

    fn flush_bytes(&mut self) -> io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let own;
        let (file, base) = match self.partial.homes[self.blob] {
            Home::Pack(base) => (&self.partial.pack, base),
            _ => {
                // Under the lock: it may create the file.
                let takes = self.partial.taking();
                if !*takes {
                    self.bytes.clear();
                    return Ok(());
                }
                own = self.own_file()?;
                (&own, 0)
            }
        };
        let mut at = base + self.start;
        // The file's pages are made here, by as many threads as write, and not while the file is
        // locked; on a virtual machine making one can cost more than filling it. That it is only
        // advice does no harm.
        let length = NonZeroU64::new(self.end - self.start);
        let _ = rustix::fs::fadvise(file, at, length, Advice::WillNeed);
        let mut parts: Vec<IoSlice<'_>> =
            self.bytes.iter().map(|bytes| IoSlice::new(bytes)).collect();
        let mut rest = parts.as_mut_slice();
        let takes = self.partial.taking();
        while *takes && !rest.is_empty() {
            let written = rustix::io::pwritev(file, rest, at)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            at += written as u64;
            IoSlice::advance_slices(&mut rest, written);
        }
        self.bytes.clear();
        Ok(())
    }

    fn own_file(&self) -> io::Result<File> {
        let path = self.partial.own_path(self.blob);
        match File::options().read(true).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = File::options()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(&path)?;
                file.set_len(self.partial.plan.contents()[self.blob].bytes)?;
                Ok(file)
            }
            result => result,
        }
    }
}

impl<'a> Sink<'a> for Writer<'a> {
    fn pair(&mut self, blob: usize, node: TreeNode, pair: &'a [u8; PAIR_BYTES]) -> io::Result<()> {
        let plan = &self.partial.plan;
        if let Some(offset) = plan.tree(blob).pre_order_offset(node) {
            let at = plan.contents()[blob].tree_at + offset * PAIR_BYTES as u64;
            self.pairs.push((at, pair));
        }
        Ok(())
    }

    fn bytes(&mut self, blob: usize, offset: u64, bytes: &'a [u8]) -> io::Result<()> {
        let adjoins = self.blob == blob && self.end == offset && self.bytes.len() < MAX_PARTS;
        if !adjoins {
            self.flush_bytes()?;
            (self.blob, self.start, self.end) = (blob, offset, offset);
        }
        self.bytes.push(bytes);
        self.end += bytes.len() as u64;
        Ok(())
    }
}
