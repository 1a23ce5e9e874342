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
    /// Whether it is there only because something stands in it.
    implied: bool,
    children: BTreeMap<Box<[u8]>, Node>,
}

impl Directory {
    pub(crate) fn new(mode: u32, modified: Timestamp) -> Directory {
        Directory {
            mode,
            modified,
            opaque: false,
            implied: false,
            children: BTreeMap::new(),
        }
    }

    fn implied() -> Directory {
        Directory {
            implied: true,
            ..Directory::new(PARENT_MODE, Timestamp::NORMAL)
        }
    }
}

/// A path without links, components from the root.
pub(crate) type ResolvedPath = [Box<[u8]>];

/// Tells the mode and the modification time that a directory has below.
pub(crate) type AttributesBelow<'a> = &'a mut dyn FnMut(&ResolvedPath) -> Option<(u32, Timestamp)>;

/// Tells what the link at a path of the layers below says. See [`Draft::put_above`].
pub(crate) type LinkBelow<'a> = &'a mut dyn FnMut(&ResolvedPath) -> Option<Box<[u8]>>;

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
        self.put_above(destination, node, &mut |_| None)
    }

    /// As [`Draft::put`], on top of layers in which parents may be links too: `link_below` tells
    /// what the link at a resolved path says, components from the root, and is asked only about
    /// paths of which this draft has nothing.
    pub(crate) fn put_above(
        &mut self,
        destination: &[u8],
        node: Node,
        link_below: LinkBelow<'_>,
    ) -> Result<(), String> {
        let components = path::components(destination);
        let Some((name, parents)) = components.split_last() else {
            return match node {
                Node::Directory(_) => Ok(()),
                _ => Err("it is the root directory".into()),
            };
        };
        let mut parents = self.resolve(parents, link_below)?;
        parents.push((*name).into());
        path::check(&parents.join(b"/".as_slice())).map_err(|problem| problem.to_string())?;
        parents.pop();

        let directory = self.directory(&parents);
        match (directory.children.get_mut(*name), node) {
            (Some(Node::Directory(old)), Node::Directory(new)) => {
                old.mode = new.mode;
                old.modified = new.modified;
                old.opaque |= new.opaque;
                old.implied = false;
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

    /// The node at a path that is taken literally, components from the root.
    pub(crate) fn at(&self, path: &[Box<[u8]>]) -> Option<&Node> {
        let (name, parents) = path.split_last()?;
        self.lookup(parents)?.children.get(name)
    }

    /// Hides what the layers below have at a path (components from the root), but not what this
    /// draft has there.
    pub(crate) fn hide_below(&mut self, path: &[Box<[u8]>]) {
        let Some((name, parents)) = path.split_last() else {
            return;
        };
        match self
            .directory(parents)
            .children
            .entry(name.clone())
            .or_insert(Node::Whiteout)
        {
            Node::Directory(directory) => directory.opaque = true,
            // A file or a link hides all of it anyway.
            Node::File(_) | Node::Symlink { .. } | Node::Whiteout => {}
        }
    }

    /// Hides what the layers below have in a directory (components from the root; never none).
    pub(crate) fn hide_in_below(&mut self, path: &[Box<[u8]>]) {
        self.directory(path).opaque = true;
    }

    /// The names at the root.
    pub(crate) fn top_names(&self) -> impl Iterator<Item = &[u8]> {
        self.root.children.keys().map(|name| &**name)
    }

    /// Where a destination is after its parents' links are followed, components from the root.
    pub(crate) fn resolve_above(
        &self,
        destination: &[u8],
        link_below: LinkBelow<'_>,
    ) -> Result<Vec<Box<[u8]>>, String> {
        let components = path::components(destination);
        let Some((name, parents)) = components.split_last() else {
            return Ok(Vec::new());
        };
        let mut resolved = self.resolve(parents, link_below)?;
        resolved.push((*name).into());
        path::check(&resolved.join(b"/".as_slice())).map_err(|problem| problem.to_string())?;
        Ok(resolved)
    }

    /// Lets each directory that nobody asked for look as `attributes` says, if it knows its path
    /// (components from the root): its mode and modification time.
    pub(crate) fn dress_implied(&mut self, attributes: AttributesBelow<'_>) {
        fn dress(
            directory: &mut Directory,
            path: &mut Vec<Box<[u8]>>,
            attributes: AttributesBelow<'_>,
        ) {
            for (name, node) in &mut directory.children {
                let Node::Directory(child) = node else {
                    continue;
                };
                path.push(name.clone());
                if child.implied
                    && let Some((mode, modified)) = attributes(path)
                {
                    child.mode = mode;
                    child.modified = modified;
                }
                dress(child, path, attributes);
                path.pop();
            }
        }
        dress(&mut self.root, &mut Vec::new(), attributes);
    }

    /// The node at `destination`, parents' links followed; for a tar file's hard links.
    pub(crate) fn get(&self, destination: &[u8]) -> Option<&Node> {
        let components = path::components(destination);
        let (name, parents) = components.split_last()?;
        let mut directory = &self.root;
        for parent in self.resolve(parents, &mut |_| None).ok()? {
            match directory.children.get(&parent)? {
                Node::Directory(child) => directory = child,
                _ => return None,
            }
        }
        directory.children.get(*name)
    }

    /// The path of a parent directory after following the links that stand in it.
    fn resolve(
        &self,
        parents: &[&[u8]],
        link_below: LinkBelow<'_>,
    ) -> Result<Vec<Box<[u8]>>, String> {
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
            let here = self
                .lookup(&resolved)
                .and_then(|directory| directory.children.get(&name));
            resolved.push(name);
            let target = match here {
                Some(Node::Symlink { target, .. }) => Some(target.clone()),
                Some(_) => None,
                None => link_below(&resolved),
            };
            match target {
                None => {}
                Some(target) => {
                    resolved.pop();
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
                        *node = Node::Directory(Directory::implied());
                    }
                })
                .or_insert_with(|| Node::Directory(Directory::implied()));
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
