//! Whole runs where standard output is no terminal.

use super::*;

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
fn the_summary_tells_where_tests_ran() {
    let on = |node: &str| TestReport {
        node: Some(node.into()),
        ..ended("a", JobStatus::Exited(0))
    };
    let events = vec![
        finished(ended("a", JobStatus::Exited(0))),
        finished(on("build2")),
        finished(TestReport::ignored("b")),
        finished(on("x")),
        finished(on("build2")),
        Event::RoundEnd(RoundEnd::Complete, counts(5, 5)),
    ];
    let shown = transcript(Style::Quiet, false, 30, events);
    assert!(
        shown.ends_with(
            "\
Ran Here        :         1
Ran Elsewhere   :         3
    build2:         2
    x     :         1
"
        ),
        "{shown}"
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
