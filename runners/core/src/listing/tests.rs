use super::{read::*, *};
use proptest::prelude::*;
use std::{fs, path::PathBuf};
use tempfile::TempDir;

const EXAMPLE: &str = "\
version = 3

[foo.\"foo(library)\".\"m::t1\"]
timings = [0.12, 0.1]
outcome = \"success\"
";

fn text(listing: &TestListing) -> String {
    let mut bytes = Vec::new();
    listing.write(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A directory with a listing file of this content.
fn file(content: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    fs::write(&path, content).unwrap();
    (directory, path)
}

/// The listing as another process reads it.
fn reloaded(listing: &TestListing) -> TestListing {
    let (_directory, path) = file("");
    listing.save(&path).unwrap();
    TestListing::load(&path).unwrap()
}

#[test]
fn the_example_reads_and_writes() {
    let (_directory, path) = file(EXAMPLE);
    let listing = TestListing::load(&path).unwrap();
    assert_eq!(text(&listing), EXAMPLE);
    assert_eq!(
        listing.schedule("foo", "foo(library)", "m::t1"),
        Schedule {
            priority: 0,
            estimate: Some(Duration::from_secs_f32(0.11))
        }
    );
    assert_eq!(parse_own(EXAMPLE), Some(listing));
}

#[test]
fn no_file_is_an_empty_listing_and_saving_makes_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/maelstrom").join(FILE_NAME);
    let mut listing = TestListing::load(&path).unwrap();
    assert_eq!(listing, TestListing::default());
    listing.record("p", "a", "c", true, seconds(1.0));
    listing.save(&path).unwrap();
    let again = TestListing::load(&path).unwrap();
    assert_eq!(again.outcome("p", "a", "c"), Some(Outcome::Success));
    let names: Vec<_> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, [FILE_NAME], "nothing else is left behind");
}

#[test]
fn new_and_failed_cases_come_first() {
    let mut listing = TestListing::default();
    listing.set_cases(
        "p",
        "a",
        [("passed", None), ("failed", None), ("new", None)],
    );
    listing.record("p", "a", "passed", true, seconds(2.0));
    listing.record("p", "a", "failed", false, seconds(3.0));
    let listing = reloaded(&listing);
    let schedule = |case| {
        let Schedule { priority, estimate } = listing.schedule("p", "a", case);
        (priority, estimate.map(|estimate| estimate.as_secs()))
    };
    assert_eq!(schedule("passed"), (0, Some(2)));
    assert_eq!(schedule("failed"), (1, Some(3)));
    assert_eq!(schedule("new"), (1, None));
    assert_eq!(schedule("unknown"), (1, None));
}

#[test]
fn schedules_are_those_of_the_time_of_loading() {
    let mut listing = reloaded(&{
        let mut listing = TestListing::default();
        listing.record("p", "a", "c", false, seconds(4.0));
        listing
    });
    let before = listing.schedule("p", "a", "c");
    listing.record("p", "a", "c", true, seconds(8.0));
    assert_eq!(listing.schedule("p", "a", "c"), before);
    let after = reloaded(&listing).schedule("p", "a", "c");
    assert_eq!((after.priority, after.estimate), (0, Some(seconds(6.0))));
}

#[test]
fn one_failure_among_repetitions_is_a_failure() {
    for (results, expected) in [
        (&[true][..], Outcome::Success),
        (&[true, true], Outcome::Success),
        (&[true, false, true], Outcome::Failure),
        (&[false, true], Outcome::Failure),
    ] {
        // Whatever came before.
        for before in [None, Some(true), Some(false)] {
            let mut listing = TestListing::default();
            if let Some(passed) = before {
                listing.record("p", "a", "c", passed, seconds(1.0));
                listing = reloaded(&listing);
            }
            for passed in results {
                listing.record("p", "a", "c", *passed, seconds(1.0));
            }
            assert_eq!(
                listing.outcome("p", "a", "c"),
                Some(expected),
                "{before:?} {results:?}"
            );
        }
    }
}

#[test]
fn the_three_newest_timings_are_kept() {
    let mut listing = TestListing::default();
    for duration in [1.0, 2.0, 3.5, 0.000_001_4, 5.0] {
        listing.record("p", "a", "c", true, seconds(duration));
    }
    assert!(
        text(&listing).contains("timings = [3.5, 1e-6, 5.0]\n"),
        "{}",
        text(&listing)
    );
    let long = EXAMPLE.replace("[0.12, 0.1]", "[9.0, 1.0, 2.0, 3.0]");
    let (_directory, path) = file(&long);
    let estimate = TestListing::load(&path)
        .unwrap()
        .schedule("foo", "foo(library)", "m::t1")
        .estimate;
    assert_eq!(estimate, Some(seconds(2.0)));
}

#[test]
fn what_is_gone_is_forgotten() {
    let mut listing = TestListing::default();
    for (package, artifact, case) in [
        ("p", "a", "1"),
        ("p", "a", "2"),
        ("p", "b", "1"),
        ("q", "a", "1"),
    ] {
        listing.record(package, artifact, case, true, seconds(1.0));
    }
    let all = |listing: &TestListing| {
        let mut names = Vec::new();
        listing.count(|package, artifact, case, _| {
            names.push(format!("{package} {artifact} {case}"));
            true
        });
        names
    };
    listing.set_cases("p", "a", [("2", None), ("3", None)]);
    assert_eq!(all(&listing), ["p a 2", "p a 3", "p b 1", "q a 1"]);
    assert_eq!(listing.outcome("p", "a", "2"), Some(Outcome::Success));
    assert_eq!(listing.outcome("p", "a", "3"), Some(Outcome::New));
    listing.retain_artifacts("p", |artifact| artifact == "a");
    listing.retain_artifacts("unknown", |_| false);
    assert_eq!(all(&listing), ["p a 2", "p a 3", "q a 1"]);
    listing.retain_packages(|package| package == "q");
    assert_eq!(all(&listing), ["q a 1"]);
    assert_eq!(listing.count(|package, _, _, _| package == "p"), 0);
}

#[test]
fn pytest_keeps_node_ids_and_markers() {
    let metadata = CaseMetadata {
        node_id: "a.py::t[\"x\\\n\u{7f}ä\"]".into(),
        markers: vec!["slow".into(), "a \"b\"".into()],
    };
    let mut listing = TestListing::default();
    listing.set_cases(
        "default",
        "a.py",
        [
            ("t", Some(metadata.clone())),
            ("u", Some(CaseMetadata::default())),
        ],
    );
    let again = reloaded(&listing);
    let mut found = Vec::new();
    again.count(|_, _, case, metadata| {
        found.push((case.to_owned(), metadata.cloned()));
        true
    });
    assert_eq!(
        found,
        [
            ("t".into(), Some(metadata)),
            ("u".into(), Some(CaseMetadata::default()))
        ]
    );
    assert!(parse_own(&text(&listing)).is_some(), "{}", text(&listing));
}

#[test]
fn another_version_is_empty() {
    for version in ["2", "4", "99999999999999999999"] {
        let (_directory, path) = file(&EXAMPLE.replace('3', version));
        assert_eq!(TestListing::load(&path).unwrap(), TestListing::default());
    }
}

#[test]
fn bad_files_are_errors_and_stay() {
    for (content, place, reason) in [
        ("", "line 1, column 1", "the key `version` is missing"),
        (
            "[foo]\n",
            "line 1, column 1",
            "the key `version` is missing",
        ),
        (
            "version = \"3\"\n",
            "line 1, column 11",
            "expected `version` as an integer, found a string",
        ),
        ("version = 3\n[foo\n", "line 2, column 5", ""),
        (
            "version = 3\nfoo = 1\n",
            "line 2, column 7",
            "expected a table, found an integer",
        ),
        (
            "version = 3\n[p.a.c]\ntimings = 1\n",
            "line 3, column 11",
            "expected `timings` as an array, found an integer",
        ),
        (
            "version = 3\n[p.a.c]\ntimings = [-1.0]\n",
            "line 3, column 12",
            "expected a number of seconds, 0 or more",
        ),
        (
            "version = 3\n[p.a.c]\ntimings = [nan]\n",
            "line 3, column 12",
            "expected a number of seconds, 0 or more",
        ),
        (
            "version = 3\n[p.a.c]\noutcome = \"odd\"\n",
            "line 3, column 11",
            "unknown outcome `odd`, expected one of success, failure, new",
        ),
        (
            "version = 3\n[p.a.c]\nnode_id = \"n\"\nmarkers = [1]\n",
            "line 4, column 12",
            "expected a marker as a string, found an integer",
        ),
        (
            &format!("{EXAMPLE}{}", EXAMPLE.replace("version = 3\n", "")),
            "line 7, column 21",
            "duplicate key",
        ),
    ] {
        let (_directory, path) = file(content);
        let error = TestListing::load(&path).expect_err(content).to_string();
        assert!(
            error.starts_with(&format!("could not parse test listing {}", path.display())),
            "{error}"
        );
        assert!(error.contains(place) && error.contains(reason), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
    let (_directory, path) = file("");
    fs::write(&path, b"version = 3\n\xff").unwrap();
    let error = TestListing::load(&path).unwrap_err().to_string();
    assert!(
        error.contains("line 2, column 1: not valid UTF-8"),
        "{error}"
    );
}

#[test]
fn deep_nesting_is_an_error() {
    let (_directory, path) = file(&format!("version = 3\na = {}", "[".repeat(100_000)));
    assert!(TestListing::load(&path).is_err());
}

#[test]
fn unknown_keys_and_other_layouts_are_read() {
    let (_directory, path) = file(
        "version = 3\nfoo = { 'foo(library)' = { 'm::t1' = { timings = [0.12, 0.1], outcome = 'success', odd = 1 } } }",
    );
    let (_other_directory, other) = file(EXAMPLE);
    assert_eq!(
        TestListing::load(&path).unwrap(),
        TestListing::load(&other).unwrap()
    );
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error_that_names_the_file() {
    let (_directory, path) = file(EXAMPLE);
    let error = TestListing::default()
        .save(&path.join("x"))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(&format!(
            "could not save test listing {}",
            path.join("x").display()
        )),
        "{error}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), EXAMPLE);
}

#[test]
fn a_package_called_version_does_not_spoil_the_file() {
    let mut listing = TestListing::default();
    listing.record("version", "a", "c", true, seconds(1.0));
    listing.record("p", "a", "c", true, seconds(1.0));
    let again = reloaded(&listing);
    assert_eq!(again.count(|_, _, _, _| true), 1);
}

/// Prints what loading and saving 10,000 tests costs; run it with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn ten_thousand_tests() {
    let mut listing = TestListing::default();
    for index in 0..10_000 {
        let case = format!("some_module::tests::case_number_{index}");
        for duration in [0.0123, 0.0119, 0.0125] {
            listing.record(
                "my_package",
                "my_package(library)",
                &case,
                true,
                seconds(duration),
            );
        }
    }
    let (_directory, path) = file("");
    let start = std::time::Instant::now();
    listing.save(&path).unwrap();
    println!(
        "save: {:?}, {} bytes",
        start.elapsed(),
        fs::metadata(&path).unwrap().len()
    );
    let start = std::time::Instant::now();
    let again = TestListing::load(&path).unwrap();
    println!("load: {:?}", start.elapsed());
    let start = std::time::Instant::now();
    parse_toml(&fs::read_to_string(&path).unwrap()).unwrap();
    println!("load by the general parser: {:?}", start.elapsed());
    assert_eq!(again.count(|_, _, _, _| true), 10_000);
}

fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z_:]{1,5}",
        any::<String>(),
        Just("version".to_owned()),
        Just(String::new())
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_written_reads_back_both_ways(
        runs in prop::collection::vec((names(), names(), names(), any::<bool>(), 0..10_000_000u64), 0..12),
        node_id in names(), marker in names(),
    ) {
        let mut listing = TestListing::default();
        for (package, artifact, case, passed, micros) in &runs {
            listing.record(package, artifact, case, *passed, Duration::from_micros(*micros));
        }
        let metadata = CaseMetadata { node_id, markers: vec![marker] };
        listing.set_cases("p", "a", [("c", Some(metadata))]);
        let text = text(&listing);
        let own = parse_own(&text).expect("own form");
        let general = parse_toml(&text).unwrap();
        prop_assert_eq!(&own, &general);
        let version = own.packages.contains_key("version");
        prop_assert!(!version);
        for (package, artifact, case, ..) in &runs {
            if package != "version" && (package, artifact) != (&"p".to_owned(), &"a".to_owned()) {
                prop_assert_eq!(own.outcome(package, artifact, case), listing.outcome(package, artifact, case));
            }
        }
    }

    #[test]
    fn no_text_panics_and_both_parsers_agree(
        blocks in prop::collection::vec(
            (
                prop::sample::select(vec![
                    "[p.a.c]", "[p.a.d]", "[p.\"a\\\"\".c]", "[p.a]", "[version.a.c]", "[ p.a.c]", "", "[\"\".a.c]",
                    "[p.\"\t\\u0041\".c]", "[p.\"\\n\".c]", "[p.\"\u{1}\".c]", "[p.\"\\uD800\".c]", "[p.'a'.c]", "[p.a.c",
                ]),
                prop::sample::select(vec![
                    "[]", "[0.5]", "[0.5, 1.5]", "[0.5,1.5]", "[1]", "[inf]", "[0.5,]", "[01.5]", "[0x1]", "[1.]",
                    "[1_0.0]", "[1e-6]", "[1.e5]", "[1E5]", "[1e400]", "[+1.0]", "[-0.0]", "[1e5, 00.5]", "[1e05]",
                ]),
                prop::sample::select(vec!["new", "success", "x"]),
                prop::sample::select(vec![
                    "", "node_id = \"n\"\nmarkers = []\n", "node_id = \"n\"\nmarkers = [\"m\", \"\\\\\"]\n",
                    "node_id = \"n\"\n", "markers = []\n", "node_id = \"n\" # comment\nmarkers = [\"m\",]\n", "\r\n",
                ]),
            ),
            0..4,
        )
    ) {
        let mut text = "version = 3\n".to_owned();
        for (header, timings, outcome, rest) in blocks {
            text += &format!("\n{header}\ntimings = {timings}\noutcome = \"{outcome}\"\n{rest}");
        }
        let general = parse_toml(&text);
        if let Some(own) = parse_own(&text) {
            prop_assert_eq!(own, general.map_err(|problem| TestCaseError::fail(format!("{problem:?}")))?);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (_directory, path) = file("");
        fs::write(&path, bytes).unwrap();
        let _ = TestListing::load(&path);
    }
}
