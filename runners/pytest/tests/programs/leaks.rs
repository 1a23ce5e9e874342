//! Tests that leave behind whatever a process can leave behind: `leaks/test_leaks.py`.

use crate::support::{Project, Run, can_rewind};
use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
};

const SYSTEM: &str = include_str!("leaks/system.py");
const LEAKS: &str = include_str!("leaks/test_leaks.py");

/// What outlives a process, and so could pass between tests that share no memory either.
const OUTSIDE: &str = "datagram or semaphores or daemon or project_file or file_in_tmp";

fn project() -> Project {
    let mut files = vec![
        ("system.py", SYSTEM),
        ("test_leaks.py", LEAKS),
        ("pytest.ini", "[pytest]\n"),
        ("directory/file.txt", "whole\n"),
    ];
    for name in [
        "removed.txt",
        "truncated.txt",
        "mapped.txt",
        "mode.txt",
        "times.txt",
        "linked.txt",
        "attribute.txt",
        "locked.txt",
    ] {
        files.push((name, "whole\n"));
    }
    Project::new(&files)
}

/// A run in the order that `seed` gives, and in that of the file without one. `options` are ours.
fn run(project: &Project, seed: &str, options: &[&str]) -> Run {
    // Tests run in the order of their durations where these are known.
    let _ = std::fs::remove_dir_all(project.path(".maelstrom-pytest/state"));
    let run = project.run_with(&[("TEST_LEAK_SEED", seed)], options);
    assert!(
        run.code == Some(0),
        "seed {seed:?} {options:?}: {}{}",
        run.stdout,
        run.stderr
    );
    for fallback in ["fresh interpreter", "without its template"] {
        assert!(!run.stdout.contains(fallback), "{}", run.stdout);
    }
    run
}

#[test]
fn a_leak_is_invisible_to_the_next_test() {
    let project = project();
    let before = contents(&project);
    let run = run(&project, "", &["--slots", "1"]);
    let after = contents(&project);
    assert!(after == before, "{after:?}");
    // What is refused here need not be hidden. It may be more where less is allowed.
    let refused = run.stdout.lines().filter(|line| line.ends_with("ignored"));
    let refused: Vec<&str> = refused.map(str::trim).collect();
    println!("refused here:\n{}", refused.join("\n"));
    assert!(refused.len() < 60, "{}", run.stdout);
}

/// `LEAK_SEEDS="1 2 3" cargo test -p maelstrom-pytest leaks` tries more of them, on twice the tests.
#[test]
fn leaks_are_invisible_in_any_order() {
    let project = project();
    match std::env::var("LEAK_SEEDS") {
        Ok(seeds) => {
            for seed in seeds.split_whitespace() {
                run(&project, seed, &[]);
            }
        }
        Err(_) => drop(run(&project, "1", &["-k", "second"])),
    }
    run(&project, "2", &["--no-template", "-k", OUTSIDE]);
}

/// Of those that a process can carry which is used again, each looks whether there is any, leaves its
/// own, and tells which process it has run in.
#[test]
fn leaks_are_invisible_in_processes_that_are_used_again() {
    let project = project();
    let variables = [("TEST_LEAK_SEED", "3"), ("TEST_LEAK_TELL", "1")];
    let run = project.run_with(&variables, &["--slots", "1", "-k", "test and first"]);
    let births: Vec<&str> = run
        .stdout
        .lines()
        .filter_map(|line| line.split_once("Failed: born "))
        .map(|(_, born)| born)
        .collect();
    let failed = run.stdout.lines().filter(|line| line.contains("..FAIL "));
    assert!(births.len() > 60, "{}{}", run.stdout, run.stderr);
    assert_eq!(births.len(), failed.count(), "{}", run.stdout);
    let different: BTreeSet<&str> = births.iter().copied().collect();
    println!("{} tests in {} processes", births.len(), different.len());
    if can_rewind() {
        assert!(different.len() * 2 < births.len(), "{births:?}");
    }
}

#[test]
fn under_plain_pytest_leaks_show() {
    let project = project();
    let run = project.pytest_with(
        &[("TEST_LEAK_MILD", "1")],
        &[
            "-q",
            "-rA",
            "--tb=no",
            "-p",
            "no:cacheprovider",
            "test_leaks.py",
        ],
    );
    assert_eq!(run.code, Some(1), "{}{}", run.stdout, run.stderr);
    let told = |verdict: &str, time: &str| {
        let named = |line: &&str| line.starts_with(verdict) && line.contains(&format!("-{time}]"));
        run.stdout.lines().filter(named).count()
    };
    assert_eq!(told("PASSED ", "second"), 0, "{}", run.stdout);
    assert!(told("FAILED ", "second") > 60, "{}", run.stdout);
    assert!(told("PASSED ", "first") > 55, "{}", run.stdout);
}

/// The names and hashes of the project's files.
fn contents(project: &Project) -> Vec<(String, u64)> {
    let entries = std::fs::read_dir(project.path("")).unwrap();
    let mut found: Vec<(String, u64)> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let mut hasher = DefaultHasher::new();
            std::fs::read(entry.path())
                .unwrap_or_default()
                .hash(&mut hasher);
            (entry.file_name().into_string().unwrap(), hasher.finish())
        })
        .filter(|(name, _)| !name.starts_with(['.', '_']))
        .collect();
    found.sort();
    found
}
