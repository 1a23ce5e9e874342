//! The container `cargo-test`: what a test would see if `cargo test` ran it. It holds for every
//! test of a project without a metadata file, and directives can build on it.
//!
//! Everything in it is a copy in a content-addressed layer, from the lowest up:
//!
//! | layer | changes with |
//! |---|---|
//! | system files, devices, users, time zones | the machine |
//! | base programs and their libraries | the machine |
//! | the project's files | an edit |
//! | binaries, examples, shared libraries and generated files of the workspace | a build |
//! | the test binary and its libraries | a build |

use maelstrom_content::{BuildContext, LayerError, LayerId, Store};
use maelstrom_runner::host::{Identity, keep_modes_of_parents, libraries};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// The name that directives use.
pub(crate) const NAME: &str = "cargo-test";

/// What a build left that tests may look for, besides their own binaries.
#[derive(Clone, Debug, Default)]
pub(crate) struct BuiltFiles {
    /// Programs and shared libraries of the workspace, at their own paths.
    pub(crate) binaries: BTreeSet<PathBuf>,
    /// Directories with what build scripts generated.
    pub(crate) out_dirs: BTreeSet<PathBuf>,
    /// Empty directories that exist.
    pub(crate) directories: BTreeSet<PathBuf>,
}

impl BuiltFiles {
    /// Makes the layers: the libraries that the binaries need, and the files.
    pub(crate) fn prepare(
        &self,
        store: &Store,
        context: &BuildContext,
        identity: &Identity,
    ) -> Result<Vec<LayerId>, LayerError> {
        let mut layers = Vec::new();
        if !self.binaries.is_empty() {
            let binaries: Vec<PathBuf> = self.binaries.iter().cloned().collect();
            layers.push(libraries(store, context, binaries)?);
        }
        let mut layer = store.layer();
        let all = self
            .binaries
            .iter()
            .chain(&self.out_dirs)
            .chain(&self.directories);
        keep_modes_of_parents(&mut layer, all.map(PathBuf::as_path), identity);
        for directory in &self.directories {
            layer.add_directory(directory, 0o755);
        }
        for directory in &self.out_dirs {
            if directory.is_dir() {
                layer.add_tree(directory, directory);
            }
        }
        for binary in &self.binaries {
            layer.add_file(binary, binary);
        }
        layers.push(layer.finish()?);
        Ok(layers)
    }
}

/// The layer of a test binary at `destination`.
pub(crate) fn binary(
    store: &Store,
    binary: &Path,
    destination: &Path,
    identity: &Identity,
) -> Result<LayerId, LayerError> {
    let mut layer = store.layer();
    keep_modes_of_parents(&mut layer, std::iter::once(destination), identity);
    layer.add_file(destination, binary).finish()
}
