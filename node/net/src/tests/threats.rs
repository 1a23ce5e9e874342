//! The tables of `docs/SECURITY.md` name tests that exist.

use std::fs;
use std::path::Path;

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = fs::read_to_string(root.join("docs/SECURITY.md")).unwrap();
    let mut named = 0;
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let shown_by = line.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        for (place, test) in shown_by.split('`').filter_map(|name| name.split_once(": ")) {
            named += 1;
            let is_there = holds(&root.join(place), &format!("fn {test}("));
            assert!(is_there, "no test {test} in {place}:\n{line}");
        }
    }
    assert!(named > 50, "{named} are named");
}

/// Whether a Rust file under a directory has this text.
fn holds(directory: &Path, text: &str) -> bool {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    entries.map(|entry| entry.unwrap()).any(|entry| {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            path.file_name().is_some_and(|name| name != "target") && holds(&path, text)
        } else {
            path.extension().is_some_and(|extension| extension == "rs")
                && fs::read_to_string(&path).is_ok_and(|content| content.contains(text))
        }
    })
}
