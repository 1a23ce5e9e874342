//! A layer that can be read by ranges, whole or as far as it has come.

use crate::{
    Partial, Plan, TransferError,
    tree::{self, PAIR_BYTES, Pairs},
};
use bao_tree::TreeNode;
use maelstrom_content::Store;
use std::{
    fs::{self, File},
    io::{self, IoSliceMut},
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// A layer of which ranges can be read, together with the hashes that prove them.
#[derive(Debug)]
pub struct Shelf {
    plan: Arc<Plan>,
    trees: Arc<File>,
    place: RwLock<Place>,
}

/// Where the contents are.
#[derive(Clone, Debug)]
enum Place {
    /// In the content store, as far as it has them.
    Store(Store),
    /// On their way.
    Partial(Arc<Partial>),
}

/// The contents of one blob.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) file: File,
    /// Where in the file they begin.
    pub(crate) base: u64,
}

impl Reader {
    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, self.base + offset)
    }

    pub(crate) fn read_exact_vectored_at(
        &self,
        mut buffers: &mut [IoSliceMut<'_>],
        offset: u64,
    ) -> io::Result<()> {
        let mut at = self.base + offset;
        while !buffers.is_empty() {
            match rustix::io::preadv(&self.file, buffers, at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    at += read as u64;
                    IoSliceMut::advance_slices(&mut buffers, read);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Shelf {
    /// A layer of the content store. Reads all of it for its hash trees, with all threads; they
    /// are kept in a file without a name in `directory`.
    ///
    /// # Errors
    ///
    /// If contents are missing or damaged.
    pub fn whole(store: &Store, plan: Arc<Plan>, directory: &Path) -> Result<Shelf, TransferError> {
        let trees = nameless(directory)?;
        for blob in 0..plan.contents().len() {
            let content = plan.contents()[blob];
            let reader = open_stored(store, &plan, blob)?;
            let (root, pairs) = tree::build(&reader.file, reader.base, content.bytes)
                .map_err(TransferError::io("read the contents of", store.root()))?;
            if root != plan.root(blob) {
                return Err(TransferError::Damaged {
                    id: plan.id(),
                    content: content.hash,
                });
            }
            trees
                .write_all_at(&pairs, content.tree_at)
                .map_err(TransferError::io("write a hash tree in", directory))?;
        }
        Ok(Shelf {
            plan,
            trees: Arc::new(trees),
            place: RwLock::new(Place::Store(store.clone())),
        })
    }

    /// A layer that is coming.
    pub fn partial(partial: Arc<Partial>) -> Shelf {
        Shelf {
            plan: partial.plan().clone(),
            trees: partial.trees().clone(),
            place: RwLock::new(Place::Partial(partial)),
        }
    }

    /// The layer has come whole into the content store, and is read from there from now on.
    pub fn arrived(&self, store: &Store) {
        *self.place.write().unwrap_or_else(PoisonError::into_inner) = Place::Store(store.clone());
    }

    /// What is where.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    pub(crate) fn open(&self, blob: usize) -> io::Result<Reader> {
        let place = self.place.read().unwrap_or_else(PoisonError::into_inner);
        match &*place {
            Place::Store(store) => open_stored(store, &self.plan, blob).map_err(io::Error::other),
            Place::Partial(partial) => partial.reader(blob),
        }
    }

    /// The hash tree of a blob, for reading what is near each other.
    pub(crate) fn pairs(&self, blob: usize) -> Pairs {
        let place = self.plan.contents()[blob].tree_at;
        Pairs::new(self.trees.clone(), self.plan.tree(blob), place)
    }
}

pub(crate) fn read_pair(
    trees: &File,
    plan: &Plan,
    blob: usize,
    node: TreeNode,
    pair: &mut [u8; PAIR_BYTES],
) -> io::Result<()> {
    match plan.tree(blob).pre_order_offset(node) {
        Some(offset) => {
            let at = plan.contents()[blob].tree_at + offset * PAIR_BYTES as u64;
            trees.read_exact_at(pair, at)
        }
        None => Err(io::Error::other("a node that no tree has")),
    }
}

pub(crate) fn open_stored(
    store: &Store,
    plan: &Plan,
    blob: usize,
) -> Result<Reader, TransferError> {
    let file = match store.open_entry(plan.entry(blob)) {
        Some(file) => file?,
        None => {
            return Err(TransferError::Incomplete {
                id: plan.id(),
                missing: 1,
            });
        }
    };
    Ok(Reader { file, base: 0 })
}

/// A file that goes when it is closed.
fn nameless(directory: &Path) -> Result<File, TransferError> {
    use rustix::fs::{CWD, Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, directory, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(file.into()),
        // Some file systems have no such files.
        Err(_) => {
            static NEXT: AtomicU64 = AtomicU64::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = directory.join(format!("trees-{}-{number}", std::process::id()));
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)
                .map_err(TransferError::io("create", &path))?;
            fs::remove_file(&path).map_err(TransferError::io("remove", &path))?;
            Ok(file)
        }
    }
}
