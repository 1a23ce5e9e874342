//! Lines of finished tests and what is shown below them.

use super::{super::line::push_test, *};

/// What is shown of a test, without colours.
fn shown(report: &TestReport, columns: usize) -> String {
    let mut out = Vec::new();
    push_test(&mut out, report, columns, false);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_tests_line_fills_the_screen() {
    let line = |report, columns| shown(&report, columns).lines().next().unwrap().to_owned();
    let failed = || ended("project foo", JobStatus::Exited(1));
    assert_eq!(
        line(failed(), 50),
        "project foo..........................FAIL   0.012s"
    );
    for (report, expected) in [
        (
            ended("a", JobStatus::Exited(0)),
            "a............................OK   0.012s",
        ),
        (
            ended("a", JobStatus::Signaled(6)),
            "a..........................FAIL   0.012s",
        ),
        (
            ended("a", JobStatus::OutOfMemory),
            "a..........................FAIL   0.012s",
        ),
        (
            ended("a", JobStatus::TimedOut),
            "a.......................TIMEOUT   0.012s",
        ),
        (
            error("a", JobError::System("x".into())),
            "a...........................ERR         ",
        ),
        (
            TestReport::ignored("a"),
            "a.......................IGNORED         ",
        ),
        (
            ended("漢字", JobStatus::Exited(0)),
            "漢字.........................OK   0.012s",
        ),
        (
            ended("new\nline\x1b[31m", JobStatus::Exited(0)),
            "new\u{fffd}line\u{fffd}[31m................OK   0.012s",
        ),
    ] {
        assert_eq!(line(report, 40), expected);
    }
    let slow = TestReport {
        duration: Some(Duration::from_millis(12_345_678)),
        ..ended("a", JobStatus::Exited(0))
    };
    assert_eq!(line(slow, 40), "a..........................OK 12345.678s");
}

#[test]
fn long_names_lose_their_beginning() {
    let line = |name: &str, columns| {
        let text = shown(&ended(name, JobStatus::Exited(0)), columns);
        text.trim_end_matches('\n').to_owned()
    };
    assert_eq!(line("0123456789", 22), "0123456789.OK   0.012s");
    assert_eq!(line("0123456789", 21), "<23456789.OK   0.012s");
    assert_eq!(line("0123456789", 13), "<.OK   0.012s");
    // No room for a dot.
    assert_eq!(line("0123456789", 12), "0123456789 OK");
    assert_eq!(line("0123456789", 10), "0123456789 OK");
    assert_eq!(line("0123456789", 0), "0123456789 OK");
    // Half of a wide character is a dot.
    assert_eq!(line("漢字漢字漢字", 21), "<漢字漢字.OK   0.012s");
    assert_eq!(line("漢字漢字漢字", 20), "<字漢字..OK   0.012s");
}

#[test]
fn what_failed_shows_its_output() {
    let report = TestReport {
        detail: Some("killed by signal 6".into()),
        ..TestReport::of_job(
            "a",
            7,
            Ok(JobOutcome {
                status: JobStatus::Signaled(6),
                effects: JobEffects {
                    stdout: JobOutput::Truncated {
                        first: b"one\n\ntwo".to_vec(),
                        dropped_bytes: 5,
                    },
                    stderr: JobOutput::Truncated {
                        first: b"\nthree\n\nfour\n".to_vec(),
                        dropped_bytes: 6,
                    },
                    ..JobEffects::default()
                },
            }),
        )
    };
    assert_eq!(
        shown(&report, 24),
        "a..........FAIL   0.000s\n\
         killed by signal 6\n\
         one\n\ntwo\n\
         job 7: stdout truncated, 5 bytes lost\n\
         stderr: three\n\
         stderr: four\n\
         job 7: stderr truncated, 6 bytes lost\n"
    );
    let noted = TestReport {
        notes: vec![
            "missing in the container: /usr/bin/git\nadd these lines:".into(),
            "  layers = []".into(),
        ],
        ..ended("a", JobStatus::Exited(1))
    };
    assert_eq!(
        shown(&noted, 10),
        "a FAIL\nout\nstderr: err\nmissing in the container: /usr/bin/git\nadd these lines:\n  layers = []\n"
    );
}

#[test]
fn detail_lines() {
    for (report, detail) in [
        (ended("a", JobStatus::Exited(101)), None),
        (ended("a", JobStatus::TimedOut), None),
        (
            ended("a", JobStatus::Signaled(9)),
            Some("killed by signal 9"),
        ),
        (
            error("a", JobError::Execution("no such file".into())),
            Some("execution error: no such file"),
        ),
        (
            error("a", JobError::System("full".into())),
            Some("system error: full"),
        ),
        (
            error("a", JobError::Remote("gone".into())),
            Some("remote error: gone"),
        ),
    ] {
        assert_eq!(report.detail.as_deref(), detail);
        let second = shown(&report, 40).lines().nth(1).map(str::to_owned);
        assert_eq!(second.as_deref(), detail.or(Some("out")));
    }
}

#[test]
fn what_passed_or_was_ignored_shows_nothing() {
    let passed = ended("a", JobStatus::Exited(0));
    assert_eq!(shown(&passed, 40).lines().count(), 1);
    let skipped = TestReport {
        verdict: Verdict::Ignored,
        ..ended("a", JobStatus::Exited(0))
    };
    assert_eq!(
        shown(&skipped, 40),
        "a.......................IGNORED         \n"
    );
}

#[test]
fn colours() {
    let mut out = Vec::new();
    let mut report = ended("a", JobStatus::Exited(1));
    report.stdout.bytes = b"\x1b[32mgreen\nplain".to_vec();
    report.notes = vec!["note".into()];
    push_test(&mut out, &report, 20, true);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "\x1b[1ma\x1b[0m......\x1b[31mFAIL\x1b[0m   0.012s\n\
         \x1b[32mgreen\x1b[0m\nplain\n\
         \x1b[31mstderr: \x1b[0merr\n\
         \x1b[33mnote\x1b[0m\n"
    );
    for (verdict, code) in [
        (Verdict::Ok, 32),
        (Verdict::TimedOut, 31),
        (Verdict::Error, 31),
        (Verdict::Ignored, 33),
    ] {
        let mut out = Vec::new();
        push_test(
            &mut out,
            &TestReport {
                verdict,
                ..TestReport::ignored("a")
            },
            40,
            true,
        );
        let word = format!("\x1b[{code}m{}\x1b[0m", verdict.word());
        assert!(String::from_utf8(out).unwrap().contains(&word));
    }
}
