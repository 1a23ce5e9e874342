//! The program `lab`, with a script in place of a person.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

/// Runs a script in the shell of a lab. `None`: this machine cannot run a lab.
fn lab(arguments: &[&str], script: &str) -> Option<Output> {
    let mut lab = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = lab.stdin.take().unwrap().write_all(script.as_bytes());
    let output = lab.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("this machine cannot run the lab") {
        eprintln!("SKIP: {errors}");
        return None;
    }
    Some(output)
}

#[test]
fn a_script_acts_on_hosts_and_links() {
    let script = r#"
        echo "here is $HOSTNAME"
        on 2 sh -c 'echo "there is $HOSTNAME"'
        on 2 sh -c 'exit 5'; echo "code $?"
        cut 2; status; heal 2
        kill 2; status; boot 2
        slow 2 --rate 8 --latency 5 --to; status
        echo a:b | cut -d: -f2
        on 3 true; echo "code $?"
        exit 7
    "#;
    let Some(output) = lab(&["--nodes", "2"], script) else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    assert_eq!(
        lines,
        [
            "here is host1",
            "there is host2",
            "code 5",
            "  1  10.77.0.1    up",
            "  2  10.77.0.2    up    cut",
            "  1  10.77.0.1    up",
            "  2  10.77.0.2    down",
            "  1  10.77.0.1    up",
            "  2  10.77.0.2    up    to it: 8000 kbit/s, 5ms late",
            "b",
            "code 127",
        ],
        "{output:?}"
    );
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("there is no host 3"), "{errors}");
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn a_program_runs_in_place_of_the_shell() {
    let arguments = [
        "--nodes",
        "2",
        "--host",
        "2",
        "--",
        "sh",
        "-c",
        "echo $HOSTNAME",
    ];
    if let Some(output) = lab(&arguments, "") {
        assert_eq!(String::from_utf8_lossy(&output.stdout), "host2\n");
    }
}

#[test]
fn without_a_lab_commands_say_so() {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["cut", "2"])
        .env("TMPDIR", directory.path())
        .env_remove("LAB_DIRECTORY")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("there is none; start one with"), "{errors}");
    assert_eq!(output.status.code(), Some(1));
}
