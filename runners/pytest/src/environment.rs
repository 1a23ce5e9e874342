//! The environment of a test in a project without configuration: the variables of the user that
//! are meant for tests.

use maelstrom_runner::host::{language, search_path};
use std::{collections::BTreeMap, path::Path};

/// Variables of the user that tests see.
const NAMES: [&str; 27] = [
    "ASAN_OPTIONS",
    "CI",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "COLORTERM",
    "COLUMNS",
    "CONDA_DEFAULT_ENV",
    "CONDA_PREFIX",
    "DJANGO_CONFIGURATION",
    "DJANGO_SETTINGS_MODULE",
    "FORCE_COLOR",
    "GITHUB_ACTIONS",
    "LD_LIBRARY_PATH",
    "LINES",
    "LOGNAME",
    "LSAN_OPTIONS",
    "NO_COLOR",
    "PY_COLORS",
    "SHELL",
    "SOURCE_DATE_EPOCH",
    "TERM",
    "TOX_ENV_NAME",
    "TZ",
    "UBSAN_OPTIONS",
    "UPDATE_SNAPSHOTS",
    "USER",
    "VIRTUAL_ENV",
];

/// Variables of the user that tests see, by how their names start.
const PREFIXES: [&str; 5] = ["HYPOTHESIS_", "MALLOC_", "PYTEST_", "PYTHON", "TEST_"];

/// What a test's processes see. `distribution` is the name of the directory that holds the
/// project, whose variables are meant for its tests, too.
pub(crate) fn variables(
    user: &BTreeMap<String, String>,
    home: &Path,
    distribution: &str,
    hash_seed: String,
) -> BTreeMap<String, String> {
    let own = format!(
        "{}_",
        distribution
            .to_ascii_uppercase()
            .replace(|c: char| !c.is_ascii_alphanumeric(), "_")
    );
    let passes = |name: &str| {
        NAMES.binary_search(&name).is_ok()
            || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || (own.len() > 1 && name.starts_with(&own))
    };
    let mut variables: BTreeMap<String, String> = user
        .iter()
        .filter(|(name, _)| passes(name) && !name.starts_with("MAELSTROM_"))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if let Some(language) = language(user) {
        variables.insert("LANG".into(), language);
    }
    let path = user.get("PATH").map_or("", String::as_str);
    variables.insert("PATH".into(), search_path(path));
    variables.insert("HOME".into(), home.to_string_lossy().into_owned());
    variables.insert("PYTHONHASHSEED".into(), hash_seed);
    variables
        .entry("PYTEST_XDIST_AUTO_NUM_WORKERS".into())
        .or_insert_with(|| "1".into());
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_for_searching() {
        assert!(NAMES.is_sorted());
    }

    #[test]
    fn only_variables_meant_for_tests_pass() {
        let user: BTreeMap<String, String> = [
            ("PYTHONPATH", "src"),
            ("PYTEST_ADDOPTS", "-q"),
            ("MY_TOOL_LOG", "debug"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("MAELSTROM_PYTEST_SLOTS", "1"),
            ("HOME", "/elsewhere"),
            ("PATH", "/venv/bin:/usr/bin"),
            ("VIRTUAL_ENV", "/venv"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let found = variables(&user, Path::new("/home/u"), "my-tool", "0".into());
        let expected: BTreeMap<String, String> = [
            ("HOME", "/home/u"),
            ("MY_TOOL_LOG", "debug"),
            (
                "PATH",
                "/venv/bin:/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin:/bin",
            ),
            ("PYTEST_ADDOPTS", "-q"),
            ("PYTEST_XDIST_AUTO_NUM_WORKERS", "1"),
            ("PYTHONHASHSEED", "0"),
            ("PYTHONPATH", "src"),
            ("VIRTUAL_ENV", "/venv"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        assert_eq!(found, expected);
    }
}
