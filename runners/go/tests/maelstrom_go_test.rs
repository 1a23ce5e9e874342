//! The built program on small modules. What needs Go is left out, and said so, where there is none.

mod support;

use std::fs;
use support::{Module, Run, has_go};

const FIXTURE: &str = "example.com/fixture";

#[test]
fn a_module_without_configuration_is_tested_as_go_test_would() {
    if !has_go() {
        return;
    }
    let module = Module::fixture();
    let run = module.run(&[]);
    let expected = [
        ("words TestReverse", "OK"),
        ("words TestFileBesideIt", "OK"),
        ("words TestSurroundings", "OK"),
        ("words TestSkipped", "IGNORED"),
        ("words TestNotShort", "OK"),
        ("words TestSkippedInside", "OK"),
        ("words FuzzReverse", "OK"),
        ("words ExampleReverse", "OK"),
        ("verdicts TestPasses", "OK"),
        ("verdicts TestFails", "FAIL"),
        ("verdicts TestFailsInside", "FAIL"),
        ("verdicts TestPrintsWithoutLineEnd", "OK"),
        ("verdicts TestLies", "OK"),
        ("verdicts TestForks", "OK"),
        ("verdicts Example_wrong", "FAIL"),
        ("verdicts TestPanics", "OK"),
        ("main_test_only TestIsPrepared", "OK"),
        ("tools TestGoBuild", "OK"),
    ];
    for (name, verdict) in expected {
        assert_eq!(
            run.verdict(&format!("{FIXTURE}/{name}")),
            verdict,
            "{name}\n{}",
            run.stdout
        );
    }
    assert_eq!(run.code, Some(1));
    // Neither benchmarks, nor examples without output, nor other modules.
    for name in ["Benchmark", "ExampleSize", "TestOfAnotherModule"] {
        assert!(!run.stdout.contains(name), "{name}\n{}", run.stdout);
    }
    assert_eq!(
        run.below(&format!("{FIXTURE}/verdicts TestFails")),
        ["printed", "    verdicts_test.go:16: logged"]
    );
    let inside = run.below(&format!("{FIXTURE}/verdicts TestFailsInside"));
    assert!(
        inside.contains(&"    --- PASS: TestFailsInside/good (0.00s)")
            && inside.contains(&"        --- FAIL: TestFailsInside/bad/worse (0.00s)"),
        "{inside:?}"
    );
    assert_eq!(
        run.below(&format!("{FIXTURE}/verdicts Example_wrong")),
        ["got:", "is", "want:", "should be"]
    );

    // What passed is not run again; what failed is.
    let again = module.run(&[]);
    assert_eq!(again.code, Some(1));
    let cached =
        |run: &Run, name: &str| run.line(&format!("{FIXTURE}/{name}")).ends_with("(cached)");
    assert!(cached(&again, "words TestReverse"), "{}", again.stdout);
    assert!(cached(&again, "tools TestGoBuild"));
    assert!(!cached(&again, "verdicts TestFails"));
    for arguments in [
        ["-count=1", "-run=TestReverse"],
        ["--no-cache", "-run=TestReverse"],
    ] {
        let run = module.run(&arguments);
        assert_eq!(run.code, Some(0));
        assert!(!cached(&run, "words TestReverse"), "{}", run.stdout);
    }
    // Another file, environment or argument is another job.
    let changed = module.run(&["-short", "-run=TestNotShort"]);
    assert_eq!(
        changed.verdict(&format!("{FIXTURE}/words TestNotShort")),
        "IGNORED"
    );
    module.write("words/testdata/words.txt", "maelstrom, changed\n");
    let changed = module.run(&["-run=TestReverse"]);
    assert!(!cached(&changed, "words TestReverse"), "{}", changed.stdout);
}

#[test]
fn tests_and_subtests_are_selected_as_go_test_selects_them() {
    if !has_go() {
        return;
    }
    let module = Module::new();
    module.write(
        "m_test.go",
        "package m\nimport \"testing\"\n\
         func TestA(t *testing.T) { t.Run(\"x\", func(t *testing.T) {}); t.Run(\"y\", func(t *testing.T) { t.Fail() }) }\n\
         func TestB(t *testing.T) { t.Fatal(\"b\") }\n",
    );
    module.write(
        "sub/s_test.go",
        "package sub\nimport \"testing\"\nfunc TestC(t *testing.T) {}\n",
    );
    module.write("untested/u.go", "package untested\n");
    for (arguments, names, code) in [
        (&["-run", "TestA/x"][..], &["m TestA"][..], 0),
        (&["-run=TestA"], &["m TestA"], 1),
        (&["-skip", "TestA/y|TestB"], &["m TestA", "m/sub TestC"], 0),
        (&["./sub"], &["m/sub TestC"], 0),
        (&["example.com/m/sub"], &["m/sub TestC"], 0),
        (&["-i", "package_path.equals(sub)"], &["m/sub TestC"], 0),
        (&["-x", "name.matches(A|B)"], &["m/sub TestC"], 0),
        (&["-run", "NoSuchTest"], &[], 0),
    ] {
        let run = module.run(arguments);
        assert_eq!(
            run.code,
            Some(code),
            "{arguments:?}\n{}{}",
            run.stdout,
            run.stderr
        );
        let lines = run.stdout.lines().filter_map(|line| {
            let name = line.strip_prefix("example.com/")?;
            name.split_once("..").map(|(name, _)| name)
        });
        let mut found: Vec<_> = lines.collect();
        found.sort_unstable();
        assert_eq!(found, names, "{arguments:?}\n{}", run.stdout);
    }
    // From a subdirectory all of the module is tested, and patterns start there.
    let run = Run::of(&mut module.command("sub", &["--list"]));
    run.has_line("example.com/m TestA");
    run.has_line("example.com/m/sub TestC");
    let run = Run::of(&mut module.command("sub", &["--list", "."]));
    assert_eq!(run.stdout.trim(), "example.com/m/sub TestC");
    let run = module.run(&["--list-packages"]);
    assert_eq!(
        run.stdout.trim().lines().collect::<Vec<_>>(),
        [
            "example.com/m",
            "example.com/m/sub",
            "example.com/m/untested"
        ]
    );
    // What was not asked for is not forgotten.
    let record = fs::read_to_string(module.path(".maelstrom-go-test/state/test-listing.toml"));
    assert!(record.unwrap().contains("[\"example.com/m\".test.TestB]"));
}

#[test]
fn tests_that_do_not_end_well_are_told_as_go_test_tells_them() {
    if !has_go() {
        return;
    }
    let module = Module::fixture();
    let run = |variable, name: &str, more: &[&str]| {
        let arguments = [&["-i", "package_path.equals(verdicts)", "-run", name], more].concat();
        module.run_with(&[(variable, "1")], &arguments)
    };
    for (variable, name, more, part) in [
        (
            "TEST_PANICS",
            "TestPanics",
            &[][..],
            "stderr: panic: on purpose",
        ),
        (
            "TEST_EXITS",
            "TestExits",
            &[],
            "unexpected call to os.Exit(0) during test",
        ),
        ("TEST_KILLED", "TestKilled", &[], "killed by signal 9"),
        (
            "TEST_HANGS",
            "TestHangs",
            &["-timeout=1s"],
            "panic: test timed out after 1s",
        ),
    ] {
        let run = run(variable, name, more);
        assert_eq!(run.code, Some(1), "{}", run.stdout);
        let full_name = format!("{FIXTURE}/verdicts {name}");
        assert_eq!(run.verdict(&full_name), "FAIL");
        let below = run.below(&full_name).join("\n");
        assert!(below.contains(part), "{below}");
    }
    // The goroutines are dumped.
    let hangs = run("TEST_HANGS", "TestHangs", &["-timeout=1s"]);
    assert!(
        hangs.stdout.contains("verdicts.TestHangs("),
        "{}",
        hangs.stdout
    );
    let limited = run("TEST_HANGS", "TestHangs", &["--timeout=1"]);
    assert_eq!(
        limited.verdict(&format!("{FIXTURE}/verdicts TestHangs")),
        "TIMEOUT"
    );
}

#[test]
fn what_cannot_be_built_is_told_and_the_rest_runs() {
    if !has_go() {
        return;
    }
    let module = Module::new();
    module.write(
        "a/a_test.go",
        "package a\nimport \"testing\"\nfunc TestA(t *testing.T) {}\n",
    );
    module.write(
        "b/b_test.go",
        "package b\nimport \"testing\"\nfunc TestB(t *testing.T) { nonsense }\n",
    );
    module.write(
        "c/c_test.go",
        "package c\nimport (\"fmt\"; \"testing\")\nfunc TestC(t *testing.T) { fmt.Printf(\"%d\", \"x\") }\n",
    );
    let run = module.run(&[]);
    assert_eq!(run.code, Some(1));
    assert_eq!(run.verdict("example.com/m/a TestA"), "OK");
    assert!(run.stdout.contains("undefined: nonsense"), "{}", run.stdout);
    // What vet objects to is not run either, unless it is told to be quiet.
    assert!(
        run.stdout.contains("fmt.Printf format %d"),
        "{}",
        run.stdout
    );
    let lenient = module.run(&["-vet=off", "./c"]);
    assert_eq!(
        (lenient.code, lenient.verdict("example.com/m/c TestC")),
        (Some(0), "OK")
    );
    // A binary that ends before it says what its tests are.
    module.write("d/d_test.go", "package d\nimport \"testing\"\nfunc init() { panic(\"early\") }\nfunc TestD(t *testing.T) {}\n");
    let early = module.run(&["./d"]);
    assert_eq!(early.code, Some(1));
    assert!(
        early
            .below("example.com/m/d TestMain")
            .contains(&"stderr: panic: early"),
        "{}",
        early.stdout
    );
}

#[test]
fn coverage_of_all_tests_is_merged() {
    if !has_go() {
        return;
    }
    let module = Module::fixture();
    let arguments = ["-coverprofile=ours.out", "./words", "./plain"];
    let run = module.run(&arguments);
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    let status = std::process::Command::new("go")
        .args([
            "test",
            "-count=1",
            "-coverprofile=go.out",
            "./words",
            "./plain",
        ])
        .current_dir(module.path(""))
        .output()
        .unwrap();
    assert!(status.status.success());
    let lines = |name: &str| {
        let text = fs::read_to_string(module.path(name)).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(lines("ours.out"), lines("go.out"));
    run.has_line("example.com/fixture/words\tcoverage: 50.0% of statements");
    // Results that are known bring their part along. The profile, which lies in the module now, is
    // none of its files.
    let expected = lines("go.out");
    fs::remove_file(module.path("go.out")).unwrap();
    assert!(module.path("ours.out").exists());
    let again = module.run(&arguments);
    let passed = |run: &Run| run.stdout.matches(".OK ").count();
    assert!(passed(&run) > 0, "{}", run.stdout);
    for line in again.stdout.lines().filter(|line| line.contains(".OK ")) {
        assert!(line.ends_with("(cached)"), "{line}");
    }
    assert_eq!(passed(&again), passed(&run), "{}", again.stdout);
    assert_eq!(lines("ours.out"), expected);
}

#[test]
fn events_in_json() {
    if !has_go() {
        return;
    }
    let module = Module::fixture();
    let run = module.run(&[
        "-json",
        "-run=Reverse|Skipped",
        "./words",
        "./main_test_only",
    ]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let events: Vec<serde_json::Value> = run
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line:?}")))
        .collect();
    let has = |action: &str, package: &str, test: Option<&str>| {
        events.iter().any(|event| {
            event["Action"] == action
                && event["Package"] == format!("{FIXTURE}/{package}")
                && event["Test"].as_str() == test
        })
    };
    for (action, test) in [
        ("start", None),
        ("run", Some("TestReverse")),
        ("pause", Some("TestReverse/of_ab")),
        ("pass", Some("TestReverse/of_ab")),
        ("pass", Some("TestReverse")),
        ("skip", Some("TestSkipped")),
        ("skip", Some("TestSkippedInside/one")),
        ("pass", Some("FuzzReverse/first")),
        ("pass", Some("ExampleReverse")),
        ("pass", None),
    ] {
        assert!(
            has(action, "words", test),
            "{action} {test:?}\n{}",
            run.stdout
        );
    }
    assert!(has("pass", "main_test_only", None));
}

#[test]
fn directives_of_a_metadata_file_hold() {
    if !has_go() {
        return;
    }
    let module = Module::new();
    module.write(
        "m_test.go",
        "package m\nimport (\"os\"; \"testing\")\n\
         func TestSeesFiles(t *testing.T) { if _, err := os.Stat(\"go.mod\"); err != nil { t.Fatal(err) } }\n\
         func TestHasVariable(t *testing.T) { if os.Getenv(\"GIVEN\") != \"yes\" { t.Fail() } }\n\
         func TestLeftOut(t *testing.T) { t.Fail() }\n\
         func BenchmarkB(b *testing.B) {}\n",
    );
    let run = module.run(&["--init"]);
    assert_eq!(run.code, Some(0));
    assert_eq!(module.run(&["--init"]).code, Some(1));
    // Which means the same as none.
    let run = module.run(&["-run=SeesFiles"]);
    assert_eq!(run.code, Some(0), "{}", run.stdout);
    module.write(
        "maelstrom-go-test.toml",
        "[[directives]]\nlayers = [{ stubs = ['/{proc,tmp}/', '/dev/null'] }]\n\
         mounts = [{ type = 'tmp', mount_point = '/tmp' }]\n\
         [[directives]]\nfilter = 'name.equals(TestHasVariable)'\nadded_environment = { GIVEN = 'yes' }\n\
         [[directives]]\nfilter = 'name.equals(TestLeftOut)'\nignore = true\n",
    );
    let run = module.run(&[]);
    assert_eq!(run.verdict("example.com/m TestSeesFiles"), "FAIL");
    assert_eq!(run.verdict("example.com/m TestHasVariable"), "OK");
    assert_eq!(run.verdict("example.com/m TestLeftOut"), "IGNORED");
    // As in Maelstrom 0.14.
    assert_eq!(run.verdict("example.com/m BenchmarkB"), "OK");
}

#[test]
fn wrong_use_says_what_to_do() {
    let module = Module::new();
    for (arguments, code, part) in [
        (&["-bench=."][..], 2, "go test -run='^$' -bench"),
        (&["-fuzz=X"], 2, "go test -fuzz"),
        (&["--nonsense"], 2, "nonsense"),
        (&["-run=("], 1, "-run=(: not a regular expression"),
    ] {
        let run = module.run(arguments);
        assert_eq!(run.code, Some(code), "{arguments:?}\n{}", run.stderr);
        assert!(run.stderr.contains(part), "{arguments:?}\n{}", run.stderr);
    }
    fs::remove_file(module.path("go.mod")).unwrap();
    // The target directory may lie in a Go module of somebody's, but not in this repository.
    let run = module.run(&[]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("go mod init"), "{}", run.stderr);
}

#[test]
fn cgo_and_the_race_detector() {
    if !has_go() {
        return;
    }
    let cgo = std::process::Command::new("go")
        .args(["env", "CGO_ENABLED"])
        .output()
        .unwrap();
    if cgo.stdout.trim_ascii() != b"1" {
        eprintln!("left out: Go has no C compiler here");
        return;
    }
    let module = Module::fixture();
    module.write(
        "race/race_test.go",
        "package race\nimport \"testing\"\n\
         func TestRace(t *testing.T) {\n\tn, done := 0, make(chan bool)\n\tgo func() { n++; done <- true }()\n\tn++\n\t<-done\n}\n\
         func TestNoRace(t *testing.T) {}\n",
    );
    let run = module.run(&["-race", "./race", "./native"]);
    assert_eq!(run.code, Some(1), "{}{}", run.stdout, run.stderr);
    assert_eq!(run.verdict(&format!("{FIXTURE}/native TestTwice")), "OK");
    assert_eq!(run.verdict(&format!("{FIXTURE}/race TestNoRace")), "OK");
    let race = run.below(&format!("{FIXTURE}/race TestRace")).join("\n");
    assert!(
        race.contains("WARNING: DATA RACE") && race.contains("race detected during execution"),
        "{race}"
    );
}
