use super::{
    bars::Bars,
    fancy::Fancy,
    line::push_test,
    screen::{Area, REDRAW_INTERVAL, Screen, Size},
    sender::{Counts, Event},
    *,
};
use indicatif::{InMemoryTerm, ProgressDrawTarget, TermLike};
use maelstrom_spec::{JobEffects, JobError, JobOutcome, JobOutput, JobStatus};
use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// What was written, and in how many pieces.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<(Vec<u8>, usize)>>);

impl Written {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap()
    }

    fn pieces(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = self.0.lock().unwrap();
        written.0.extend_from_slice(bytes);
        written.1 += 1;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A terminal in memory, written to as standard output is.
struct Terminal(InMemoryTerm);

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8(bytes.to_vec())
            .unwrap()
            .replace('\n', "\r\n");
        self.0.write_str(&text)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn effects(stdout: &str, stderr: &str, duration: Duration) -> JobEffects {
    let output = |text: &str| match text {
        "" => JobOutput::None,
        text => JobOutput::Inline(text.into()),
    };
    JobEffects {
        stdout: output(stdout),
        stderr: output(stderr),
        duration,
        ..JobEffects::default()
    }
}

fn ended(name: &str, status: JobStatus) -> TestReport {
    let effects = effects("out\n", "err\n", Duration::from_millis(12));
    TestReport::of_job(name, 7, Ok(JobOutcome { status, effects }))
}

fn error(name: &str, error: JobError) -> TestReport {
    TestReport::of_job(name, 7, Err(error))
}

/// What is shown of a test, without colours.
fn shown(report: &TestReport, columns: usize) -> String {
    let mut out = Vec::new();
    push_test(&mut out, report, columns, false);
    String::from_utf8(out).unwrap()
}

fn plain_screen(style: Style, listing: bool, columns: usize) -> (Screen, Written, Instant) {
    let written = Written::default();
    let now = Instant::now();
    let size = Size { columns, rows: 24 };
    let out = Box::new(written.clone());
    (
        Screen::new(style, listing, false, size, Area::None, out, now),
        written,
        now,
    )
}

/// Everything that a plain screen shows of these events.
fn transcript(style: Style, listing: bool, columns: usize, events: Vec<Event>) -> String {
    let (mut screen, written, now) = plain_screen(style, listing, columns);
    for event in events {
        screen.handle(event, now);
    }
    screen.finish();
    written.text()
}

fn finished(report: TestReport) -> Event {
    Event::Finished(Box::new(report))
}

fn counts(expected: u64, queued: u64) -> Counts {
    Counts {
        expected,
        queued,
        ..Counts::default()
    }
}

#[test]
fn styles_are_chosen() {
    use UiStyle::*;
    for (style, listing, terminal, expected) in [
        (Auto, false, true, Ok(Style::Fancy)),
        (Auto, true, true, Ok(Style::Simple)),
        (Auto, false, false, Ok(Style::Simple)),
        (Auto, true, false, Ok(Style::Simple)),
        (Simple, true, true, Ok(Style::Simple)),
        (Simple, false, false, Ok(Style::Simple)),
        (Quiet, false, true, Ok(Style::Quiet)),
        (Quiet, false, false, Ok(Style::Quiet)),
        (
            Quiet,
            true,
            false,
            Err("the `quiet` UI cannot list; leave `--ui` out or use `--ui=simple`"),
        ),
        (Fancy, false, true, Ok(Style::Fancy)),
        (
            Fancy,
            true,
            true,
            Err("the `fancy` UI cannot list; leave `--ui` out or use `--ui=simple`"),
        ),
        (
            Fancy,
            false,
            false,
            Err(
                "the `fancy` UI needs a terminal for standard output; leave `--ui` out or use `--ui=simple`",
            ),
        ),
    ] {
        let chosen = Style::choose(style, listing, terminal).map_err(|error| error.to_string());
        assert_eq!(
            chosen,
            expected.map_err(str::to_owned),
            "{style:?} {listing} {terminal}"
        );
    }
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

#[test]
fn simple_style() {
    let events = vec![
        Event::Status("building artifacts...".into()),
        Event::Log(b"a log line\n".to_vec()),
        finished(ended("project foo", JobStatus::Exited(1))),
        finished(ended("project bar", JobStatus::Exited(0))),
        finished(TestReport::ignored("project a")),
        finished(TestReport::ignored("project quux")),
        finished(ended("project bar", JobStatus::Exited(0))),
        Event::Log(b"another without its end".to_vec()),
        Event::BuildOutput(b"Compiling\n".to_vec()),
        Event::RoundEnd(RoundEnd::Complete, counts(5, 5)),
    ];
    assert_eq!(
        transcript(Style::Simple, false, 50, events),
        "\
a log line
project foo..........................FAIL   0.012s
out
stderr: err
project bar............................OK   0.012s
project a.........................IGNORED         \n\
project quux......................IGNORED         \n\
project bar............................OK   0.012s
another without its end

================== Test Summary ==================
Successful Tests:         2
Failed Tests    :         1
    project foo: failure
Ignored Tests   :         2
    project a   : ignored
    project quux: ignored

"
    );
}

#[test]
fn collection_output_comes_last() {
    let events = |style| {
        let events = vec![
            Event::CollectionOutput(b"warning: ".to_vec()),
            finished(ended("a", JobStatus::TimedOut)),
            finished(error("漢", JobError::System("x".into()))),
            Event::CollectionOutput(b"unused".to_vec()),
            Event::RoundEnd(RoundEnd::Stopped { all_queued: false }, counts(9, 3)),
        ];
        transcript(style, false, 21, events)
    };
    let summary = "
=== Test Summary ===
Successful Tests:         0
Failed Tests    :         2
    a : failure
    漢: failure
Tests Not Run   :        ~7
warning: unused
";
    assert_eq!(events(Style::Quiet), summary);
    assert_eq!(
        events(Style::Simple),
        format!(
            "a....TIMEOUT   0.012s\nout\nstderr: err\n漢.......ERR         \nsystem error: x\n{summary}"
        )
    );
}

#[test]
fn quiet_style_without_collection_output_ends_with_the_summary() {
    let events = vec![
        finished(ended("a", JobStatus::Exited(0))),
        Event::RoundEnd(RoundEnd::Complete, counts(1, 1)),
    ];
    assert_eq!(
        transcript(Style::Quiet, false, 30, events),
        "\n======== Test Summary ========\nSuccessful Tests:         1\nFailed Tests    :         0\n"
    );
}

#[test]
fn listing() {
    let events = vec![
        Event::Line("project foo".into()),
        Event::Line("project bar".into()),
        Event::RoundEnd(RoundEnd::Complete, counts(2, 2)),
    ];
    assert_eq!(
        transcript(Style::Simple, true, 80, events),
        "project foo\nproject bar\n\n"
    );
}

#[test]
fn tests_that_were_not_run() {
    for (finished_tests, expected, queued, all_queued, line) in [
        (2, 10, 9, true, "        7"),
        (2, 0, 2, true, "        0"),
        (2, 10, 9, false, "       ~8"),
        (2, 9, 9, false, "       ~7"),
        (2, 8, 9, false, "       >7"),
        (9, 8, 9, false, "unknown number of"),
        (0, 0, 0, false, "unknown number of"),
        (1, 0, 4, false, "       >3"),
    ] {
        let mut events: Vec<Event> = (0..finished_tests)
            .map(|_| finished(ended("a", JobStatus::Exited(0))))
            .collect();
        events.push(Event::RoundEnd(
            RoundEnd::Stopped { all_queued },
            counts(expected, queued),
        ));
        let text = transcript(Style::Quiet, false, 40, events);
        let expected_line = format!("Tests Not Run   : {line}");
        assert_eq!(
            text.lines().last().unwrap(),
            expected_line,
            "{finished_tests} {expected} {queued}"
        );
    }
}

#[test]
fn every_round_begins_anew() {
    let round = || {
        vec![
            Event::CollectionOutput(b"warning\n".to_vec()),
            finished(ended("a", JobStatus::Exited(1))),
            Event::RoundEnd(RoundEnd::Complete, counts(1, 1)),
        ]
    };
    let one = transcript(Style::Simple, false, 40, round());
    let two = transcript(
        Style::Simple,
        false,
        40,
        round().into_iter().chain(round()).collect(),
    );
    assert_eq!(two, one.repeat(2));
}

#[test]
fn collection_output_is_bounded() {
    let events = vec![
        Event::CollectionOutput(vec![b'x'; 16 << 20]),
        Event::CollectionOutput(b"more".to_vec()),
        Event::RoundEnd(RoundEnd::Complete, counts(0, 0)),
    ];
    let text = transcript(Style::Quiet, false, 40, events);
    assert!(text.ends_with("x\n(4 more bytes of this output are not shown)\n"));
}

#[test]
fn lines_wait_a_little_for_others() {
    let (mut screen, written, now) = plain_screen(Style::Simple, false, 40);
    assert_eq!(screen.next_deadline(), None);
    screen.handle(finished(ended("a", JobStatus::Exited(0))), now);
    let deadline = screen.next_deadline().unwrap();
    assert_eq!(deadline, now + Duration::from_millis(50));
    screen.handle(
        finished(ended("b", JobStatus::Exited(0))),
        now + Duration::from_millis(40),
    );
    assert_eq!(
        screen.next_deadline(),
        Some(deadline),
        "the first line does not wait longer"
    );
    screen.advance(Counts::default(), now + Duration::from_millis(49));
    assert_eq!(written.pieces(), 0);
    screen.advance(Counts::default(), deadline);
    assert_eq!((written.pieces(), written.text().lines().count()), (1, 2));
    assert_eq!(screen.next_deadline(), None);
    // A lot does not wait.
    screen.handle(Event::Log(vec![b'x'; 64 << 10]), now);
    assert_eq!(written.pieces(), 2);
}

/// A writer that fails.
struct Broken(io::ErrorKind);

impl Write for Broken {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn start(out: impl Write + Send + 'static) -> (Ui, UiSender) {
    let size = Size {
        columns: 40,
        rows: 24,
    };
    let screen = Screen::new(
        Style::Simple,
        false,
        false,
        size,
        Area::None,
        Box::new(out),
        Instant::now(),
    );
    Ui::start_on(
        screen,
        || Size {
            columns: 40,
            rows: 24,
        },
        false,
    )
    .unwrap()
}

/// Waits until `condition` holds.
fn wait_for(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "this takes too long");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn nobody_reading_is_no_error() {
    let (ui, sender) = start(Broken(io::ErrorKind::BrokenPipe));
    assert!(!sender.is_closed());
    sender.line("x");
    wait_for(|| sender.is_closed());
    for _ in 0..1000 {
        sender.line("x");
    }
    ui.finish().unwrap();
}

#[test]
fn other_failures_to_write_are_errors() {
    let (ui, sender) = start(Broken(io::ErrorKind::StorageFull));
    sender.line("x");
    wait_for(|| sender.is_closed());
    assert_eq!(ui.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
}

#[test]
fn ten_thousand_tests_are_few_writes() {
    let written = Written::default();
    let (ui, sender) = start(written.clone());
    let start = Instant::now();
    sender.queued(10_000);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for index in 0..2500 {
                    sender.pending();
                    sender.running(index, "a");
                    sender.finished(ended("a", JobStatus::Exited(0)));
                }
            });
        }
    });
    sender.end_round(RoundEnd::Complete);
    ui.finish().unwrap();
    let text = written.text();
    assert_eq!(
        text.lines()
            .filter(|line| line.ends_with("OK   0.012s"))
            .count(),
        10_000
    );
    assert!(text.contains("Successful Tests:     10000\n"));
    let by_time = start.elapsed().as_millis() as usize / 50;
    let by_size = text.len() / (64 << 10);
    assert!(
        written.pieces() <= by_time + by_size + 3,
        "{} pieces",
        written.pieces()
    );
}

#[test]
fn log_lines_go_through_the_ui() {
    let written = Written::default();
    let (ui, sender) = start(written.clone());
    let mut writer = sender.log_writer();
    sender.line("before");
    writer.write_all(b"a log line\n").unwrap();
    sender.line("after");
    ui.finish().unwrap();
    assert_eq!(written.text(), "before\na log line\nafter\n");
}

#[test]
fn an_abandoned_ui_ends_although_nothing_is_read() {
    /// A writer that never returns while the other end lives.
    struct Stuck(crossbeam_channel::Receiver<()>);
    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (hold, stuck) = crossbeam_channel::bounded(0);
    let (ui, sender) = start(Stuck(stuck));
    sender.send(Event::Log(vec![b'x'; 64 << 10]));
    ui.abandon();
    drop(hold);
}

fn terminal_screen(style: Style, listing: bool, rows: u16) -> (Screen, InMemoryTerm, Instant) {
    let terminal = InMemoryTerm::new(rows, 60);
    let area = match style {
        Style::Fancy => Area::Fancy(Fancy::default()),
        _ => {
            let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
            Area::Bars(Bars::new(target, style, listing))
        }
    };
    let now = Instant::now();
    let size = Size {
        columns: 60,
        rows: rows.into(),
    };
    let out = Box::new(Terminal(terminal.clone()));
    (
        Screen::new(style, listing, false, size, area, out, now),
        terminal,
        now,
    )
}

const COUNTS: Counts = Counts {
    expected: 20,
    queued: 15,
    pending: 10,
    running: 5,
};

#[test]
fn bars_of_the_simple_style() {
    let (mut screen, terminal, now) = terminal_screen(Style::Simple, false, 24);
    screen.handle(Event::Status("building artifacts...".into()), now);
    screen.advance(COUNTS, now);
    let bars = |filled: [usize; 4], labels: [&str; 4]| {
        let lines = filled.iter().zip(labels).map(|(filled, label)| {
            format!("{}{} {label}", "█".repeat(*filled), "░".repeat(32 - filled))
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    let contents = terminal.contents();
    let (status, rest) = contents.split_once('\n').unwrap();
    assert!(status.ends_with(" building artifacts..."), "{status}");
    assert_eq!(
        rest,
        bars(
            [24, 16, 8, 0],
            [
                "15/20 waiting for artifacts",
                "10/20 pending",
                " 5/20 running",
                " 0/20 complete"
            ]
        )
    );

    // Lines go above the bars; the number of tests never shrinks.
    screen.handle(finished(ended("a", JobStatus::Exited(1))), now);
    screen.handle(finished(ended("b", JobStatus::Exited(0))), now);
    screen.advance(
        Counts {
            expected: 10,
            ..COUNTS
        },
        now,
    );
    assert!(
        !terminal.contents().contains("FAIL"),
        "not before it is time"
    );
    screen.advance(
        Counts {
            expected: 10,
            ..COUNTS
        },
        now + REDRAW_INTERVAL,
    );
    screen.advance(
        Counts {
            expected: 10,
            ..COUNTS
        },
        now + 2 * REDRAW_INTERVAL,
    );
    let contents = terminal.contents();
    assert!(
        contents.starts_with(
            "a..............................................FAIL   0.012s\nout\nstderr: err\nb...."
        ),
        "{contents}"
    );
    assert!(
        contents.ends_with(&bars(
            [24, 16, 8, 3],
            [
                "15/20 waiting for artifacts",
                "10/20 pending",
                " 5/20 running",
                " 2/20 completed (1 failed)"
            ]
        )),
        "{contents}"
    );

    screen.handle(Event::RoundEnd(RoundEnd::Complete, COUNTS), now);
    let contents = terminal.contents();
    assert!(
        contents.ends_with("Failed Tests    :         1\n    a: failure"),
        "{contents}"
    );
    screen.finish();
    assert_eq!(terminal.contents(), contents, "nothing is left of the bars");
}

#[test]
fn transfers_have_bars_of_their_own() {
    let (mut screen, terminal, now) = terminal_screen(Style::Simple, true, 24);
    let transfer = |bytes| Event::Transfer {
        id: TransferId(1),
        label: "alpine".into(),
        bytes,
        total: Some(2048),
    };
    screen.handle(transfer(512), now);
    screen.handle(transfer(1024), now);
    screen.advance(Counts::default(), now);
    assert!(
        terminal.contents().ends_with("1.02 kB/2.05 kB alpine"),
        "{}",
        terminal.contents()
    );
    screen.handle(Event::TransferDone(TransferId(1)), now);
    screen.advance(Counts::default(), now + REDRAW_INTERVAL);
    assert!(
        !terminal.contents().contains("alpine"),
        "{}",
        terminal.contents()
    );
}

#[test]
fn bar_of_the_quiet_style() {
    let (mut screen, terminal, now) = terminal_screen(Style::Quiet, false, 24);
    screen.handle(Event::Status("building artifacts...".into()), now);
    screen.handle(finished(ended("a", JobStatus::Exited(1))), now);
    screen.advance(COUNTS, now);
    assert_eq!(
        terminal.contents(),
        format!("██{}  1/20 tests", "░".repeat(46))
    );
    screen.handle(Event::RoundEnd(RoundEnd::Complete, COUNTS), now);
    screen.finish();
    assert!(
        terminal.contents().ends_with("    a: failure"),
        "{}",
        terminal.contents()
    );
}

#[test]
fn area_of_the_fancy_style() {
    let (mut screen, terminal, now) = terminal_screen(Style::Fancy, false, 40);
    screen.handle(Event::Status("building artifacts...".into()), now);
    screen.handle(
        Event::Running {
            job: 3,
            name: "project slow".into(),
        },
        now,
    );
    let later = now + Duration::from_secs(12);
    screen.handle(
        Event::Running {
            job: 4,
            name: "project quick".into(),
        },
        later,
    );
    screen.handle(
        Event::Running {
            job: 5,
            name: "project done".into(),
        },
        later,
    );
    screen.handle(
        finished(TestReport {
            job: 5,
            ..ended("project done", JobStatus::Exited(1))
        }),
        later,
    );
    let transfer = Event::Transfer {
        id: TransferId(1),
        label: "alpine".into(),
        bytes: 500_000,
        total: Some(1_000_000),
    };
    screen.handle(transfer, later);
    screen.handle(
        Event::BuildOutput(b"one\ntwo\r\x1b[1mthree\x1b[0m\nfour\nfi".to_vec()),
        later,
    );
    screen.advance(COUNTS, later);
    let contents = terminal.contents();
    let expected = "\
project done...................................FAIL   0.012s
out
stderr: err
project slow                                            12s
project quick                                           <1s
━━━━━━━━━━╌╌╌╌╌╌╌╌╌╌ 500.0 kB of 1.0 MB alpine
│ two
│ three
│ four
╭ 1 failed
│ project done
⣯ building artifacts...
                  5w 5p 4r 1c (1f) / 20e";
    assert_eq!(contents.trim_end(), expected, "\n{contents}");

    // Drawn over itself, then gone.
    screen.handle(Event::TransferDone(TransferId(1)), later);
    screen.advance(COUNTS, later + REDRAW_INTERVAL);
    let contents = terminal.contents();
    assert!(
        !contents.contains("alpine") && contents.matches("project slow").count() == 1,
        "{contents}"
    );
    screen.handle(Event::RoundEnd(RoundEnd::Complete, COUNTS), later);
    screen.finish();
    assert_eq!(
        terminal.contents(),
        "project done...................................FAIL   0.012s\nout\nstderr: err\n\n\
         \u{20}                       Test Summary\n\
         Successful Tests:         0\nFailed Tests    :         1\n    project done: failure"
    );
}

#[test]
fn the_fancy_area_fits_every_screen() {
    for (columns, rows) in [(0, 0), (1, 1), (2, 2), (5, 3), (20, 6), (60, 8), (300, 100)] {
        let mut fancy = Fancy::default();
        let now = Instant::now();
        for job in 0..50 {
            fancy.running(job, format!("漢字漢字漢字 {job}"), now);
            fancy.finished(&TestReport {
                job,
                ..ended("failed 漢字", JobStatus::Exited(1))
            });
            fancy.running(job, "x".repeat(400), now);
            fancy.transfer(TransferId(job), "y".repeat(400), 5, Some(0));
            fancy.transfer(TransferId(100 + job), "z".into(), 5, None);
        }
        fancy.build_output("漢\n".repeat(1000).as_bytes());
        fancy.build_output(&vec![b'x'; 1 << 20]);
        let progress = screen::Progress {
            status: "s".repeat(400),
            total: u64::MAX,
            queued: u64::MAX,
            ..screen::Progress::default()
        };
        fancy.update(&progress, Size { columns, rows }, now);
        let mut out = Vec::new();
        fancy.print(&mut out, b"").unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.split('\n').collect();
        assert!(
            lines.len() <= (rows / 4).max(6).min(rows.saturating_sub(1)).max(1),
            "{columns}x{rows}: {text}"
        );
    }
}
