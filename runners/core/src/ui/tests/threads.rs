//! The thread that owns the screen, and writers that fail it.

use super::*;

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
                    sender.running(index, "a", None, false);
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
