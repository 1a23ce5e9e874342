//! From the path of a source to its path in the layer.

use super::BuildContext;
use crate::LayerError;
use maelstrom_spec::PrefixOptions;
use std::path::{Component, Path, PathBuf};

/// The destination of a source that was written (or found by a glob) as `written` and stands
/// at `source`. The steps and their order are part of the file format. `is_link` tells that
/// the source is kept as a link: its own name is not resolved then.
pub(super) fn destination(
    written: &Path,
    source: &Path,
    is_link: bool,
    options: &PrefixOptions,
) -> Result<PathBuf, LayerError> {
    let mut path = written.to_owned();
    if options.canonicalize {
        path = if is_link {
            canonical_parent(source)?
        } else {
            source
                .canonicalize()
                .map_err(LayerError::source("resolve", source))?
        };
    }
    Ok(apply(path, options))
}

/// The steps that need no file system.
pub(super) fn apply(mut path: PathBuf, options: &PrefixOptions) -> PathBuf {
    if let Some(prefix) = &options.strip_prefix
        && let Ok(rest) = path.strip_prefix(prefix)
    {
        path = rest.to_owned();
    }
    if let Some(prefix) = &options.prepend_prefix {
        path = prefix.join(path.strip_prefix("/").unwrap_or(&path));
    }
    path
}

/// Without symbolic links but for the last component.
fn canonical_parent(source: &Path) -> Result<PathBuf, LayerError> {
    match (source.parent(), source.components().next_back()) {
        (Some(parent), Some(Component::Normal(name))) => Ok(parent
            .canonicalize()
            .map_err(LayerError::source("resolve", source))?
            .join(name)),
        _ => source
            .canonicalize()
            .map_err(LayerError::source("resolve", source)),
    }
}

impl BuildContext {
    /// Where a source is that was written as `path`.
    pub(super) fn source(&self, path: &Path) -> PathBuf {
        self.project_dir.join(path)
    }
}
