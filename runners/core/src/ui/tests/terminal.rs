//! What is on a terminal while tests run.

use super::{
    super::{
        bars::Bars,
        fancy::Fancy,
        screen::{Progress, REDRAW_INTERVAL},
    },
    *,
};
use indicatif::{InMemoryTerm, ProgressDrawTarget, TermLike};

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
        let progress = Progress {
            status: "s".repeat(400),
            total: u64::MAX,
            queued: u64::MAX,
            ..Progress::default()
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
