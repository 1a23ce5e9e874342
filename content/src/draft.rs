//! A layer while it is put together: a tree of directories in memory.
//!
//! Things are placed as if they were extracted one after the other into an empty directory:
//! missing parents become directories, a symbolic link that is already there is followed
//! (without ever leaving the root), and what comes later replaces what stands at its path.
//! That is why no path of the finished layer stands below a file or a link.

use crate::{
    ContentHash, LayerError,
    manifest::{Bytes, Entry, EntryKind, EntryPath, Manifest, Timestamp},
    path,
};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// Permission bits of directories that nobody asked for.
const PARENT_MODE: u32 = 0o755;

/// How many symbolic links one path may lead through, as in Linux.
const MAX_LINKS: usize = 40;

/// Where the contents of a file come from.
#[derive(Clone, Debug)]
pub(crate) enum FileSource {
    /// A file of this machine. Its mode is taken from it.
    Path {
        path: PathBuf,
        /// Taken already when the file was found by walking a directory.
        stat: Option<crate::stat::FileStat>,
    },
    /// Bytes at hand.
    Bytes {
        bytes: Arc<[u8]>,
        mode: u32,
        modified: Timestamp,
    },
    /// Contents that the store has.
    Stored {
        content: ContentHash,
        size_bytes: u64,
        mode: u32,
        modified: Timestamp,
    },
}

/// What stands at a path of a draft.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Directory(Directory),
    File(FileSource),
    Symlink {
        target: Box<[u8]>,
        modified: Timestamp,
    },
    Whiteout,
}

/// A directory of a draft.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    pub(crate) mode: u32,
    pub(crate) modified: Timestamp,
    pub(crate) opaque: bool,
    children: BTreeMap<Box<[u8]>, Node>,
}

impl Directory {
    pub(crate) fn new(mode: u32, modified: Timestamp) -> Directory {
        Directory {
            mode,
            modified,
            opaque: false,
            children: BTreeMap::new(),
        }
    }
}

/// A layer while it is put together.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    root: Directory,
}

impl Draft {
    pub(crate) fn new() -> Draft {
        Draft {
            root: Directory::new(PARENT_MODE, Timestamp::NORMAL),
        }
    }

    /// Puts `node` at `destination`, which may be written in any way. A directory that is put
    /// where a directory stands changes only its attributes. What is put at the root itself is
    /// dropped if it is a directory and refused otherwise.
    pub(crate) fn put(&mut self, destination: &[u8], node: Node) -> Result<(), String> {
        let components = path::components(destination);
        let Some((name, parents)) = components.split_last() else {
            return match node {
                Node::Directory(_) => Ok(()),
                _ => Err("it is the root directory".into()),
            };
        };
        let mut parents = self.resolve(parents)?;
        parents.push((*name).into());
        path::check(&parents.join(b"/".as_slice())).map_err(|problem| problem.to_string())?;
        parents.pop();

        let directory = self.directory(&parents);
        match (directory.children.get_mut(*name), node) {
            (Some(Node::Directory(old)), Node::Directory(new)) => {
                old.mode = new.mode;
                old.modified = new.modified;
                old.opaque |= new.opaque;
            }
            (Some(old), node) => *old = node,
            (None, node) => {
                directory.children.insert((*name).into(), node);
            }
        }
        Ok(())
    }

    /// Puts a checked entry of a higher layer where an overlay would show it: links are not
    /// followed, directories merge, whiteouts remove. For the lowest layers of a stack, below
    /// which there is nothing to hide.
    pub(crate) fn overlay(&mut self, path: &[u8], node: Node) -> Result<(), String> {
        let mut parents: Vec<Box<[u8]>> =
            path.split(|byte| *byte == b'/').map(Into::into).collect();
        let Some(name) = parents.pop() else {
            return Err("it is the root directory".into());
        };
        let directory = self.directory(&parents);
        match node {
            Node::Whiteout => {
                directory.children.remove(&name);
            }
            Node::Directory(new) => match directory.children.get_mut(&name) {
                Some(Node::Directory(old)) if !new.opaque => {
                    old.mode = new.mode;
                    old.modified = new.modified;
                }
                _ => {
                    let new = Directory::new(new.mode, new.modified);
                    directory.children.insert(name, Node::Directory(new));
                }
            },
            node => {
                directory.children.insert(name, node);
            }
        }
        Ok(())
    }

    /// The node at `destination`, parents' links followed; for a tar file's hard links.
    pub(crate) fn get(&self, destination: &[u8]) -> Option<&Node> {
        let components = path::components(destination);
        let (name, parents) = components.split_last()?;
        let mut directory = &self.root;
        for parent in self.resolve(parents).ok()? {
            match directory.children.get(&parent)? {
                Node::Directory(child) => directory = child,
                _ => return None,
            }
        }
        directory.children.get(*name)
    }

    /// The path of a parent directory after following the links that stand in it.
    fn resolve(&self, parents: &[&[u8]]) -> Result<Vec<Box<[u8]>>, String> {
        let mut resolved: Vec<Box<[u8]>> = Vec::with_capacity(parents.len() + 1);
        // What is still ahead, the next component last.
        let mut ahead: Vec<Box<[u8]>> = parents.iter().rev().map(|name| (*name).into()).collect();
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            match &*name {
                b"" | b"." => continue,
                b".." => {
                    resolved.pop();
                    continue;
                }
                _ => {}
            }
            let target =
                self.lookup(&resolved)
                    .and_then(|directory| match directory.children.get(&name) {
                        Some(Node::Symlink { target, .. }) => Some(target),
                        _ => None,
                    });
            match target {
                None => resolved.push(name),
                Some(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err("its parents lead through too many symbolic links".into());
                    }
                    if target.first() == Some(&b'/') {
                        resolved.clear();
                    }
                    ahead.extend(target.split(|byte| *byte == b'/').rev().map(Into::into));
                }
            }
            if ahead.len() + resolved.len() > path::MAX_PATH_BYTES {
                return Err("its parents lead too deep".into());
            }
        }
        Ok(resolved)
    }

    fn lookup(&self, path: &[Box<[u8]>]) -> Option<&Directory> {
        let mut directory = &self.root;
        for name in path {
            match directory.children.get(name) {
                Some(Node::Directory(child)) => directory = child,
                _ => return None,
            }
        }
        Some(directory)
    }

    /// The directory at a resolved path; made, and put in place of whatever stands in the way.
    fn directory(&mut self, path: &[Box<[u8]>]) -> &mut Directory {
        let mut directory = &mut self.root;
        for name in path {
            let node = directory
                .children
                .entry(name.clone())
                .and_modify(|node| {
                    if !matches!(node, Node::Directory(_)) {
                        *node = Node::Directory(Directory::new(PARENT_MODE, Timestamp::NORMAL));
                    }
                })
                .or_insert_with(|| Node::Directory(Directory::new(PARENT_MODE, Timestamp::NORMAL)));
            let Node::Directory(child) = node else {
                unreachable!("anything else was just replaced")
            };
            directory = child;
        }
        directory
    }

    /// All file sources, to be turned into [`FileSource::Stored`].
    pub(crate) fn files_mut(&mut self) -> Vec<&mut FileSource> {
        let mut files = Vec::new();
        let mut directories = vec![&mut self.root];
        while let Some(directory) = directories.pop() {
            for node in directory.children.values_mut() {
                match node {
                    Node::Directory(child) => directories.push(child),
                    Node::File(source) => files.push(source),
                    Node::Symlink { .. } | Node::Whiteout => {}
                }
            }
        }
        files
    }

    /// The finished manifest. Every file must have become [`FileSource::Stored`].
    pub(crate) fn manifest(&self) -> Result<Manifest, LayerError> {
        let mut entries = Vec::new();
        let mut path = Vec::new();
        collect(&self.root, &mut path, &mut entries)?;
        Ok(Manifest::new(entries)?)
    }
}

/// Recursion is bounded, as the depth of paths is.
fn collect(
    directory: &Directory,
    path: &mut Vec<u8>,
    entries: &mut Vec<Entry>,
) -> Result<(), LayerError> {
    let length = path.len();
    for (name, node) in &directory.children {
        if length > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let (mode, modified, kind) = match node {
            Node::Directory(directory) => (
                directory.mode,
                directory.modified,
                EntryKind::Directory {
                    opaque: directory.opaque,
                },
            ),
            Node::File(FileSource::Stored {
                content,
                size_bytes,
                mode,
                modified,
            }) => (
                *mode,
                *modified,
                EntryKind::File {
                    content: *content,
                    size_bytes: *size_bytes,
                },
            ),
            Node::File(_) => unreachable!("files are stored before the manifest is made"),
            Node::Symlink { target, modified } => (
                0o777,
                *modified,
                EntryKind::Symlink {
                    target: Bytes(target.clone()),
                },
            ),
            Node::Whiteout => (0, Timestamp::NORMAL, EntryKind::Whiteout),
        };
        entries.push(Entry {
            path: EntryPath::new(path)?,
            mode,
            modified,
            kind,
        });
        if let Node::Directory(child) = node {
            collect(child, path, entries)?;
        }
        path.truncate(length);
    }
    Ok(())
}

#[cfg(test)]
#[path = "draft_tests.rs"]
mod tests;
