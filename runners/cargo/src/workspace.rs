//! What `cargo metadata` says of the workspace.

use crate::options::CargoOptions;
use anyhow::{Context as _, Result, bail};
use cargo_metadata::{Metadata, Package, Target, TargetKind};
use maelstrom_runner::{filter::TargetKind as Kind, runner::Tools};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use toml::Value;

/// The workspace that is tested.
pub(crate) struct Workspace {
    pub(crate) metadata: Metadata,
}

impl Workspace {
    /// Asks Cargo, without resolving dependencies.
    pub(crate) fn load(options: &CargoOptions, tools: &Tools) -> Result<Workspace> {
        let mut command = Command::new(cargo());
        command.args(["metadata", "--no-deps", "--format-version=1"]);
        command.args(options.feature_arguments());
        command.args(options.manifest_arguments());
        Ok(Workspace {
            metadata: run_metadata(command, tools)?,
        })
    }

    pub(crate) fn root(&self) -> &Path {
        self.metadata.workspace_root.as_std_path()
    }

    /// Cargo's target directory by its configuration; `--target-dir` does not change it.
    pub(crate) fn target_dir(&self) -> &Path {
        self.metadata.target_directory.as_std_path()
    }

    /// The members, in Cargo's order.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.metadata
            .packages
            .iter()
            .filter(|package| self.metadata.workspace_members.contains(&package.id))
    }

    /// The members that `--package` and `--exclude NAME` leave.
    pub(crate) fn select(&self, include: &[String], exclude: &[String]) -> Result<Vec<&Package>> {
        for spec in include.iter().chain(exclude) {
            if !self.members().any(|package| spec_matches(spec, package)) {
                let mut names: Vec<_> = self
                    .members()
                    .map(|package| package.name.as_str())
                    .collect();
                names.sort_unstable();
                bail!(
                    "no package of the workspace {} matches `{spec}`; its packages are: {}",
                    self.root().display(),
                    names.join(", ")
                );
            }
        }
        Ok(self
            .members()
            .filter(|package| {
                include.is_empty() || include.iter().any(|spec| spec_matches(spec, package))
            })
            .filter(|package| !exclude.iter().any(|spec| spec_matches(spec, package)))
            .collect())
    }

    /// `package` and the members that it depends on, directly or not, for building or for tests.
    pub(crate) fn closure<'a>(&'a self, package: &'a Package) -> Vec<&'a Package> {
        let mut closure = vec![package];
        let mut next = 0;
        while next < closure.len() {
            let paths: BTreeSet<_> = closure[next]
                .dependencies
                .iter()
                .filter_map(|dependency| dependency.path.as_deref())
                .collect();
            for member in self.members() {
                let directory = member.manifest_path.parent();
                let wanted = directory.is_some_and(|directory| paths.contains(directory));
                if wanted && !closure.iter().any(|package| package.id == member.id) {
                    closure.push(member);
                }
            }
            next += 1;
        }
        closure
    }

    /// Directories outside of the workspace's root that hold members or path dependencies of
    /// members, directly or not.
    pub(crate) fn outside_directories(&self, tools: &Tools) -> BTreeSet<PathBuf> {
        let root = self.root().to_owned();
        let mut found = BTreeSet::new();
        let mut queue: Vec<PathBuf> = Vec::new();
        let mut visit = |package: &Package, queue: &mut Vec<PathBuf>| {
            let own = package
                .manifest_path
                .parent()
                .map(|path| path.as_std_path().to_owned());
            let dependencies = package
                .dependencies
                .iter()
                .filter_map(|dependency| dependency.path.as_ref());
            for directory in own
                .into_iter()
                .chain(dependencies.map(|path| path.as_std_path().to_owned()))
            {
                if !directory.starts_with(&root) && found.insert(directory.clone()) {
                    queue.push(directory);
                }
            }
        };
        for member in self.members() {
            visit(member, &mut queue);
        }
        while let Some(directory) = queue.pop() {
            let manifest = directory.join("Cargo.toml");
            let mut command = Command::new(cargo());
            command
                .args([
                    "metadata",
                    "--no-deps",
                    "--offline",
                    "--format-version=1",
                    "--manifest-path",
                ])
                .arg(&manifest);
            // A dependency that Cargo cannot read fails the build with a better message than ours.
            if let Ok(metadata) = run_metadata(command, tools)
                && let Some(package) = metadata
                    .packages
                    .iter()
                    .find(|package| package.manifest_path == manifest)
            {
                visit(package, &mut queue);
            }
        }
        found
    }
}

/// The Cargo that started us, else the one in the path.
pub(crate) fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

fn run_metadata(mut command: Command, tools: &Tools) -> Result<Metadata> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let tool = tools.spawn(&mut command).with_context(|| {
        format!(
            "could not start `{}`; is Cargo installed?",
            command.get_program().display()
        )
    })?;
    let output = tool
        .output()
        .context("reading the output of `cargo metadata`")?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        let message = message.trim_end();
        bail!("{}", message.strip_prefix("error: ").unwrap_or(message));
    }
    serde_json::from_slice(&output.stdout)
        .context("`cargo metadata` printed something that is not its usual description")
}

/// Whether one of Cargo's package specifications (a name, possibly with `@VERSION` and wildcards,
/// or a package id) names this package.
fn spec_matches(spec: &str, package: &Package) -> bool {
    if spec == package.id.repr {
        return true;
    }
    let (name, version) = match spec.split_once('@').or_else(|| spec.split_once(':')) {
        Some((name, version)) => (name, Some(version)),
        None => (spec, None),
    };
    let name_matches = match globset::GlobBuilder::new(name).build() {
        Ok(glob) if name.contains(['*', '?', '[']) => {
            glob.compile_matcher().is_match(package.name.as_str())
        }
        _ => name == package.name.as_str(),
    };
    let own = package.version.to_string();
    let version_matches = version.is_none_or(|version| {
        own == version
            || own
                .strip_prefix(version)
                .is_some_and(|rest| rest.starts_with('.'))
    });
    name_matches && version_matches
}

/// The kind of a target in the filter language; `None` for build scripts, which are never tested.
pub(crate) fn kind_of(target: &Target) -> Option<Kind> {
    Some(match target.kind.first()? {
        TargetKind::Bin => Kind::Binary,
        TargetKind::Test => Kind::Test,
        TargetKind::Bench => Kind::Benchmark,
        TargetKind::Example => Kind::Example,
        TargetKind::CustomBuild => return None,
        _ => Kind::Library,
    })
}

/// Whether a target makes something that a test may look for in the target directory.
pub(crate) fn is_looked_for(target: &Target) -> bool {
    target.kind.iter().any(|kind| {
        matches!(
            kind,
            TargetKind::Bin | TargetKind::Example | TargetKind::CDyLib | TargetKind::DyLib
        )
    })
}

/// The directory of a package's manifest.
pub(crate) fn directory(package: &Package) -> &Path {
    package
        .manifest_path
        .parent()
        .map_or(Path::new("/"), |path| path.as_std_path())
}

/// The targets of a package that bring their own harness, or none, by kind and name. `--list` may
/// mean nothing to them.
pub(crate) fn targets_without_harness(package: &Package) -> BTreeSet<(Kind, String)> {
    // Cargo read the file already: what is wrong with it has been said.
    let manifest: toml::Table = fs::read_to_string(&package.manifest_path)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_default();
    let tables = [
        ("lib", Kind::Library),
        ("bin", Kind::Binary),
        ("test", Kind::Test),
        ("bench", Kind::Benchmark),
        ("example", Kind::Example),
    ];
    let mut found = BTreeSet::new();
    for (key, kind) in tables {
        let entries = match manifest.get(key) {
            Some(Value::Array(entries)) => entries.as_slice(),
            Some(table) => std::slice::from_ref(table),
            None => &[],
        };
        for entry in entries {
            if entry.get("harness").and_then(Value::as_bool) == Some(false) {
                let name = entry.get("name").and_then(Value::as_str);
                let default = package.name.replace('-', "_");
                found.insert((kind, name.map_or(default, str::to_owned)));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace on disk.
    fn workspace(files: &[(&str, &str)]) -> (tempfile::TempDir, Workspace) {
        let temp = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = temp.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let options = CargoOptions {
            manifest_path: Some(temp.path().join("w/Cargo.toml")),
            ..CargoOptions::default()
        };
        let workspace = Workspace::load(&options, &Tools::default()).unwrap();
        (temp, workspace)
    }

    const PACKAGES: [(&str, &str); 9] = [
        (
            "w/Cargo.toml",
            "[workspace]\nmembers = ['a', 'b', 'c']\nexclude = ['../out']\nresolver = '2'\n",
        ),
        (
            "w/a/Cargo.toml",
            "[package]\nname = 'a-1'\nversion = '1.2.3'\n[dev-dependencies]\nb-2 = { path = '../b' }\n[[test]]\nname = 'own'\nharness = false\n[[test]]\nname = 'usual'\n[lib]\nharness = false\n",
        ),
        ("w/a/src/lib.rs", ""),
        ("w/a/tests/own.rs", "fn main() {}"),
        ("w/a/tests/usual.rs", ""),
        (
            "w/b/Cargo.toml",
            "[package]\nname = 'b-2'\nversion = '0.1.0'\n[dependencies]\nout = { path = '../../out' }\n",
        ),
        ("w/b/src/lib.rs", ""),
        (
            "w/c/Cargo.toml",
            "[package]\nname = 'c'\nversion = '0.1.0'\n",
        ),
        ("w/c/src/main.rs", "fn main() {}"),
    ];
    const OUTSIDE: [(&str, &str); 4] = [
        (
            "out/Cargo.toml",
            "[package]\nname = 'out'\nversion = '0.1.0'\n[dependencies]\nfar = { path = '../far' }\n[workspace]\n",
        ),
        ("out/src/lib.rs", ""),
        (
            "far/Cargo.toml",
            "[package]\nname = 'far'\nversion = '0.1.0'\n[workspace]\n",
        ),
        ("far/src/lib.rs", ""),
    ];

    fn names(packages: &[&Package]) -> Vec<String> {
        packages
            .iter()
            .map(|package| package.name.to_string())
            .collect()
    }

    #[test]
    fn packages_are_chosen_as_in_cargo() {
        let (_temp, workspace) = workspace(&[&PACKAGES[..], &OUTSIDE[..]].concat());
        let select = |include: &[&str], exclude: &[&str]| {
            let owned = |specs: &[&str]| {
                specs
                    .iter()
                    .map(|&spec| spec.to_owned())
                    .collect::<Vec<_>>()
            };
            workspace
                .select(&owned(include), &owned(exclude))
                .map(|packages| names(&packages))
        };
        assert_eq!(select(&[], &[]).unwrap(), ["a-1", "b-2", "c"]);
        assert_eq!(select(&["a-1@1.2.3", "c"], &[]).unwrap(), ["a-1", "c"]);
        assert_eq!(select(&["a-1@1.2"], &[]).unwrap(), ["a-1"]);
        assert_eq!(select(&["?-*"], &["b-2"]).unwrap(), ["a-1"]);
        let message = select(&["a-1@1.3"], &[]).unwrap_err().to_string();
        assert!(
            message.contains("`a-1@1.3`") && message.contains("a-1, b-2, c"),
            "{message}"
        );
        assert!(select(&[], &["nobody"]).is_err());
    }

    #[test]
    fn dependencies_by_path_are_followed() {
        let (temp, workspace) = workspace(&[&PACKAGES[..], &OUTSIDE[..]].concat());
        let a = workspace.members().next().unwrap();
        assert_eq!(names(&workspace.closure(a)), ["a-1", "b-2"]);
        let root = temp.path().canonicalize().unwrap();
        let outside = workspace.outside_directories(&Tools::default());
        assert_eq!(
            outside.into_iter().collect::<Vec<_>>(),
            [root.join("far"), root.join("out")]
        );
    }

    #[test]
    fn harnesses_are_read_from_the_manifest() {
        let (_temp, workspace) = workspace(&[&PACKAGES[..], &OUTSIDE[..]].concat());
        let found: Vec<_> = workspace.members().map(targets_without_harness).collect();
        assert_eq!(
            found[0],
            BTreeSet::from([
                (Kind::Library, "a_1".to_owned()),
                (Kind::Test, "own".to_owned())
            ])
        );
        assert!(found[1].is_empty() && found[2].is_empty());
    }

    #[test]
    fn what_cargo_says_is_passed_on() {
        let temp = tempfile::tempdir().unwrap();
        let options = CargoOptions {
            manifest_path: Some(temp.path().join("Cargo.toml")),
            ..CargoOptions::default()
        };
        let message = Workspace::load(&options, &Tools::default())
            .err()
            .unwrap()
            .to_string();
        assert!(
            message.contains("Cargo.toml") && !message.starts_with("error"),
            "{message}"
        );
    }
}
