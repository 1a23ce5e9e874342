//! Layers of what a glob matches in the project directory.

use super::{BuildContext, paths};
use crate::{LayerBuilder, LayerError, ModificationTimes, walk};
use globset::{Glob, GlobMatcher};
use maelstrom_spec::PrefixOptions;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub(super) fn add(
    builder: &mut LayerBuilder,
    glob: &str,
    options: &PrefixOptions,
    context: &BuildContext,
    times: ModificationTimes,
) -> Result<(), LayerError> {
    let matcher = Glob::new(glob)
        .map_err(|error| LayerError::Glob {
            glob: glob.to_owned(),
            problem: error.kind().to_string(),
        })?
        .compile_matcher();
    let Some(start) = start(&context.project_dir, glob)? else {
        return Ok(());
    };
    let mut add = |written: &Path, source: &Path, metadata: &fs::Metadata| {
        paths::add_one(builder, written, source, metadata, options, times)
    };
    search(&context.project_dir, &start, &matcher, &mut add)
}

type Add<'a> = dyn FnMut(&Path, &Path, &fs::Metadata) -> Result<(), LayerError> + 'a;

fn search(
    project: &Path,
    start: &Path,
    matcher: &GlobMatcher,
    add: &mut Add<'_>,
) -> Result<(), LayerError> {
    let root = project.join(start);
    let metadata = fs::symlink_metadata(&root).map_err(LayerError::source("read", &root))?;
    if !start.as_os_str().is_empty() && matcher.is_match(start) {
        add(start, &root, &metadata)?;
    }
    if !metadata.is_dir() {
        return Ok(());
    }
    walk::walk(&root, &mut |found| {
        let written = start.join(found.relative);
        if matcher.is_match(&written) {
            add(&written, found.path, found.metadata)?;
        }
        Ok(walk::Descend::Yes)
    })
}

/// The directory that everything the glob can match stands in or is, relative to the project
/// directory: its leading components without special characters. `None` if there is nothing
/// there. Spares walking a large project for a small part of it.
fn start(project: &Path, glob: &str) -> Result<Option<PathBuf>, LayerError> {
    let plain = match glob.find(['*', '?', '[', ']', '{', '}', '\\', '!']) {
        Some(special) => glob[..special].rfind('/').map_or("", |end| &glob[..end]),
        None => glob,
    };
    if plain.starts_with('/') || plain.split('/').any(|name| matches!(name, "" | "." | "..")) {
        // Such patterns are matched against the paths literally; most match nothing.
        return Ok(Some(PathBuf::new()));
    }
    let mut start = PathBuf::new();
    let mut names = plain.split('/').peekable();
    while let Some(name) = names.next() {
        start.push(name);
        let path = project.join(&start);
        match fs::symlink_metadata(&path) {
            // The walk follows no links.
            Ok(metadata) if !metadata.is_dir() && names.peek().is_some() => return Ok(None),
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(source) => return Err(LayerError::source("read", path)(source)),
        }
    }
    Ok(Some(start))
}
