//! The container `go-test`: what a test would see if `go test` ran it. It holds for every test of
//! a module without a metadata file, and directives can build on it.
//!
//! Everything in it is a copy in a content-addressed layer, from the lowest up:
//!
//! | layer | changes with |
//! |---|---|
//! | system files, devices, users, time zones | the machine |
//! | base programs and their libraries | the machine |
//! | the module's files | an edit |
//! | for tests that start `go`: the toolchain, modules, what is compiled of both | the toolchain, `go.mod` |
//! | the test binary and its libraries | a build |

use maelstrom_runner::host::ProjectPlaces;
use std::path::PathBuf;

/// The name that directives use.
pub(crate) const NAME: &str = "go-test";

/// Where the files of a project lie. What this program has `written` there itself is none of them:
/// a profile of the last run would make every test of this one another test.
pub(crate) fn project_places(modules: &[PathBuf], written: &[PathBuf]) -> ProjectPlaces {
    ProjectPlaces {
        roots: outermost(modules),
        excluded: written.to_vec(),
        manifests: vec!["go.mod"],
        ..ProjectPlaces::default()
    }
}

/// Those of `directories` that lie in no other.
fn outermost(directories: &[PathBuf]) -> Vec<PathBuf> {
    let mut sorted = directories.to_vec();
    sorted.sort();
    sorted.dedup();
    let mut roots: Vec<PathBuf> = Vec::new();
    for directory in sorted {
        if !roots.iter().any(|root| directory.starts_with(root)) {
            roots.push(directory);
        }
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_inside_of_others_come_with_them() {
        let paths = ["/w/a/b", "/w/a", "/w/ab", "/w/a"].map(PathBuf::from);
        assert_eq!(outermost(&paths), ["/w/a", "/w/ab"].map(PathBuf::from));
    }
}
