//! What tests are collected from. While it stays the same, so do the tests, as far as can be known.

use crate::{artifact::file_of, collection::Collection};
use maelstrom_spec::ContainerSpec;
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt::Write as _,
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

/// Variables of the user that differ from one terminal or command to the next, and say nothing of
/// tests.
const OF_THE_MOMENT: [&str; 6] = ["OLDPWD", "PWD", "SHLVL", "TERM_SESSION_ID", "WINDOWID", "_"];

/// Files by which pytest finds where a project begins.
const BEGINNINGS: [&str; 8] = [
    ".pytest.ini",
    ".pytest.toml",
    "pyproject.toml",
    "pytest.ini",
    "pytest.toml",
    "setup.cfg",
    "setup.py",
    "tox.ini",
];

/// Directories that runs of tests change themselves.
const OF_RUNS: [&str; 5] = [
    ".git",
    ".hypothesis",
    ".maelstrom-pytest",
    ".pytest_cache",
    "__pycache__",
];

/// Names what a collection was made from. `container` is what its tests run in: their files, and
/// what they are told. To that come variables that they do not see; files beside them and above,
/// up to the root, which version control may ignore; and what could move the root. `None`: that
/// does not say which tests there are.
pub(crate) fn name(
    container: &ContainerSpec,
    interpreter: &Path,
    collection: &Collection,
) -> Option<String> {
    // It may be a program that finds the interpreter elsewhere, by whatever it looks at.
    let found = fs::canonicalize(interpreter).ok()?;
    let is_itself = fs::canonicalize(&collection.environment.executable).ok()? == found;
    if !is_itself || collection.chooses_by_results {
        return None;
    }
    let variables: BTreeMap<OsString, OsString> = std::env::vars_os()
        .filter(|(name, _)| !OF_THE_MOMENT.iter().any(|known| name == known))
        .collect();
    let mut text = format!("{container:?}{variables:?}");
    let root = &collection.root;
    let mut directories: BTreeSet<&Path> = BTreeSet::from([Path::new("")]);
    for item in &collection.items {
        let above = Path::new(file_of(&item.node_id)).ancestors().skip(1);
        for directory in above {
            if !directories.insert(directory) {
                break;
            }
        }
    }
    for directory in directories {
        describe_directory(&root.join(directory), &mut text);
    }
    for directory in root.ancestors().skip(1) {
        for name in BEGINNINGS {
            describe(&directory.join(name), &mut text);
        }
    }
    Some(blake3::hash(text.as_bytes()).to_string())
}

fn describe_directory(directory: &Path, text: &mut String) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<OsString> = entries
        .map(|entry| entry.file_name())
        .filter(|name| !OF_RUNS.iter().any(|known| name == known))
        .collect();
    names.sort_unstable();
    for name in names {
        describe(&directory.join(name), text);
    }
}

fn describe(path: &Path, text: &mut String) {
    if let Ok(status) = fs::symlink_metadata(path) {
        // That a directory was written to says that there are other files.
        let size = if status.is_dir() { 0 } else { status.size() };
        let (seconds, nanoseconds) = (status.mtime(), status.mtime_nsec());
        let _ = write!(text, "{path:?} {size} {seconds}.{nanoseconds} ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collection::{Item, PythonEnvironment};
    use std::{os::unix::fs::symlink, path::PathBuf};

    /// A collection of `tests/sub/test_a.py` below a root.
    fn collection(root: &Path, executable: &Path) -> Collection {
        let node_id = "tests/sub/test_a.py::test_a".to_owned();
        Collection {
            code: 0,
            items: vec![Item {
                name: node_id.clone(),
                node_id,
                markers: Vec::new(),
                ignored: false,
            }],
            fingerprints: BTreeMap::new(),
            unfit: BTreeMap::new(),
            functions_left_out: Vec::new(),
            environment: PythonEnvironment {
                executable: executable.to_owned(),
                ..PythonEnvironment::default()
            },
            root: root.to_owned(),
            distributes: false,
            covers: false,
            chooses_by_results: false,
            seed: None,
        }
    }

    fn write(path: PathBuf) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn what_containers_do_not_see_counts() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("above/project");
        let (python, shim) = (temp.path().join("python3.11"), temp.path().join("shim"));
        write(root.join("tests/sub/test_a.py"));
        write(python.clone());
        write(shim.clone());
        symlink(&python, temp.path().join("python")).unwrap();
        let container = ContainerSpec::default();
        let collection = collection(&root, &python);
        let python = temp.path().join("python");
        let name = || name(&container, &python, &collection).unwrap();
        let mut last = name();
        for unimportant in [
            "tests/__pycache__/test_a.pyc",
            ".pytest_cache/v/cache/lastfailed",
            "tests/.hypothesis/x",
        ] {
            write(root.join(unimportant));
            // Its directory is new, and the one above has been written to.
            last = name();
            write(root.join(unimportant).with_extension("other"));
            assert_eq!(name(), last, "{unimportant}");
        }
        for important in [
            "tests/sub/test_ignored.py",
            "tests/data.json",
            ".env",
            "other/x",
            "other/y",
            "../pytest.ini",
            "../../pyproject.toml",
        ] {
            write(root.join(important));
            assert_ne!(name(), last, "{important}");
            last = name();
        }
        assert_eq!(name(), last);
        let other = ContainerSpec {
            user: Some(7),
            ..ContainerSpec::default()
        };
        assert_ne!(super::name(&other, &python, &collection).unwrap(), last);
    }

    #[test]
    fn some_collections_have_no_name() {
        let temp = tempfile::tempdir().unwrap();
        let (python, shim) = (temp.path().join("python"), temp.path().join("shim"));
        write(python.clone());
        write(shim.clone());
        let container = ContainerSpec::default();
        let mut collection = collection(temp.path(), &python);
        assert!(name(&container, &python, &collection).is_some());
        assert_eq!(name(&container, &shim, &collection), None);
        collection.chooses_by_results = true;
        assert_eq!(name(&container, &python, &collection), None);
    }
}
