//! Which of this machine's directories make up the interpreter and the environment that
//! `maelstrom-pytest` was started in.

use crate::{collection::PythonEnvironment, tree::Trees};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Prefixes that an interpreter shares with everything else on the machine.
const SYSTEM_PREFIXES: [&str; 3] = ["/", "/usr", "/usr/local"];

/// What containers are made of besides the project.
#[derive(Clone, Debug, Default)]
pub(crate) struct PythonTrees {
    /// The interpreter and its standard library. Hardly ever changes.
    pub(crate) interpreter: Trees,
    /// Installed packages, and the virtual environment.
    pub(crate) environment: Trees,
    /// Examples that have failed under hypothesis: may change with every run.
    pub(crate) examples: Trees,
    /// Directories elsewhere that hold sources: editable installs and the like.
    pub(crate) sources: Vec<PathBuf>,
}

impl PythonTrees {
    /// Sorts out what an interpreter uses. `project` are the project's own directories.
    pub(crate) fn new(python: &PythonEnvironment, project: &[PathBuf]) -> PythonTrees {
        let sites: BTreeSet<PathBuf> = existing(&python.sites);
        let standard = existing(&python.standard);
        let is_virtual = python.prefix != python.base_prefix;
        let mut without: BTreeSet<PathBuf> =
            sites.iter().chain(&python.base_sites).cloned().collect();
        for library in &standard {
            without.extend(of_no_use(library));
        }
        without.insert(python.base_prefix.join("include"));
        let mut interpreter = Trees {
            roots: standard,
            without,
            programs: [&python.executable, &python.base_executable]
                .into_iter()
                .filter(|path| path.is_absolute() && path.exists())
                .cloned()
                .collect(),
        };
        if is_own_prefix(&python.base_prefix) {
            interpreter.roots.insert(python.base_prefix.clone());
        }
        let mut environment = Trees {
            roots: sites,
            without: project.iter().cloned().collect(),
            programs: BTreeSet::new(),
        };
        if is_virtual && is_own_prefix(&python.prefix) {
            environment.roots.insert(python.prefix.clone());
        }
        environment.roots.extend(existing(&python.tables));
        let examples = Trees {
            roots: existing(&python.examples),
            ..Trees::default()
        };
        let mut sources: Vec<PathBuf> = Vec::new();
        let mut candidates: Vec<&PathBuf> = python.path.iter().chain(&python.trees).collect();
        // Parents first, so that what lies below them is known to be there.
        candidates.sort();
        for path in candidates.into_iter().chain(&python.files) {
            let known = |roots: &BTreeSet<PathBuf>| roots.iter().any(|root| path.starts_with(root));
            if known(&interpreter.roots)
                || known(&environment.roots)
                || project
                    .iter()
                    .chain(&sources)
                    .any(|root| path.starts_with(root))
            {
                continue;
            }
            if path.is_dir()
                && !SYSTEM_PREFIXES
                    .iter()
                    .any(|system| path == Path::new(system))
            {
                sources.push(path.clone());
            } else if path.is_file() {
                environment.roots.insert(path.clone());
            }
        }
        PythonTrees {
            interpreter,
            environment,
            examples,
            sources,
        }
    }

    /// Everything that is in the container at its own path.
    pub(crate) fn inside(&self) -> impl Iterator<Item = &Path> + Clone {
        let programs = self.interpreter.programs.iter();
        self.interpreter
            .roots
            .iter()
            .chain(&self.environment.roots)
            .chain(&self.examples.roots)
            .chain(programs)
            .chain(&self.sources)
            .map(PathBuf::as_path)
    }
}

fn existing(paths: &[PathBuf]) -> BTreeSet<PathBuf> {
    paths.iter().filter(|path| path.is_dir()).cloned().collect()
}

/// Parts of the standard library that are only for those who work on Python itself, and large.
fn of_no_use(library: &Path) -> Vec<PathBuf> {
    let mut found = vec![library.join("idlelib"), library.join("turtledemo")];
    let children = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    for entry in children(library) {
        // What it takes to link programs with Python.
        if entry.file_name().to_string_lossy().starts_with("config-") {
            found.push(entry.path());
        }
    }
    for entry in children(&library.join("test")) {
        // Tests of other projects use these.
        let name = entry.file_name();
        if name != "__init__.py"
            && name != "support"
            && !name.to_string_lossy().ends_with("_helper.py")
        {
            found.push(entry.path());
        }
    }
    found
}

/// Whether a prefix holds one installation of Python and nothing else.
fn is_own_prefix(prefix: &Path) -> bool {
    prefix.is_absolute()
        && !SYSTEM_PREFIXES
            .iter()
            .any(|system| prefix == Path::new(system))
        && prefix.join("bin").is_dir()
}

/// Directories close below `root` that are virtual environments.
pub(crate) fn virtual_environments(root: &Path) -> Vec<PathBuf> {
    let children = |directory: &Path| -> Vec<PathBuf> {
        fs::read_dir(directory)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect()
    };
    let first = children(root);
    // `.tox/py312`, `.nox/tests`, `venvs/a`.
    let second: Vec<PathBuf> = first.iter().flat_map(|path| children(path)).collect();
    first
        .into_iter()
        .chain(second)
        .filter(|path| path.join("pyvenv.cfg").is_file())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(path: PathBuf) -> PathBuf {
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn each_path_belongs_to_one_part() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        let base = at("python");
        let stdlib = directory(base.join("lib/python3.11"));
        directory(base.join("bin"));
        let venv = at("project/.venv");
        directory(venv.join("bin"));
        let site = directory(venv.join("lib/python3.11/site-packages"));
        let project = directory(at("project"));
        fs::write(venv.join("pyvenv.cfg"), "").unwrap();
        let editable = directory(at("elsewhere/src"));
        directory(editable.join("package"));
        fs::write(at("lone.py"), "").unwrap();
        let python = PythonEnvironment {
            prefix: venv.clone(),
            base_prefix: base.clone(),
            standard: vec![stdlib.clone()],
            sites: vec![site.clone(), at("gone")],
            path: vec![
                project.clone(),
                stdlib,
                site.clone(),
                editable.clone(),
                at("x.zip"),
            ],
            trees: vec![
                editable.join("package"),
                site.join("attr"),
                project.join("tests"),
            ],
            files: vec![at("lone.py"), project.join("conftest.py")],
            ..PythonEnvironment::default()
        };
        let trees = PythonTrees::new(&python, std::slice::from_ref(&project));
        assert!(trees.interpreter.roots.contains(&base));
        assert_eq!(
            trees.environment.roots,
            [venv.clone(), site, at("lone.py")].into()
        );
        assert_eq!(trees.sources, [editable]);
        assert_eq!(virtual_environments(&project), [venv]);
    }

    #[test]
    fn a_system_prefix_is_not_taken_as_a_whole() {
        assert!(!is_own_prefix(Path::new("/usr")));
        assert!(!is_own_prefix(Path::new("/")));
        assert!(!is_own_prefix(Path::new("relative")));
    }
}
