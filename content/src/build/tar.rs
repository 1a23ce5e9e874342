//! Layers of tar files.
//!
//! Plain ones, and such that gzip or zstd has packed. Modes and modification times are those
//! that the file tells; owners are left out. Leading slashes are dropped; paths that lead out
//! of the root are refused. Hard links become files of their own with the same contents. A
//! device becomes an empty file, which a device can be mounted on.
//!
//! The tar files of container images' layers have rules of their own, in `image`, but share how
//! an entry is read.

use super::{BuildContext, read_memo};
use crate::{
    LayerError, LayerId, Store,
    draft::{Directory, Draft, FileSource, Node},
    manifest::Timestamp,
    path,
    stat::FileStat,
    store::files::{hash_reader, refuse_special},
};
use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Seek},
    path::{Path, PathBuf},
    time::SystemTime,
};
use tar::{Archive, EntryType};

/// Changes whenever the same tar file would make another layer.
const MEMO_VERSION: &[u8] = b"tar layer 1";

/// A sparse file can claim any length without having it; nobody means more than this.
const MAX_SPARSE_BYTES: u64 = 64 << 30;

/// How many entries a tar file may have.
pub(super) const MAX_ENTRIES: usize = 4 << 20;

pub(super) fn build(
    store: &Store,
    written: &Path,
    context: &BuildContext,
) -> Result<LayerId, LayerError> {
    let path = locate(written, context);
    let before = SystemTime::now();
    let mut file = File::open(&path).map_err(LayerError::source("read", &path))?;
    let metadata = file.metadata().map_err(LayerError::source("read", &path))?;
    refuse_special(&path, &metadata)?;
    let stamp = FileStat::new(&metadata).stamp;
    let digest = match store.inner.digests.get(&stamp) {
        Some(digest) => digest,
        None => {
            let (digest, _) = hash_reader(&mut file).map_err(LayerError::source("read", &path))?;
            file.rewind().map_err(LayerError::source("read", &path))?;
            store.inner.digests.insert(&stamp, digest, before);
            digest
        }
    };
    let memo = store.memo_path(MEMO_VERSION, digest.as_bytes());
    if let Some(id) = read_memo(&memo)
        && store.keep_if_complete(id)?
    {
        return Ok(id);
    }
    let id = extract(store, &path, file)?;
    let metadata = fs::metadata(&path).map_err(LayerError::source("read", &path))?;
    if FileStat::new(&metadata).stamp != stamp {
        return Err(LayerError::Changing { path });
    }
    store.write_memo(&memo, id)?;
    Ok(id)
}

/// Relative paths mean the current directory, as users of earlier versions know it; where
/// there is no such file, the project directory.
fn locate(written: &Path, context: &BuildContext) -> PathBuf {
    let here = context.current_dir.join(written);
    let in_project = context.project_dir.join(written);
    if !here.exists() && in_project.exists() {
        in_project
    } else {
        here
    }
}

fn extract(store: &Store, path: &Path, mut file: File) -> Result<LayerId, LayerError> {
    let mut magic = [0; 6];
    let mut filled = 0;
    while filled < magic.len() {
        match file.read(&mut magic[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(LayerError::source("read", path)(error)),
        }
    }
    file.rewind().map_err(LayerError::source("read", path))?;
    let broken = |problem: &str| LayerError::Tar {
        tar: path.to_owned(),
        entry: None,
        problem: problem.to_owned(),
    };
    let reader = BufReader::with_capacity(128 << 10, file);
    let reader: Box<dyn Read> = match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(
            zstd::Decoder::with_buffer(reader)
                .map_err(|error| broken(&format!("cannot be unpacked by zstd: {error}")))?,
        ),
        [b'B', b'Z', b'h', ..] => {
            return Err(broken("is packed by bzip2; unpack it, or use gzip or zstd"));
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            return Err(broken("is packed by xz; unpack it, or use gzip or zstd"));
        }
        _ => Box::new(reader),
    };
    let mut draft = Draft::new();
    // Before the store's lock is taken for good, everything it holds must stay.
    let lock = store.inner.shared_lock()?;
    let mut archive = Archive::new(reader);
    let entries = archive
        .entries()
        .map_err(|error| broken(&error.to_string()))?;
    for (index, entry) in entries.enumerate() {
        let entry = entry.map_err(|error| broken(&message(&error, index)))?;
        if index >= MAX_ENTRIES {
            return Err(broken("has more than 4,194,304 entries"));
        }
        let name = entry.path_bytes().into_owned();
        add(store, path, &mut draft, &name, entry).map_err(|failure| match failure {
            Failure::Entry(problem) => LayerError::Tar {
                tar: path.to_owned(),
                entry: Some(path::display(&name)),
                problem,
            },
            Failure::Layer(error) => error,
        })?;
    }
    let id = store.finish_stored(draft)?;
    drop(lock);
    Ok(id)
}

pub(super) fn message(error: &io::Error, index: usize) -> String {
    let kind = if index == 0 {
        "is no tar file"
    } else {
        "is broken"
    };
    let more = match error.kind() {
        io::ErrorKind::UnexpectedEof => "it ends too early".to_owned(),
        _ => error.to_string(),
    };
    format!("{kind}: {more}")
}

/// Why an entry cannot be taken.
pub(super) enum Failure {
    /// It is itself at fault.
    Entry(String),
    /// Something else is.
    Layer(LayerError),
}

impl From<String> for Failure {
    fn from(problem: String) -> Failure {
        Failure::Entry(problem)
    }
}

impl From<&str> for Failure {
    fn from(problem: &str) -> Failure {
        Failure::Entry(problem.to_owned())
    }
}

fn add<R: Read>(
    store: &Store,
    tar: &Path,
    draft: &mut Draft,
    name: &[u8],
    entry: tar::Entry<'_, R>,
) -> Result<(), Failure> {
    let node = match read_entry(store, tar, name, entry)? {
        Content::Node(node) => node,
        Content::HardLink(target) => hard_link(&target, draft.get(&target))?,
        Content::Fifo => return Err("is a named pipe, which a layer cannot hold".into()),
        Content::Nothing => return Ok(()),
    };
    Ok(draft.put(name, node)?)
}

/// What an entry of a tar file is.
pub(super) enum Content {
    Node(Node),
    /// Another name of what stands at this path, which does not lead out of the root.
    HardLink(Vec<u8>),
    Fifo,
    /// Something that only tells about other entries.
    Nothing,
}

/// What a hard link to `target` becomes, with what was found there.
pub(super) fn hard_link(target: &[u8], found: Option<&Node>) -> Result<Node, Failure> {
    match found {
        Some(Node::Directory(_)) => Err("is a hard link to a directory".into()),
        Some(node) => Ok(node.clone()),
        None => Err(format!(
            "is a hard link to `{}`, which does not stand before it",
            path::display(target)
        )
        .into()),
    }
}

/// Reads an entry. The contents of files go to the store.
pub(super) fn read_entry<R: Read>(
    store: &Store,
    tar: &Path,
    name: &[u8],
    mut entry: tar::Entry<'_, R>,
) -> Result<Content, Failure> {
    refuse_foreign_sparse(&mut entry)?;
    if name.contains(&0) {
        return Err("its name has a zero byte".into());
    }
    if leads_out(name) {
        return Err("its path leads out of the root directory".into());
    }
    let header = entry.header();
    let modified = Timestamp {
        seconds: header
            .mtime()
            .ok()
            .and_then(|seconds| i64::try_from(seconds).ok())
            .unwrap_or(0),
        nanoseconds: 0,
    };
    let mode = header
        .mode()
        .map_err(|error| format!("has a malformed mode: {error}"))?
        & 0o7777;
    let kind = header.entry_type();
    Ok(Content::Node(match kind {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            // Very old tar files tell directories by the slash.
            if name.ends_with(b"/") {
                Node::Directory(Directory::new(mode, modified))
            } else {
                if kind == EntryType::GNUSparse {
                    refuse_absurd_sparse(&entry)?;
                }
                Node::File(contents(store, tar, &mut entry, mode, modified)?)
            }
        }
        EntryType::Directory => Node::Directory(Directory::new(mode, modified)),
        EntryType::Symlink => {
            let target = entry
                .link_name_bytes()
                .filter(|target| !target.is_empty() && !target.contains(&0))
                .ok_or("is a symbolic link to nowhere")?;
            Node::Symlink {
                target: target.as_ref().into(),
                modified,
            }
        }
        EntryType::Link => {
            let target = entry
                .link_name_bytes()
                .filter(|target| !leads_out(target))
                .ok_or("is a hard link out of the root directory")?;
            return Ok(Content::HardLink(target.into_owned()));
        }
        EntryType::Char | EntryType::Block => Node::File(FileSource::Bytes {
            bytes: [].into(),
            mode: 0o444,
            modified,
        }),
        EntryType::Fifo => return Ok(Content::Fifo),
        EntryType::XGlobalHeader
        | EntryType::XHeader
        | EntryType::GNULongName
        | EntryType::GNULongLink => return Ok(Content::Nothing),
        other => {
            return Err(format!(
                "is of type {:?}, which is not known here",
                char::from(other.as_byte())
            )
            .into());
        }
    }))
}

/// Whether a path has more `..` than directories before them.
pub(super) fn leads_out(path: &[u8]) -> bool {
    let mut depth = 0i64;
    path.split(|byte| *byte == b'/').any(|name| {
        match name {
            b"" | b"." => {}
            b".." => depth -= 1,
            _ => depth += 1,
        }
        depth < 0
    })
}

fn contents<R: Read>(
    store: &Store,
    tar: &Path,
    entry: &mut tar::Entry<'_, R>,
    mode: u32,
    modified: Timestamp,
) -> Result<FileSource, Failure> {
    let expected = entry.size();
    let stored = store
        .inner
        .store_reader(tar, entry, mode, modified)
        .map_err(|error| match error {
            LayerError::Source { source, .. } => Failure::Entry(match source.kind() {
                io::ErrorKind::UnexpectedEof => "is cut off: the file ends too early".into(),
                _ => format!("cannot be read: {source}"),
            }),
            other => Failure::Layer(other.while_storing(tar)),
        })?;
    if stored.size_bytes < expected {
        return Err("is cut off: the file ends too early".into());
    }
    Ok(FileSource::Stored {
        content: stored.content,
        size_bytes: stored.size_bytes,
        mode,
        modified,
    })
}

fn refuse_absurd_sparse<R: Read>(entry: &tar::Entry<'_, R>) -> Result<(), Failure> {
    let length = entry
        .header()
        .as_gnu()
        .and_then(|header| header.real_size().ok());
    match length {
        Some(length) if length <= MAX_SPARSE_BYTES => Ok(()),
        Some(length) => Err(format!(
            "is a sparse file of {length} bytes; the most is {MAX_SPARSE_BYTES}"
        )
        .into()),
        None => Err("is a sparse file whose length cannot be read".into()),
    }
}

/// There are sparse files that look like others except for their extended headers.
fn refuse_foreign_sparse<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<(), Failure> {
    let Ok(Some(extensions)) = entry.pax_extensions() else {
        return Ok(());
    };
    for extension in extensions {
        let extension = extension.map_err(|error| format!("has malformed headers: {error}"))?;
        if extension.key_bytes().starts_with(b"GNU.sparse.") {
            return Err(
                "is a sparse file in pax format; make the tar file with `--format=gnu` or \
                 without `--sparse`"
                    .into(),
            );
        }
    }
    Ok(())
}
