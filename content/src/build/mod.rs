//! Layers from the specifications that users write.

mod elf;
mod glob;
mod image;
mod libraries;
mod paths;
mod prefix;
mod programs;
mod search;
mod spellings;
mod stubs;
mod tar;

use crate::{
    LayerBuilder, LayerError, LayerId, ModificationTimes, Store, StoreError, store::stored_file,
};
use maelstrom_spec::{LayerSpec, SymlinkSpec};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where to look for what a [`LayerSpec`] names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildContext {
    /// What relative paths are relative to, and what globs search. Absolute.
    pub project_dir: PathBuf,
    /// What relative paths of tar files are tried against first. Absolute.
    pub current_dir: PathBuf,
    /// Directories searched for shared libraries before the system's, as in `LD_LIBRARY_PATH`.
    pub library_path: Vec<PathBuf>,
    /// Directories searched for programs, as in `PATH`.
    pub program_path: Vec<PathBuf>,
}

impl Store {
    /// Builds a layer. If nothing has changed since it was built the last time, that costs
    /// only looking at the sources' sizes and times.
    pub fn build(&self, spec: &LayerSpec, context: &BuildContext) -> Result<LayerId, LayerError> {
        self.build_with(spec, context, ModificationTimes::Normal)
    }

    /// As [`Store::build`], with a choice of what becomes of modification times.
    pub fn build_with(
        &self,
        spec: &LayerSpec,
        context: &BuildContext,
        times: ModificationTimes,
    ) -> Result<LayerId, LayerError> {
        let mut builder = self.layer();
        builder.modification_times(times);
        match spec {
            LayerSpec::Glob {
                glob,
                prefix_options,
            } => glob::add(&mut builder, glob, prefix_options, context, times)?,
            LayerSpec::Paths {
                paths,
                prefix_options,
            } => paths::add_paths(&mut builder, paths, prefix_options, context, times)?,
            LayerSpec::Trees {
                trees,
                prefix_options,
            } => paths::add_trees(&mut builder, trees, prefix_options, context, times)?,
            LayerSpec::Stubs { stubs } => stubs::add(&mut builder, stubs)?,
            LayerSpec::Symlinks { symlinks } => add_symlinks(&mut builder, symlinks),
            LayerSpec::Built { id } => return Ok(self.keep(LayerId::from_bytes(*id))?),
            LayerSpec::Command { program, .. } => {
                return Err(LayerError::Command {
                    program: program.clone(),
                });
            }
            LayerSpec::Tar { path } => return tar::build(self, path, context),
            LayerSpec::Programs { programs } => programs::add(&mut builder, programs, context)?,
            LayerSpec::SharedLibraryDependencies {
                binary_paths,
                prefix_options,
            } => libraries::add(&mut builder, binary_paths, prefix_options, context)?,
        }
        builder.finish()
    }
}

impl Store {
    /// Where the layer is remembered that `digest` makes under these rules.
    fn memo_path(&self, rules: &[u8], digest: &[u8; 32]) -> PathBuf {
        let key = blake3::Hasher::new()
            .update(rules)
            .update(digest)
            .finalize();
        self.inner.layout.memos().join(key.to_hex().as_str())
    }

    fn write_memo(&self, path: &Path, id: LayerId) -> Result<(), StoreError> {
        let tmp = self.inner.process.tmp_path();
        fs::write(&tmp, id.as_bytes()).map_err(StoreError::io("write", &tmp))?;
        fs::rename(&tmp, path).map_err(StoreError::io("create", path))
    }

    /// Keeps a layer if everything it needs is there.
    fn keep_if_complete(&self, id: LayerId) -> Result<bool, StoreError> {
        let _lock = self.inner.shared_lock()?;
        let Ok(manifest) = self.inner.read_manifest(id) else {
            return Ok(false);
        };
        let complete = self.inner.is_complete(id, &manifest)?
            || manifest
                .entries()
                .iter()
                .filter_map(stored_file)
                .all(|file| self.inner.has_file(&file));
        if complete {
            self.inner.keep_layer(id, &manifest.encode())?;
        }
        Ok(complete)
    }
}

fn add_symlinks(builder: &mut LayerBuilder, symlinks: &[SymlinkSpec]) {
    for SymlinkSpec { link, target } in symlinks {
        builder.add_symlink(link, target);
    }
}

/// The layer that a memo names, if it can be read.
pub(crate) fn read_memo(path: &Path) -> Option<LayerId> {
    let bytes = fs::read(path).ok()?;
    Some(LayerId::from_bytes(bytes.try_into().ok()?))
}
