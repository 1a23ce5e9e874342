//! What can go wrong, told to people.

use crate::{LayerId, ManifestError, manifest};
use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// Something about the store, the cache directory, or what is kept there.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}{}", path.display(), Advice(source))]
    Io {
        /// What was being done, as in "cannot … PATH".
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store holds no layer of this id.
    #[error("the cache {} has no layer {id}; build it again", root.display())]
    UnknownLayer {
        /// The id asked for.
        id: LayerId,
        /// The directory of the store.
        root: PathBuf,
    },
    /// The layer was damaged and could not be put right from what the store has.
    #[error(
        "layer {id} in the cache {} was damaged: {what}. What was damaged has been discarded; \
         run again to build it anew",
        root.display()
    )]
    Damaged {
        /// The layer.
        id: LayerId,
        /// The directory of the store.
        root: PathBuf,
        /// What was found.
        what: String,
    },
    /// What is to come does not fit into the cache next to what is in use.
    #[error(
        "the cache {} has no room for {} MiB: {} MiB of it are in use, and it may take {} MiB; \
         raise the cache size",
        root.display(), bytes.div_ceil(1 << 20), in_use_bytes >> 20, cache_size_bytes >> 20
    )]
    NoRoom {
        /// The directory of the store.
        root: PathBuf,
        /// How much is to come, in bytes.
        bytes: u64,
        /// How much is in use or kept free for something else, in bytes.
        in_use_bytes: u64,
        /// How much the store may take, in bytes.
        cache_size_bytes: u64,
    },
    /// A manifest that came from elsewhere is none.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Contents that came from elsewhere are not what they should be.
    #[error("contents {expected} were wanted, but {from} holds {found}")]
    WrongContent {
        /// What was wanted.
        expected: crate::ContentHash,
        /// What came.
        found: crate::ContentHash,
        /// From where.
        from: String,
    },
    /// A manifest that came from elsewhere has another hash than it should have.
    #[error("layer {expected} was wanted, but what came is layer {found}")]
    WrongLayer {
        /// What was wanted.
        expected: LayerId,
        /// What came.
        found: LayerId,
    },
}

impl StoreError {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.into();
        move |source| StoreError::Io {
            action,
            path,
            source,
        }
    }

    /// Whether the file system has no room left.
    pub fn is_full(&self) -> bool {
        matches!(
            self,
            StoreError::Io { source, .. } if matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
            )
        )
    }
}

/// What to try, after what the system said.
struct Advice<'a>(&'a io::Error);

impl fmt::Display for Advice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "; make room there, lower the cache size, or put the cache elsewhere"
            }
            io::ErrorKind::FileTooLarge => "; the limit on file sizes (`ulimit -f`) is too low",
            io::ErrorKind::ReadOnlyFilesystem => {
                "; the cache needs a place that can be written to: choose another directory"
            }
            io::ErrorKind::PermissionDenied => "; check its owner and permissions",
            _ if self.0.raw_os_error() == Some(24) => {
                "; the limit on open files (`ulimit -n`) is too low"
            }
            _ => "",
        })
    }
}

/// Why a layer could not be built.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A source could not be read.
    #[error("cannot {action} {}: {source}{}", path.display(), Advice(source))]
    Source {
        /// What was being done, as in "cannot … PATH".
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A source is a socket, a named pipe or a device.
    #[error("{} is {what}; a layer can hold only files, directories and symbolic links", path.display())]
    Special {
        /// Which.
        path: PathBuf,
        /// "a socket", "a named pipe", …
        what: &'static str,
    },
    /// A source is not the kind of thing that was asked for.
    #[error("{} is {what}; {advice}", path.display())]
    Kind {
        /// Which.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// What to write instead.
        advice: &'static str,
    },
    /// A source changes while it is being read.
    #[error("{} changed while it was read; let whatever writes to it finish", path.display())]
    Changing {
        /// Which.
        path: PathBuf,
    },
    /// A destination cannot be in a layer.
    #[error(
        "{} cannot be put at `{}` in a layer: {problem}",
        source_name,
        manifest_path(destination)
    )]
    Destination {
        /// What was to be put there.
        source_name: String,
        /// Where.
        destination: Vec<u8>,
        /// Why not.
        problem: String,
    },
    /// Not a glob.
    #[error("the glob `{glob}` is malformed: {problem}")]
    Glob {
        /// As written.
        glob: String,
        /// What is wrong.
        problem: String,
    },
    /// A stub whose braces do not work out.
    #[error("the stub `{stub}` is malformed: {problem}")]
    Stub {
        /// As written.
        stub: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A tar file is broken or holds what a layer cannot hold.
    #[error("the tar file {}{}: {problem}", tar.display(), AtEntry(entry))]
    Tar {
        /// The file.
        tar: PathBuf,
        /// The entry, if it is about one.
        entry: Option<String>,
        /// What is wrong.
        problem: String,
    },
    /// A binary that cannot be read as such.
    #[error("cannot tell which shared libraries {} needs: {problem}", path.display())]
    Binary {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A shared library was not found.
    #[error(
        "{} needs the shared library {library}, which is not there; searched {}. Install it, or \
         add its directory to LD_LIBRARY_PATH",
        binary.display(), List(searched)
    )]
    Library {
        /// Who needs it.
        binary: PathBuf,
        /// What was not found.
        library: String,
        /// Where it was looked for.
        searched: Vec<PathBuf>,
    },
    /// A program was not found.
    #[error(
        "the program `{program}`{} is not there; searched {}",
        For(needed_by),
        List(searched)
    )]
    Program {
        /// Which.
        program: String,
        /// The script that names it as its interpreter.
        needed_by: Option<PathBuf>,
        /// Where it was looked for.
        searched: Vec<PathBuf>,
    },
    /// A layer that only the running of a command can make.
    #[error("the layer of the command `{program}` is made by running it, not from files")]
    Command {
        /// The program of the command.
        program: String,
    },
    /// What was put together is no manifest; for instance, it is far too large.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The store failed while it kept this source.
    #[error("{store} (while storing {})", path.display())]
    Storing {
        /// What was to be kept.
        path: PathBuf,
        /// Why it could not be.
        store: Box<StoreError>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LayerError {
    pub(crate) fn source(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> LayerError {
        let path = path.into();
        move |source| LayerError::Source {
            action,
            path,
            source,
        }
    }

    /// Names the source that was being stored when the store failed.
    pub(crate) fn while_storing(self, path: &Path) -> LayerError {
        match self {
            LayerError::Store(store) => LayerError::Storing {
                path: path.to_owned(),
                store: Box::new(store),
            },
            other => other,
        }
    }
}

fn manifest_path(path: &[u8]) -> String {
    manifest::display_path(path)
}

struct AtEntry<'a>(&'a Option<String>);

impl fmt::Display for AtEntry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(entry) => write!(f, ", entry `{entry}`"),
            None => Ok(()),
        }
    }
}

struct For<'a>(&'a Option<PathBuf>);

impl fmt::Display for For<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(script) => write!(f, ", which {} starts with,", script.display()),
            None => Ok(()),
        }
    }
}

struct List<'a>(&'a [PathBuf]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nowhere, since no directories are known");
        }
        for (index, path) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{}", path.display())?;
        }
        Ok(())
    }
}
