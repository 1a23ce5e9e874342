//! Templates as their slot sees them: started when a job first asks for one, kept for the jobs
//! after it. See `docs/TEMPLATES.md`.

use crate::{
    init::InitReport,
    job::{ContainerJob, Template},
    last_words::{self, Namespace},
    launcher::{
        packet_pair, receive_with_descriptors, send_packet, send_with_descriptor, socket_pair,
    },
    prepared::{self, Identity},
    rewind,
    slot_process::{SlotProcess, Surroundings, ToSlot},
    sys::{self, Doing, Failure},
    template_init::{self, Finish, MakeTest, Renewed, TestReady, ToTest},
    template_message::Message,
    watch::{Capture, Watch},
    wire::{self, Stream},
};
use maelstrom_spec::{JobEffects, JobError, JobOutcome, JobStatus};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
    pipe::PipeFlags,
    process::Signal,
};
use std::{
    io,
    path::PathBuf,
    time::{Duration, Instant},
};

/// A slot keeps no more templates than this.
const TEMPLATES_MAX: usize = 3;

/// How long a template may take to be ready.
const START_MAX: Duration = Duration::from_secs(300);

/// How long a template may take to report the end of a fork whose container has ended.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A template that is lost this often while its forks run is not started again.
const LOSSES_MAX: u32 = 3;

/// After this many forks in a row that could not be rewound even once, only every
/// [`SPOILT_RETRY`]th is tried.
const SPOILT_MAX: u32 = 16;
const SPOILT_RETRY: u64 = 8;

/// How much of each of a template's output streams is kept.
const OUTPUT_MAX_BYTES: u64 = 64 << 10;

/// What a slot knows of templates.
#[derive(Default)]
pub(crate) struct Templates {
    entries: Vec<Entry>,
    uses: u64,
}

struct Entry {
    like: ContainerJob,
    running: Option<Running>,
    losses: u32,
    last_use: u64,
}

/// A template that is ready to fork.
struct Running {
    init: OwnedFd,
    link: OwnedFd,
    program: OwnedFd,
    stdout: Capture,
    stderr: Capture,
    layers: Vec<Identity>,
    /// The link to a container that was asked for before its job was known.
    ahead: Option<OwnedFd>,
    requests: u64,
    /// Whether the last request has not been answered.
    is_owing: bool,
    /// Whether the last fork left nothing in the network, so that the next may share it.
    left_clean: bool,
    /// Whether it can make forks that can be rewound.
    rewinds: bool,
    /// The last fork, whose job has ended, where the next job can have it.
    standing: Option<Begun>,
    /// How many forks in a row could not be rewound even once.
    spoilt: u32,
}

/// Why a job is not run by a template.
pub(crate) enum Otherwise {
    /// Run it the plain way, and tell this.
    Plain(Option<String>),
    /// It has no outcome.
    Failed(JobError),
}

impl From<Failure> for Otherwise {
    fn from(failure: Failure) -> Self {
        Otherwise::Failed(JobError::System(failure.to_string()))
    }
}

impl Templates {
    /// Ends those that run. Returns how many.
    pub(crate) fn clear(&mut self) -> usize {
        let running = self
            .entries
            .iter_mut()
            .filter_map(|entry| entry.running.take());
        running.count()
    }

    /// Gives up containers that were made ahead.
    pub(crate) fn drop_ahead(&mut self) {
        for entry in &mut self.entries {
            if let Some(running) = &mut entry.running {
                running.ahead = None;
            }
        }
    }

    /// Sets forks back whose jobs have ended.
    pub(crate) fn rewind(&mut self) {
        for entry in &mut self.entries {
            if let Some(running) = &mut entry.running
                && let Some(standing) = &mut running.standing
                && let Some(fork) = &mut standing.rewinds
                && fork.has_ended()
            {
                let has_written = fork.has_written();
                if fork.rewind().is_ok() && (!has_written || renew(&standing.link)) {
                    running.spoilt = 0;
                } else {
                    running.end_standing();
                }
            }
        }
    }

    pub(crate) fn any_is_running(&self) -> bool {
        self.entries.iter().any(|entry| entry.running.is_some())
    }

    pub(crate) fn any_is_ahead(&self) -> bool {
        let mut running = self
            .entries
            .iter()
            .filter_map(|entry| entry.running.as_ref());
        running.any(|running| running.ahead.is_some())
    }

    /// The place of a job's template, which may be one that does not run, and how many were ended
    /// to make room for it.
    fn find(&mut self, job: &ContainerJob) -> (usize, usize) {
        self.uses += 1;
        let mut ended = 0;
        let found = self
            .entries
            .iter()
            .position(|entry| job.fits_template_of(&entry.like));
        let index = found.unwrap_or_else(|| {
            if self.entries.len() >= TEMPLATES_MAX
                && let Some(oldest) =
                    (0..self.entries.len()).min_by_key(|&index| self.entries[index].last_use)
            {
                ended += self.entries.swap_remove(oldest).end();
            }
            self.entries.push(Entry {
                like: ContainerJob {
                    more_like_it: false,
                    ..job.clone()
                },
                running: None,
                losses: 0,
                last_use: 0,
            });
            self.entries.len() - 1
        });
        self.entries[index].last_use = self.uses;
        (index, ended)
    }
}

impl Entry {
    /// Ends the template if it runs. Returns how many processes are then to be waited for.
    fn end(&mut self) -> usize {
        usize::from(self.running.take().is_some())
    }
}

impl SlotProcess<'_> {
    /// Runs a job in a fork of its template. The outer error means that the client has gone.
    pub(crate) fn run_in_template(
        &mut self,
        number: u64,
        job: &ContainerJob,
    ) -> io::Result<Result<JobOutcome, Otherwise>> {
        let Some(template) = &job.template else {
            return Ok(Err(Otherwise::Plain(None)));
        };
        if !job.can_have_template() {
            return Ok(Err(Otherwise::Plain(None)));
        }
        if template.payload.len() > Template::PAYLOAD_MAX_BYTES {
            let why = format!(
                "its payload of {} bytes is longer than {}",
                template.payload.len(),
                Template::PAYLOAD_MAX_BYTES
            );
            return Ok(Err(Otherwise::Plain(Some(why))));
        }
        let layers = match self.layers_inside(job) {
            Ok(layers) => layers,
            Err(failure) => return Ok(Err(failure.into())),
        };
        let (index, ended) = self.templates.find(job);
        self.unreaped += ended;
        let entry = &mut self.templates.entries[index];
        if entry.losses >= LOSSES_MAX {
            return Ok(Err(Otherwise::Plain(None)));
        }
        let usable = entry.running.as_mut().is_some_and(|running| {
            running.layers == prepared::identities(&layers) && running.settle_for(job)
        });
        if !usable {
            self.unreaped += entry.end();
            let like = entry.like.clone();
            let mut running = match self.start_template(&like, &layers) {
                Ok(running) => running,
                Err(failure) => return Ok(Err(failure.into())),
            };
            let ready = running.until_ready(self.control, number)?;
            let entry = &mut self.templates.entries[index];
            entry.running = Some(running);
            if let Err(otherwise) = ready {
                self.unreaped += entry.end();
                if matches!(otherwise, Otherwise::Plain(_)) && !template.is_only_started() {
                    entry.losses = LOSSES_MAX;
                }
                return Ok(Err(otherwise));
            }
        }
        if template.is_only_started() {
            return Ok(Ok(nothing_run()));
        }
        let ended = self.run_in_fork(number, job, index)?;
        if let Err(Otherwise::Plain(_)) = &ended {
            let entry = &mut self.templates.entries[index];
            entry.losses += 1;
            self.unreaped += entry.end();
        }
        Ok(ended)
    }

    /// Starts the processes of a template.
    fn start_template(
        &mut self,
        job: &ContainerJob,
        layers: &[PathBuf],
    ) -> Result<Running, Failure> {
        let (stdout, stdout_write) = pipe()?;
        let (stderr, stderr_write) = pipe()?;
        let (link, link_inside) = socket_pair().doing(|| "creating a socket".to_owned())?;
        let (program, program_inside) = packet_pair().doing(|| "creating a socket".to_owned())?;
        let namespaces =
            libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC;
        // SAFETY: this process has a single thread.
        let child = unsafe { sys::fork_into(namespaces) }
            .doing(|| "creating a template's namespaces".to_owned())?;
        match child {
            Some(child) => Ok(Running {
                init: child.pidfd,
                link,
                program,
                stdout: Capture::new(stdout, OUTPUT_MAX_BYTES),
                stderr: Capture::new(stderr, OUTPUT_MAX_BYTES),
                layers: prepared::identities(layers),
                ahead: None,
                requests: 0,
                is_owing: false,
                left_clean: true,
                rewinds: false,
                standing: None,
                spoilt: 0,
            }),
            None => template_init::run(
                job,
                program_inside,
                &Surroundings {
                    ids: self.ids,
                    layers,
                    link: &link_inside,
                    stdout: &stdout_write,
                    stderr: &stderr_write,
                    null: &self.null,
                    terminal: None,
                    slot: &self.this,
                    host_root: &self.host.root,
                    outputs: None,
                    owns_network: false,
                    given: None,
                },
            ),
        }
    }

    fn run_in_fork(
        &mut self,
        number: u64,
        job: &ContainerJob,
        index: usize,
    ) -> io::Result<Result<JobOutcome, Otherwise>> {
        let Some(running) = &mut self.templates.entries[index].running else {
            return Ok(Err(Otherwise::Plain(None)));
        };
        let begun = match running.begin(job, &self.null) {
            Ok(begun) => begun,
            Err(otherwise) => return Ok(Err(otherwise)),
        };
        let outputs = if job.outputs.is_empty() {
            None
        } else {
            match rustix::fs::memfd_create("outputs", rustix::fs::MemfdFlags::CLOEXEC)
                .doing(|| "creating a file in memory".to_owned())
            {
                Ok(file) => Some(file),
                Err(failure) => return Ok(Err(failure.into())),
            }
        };
        let mut elsewhere = 0;
        let mut watch = Watch {
            control: self.control,
            number,
            link: begun.link,
            unreaped: &mut elsewhere,
            memory: &mut self.memory,
            stdout: Capture::new(begun.stdout, job.inline_limit_bytes),
            stderr: Capture::new(begun.stderr, job.inline_limit_bytes),
            outputs,
            process: begun.init,
            started: Instant::now(),
            timeout: job.timeout.filter(|timeout| !timeout.is_zero()),
            namespace: begun.namespace,
            fork: Some(Fork {
                program: &running.program,
                number: running.requests,
                outputs: &job.outputs,
                payload: job
                    .template
                    .as_ref()
                    .map_or(&[], |template| &template.payload),
            }),
            rewinds: begun.rewinds,
            lost: None,
            left_clean: false,
        };
        let ended = watch.until_the_end()?;
        let (mut lost, is_owing) = (watch.lost.take(), watch.fork.is_some());
        if lost.is_none() && matches!(ended, Err(JobError::System(_))) {
            // Its container ends with its template, and may be seen to end first.
            lost = Some("it has ended, or its fork's container was killed".to_owned());
        }
        running.left_clean = watch.left_clean;
        running.is_owing = is_owing;
        match watch.rewinds.take() {
            Some(fork) if fork.has_ended() => {
                running.standing = Some(Begun {
                    init: watch.process,
                    link: watch.link,
                    stdout: watch.stdout.into_source(),
                    stderr: watch.stderr.into_source(),
                    namespace: watch.namespace,
                    rewinds: Some(fork),
                });
            }
            Some(fork) if fork.rewound() == 0 => running.spoilt += 1,
            _ => {}
        }
        if !running.left_clean {
            // It was made in a network that is no longer clean.
            running.ahead = None;
        }
        Ok(match lost {
            Some(why) => Err(Otherwise::Plain(Some(running.lament(&why)))),
            None => ended.map_err(Otherwise::Failed),
        })
    }
}

/// A fork that has been asked for, or stands still, and its container.
struct Begun {
    init: OwnedFd,
    link: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    namespace: Option<Namespace>,
    rewinds: Option<rewind::Fork>,
}

impl Running {
    /// Waits until the template says that it is ready. The outer error means that the client has
    /// gone.
    fn until_ready(&mut self, control: &OwnedFd, number: u64) -> io::Result<Result<(), Otherwise>> {
        let deadline = Instant::now() + START_MAX;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let why = format!("it was not ready after {} seconds", START_MAX.as_secs());
                return Ok(Err(Otherwise::Plain(Some(self.lament(&why)))));
            }
            let (said, asked) = {
                let mut descriptors = vec![
                    PollFd::new(&self.program, PollFlags::IN),
                    PollFd::new(control, PollFlags::IN),
                ];
                let streams = [&self.stdout, &self.stderr];
                descriptors.extend(streams.into_iter().filter_map(Capture::awaited));
                match poll(&mut descriptors, Some(&crate::watch::timespec(left))) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
                let any = |descriptor: &PollFd<'_>| !descriptor.revents().is_empty();
                (any(&descriptors[0]), any(&descriptors[1]))
            };
            self.stdout.drain()?;
            self.stderr.drain()?;
            if said {
                return Ok(match Message::receive(self.program.as_fd()) {
                    Some((Message::Ready { rewinds }, _)) => {
                        self.rewinds = rewinds;
                        Ok(())
                    }
                    Some((Message::Refuse(why), _)) => Err(Otherwise::Plain(Some(format!(
                        "it refused: {}",
                        why.trim_end()
                    )))),
                    Some(_) => Err(Otherwise::Plain(Some(
                        self.lament("it answered before it was asked"),
                    ))),
                    None => Err(Otherwise::Plain(Some(self.epitaph()))),
                });
            }
            if asked {
                match wire::read_frame::<ToSlot>(Stream(control.as_fd()))? {
                    Some(ToSlot::Cancel { number: cancelled }) if cancelled == number => {
                        return Ok(Err(Otherwise::Failed(JobError::Cancelled)));
                    }
                    Some(ToSlot::Cancel { .. }) => {}
                    Some(ToSlot::Run { .. }) => {
                        return Err(io::Error::other("a job while another runs"));
                    }
                    None => return Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
        }
    }

    /// Whether the template is usable for this job, which gets a fork that stands still if it can.
    fn settle_for(&mut self, job: &ContainerJob) -> bool {
        if self.standing.is_some() && may_be_rewound(job) {
            return true;
        }
        self.end_standing();
        self.settle()
    }

    /// Ends the fork that stands still, if there is one.
    fn end_standing(&mut self) {
        if let Some(mut standing) = self.standing.take() {
            // Otherwise its template could not notice its end.
            if let Some(fork) = &mut standing.rewinds {
                fork.spoil();
            }
            let _ = rustix::process::pidfd_send_signal(&standing.init, Signal::KILL);
        }
    }

    /// Waits for the answer to a request whose fork was killed. Whether the template is usable.
    fn settle(&mut self) -> bool {
        let drained = self.stdout.drain().is_ok() && self.stderr.drain().is_ok();
        let deadline = Instant::now() + ANSWER_MAX;
        while self.is_owing {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut program = [PollFd::new(&self.program, PollFlags::IN)];
            match poll(&mut program, Some(&crate::watch::timespec(left))) {
                Err(Errno::INTR) => continue,
                Ok(1) => {}
                Ok(_) | Err(_) => return false,
            }
            match Message::receive(self.program.as_fd()) {
                Some((Message::Ended { number, .. } | Message::Failed { number, .. }, _)) => {
                    self.is_owing = number != self.requests;
                }
                Some((Message::Watch { .. }, _)) => {}
                _ => return false,
            }
        }
        drained
    }

    /// Asks for the container of one fork. Returns the link to it.
    fn ask_for_container(&self) -> io::Result<OwnedFd> {
        let (link, inside) = socket_pair()?;
        let mut frame = Vec::new();
        wire::write_frame(&mut frame, &MakeTest)?;
        send_with_descriptor(self.link.as_fd(), &frame, Some(inside.as_fd()))?;
        Ok(link)
    }

    /// Gives a job the fork that stands still, or a new one.
    fn begin(&mut self, job: &ContainerJob, null: &OwnedFd) -> Result<Begun, Otherwise> {
        match self.standing.take() {
            Some(standing) => Ok(standing),
            None => self.fork(job, null),
        }
    }

    /// Whether the next fork is worth the trouble of rewinding it.
    fn tries_rewinding(&self, job: &ContainerJob) -> bool {
        self.rewinds
            && may_be_rewound(job)
            && job.more_like_it
            && (self.spoilt < SPOILT_MAX || self.requests.is_multiple_of(SPOILT_RETRY))
    }

    /// Starts a fork for a job.
    fn fork(&mut self, job: &ContainerJob, null: &OwnedFd) -> Result<Begun, Otherwise> {
        let lost = |running: &mut Self, error: io::Error| {
            let why = format!("its init has ended ({error})");
            Otherwise::Plain(Some(running.lament(&why)))
        };
        let asked = self
            .ahead
            .take()
            .map_or_else(|| self.ask_for_container(), Ok);
        let link = asked.map_err(|error| lost(self, error))?;
        let mut descriptors = match receive_with_descriptors::<TestReady>(link.as_fd()) {
            Ok(Some((TestReady::Yes, descriptors))) if descriptors.len() >= 5 => descriptors,
            Ok(Some((TestReady::No(report), _))) => {
                return Err(Otherwise::Failed(match report {
                    InitReport::Execution(message) => JobError::Execution(message),
                    InitReport::System(message) => JobError::System(message),
                    InitReport::Ended { .. } => JobError::System("it has ended".to_owned()),
                }));
            }
            Ok(_) => return Err(lost(self, io::ErrorKind::UnexpectedEof.into())),
            Err(error) => return Err(lost(self, error)),
        };
        let init = descriptors.remove(0);
        let namespace = last_words::namespace(&descriptors[0]);
        let (stdout, stdout_write) = pipe()?;
        let (stderr, stderr_write) = pipe()?;
        let handed_over: Vec<BorrowedFd<'_>> = [null, &stdout_write, &stderr_write]
            .into_iter()
            .chain(&descriptors)
            .map(AsFd::as_fd)
            .collect();
        self.requests += 1;
        let word = if self.tries_rewinding(job) {
            "stand"
        } else {
            "fork"
        };
        let mut request = format!("{word} {}\n", self.requests).into_bytes();
        request.extend(job.template.iter().flat_map(|template| &template.payload));
        if let Err(error) = send_packet(self.program.as_fd(), &request, &handed_over) {
            return Err(Otherwise::Plain(Some(
                if error.kind() == io::ErrorKind::BrokenPipe {
                    self.epitaph()
                } else {
                    self.lament(&format!("it cannot be asked: {error}"))
                },
            )));
        }
        self.is_owing = true;
        if job.more_like_it && self.left_clean {
            // Without it the next fork is slower, and says what is wrong.
            self.ahead = self.ask_for_container().ok();
        }
        Ok(Begun {
            init,
            link,
            stdout,
            stderr,
            namespace,
            rewinds: None,
        })
    }

    /// What to tell of a template that has ended.
    fn epitaph(&mut self) -> String {
        // Its init reports the status, unless something is wrong with that too.
        let mut link = [PollFd::new(&self.link, PollFlags::IN)];
        let reported = poll(&mut link, Some(&crate::watch::timespec(ANSWER_MAX))) == Ok(1);
        let report = reported
            .then(|| wire::read_frame::<InitReport>(Stream(self.link.as_fd())))
            .and_then(|report| report.ok().flatten());
        let why = match report {
            Some(InitReport::Ended { status, .. }) => match status {
                JobStatus::Exited(code) => format!("it ended with exit code {code}"),
                JobStatus::Signaled(signal) => format!("it was killed by signal {signal}"),
                _ => "it ended".to_owned(),
            },
            Some(InitReport::Execution(message) | InitReport::System(message)) => message,
            None => "its init has ended".to_owned(),
        };
        self.lament(&why)
    }

    /// A reason, with what the template printed.
    fn lament(&mut self, why: &str) -> String {
        let _ = self.stdout.drain();
        let _ = self.stderr.drain();
        let mut text = why.to_owned();
        for (name, stream) in [
            ("output", &mut self.stdout),
            ("error output", &mut self.stderr),
        ] {
            let output = stream.take();
            let said = String::from_utf8_lossy(output.bytes());
            if !said.trim().is_empty() {
                text.push_str(&format!("\nits {name}:\n{}", said.trim_end()));
            }
        }
        text
    }
}

/// Whether nothing that a job wants stands in the way of rewinding its fork.
fn may_be_rewound(job: &ContainerJob) -> bool {
    job.outputs.is_empty()
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end_standing();
        // Takes everything in its namespaces with it.
        let _ = rustix::process::pidfd_send_signal(&self.init, Signal::KILL);
    }
}

/// A fork that runs in a container, as the container's watcher sees it.
pub(crate) struct Fork<'s> {
    /// Where its template answers.
    pub(crate) program: &'s OwnedFd,
    number: u64,
    outputs: &'s [String],
    /// What it is told when it asks for its job.
    pub(crate) payload: &'s [u8],
}

/// What a template has said while its fork runs.
pub(crate) enum Answer {
    Ended(JobStatus),
    /// The fork's calls and first writes are reported here.
    Watch(OwnedFd, OwnedFd),
}

impl Fork<'_> {
    /// Reads what the template has said. The error says why there is no answer.
    pub(crate) fn answer(&self) -> Result<Answer, String> {
        match Message::receive(self.program.as_fd()) {
            Some((Message::Ended { number, status }, _)) if number == self.number => {
                Ok(Answer::Ended(status))
            }
            Some((Message::Watch { number }, descriptors)) if number == self.number => {
                match <[OwnedFd; 2]>::try_from(descriptors) {
                    Ok([listener, faults]) => Ok(Answer::Watch(listener, faults)),
                    Err(_) => Err("it did not send what its fork is watched by".to_owned()),
                }
            }
            Some((Message::Failed { number, why }, _)) if number == self.number => {
                Err(format!("it could not fork: {}", why.trim_end()))
            }
            Some(_) => Err("it did not answer what it was asked".to_owned()),
            None => Err("it ended while its fork was running".to_owned()),
        }
    }

    /// Tells the fork's container that it has ended.
    pub(crate) fn finish(
        &self,
        link: &OwnedFd,
        status: JobStatus,
        duration: Duration,
        outputs: Option<&OwnedFd>,
    ) -> io::Result<()> {
        let mut frame = Vec::new();
        let finish = ToTest::Finish(Finish {
            status,
            duration,
            outputs: self.outputs.to_vec(),
        });
        wire::write_frame(&mut frame, &finish)?;
        send_with_descriptor(link.as_fd(), &frame, outputs.map(AsFd::as_fd))
    }
}

/// Has a container make as new what a job has written to. Whether it could.
fn renew(link: &OwnedFd) -> bool {
    let stream = || Stream(link.as_fd());
    wire::write_frame(stream(), &ToTest::Renew).is_ok()
        && matches!(
            wire::read_frame::<Renewed>(stream()),
            Ok(Some(Renewed(true)))
        )
}

/// The outcome of a job that only starts a template.
pub(crate) fn nothing_run() -> JobOutcome {
    JobOutcome {
        status: JobStatus::Exited(0),
        effects: JobEffects::default(),
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Failure> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).doing(|| "creating a pipe".to_owned())
}
