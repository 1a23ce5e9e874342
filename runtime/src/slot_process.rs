//! The process behind a slot: runs one container after another.

use crate::{
    base::{self, HostMounts},
    cgroup::{Cgroup, MemoryKills},
    check,
    exec::{self, Environment},
    init::{self, Start},
    job::{ContainerJob, ContainerMount, Root},
    kept::{Given, Kept, SetNumber},
    launcher::{Host, receive_with_descriptor, socket_pair},
    network::Networks,
    order::{Order, Versions},
    prepared::{self, Ahead, Identity, KEPT_WHEN_IDLE, Prepared, TEMPLATES_KEPT_WHEN_IDLE},
    sys::{self, Doing, Failure},
    template::{self, Otherwise, Templates},
    watch::{Capture, Watch, timespec},
    wire::{self, Stream},
};
use maelstrom_spec::{JobError, JobOutcome};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::{AsFd, OwnedFd},
    fs::{Mode, OFlags},
    io::{Errno, retry_on_intr},
    mount::UnmountFlags,
    pipe::PipeFlags,
    process::WaitOptions,
    thread::LinkNameSpaceType,
};
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// What a slot is told when it is made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SlotConfig {
    pub(crate) layers_root: PathBuf,
}

/// From the client to the slot.
#[derive(Debug, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "one lives at a time")]
pub(crate) enum ToSlot {
    Run { number: u64, order: Order },
    Cancel { number: u64 },
}

/// From the slot to the client.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromSlot {
    Ready,
    Failed { message: String, advice: String },
    Finished(Result<JobOutcome, JobError>),
}

/// Runs the slot until its client goes away.
pub(crate) fn run(
    control: OwnedFd,
    config: &SlotConfig,
    host: Result<(&Host, Cgroup), Failure>,
) -> io::Result<()> {
    sys::be_prompt();
    let slot = host.and_then(|(host, cgroup)| SlotProcess::new(&control, config, host, cgroup));
    let mut slot = match slot {
        Ok(slot) => slot,
        Err(failure) => {
            let failed = FromSlot::Failed {
                message: failure.to_string(),
                advice: check::advice(&failure),
            };
            return wire::write_frame(Stream(control.as_fd()), &failed);
        }
    };
    wire::write_frame(Stream(control.as_fd()), &FromSlot::Ready)?;
    let mut last = None;
    loop {
        slot.wait_for_client();
        let received = receive_with_descriptor::<ToSlot>(control.as_fd())?;
        let Some((message, terminal)) = received else {
            return Ok(());
        };
        let ToSlot::Run { number, order } = message else {
            continue;
        };
        let job = order.complete(&mut last, &mut slot.versions)?;
        let result = slot.run(number, &job, terminal)?;
        wire::write_frame(Stream(control.as_fd()), &FromSlot::Finished(result))?;
        slot.tidy();
        last = Some(job);
    }
}

pub(crate) struct SlotProcess<'a> {
    pub(crate) control: &'a OwnedFd,
    layers_root: PathBuf,
    pub(crate) ids: (u32, u32),
    pub(crate) host: HostMounts,
    base_namespace: OwnedFd,
    networks: Networks,
    /// Made while the last job ran, for the next.
    ahead: Option<Ahead>,
    /// Of the job that runs now.
    versions: Versions,
    /// The environment of this version, as programs take it.
    environment: Option<(u64, Environment)>,
    /// File systems for containers like those of late.
    kept: Kept,
    /// Those that the last job had, until somebody looks what it left.
    used: Option<SetNumber>,
    pub(crate) templates: Templates,
    pub(crate) null: OwnedFd,
    pub(crate) this: OwnedFd,
    pub(crate) memory: MemoryKills,
    /// Ended containers whose processes have not been waited for.
    pub(crate) unreaped: usize,
    /// Whether the last job left nothing in its network, so that the next may share it.
    left_clean: bool,
}

/// What a container needs of its slot, besides the job.
pub(crate) struct Surroundings<'a> {
    pub(crate) ids: (u32, u32),
    pub(crate) layers: &'a [PathBuf],
    /// To the slot: the job comes from there, the report goes there.
    pub(crate) link: &'a OwnedFd,
    pub(crate) stdout: &'a OwnedFd,
    pub(crate) stderr: &'a OwnedFd,
    pub(crate) null: &'a OwnedFd,
    pub(crate) terminal: Option<&'a OwnedFd>,
    pub(crate) slot: &'a OwnedFd,
    pub(crate) host_root: &'a OwnedFd,
    /// Where output files are written to, if the job has any.
    pub(crate) outputs: Option<&'a OwnedFd>,
    /// Whether the container has a network namespace that it owns.
    pub(crate) owns_network: bool,
    /// Its file systems, as far as it is not to make them.
    pub(crate) given: Option<&'a Given>,
}

impl<'a> SlotProcess<'a> {
    fn new(
        control: &'a OwnedFd,
        config: &SlotConfig,
        host: &Host,
        cgroup: Cgroup,
    ) -> Result<Self, Failure> {
        let networks = Networks::new();
        let layers_root = config.layers_root.clone();
        let host_mounts = base::enter(&layers_root)?;
        let base_namespace = rustix::fs::open(
            "/proc/self/ns/mnt",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .doing(|| "opening /proc/self/ns/mnt".to_owned())?;
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .doing(|| "opening /dev/null".to_owned())?;
        let this = rustix::process::pidfd_open(
            rustix::process::getpid(),
            rustix::process::PidfdFlags::empty(),
        )
        .doing(|| "opening a process descriptor".to_owned())?;
        Ok(Self {
            control,
            layers_root,
            ids: (host.user, host.group),
            host: host_mounts,
            base_namespace,
            networks,
            ahead: None,
            versions: Versions::default(),
            environment: None,
            kept: Kept::default(),
            used: None,
            templates: Templates::default(),
            null,
            this,
            memory: MemoryKills::new(cgroup),
            unreaped: 0,
            left_clean: true,
        })
    }

    /// Runs one job. The outer error means that the client has gone.
    fn run(
        &mut self,
        number: u64,
        job: &ContainerJob,
        terminal: Option<OwnedFd>,
    ) -> io::Result<Result<JobOutcome, JobError>> {
        let mut job = Cow::Borrowed(job);
        let bound = match self.bind_from_host(&mut job) {
            Ok(bound) => bound,
            Err(error) => return Ok(Err(error)),
        };
        let result = self.run_prepared(number, &job, terminal.as_ref());
        for path in bound {
            let _ = rustix::mount::unmount(&path, UnmountFlags::DETACH);
            let _ = rustix::fs::unlink(&path).or_else(|_| rustix::fs::rmdir(&path));
        }
        result
    }

    fn run_prepared(
        &mut self,
        number: u64,
        job: &ContainerJob,
        terminal: Option<&OwnedFd>,
    ) -> io::Result<Result<JobOutcome, JobError>> {
        let mut notes = Vec::new();
        self.memory.forget_earlier();
        if let Some(template) = &job.template {
            match self.run_in_template(number, job)? {
                Ok(outcome) => return Ok(Ok(outcome)),
                Err(Otherwise::Failed(error)) => return Ok(Err(error)),
                Err(Otherwise::Plain(_)) if template.is_only_started() => {
                    return Ok(Ok(template::nothing_run()));
                }
                Err(Otherwise::Plain(why)) => {
                    notes.extend(why.map(|why| format!("ran without its template: {why}")));
                }
            }
        }
        let started = match self.start(job, terminal) {
            Ok(started) => started,
            Err(failure) => return Ok(Err(JobError::System(failure.to_string()))),
        };
        let begun = Instant::now();
        self.used = started.kept;
        if job.more_like_it && job.can_be_prepared() && self.left_clean {
            // Without it the next job is slower, and says what is wrong.
            self.ahead = self.prepare_another(job).ok();
        }
        let mut watch = Watch {
            control: self.control,
            number,
            link: started.link,
            unreaped: &mut self.unreaped,
            memory: &mut self.memory,
            stdout: Capture::new(started.stdout, job.inline_limit_bytes),
            stderr: Capture::new(started.stderr, job.inline_limit_bytes),
            outputs: started.outputs,
            process: started.process,
            started: begun,
            timeout: job.timeout.filter(|timeout| !timeout.is_zero()),
            namespace: None,
            fork: None,
            rewinds: None,
            lost: None,
            left_clean: false,
        };
        let mut result = watch.until_the_end()?;
        if let Ok(outcome) = &mut result {
            outcome.effects.notes.append(&mut notes);
        }
        Ok(result)
    }

    /// Starts a job in the container that was made ahead, or in a new one.
    fn start(
        &mut self,
        job: &ContainerJob,
        terminal: Option<&OwnedFd>,
    ) -> Result<Prepared, Failure> {
        let layers = self.layers_inside(job)?;
        let identities = prepared::identities(&layers);
        if let Some(ahead) = self.ahead.take() {
            match ahead.start(job, self.versions, &identities) {
                Ok(started) => return Ok(started),
                Err(unfit) => self.discard(*unfit),
            }
        }
        self.make(job, Start::AtOnce, &layers, &identities, terminal)
    }

    /// Makes a container like this job's for whoever comes next.
    fn prepare_another(&mut self, job: &ContainerJob) -> Result<Ahead, Failure> {
        let layers = self.layers_inside(job)?;
        let identities = prepared::identities(&layers);
        let prepared = self.make(job, Start::WhenTold, &layers, &identities, None)?;
        Ok(Ahead::new(prepared, self.versions, identities))
    }

    fn discard(&mut self, ahead: Ahead) {
        if let Some(kept) = ahead.discard() {
            self.kept.take_back(kept);
        }
        self.unreaped += 1;
    }

    pub(crate) fn layers_inside(&self, job: &ContainerJob) -> Result<Vec<PathBuf>, Failure> {
        prepared::inside(&job.layers, &self.layers_root).or_else(|outside| {
            Err(Errno::INVAL).doing(|| {
                format!(
                    "looking for layer {} below {}",
                    outside.display(),
                    self.layers_root.display()
                )
            })
        })
    }

    /// Starts the init of a container.
    fn make(
        &mut self,
        job: &ContainerJob,
        start: Start,
        layers: &[PathBuf],
        identities: &[Identity],
        terminal: Option<&OwnedFd>,
    ) -> Result<Prepared, Failure> {
        let owns_network = self.networks.switch_to(job)?;
        let pipe =
            || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).doing(|| "creating a pipe".to_owned());
        let (stdout, stdout_write) = pipe()?;
        let (stderr, stderr_write) = pipe()?;
        let (link, link_inside) = socket_pair().doing(|| "creating a socket".to_owned())?;
        let outputs = if job.outputs.is_empty() {
            None
        } else {
            Some(
                rustix::fs::memfd_create("outputs", rustix::fs::MemfdFlags::CLOEXEC)
                    .doing(|| "creating a file in memory".to_owned())?,
            )
        };
        let mut namespaces =
            libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC;
        if owns_network {
            namespaces |= libc::CLONE_NEWNET;
        }
        let given = self.kept.give(job, layers, identities);
        let environment = match &mut self.environment {
            Some((version, environment)) if *version == self.versions.environment => environment,
            stale => {
                let environment = exec::environment(job);
                &stale.insert((self.versions.environment, environment)).1
            }
        };
        let kept = given.as_ref().map(|given| given.number);
        // SAFETY: this process has a single thread.
        let child = unsafe { sys::fork_into(namespaces) }
            .doing(|| "creating a container's namespaces".to_owned())
            .inspect_err(|_| {
                if let Some(kept) = kept {
                    self.kept.take_back(kept);
                }
            })?;
        match child {
            Some(child) => Ok(Prepared {
                process: child.pidfd,
                link,
                stdout,
                stderr,
                outputs,
                kept,
            }),
            None => init::run(
                job,
                environment,
                start,
                &Surroundings {
                    ids: self.ids,
                    layers,
                    link: &link_inside,
                    stdout: &stdout_write,
                    stderr: &stderr_write,
                    null: &self.null,
                    terminal,
                    slot: &self.this,
                    host_root: &self.host.root,
                    outputs: outputs.as_ref(),
                    owns_network,
                    given: given.as_ref(),
                },
            ),
        }
    }

    /// Attaches what a job binds from the client's machine below [`base::BINDS`], so that the
    /// container's copy is locked, and points the job there.
    fn bind_from_host(&self, job: &mut Cow<'_, ContainerJob>) -> Result<Vec<PathBuf>, JobError> {
        let mut bound = Vec::new();
        let binds = job
            .mounts
            .iter()
            .any(|mount| matches!(mount, ContainerMount::Bind { .. }));
        if !binds && !matches!(job.root, Root::Capture { .. }) {
            return Ok(bound);
        }
        let job = job.to_mut();
        let result = self.bind_all(job, &mut bound);
        if result.is_err() {
            for path in &bound {
                let _ = rustix::mount::unmount(path, UnmountFlags::DETACH);
            }
        }
        result.map(|()| bound)
    }

    fn bind_all(&self, job: &mut ContainerJob, bound: &mut Vec<PathBuf>) -> Result<(), JobError> {
        for mount in &mut job.mounts {
            if let ContainerMount::Bind {
                source, read_only, ..
            } = mount
            {
                let copy = self
                    .copy_from_host(source, *read_only)
                    .doing(|| format!("bind mounting {}", source.display()))
                    .map_err(|failure| JobError::Execution(failure.to_string()))?;
                *source =
                    place(copy, bound).map_err(|failure| JobError::System(failure.to_string()))?;
            }
        }
        if let Root::Capture { upper, work } = &mut job.root {
            // One mount must hold both, so that overlayfs can rename between them.
            let parent = common_parent(upper, work).ok_or_else(|| {
                JobError::System(format!(
                    "capturing changes: {} and {} have no directory in common",
                    upper.display(),
                    work.display()
                ))
            })?;
            let system = |failure: Failure| JobError::System(failure.to_string());
            let copy = self
                .copy_from_host(&parent, false)
                .doing(|| format!("capturing changes in {}", parent.display()))
                .map_err(system)?;
            let at = place(copy, bound).map_err(system)?;
            for path in [upper, work] {
                if let Ok(relative) = path.strip_prefix(&parent) {
                    *path = at.join(relative);
                }
            }
        }
        Ok(())
    }

    /// A copy of a mount of the machine, which this namespace does not show.
    fn copy_from_host(&self, path: &Path, read_only: bool) -> Result<OwnedFd, Errno> {
        let enter = |namespace: &OwnedFd| {
            rustix::thread::move_into_link_name_space(
                namespace.as_fd(),
                Some(LinkNameSpaceType::Mount),
            )
        };
        enter(&self.host.namespace)?;
        let copy = base::copy_mount(path, true).and_then(|copy| {
            if read_only {
                sys::set_read_only(copy.as_fd(), true)?;
            }
            Ok(copy)
        });
        enter(&self.base_namespace)?;
        copy
    }

    /// After a job has been reported: what can wait until then.
    fn tidy(&mut self) {
        self.templates.rewind();
        self.reap();
        if let Some(used) = self.used.take() {
            self.kept.take_back(used);
        }
        self.left_clean = !self.networks.renew_if_used();
        if !self.left_clean
            && let Some(ahead) = self.ahead.take()
        {
            self.discard(ahead);
        }
    }

    /// Waits until the client says something. What was made ahead is not kept for long, nor are
    /// templates and what has ended.
    fn wait_for_client(&mut self) {
        let waits = |control: &OwnedFd, time: Duration| {
            let mut control = [PollFd::new(control, PollFlags::IN)];
            retry_on_intr(|| poll(&mut control, Some(&timespec(time)))) == Ok(0)
        };
        if self.ahead.is_some()
            || self.templates.any_is_ahead()
            || self.unreaped > 0
            || !self.kept.is_empty()
        {
            if !waits(self.control, KEPT_WHEN_IDLE) {
                return;
            }
            if let Some(ahead) = self.ahead.take() {
                self.discard(ahead);
            }
            self.kept.drop_unused();
            self.templates.drop_ahead();
            self.reap_all();
        }
        if self.templates.any_is_running() && waits(self.control, TEMPLATES_KEPT_WHEN_IDLE) {
            self.unreaped += self.templates.clear();
            self.reap_all();
        }
    }

    /// Waits for what has been killed or is about to exit.
    fn reap_all(&mut self) {
        while self.unreaped > 0 {
            match rustix::process::wait(WaitOptions::empty()) {
                Ok(_) => self.unreaped -= 1,
                Err(Errno::INTR) => {}
                Err(_) => self.unreaped = 0,
            }
        }
    }

    /// Waits for containers that have ended, without waiting for the others.
    fn reap(&mut self) {
        while self.unreaped > 0 {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some(_)) => self.unreaped -= 1,
                Ok(None) => break,
                Err(_) => self.unreaped = 0,
            }
        }
    }
}

/// Attaches a mount at a fresh place below [`base::BINDS`].
fn place(copy: OwnedFd, bound: &mut Vec<PathBuf>) -> Result<PathBuf, Failure> {
    let at = Path::new(base::BINDS).join(bound.len().to_string());
    let is_directory = rustix::fs::fstat(&copy)
        .map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
        .doing(|| "reading the type of a bound file".to_owned())?;
    if is_directory {
        base::create_directory(&at)?;
    } else {
        base::create_file(&at)?;
    }
    base::attach(&copy, &at).doing(|| "attaching a bound file".to_owned())?;
    bound.push(at.clone());
    Ok(at)
}

fn common_parent(a: &Path, b: &Path) -> Option<PathBuf> {
    a.ancestors()
        .skip(1)
        .find(|ancestor| b.starts_with(ancestor))
        .map(Path::to_path_buf)
}
