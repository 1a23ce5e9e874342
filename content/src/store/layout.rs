//! Where things are in the cache directory.
//!
//! ```text
//! CACHEDIR.TAG
//! content-1/
//!   lock                   shared: building, unpacking, pinning; exclusive: evicting
//!   files/AB/CD…-MODE-TIME contents by hash, one file for each mode and modification time
//!   manifests/ID           encoded manifests; the time of the last use is their mtime
//!   trees/ID/              unpacked layers, made of hard links to `files/`
//!   memo/KEY               the layer that a tar file of this hash makes
//!   digests, digests.lock  hashes of the user's files, by their stamps
//!   usage                  how many bytes are in use, as a log of differences
//!   processes/NAME         locked while its process lives; holds the layers that it uses
//!   tmp/NAME/              what this process is about to rename into place
//! ```

use crate::{ContentHash, LayerId, manifest::Timestamp};
use std::path::{Path, PathBuf};

/// Changes when older programs could not live with what newer ones write.
const VERSION_DIRECTORY: &str = "content-1";

/// The paths of one store.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// The cache directory as it was given.
    pub(crate) cache: PathBuf,
    /// The store's own directory in it.
    pub(crate) content: PathBuf,
}

impl Layout {
    pub(crate) fn new(cache: &Path) -> Layout {
        Layout {
            cache: cache.to_owned(),
            content: cache.join(VERSION_DIRECTORY),
        }
    }

    pub(crate) fn directories(&self) -> [PathBuf; 6] {
        [
            self.files(),
            self.manifests(),
            self.trees(),
            self.memos(),
            self.processes(),
            self.tmp(),
        ]
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.content.join("lock")
    }

    pub(crate) fn files(&self) -> PathBuf {
        self.content.join("files")
    }

    /// Where contents are kept, as a file of this mode and modification time.
    pub(crate) fn file(&self, content: ContentHash, mode: u32, modified: Timestamp) -> PathBuf {
        let hash = content.to_string();
        let (directory, name) = hash.split_at(2);
        let mut path = self.files();
        path.push(directory);
        path.push(file_name(name, mode, modified));
        path
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.content.join("manifests")
    }

    pub(crate) fn manifest(&self, id: LayerId) -> PathBuf {
        self.manifests().join(id.to_string())
    }

    pub(crate) fn trees(&self) -> PathBuf {
        self.content.join("trees")
    }

    pub(crate) fn tree(&self, id: LayerId) -> PathBuf {
        self.trees().join(id.to_string())
    }

    pub(crate) fn memos(&self) -> PathBuf {
        self.content.join("memo")
    }

    pub(crate) fn digests(&self) -> PathBuf {
        self.content.join("digests")
    }

    pub(crate) fn digests_lock(&self) -> PathBuf {
        self.content.join("digests.lock")
    }

    pub(crate) fn usage(&self) -> PathBuf {
        self.content.join("usage")
    }

    pub(crate) fn processes(&self) -> PathBuf {
        self.content.join("processes")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.content.join("tmp")
    }
}

fn file_name(hash_rest: &str, mode: u32, modified: Timestamp) -> String {
    if modified == Timestamp::NORMAL {
        format!("{hash_rest}-{mode:o}")
    } else {
        format!(
            "{hash_rest}-{mode:o}-{}.{}",
            modified.seconds, modified.nanoseconds
        )
    }
}
