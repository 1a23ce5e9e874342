//! Several layers, one above the other.

use super::{Store, Tree};
use crate::{
    EntryKind, LayerError, LayerId, StoreError,
    draft::{Directory, Draft, FileSource, Node},
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Looking a path up in an overlay takes longer the more directories it has, so a stack has
/// at most this many; the lowest layers are merged into one.
const MAX_DIRECTORIES: usize = 8;

/// How many stacks are kept ready although nobody holds them.
const READY_STACKS: usize = 64;

/// The directories of a list of layers, pinned while a clone of this lives.
#[derive(Clone, Debug)]
pub struct Stack(Arc<StackInner>);

#[derive(Debug)]
struct StackInner {
    directories: Vec<PathBuf>,
    trees: Vec<Tree>,
}

impl Stack {
    /// The directories to be stacked, the lowest first.
    pub fn directories(&self) -> &[PathBuf] {
        &self.0.directories
    }

    /// The trees they belong to, the lowest first.
    pub fn trees(&self) -> &[Tree] {
        &self.0.trees
    }

    /// The place of a path in the topmost directory that has it.
    pub fn find(&self, path: &Path) -> Option<PathBuf> {
        let path = path.strip_prefix("/").unwrap_or(path);
        self.0
            .directories
            .iter()
            .rev()
            .map(|directory| directory.join(path))
            .find(|path| path.symlink_metadata().is_ok())
    }
}

/// The stacks made so far, with when they were last asked for.
#[derive(Debug, Default)]
pub(crate) struct Stacks {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ready: HashMap<Box<[LayerId]>, (Stack, u64)>,
    clock: u64,
}

impl Stacks {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, layers: &[LayerId]) -> Option<Stack> {
        let mut state = self.state();
        state.clock += 1;
        let now = state.clock;
        let (stack, used) = state.ready.get_mut(layers)?;
        *used = now;
        Some(stack.clone())
    }

    fn insert(&self, layers: &[LayerId], stack: &Stack) {
        let mut state = self.state();
        state.clock += 1;
        let now = state.clock;
        if state.ready.len() >= READY_STACKS {
            let oldest = state
                .ready
                .iter()
                .min_by_key(|(_, (_, used))| *used)
                .map(|(layers, _)| layers.clone());
            if let Some(oldest) = oldest {
                state.ready.remove(&oldest);
            }
        }
        state.ready.insert(layers.into(), (stack.clone(), now));
    }

    pub(crate) fn clear(&self) {
        // Dropped after the lock.
        let _ready = std::mem::take(&mut self.state().ready);
    }
}

impl Store {
    /// Unpacks a list of layers, given lowest first, to be stacked by an overlay file system.
    ///
    /// Equal neighbours count once. Of more than eight layers, the lowest are merged into one
    /// tree. Asking again for the same list takes no system call.
    ///
    /// An overlay stacks path by path: where one layer has a directory and a lower one has a
    /// symbolic link (or a file), the directory hides the link. The layers that this crate
    /// makes from host programs and libraries therefore use real directories only; see
    /// [`Store::build`].
    pub fn stack(&self, layers: &[LayerId]) -> Result<Stack, StoreError> {
        if let Some(stack) = self.inner.stacks.get(layers) {
            return Ok(stack);
        }
        let mut different = layers.to_vec();
        different.dedup();
        let trees = if different.len() > MAX_DIRECTORIES {
            let (low, high) = different.split_at(different.len() + 1 - MAX_DIRECTORIES);
            let mut trees = vec![self.merged_tree(low)?];
            for id in high {
                trees.push(self.tree(*id)?);
            }
            trees
        } else {
            different
                .iter()
                .map(|id| self.tree(*id))
                .collect::<Result<Vec<_>, _>>()?
        };
        let directories = trees.iter().map(|tree| tree.path().to_owned()).collect();
        let stack = Stack(Arc::new(StackInner { directories, trees }));
        self.inner.stacks.insert(layers, &stack);
        Ok(stack)
    }

    /// One tree that looks like these layers stacked.
    fn merged_tree(&self, layers: &[LayerId]) -> Result<Tree, StoreError> {
        // Held until the merged layer is kept: its contents are theirs.
        let _pins = layers
            .iter()
            .map(|id| self.pin(*id))
            .collect::<Result<Vec<_>, _>>()?;
        let merged = self.merge(layers)?;
        let id = self.finish_stored(merged).map_err(|error| match error {
            LayerError::Store(error) => error,
            other => self.inner.damaged(layers[0], other.to_string()),
        })?;
        let tree = self.tree(id)?;
        self.release(id);
        Ok(tree)
    }

    /// What these layers look like stacked, the lowest first. They must be pinned.
    pub(crate) fn merge(&self, layers: &[LayerId]) -> Result<Draft, StoreError> {
        let mut merged = Draft::new();
        for id in layers {
            let manifest = self.manifest(*id)?;
            for entry in manifest.entries() {
                let path = entry.path.as_bytes();
                let result = match &entry.kind {
                    EntryKind::Directory { opaque } => {
                        let mut directory = Directory::new(entry.mode, entry.modified);
                        directory.opaque = *opaque;
                        merged.overlay(path, Node::Directory(directory))
                    }
                    EntryKind::File {
                        content,
                        size_bytes,
                    } => merged.overlay(
                        path,
                        Node::File(FileSource::Stored {
                            content: *content,
                            size_bytes: *size_bytes,
                            mode: entry.mode,
                            modified: entry.modified,
                        }),
                    ),
                    EntryKind::Symlink { target } => merged.overlay(
                        path,
                        Node::Symlink {
                            target: target.0.clone(),
                            modified: entry.modified,
                        },
                    ),
                    EntryKind::Whiteout => merged.overlay(path, Node::Whiteout),
                };
                result.map_err(|what| self.inner.damaged(*id, what))?;
            }
        }
        Ok(merged)
    }
}
