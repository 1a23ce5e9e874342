//! Layers of directories full of Python modules.
//!
//! Times are normalised, as in all layers, and so Python would take every compiled module to be
//! older or newer than its source. A compiled module says in its head which time its source had:
//! where that is right, it is put into the layer with the normal time instead.
//!
//! The layer of a tree is remembered under a hash of what `stat` says of everything in it, since a
//! virtual environment has thousands of files and hardly ever changes.

use maelstrom_content::BuildContext;
use maelstrom_content::{LayerBuilder, LayerError, LayerId, Store, Timestamp};
use maelstrom_runner::{files, host};
use maelstrom_spec::LayerSpec;
use std::{
    collections::BTreeSet,
    fs,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Below the cache directory: files named by the hash of a tree's state, each with layer ids.
const DIRECTORY: &str = "python-layers-1";

/// Bytes at the start of a compiled module: magic number, flags, time and size of the source.
const HEAD_BYTES: usize = 16;

/// What a layer is made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trees {
    /// Directories, with everything below them.
    pub(crate) roots: BTreeSet<PathBuf>,
    /// Directories that are left out, wherever they are met.
    pub(crate) without: BTreeSet<PathBuf>,
    /// Single files, and links with what they lead to.
    pub(crate) programs: BTreeSet<PathBuf>,
}

struct Found {
    path: PathBuf,
    metadata: fs::Metadata,
}

impl Trees {
    /// Makes the layers, or finds those that were made before: the files, and the libraries that
    /// the machine code among them needs.
    pub(crate) fn layers(
        &self,
        store: &Store,
        context: &BuildContext,
        cache: &Path,
    ) -> Result<Vec<LayerId>, LayerError> {
        let mut found = Vec::new();
        for root in &self.roots {
            // One root may lie in another.
            let inside = self
                .roots
                .iter()
                .any(|other| other != root && root.starts_with(other) && !self.leaves_out(root));
            if !inside {
                self.walk(root, &mut found);
            }
        }
        let memo = cache.join(DIRECTORY).join(self.state(&found).to_string());
        if let Some(known) = remembered(store, context, &memo) {
            return Ok(known);
        }
        let mut layers = Vec::new();
        if !self.programs.is_empty() {
            let programs = self.programs.iter();
            let programs = programs.filter_map(|path| Some(path.to_str()?.to_owned()));
            let programs = programs.collect();
            layers.push(store.build(&LayerSpec::Programs { programs }, context)?);
        }
        layers.extend(libraries(&found, store, context));
        layers.push(self.files(&found, store)?);
        // Without the memo it is only slower the next time.
        let _ = remember(&memo, &layers);
        Ok(layers)
    }

    fn leaves_out(&self, path: &Path) -> bool {
        self.without.contains(path)
    }

    fn walk(&self, directory: &Path, found: &mut Vec<Found>) {
        let Ok(metadata) = fs::symlink_metadata(directory) else {
            return;
        };
        if metadata.is_dir() {
            let mut children: Vec<PathBuf> = fs::read_dir(directory)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .collect();
            children.sort_unstable();
            found.push(Found {
                path: directory.to_owned(),
                metadata,
            });
            for child in children {
                if !self.leaves_out(&child) {
                    self.walk(&child, found);
                }
            }
        } else if is_wanted(directory, &metadata) {
            found.push(Found {
                path: directory.to_owned(),
                metadata,
            });
        }
    }

    fn state(&self, found: &[Found]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for program in &self.programs {
            let stat = fs::metadata(program).map(|stat| stat.ctime_nsec() ^ stat.ctime());
            hasher.update(format!("{program:?} {stat:?}\n").as_bytes());
        }
        for Found { path, metadata } in found {
            hasher.update(path.as_os_str().as_encoded_bytes());
            for number in [
                u64::from(metadata.mode()),
                metadata.ino(),
                // Entries come and go in directories without a trace in the result.
                if metadata.is_dir() {
                    0
                } else {
                    metadata.size()
                },
            ] {
                hasher.update(&number.to_le_bytes());
            }
            if !metadata.is_dir() {
                for number in [
                    metadata.mtime(),
                    metadata.mtime_nsec(),
                    metadata.ctime(),
                    metadata.ctime_nsec(),
                ] {
                    hasher.update(&number.to_le_bytes());
                }
            }
        }
        hasher.finalize()
    }

    fn files(&self, found: &[Found], store: &Store) -> Result<LayerId, LayerError> {
        let mut layer = store.layer();
        for root in &self.roots {
            add_links_on_the_way(&mut layer, root);
        }
        for Found { path, metadata } in found {
            if path.extension().is_some_and(|extension| extension == "pyc") {
                if let Some(bytes) = compiled(path) {
                    layer.add_bytes(path, bytes, metadata.mode() & 0o777);
                }
            } else if !metadata.is_dir() || metadata.mode() & 0o500 == 0o500 {
                layer.add_path(path, path);
            }
        }
        layer.finish()
    }
}

/// Where a directory is reached through links, the layer has these links, too.
fn add_links_on_the_way(layer: &mut LayerBuilder, root: &Path) {
    for ancestor in root.ancestors().collect::<Vec<_>>().into_iter().rev() {
        if let Ok(target) = fs::read_link(ancestor) {
            layer.add_symlink(ancestor, target);
        }
    }
}

fn is_wanted(path: &Path, metadata: &fs::Metadata) -> bool {
    let name = path.to_string_lossy();
    let readable = || fs::File::open(path).is_ok();
    metadata.is_symlink()
        || metadata.is_file()
            // What is only for linking programs, and code compiled for other optimisation levels.
            && !name.ends_with(".a")
            && !(name.ends_with(".pyc") && name.contains(".opt-"))
            && (metadata.mode() & 0o444 == 0o444 || readable())
}

/// The compiled module at `path` as Python will take it for that of a source with the normal time.
/// `None` if it is not up to date.
fn compiled(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.read_to_end(&mut bytes).ok()?;
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    word(HEAD_BYTES - 4)?;
    if word(4)? != 0 {
        // It says what its source's text was, not when.
        return Some(bytes);
    }
    let Some(source) = source_of(path) else {
        // A module without a source stands where the source would.
        let lone = path.parent()?.file_name()? != "__pycache__";
        return lone.then_some(bytes);
    };
    let source = fs::metadata(source).ok()?;
    let up_to_date = source.mtime() as u32 == word(8)? && source.size() as u32 == word(12)?;
    if !up_to_date {
        return None;
    }
    bytes[8..12].copy_from_slice(&(Timestamp::NORMAL.seconds as u32).to_le_bytes());
    Some(bytes)
}

/// `a/x.py` for `a/__pycache__/x.cpython-311.pyc`, also where pytest has rewritten it.
fn source_of(compiled: &Path) -> Option<PathBuf> {
    let directory = compiled.parent()?;
    if directory.file_name()? != "__pycache__" {
        return None;
    }
    let name = compiled.file_name()?.to_str()?.strip_suffix(".pyc")?;
    let end = name.rfind(".cpython-").or_else(|| name.rfind(".pypy"))?;
    Some(directory.parent()?.join(format!("{}.py", &name[..end])))
}

/// The libraries that extension modules need. One whose libraries are not there cannot be
/// imported here either.
fn libraries(found: &[Found], store: &Store, context: &BuildContext) -> Vec<LayerId> {
    let modules: Vec<PathBuf> = found
        .iter()
        .filter(|found| found.metadata.is_file() && is_machine_code(&found.path))
        .map(|found| found.path.clone())
        .collect();
    let mut layers = Vec::new();
    add_libraries(&modules, store, context, &mut layers);
    layers
}

fn add_libraries(
    modules: &[PathBuf],
    store: &Store,
    context: &BuildContext,
    layers: &mut Vec<LayerId>,
) {
    if modules.is_empty() {
        return;
    }
    match host::libraries(store, context, modules.to_vec()) {
        Ok(layer) => layers.push(layer),
        Err(error) if modules.len() == 1 => {
            tracing::debug!("{}: {error}", modules[0].display());
        }
        Err(_) => {
            // Halves, so that few that fail cost little.
            let (first, second) = modules.split_at(modules.len() / 2);
            add_libraries(first, store, context, layers);
            add_libraries(second, store, context, layers);
        }
    }
}

fn is_machine_code(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let named = name.ends_with(".so") || name.contains(".so.");
    let mut start = [0; 4];
    named
        && fs::File::open(path)
            .and_then(|mut file| file.read_exact(&mut start))
            .is_ok()
        && start == *b"\x7fELF"
}

fn remembered(store: &Store, context: &BuildContext, memo: &Path) -> Option<Vec<LayerId>> {
    let text = fs::read_to_string(memo).ok()?;
    let ids: Vec<LayerId> = text
        .lines()
        .map(|line| line.parse().ok())
        .collect::<Option<_>>()?;
    // They may have been evicted since.
    let kept = ids
        .iter()
        .all(|id| store.build(&host::built(*id), context).is_ok());
    (kept && !ids.is_empty()).then_some(ids)
}

fn remember(memo: &Path, ids: &[LayerId]) -> std::io::Result<()> {
    let text: String = ids.iter().map(|id| format!("{id}\n")).collect();
    files::write_whole(memo, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        for (compiled, source) in [
            ("/a/__pycache__/x.cpython-311.pyc", Some("/a/x.py")),
            (
                "/a/__pycache__/x.y.cpython-311-pytest-9.0.pyc",
                Some("/a/x.y.py"),
            ),
            ("/a/__pycache__/x.pyc", None),
            ("/a/x.pyc", None),
        ] {
            assert_eq!(
                source_of(Path::new(compiled)),
                source.map(PathBuf::from),
                "{compiled}"
            );
        }
    }

    #[test]
    fn compiled_modules_fit_their_sources_in_the_layer() {
        let temp = tempfile::tempdir().unwrap();
        let cache = temp.path().join("__pycache__");
        fs::create_dir(&cache).unwrap();
        let source = temp.path().join("x.py");
        fs::write(&source, "x = 1\n").unwrap();
        let stat = fs::metadata(&source).unwrap();
        let compiled_path = cache.join("x.cpython-311.pyc");
        let mut bytes = vec![0; 20];
        bytes[8..12].copy_from_slice(&(stat.mtime() as u32).to_le_bytes());
        bytes[12..16].copy_from_slice(&6_u32.to_le_bytes());
        fs::write(&compiled_path, &bytes).unwrap();
        let patched = compiled(&compiled_path).unwrap();
        assert_eq!(
            patched[8..12],
            (Timestamp::NORMAL.seconds as u32).to_le_bytes()
        );
        assert_eq!((&patched[..8], &patched[12..]), (&bytes[..8], &bytes[12..]));
        fs::write(&source, "x = 12\n").unwrap();
        assert_eq!(compiled(&compiled_path), None);
        fs::write(&compiled_path, b"short").unwrap();
        assert_eq!(compiled(&compiled_path), None);
        bytes[4] = 1;
        fs::write(&compiled_path, &bytes).unwrap();
        assert_eq!(compiled(&compiled_path), Some(bytes));
    }
}
