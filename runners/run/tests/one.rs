//! One mode.

mod common;

use common::{BASE, Place, shell};
use std::io::{Read as _, Write as _};

fn one(job: &str) -> common::Ended {
    Place::new().run(&["--one"], &format!("{BASE}{job}"))
}

#[test]
fn it_ends_like_the_job() {
    one(&shell("echo out; echo err >&2", "")).assert(0, "out\n", "err\n");
    one(&shell("echo out; exit 42", "")).assert(42, "out\n", "");
    for signal in [1, 2, 6, 9, 11, 15] {
        let ended = one(&shell(&format!("echo out; kill -{signal} $$"), ""));
        assert_eq!(
            (ended.signal, &*ended.stderr),
            (Some(signal), ""),
            "{ended:?}"
        );
        assert_eq!(ended.stdout, "out\n");
    }
}

#[test]
fn a_signal_that_ends_nobody_still_ends_it() {
    // SIGCHLD and the like cannot end a job either, so that real-time signals are the odd ones.
    let ended = one(&shell("kill -40 $$", ""));
    assert_eq!(ended.code, None, "{ended:?}");
    assert!(matches!(ended.signal, Some(9 | 40)), "{ended:?}");
}

#[test]
fn messages_have_no_number() {
    one(&shell("sleep 1000", r#", "timeout": 1"#)).assert(1, "", "timed out\n");
    let ended = one(r#"{"parent": "base", "program": "/nothing"}"#);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.starts_with("execution error: "), "{ended:?}");
    one(r#"{"parent": "bass", "program": "x"}"#).assert(
        1,
        "",
        "Error: unknown container \"bass\"\n",
    );
}

#[test]
fn only_the_first_job_is_read() {
    let first = shell("echo first", "");
    one(&format!("{first}{}", shell("echo second", ""))).assert(0, "first\n", "");
    one(&format!("{first} garbage")).assert(0, "first\n", "");

    // And nothing is waited for.
    let place = Place::new();
    let mut child = place.command(&["-1"]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(format!("{BASE}{first}").as_bytes())
        .unwrap();
    let mut stdout = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut stdout)
        .unwrap();
    assert_eq!(stdout, "first\n");
    assert!(child.wait().unwrap().success());
    drop(stdin);
}

#[test]
fn an_input_without_a_job_is_an_error() {
    for input in ["", BASE] {
        Place::new()
            .run(&["--one"], input)
            .assert(1, "", "Error: the input has no job to run\n");
    }
    let ended = one("{");
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.starts_with("Error: stdin:"), "{ended:?}");
}

#[test]
fn the_command_line_replaces_program_and_arguments() {
    for job in [shell("exit 9", ""), r#"{"parent": "base"}"#.to_owned()] {
        Place::new()
            .run(
                &["--one", "sh", "-c", "echo $0 $1", "a", "--one"],
                &format!("{BASE}{job}"),
            )
            .assert(0, "a --one\n", "");
    }
}

#[test]
fn containers_are_defined_before_the_job() {
    let job = r#"{"containers": {"me": {"parent": "base", "user": 5, "group": 6}}}
        {"parent": "me", "program": "sh", "arguments": ["-c", "id -u; id -g"]}"#;
    one(job).assert(0, "5\n6\n", "");
}

/// A job whose topmost layer is what this line of shell changes.
fn on_command_layer(script: &str, job: &str) -> String {
    let script = serde_json::to_string(script).unwrap();
    let job = serde_json::to_string(job).unwrap();
    format!(
        r#"{{"parent": "base", "added_layers": [
                {{"programs": ["mkdir", "date", "ln", "rm"]}},
                {{"command": ["sh", "-ec", {script}]}}],
            "program": "sh", "arguments": ["-c", {job}]}}"#
    )
}

#[test]
fn what_a_command_changes_is_a_layer() {
    let place = Place::new();
    let input = format!(
        "{BASE}{}",
        on_command_layer(
            "mkdir -p /made/dir; date +%s%N > /made/time; ln -s time /made/link; rm /bin/id; echo noise",
            "cat /made/link; test -d /made/dir && ! test -e /bin/id && test -e /bin/sh",
        )
    );
    let first = place.run(&["--one"], &input);
    assert_eq!((first.code, &*first.stderr), (Some(0), ""), "{first:?}");
    assert!(first.stdout.trim().parse::<u64>().is_ok(), "{first:?}");
    // Made once, though everything started anew.
    let second = place.run(&["--one"], &input);
    assert_eq!(second.stdout, first.stdout);
    // Other layers below make another one.
    let other = input.replacen(
        "\"added_layers\": [",
        "\"added_layers\": [{\"stubs\": [\"/other\"]}, ",
        1,
    );
    assert_ne!(place.run(&["--one"], &other).stdout, first.stdout);
}

#[test]
fn a_command_that_fails_makes_no_layer() {
    let place = Place::new();
    let input = format!("{BASE}{}", on_command_layer("echo why >&2; exit 3", "true"));
    for _ in 0..2 {
        let ended = place.run(&["--one"], &input);
        assert_eq!(ended.code, Some(1));
        assert!(
            ended.stderr.contains("`sh` of a layer") && ended.stderr.contains("why"),
            "{ended:?}"
        );
    }
}

#[test]
fn a_layer_may_be_named_twice() {
    let job = r#"{"parent": "base", "added_layers": [{"stubs": ["/twice"]}, {"stubs": ["/x"]}, {"stubs": ["/twice"]}],
        "program": "sh", "arguments": ["-c", "test -e /twice && test -e /x"]}"#;
    one(job).assert(0, "", "");
}
