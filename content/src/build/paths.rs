//! Layers of paths and of whole trees.

use super::{BuildContext, prefix};
use crate::{LayerBuilder, LayerError, ModificationTimes, builder::node, walk};
use maelstrom_spec::PrefixOptions;
use std::{
    fs,
    path::{Path, PathBuf},
};

pub(super) fn add_paths(
    builder: &mut LayerBuilder,
    paths: &[PathBuf],
    options: &PrefixOptions,
    context: &BuildContext,
    times: ModificationTimes,
) -> Result<(), LayerError> {
    for path in paths {
        let source = context.source(path);
        let metadata =
            fs::symlink_metadata(&source).map_err(LayerError::source("read", &source))?;
        add_one(builder, path, &source, &metadata, options, times)?;
    }
    Ok(())
}

pub(super) fn add_trees(
    builder: &mut LayerBuilder,
    trees: &[PathBuf],
    options: &PrefixOptions,
    context: &BuildContext,
    times: ModificationTimes,
) -> Result<(), LayerError> {
    for tree in trees {
        add_tree(
            builder,
            tree,
            &context.source(tree),
            options,
            times,
            &mut Vec::new(),
        )?;
    }
    Ok(())
}

/// Adds one thing, written as `written`; `metadata` is that of `source` itself.
pub(super) fn add_one(
    builder: &mut LayerBuilder,
    written: &Path,
    source: &Path,
    metadata: &fs::Metadata,
    options: &PrefixOptions,
    times: ModificationTimes,
) -> Result<(), LayerError> {
    let followed = if metadata.is_symlink() && options.follow_symlinks {
        Some(fs::metadata(source).map_err(LayerError::source("follow the link", source))?)
    } else {
        None
    };
    let metadata = followed.as_ref().unwrap_or(metadata);
    let destination = prefix::destination(written, source, metadata.is_symlink(), options)?;
    let node = node(source, metadata, times)?;
    builder.put(source.display(), &destination, node);
    Ok(())
}

/// Adds a directory, or a link to one, with everything below it. `above` holds the directories
/// that the links followed so far stand in, so that a circle of links ends.
fn add_tree(
    builder: &mut LayerBuilder,
    written: &Path,
    source: &Path,
    options: &PrefixOptions,
    times: ModificationTimes,
    above: &mut Vec<PathBuf>,
) -> Result<(), LayerError> {
    let metadata = fs::metadata(source).map_err(LayerError::source("read", source))?;
    if !metadata.is_dir() {
        return Err(LayerError::Kind {
            path: source.to_owned(),
            what: "not a directory",
            advice: "`trees` takes directories, `paths` takes files",
        });
    }
    let real = source
        .canonicalize()
        .map_err(LayerError::source("resolve", source))?;
    if above.iter().any(|above| above.starts_with(&real)) {
        return Err(LayerError::Kind {
            path: source.to_owned(),
            what: "a link to a directory that it stands in",
            advice: "such a link cannot be followed; leave `follow_symlinks` out",
        });
    }
    above.push(real.clone());
    let destination = prefix::destination(written, source, false, options)?;
    builder.put(
        source.display(),
        &destination,
        node(source, &metadata, times)?,
    );
    let mut links = Vec::new();
    walk::walk(source, &mut |found| {
        if found.metadata.is_symlink() && options.follow_symlinks {
            links.push((found.relative.to_owned(), found.path.to_owned()));
            return Ok(walk::Descend::No);
        }
        // Below the tree there are real directories only, so no path is resolved again.
        let destination = if options.canonicalize {
            prefix::apply(real.join(found.relative), options)
        } else {
            prefix::apply(written.join(found.relative), options)
        };
        let node = node(found.path, found.metadata, times)?;
        builder.put(found.path.display(), &destination, node);
        Ok(walk::Descend::Yes)
    })?;
    for (relative, path) in links {
        let written = written.join(relative);
        let target = fs::metadata(&path).map_err(LayerError::source("follow the link", &path))?;
        if target.is_dir() {
            let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
            let added = parent
                .into_iter()
                .inspect(|parent| above.push(parent.clone()))
                .count();
            add_tree(builder, &written, &path, options, times, above)?;
            above.truncate(above.len() - added);
        } else {
            add_one(builder, &written, &path, &target, options, times)?;
        }
    }
    above.pop();
    Ok(())
}
