//! The parts of a test's environment that are alike in all languages.

use std::collections::BTreeMap;

/// Where programs are looked for after the user's own path.
const STANDARD_PATH: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// What `LANG` is in the container, which holds no locales but the two that the C library brings
/// with it. `None`: the user has none.
pub fn language(user: &BTreeMap<String, String>) -> Option<String> {
    let chosen = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| user.get(*name).filter(|value| !value.is_empty()))?;
    let lower = chosen.to_ascii_lowercase();
    let unicode = lower.ends_with("utf-8") || lower.ends_with("utf8");
    Some(if unicode { "C.UTF-8" } else { "C" }.to_owned())
}

/// The user's directories of programs, so that an added program is found where it lies, and then
/// the standard ones.
pub fn search_path(user: &str) -> String {
    let mut directories: Vec<&str> = Vec::new();
    for directory in user
        .split(':')
        .filter(|directory| directory.starts_with('/'))
        .chain(STANDARD_PATH)
    {
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    directories.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn languages_become_those_that_need_no_files() {
        for (variables, expected) in [
            (map(&[]), None),
            (map(&[("LANG", "en_US.UTF-8")]), Some("C.UTF-8")),
            (map(&[("LANG", "C.utf8")]), Some("C.UTF-8")),
            (map(&[("LANG", "en_US.UTF-8"), ("LC_ALL", "C")]), Some("C")),
            (map(&[("LANG", "de_DE@euro"), ("LC_ALL", "")]), Some("C")),
        ] {
            assert_eq!(language(&variables).as_deref(), expected, "{variables:?}");
        }
    }
}
