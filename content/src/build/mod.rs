//! Layers from the specifications that users write.

mod glob;
mod paths;
mod prefix;
mod stubs;

use crate::{LayerBuilder, LayerError, LayerId, ModificationTimes, Store};
use maelstrom_spec::{LayerSpec, SymlinkSpec};
use std::path::{Path, PathBuf};

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
            LayerSpec::Tar { .. }
            | LayerSpec::Programs { .. }
            | LayerSpec::SharedLibraryDependencies { .. } => {
                return Err(LayerError::Command {
                    program: format!("{spec:?}"),
                });
            }
        }
        builder.finish()
    }
}

fn add_symlinks(builder: &mut LayerBuilder, symlinks: &[SymlinkSpec]) {
    for SymlinkSpec { link, target } in symlinks {
        builder.add_symlink(link, target);
    }
}

/// The layer that a memo names, if it can be read.
pub(crate) fn read_memo(path: &Path) -> Option<LayerId> {
    let bytes = std::fs::read(path).ok()?;
    Some(LayerId::from_bytes(bytes.try_into().ok()?))
}
