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
        // Only the pattern is a pattern, not the directory that it starts in.
        let start = globset::escape(&job.working_directory.to_string_lossy());
        let absolute = normalise(&Path::new(&start).join(pattern));
        let glob = GlobBuilder::new(&absolute.to_string_lossy())
            .literal_separator(true)
            .build();
        match glob {
            Ok(glob) => collected.walk(&literal_prefix(&absolute), &glob.compile_matcher(), 0),
            Err(error) => collected.notes.push(format!(
                "the output pattern \"{pattern}\" is ignored: {error}"
            )),
        }
    }
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
    fn prefixes_and_names() {
        assert_eq!(literal_prefix(Path::new("/a/b*/c")), Path::new("/a"));
        assert_eq!(literal_prefix(Path::new("/a/b")), Path::new("/a/b"));
        assert_eq!(normalise(Path::new("/a/./b/../c")), Path::new("/a/c"));
        assert_eq!(normalise(Path::new("/../x")), Path::new("/x"));
    }
}
