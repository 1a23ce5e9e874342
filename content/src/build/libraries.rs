//! The dynamic loader and shared libraries that binaries need, found as the loader finds them.

use super::{
    BuildContext,
    elf::{self, Elf, ElfError, Machine},
    prefix, search,
    spellings::spellings,
};
use crate::{LayerBuilder, LayerError};
use maelstrom_spec::PrefixOptions;
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// No program has as many libraries.
const MAX_LIBRARIES: usize = 10_000;

/// Adds the closure of these binaries. The binaries themselves are not added.
pub(super) fn add(
    builder: &mut LayerBuilder,
    binaries: &[PathBuf],
    options: &PrefixOptions,
    context: &BuildContext,
) -> Result<(), LayerError> {
    let mut closure = Closure::new(context);
    for binary in binaries {
        closure.add_binary(&context.source(binary))?;
    }
    closure.put(builder, options)
}

/// Libraries found so far.
pub(super) struct Closure<'a> {
    context: &'a BuildContext,
    configured: Vec<PathBuf>,
    /// What is to be in the layer: where it is looked for there, and where it is here.
    files: BTreeMap<PathBuf, PathBuf>,
    /// Names in a directory that every loader searches, of libraries that only this machine's
    /// configuration leads to; with the paths of the libraries.
    links: BTreeMap<PathBuf, PathBuf>,
    parsed: HashMap<PathBuf, Option<Elf>>,
    defaults: HashMap<Machine, Vec<PathBuf>>,
}

/// Something that is loaded into a process.
struct Object {
    path: PathBuf,
    elf: Elf,
    /// What `$ORIGIN` stands for.
    origin: PathBuf,
    /// The old kind of search path, which holds for what the object loads, and so on.
    inherited: Vec<PathBuf>,
}

/// How a library was found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Via {
    /// In a way that works in a container as well.
    Anything,
    /// By this machine's configuration, which a container does not have.
    Configuration,
}

impl<'a> Closure<'a> {
    pub(super) fn new(context: &'a BuildContext) -> Closure<'a> {
        Closure {
            context,
            configured: search::configured_directories(Path::new("/")),
            files: BTreeMap::new(),
            links: BTreeMap::new(),
            parsed: HashMap::new(),
            defaults: HashMap::new(),
        }
    }

    /// Adds what a binary needs. A static binary needs nothing.
    pub(super) fn add_binary(&mut self, binary: &Path) -> Result<(), LayerError> {
        let elf = elf::read(binary).map_err(|error| match error {
            ElfError::Io(source) => LayerError::source("read", binary)(source),
            ElfError::NotElf => LayerError::Binary {
                path: binary.to_owned(),
                problem: "it is not an ELF binary".into(),
            },
            ElfError::Malformed(problem) => LayerError::Binary {
                path: binary.to_owned(),
                problem,
            },
        })?;
        let real = binary
            .canonicalize()
            .map_err(LayerError::source("resolve", binary))?;
        let mut loaded: HashSet<Vec<u8>> = HashSet::new();
        if let Some(interpreter) = &elf.interpreter {
            let path = PathBuf::from(OsStr::from_bytes(interpreter));
            if !path.is_absolute() || self.library(&path, elf.machine).is_none() {
                return Err(LayerError::Library {
                    binary: binary.to_owned(),
                    library: describe(interpreter, elf.machine),
                    searched: path.parent().map(Path::to_owned).into_iter().collect(),
                });
            }
            loaded.extend(path.file_name().map(|name| name.as_bytes().to_vec()));
            self.files.insert(path.clone(), path);
        }
        let origin = parent(&real);
        let mut queue = VecDeque::from([Object {
            inherited: rpath(&elf, &origin),
            path: binary.to_owned(),
            elf,
            origin,
        }]);
        // Breadth first, as the loader does it: who comes first decides for all.
        while let Some(object) = queue.pop_front() {
            for name in &object.elf.needed {
                if !loaded.insert(name.clone()) {
                    continue;
                }
                if loaded.len() > MAX_LIBRARIES {
                    return Err(LayerError::Binary {
                        path: binary.to_owned(),
                        problem: "it needs an absurd number of libraries".into(),
                    });
                }
                let (path, elf, via) = self.find(&object, name)?;
                self.found(&path, name, elf.machine, via);
                let origin = parent(&path);
                let mut inherited = rpath(&elf, &origin);
                inherited.extend(object.inherited.iter().cloned());
                queue.push_back(Object {
                    path,
                    elf,
                    origin,
                    inherited,
                });
            }
        }
        Ok(())
    }

    fn find(&mut self, object: &Object, name: &[u8]) -> Result<(PathBuf, Elf, Via), LayerError> {
        let mut searched = Vec::new();
        let machine = object.elf.machine;
        let mut directories: Vec<(PathBuf, Via)> = Vec::new();
        if name.contains(&b'/') {
            let path = PathBuf::from(OsStr::from_bytes(&expand(name, &object.origin)));
            if let Some(elf) = self.library(&path, machine) {
                return Ok((path, elf, Via::Anything));
            }
            searched.push(parent(&path));
        } else {
            let anything = |path: PathBuf| (path, Via::Anything);
            if object.elf.runpath.is_none() {
                directories.extend(object.inherited.iter().cloned().map(anything));
            }
            directories.extend(
                self.context
                    .library_path
                    .iter()
                    .map(|path| anything(self.context.source(path))),
            );
            if let Some(runpath) = &object.elf.runpath {
                directories.extend(split(runpath, &object.origin).into_iter().map(anything));
            }
            let defaults = self.defaults(machine).to_vec();
            for directory in &self.configured {
                let via = if defaults.contains(directory) {
                    Via::Anything
                } else {
                    Via::Configuration
                };
                directories.push((directory.clone(), via));
            }
            directories.extend(defaults.into_iter().map(anything));
        }
        for (directory, via) in directories {
            let path = directory.join(OsStr::from_bytes(name));
            if let Some(elf) = self.library(&path, machine) {
                return Ok((path, elf, via));
            }
            if !searched.contains(&directory) {
                searched.push(directory);
            }
        }
        Err(LayerError::Library {
            binary: object.path.clone(),
            library: describe(name, machine),
            searched,
        })
    }

    /// A library for this machine at this path, if there is one.
    fn library(&mut self, path: &Path, machine: Machine) -> Option<Elf> {
        self.parsed
            .entry(path.to_owned())
            .or_insert_with(|| elf::read(path).ok())
            .as_ref()
            .filter(|elf| elf.machine == machine)
            .cloned()
    }

    fn found(&mut self, path: &Path, name: &[u8], machine: Machine, via: Via) {
        self.files.insert(path.to_owned(), path.to_owned());
        if via == Via::Configuration {
            // The directory of the C library is one that its loader searches.
            let default = self
                .defaults(machine)
                .iter()
                .find(|directory| {
                    directory.join("libc.so.6").exists() || directory.join("libc.so").exists()
                })
                .cloned();
            if let Some(directory) = default {
                self.links
                    .insert(directory.join(OsStr::from_bytes(name)), path.to_owned());
            }
        }
    }

    fn defaults(&mut self, machine: Machine) -> &[PathBuf] {
        self.defaults
            .entry(machine)
            .or_insert_with(|| search::default_directories(machine, Path::new("/")))
    }

    /// Puts everything into a layer. Without prefix options, what stands in a directory with
    /// several names is found under each.
    pub(super) fn put(
        self,
        builder: &mut LayerBuilder,
        options: &PrefixOptions,
    ) -> Result<(), LayerError> {
        let plain = *options == PrefixOptions::default();
        for (destination, target) in &self.links {
            if plain && !self.files.contains_key(destination) {
                for destination in spellings(destination) {
                    builder.add_symlink(destination, target);
                }
            }
        }
        for (destination, source) in &self.files {
            if plain {
                for destination in spellings(destination) {
                    builder.add_file(destination, source);
                }
            } else {
                // Libraries are often reached by links; it is the file that is needed.
                let destination = prefix::destination(destination, source, false, options)?;
                builder.add_file(destination, source);
            }
        }
        Ok(())
    }
}

fn rpath(elf: &Elf, origin: &Path) -> Vec<PathBuf> {
    match (&elf.rpath, &elf.runpath) {
        (Some(rpath), None) => split(rpath, origin),
        _ => Vec::new(),
    }
}

fn split(path: &[u8], origin: &Path) -> Vec<PathBuf> {
    path.split(|byte| *byte == b':')
        .filter(|directory| !directory.is_empty())
        .map(|directory| PathBuf::from(OsStr::from_bytes(&expand(directory, origin))))
        .filter(|directory| directory.is_absolute())
        .collect()
}

/// `$ORIGIN`, `${ORIGIN}`; what `$LIB` and `$PLATFORM` stand for depends on the loader's
/// build, and nearly nothing uses them.
fn expand(text: &[u8], origin: &Path) -> Vec<u8> {
    let mut expanded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == b'$') {
        expanded.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        match [b"$ORIGIN".as_slice(), b"${ORIGIN}"]
            .iter()
            .find_map(|name| rest.strip_prefix(*name))
        {
            Some(after) => {
                expanded.extend_from_slice(origin.as_os_str().as_bytes());
                rest = after;
            }
            None => {
                expanded.push(b'$');
                rest = &rest[1..];
            }
        }
    }
    expanded.extend_from_slice(rest);
    expanded
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_owned()
}

fn describe(name: &[u8], machine: Machine) -> String {
    let name = String::from_utf8_lossy(name);
    let ours = std::env::consts::ARCH;
    let theirs = machine.name();
    if theirs == ours || ours == "x86" && theirs == "i386" {
        format!("`{name}`")
    } else {
        format!("`{name}` for {theirs} (this machine is {ours})")
    }
}

#[cfg(test)]
#[path = "libraries_tests.rs"]
mod tests;
