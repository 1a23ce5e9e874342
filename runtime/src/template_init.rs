//! The inits of templates: one that starts the template program and, below it, one for each of
//! its forks. See `docs/TEMPLATES.md`.

use crate::{
    container::{self, Blame, Enclosure},
    exec,
    init::{self, InitReport},
    job::{ContainerJob, JobNetwork, TemplateProgram},
    launcher::{receive_with_descriptor, send_with_descriptors},
    network::Networks,
    outputs, rewind,
    slot_process::Surroundings,
    sys::{self, Child, Doing, Failure},
    wire::{self, Stream},
    writable::Writable,
};
use maelstrom_spec::JobStatus;
use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{Mode, OFlags},
    io::Errno,
    process::{PidfdFlags, WaitOptions},
    thread::CapabilitySet,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Asks the init of a template for a container for one fork. Comes with the container's end of a
/// socket, over which it says [`TestReady`] and later is told [`Finish`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MakeTest;

/// The container of a fork is made. Comes with descriptors: of its first process, then of its
/// namespaces as the template's fork expects them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum TestReady {
    Yes,
    No(InitReport),
}

/// What the container of a fork is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToTest {
    /// The fork will run another job. Answered with [`Renewed`].
    Renew,
    Finish(Finish),
}

/// Whether everything that a job could write to is as it was at the beginning.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Renewed(pub(crate) bool);

/// The fork has ended. Comes with the file for outputs, if the job has any.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Finish {
    pub(crate) status: JobStatus,
    pub(crate) duration: Duration,
    /// Globs of files to bring back.
    pub(crate) outputs: Vec<String>,
}

/// Where the template program finds its socket.
const SOCKET_NUMBER: i32 = 3;

/// Runs the template in this process, which has just been forked into its namespaces.
pub(crate) fn run(job: &ContainerJob, socket: OwnedFd, around: &Surroundings<'_>) -> ! {
    let report = run_template(job, socket, around).unwrap_or_else(InitReport::from);
    let _ = wire::write_frame(Stream(around.link.as_fd()), &report);
    // SAFETY: ends the process without running the handlers of the one it was forked from.
    unsafe { libc::_exit(0) }
}

fn run_template(
    job: &ContainerJob,
    socket: OwnedFd,
    around: &Surroundings<'_>,
) -> Result<InitReport, Blame> {
    init::settle_in(job, around.ids, around.slot)?;
    // Its network is its own, so that its forks can be given another when one is used up.
    let mut networks = Networks::new();
    let owns_network = networks.switch_to(job)?;
    let inside = Surroundings {
        ids: (job.user, job.group),
        owns_network,
        ..*around
    };
    let program = start_program(job, socket, &inside)?;
    init::close_all_but(
        &[
            &[around.link, around.slot, around.null, &program.pidfd],
            networks.descriptors().as_slice(),
        ]
        .concat(),
    );
    loop {
        let mut descriptors = [
            PollFd::new(around.link, PollFlags::IN),
            PollFd::new(&program.pidfd, PollFlags::IN),
        ];
        match poll(&mut descriptors, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => {
                return Err(errno)
                    .doing(|| "waiting for a template".to_owned())
                    .map_err(Blame::from);
            }
        }
        let [asked, ended] = descriptors.map(|descriptor| !descriptor.revents().is_empty());
        if ended {
            let waited = rustix::process::waitpid(Some(program.pid), WaitOptions::empty());
            let status = match waited {
                Ok(Some((_, status))) => init::job_status(status),
                _ => JobStatus::Signaled(0),
            };
            return Ok(InitReport::Ended {
                status,
                duration: Duration::ZERO,
                missing: Vec::new(),
                notes: Vec::new(),
                used_up_network: false,
            });
        }
        if asked {
            let message = receive_with_descriptor::<MakeTest>(around.link.as_fd())
                .doing(|| "receiving a request".to_owned())?;
            let Some((MakeTest, Some(link))) = message else {
                return Err(Blame::Machine("the slot has ended".to_owned()));
            };
            // Forks whose containers have ended.
            while let Ok(Some((pid, _))) = rustix::process::wait(WaitOptions::NOHANG) {
                if pid == program.pid {
                    return Err(Blame::Machine("the template has ended".to_owned()));
                }
            }
            networks.renew_if_used();
            let owns_network = networks.switch_to(job)?;
            start_test(
                job,
                &link,
                &networks,
                &Surroundings {
                    owns_network,
                    ..inside
                },
            );
        }
    }
}

/// Starts the template program in a mount namespace of its own.
fn start_program(
    job: &ContainerJob,
    socket: OwnedFd,
    around: &Surroundings<'_>,
) -> Result<Child, Blame> {
    let Some(template) = &job.template else {
        return Err(Blame::Job("the job has no template".to_owned()));
    };
    // SAFETY: this process has a single thread.
    let child =
        unsafe { sys::fork_into(libc::CLONE_NEWNS) }.doing(|| "starting a template".to_owned())?;
    match child {
        Some(child) => Ok(child),
        None => {
            // First, so that failures are told where the program would tell them.
            let _ = rustix::stdio::dup2_stderr(around.stderr);
            let Err(blame) = become_program(job, &template.program, socket, around);
            let text = match blame {
                Blame::Job(text) | Blame::Machine(text) => text,
            };
            let _ = rustix::io::write(rustix::stdio::stderr(), format!("{text}\n").as_bytes());
            // SAFETY: as in `run`.
            unsafe { libc::_exit(127) }
        }
    }
}

enum Never {}

fn become_program(
    job: &ContainerJob,
    template: &TemplateProgram,
    socket: OwnedFd,
    around: &Surroundings<'_>,
) -> Result<Never, Blame> {
    container::build(job, around, Enclosure::Sealed)?;
    let kept = init::kept_capabilities(job.privileges);
    let of_forks = if job.user == 0 {
        kept
    } else {
        CapabilitySet::empty()
    };
    keep_template_capability(job.user, kept)?;
    let mut environment = template.environment.clone();
    let session = if job.leads_session { "1" } else { "0" };
    for (name, value) in [
        ("FD", SOCKET_NUMBER.to_string()),
        ("CAPABILITIES", format!("{:x}", of_forks.bits())),
        ("SESSION", session.to_owned()),
        ("FILTER", rewind::filter()),
    ] {
        environment.push((format!("MAELSTROM_TEMPLATE_{name}"), value));
    }
    let program = ContainerJob {
        program: template.program.clone(),
        arguments: template.arguments.clone(),
        environment,
        leads_session: true,
        ..job.clone()
    };
    Err(exec::replace(&program, around, &socket, SOCKET_NUMBER))
}

/// Without `CAP_SYS_ADMIN` a template could not give its children a PID namespace.
fn keep_template_capability(user: u32, kept: CapabilitySet) -> Result<(), Blame> {
    let needed = CapabilitySet::SYS_ADMIN;
    let doing = || "giving a template its capability".to_owned();
    if user == 0 {
        return init::limit_capabilities(kept | needed);
    }
    let mut sets = rustix::thread::capabilities(None).doing(doing)?;
    sets.inheritable |= needed;
    rustix::thread::set_capabilities(None, sets).doing(doing)?;
    rustix::thread::configure_capability_in_ambient_set(needed, true).doing(doing)?;
    Ok(())
}

/// Starts the init of a fork's container. Failures reach the slot through the link.
fn start_test(job: &ContainerJob, link: &OwnedFd, networks: &Networks, around: &Surroundings<'_>) {
    let namespaces =
        libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC;
    // SAFETY: this process has a single thread.
    match unsafe { sys::fork_into(namespaces) } {
        Ok(Some(_)) => {}
        Ok(None) => run_test(job, link, networks, around),
        Err(errno) => {
            let failure = format!(
                "creating a container's namespaces: {}",
                sys::describe(errno)
            );
            let _ = wire::write_frame(
                Stream(link.as_fd()),
                &TestReady::No(InitReport::System(failure)),
            );
        }
    }
}

/// The first process of a fork's namespaces.
fn run_test(
    job: &ContainerJob,
    link: &OwnedFd,
    networks: &Networks,
    around: &Surroundings<'_>,
) -> ! {
    let stream = || Stream(link.as_fd());
    match prepare_test(job, around) {
        Ok((descriptors, mut writable)) => {
            let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            let mut frame = Vec::new();
            let said = wire::write_frame(&mut frame, &TestReady::Yes)
                .and_then(|()| send_with_descriptors(link.as_fd(), &frame, &descriptors));
            drop(descriptors);
            init::close_all_but(
                &[
                    &[link],
                    &networks.descriptors()[..],
                    &writable.descriptors(),
                ]
                .concat(),
            );
            while said.is_ok()
                && let Ok(Some((message, outputs))) = receive_with_descriptor(link.as_fd())
            {
                match message {
                    ToTest::Renew => {
                        let renewed = Renewed(writable.renew(job).unwrap_or(false));
                        if wire::write_frame(stream(), &renewed).is_err() {
                            break;
                        }
                    }
                    ToTest::Finish(finish) => {
                        let report = finish_test(job, finish, outputs.as_ref(), networks);
                        let _ = wire::write_frame(stream(), &report);
                        break;
                    }
                }
            }
        }
        Err(blame) => {
            let _ = wire::write_frame(stream(), &TestReady::No(blame.into()));
        }
    }
    // SAFETY: as in `run`.
    unsafe { libc::_exit(0) }
}

/// Makes the container. Returns what [`TestReady`] comes with, and what takes writes.
fn prepare_test(
    job: &ContainerJob,
    around: &Surroundings<'_>,
) -> Result<(Vec<OwnedFd>, Writable), Blame> {
    init::settle_in(job, around.ids, around.slot)?;
    let this = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
        .doing(|| "opening a process descriptor".to_owned())?;
    let mut descriptors = vec![this];
    let network: &[&str] = match job.network {
        JobNetwork::Local => &[],
        JobNetwork::Disabled | JobNetwork::Loopback => &["net"],
    };
    for name in ["pid", "user", "ipc", "mnt"].iter().chain(network) {
        let path = format!("/proc/self/ns/{name}");
        let opened = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        descriptors.push(opened.doing(|| format!("opening {path}"))?);
    }
    let upper = container::build(job, around, Enclosure::of(job))?;
    Ok((descriptors, Writable::new(job, upper)?))
}

fn finish_test(
    job: &ContainerJob,
    finish: Finish,
    outputs: Option<&OwnedFd>,
    networks: &Networks,
) -> InitReport {
    init::end_the_rest();
    let mut notes = Vec::new();
    if let Some(into) = outputs {
        let job = ContainerJob {
            outputs: finish.outputs,
            ..job.clone()
        };
        outputs::collect(&job, into, &mut notes);
    }
    InitReport::Ended {
        status: finish.status,
        duration: finish.duration,
        missing: Vec::new(),
        notes,
        used_up_network: !networks.is_clean(),
    }
}

impl From<Failure> for InitReport {
    fn from(failure: Failure) -> Self {
        InitReport::System(failure.to_string())
    }
}
