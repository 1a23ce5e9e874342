//! A running container as its slot sees it: output, timeout, cancellation, and the end.

use crate::{
    cgroup::MemoryKills,
    init::InitReport,
    last_words::{self, Namespace},
    outputs, rewind,
    slot_process::ToSlot,
    template::{self, Answer, Fork},
    wire::{self, Stream},
};
use maelstrom_spec::{JobEffects, JobError, JobOutcome, JobOutput, JobStatus};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd, OwnedFd},
    fs::OFlags,
    io::Errno,
    process::Signal,
};
use std::{
    io,
    mem::MaybeUninit,
    time::{Duration, Instant},
};

/// How long a program runs before its output is read while it runs. Most tests end sooner, and
/// then cost no wake-up; the pipe holds what they write.
const QUIET: Duration = Duration::from_millis(10);

/// Why the container was killed by its slot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Killed {
    TimedOut,
    Cancelled,
}

/// A running container, watched from outside.
pub(crate) struct Watch<'s> {
    /// From the client. Cancels the job with this number.
    pub(crate) control: &'s OwnedFd,
    pub(crate) number: u64,
    /// What the container reports through.
    pub(crate) link: OwnedFd,
    /// Counts ended containers that have not been waited for.
    pub(crate) unreaped: &'s mut usize,
    pub(crate) memory: &'s mut MemoryKills,
    /// The container's first process.
    pub(crate) process: OwnedFd,
    pub(crate) stdout: Capture,
    pub(crate) stderr: Capture,
    pub(crate) outputs: Option<OwnedFd>,
    pub(crate) started: Instant,
    pub(crate) timeout: Option<Duration>,
    /// The PID namespace of the container, if it is known from the beginning.
    pub(crate) namespace: Option<Namespace>,
    /// What runs in the container, if it is a template's fork, until its end is known.
    pub(crate) fork: Option<Fork<'s>>,
    /// What the fork is rewound by, if it can be.
    pub(crate) rewinds: Option<rewind::Fork>,
    /// Why the end of the fork will never be known.
    pub(crate) lost: Option<String>,
    /// Whether a fork is known to have left nothing in a network that others are to use.
    pub(crate) left_clean: bool,
}

impl Watch<'_> {
    /// Waits for the end of the container. The outer error means that the client has gone.
    pub(crate) fn until_the_end(&mut self) -> io::Result<Result<JobOutcome, JobError>> {
        let mut killed = None;
        // When its time is over, and then that of its last words.
        let mut deadline = self
            .timeout
            .and_then(|timeout| self.started.checked_add(timeout));
        // While quiet, output is left in its pipes.
        let mut quiet = true;
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let wait = match (quiet, left) {
                (true, Some(left)) => Some(left.min(QUIET)),
                (true, None) => Some(QUIET),
                (false, left) => left,
            };
            let events = self.poll(wait, quiet)?;
            if quiet {
                quiet = self.started.elapsed() < QUIET;
            }
            if events.output {
                self.stdout.drain()?;
                self.stderr.drain()?;
            }
            if events.over {
                return self.over(killed);
            }
            if events.answer {
                self.read_answer();
            }
            if events.fork_over
                && let Some(rewinds) = &mut self.rewinds
            {
                rewinds.spoil();
            }
            if events.call
                && let Some(status) = self.answer_call()
                && killed.is_none()
            {
                self.stdout.drain()?;
                self.stderr.drain()?;
                self.left_clean = true;
                return Ok(Ok(self.outcome(status, self.started.elapsed())));
            }
            if events.control && self.read_control()? && killed.is_none() {
                killed = Some(Killed::Cancelled);
                deadline = None;
                self.kill();
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                deadline = None;
                if killed.is_none() && self.ask_for_last_words() {
                    deadline = Instant::now().checked_add(last_words::ANSWER_MAX);
                } else {
                    self.kill();
                }
                killed = Some(Killed::TimedOut);
            }
        }
    }

    fn poll(&self, wait: Option<Duration>, quiet: bool) -> io::Result<Events> {
        let read = PollFlags::IN;
        let mut descriptors = vec![
            PollFd::new(&self.link, read),
            PollFd::new(&self.process, read),
            PollFd::new(self.control, read),
        ];
        if let Some(fork) = &self.fork {
            descriptors.push(PollFd::new(fork.program, read));
        }
        let calls = descriptors.len();
        if let Some(rewinds) = &self.rewinds {
            descriptors.push(rewinds.awaited());
            descriptors.extend(rewinds.end());
        }
        let outputs = descriptors.len();
        if !quiet {
            let streams = [&self.stdout, &self.stderr];
            descriptors.extend(streams.into_iter().filter_map(Capture::awaited));
        }
        match poll(&mut descriptors, wait.map(timespec).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let any = |descriptor: &PollFd<'_>| !descriptor.revents().is_empty();
        Ok(Events {
            over: any(&descriptors[0]) || any(&descriptors[1]),
            control: any(&descriptors[2]),
            answer: descriptors[3..calls].iter().any(any),
            call: descriptors[calls..outputs].first().is_some_and(any),
            fork_over: descriptors[calls..outputs].get(1).is_some_and(any),
            output: descriptors[outputs..].iter().any(any),
        })
    }

    /// The template has something to say about its fork.
    fn read_answer(&mut self) {
        let Some(fork) = &self.fork else {
            return;
        };
        match fork.answer() {
            Ok(Answer::Watch(listener, faults)) => {
                self.rewinds = Some(rewind::Fork::new(listener, faults));
                return;
            }
            Ok(Answer::Ended(status)) => {
                let duration = self.started.elapsed();
                // If the container has ended meanwhile, that shows by itself.
                let _ = fork.finish(&self.link, status, duration, self.outputs.as_ref());
            }
            Err(why) => {
                self.lost = Some(why);
                self.kill();
            }
        }
        self.fork = None;
    }

    /// Reads one message. `true`: this job is cancelled. An error: the client has gone.
    fn read_control(&mut self) -> io::Result<bool> {
        match wire::read_frame::<ToSlot>(Stream(self.control.as_fd()))? {
            Some(ToSlot::Cancel { number }) => Ok(number == self.number),
            Some(ToSlot::Run { .. }) => Err(io::Error::other("a job while another runs")),
            None => {
                self.kill();
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        }
    }

    /// The fork has made a call that is watched. Returns the status of a job that has ended.
    fn answer_call(&mut self) -> Option<JobStatus> {
        let (Some(rewinds), Some(fork)) = (&mut self.rewinds, &self.fork) else {
            return None;
        };
        rewinds.listen(fork.payload)
    }

    /// Whether anybody in the container has some.
    fn ask_for_last_words(&self) -> bool {
        self.namespace
            .or_else(|| last_words::namespace_below(&self.process))
            .is_some_and(last_words::ask)
    }

    fn kill(&mut self) {
        if let Some(rewinds) = &mut self.rewinds {
            // Its template has to notice its end.
            rewinds.spoil();
        }
        // The first process of a PID namespace takes all others with it.
        let _ = rustix::process::pidfd_send_signal(&self.process, Signal::KILL);
    }

    /// The container has reported or ended.
    fn over(&mut self, killed: Option<Killed>) -> io::Result<Result<JobOutcome, JobError>> {
        // A report may have been cut short by a kill. A container that has ended cannot keep
        // this waiting: its end of the socket is closed.
        match wire::read_frame::<InitReport>(Stream(self.link.as_fd())) {
            Ok(Some(report)) => self.reported(report, killed),
            Ok(None) | Err(_) => self.ended_without_report(killed),
        }
    }

    fn reported(
        &mut self,
        report: InitReport,
        killed: Option<Killed>,
    ) -> io::Result<Result<JobOutcome, JobError>> {
        *self.unreaped += 1;
        // Everything that could write has ended.
        self.stdout.drain()?;
        self.stderr.drain()?;
        let (status, duration, missing, notes) = match report {
            InitReport::Execution(message) => return Ok(Err(JobError::Execution(message))),
            InitReport::System(message) => return Ok(Err(JobError::System(message))),
            InitReport::Ended {
                status,
                duration,
                missing,
                notes,
                used_up_network,
            } => {
                self.left_clean = !used_up_network;
                (status, duration, missing, notes)
            }
        };
        if killed == Some(Killed::Cancelled) {
            return Ok(Err(JobError::Cancelled));
        }
        let status = match (killed, status) {
            (Some(_), _) => JobStatus::TimedOut,
            (None, JobStatus::Signaled(9)) if self.ran_out_of_memory() => JobStatus::OutOfMemory,
            (None, status) => status,
        };
        let mut outcome = self.outcome(status, duration);
        outcome.effects.missing = missing;
        outcome.effects.notes = notes;
        if let Some(from) = &self.outputs {
            outcome.effects.outputs = outputs::read(from)?;
        }
        Ok(Ok(outcome))
    }

    fn ended_without_report(
        &mut self,
        killed: Option<Killed>,
    ) -> io::Result<Result<JobOutcome, JobError>> {
        // Until nothing of it is alive.
        while let Err(Errno::INTR) = poll(&mut [PollFd::new(&self.process, PollFlags::IN)], None) {}
        *self.unreaped += 1;
        if killed != Some(Killed::Cancelled) {
            self.await_answer()?;
        }
        self.stdout.drain()?;
        self.stderr.drain()?;
        Ok(match killed {
            Some(Killed::TimedOut) => Ok(self.outcome(JobStatus::TimedOut, self.started.elapsed())),
            Some(Killed::Cancelled) => Err(JobError::Cancelled),
            None if self.ran_out_of_memory() => {
                Ok(self.outcome(JobStatus::OutOfMemory, self.started.elapsed()))
            }
            None => Err(JobError::System(
                "the first process of the container was killed from outside, probably because \
                 the machine is out of memory"
                    .to_owned(),
            )),
        })
    }

    /// The template may have something to add to the output of its fork.
    fn await_answer(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + template::ANSWER_MAX;
        while let Some(fork) = &self.fork {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let mut descriptors = vec![PollFd::new(fork.program, PollFlags::IN)];
            let streams = [&self.stdout, &self.stderr];
            descriptors.extend(streams.into_iter().filter_map(Capture::awaited));
            match poll(&mut descriptors, Some(&timespec(left))) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let has_answered = !descriptors[0].revents().is_empty();
            self.stdout.drain()?;
            self.stderr.drain()?;
            if has_answered {
                self.read_answer();
            }
        }
        Ok(())
    }

    /// Whether the kernel has killed a process of this job for want of memory.
    fn ran_out_of_memory(&mut self) -> bool {
        self.memory.any()
    }

    fn outcome(&mut self, status: JobStatus, duration: Duration) -> JobOutcome {
        JobOutcome {
            status,
            effects: JobEffects {
                stdout: self.stdout.take(),
                stderr: self.stderr.take(),
                duration,
                ..JobEffects::default()
            },
        }
    }
}

/// A duration as `poll` takes it.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

struct Events {
    over: bool,
    answer: bool,
    call: bool,
    fork_over: bool,
    control: bool,
    output: bool,
}

/// One captured stream.
pub(crate) struct Capture {
    from: OwnedFd,
    at_end: bool,
    bytes: Vec<u8>,
    limit_bytes: u64,
    dropped_bytes: u64,
}

impl Capture {
    pub(crate) fn new(from: OwnedFd, limit_bytes: u64) -> Self {
        let _ = rustix::fs::fcntl_setfl(&from, OFlags::NONBLOCK);
        Self {
            from,
            at_end: false,
            bytes: Vec::new(),
            limit_bytes,
            dropped_bytes: 0,
        }
    }

    /// What to wait for until there is more. A closed pipe would report its end for ever.
    pub(crate) fn awaited(&self) -> Option<PollFd<'_>> {
        (!self.at_end).then(|| PollFd::new(&self.from, PollFlags::IN))
    }

    /// Takes what is there now.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        // Small, since every page of this process that is written to is copied once a job: it
        // forks that often.
        let mut buffer = [MaybeUninit::uninit(); 4096];
        // A pipe holds less than this many buffers, so one that nobody writes to any more is
        // emptied, and one that is written to as fast as it is read does not hold us for ever.
        for _ in 0..1024 {
            if self.at_end {
                break;
            }
            match rustix::io::read(&self.from, &mut buffer) {
                Ok(([], _)) => self.at_end = true,
                Ok((read, _)) => {
                    let room = self.limit_bytes.saturating_sub(self.bytes.len() as u64);
                    let kept = room.min(read.len() as u64) as usize;
                    self.bytes.extend_from_slice(&read[..kept]);
                    self.dropped_bytes += (read.len() - kept) as u64;
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Where it came from.
    pub(crate) fn into_source(self) -> OwnedFd {
        self.from
    }

    pub(crate) fn take(&mut self) -> JobOutput {
        let bytes = std::mem::take(&mut self.bytes);
        match (bytes.is_empty(), self.dropped_bytes) {
            (true, 0) => JobOutput::None,
            (_, 0) => JobOutput::Inline(bytes),
            (_, dropped_bytes) => JobOutput::Truncated {
                first: bytes,
                dropped_bytes,
            },
        }
    }
}
