//! What Cargo reports while it builds, as far as tests may see it.

use crate::{
    cargo_test::BuiltFiles,
    workspace::{Workspace, is_looked_for},
};
use cargo_metadata::{Artifact, BuildScript, PackageId, TargetKind};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// What Cargo reported so far.
#[derive(Default)]
pub(crate) struct Built {
    /// The programs of each package, by name.
    pub(crate) binaries: BTreeMap<PackageId, Vec<(String, PathBuf)>>,
    /// Everything that tests may look for.
    files: BTreeSet<PathBuf>,
    /// The build scripts of the workspace's packages.
    pub(crate) scripts: BTreeMap<PackageId, BuildScript>,
    /// Directories in which build scripts leave shared libraries.
    native: BTreeSet<PathBuf>,
}

impl Built {
    /// Takes note of a build script that ran.
    pub(crate) fn note_script(&mut self, script: BuildScript, is_member: bool) {
        self.native.extend(script.linked_paths.iter().map(|path| {
            let path = path.as_str();
            PathBuf::from(path.split_once('=').map_or(path, |(_, path)| path))
        }));
        if is_member {
            self.scripts.insert(script.package_id.clone(), script);
        }
    }

    /// Takes note of a program or library of the workspace.
    pub(crate) fn note_artifact(&mut self, artifact: &Artifact) {
        if let Some(executable) = &artifact.executable {
            let path = executable.as_std_path().to_owned();
            if artifact.target.kind.contains(&TargetKind::Bin) {
                let programs = self
                    .binaries
                    .entry(artifact.package_id.clone())
                    .or_default();
                programs.push((artifact.target.name.clone(), path.clone()));
            }
            if is_looked_for(&artifact.target) {
                self.files.insert(path);
            }
        }
        if !artifact.target.kind.contains(&TargetKind::ProcMacro) {
            let files = artifact.filenames.iter().map(|path| path.as_std_path());
            let libraries = files.filter(|path| path.extension() == Some("so".as_ref()));
            self.files.extend(libraries.map(Path::to_owned));
        }
    }

    /// The directories of shared libraries that a build script left below one of `roots`: those
    /// that Cargo puts into the library path.
    pub(crate) fn native_directories(&self, roots: [&Path; 2]) -> impl Iterator<Item = &PathBuf> {
        self.native
            .iter()
            .filter(move |directory| roots.iter().any(|root| directory.starts_with(root)))
    }

    /// What all tests see of a build that is over, given the places of those that see it.
    pub(crate) fn everything(
        &self,
        workspace: &Workspace,
        places: BTreeSet<TargetPlaces>,
    ) -> BuiltFiles {
        let scripts = self.scripts.values();
        let mut files = BuiltFiles {
            binaries: self.files.clone(),
            out_dirs: scripts
                .map(|script| script.out_dir.as_std_path().to_owned())
                .collect(),
            directories: BTreeSet::new(),
        };
        for places in places {
            files.directories.insert(places.root.join("tmp"));
            // Programs that an earlier build left are there for `cargo test`, too.
            let targets = workspace.members().flat_map(|package| &package.targets);
            let programs = targets
                .filter(|target| target.kind.contains(&TargetKind::Bin))
                .map(|target| places.profile.join(&target.name));
            files
                .binaries
                .extend(programs.filter(|path| path.is_file()));
        }
        files
    }
}

/// The directories of a build around a test binary.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TargetPlaces {
    /// Such as `target`, or `target/PLATFORM` with `--target`.
    pub(crate) root: PathBuf,
    /// Such as `target/debug`.
    pub(crate) profile: PathBuf,
}

impl TargetPlaces {
    /// Test binaries are in `deps` or `examples` of their profile's directory.
    pub(crate) fn of(binary: &Path) -> TargetPlaces {
        let profile = binary
            .parent()
            .and_then(Path::parent)
            .unwrap_or(Path::new("/"))
            .to_owned();
        let root = profile.parent().unwrap_or(Path::new("/")).to_owned();
        TargetPlaces { root, profile }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn artifact(kind: &str, name: &str, executable: Option<&str>, files: &[&str]) -> Artifact {
        serde_json::from_value(json!({
            "package_id": "p", "manifest_path": "/w/Cargo.toml",
            "target": { "kind": [kind], "crate_types": [kind], "name": name, "src_path": "/w/x.rs", "edition": "2021" },
            "profile": { "opt_level": "0", "debuginfo": 2, "debug_assertions": true, "overflow_checks": true, "test": false },
            "features": [], "filenames": files, "executable": executable, "fresh": true,
        }))
        .unwrap()
    }

    #[test]
    fn programs_examples_and_shared_libraries_are_looked_for() {
        let mut built = Built::default();
        built.note_artifact(&artifact(
            "bin",
            "tool",
            Some("/t/debug/tool"),
            &["/t/debug/tool"],
        ));
        built.note_artifact(&artifact(
            "example",
            "demo",
            Some("/t/debug/examples/demo"),
            &["/t/debug/examples/demo"],
        ));
        built.note_artifact(&artifact(
            "cdylib",
            "c",
            None,
            &["/t/debug/deps/libc.so", "/t/debug/deps/libc.rlib"],
        ));
        built.note_artifact(&artifact(
            "proc-macro",
            "m",
            None,
            &["/t/debug/deps/libm.so"],
        ));
        built.note_artifact(&artifact("lib", "l", None, &["/t/debug/deps/libl.rlib"]));
        let files: Vec<_> = built
            .files
            .iter()
            .map(|path| path.to_str().unwrap())
            .collect();
        assert_eq!(
            files,
            [
                "/t/debug/deps/libc.so",
                "/t/debug/examples/demo",
                "/t/debug/tool"
            ]
        );
        let programs: Vec<_> = built.binaries.values().flatten().collect();
        assert_eq!(
            programs,
            [&("tool".to_owned(), PathBuf::from("/t/debug/tool"))]
        );
    }

    #[test]
    fn places_follow_from_the_path_of_a_test() {
        let places = TargetPlaces::of(Path::new("/t/x86_64-unknown-linux-musl/release/deps/it-1"));
        assert_eq!(places.root, Path::new("/t/x86_64-unknown-linux-musl"));
        assert_eq!(
            places.profile,
            Path::new("/t/x86_64-unknown-linux-musl/release")
        );
    }
}
