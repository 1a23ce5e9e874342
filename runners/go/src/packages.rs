//! What the `go` command says of the module and its packages.

use anyhow::{Context as _, Result, bail};
use maelstrom_runner::{filter::GoFacts, runner::Tools};
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Go's own settings, as `go env` tells them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE", default)]
pub(crate) struct GoEnv {
    /// Such as `go1.26.1`.
    pub(crate) goversion: String,
    /// Where the toolchain is.
    pub(crate) goroot: PathBuf,
    /// Where downloaded modules are.
    pub(crate) gomodcache: PathBuf,
    /// What is compiled already.
    pub(crate) gocache: PathBuf,
    /// Flags for all commands.
    pub(crate) goflags: String,
    /// The workspace file, if there is one; empty or `off` if not.
    pub(crate) gowork: String,
}

/// A package of the project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Package {
    /// Import path.
    pub(crate) import_path: String,
    /// The name that it declares.
    pub(crate) name: String,
    /// Its directory.
    pub(crate) directory: PathBuf,
    /// The same relative to its module's root; empty for the root itself.
    pub(crate) path: String,
    /// Whether it has files of tests.
    pub(crate) has_tests: bool,
}

/// What `go list -json` says of a package.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Listed {
    dir: PathBuf,
    import_path: String,
    name: String,
    test_go_files: Vec<String>,
    #[serde(rename = "XTestGoFiles")]
    external_test_go_files: Vec<String>,
    module: Option<ListedModule>,
    error: Option<serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ListedModule {
    dir: PathBuf,
    main: bool,
}

impl GoEnv {
    /// Asks `go` in `directory`.
    ///
    /// # Errors
    /// There is no `go`, or it fails.
    pub(crate) fn read(directory: &Path, tools: &Tools) -> Result<GoEnv> {
        let mut command = go(directory);
        command.args([
            "env",
            "-json",
            "GOVERSION",
            "GOROOT",
            "GOMODCACHE",
            "GOCACHE",
            "GOFLAGS",
            "GOWORK",
        ]);
        let output = output(&mut command, tools)?;
        serde_json::from_slice(&output).context("reading what `go env` says")
    }

    /// Whether there is a workspace of several modules.
    pub(crate) fn has_workspace(&self) -> bool {
        !matches!(self.gowork.as_str(), "" | "off")
    }

    /// The minor version: 26 of `go1.26.1`.
    pub(crate) fn minor_version(&self) -> Option<u32> {
        let rest = self.goversion.strip_prefix("go1.")?;
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        rest[..end].parse().ok()
    }
}

/// The `go` command, started in a directory.
pub(crate) fn go(directory: &Path) -> Command {
    let mut command = Command::new("go");
    command.current_dir(directory).env("PWD", directory);
    command
}

/// Directories of all modules that are developed together: those of the workspace, or the one
/// module.
pub(crate) fn main_modules(root: &Path, env: &GoEnv, tools: &Tools) -> Result<Vec<PathBuf>> {
    if !env.has_workspace() {
        return Ok(vec![root.to_owned()]);
    }
    let mut command = go(root);
    command.args(["list", "-m", "-f", "{{.Dir}}"]);
    let output = output(&mut command, tools)?;
    let listed = String::from_utf8_lossy(&output);
    let mut modules: Vec<PathBuf> = listed
        .lines()
        .filter(|line| !line.is_empty())
        .map(PathBuf::from)
        .collect();
    if !modules.iter().any(|module| module == root) {
        modules.push(root.to_owned());
    }
    Ok(modules)
}

/// The packages that `patterns` match, sorted by import path. Errors in packages are left for the
/// build to report.
///
/// # Errors
/// What `go list` complains of.
pub(crate) fn list(
    directory: &Path,
    build_flags: &[String],
    patterns: &[String],
    tools: &Tools,
) -> Result<Vec<Package>> {
    let mut command = go(directory);
    command.args([
        "list",
        "-e",
        "-find",
        "-json=Dir,ImportPath,Name,TestGoFiles,XTestGoFiles,Module,Error",
    ]);
    command.args(listing_flags(build_flags)).arg("--");
    command.args(patterns);
    let output = output(&mut command, tools)?;
    let mut packages = Vec::new();
    for listed in serde_json::Deserializer::from_slice(&output).into_iter::<Listed>() {
        let listed = listed.context("reading what `go list` says")?;
        if listed.import_path == "command-line-arguments" {
            bail!(
                "test files as arguments are not supported: name their package, such as `./...` or `.`, and choose tests with -run"
            );
        }
        packages.push(package(listed)?);
    }
    packages.sort_by(|a, b| a.import_path.cmp(&b.import_path));
    packages.dedup_by(|a, b| a.import_path == b.import_path);
    Ok(packages)
}

fn package(listed: Listed) -> Result<Package> {
    let module = listed.module.unwrap_or_default();
    // A package that does not exist has neither.
    if !module.main && !listed.dir.as_os_str().is_empty() {
        bail!(
            "the package {} is not in the main module: only packages of the module, or of its workspace, can be tested",
            listed.import_path
        );
    }
    let path = listed
        .dir
        .strip_prefix(&module.dir)
        .unwrap_or(Path::new(""));
    let has_files = !listed.test_go_files.is_empty() || !listed.external_test_go_files.is_empty();
    Ok(Package {
        path: path.to_string_lossy().into_owned(),
        // What is wrong with a package is said when it is to be built.
        has_tests: has_files || listed.error.is_some(),
        import_path: listed.import_path,
        name: listed.name,
        directory: listed.dir,
    })
}

/// Those of the build's flags on which it depends which files a package has.
pub(crate) fn listing_flags(build_flags: &[String]) -> impl Iterator<Item = &String> {
    const NAMES: [&str; 8] = [
        "-asan",
        "-compiler",
        "-mod",
        "-modfile",
        "-msan",
        "-overlay",
        "-race",
        "-tags",
    ];
    build_flags.iter().filter(|flag| {
        let name = flag.split('=').next().unwrap_or_default();
        NAMES.contains(&name)
    })
}

/// The standard output of a command that succeeds.
pub(crate) fn output(command: &mut Command, tools: &Tools) -> Result<Vec<u8>> {
    let shown = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let tool = tools.spawn(command).with_context(|| {
        format!("could not start `{shown}`; is Go installed, and `go` in PATH?")
    })?;
    let output = tool
        .output()
        .with_context(|| format!("reading the output of `{shown}`"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{shown}` ended with {}\n{}",
            output.status,
            stderr.trim_end()
        );
    }
    Ok(output.stdout)
}

impl Package {
    /// What patterns can ask of it.
    pub(crate) fn facts(&self) -> GoFacts<'_> {
        GoFacts {
            import_path: Some(&self.import_path),
            path: Some(&self.path),
            package_name: Some(&self.name),
            case: None,
        }
    }

    /// What Go calls its test binary.
    pub(crate) fn binary_name(&self) -> String {
        format!("{}.test", short_name(&self.import_path))
    }
}

/// The last element of an import path that is no version.
fn short_name(import_path: &str) -> &str {
    let (rest, last) = match import_path.rsplit_once('/') {
        Some((rest, last)) => (rest, last),
        None => return import_path,
    };
    if is_version(last) {
        rest.rsplit('/').next().unwrap_or(rest)
    } else {
        last
    }
}

/// Whether an element of a path is a major version: `v2` and above.
fn is_version(element: &str) -> bool {
    let Some(digits) = element.strip_prefix('v') else {
        return false;
    };
    !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0')
        && digits != "1"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binaries_are_called_as_go_calls_them() {
        for (path, name) in [
            ("example.com/a/b", "b"),
            ("example.com/a/v2", "a"),
            ("example.com/a/v1", "v1"),
            ("example.com/a/v0", "v0"),
            ("example.com/a/v22/x", "x"),
            ("example.com/a/vx", "vx"),
            ("example.com/a/v", "v"),
            ("single", "single"),
        ] {
            assert_eq!(short_name(path), name, "{path}");
        }
    }

    #[test]
    fn versions() {
        let minor = |text: &str| {
            GoEnv {
                goversion: text.into(),
                ..GoEnv::default()
            }
            .minor_version()
        };
        assert_eq!(minor("go1.26.1"), Some(26));
        assert_eq!(minor("go1.27rc1"), Some(27));
        assert_eq!(minor("devel +abc"), None);
    }

    #[test]
    fn listings_are_read() {
        let listed: Listed = serde_json::from_str(
            r#"{"Dir": "/m/a", "ImportPath": "ex.com/m/a", "Name": "a", "XTestGoFiles": ["x_test.go"],
                "Module": {"Path": "ex.com/m", "Main": true, "Dir": "/m"}, "Standard": false}"#,
        )
        .unwrap();
        let package = package(listed).unwrap();
        assert!(package.has_tests);
        assert_eq!(package.path, "a");
        let broken: Listed = serde_json::from_str(
            r#"{"ImportPath": "./nowhere", "Error": {"Err": "no such directory"}}"#,
        )
        .unwrap();
        assert!(super::package(broken).unwrap().has_tests);
        let standard: Listed =
            serde_json::from_str(r#"{"Dir": "/go/src/fmt", "ImportPath": "fmt"}"#).unwrap();
        let message = super::package(standard).unwrap_err().to_string();
        assert!(
            message.contains("fmt is not in the main module"),
            "{message}"
        );
    }

    #[test]
    fn only_some_flags_matter_for_listing() {
        let flags = [
            "-tags=x",
            "-race",
            "-ldflags=-s",
            "-mod=vendor",
            "-trimpath",
        ];
        let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
        let kept: Vec<_> = listing_flags(&flags).collect();
        assert_eq!(kept, ["-tags=x", "-race", "-mod=vendor"]);
    }
}
