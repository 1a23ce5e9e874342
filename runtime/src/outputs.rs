//! Bringing files back out of a container.

use crate::{
    job::ContainerJob,
    wire::{self, Stream},
};
use globset::{GlobBuilder, GlobMatcher};
use maelstrom_spec::OutputFile;
use rustix::fd::{AsFd, OwnedFd};
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

/// All output files of one job together are no larger than this.
pub(crate) const OUTPUTS_MAX_BYTES: u64 = 256 << 20;

/// A job brings back no more files than this.
pub(crate) const OUTPUTS_MAX_FILES: usize = 10_000;

/// Writes every regular file that the job's globs match as a frame each. Called inside the
/// container, so that paths and symbolic links mean what they mean there.
pub(crate) fn collect(job: &ContainerJob, into: &OwnedFd, notes: &mut Vec<String>) {
    let mut collected = Collected {
        into,
        notes,
        bytes: 0,
        files: 0,
    };
    for pattern in &job.outputs {
        match matcher(&job.working_directory, pattern) {
            Ok((absolute, glob)) => collected.walk(&literal_prefix(&absolute), &glob, 0),
            Err(error) => collected.notes.push(format!(
                "the output pattern \"{pattern}\" is ignored: {error}"
            )),
        }
    }
}

/// The absolute form of a pattern, and what it matches.
fn matcher(
    working_directory: &Path,
    pattern: &str,
) -> Result<(PathBuf, GlobMatcher), globset::Error> {
    // Only the pattern is a pattern, not the directory that it starts in.
    let start = globset::escape(&working_directory.to_string_lossy());
    let absolute = normalise(&Path::new(&start).join(pattern));
    let glob = GlobBuilder::new(&absolute.to_string_lossy())
        .literal_separator(true)
        .build()?;
    Ok((absolute, glob.compile_matcher()))
}

/// Whether a job in this directory that asks for these patterns may bring back this file. Who runs
/// a job elsewhere might say that it did.
pub fn is_output(working_directory: &Path, patterns: &[String], path: &Path) -> bool {
    patterns.iter().any(|pattern| {
        matcher(working_directory, pattern).is_ok_and(|(_, glob)| glob.is_match(path))
    })
}

/// The inverse of [`collect`], for the slot.
pub(crate) fn read(from: &OwnedFd) -> io::Result<Vec<OutputFile>> {
    rustix::fs::seek(from, rustix::fs::SeekFrom::Start(0))?;
    let mut stream = io::BufReader::new(Stream(from.as_fd()));
    let mut files = Vec::new();
    while files.len() < OUTPUTS_MAX_FILES
        && let Some(file) = wire::read_frame(&mut stream)?
    {
        files.push(file);
    }
    Ok(files)
}

struct Collected<'a> {
    into: &'a OwnedFd,
    notes: &'a mut Vec<String>,
    bytes: u64,
    files: usize,
}

impl Collected<'_> {
    fn walk(&mut self, path: &Path, glob: &GlobMatcher, depth: usize) {
        let Ok(metadata) = fs::symlink_metadata(path) else {
            return;
        };
        if metadata.is_dir() && depth < 128 {
            let Ok(entries) = fs::read_dir(path) else {
                return;
            };
            let mut children: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
            children.sort();
            for child in children {
                let skip = depth == 0
                    && path == Path::new("/")
                    && ["proc", "sys", "dev"]
                        .iter()
                        .any(|name| child.ends_with(name));
                if !skip {
                    self.walk(&child, glob, depth + 1);
                }
            }
        } else if metadata.is_file()
            && glob.is_match(path)
            && let Err(why) = self.take(path, &metadata)
        {
            let note = format!("the output {} is left behind: {why}", path.display());
            if self.notes.len() < 20 {
                self.notes.push(note);
            }
        }
    }

    fn take(&mut self, path: &Path, metadata: &fs::Metadata) -> Result<(), String> {
        if self.files >= OUTPUTS_MAX_FILES {
            return Err(format!("a test may have {OUTPUTS_MAX_FILES} outputs"));
        }
        if self.bytes + metadata.len() > OUTPUTS_MAX_BYTES {
            return Err(format!(
                "the outputs of a test may have {} MiB together",
                OUTPUTS_MAX_BYTES >> 20
            ));
        }
        let contents = fs::read(path).map_err(|error| error.to_string())?;
        self.bytes += contents.len() as u64;
        self.files += 1;
        let file = OutputFile {
            path: path.to_path_buf(),
            mode: metadata.mode() & 0o7777,
            contents,
        };
        wire::write_frame(Stream(self.into.as_fd()), &file).map_err(|error| error.to_string())
    }
}

/// Resolves `.` and `..` by name.
fn normalise(path: &Path) -> PathBuf {
    let mut normal = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    normal
}

/// The components before the first that holds a pattern.
fn literal_prefix(pattern: &Path) -> PathBuf {
    pattern
        .components()
        .take_while(|component| {
            !component
                .as_os_str()
                .to_string_lossy()
                .contains(['*', '?', '[', '{', '\\'])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_an_output() {
        let patterns = ["*.snap", "/cover.out", "../x/**/y"].map(str::to_owned);
        let is_output = |path: &str| is_output(Path::new("/p/a[b]"), &patterns, Path::new(path));
        for path in ["/p/a[b]/one.snap", "/cover.out", "/p/x/1/2/y"] {
            assert!(is_output(path), "{path}");
        }
        for path in [
            "/p/a[b]/src/lib.rs",
            "/p/a[b]/in/one.snap",
            "/cover",
            "/p/ab/one.snap",
        ] {
            assert!(!is_output(path), "{path}");
        }
    }

    #[test]
    fn prefixes_and_names() {
        assert_eq!(literal_prefix(Path::new("/a/b*/c")), Path::new("/a"));
        assert_eq!(literal_prefix(Path::new("/a/b")), Path::new("/a/b"));
        assert_eq!(normalise(Path::new("/a/./b/../c")), Path::new("/a/c"));
        assert_eq!(normalise(Path::new("/../x")), Path::new("/x"));
    }
}
