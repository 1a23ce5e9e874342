//! Plugins that many suites use: what they do under pytest they do here.

use crate::support::{Project, Run, make_environment};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::OnceLock,
};

const PACKAGES: [&str; 10] = [
    "pytest==9.2.0",
    "pytest-asyncio==1.5.0",
    "pytest-cov==7.1.0",
    "pytest-mock==3.17.0",
    "pytest-randomly==5.1.0",
    "pytest-timeout==2.4.0",
    "pytest-xdist==3.8.0",
    "anyio==4.16.0",
    "hypothesis==6.170.15",
    "trio==0.35.0",
];

const FILES: [(&str, &str); 10] = [
    ("covered.py", include_str!("plugins/covered.py")),
    ("pyproject.toml", include_str!("plugins/pyproject.toml")),
    ("test_anyio.py", include_str!("plugins/test_anyio.py")),
    ("test_asyncio.py", include_str!("plugins/test_asyncio.py")),
    ("test_cov.py", include_str!("plugins/test_cov.py")),
    (
        "test_hypothesis.py",
        include_str!("plugins/test_hypothesis.py"),
    ),
    ("test_mock.py", include_str!("plugins/test_mock.py")),
    ("test_randomly.py", include_str!("plugins/test_randomly.py")),
    ("test_subtests.py", include_str!("plugins/test_subtests.py")),
    ("test_timeout.py", include_str!("plugins/test_timeout.py")),
];

/// Ends the process under pytest, and so every test after it.
const ENDS_PYTEST: &str = "test_timeout.py::test_hangs_and_is_ended_by_a_thread";

/// Of every plugin some tests, for fresh interpreters, which take a second for each.
const SOME: &str = "hangs or no_cover or spy or not_called or seed or streams or test_marked or falsified or test_text or Case and fails";

fn environment() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| make_environment("venv-plugins-1", &PACKAGES))
}

/// Verdicts by node id, as ours would say them, of what `pytest -v` says.
fn verdicts_of_pytest(run: &Run) -> BTreeMap<String, &'static str> {
    let mut verdicts = BTreeMap::new();
    for line in run.stdout.lines() {
        let mut words = line.split(' ');
        if line.ends_with("%]")
            && let (Some(node_id), Some(word)) = (words.next(), words.next())
        {
            let verdict = match word {
                "PASSED" | "XFAIL" | "XPASS" => "OK",
                "SKIPPED" => "IGNORED",
                "FAILED" | "ERROR" => "FAIL",
                _ => continue,
            };
            verdicts.insert(node_id.to_owned(), verdict);
        } else if line.starts_with("SUBFAILED")
            && let Some(node_id) = words.find(|word| word.contains("::"))
        {
            // In the summary, after everything else.
            verdicts.insert(node_id.to_owned(), "FAIL");
        }
    }
    verdicts
}

fn verdicts(run: &Run) -> BTreeMap<String, &str> {
    let lines = run.stdout.lines().filter_map(|line| {
        let (start, end) = line.split_once("..")?;
        let verdict = end.trim_start_matches('.').split_whitespace().next()?;
        let is_one = matches!(verdict, "OK" | "FAIL" | "IGNORED" | "TIMEOUT" | "ERR");
        (is_one && start.starts_with("test_")).then(|| (start.to_owned(), verdict))
    });
    lines.collect()
}

/// Runs plain pytest, and then ours, whose verdicts have to be the same. Fresh interpreters run only
/// what `-k some` selects.
fn compare(project: &Project, options: &str, some: &str) -> [Run; 2] {
    let variables = [("PYTEST_ADDOPTS", options)];
    // Leaves hypothesis' tables of characters, which take pytest long while it measures.
    assert_eq!(project.run_with(&variables, &["--list"]).code, Some(0));
    let plain = project.pytest_with(&variables, &["-v", "-n0", "--deselect", ENDS_PYTEST]);
    let mut expected = verdicts_of_pytest(&plain);
    assert!(expected.len() > 5, "{}{}", plain.stdout, plain.stderr);
    [&[][..], &["--no-template", "-k", some]].map(|how| {
        let run = project.run_with(&variables, how);
        let said = format!("{}{}", run.stdout, run.stderr);
        let mut found = verdicts(&run);
        found.remove(ENDS_PYTEST);
        if !how.is_empty() {
            expected.retain(|id, _| found.contains_key(id));
            assert!(expected.len() > 2, "{said}");
        }
        let ids = expected.keys().chain(found.keys());
        let different: Vec<_> = ids
            .filter(|id| found.get(*id) != expected.get(*id))
            .map(|id| (id, found.get(id), expected.get(id)))
            .collect();
        assert!(different.is_empty(), "{how:?}: {different:#?}\n{said}");
        for fallback in ["fresh interpreter", "without its template"] {
            assert!(!said.contains(fallback), "{said}");
        }
        run
    })
}

#[test]
fn plugins_do_what_they_do_under_pytest() {
    let project = Project::with(environment(), &FILES);
    // Parameters that are drawn are the same in every run.
    for run in compare(&project, "--randomly-seed=7", SOME) {
        let said = format!("{}{}", run.stdout, run.stderr);
        assert_eq!(said.matches("pytest-cov is off").count(), 1, "{said}");
        let mut looked_at = 0;
        for (node_id, texts) in [
            (
                "test_hypothesis.py::test_falsified",
                &["number=1000", "looked at 1000"][..],
            ),
            (
                "test_hypothesis.py::test_explicit_example",
                &["Failing explicit example", "number=77"],
            ),
            (
                "test_hypothesis.py::test_deadline",
                &["exceeds the deadline"],
            ),
            (
                "test_hypothesis.py::test_assumes_too_much",
                &["--hypothesis-seed="],
            ),
            (
                "test_hypothesis.py::TestCounter::runTest",
                &["state.grow(step=3)"],
            ),
            (
                "test_timeout.py::test_hangs",
                &["Timeout (>0.3s) from pytest-timeout", "about to hang"],
            ),
            (
                "test_timeout.py::test_fixture_hangs",
                &["Timeout (>0.3s) from pytest-timeout"],
            ),
            (
                ENDS_PYTEST,
                &["+ Timeout +", "about to hang, too", "Stack of MainThread"],
            ),
            ("test_randomly.py::test_seed", &["seed 7, drew "]),
            (
                "test_mock.py::test_not_called",
                &["expected call not found"],
            ),
            ("test_subtests.py::Case::test_one_fails", &["2 == 2"]),
        ] {
            if !run.stdout.contains(&format!("{node_id}..")) {
                // Not selected.
                continue;
            }
            looked_at += 1;
            let below = run.below(node_id);
            for text in texts {
                assert!(below.contains(text), "{node_id}: {below}");
            }
        }
        assert!(looked_at > 5, "{said}");
        assert_eq!(run.verdict(ENDS_PYTEST), "FAIL");
    }
    // What pytest has measured and found is still there, and examples that failed are tried again.
    assert!(project.path(".coverage").exists());
    let known = "test_hypothesis.py::test_known_example";
    let only_known = [("TEST_ONLY_KNOWN", "1")];
    let run = project.run_with(&only_known, &[known]);
    assert_eq!(run.verdict(known), "FAIL");
    std::fs::remove_dir_all(project.path(".hypothesis/examples")).unwrap();
    let run = project.run_with(&only_known, &[known]);
    // Without examples there is nothing to try.
    assert_eq!(run.verdict(known), "IGNORED");
}

#[test]
fn all_processes_draw_from_one_seed() {
    let file = ("test_randomly.py", include_str!("plugins/test_randomly.py"));
    let project = Project::with(environment(), &[file]);
    let seed_and_draw = |run: &Run| {
        assert_eq!(run.code, Some(1));
        let said = format!("{}{}", run.stdout, run.stderr);
        assert!(!said.contains("without its template"), "{said}");
        let after = |text: &str| said.split(text).nth(1)?.split_whitespace().next();
        let seed = after("again with --randomly-seed=").unwrap_or_else(|| panic!("{said}"));
        let drawn = after(&format!("seed {seed}, drew ")).unwrap_or_else(|| panic!("{said}"));
        (seed.to_owned(), drawn.to_owned())
    };
    let first = seed_and_draw(&project.run(&[]));
    let again = format!("--extra-pytest-args=--randomly-seed={}", first.0);
    for how in [&[][..], &["--no-template"]] {
        let run = project.run(&[how, &[&*again]].concat());
        assert_eq!(seed_and_draw(&run), first);
    }
}

#[test]
fn asynchronous_tests_need_no_marker_in_automatic_mode() {
    let project = Project::with(
        environment(),
        &[
            ("test_asyncio.py", include_str!("plugins/test_asyncio.py")),
            ("pytest.ini", "[pytest]\nasyncio_mode = auto\n"),
        ],
    );
    for run in compare(&project, "-p no:randomly", "marked or TestClass") {
        assert_eq!(run.verdict("test_asyncio.py::test_not_marked"), "OK");
    }
}
