//! How jobs end, and what is kept of their output.

use crate::{
    Test,
    fixture::{Fixture, output},
};
use maelstrom_runtime::{Privileges, Root, TerminalSize};
use maelstrom_spec::{JobError, JobOutput, JobStatus};
use std::{os::fd::AsFd, time::Duration};

pub(crate) const TESTS: &[Test] = &[
    ("exit_codes_come_through", exit_codes_come_through),
    ("signals_come_through", signals_come_through),
    ("a_timeout_keeps_the_output", a_timeout_keeps_the_output),
    (
        "at_a_timeout_who_can_answer_is_asked",
        at_a_timeout_who_can_answer_is_asked,
    ),
    ("streams_are_kept_apart", streams_are_kept_apart),
    ("output_is_cut_at_the_limit", output_is_cut_at_the_limit),
    (
        "a_flood_does_not_outlast_its_timeout",
        a_flood_does_not_outlast_its_timeout,
    ),
    (
        "missing_programs_are_the_jobs_fault",
        missing_programs_are_the_jobs_fault,
    ),
    (
        "programs_are_looked_up_in_path",
        programs_are_looked_up_in_path,
    ),
    (
        "a_missing_loader_is_explained",
        a_missing_loader_is_explained,
    ),
    (
        "a_missing_working_directory_is_the_jobs_fault",
        a_missing_working_directory,
    ),
    ("absurd_strings_are_refused", absurd_strings_are_refused),
    ("outputs_are_brought_back", outputs_are_brought_back),
    ("missing_paths_are_found_out", missing_paths_are_found_out),
    ("a_terminal_is_handed_over", a_terminal_is_handed_over),
    (
        "background_jobs_get_what_nobody_wants",
        background_jobs_get_what_nobody_wants,
    ),
];

fn status(fixture: &Fixture, probe: &[&str]) -> JobStatus {
    fixture.run(&fixture.job(probe)).unwrap().status
}

fn exit_codes_come_through(fixture: &Fixture) {
    for code in [0, 1, 101, 255] {
        assert_eq!(
            status(fixture, &["exit", &code.to_string()]),
            JobStatus::Exited(code)
        );
    }
}

/// As they would for a process that is not the first of a PID namespace.
fn signals_come_through(fixture: &Fixture) {
    for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGFPE, libc::SIGHUP] {
        assert_eq!(
            status(fixture, &["signal", &signal.to_string()]),
            JobStatus::Signaled(signal as u8)
        );
    }
    assert_eq!(
        status(fixture, &["fault"]),
        JobStatus::Signaled(libc::SIGSEGV as u8)
    );
    assert_eq!(
        status(fixture, &["abort"]),
        JobStatus::Signaled(libc::SIGABRT as u8)
    );
}

fn a_timeout_keeps_the_output(fixture: &Fixture) {
    let mut job = fixture.job(&["sleep"]);
    job.timeout = Some(Duration::from_millis(300));
    let mut slot = fixture.slot();
    let outcome = slot.run(&job).unwrap();
    assert_eq!(outcome.status, JobStatus::TimedOut);
    assert_eq!(outcome.effects.stdout.bytes(), b"sleeping\n");
    assert!(outcome.effects.duration >= Duration::from_millis(300));
    // The slot is as good as new.
    assert_eq!(
        slot.run(&fixture.job(&["ok"])).unwrap().status,
        JobStatus::Exited(0)
    );
}

fn at_a_timeout_who_can_answer_is_asked(fixture: &Fixture) {
    let mut slot = fixture.slot();
    for then in ["end", "stay"] {
        let mut job = fixture.job(&["answer", then]);
        job.timeout = Some(Duration::from_millis(300));
        let outcome = slot.run(&job).unwrap();
        assert_eq!(outcome.status, JobStatus::TimedOut, "{then}");
        assert_eq!(outcome.effects.stdout.bytes(), b"asked\n", "{then}");
    }
}

fn streams_are_kept_apart(fixture: &Fixture) {
    let effects = fixture.run(&fixture.job(&["both"])).unwrap().effects;
    assert_eq!(effects.stdout, JobOutput::Inline(b"to stdout\n".to_vec()));
    assert_eq!(effects.stderr, JobOutput::Inline(b"to stderr\n".to_vec()));
    let nothing = fixture.run(&fixture.job(&["ok"])).unwrap().effects;
    assert_eq!(nothing.stdout, JobOutput::None);
}

fn output_is_cut_at_the_limit(fixture: &Fixture) {
    let print = |bytes: usize, limit: u64| {
        let mut job = fixture.job(&["print", &bytes.to_string()]);
        job.inline_limit_bytes = limit;
        let output = fixture.run(&job).unwrap().effects.stdout;
        (output.bytes().len(), output.dropped_bytes())
    };
    assert_eq!(print(100, 100), (100, 0));
    assert_eq!(print(101, 100), (100, 1));
    assert_eq!(print(5, 0), (0, 5));
    assert_eq!(print(3_000_000, 1_000_000), (1_000_000, 2_000_000));
    assert_eq!(print(3_000_000, 1 << 30), (3_000_000, 0));
}

fn a_flood_does_not_outlast_its_timeout(fixture: &Fixture) {
    let mut job = fixture.job(&["print-forever"]);
    job.timeout = Some(Duration::from_millis(200));
    let outcome = fixture.run(&job).unwrap();
    assert_eq!(outcome.status, JobStatus::TimedOut);
    assert_eq!(outcome.effects.stdout.bytes().len(), 1_000_000);
}

fn background_jobs_get_what_nobody_wants(fixture: &Fixture) {
    // The 41st field of a process's line, counted behind its name.
    let policy = |background: bool| {
        let mut job = fixture.job(&["read", "/proc/self/stat"]);
        job.background = background;
        let line = fixture.output_of(&job);
        let behind_name = line.rsplit_once(") ").unwrap().1;
        behind_name.split(' ').nth(41 - 3).unwrap().to_owned()
    };
    assert_eq!(policy(true), libc::SCHED_IDLE.to_string());
    assert_eq!(policy(false), libc::SCHED_OTHER.to_string());
}

fn execution_error(result: Result<maelstrom_spec::JobOutcome, JobError>) -> String {
    match result {
        Err(JobError::Execution(message)) => message,
        other => panic!("not an execution error: {other:?}"),
    }
}

fn missing_programs_are_the_jobs_fault(fixture: &Fixture) {
    for program in ["/nothing", "nothing", "./nothing"] {
        let mut job = fixture.job(&[]);
        job.program = program.to_owned();
        assert_eq!(
            execution_error(fixture.run(&job)),
            format!("executing {program}: No such file or directory")
        );
    }
    let mut job = fixture.job(&[]);
    job.program = "/file".to_owned();
    assert!(execution_error(fixture.run(&job)).contains("Permission denied"));
}

fn programs_are_looked_up_in_path(fixture: &Fixture) {
    let mut job = fixture.job(&["ok"]);
    job.program = "probe".to_owned();
    // Without PATH the bare name is relative to the working directory.
    assert!(fixture.run(&job).unwrap().status.is_success());
    for (path, works) in [
        ("/nowhere::/", true),
        // `/file` is there but cannot be executed.
        ("/lib", true),
    ] {
        job.environment.retain(|(name, _)| name != "PATH");
        job.environment.push(("PATH".to_owned(), path.to_owned()));
        assert_eq!(fixture.run(&job).is_ok(), works, "{path}");
    }
    job.working_directory = "/tmp".into();
    assert!(fixture.run(&job).is_err());
}

fn a_missing_loader_is_explained(fixture: &Fixture) {
    let layer = fixture.layers_root().join("bare");
    std::fs::create_dir_all(layer.join("proc")).unwrap();
    std::fs::copy(
        fixture.layers_root().join("base/probe"),
        layer.join("probe"),
    )
    .unwrap();
    let mut job = fixture.job(&["ok"]);
    job.layers = vec![layer];
    let message = execution_error(fixture.run(&job));
    assert!(message.contains("loader or interpreter"), "{message}");
}

fn a_missing_working_directory(fixture: &Fixture) {
    let mut job = fixture.job(&["ok"]);
    job.working_directory = "/nowhere".into();
    assert_eq!(
        execution_error(fixture.run(&job)),
        "entering the working directory /nowhere: No such file or directory"
    );
    job.working_directory = "/tmp".into();
    job.arguments = vec!["probe".to_owned(), "where".to_owned()];
    assert_eq!(fixture.output_of(&job), "/tmp\n");
}

fn absurd_strings_are_refused(fixture: &Fixture) {
    let mut nul = fixture.job(&["ok"]);
    nul.arguments.push("a\0b".to_owned());
    assert!(execution_error(fixture.run(&nul)).contains("NUL"));
    let mut long = fixture.job(&["ok"]);
    long.arguments.push("x".repeat(1 << 20));
    assert!(execution_error(fixture.run(&long)).contains("too long"));
    let mut none = fixture.job(&["ok"]);
    none.layers.clear();
    assert!(execution_error(fixture.run(&none)).contains("no layers"));
}

fn outputs_are_brought_back(fixture: &Fixture) {
    let mut job = fixture.job(&["make-outputs"]);
    job.root = Root::Discard;
    job.working_directory = "/tmp".into();
    job.outputs = vec!["out/**/*.txt".to_owned(), "/nowhere/*".to_owned()];
    let outcome = fixture.run(&job).unwrap();
    let found: Vec<_> = outcome
        .effects
        .outputs
        .iter()
        .map(|file| (file.path.to_str().unwrap(), file.contents.as_slice()))
        .collect();
    assert_eq!(
        found,
        [
            ("/tmp/out/a.txt", b"a".as_slice()),
            ("/tmp/out/deep/b.txt", b"b".as_slice())
        ]
    );
    job.outputs = vec!["[".to_owned()];
    let outcome = fixture.run(&job).unwrap();
    assert!(outcome.effects.notes[0].contains("pattern \"[\""));
}

fn missing_paths_are_found_out(fixture: &Fixture) {
    let scratch = fixture.scratch();
    let present = std::env::current_dir().unwrap().join("Cargo.toml");
    let absent = scratch.path().join("absent");
    let run = |program: &std::path::Path| {
        let mut job = fixture.job(&["run", program.to_str().unwrap()]);
        job.trace_missing = true;
        let outcome = fixture.run(&job).unwrap();
        assert!(outcome.status.is_success());
        outcome.effects.missing
    };
    assert!(run(&present).contains(&present));
    assert!(!run(&absent).contains(&absent));
    // Verdicts stay what they are.
    let mut job = fixture.job(&["exit", "7"]);
    job.trace_missing = true;
    assert_eq!(fixture.run(&job).unwrap().status, JobStatus::Exited(7));
}

fn a_terminal_is_handed_over(fixture: &Fixture) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let terminal = rustix::fs::open(
        ptsname(&master, Vec::new()).unwrap(),
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    let mut job = fixture.job(&["terminal"]);
    job.terminal = Some(TerminalSize {
        rows: 24,
        columns: 80,
    });
    let mut slot = fixture.slot();
    let outcome = slot.run_on_terminal(&job, Some(terminal.as_fd())).unwrap();
    assert_eq!(outcome.effects.stdout, JobOutput::None);
    let mut said = [0; 64];
    let length = rustix::io::read(&master, &mut said).unwrap();
    assert_eq!(&said[..length], b"1 1 1 true\r\n");
    // The next job has no terminal.
    let job = fixture.job(&["terminal"]);
    let said = output(slot.run(&job).map_err(|failed| failed.error));
    assert_eq!(said, "0 0 0 false\n");
    assert_eq!(job.privileges, Privileges::None);
}
