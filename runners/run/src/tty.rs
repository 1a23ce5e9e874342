//! TTY mode: one job, on the user's terminal.

use crate::{
    end::die_by,
    escape::{Command, EscapeChar, EscapeFilter, PATIENCE},
    one::ending_of,
    print::print,
    report::{Ending, pieces_of_only_job},
    terminal::{RawMode, open_pty, resize, size_of},
};
use anyhow::{Context as _, Result};
use crossbeam_channel::{Receiver, TryRecvError, bounded};
use maelstrom_node::JobEvent;
use maelstrom_runner::client::{Client, JobRequest};
use maelstrom_runtime::TerminalSize;
use maelstrom_spec::{JobError, JobOutcome, JobSpec};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{BorrowedFd, OwnedFd},
    io::Errno,
    stdio,
};
use signal_hook::{
    SigId,
    consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH},
    flag,
    low_level::{emulate_default_handler, pipe, unregister},
};
use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Typed bytes that the job has not read. Beyond this, nothing more is read from the terminal.
const MAX_UNREAD_BYTES: usize = 64 << 10;
/// How long the rest of the job's output may take to come out of its terminal when it has ended.
const LINGER: Duration = Duration::from_secs(1);

/// Runs the job on this terminal and says how to end. What `maelstrom-run` was told to do by a
/// signal or an escape sequence happens here.
pub(crate) fn run(
    client: &Client,
    project_dir: &Path,
    spec: &JobSpec,
    escape: EscapeChar,
) -> Result<Ending> {
    let size = size_of(stdio::stdin())?;
    let (ours, theirs) = open_pty(size)?;
    show("waiting for the job to start")?;
    let result = run_to_end(client, spec, escape, ours, theirs, size)?;
    print(&pieces_of_only_job(&result));
    Ok(ending_of(project_dir, &result))
}

fn run_to_end(
    client: &Client,
    spec: &JobSpec,
    escape: EscapeChar,
    ours: OwnedFd,
    theirs: OwnedFd,
    size: rustix::termios::Winsize,
) -> Result<Result<JobOutcome, JobError>> {
    let container = match client.prepare_job(spec) {
        Ok(container) => container,
        Err(error) => {
            show("")?;
            return Ok(Err(error));
        }
    };
    let terminal_size = TerminalSize {
        rows: size.ws_row,
        columns: size.ws_col,
    };
    let mut request = JobRequest::from_spec(container, spec);
    request.terminal = Some((theirs, terminal_size));

    let (wake, woken) = UnixStream::pair().context("making a pair of sockets")?;
    woken.set_nonblocking(true)?;
    let handler_wake = wake.try_clone()?;
    let (sender, events) = bounded(2);
    client.submit(request, move |_, event| {
        let _ = sender.send(event);
        // The session wakes up by itself when this cannot be written because there is so much.
        let _ = (&handler_wake).write(&[0]);
    });
    match events.recv() {
        Ok(JobEvent::Running { .. }) => {}
        Ok(JobEvent::Completed(result)) => {
            show("")?;
            return Ok(result);
        }
        Err(_) => return Ok(Err(dropped())),
    }
    show(&format!(
        "running; {escape} ^C kills maelstrom-run, {escape} ^Z suspends it, {escape} {escape} types {escape}\n"
    ))?;
    let signals = Signals::watch(&wake)?;
    let session = Session {
        raw_mode: RawMode::enter(stdio::stdin())?,
        typed: Some(stdio::stdin()),
        filter: EscapeFilter::new(escape),
        to_job: Vec::new(),
        ours,
        woken,
        events,
        signals,
    };
    session.run()
}

fn dropped() -> JobError {
    JobError::System("the node dropped the job".into())
}

/// Replaces the line that says what is going on.
fn show(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    write!(stdout, "\r\x1b[K{text}").context("writing to the terminal")?;
    stdout.flush().context("writing to the terminal")
}

/// Which signals have come.
struct Signals {
    ids: Vec<SigId>,
    end: [(i32, Arc<AtomicBool>); 4],
    suspend: Arc<AtomicBool>,
    resumed: Arc<AtomicBool>,
    resized: Arc<AtomicBool>,
}

impl Signals {
    /// From now on signals write to `wake` and are remembered.
    fn watch(wake: &UnixStream) -> Result<Self> {
        let mut ids = Vec::new();
        let mut watch = |signal| {
            let flag = Arc::new(AtomicBool::new(false));
            let mut register = || -> io::Result<()> {
                ids.push(flag::register(signal, flag.clone())?);
                ids.push(pipe::register(signal, wake.try_clone()?)?);
                Ok(())
            };
            register().context("watching for signals").map(|()| flag)
        };
        Ok(Signals {
            end: [
                (SIGINT, watch(SIGINT)?),
                (SIGTERM, watch(SIGTERM)?),
                (SIGHUP, watch(SIGHUP)?),
                (SIGQUIT, watch(SIGQUIT)?),
            ],
            suspend: watch(SIGTSTP)?,
            resumed: watch(SIGCONT)?,
            resized: watch(SIGWINCH)?,
            ids,
        })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            unregister(id);
        }
    }
}

/// A job and a terminal that talk to each other.
struct Session<'a> {
    raw_mode: RawMode<'a>,
    /// Where typing comes from; `None` after its end.
    typed: Option<BorrowedFd<'a>>,
    filter: EscapeFilter,
    to_job: Vec<u8>,
    ours: OwnedFd,
    woken: UnixStream,
    events: Receiver<JobEvent>,
    signals: Signals,
}

impl Session<'_> {
    fn run(mut self) -> Result<Result<JobOutcome, JobError>> {
        let mut escape_deadline = None;
        loop {
            self.obey_signals()?;
            match self.events.try_recv() {
                Ok(JobEvent::Completed(result)) => {
                    self.drain()?;
                    return Ok(result);
                }
                Ok(JobEvent::Running { .. }) | Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Ok(Err(dropped())),
            }
            if !self.filter.is_pending() {
                escape_deadline = None;
            } else if Instant::now()
                >= *escape_deadline.get_or_insert_with(|| Instant::now() + PATIENCE)
            {
                self.filter.flush(&mut self.to_job);
                continue;
            }
            let ready = self.wait(escape_deadline)?;
            if ready.output && !self.copy_output()? {
                // The job's side is closed: its end is to be announced any moment.
                self.wait_for_end()?;
                continue;
            }
            if ready.input {
                self.read_typed()?;
            }
            self.write_to_job();
        }
    }

    /// Waits until there is something to do.
    fn wait(&mut self, deadline: Option<Instant>) -> Result<Ready> {
        let timeout =
            deadline.map(|deadline| timespec(deadline.saturating_duration_since(Instant::now())));
        let mut job_events = PollFlags::IN;
        if !self.to_job.is_empty() {
            job_events |= PollFlags::OUT;
        }
        let mut descriptors = vec![
            PollFd::new(&self.ours, job_events),
            PollFd::new(&self.woken, PollFlags::IN),
        ];
        if self.to_job.len() < MAX_UNREAD_BYTES {
            descriptors.extend(
                self.typed
                    .map(|typed| PollFd::from_borrowed_fd(typed, PollFlags::IN)),
            );
        }
        match poll(&mut descriptors, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for the terminal"),
        }
        let readable = |descriptor: &PollFd<'_>| {
            let flags = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
            descriptor.revents().intersects(flags)
        };
        let ready = Ready {
            output: readable(&descriptors[0]),
            input: descriptors.get(2).is_some_and(readable),
        };
        let mut ignored = [0; 64];
        while matches!((&self.woken).read(&mut ignored), Ok(1..)) {}
        Ok(ready)
    }

    /// Only the announcement of the job's end and signals matter.
    fn wait_for_end(&mut self) -> Result<()> {
        let mut descriptors = [PollFd::new(&self.woken, PollFlags::IN)];
        match poll(
            &mut descriptors,
            Some(&timespec(Duration::from_millis(100))),
        ) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("waiting for the job's end"),
        }
    }

    /// Shows what the job has written. Returns whether more may come.
    fn copy_output(&mut self) -> Result<bool> {
        let mut buffer = [0; 16 << 10];
        match rustix::io::read(&self.ours, &mut buffer[..]) {
            Ok(0) | Err(Errno::IO) => Ok(false),
            Err(Errno::AGAIN | Errno::INTR) => Ok(true),
            Err(error) => Err(error).context("reading the job's terminal"),
            Ok(count) => {
                let mut stdout = io::stdout().lock();
                stdout
                    .write_all(&buffer[..count])
                    .and_then(|()| stdout.flush())
                    .context("writing to the terminal")?;
                Ok(true)
            }
        }
    }

    /// Shows what the job wrote before it ended. Its terminal says when that was all.
    fn drain(&mut self) -> Result<()> {
        let deadline = Instant::now() + LINGER;
        while self.copy_output()? {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut descriptors = [PollFd::new(&self.ours, PollFlags::IN)];
            match poll(&mut descriptors, Some(&timespec(left))) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("reading the job's terminal"),
            }
        }
        Ok(())
    }

    fn read_typed(&mut self) -> Result<()> {
        let Some(typed) = self.typed else {
            return Ok(());
        };
        let mut buffer = [0; 4096];
        match rustix::io::read(typed, &mut buffer) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            // The end of what is typed is not the end of the session.
            Ok(0) | Err(_) => {
                self.filter.flush(&mut self.to_job);
                self.typed = None;
            }
            Ok(count) => {
                for byte in &buffer[..count] {
                    match self.filter.push(*byte, &mut self.to_job) {
                        None => {}
                        Some(Command::Kill) => {
                            self.raw_mode.leave();
                            die_by(SIGINT);
                        }
                        Some(Command::Suspend) => self.suspend()?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Passes on what was typed, as much as the job's terminal takes.
    fn write_to_job(&mut self) {
        while !self.to_job.is_empty() {
            match rustix::io::write(&self.ours, &self.to_job) {
                Ok(count) => {
                    self.to_job.drain(..count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // The job's side is closed; its end is on its way.
                Err(_) => self.to_job.clear(),
            }
        }
    }

    fn obey_signals(&mut self) -> Result<()> {
        for (signal, has_come) in &self.signals.end {
            if has_come.swap(false, Ordering::Relaxed) {
                self.raw_mode.leave();
                die_by(*signal);
            }
        }
        if self.signals.suspend.swap(false, Ordering::Relaxed) {
            self.suspend()?;
        }
        if self.signals.resumed.swap(false, Ordering::Relaxed) {
            self.raw_mode.reenter()?;
            resize(&self.ours, size_of(stdio::stdin())?)?;
        }
        if self.signals.resized.swap(false, Ordering::Relaxed) {
            resize(&self.ours, size_of(stdio::stdin())?)?;
        }
        Ok(())
    }

    /// Stops this process until somebody continues it, with the terminal as it was.
    fn suspend(&mut self) -> Result<()> {
        self.raw_mode.leave();
        emulate_default_handler(SIGTSTP).context("suspending")?;
        self.raw_mode.reenter()?;
        resize(&self.ours, size_of(stdio::stdin())?)
    }
}

/// What there is to do.
struct Ready {
    output: bool,
    input: bool,
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
