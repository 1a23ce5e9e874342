//! A suite of tests on several hosts has the verdicts that it has on one.

use crate::{BOUND, meshed, spread};
use maelstrom_lab::{Command, Exit, Finished, mesh::Mesh, program};
use std::{collections::BTreeMap, fs, path::Path};

pub(crate) const TESTS: &[(&str, fn())] = &[("a_suite_has_its_verdicts", a_suite_has_its_verdicts)];

/// A package whose tests pass, fail and take long enough to be spread.
fn write_package(directory: &Path) {
    fs::create_dir_all(directory.join("src")).unwrap();
    let manifest =
        "[package]\nname = \"spread\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    fs::write(directory.join("Cargo.toml"), manifest).unwrap();
    let mut tests = String::from("#![cfg(test)]\n");
    for number in 0..60 {
        let body = match number % 10 {
            3 => "assert_eq!(1, 2);",
            7 => "std::process::abort();",
            _ => "",
        };
        tests.push_str(&format!(
            "#[test] fn test_{number}() {{ \
             std::thread::sleep(std::time::Duration::from_millis(200)); {body} }}\n"
        ));
    }
    fs::write(directory.join("src/lib.rs"), tests).unwrap();
}

/// `cargo maelstrom` on host 1 in a package.
fn cargo_maelstrom(mesh: &Mesh, package: &Path) -> Command {
    let program = program("cargo-maelstrom", "cargo-maelstrom").unwrap();
    let command = mesh.lab().on(1, program).current_dir(package);
    command.args(["maelstrom", "--ui", "simple", "--slots", "1"])
}

/// Verdicts by the names of tests.
fn verdicts(finished: &Finished) -> BTreeMap<String, String> {
    let words = |line: &str| {
        let name = line
            .split_whitespace()
            .find(|word| word.starts_with("test_"))?;
        let verdict = ["OK", "FAIL", "ERROR", "TIMEOUT"]
            .iter()
            .find(|verdict| line.contains(*verdict))?;
        Some((name.to_owned(), (*verdict).to_owned()))
    };
    finished.stdout.lines().filter_map(words).collect()
}

fn a_suite_has_its_verdicts() {
    let mesh = meshed(5);
    let package = mesh.lab().directory().join("spread");
    write_package(&package);
    let alone = cargo_maelstrom(&mesh, &package).run(8 * BOUND).unwrap();
    let expected = verdicts(&alone);
    let failing = expected.values().filter(|verdict| *verdict != "OK").count();
    assert_eq!((expected.len(), failing), (60, 12), "{alone:#?}");
    let together = spread(&["host2", "host3", "host4", "host5"], || {
        let together = cargo_maelstrom(&mesh, &package).arg("--mesh");
        let together = together.run(8 * BOUND).unwrap();
        assert_eq!(verdicts(&together), expected, "{together:#?}");
        together
    });
    // The code is that of the test which failed first: 101 of an assertion, 1 after an abort.
    for finished in [&alone, &together] {
        assert!(
            matches!(finished.exit, Exit::Code(1 | 101)),
            "{finished:#?}"
        );
    }
    mesh.wait_idle(BOUND).unwrap();
}
