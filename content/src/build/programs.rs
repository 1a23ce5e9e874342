//! Programs of this machine, with what it takes to start them.
//!
//! A program is put where it is found, and at each other name of that directory (see
//! `spellings`). If it is a link, so is what is put there, and what it leads to follows. If it
//! is a script, its interpreter follows. Shared libraries of binaries follow too. What a
//! program opens while it runs, such as modules of an interpreter, does not.

use super::{BuildContext, libraries::Closure, spellings::spellings};
use crate::{LayerBuilder, LayerError};
use maelstrom_spec::PrefixOptions;
use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, File},
    io::Read,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

/// How many links may lead to each other, as in Linux.
const MAX_LINKS: usize = 40;

/// How much of a script's first line counts, as in Linux.
const MAX_FIRST_LINE_BYTES: u64 = 256;

pub(super) fn add(
    builder: &mut LayerBuilder,
    programs: &[String],
    context: &BuildContext,
) -> Result<(), LayerError> {
    let mut collector = Collector {
        builder,
        context,
        closure: Closure::new(context),
        seen: HashSet::new(),
    };
    for program in programs {
        collector.add(program.as_bytes(), None)?;
    }
    let Collector {
        builder, closure, ..
    } = collector;
    closure.put(builder, &PrefixOptions::default())
}

struct Collector<'a> {
    builder: &'a mut LayerBuilder,
    context: &'a BuildContext,
    closure: Closure<'a>,
    /// Paths that were added, as they were found.
    seen: HashSet<PathBuf>,
}

impl Collector<'_> {
    fn add(&mut self, program: &[u8], needed_by: Option<&Path>) -> Result<(), LayerError> {
        let mut path = self.find(program, needed_by)?;
        for _ in 0..MAX_LINKS {
            // Scripts may have each other as interpreters, for all we know.
            if !self.seen.insert(path.clone()) {
                return Ok(());
            }
            match self.put(&path)? {
                Some(next) => path = next,
                None => return self.add_needs(&path),
            }
        }
        Err(LayerError::Kind {
            path,
            what: "reached through too many symbolic links",
            advice: "they may lead in a circle",
        })
    }

    /// An absolute path that may be a link.
    fn find(&self, program: &[u8], needed_by: Option<&Path>) -> Result<PathBuf, LayerError> {
        let name = Path::new(OsStr::from_bytes(program));
        let candidates: Vec<PathBuf> = if program.contains(&b'/') {
            vec![self.context.source(name)]
        } else {
            self.context
                .program_path
                .iter()
                .map(|directory| self.context.source(directory).join(name))
                .collect()
        };
        let executable = |path: &&PathBuf| {
            fs::metadata(path)
                .is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o111 != 0)
        };
        match candidates.iter().find(executable) {
            Some(path) if !program.is_empty() => Ok(path.clone()),
            _ => Err(LayerError::Program {
                program: String::from_utf8_lossy(program).into_owned(),
                needed_by: needed_by.map(Path::to_owned),
                searched: candidates
                    .iter()
                    .filter_map(|path| path.parent())
                    .map(Path::to_owned)
                    .collect(),
            }),
        }
    }

    /// Puts one path into the layer. If it is a link, returns where that leads.
    fn put(&mut self, path: &Path) -> Result<Option<PathBuf>, LayerError> {
        let home = home_of(path)?;
        let metadata = fs::symlink_metadata(&home).map_err(LayerError::source("read", &home))?;
        let mut others = spellings(&home);
        others.remove(0);
        if path != home && !others.iter().any(|other| other == path) {
            others.push(path.to_owned());
        }
        if !metadata.is_symlink() {
            for destination in others.iter().chain([&home]) {
                self.builder.add_file(destination, &home);
            }
            return Ok(None);
        }
        let target = fs::read_link(&home).map_err(LayerError::source("read the link", &home))?;
        let directory = home.parent().unwrap_or(Path::new("/"));
        let next = home_of(&directory.join(&target))?;
        // The layer has no links to directories, so a target that leads through one is put
        // straight.
        let straight = lexical(&directory.join(&target)) == next;
        self.builder
            .add_symlink(&home, if straight { &target } else { &next });
        for other in others {
            self.builder.add_symlink(other, &home);
        }
        Ok(Some(next))
    }

    /// Adds what it takes to start the file at `path`.
    fn add_needs(&mut self, path: &Path) -> Result<(), LayerError> {
        let mut start = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_FIRST_LINE_BYTES).read_to_end(&mut start))
            .map_err(LayerError::source("read", path))?;
        if start.starts_with(b"\x7fELF") {
            return self.closure.add_binary(path);
        }
        for program in interpreters(&start) {
            self.add(program, Some(path))?;
        }
        Ok(())
    }
}

/// The path without links but for its last component.
fn home_of(path: &Path) -> Result<PathBuf, LayerError> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(parent
            .canonicalize()
            .map_err(LayerError::source("resolve", path))?
            .join(name)),
        _ => path
            .canonicalize()
            .map_err(LayerError::source("resolve", path)),
    }
}

/// The path with `.` and `..` resolved by its text.
fn lexical(path: &Path) -> PathBuf {
    let mut bytes = Vec::new();
    for name in crate::path::components(path.as_os_str().as_bytes()) {
        bytes.push(b'/');
        bytes.extend_from_slice(name);
    }
    PathBuf::from(OsStr::from_bytes(&bytes))
}

/// What the first line of a script starts: its interpreter, and what `env` is told to find.
fn interpreters(start: &[u8]) -> Vec<&[u8]> {
    let Some(line) = start.strip_prefix(b"#!") else {
        return Vec::new();
    };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut words = line
        .split(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
        .filter(|word| !word.is_empty());
    let Some(interpreter) = words.next() else {
        return Vec::new();
    };
    let mut found = vec![interpreter];
    if interpreter.rsplit(|byte| *byte == b'/').next() == Some(b"env") {
        found.extend(words.find(|word| !word.starts_with(b"-") && !word.contains(&b'=')));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines() {
        let table: [(&str, &[&str]); 8] = [
            ("#!/bin/sh\nexit", &["/bin/sh"]),
            ("#! /bin/sh -e\n", &["/bin/sh"]),
            ("#!/usr/bin/env python3\n", &["/usr/bin/env", "python3"]),
            ("#!/usr/bin/env -S perl -w\n", &["/usr/bin/env", "perl"]),
            ("#!/usr/bin/env A=1 x\n", &["/usr/bin/env", "x"]),
            ("#!\n/bin/sh", &[]),
            ("echo", &[]),
            ("#!/bin/sh\r\n", &["/bin/sh"]),
        ];
        for (script, expected) in table {
            let found: Vec<&str> = interpreters(script.as_bytes())
                .into_iter()
                .map(|word| std::str::from_utf8(word).unwrap())
                .collect();
            assert_eq!(found, expected, "{script:?}");
        }
    }
}
