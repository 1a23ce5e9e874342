//! The environment of a test in a module without configuration: Go's own settings, plus the
//! variables of the user that are meant for tests.

use maelstrom_runner::host;
use std::{collections::BTreeMap, path::Path};

/// Variables of the user that tests see.
const NAMES: [&str; 55] = [
    "AR",
    "ASAN_OPTIONS",
    "CC",
    "CI",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "COLORTERM",
    "COLUMNS",
    "CXX",
    "FC",
    "FORCE_COLOR",
    "GCCGO",
    "GITHUB_ACTIONS",
    "GO111MODULE",
    "GO386",
    "GOAMD64",
    "GOARCH",
    "GOARM",
    "GOARM64",
    "GOBIN",
    "GOCACHE",
    "GODEBUG",
    "GOENV",
    "GOEXPERIMENT",
    "GOFIPS140",
    "GOFLAGS",
    "GOGC",
    "GOINSECURE",
    "GOMAXPROCS",
    "GOMEMLIMIT",
    "GOMODCACHE",
    "GONOPROXY",
    "GONOSUMDB",
    "GOOS",
    "GOPATH",
    "GOPRIVATE",
    "GORACE",
    "GORISCV64",
    "GOROOT",
    "GOSUMDB",
    "GOTOOLCHAIN",
    "GOTRACEBACK",
    "GOVCS",
    "GOWORK",
    "LINES",
    "LOGNAME",
    "MSAN_OPTIONS",
    "NO_COLOR",
    "PKG_CONFIG",
    "SHELL",
    "SOURCE_DATE_EPOCH",
    "TERM",
    "TSAN_OPTIONS",
    "TZ",
    "USER",
];

/// Variables of the user that tests see, by how their names start.
const PREFIXES: [&str; 6] = ["CGO_", "GOLDEN_", "GO_TEST_", "RAPID_", "TEST_", "UPDATE_"];

/// The part that all tests of a project share. `modules` are the paths of its modules.
pub(crate) fn shared(
    user: &BTreeMap<String, String>,
    goroot: &Path,
    home: &Path,
    modules: &[&str],
) -> BTreeMap<String, String> {
    let own: Vec<String> = modules
        .iter()
        .filter_map(|module| module.rsplit('/').find(|element| !is_version(element)))
        .map(|name| format!("{}_", name.to_ascii_uppercase().replace(['-', '.'], "_")))
        .filter(|prefix| prefix.len() > 3)
        .collect();
    let passes = |name: &str| {
        NAMES.binary_search(&name).is_ok()
            || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || own.iter().any(|prefix| name.starts_with(prefix))
    };
    let mut variables: BTreeMap<String, String> = user
        .iter()
        .filter(|(name, _)| passes(name) && !name.starts_with("MAELSTROM_"))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if let Some(language) = host::language(user) {
        variables.insert("LANG".into(), language);
    }
    // As `go test` does.
    let bin = goroot.join("bin");
    let path = user.get("PATH").map_or("", String::as_str);
    variables.insert(
        "PATH".into(),
        host::search_path(&format!("{}:{path}", bin.display())),
    );
    variables.insert("HOME".into(), home.to_string_lossy().into_owned());
    variables
}

fn is_version(element: &str) -> bool {
    let digits = element.strip_prefix('v').unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted() {
        assert!(NAMES.is_sorted());
    }

    #[test]
    fn what_is_meant_for_tests_passes_and_nothing_else() {
        let user = [
            ("GOFLAGS", "-mod=vendor"),
            ("GOOGLE_APPLICATION_CREDENTIALS", "secret"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("COBRA_DEBUG", "1"),
            ("TEST_X", "1"),
            ("MAELSTROM_GO_TEST_SHORT", "1"),
            ("PATH", "/opt/x:/usr/bin"),
            ("LANG", "de_DE.UTF-8"),
        ];
        let user = user
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let variables = shared(
            &user,
            Path::new("/go"),
            Path::new("/home/ada"),
            &["github.com/spf13/cobra/v2"],
        );
        let names: Vec<_> = variables.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["COBRA_DEBUG", "GOFLAGS", "HOME", "LANG", "PATH", "TEST_X"]
        );
        assert!(variables["PATH"].starts_with("/go/bin:/opt/x:/usr/bin:"));
    }
}
