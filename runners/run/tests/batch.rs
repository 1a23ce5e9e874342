//! The default mode.

mod common;

use common::{BASE, Place, runs, shell, wait_until};
use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
};

#[test]
fn outputs_go_where_they_belong_and_failures_are_told() {
    let input = [
        BASE,
        &shell("echo out; echo err >&2", ""),
        &shell("echo two; exit 7", ""),
        &shell("kill -9 $$", ""),
        &shell("exit 3", ""),
    ]
    .concat();
    // One slot: jobs run in the order of the input.
    Place::new().run(&["--slots", "1"], &input).assert(
        7,
        "out\ntwo\n",
        "err\njob 1: exited with code 7\njob 2: killed by signal 9\njob 3: exited with code 3\n",
    );
}

#[test]
fn all_slots_print_whole_jobs() {
    let script = "for i in 1 2 3 4 5; do echo $0 $i; echo $0 $i >&2; done";
    let jobs: String = (0..30)
        .map(|number| shell(&script.replace("$0", &format!("job{number}")), "") + "\n")
        .collect();
    let ended = Place::new().run(&["--slots", "3"], &format!("{BASE}{jobs}"));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for stream in [&ended.stdout, &ended.stderr] {
        let lines: Vec<&str> = stream.lines().collect();
        assert_eq!(lines.len(), 150);
        for job in lines.chunks(5) {
            let (name, _) = job[0].split_once(' ').unwrap();
            let expected: Vec<String> = (1..=5).map(|i| format!("{name} {i}")).collect();
            assert_eq!(job, expected);
        }
    }
}

#[test]
fn every_way_to_end_badly() {
    for (job, expected) in [
        (
            shell("sleep 1000", r#", "timeout": 1"#),
            "job 0: timed out\n",
        ),
        (
            r#"{"parent": "base", "program": "/nothing"}"#.to_owned(),
            "job 0: execution error: ",
        ),
        (
            r#"{"parent": "bass", "program": "x"}"#.to_owned(),
            "remote error: unknown container \"bass\"\n",
        ),
        (
            r#"{"image": "oci:no-such-directory", "program": "x"}"#.to_owned(),
            "remote error: container image oci:no-such-directory: cannot read ",
        ),
        (
            shell(
                "true",
                r#", "added_environment": {"A": "$env{NO_SUCH_VARIABLE}"}"#,
            ),
            "remote error: environment variable A: unknown variable \"NO_SUCH_VARIABLE\"",
        ),
        (
            r#"{"program": "x"}"#.to_owned(),
            "remote error: the container has no layers",
        ),
        (
            r#"{"program": "x", "layers": [{"paths": ["no-such-file"]}]}"#.to_owned(),
            "remote error: ",
        ),
    ] {
        let ended = Place::new().run(&[], &format!("{BASE}{job}"));
        assert_eq!(ended.code, Some(1), "{job}: {ended:?}");
        assert!(ended.stderr.starts_with(expected), "{job}: {ended:?}");
        assert_eq!(ended.stdout, "");
    }
}

#[test]
fn no_job_is_no_failure() {
    Place::new().run(&[], "").assert(0, "", "");
    Place::new().run(&[], BASE).assert(0, "", "");
}

#[test]
fn containers_count_for_the_jobs_after_them() {
    let define = |name: &str, user: u32| {
        format!(r#"{{"containers": {{"{name}": {{"parent": "base", "user": {user}}}}}}}"#)
    };
    let job = r#"{"parent": "me", "program": "id", "arguments": ["-u"]}"#;
    let input = [BASE, &define("me", 5), job, &define("me", 6), job, job].concat();
    Place::new()
        .run(&["--slots", "1"], &input)
        .assert(0, "5\n6\n6\n", "");
}

#[test]
fn truncation_is_told_after_its_stream() {
    let input = format!(
        "{BASE}{}",
        shell("echo 12345; echo abcdefg >&2; exit 1", "")
    );
    Place::new().run(&["--inline-limit", "3"], &input).assert(
        1,
        "123",
        "job 0: stdout truncated, 3 bytes lost\nabcjob 0: stderr truncated, 5 bytes lost\njob 0: exited with code 1\n",
    );
}

#[test]
fn jobs_start_as_soon_as_they_are_read() {
    let place = Place::new();
    let mut child = place.command(&[]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdin.write_all(BASE.as_bytes()).unwrap();
    for word in ["first", "second"] {
        stdin
            .write_all(shell(&format!("echo {word}"), "").as_bytes())
            .unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, format!("{word}\n"));
    }
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn malformed_input_is_fatal_at_once_and_leaves_nothing() {
    let place = Place::new();
    let mut child = place.command(&[]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = format!("{BASE}{}", shell("sleep 1000.1031", ""));
    stdin.write_all(input.as_bytes()).unwrap();
    wait_until("the job runs", || runs("1000.1031"));
    stdin.write_all(b"\n{\"program\": }").unwrap();
    // The input stays open: nothing but the mistake ends this.
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    let lines = input.lines().count() + 1;
    let expected = format!("Error: stdin:{lines}:13: malformed JSON: expected value\n");
    assert!(stderr.starts_with(&expected), "{stderr}");
    wait_until("the job is gone", || !runs("1000.1031"));
}

#[test]
fn signals_end_everything() {
    let place = Place::new();
    for signal in [
        rustix::process::Signal::INT,
        rustix::process::Signal::TERM,
        rustix::process::Signal::KILL,
    ] {
        let mut command = place.command(&[]);
        // Whoever runs tests in the background may have it ignore Ctrl-C.
        // SAFETY: `signal` may be called between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGINT, libc::SIG_DFL);
                Ok(())
            });
        }
        let mut child = command.spawn().unwrap();
        let input = format!("{BASE}{}", shell("sleep 1000.1032", ""));
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        wait_until("the job runs", || runs("1000.1032"));
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(signal.as_raw()));
        wait_until("the job is gone", || !runs("1000.1032"));
    }
}

#[test]
fn nobody_reading_ends_it_like_other_programs() {
    let place = Place::new();
    let mut child = place.command(&[]).spawn().unwrap();
    drop(child.stdout.take());
    let input = format!("{BASE}{}", shell("echo x", ""));
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let ended: common::Ended = child.wait_with_output().unwrap().into();
    assert_eq!((ended.signal, &*ended.stderr), (Some(13), ""), "{ended:?}");
}

#[test]
fn files_and_config_errors() {
    let place = Place::new();
    let file = place.write(
        "jobs.json",
        &format!("{BASE}{}", shell("echo from a file", "")),
    );
    let path = file.to_str().unwrap();
    place.run(&["-f", path], "").assert(0, "from a file\n", "");

    place.write("jobs.json", "{\"program\": 1}");
    place.run(&["-f", "jobs.json"], "").assert(
        1,
        "",
        "Error: jobs.json:1:13: expected a string, found an integer\n  |\n1 | {\"program\": 1}\n  |             ^\n",
    );
    let ended = place.run(&["--file", "nothing.json"], "");
    ended.assert(
        1,
        "",
        "Error: opening nothing.json: No such file or directory (os error 2)\n",
    );
    let ended = place.run(&["--broker", "127.0.0.1:1"], "");
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("--no-broker"), "{ended:?}");
    assert_eq!(place.run(&["sh"], "").code, Some(2));
    assert_eq!(place.run(&["--slots", "0"], "").code, Some(1));
    let ended = place.run(&["-P"], "");
    assert_eq!(ended.code, Some(0));
    assert!(ended.stdout.contains("cache-root"), "{ended:?}");
}

#[test]
fn outputs_come_back_below_the_current_directory() {
    let place = Place::new();
    let more = r#", "enable_writable_file_system": true, "outputs": ["/out/*.txt"]"#;
    let script = "echo 1 > /out/a.txt; echo 2 > /out/b.txt; echo 3 > /out/c; exit 4";
    let input = format!("{BASE}{}", shell(script, more));
    place
        .run(&[], &input)
        .assert(4, "", "job 0: exited with code 4\n");
    assert_eq!(fs::read_to_string(place.path("out/a.txt")).unwrap(), "1\n");
    assert_eq!(fs::read_to_string(place.path("out/b.txt")).unwrap(), "2\n");
    assert!(!place.path("out/c").exists());
}

#[test]
fn the_diagnosis_is_printed() {
    let ended = Place::new().run(&["--check"], "");
    // These tests need a machine that runs containers anyway.
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("namespaces"), "{ended:?}");
}
