//! Telling at a glance that nothing has changed since the last time everything was built, so that
//! `go` need not be asked again.
//!
//! What a build depends on is the same as long as the user asks for the same with the same
//! environment and the same toolchain, and no file of the modules has another stamp. Modules in the
//! module cache do not change. What cannot be told this way, `go` is asked as always.

use crate::{
    build::{Stamp, stamp},
    packages::{GoEnv, Package},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    env, fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A file that changed so shortly before it was looked at may change again without another stamp.
const SETTLED: Duration = Duration::from_millis(50);

/// Files or more of them than this are not looked through.
const MAX_FILES: usize = 200_000;

/// Flags that name files, or programs, whose changes are not noticed.
const FLAGS_WITH_FILES: [&str; 7] = [
    "-a",
    "-modfile",
    "-overlay",
    "-pgo",
    "-pkgdir",
    "-toolexec",
    "-work",
];

/// What was found out when everything was built.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    question: String,
    tree: String,
    pub(crate) env: GoEnv,
    pub(crate) modules: Vec<PathBuf>,
    pub(crate) packages: Vec<Package>,
    pub(crate) all: Vec<String>,
    /// The test binary of each package by import path, and its stamp.
    pub(crate) binaries: BTreeMap<String, (PathBuf, Stamp)>,
}

/// Where the snapshot is kept, and what it has to answer.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    path: PathBuf,
    question: String,
    /// Places below the modules whose changes do not count.
    ignored: Vec<PathBuf>,
}

/// The stamps of all files of the modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tree {
    hash: String,
    settled: bool,
}

impl Memory {
    /// `asked` is what the user asks for: directory, patterns and flags. `None`: it cannot be told
    /// whether anything has changed.
    pub(crate) fn new(
        path: PathBuf,
        asked: &[String],
        flags: &[String],
        ignored: Vec<PathBuf>,
    ) -> Option<Memory> {
        let names_file = |flag: &String| {
            let name = flag.split('=').next().unwrap_or_default();
            FLAGS_WITH_FILES.contains(&name)
        };
        let goflags = env::var("GOFLAGS").unwrap_or_default();
        let in_environment = goflags.split(' ').map(str::to_owned);
        if flags.iter().any(names_file) || in_environment.into_iter().any(|flag| names_file(&flag))
        {
            return None;
        }
        let mut hasher = blake3::Hasher::new();
        for text in asked.iter().chain(flags) {
            hash_part(&mut hasher, text.as_bytes());
        }
        // All of the environment: what of it matters to Go, and to C compilers, is open.
        let mut variables: Vec<_> = env::vars_os()
            .filter(|(name, _)| is_lasting(name))
            .collect();
        variables.sort();
        for (name, value) in variables {
            hash_part(&mut hasher, name.as_bytes());
            hash_part(&mut hasher, value.as_bytes());
        }
        hash_part(&mut hasher, format!("{:?}", toolchain_stamps()).as_bytes());
        Some(Memory {
            path,
            question: hasher.finalize().to_string(),
            ignored,
        })
    }

    /// The snapshot, if it still holds.
    pub(crate) fn recall(&self) -> Option<Snapshot> {
        let snapshot: Snapshot = serde_json::from_slice(&fs::read(&self.path).ok()?).ok()?;
        let holds = snapshot.question == self.question
            && self.tree(&snapshot.modules, &snapshot.env)?.hash == snapshot.tree
            && snapshot
                .binaries
                .values()
                .all(|(path, before)| stamp(path).as_ref() == Some(before));
        holds.then_some(snapshot)
    }

    /// The stamps of the files of `modules` and what they are replaced with. `None`: too many.
    pub(crate) fn tree(&self, modules: &[PathBuf], go_env: &GoEnv) -> Option<Tree> {
        let now = SystemTime::now();
        let mut hasher = blake3::Hasher::new();
        let mut newest = Duration::ZERO;
        let mut files = 0;
        let version = go_env.goroot.join("VERSION");
        hash_part(&mut hasher, format!("{:?}", stamp(&version)).as_bytes());
        if go_env.has_workspace() {
            let workspace = Path::new(&go_env.gowork);
            let text = fs::read(workspace).ok()?;
            // It may replace modules.
            if String::from_utf8_lossy(&text).contains("replace") {
                return None;
            }
            hash_part(&mut hasher, &text);
        }
        let mut roots = modules.to_vec();
        for module in modules {
            roots.extend(replacements(module));
        }
        for root in roots {
            self.walk(&root, &mut |path, metadata| {
                files += 1;
                hash_part(&mut hasher, path.as_os_str().as_bytes());
                for number in [
                    metadata.size(),
                    metadata.ino(),
                    u64::from(metadata.mode()),
                    metadata.mtime().cast_unsigned(),
                    metadata.mtime_nsec().cast_unsigned(),
                    metadata.ctime().cast_unsigned(),
                    metadata.ctime_nsec().cast_unsigned(),
                ] {
                    hasher.update(&number.to_le_bytes());
                }
                let changed = Duration::new(
                    u64::try_from(metadata.ctime()).unwrap_or(0),
                    u32::try_from(metadata.ctime_nsec()).unwrap_or(0),
                );
                newest = newest.max(changed);
                files < MAX_FILES
            })
            .ok()?;
        }
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(Tree {
            hash: hasher.finalize().to_string(),
            settled: newest + SETTLED < now,
        })
    }

    fn walk(
        &self,
        directory: &Path,
        on_file: &mut impl FnMut(&Path, &fs::Metadata) -> bool,
    ) -> io::Result<()> {
        let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            if entry.file_name() == ".git" || self.ignored.contains(&path) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                self.walk(&path, on_file)?;
            } else if !on_file(&path, &entry.metadata()?) {
                return Err(io::Error::other("too many files"));
            }
        }
        Ok(())
    }

    /// Keeps a snapshot of what was built, if `before`, which was taken before the build, still
    /// holds.
    pub(crate) fn keep(&self, before: &Tree, mut snapshot: Snapshot) {
        let now = self.tree(&snapshot.modules, &snapshot.env);
        if !before.settled || now.is_none_or(|now| now.hash != before.hash) {
            // An earlier one may be of a build that is gone.
            let _ = fs::remove_file(&self.path);
            return;
        }
        snapshot.question.clone_from(&self.question);
        snapshot.tree.clone_from(&before.hash);
        let written = serde_json::to_vec(&snapshot)
            .map_err(io::Error::other)
            .and_then(|bytes| maelstrom_runner::files::write_whole(&self.path, &bytes));
        if let Err(error) = written {
            tracing::warn!("could not write {}: {error}", self.path.display());
        }
    }
}

impl Snapshot {
    pub(crate) fn new(
        env: GoEnv,
        modules: Vec<PathBuf>,
        packages: Vec<Package>,
        all: Vec<String>,
        binaries: BTreeMap<String, (PathBuf, Stamp)>,
    ) -> Snapshot {
        Snapshot {
            question: String::new(),
            tree: String::new(),
            env,
            modules,
            packages,
            all,
            binaries,
        }
    }
}

/// Whether a variable is not another one in each terminal.
fn is_lasting(name: &std::ffi::OsStr) -> bool {
    const PASSING: [&str; 9] = [
        "COLUMNS",
        "LINES",
        "OLDPWD",
        "PWD",
        "SHLVL",
        "SSH_CLIENT",
        "SSH_CONNECTION",
        "SSH_TTY",
        "_",
    ];
    !PASSING.iter().any(|passing| name == *passing)
}

/// The `go` command and its settings.
fn toolchain_stamps() -> [Option<Stamp>; 2] {
    let path = env::var_os("PATH").unwrap_or_default();
    let go = env::split_paths(&path)
        .map(|directory| directory.join("go"))
        .find(|path| path.is_file());
    let settings = match env::var_os("GOENV") {
        Some(path) => Some(PathBuf::from(path)),
        None => env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(env::home_dir()?.join(".config")))
            .map(|directory| directory.join("go/env")),
    };
    [go, settings].map(|path| path.and_then(|path| stamp(&path)))
}

/// Directories that the `go.mod` of a module names in place of other modules.
fn replacements(module: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(module.join("go.mod")).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let target = line.split_once("=>")?.1.split("//").next()?.trim();
            let target = target.trim_matches('"');
            let is_path = [".", "/"].iter().any(|start| target.starts_with(start));
            is_path.then(|| module.join(target))
        })
        .collect()
}

fn hash_part(hasher: &mut blake3::Hasher, part: &[u8]) {
    hasher.update(&(part.len() as u64).to_le_bytes());
    hasher.update(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        temp: tempfile::TempDir,
        memory: Memory,
    }

    impl Fixture {
        fn new() -> Fixture {
            let temp = tempfile::tempdir().unwrap();
            let write = |name: &str, text: &str| {
                let path = temp.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            };
            write(
                "m/go.mod",
                "module m\nreplace x => ../x // beside it\nreplace y => example.com/z v1\n",
            );
            write("m/a/a.go", "package a");
            write("m/own/cache", "");
            write("m/.git/index", "");
            write("x/x.go", "package x");
            let memory = Memory::new(
                temp.path().join("snapshot"),
                &["./...".to_owned()],
                &[],
                vec![temp.path().join("m/own")],
            );
            Fixture {
                memory: memory.unwrap(),
                temp,
            }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.temp.path().join(name)
        }

        fn tree(&self) -> Tree {
            let env = GoEnv::default();
            self.memory.tree(&[self.path("m")], &env).unwrap()
        }

        /// Keeps a snapshot as if all files had been there for long.
        fn keep(&self) {
            let binary = self.path("m/own/a.test");
            fs::write(&binary, "binary").unwrap();
            let binaries =
                BTreeMap::from([("m/a".into(), (binary.clone(), stamp(&binary).unwrap()))]);
            let before = Tree {
                settled: true,
                ..self.tree()
            };
            let modules = vec![self.path("m")];
            let snapshot = Snapshot::new(GoEnv::default(), modules, vec![], vec![], binaries);
            self.memory.keep(&before, snapshot);
        }
    }

    #[test]
    fn a_snapshot_holds_until_a_file_changes() {
        let fixture = Fixture::new();
        assert_eq!(fixture.memory.recall(), None);
        for change in [
            "m/a/a.go",
            "m/a/new.go",
            "m/go.mod",
            "x/x.go",
            "m/own/a.test",
        ] {
            fixture.keep();
            assert!(fixture.memory.recall().is_some(), "{change}");
            fs::write(fixture.path(change), "changed").unwrap();
            assert_eq!(fixture.memory.recall(), None, "{change}");
            fs::write(fixture.path("m/go.mod"), "module m\nreplace x => ../x\n").unwrap();
        }
        fixture.keep();
        for change in ["m/own/cache", "m/.git/index"] {
            fs::write(fixture.path(change), "changed").unwrap();
            assert!(fixture.memory.recall().is_some(), "{change}");
        }
        fs::remove_file(fixture.path("m/a/a.go")).unwrap();
        assert_eq!(fixture.memory.recall(), None);
    }

    #[test]
    fn another_question_has_another_answer() {
        let fixture = Fixture::new();
        fixture.keep();
        let other = |asked: &str, flags: &[&str]| {
            let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
            Memory::new(
                fixture.memory.path.clone(),
                &[asked.to_owned()],
                &flags,
                fixture.memory.ignored.clone(),
            )
        };
        assert!(other("./...", &[]).unwrap().recall().is_some());
        assert_eq!(other("./a", &[]).unwrap().recall(), None);
        assert_eq!(other("./...", &["-race"]).unwrap().recall(), None);
        assert!(other("./...", &["-overlay=x"]).is_none());
    }

    #[test]
    fn what_changed_just_now_is_not_kept() {
        let fixture = Fixture::new();
        let before = fixture.tree();
        assert!(!before.settled);
        let snapshot = Snapshot::new(
            GoEnv::default(),
            vec![fixture.path("m")],
            vec![],
            vec![],
            BTreeMap::new(),
        );
        fixture.memory.keep(&before, snapshot);
        assert_eq!(fixture.memory.recall(), None);
    }
}
