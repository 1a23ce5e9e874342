mod lines;
mod screens;
mod terminal;
mod threads;

use super::{
    screen::{Area, Screen, Size},
    sender::{Counts, Event},
    *,
};
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
