//! The environment of a test in a project without configuration: what `cargo test` sets, plus the
//! variables of the user that are meant for tests.

use cargo_metadata::Package;
use maelstrom_runner::{
    filter::TargetKind as Kind,
    host::{language, search_path},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Variables of the user that tests see.
const NAMES: [&str; 36] = [
    "ASAN_OPTIONS",
    "BLESS",
    "CARGO_HOME",
    "CARGO_INCREMENTAL",
    "CARGO_TARGET_DIR",
    "CI",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "COLORTERM",
    "COLUMNS",
    "EXPECTORATE",
    "FORCE_COLOR",
    "GITHUB_ACTIONS",
    "LINES",
    "LOGNAME",
    "LSAN_OPTIONS",
    "MALLOC_CONF",
    "MSAN_OPTIONS",
    "NO_COLOR",
    "REGENERATE_GOLDENFILES",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "SHELL",
    "SNAPSHOTS",
    "SOURCE_DATE_EPOCH",
    "TERM",
    "TRYBUILD",
    "TRYCMD",
    "TSAN_OPTIONS",
    "TZ",
    "UBSAN_OPTIONS",
    "UPDATE_EXPECT",
    "UPDATE_GOLDENFILES",
    "USER",
];

/// Variables of the user that tests see, by how their names start.
const PREFIXES: [&str; 8] = [
    "CARGO_PROFILE_",
    "CARGO_TERM_",
    "INSTA_",
    "MALLOC_",
    "PROPTEST_",
    "QUICKCHECK_",
    "RUST_",
    "TEST_",
];

/// The part that all tests of a workspace share.
pub(crate) struct SharedEnvironment {
    variables: BTreeMap<String, String>,
    library_path: Vec<PathBuf>,
}

/// What the build said of one test binary's surroundings.
#[derive(Default)]
pub(crate) struct BuildFacts<'a> {
    /// Binaries of the package, by name.
    pub(crate) binaries: &'a [(String, PathBuf)],
    /// The directory of the package's build script, if it has one.
    pub(crate) out_dir: Option<&'a Path>,
    /// Variables set by the package's build script.
    pub(crate) script_variables: &'a [(String, String)],
    /// For integration tests and benchmarks: a directory they may write to.
    pub(crate) temporary_directory: Option<&'a Path>,
    /// Directories of shared libraries, in front of the user's own.
    pub(crate) library_path: &'a [PathBuf],
}

impl SharedEnvironment {
    /// Picks from the user's variables, and adds those of Cargo's configuration.
    pub(crate) fn new(
        user: &BTreeMap<String, String>,
        cargo_config: &BTreeMap<String, String>,
        cargo: &Path,
        home: &Path,
        package_names: &[&str],
    ) -> SharedEnvironment {
        let own_prefixes: Vec<_> = package_names
            .iter()
            .map(|name| format!("{}_", screaming(name)))
            .collect();
        let passes = |name: &str| {
            NAMES.binary_search(&name).is_ok()
                || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
                || own_prefixes.iter().any(|prefix| name.starts_with(prefix))
        };
        let mut variables: BTreeMap<String, String> = user
            .iter()
            .filter(|(name, _)| passes(name) && !name.starts_with("CARGO_MAELSTROM_"))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if let Some(language) = language(user) {
            variables.insert("LANG".into(), language);
        }
        variables.insert(
            "PATH".into(),
            search_path(user.get("PATH").map_or("", String::as_str)),
        );
        variables.insert("HOME".into(), home.to_string_lossy().into_owned());
        variables.extend(
            cargo_config
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        variables.insert("CARGO".into(), cargo.to_string_lossy().into_owned());
        let library_path = user
            .get("LD_LIBRARY_PATH")
            .map(|path| std::env::split_paths(path).collect());
        SharedEnvironment {
            variables,
            library_path: library_path.unwrap_or_default(),
        }
    }

    /// Everything that one test binary's processes see.
    pub(crate) fn of(
        &self,
        package: &Package,
        kind: Kind,
        facts: &BuildFacts<'_>,
    ) -> BTreeMap<String, String> {
        let mut variables = self.variables.clone();
        let mut set = |name: &str, value: String| variables.insert(name.to_owned(), value);
        for (name, value) in package_variables(package) {
            set(name, value);
        }
        if matches!(kind, Kind::Test | Kind::Benchmark) {
            for (name, path) in facts.binaries {
                set(
                    &format!("CARGO_BIN_EXE_{name}"),
                    path.to_string_lossy().into_owned(),
                );
            }
            if let Some(directory) = facts.temporary_directory {
                set(
                    "CARGO_TARGET_TMPDIR",
                    directory.to_string_lossy().into_owned(),
                );
            }
        }
        if let Some(directory) = facts.out_dir {
            set("OUT_DIR", directory.to_string_lossy().into_owned());
        }
        for (name, value) in facts.script_variables {
            set(name, value.clone());
        }
        let mut library_path: Vec<&PathBuf> = Vec::new();
        for directory in facts.library_path.iter().chain(&self.library_path) {
            if !library_path.contains(&directory) {
                library_path.push(directory);
            }
        }
        if let Ok(path) = std::env::join_paths(library_path)
            && !path.is_empty()
        {
            set("LD_LIBRARY_PATH", path.to_string_lossy().into_owned());
        }
        variables
    }
}

/// The variables that describe a package.
fn package_variables(package: &Package) -> Vec<(&'static str, String)> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let path = |value: &Option<camino::Utf8PathBuf>| {
        value.as_ref().map_or(String::new(), ToString::to_string)
    };
    let directory = package
        .manifest_path
        .parent()
        .map_or(String::new(), ToString::to_string);
    let version = &package.version;
    let mut variables = vec![
        ("CARGO_MANIFEST_DIR", directory),
        ("CARGO_MANIFEST_PATH", package.manifest_path.to_string()),
        ("CARGO_PKG_AUTHORS", package.authors.join(":")),
        ("CARGO_PKG_DESCRIPTION", text(&package.description)),
        ("CARGO_PKG_HOMEPAGE", text(&package.homepage)),
        ("CARGO_PKG_LICENSE", text(&package.license)),
        ("CARGO_PKG_LICENSE_FILE", path(&package.license_file)),
        ("CARGO_PKG_NAME", package.name.to_string()),
        ("CARGO_PKG_README", path(&package.readme)),
        ("CARGO_PKG_REPOSITORY", text(&package.repository)),
        (
            "CARGO_PKG_RUST_VERSION",
            package
                .rust_version
                .as_ref()
                .map_or(String::new(), ToString::to_string),
        ),
        ("CARGO_PKG_VERSION", version.to_string()),
        ("CARGO_PKG_VERSION_MAJOR", version.major.to_string()),
        ("CARGO_PKG_VERSION_MINOR", version.minor.to_string()),
        ("CARGO_PKG_VERSION_PATCH", version.patch.to_string()),
        ("CARGO_PKG_VERSION_PRE", version.pre.to_string()),
    ];
    if let Some(links) = &package.links {
        variables.push(("CARGO_MANIFEST_LINKS", links.clone()));
    }
    variables
}

/// `my-package` as it starts the names of its environment variables: `MY_PACKAGE`.
fn screaming(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    fn package() -> Package {
        serde_json::from_value(json!({
            "name": "my-package", "version": "1.2.3-rc.1", "id": "path+file:///w/p#my-package@1.2.3-rc.1",
            "dependencies": [], "targets": [], "features": {}, "manifest_path": "/w/p/Cargo.toml",
            "authors": ["A <a@x>", "B"], "license": "MIT", "readme": "README.md", "rust_version": "1.80",
            "edition": "2021", "links": "z",
        }))
        .unwrap()
    }

    #[test]
    fn names_are_sorted_for_searching() {
        assert!(NAMES.is_sorted());
    }

    #[test]
    fn only_variables_meant_for_tests_pass() {
        let user = map(&[
            ("RUST_BACKTRACE", "1"),
            ("PROPTEST_CASES", "9"),
            ("MY_PACKAGE_LOG", "debug"),
            ("MY_OTHER", "x"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("CARGO_REGISTRIES_X_TOKEN", "x"),
            ("CARGO_MAELSTROM_SLOTS", "1"),
            ("HOME", "/elsewhere"),
            ("TMPDIR", "/scratch"),
            ("PATH", "/opt/bin:relative:/usr/bin:/opt/bin"),
            ("LANG", "de_DE.UTF-8"),
            ("LC_TIME", "fr_FR.UTF-8"),
        ]);
        let config = map(&[("FROM_CONFIG", "1")]);
        let shared = SharedEnvironment::new(
            &user,
            &config,
            Path::new("/bin/cargo"),
            Path::new("/home/u"),
            &["my-package"],
        );
        let expected = map(&[
            ("CARGO", "/bin/cargo"),
            ("FROM_CONFIG", "1"),
            ("HOME", "/home/u"),
            ("LANG", "C.UTF-8"),
            ("MY_PACKAGE_LOG", "debug"),
            (
                "PATH",
                "/opt/bin:/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin:/bin",
            ),
            ("PROPTEST_CASES", "9"),
            ("RUST_BACKTRACE", "1"),
        ]);
        assert_eq!(shared.variables, expected);
    }

    #[test]
    fn integration_tests_see_binaries_and_all_see_their_package() {
        let user = map(&[("LD_LIBRARY_PATH", "/opt/lib:/t/debug")]);
        let shared = SharedEnvironment::new(
            &user,
            &BTreeMap::new(),
            Path::new("c"),
            Path::new("/h"),
            &[],
        );
        let binaries = [("tool".to_owned(), PathBuf::from("/t/debug/tool"))];
        let script = [("FROM_SCRIPT".to_owned(), "1".to_owned())];
        let library_path = [PathBuf::from("/t/debug"), PathBuf::from("/t/debug/deps")];
        let facts = BuildFacts {
            binaries: &binaries,
            out_dir: Some(Path::new("/t/out")),
            script_variables: &script,
            temporary_directory: Some(Path::new("/t/tmp")),
            library_path: &library_path,
        };
        let test = shared.of(&package(), Kind::Test, &facts);
        for (name, value) in [
            ("CARGO_BIN_EXE_tool", "/t/debug/tool"),
            ("CARGO_TARGET_TMPDIR", "/t/tmp"),
            ("OUT_DIR", "/t/out"),
            ("FROM_SCRIPT", "1"),
            ("LD_LIBRARY_PATH", "/t/debug:/t/debug/deps:/opt/lib"),
            ("CARGO_MANIFEST_DIR", "/w/p"),
            ("CARGO_PKG_AUTHORS", "A <a@x>:B"),
            ("CARGO_PKG_VERSION_PRE", "rc.1"),
            ("CARGO_PKG_HOMEPAGE", ""),
            ("CARGO_PKG_README", "README.md"),
            ("CARGO_MANIFEST_LINKS", "z"),
        ] {
            assert_eq!(test.get(name).map(String::as_str), Some(value), "{name}");
        }
        let library = shared.of(&package(), Kind::Library, &facts);
        assert!(
            !library.contains_key("CARGO_BIN_EXE_tool")
                && !library.contains_key("CARGO_TARGET_TMPDIR")
        );
        assert_eq!(library["OUT_DIR"], "/t/out");
    }
}
