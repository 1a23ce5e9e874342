//! The built program on small projects.

mod support;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::process::ExitStatusExt as _,
};
use support::{Project, eventually};

const VERDICTS: &str = r#"
#[test] fn passes() { println!("not shown") }
#[test] fn fails() { println!("to stdout"); panic!("on purpose") }
#[test] #[ignore] fn left_out() { println!("shown after all") }
#[test] fn slow() { if std::env::var_os("RUST_SLOW").is_some() { std::thread::sleep(std::time::Duration::from_secs(1000)) } }
"#;

#[test]
fn verdicts_output_exit_codes_and_the_record() {
    let project = Project::library("verdicts", VERDICTS);

    let run = project.run(&[]);
    assert_eq!(run.code, Some(101));
    assert!(run.stdout.contains("verdicts left_out"), "{}", run.stdout);
    let failed = run.block("verdicts fails");
    assert!(
        failed[0].ends_with('s') && failed[0].contains("FAIL "),
        "{failed:?}"
    );
    assert_eq!(failed[1], "to stdout");
    assert!(
        failed[2].starts_with("stderr: thread 'fails'") && failed[3] == "stderr: on purpose",
        "{failed:?}"
    );
    assert!(!run.stdout.contains("not shown"));
    for line in [
        "Successful Tests:         2",
        "Failed Tests    :         1",
        "    verdicts fails: failure",
        "    verdicts left_out: ignored",
    ] {
        assert!(
            run.stdout.lines().any(|found| found == line),
            "{line}\n{}",
            run.stdout
        );
    }
    let record =
        fs::read_to_string(project.path("target/maelstrom/state/test-listing.toml")).unwrap();
    assert!(
        record.starts_with("version = 3\n")
            && record.contains(r#"[verdicts."verdicts(library)".fails]"#),
        "{record}"
    );

    // What failed runs first; one failure is enough.
    let run = project.run(&["--stop-after=1", "--slots=1", "--repeat=2"]);
    assert_eq!(run.code, Some(101));
    assert!(
        run.stdout.contains("Successful Tests:         0") && run.stdout.contains("Tests Not Run"),
        "{}",
        run.stdout
    );

    let run = project.run(&["--repeat=3", "passes"]);
    assert_eq!(
        (run.code, run.count("verdicts passes")),
        (Some(0), 3),
        "{}",
        run.stdout
    );

    let run = project.run_with(&[("RUST_SLOW", "1")], &["slow", "--timeout=1"]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.block("verdicts slow")[0].contains("TIMEOUT"),
        "{}",
        run.stdout
    );

    let run = project.run(&["--", "--ignored", "--nocapture"]);
    assert_eq!(
        (run.code, run.count("shown after all")),
        (Some(0), 1),
        "{}",
        run.stdout
    );

    let run = project.run(&["-i", "name.equals(nothing)"]);
    assert_eq!(run.code, Some(0));
}

#[test]
fn lists() {
    let project = Project::library("listed", VERDICTS);
    let lines = |arguments: &[&str]| {
        let run = project.run(arguments);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let mut lines: Vec<String> = run.stdout.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(
        lines(&["--list"]),
        [
            "",
            "listed fails",
            "listed left_out",
            "listed passes",
            "listed slow"
        ]
    );
    assert_eq!(
        lines(&["--list-tests", "-i", "n.s(f)"]),
        ["", "listed fails"]
    );
    assert_eq!(lines(&["--list-packages"]), ["", "listed"]);
    assert_eq!(lines(&["--list-binaries"]), ["", "listed (library)"]);
    assert_eq!(lines(&["--list-packages", "--exclude", "listed"]), [""]);
    assert!(!project.path("target/maelstrom/cache").exists());
}

#[test]
fn mistakes_are_told() {
    let project = Project::library("mistaken", VERDICTS);
    for (arguments, code, told) in [
        (&["-i", "nam.eq(x"][..], 1, "could not parse pattern"),
        (&["-p", "nobody"], 1, "`nobody`"),
        (&["--exclude", "nobody"], 1, "`nobody`"),
        (&["--nonsense"], 2, "--nonsense"),
        (&["--ui=fancy"], 1, "terminal"),
        (&["--slots=0"], 1, "slots"),
        (
            &["--manifest-path=/nonexistent/Cargo.toml"],
            1,
            "/nonexistent/Cargo.toml",
        ),
    ] {
        let run = project.run(arguments);
        assert_eq!(run.code, Some(code), "{arguments:?}\n{}", run.stderr);
        assert!(run.stderr.contains(told), "{arguments:?}\n{}", run.stderr);
    }
    fs::write(
        project.path("cargo-maelstrom.toml"),
        "[[directives]]\nlayerz = []\n",
    )
    .unwrap();
    let run = project.run(&[]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr.contains("cargo-maelstrom.toml:2:1"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("layerz = []"), "{}", run.stderr);
}

#[test]
fn a_build_that_fails_gives_cargos_code_and_messages() {
    let project = Project::library("broken", "fn f() { 1 + }");
    let run = project.run(&[]);
    assert_eq!(run.code, Some(101));
    assert!(
        run.stdout.contains("error: expected expression"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains("Tests Not Run"), "{}", run.stdout);
}

#[test]
fn init_writes_what_holds_without_a_file() {
    let project = Project::library(
        "initial",
        "#[test] fn t() { assert!(std::path::Path::new(\"src/lib.rs\").exists()) }",
    );
    let run = project.run(&["--init"]);
    assert_eq!(run.code, Some(0));
    assert!(
        run.stdout
            .contains(project.path("cargo-maelstrom.toml").to_str().unwrap())
    );
    let text = fs::read_to_string(project.path("cargo-maelstrom.toml")).unwrap();
    assert_eq!(project.run(&["--init"]).code, Some(1));
    assert_eq!(
        fs::read_to_string(project.path("cargo-maelstrom.toml")).unwrap(),
        text
    );
    assert_eq!(project.run(&[]).code, Some(0));
}

#[test]
fn a_metadata_file_means_what_it_always_did() {
    let project = Project::library(
        "configured",
        r#"
#[test] fn surroundings() {
    let exe = std::path::PathBuf::from(std::env::args().next().unwrap());
    assert_eq!(exe.parent().unwrap(), std::path::Path::new("/"));
    assert!(exe.file_name().unwrap().to_str().unwrap().starts_with("configured-"));
    assert_eq!(std::env::current_dir().unwrap(), std::path::Path::new("/"));
    assert_eq!(std::env::vars().collect::<Vec<_>>(), [("A".to_owned(), "1 $2".to_owned())]);
    assert!(std::fs::write("/x", "").is_err());
    assert_eq!(std::fs::read_to_string("/data/file").unwrap(), "text");
}
#[test] fn ignored_by_the_file() { panic!() }
#[test] fn written() { std::fs::write("/tmp/out.txt", "from the test").unwrap() }
"#,
    );
    fs::create_dir(project.path("data")).unwrap();
    fs::write(project.path("data/file"), "text").unwrap();
    fs::write(
        project.path("cargo-maelstrom.toml"),
        r#"
[[directives]]
layers = [{ stubs = ["/tmp/"] }, { glob = "data/**" }]
environment = { A = "1 $$2" }

[[directives]]
filter = "name.equals(ignored_by_the_file)"
ignore = true

[[directives]]
filter = "name.equals(written)"
mounts = [{ type = "tmp", mount_point = "/tmp" }]
outputs = ["/tmp/*.txt"]
"#,
    )
    .unwrap();
    let run = project.run(&[]);
    assert_eq!(run.code, Some(0), "{}", run.stdout);
    assert!(
        run.stdout
            .contains("    configured ignored_by_the_file: ignored"),
        "{}",
        run.stdout
    );
    assert_eq!(
        fs::read_to_string(project.path("tmp/out.txt")).unwrap(),
        "from the test"
    );
}

#[test]
fn what_a_failed_test_missed_is_named() {
    // What is below `/tmp` is never missed.
    let project = Project::elsewhere().with_library(
        "missing",
        r#"#[test] fn reads() { std::fs::read_to_string("secret/key").unwrap(); }"#,
    );
    fs::create_dir(project.path("secret")).unwrap();
    fs::write(project.path("secret/key"), "x").unwrap();
    fs::write(project.path(".gitignore"), "/target\n/secret\n").unwrap();
    project.git_init();
    let run = project.run(&[]);
    assert_eq!(run.code, Some(101));
    let (_, advice) = run
        .stdout
        .split_once("cargo-maelstrom.toml:\n")
        .unwrap_or_else(|| panic!("{}", run.stdout));
    let (lines, _) = advice.split_once("\n\n").unwrap();
    // Doing as told helps.
    fs::write(project.path("cargo-maelstrom.toml"), lines).unwrap();
    let run = project.run(&[]);
    assert_eq!(run.code, Some(0), "{lines}\n{}", run.stdout);
}

#[test]
fn a_workspace_with_a_binary_and_a_path_dependency_outside() {
    let project = Project::new();
    project.write(
        "beside/Cargo.toml",
        "[package]\nname = 'beside'\nversion = '0.1.0'\nedition = '2021'\n[workspace]\n",
    );
    project.write(
        "beside/src/lib.rs",
        "pub fn file() -> &'static str { concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/data.txt\") }",
    );
    project.write("beside/data.txt", "beside");
    project.write(
        "project/Cargo.toml",
        "[package]\nname = 'tool'\nversion = '0.1.0'\nedition = '2021'\n[dependencies]\nbeside = { path = '../beside' }\n[workspace]\n",
    );
    project.write("project/build.rs", "fn main() { let d = std::env::var(\"OUT_DIR\").unwrap(); std::fs::write(d + \"/made\", \"made\").unwrap(); println!(\"cargo:rustc-env=MADE=1\"); }");
    project.write("project/src/main.rs", "fn main() { println!(\"{}\", std::fs::read_to_string(beside::file()).unwrap()); }\n#[test] fn unit() { assert_eq!(std::fs::read_to_string(concat!(env!(\"OUT_DIR\"), \"/made\")).unwrap(), \"made\"); }");
    project.write(
        "project/tests/it.rs",
        "#[test] fn starts() { let out = std::process::Command::new(env!(\"CARGO_BIN_EXE_tool\")).output().unwrap(); assert_eq!(out.stdout, b\"beside\\n\"); }\n#[test] fn sees() { assert_eq!(std::env::var(\"MADE\").unwrap(), \"1\"); std::fs::write(concat!(env!(\"CARGO_TARGET_TMPDIR\"), \"/x\"), \"\").unwrap(); }",
    );
    let run = project.at("project").run(&[]);
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    assert!(
        run.stdout.contains("Successful Tests:         3"),
        "{}",
        run.stdout
    );
}

#[test]
fn signals_end_everything_promptly() {
    // The sleeping test runs alone once the other one has been reported.
    let source = r#"
#[test] fn aaa_quick() {}
#[test] fn sleeps() { std::process::Command::new("sleep").arg("98765").status().unwrap(); }
"#;
    let project = Project::library("sleepy", source);
    assert_eq!(project.run(&["--list"]).code, Some(0));
    for signal in ["INT", "TERM", "KILL"] {
        let mut child = project.command(&["--slots=2"]).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let first = BufReader::new(stdout)
            .lines()
            .find(|line| line.as_ref().is_ok_and(|line| line.contains("aaa_quick")));
        assert!(first.is_some());
        let marker = project.marker();
        eventually("the test sleeps", || support::processes_with(&marker) > 0);
        support::kill(signal, child.id());
        let status = child.wait().unwrap();
        let number = match signal {
            "INT" => 2,
            "TERM" => 15,
            _ => 9,
        };
        assert_eq!(status.signal(), Some(number), "{status:?}");
        eventually("no process is left", || {
            support::processes_with(&marker) == 0
        });
    }
}

#[test]
fn nobody_reading_any_more_ends_the_run() {
    let tests: String = (0..200)
        .map(|n| {
            format!(
                "#[test] fn t{n}() {{ std::thread::sleep(std::time::Duration::from_millis(50)) }}\n"
            )
        })
        .collect();
    let project = Project::library("unread", &tests);
    let mut child = project.command(&[]).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 10]).unwrap();
    drop(stdout);
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(13), "{status:?}");
    assert!(
        !project
            .path("target/maelstrom/state/test-listing.toml")
            .exists()
    );
}

#[test]
fn watching_runs_again_after_an_edit() {
    let project = Project::library("watched", "#[test] fn first() {}");
    let mut child = project.command(&["--watch"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut wait_for = |text: &str| {
        let found = lines.any(|line| line.is_ok_and(|line| line.contains(text)));
        assert!(found, "{text}");
    };
    wait_for("watched first");
    // The edit may come at any time.
    fs::write(project.path("src/lib.rs"), "#[test] fn second() {}").unwrap();
    wait_for("watched second");
    fs::write(project.path("cargo-maelstrom.toml"), "broken").unwrap();
    wait_for("cargo-maelstrom.toml:1");
    fs::remove_file(project.path("cargo-maelstrom.toml")).unwrap();
    wait_for("watched second");
    support::kill("TERM", child.id());
    assert_eq!(child.wait().unwrap().signal(), Some(15));
}

#[test]
fn watching_gives_tests_the_files_of_the_moment() {
    let source = r#"#[test] fn reads() { assert_eq!(std::fs::read_to_string("/data.txt").unwrap(), "old") }"#;
    let project = Project::library("refreshed", source);
    project.write("data.txt", "old");
    project.write(
        "cargo-maelstrom.toml",
        "[[directives]]\nlayers = [{ glob = \"*.txt\" }]\n",
    );
    let mut child = project.command(&["--watch"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || {
        let line = lines.find(|line| {
            line.as_ref()
                .is_ok_and(|line| line.starts_with("refreshed reads."))
        });
        line.unwrap().unwrap()
    };
    assert!(next().contains("OK"));
    project.write("data.txt", "new");
    assert!(next().contains("FAIL"));
    support::kill("TERM", child.id());
    child.wait().unwrap();
}
