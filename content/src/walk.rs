//! Walking directories of this machine.

use crate::LayerError;
use std::{
    fs::{self, Metadata},
    path::{Path, PathBuf},
};

/// Something found below a directory.
pub(crate) struct Found<'a> {
    /// Where it is.
    pub(crate) path: &'a Path,
    /// The same, relative to where the walk began.
    pub(crate) relative: &'a Path,
    /// Of the thing itself; links are not followed.
    pub(crate) metadata: &'a Metadata,
}

/// Whether to look into a directory that was found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Descend {
    Yes,
    No,
}

/// Visits everything below a directory, each directory before what it holds. What disappears
/// meanwhile is left out.
pub(crate) fn walk(
    root: &Path,
    visit: &mut dyn FnMut(Found<'_>) -> Result<Descend, LayerError>,
) -> Result<(), LayerError> {
    let mut directories: Vec<PathBuf> = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let path = if directory.as_os_str().is_empty() {
            root.to_owned()
        } else {
            root.join(&directory)
        };
        let entries = match fs::read_dir(&path) {
            Err(error) if is_gone(&error) && path != root => continue,
            result => result.map_err(LayerError::source("list", &path))?,
        };
        for entry in entries {
            let entry = entry.map_err(LayerError::source("list", &path))?;
            // Asked through the directory, without resolving the path again.
            let metadata = match entry.metadata() {
                Err(error) if is_gone(&error) => continue,
                result => result.map_err(LayerError::source("read", entry.path()))?,
            };
            let relative = directory.join(entry.file_name());
            let found = Found {
                path: &path.join(entry.file_name()),
                relative: &relative,
                metadata: &metadata,
            };
            if visit(found)? == Descend::Yes && metadata.is_dir() {
                directories.push(relative);
            }
        }
    }
    Ok(())
}

fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound
}
