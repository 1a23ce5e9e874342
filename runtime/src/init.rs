//! The first process of a container.
//!
//! It builds the container around itself, starts the program as its child, waits for it, and
//! ends what the program left running. The program is not process 1 itself, because the kernel
//! treats that one differently: signals that it sends to itself are ignored, and `abort` looks
//! like something else. Process 1 still is what the whole container dies with.

use crate::{
    cgroup::PROCESSES_MAX,
    container::{self, Blame, Enclosure},
    exec::{self, Environment},
    job::{ContainerJob, Privileges},
    order::Order,
    outputs,
    slot_process::Surroundings,
    sys::{self, Doing},
    wire::{self, Stream},
};
use maelstrom_spec::JobStatus;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd, AsRawFd, OwnedFd},
    io::Errno,
    process::{DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus},
    thread::CapabilitySet,
};
use serde::{Deserialize, Serialize};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

/// What a container tells its slot at its end. Small enough for a socket to hold it whole.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum InitReport {
    Execution(String),
    System(String),
    Ended {
        status: JobStatus,
        duration: Duration,
        missing: Vec<PathBuf>,
        notes: Vec<String>,
        /// Whether it left sockets in a network that others are to use. Only known of forks.
        used_up_network: bool,
    },
}

impl From<Blame> for InitReport {
    fn from(blame: Blame) -> Self {
        match blame {
            Blame::Job(message) => InitReport::Execution(message),
            Blame::Machine(message) => InitReport::System(message),
        }
    }
}

/// When a container learns what it runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// It is made for a job that starts as soon as it is ready.
    AtOnce,
    /// It is made like an earlier one, and gets its job from the slot.
    WhenTold,
}

/// Runs the container in this process, which has just been forked into its namespaces.
pub(crate) fn run(
    job: &ContainerJob,
    environment: &Environment,
    start: Start,
    around: &Surroundings<'_>,
) -> ! {
    let report = match run_job(job, environment, start, around) {
        Ok(report) => report,
        Err(blame) => blame.into(),
    };
    let _ = wire::write_frame(Stream(around.link.as_fd()), &report);
    // SAFETY: ends the process without running the handlers of the one it was forked from.
    unsafe { libc::_exit(0) }
}

fn run_job(
    job: &ContainerJob,
    environment: &Environment,
    start: Start,
    around: &Surroundings<'_>,
) -> Result<InitReport, Blame> {
    settle_in(job, around.ids, around.slot)?;
    container::build(job, around, Enclosure::of(job))?;
    // Whoever is not user 0 loses all of them by executing a program.
    if job.user == 0 && job.privileges != Privileges::Namespace {
        limit_capabilities(kept_capabilities(job.privileges))?;
    }
    close_all_but(&[
        around.link,
        around.stdout,
        around.stderr,
        around.null,
        around.terminal.unwrap_or(around.null),
        if job.trace_missing {
            around.host_root
        } else {
            around.null
        },
        around.outputs.unwrap_or(around.null),
    ]);

    let (received, own_environment);
    let (job, environment) = match start {
        Start::AtOnce => (job, environment),
        Start::WhenTold => {
            let order = wire::read_frame::<Order>(Stream(around.link.as_fd()))
                .doing(|| "receiving a job".to_owned())?
                // There is none any more.
                .ok_or_else(|| Blame::Machine("the slot has ended".to_owned()))?;
            let has_environment = order.has_environment();
            received = order.into_job();
            if has_environment {
                own_environment = exec::environment(&received);
                (&received, &own_environment)
            } else {
                (&received, environment)
            }
        }
    };
    let environment = environment
        .as_ref()
        .map_err(|failure| Blame::job(failure.clone()))?;
    let started = Instant::now();
    let exec::Started { program, traced } = exec::spawn(job, environment, around)?;
    let missing = traced.map_or_else(Vec::new, |traced| traced.watch(job, around));
    let status = wait_for(program);
    let duration = started.elapsed();
    end_the_rest();
    let mut notes = Vec::new();
    if let Some(into) = around.outputs {
        outputs::collect(job, into, &mut notes);
    }
    Ok(InitReport::Ended {
        status,
        duration,
        missing,
        notes,
        used_up_network: false,
    })
}

/// What the first process of any namespaces does first. `outside` is the user and group that the
/// job's are seen as from outside of them.
pub(crate) fn settle_in(
    job: &ContainerJob,
    outside: (u32, u32),
    slot: &OwnedFd,
) -> Result<(), Blame> {
    die_with_slot(slot)?;
    sys::be_prompt();
    limit_processes();
    // So that a program that signals its process group reaches only what is in the container.
    rustix::process::setpgid(None, None).doing(|| "creating a process group".to_owned())?;
    sys::map_ids((job.user, job.group), outside)?;
    // What this process inherited is nobody's business inside.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .doing(|| "protecting the first process of the container".to_owned())?;
    Ok(())
}

fn die_with_slot(slot: &OwnedFd) -> Result<(), Blame> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .doing(|| "tying the container to its slot".to_owned())?;
    // The slot may have ended before the line above.
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match poll(&mut [PollFd::new(slot, PollFlags::IN)], Some(&at_once)) {
        Ok(0) | Err(_) => Ok(()),
        Ok(_) => Err(Blame::Machine("the slot has ended".to_owned())),
    }
}

/// Limits the processes of this job, as its control group does where there is one. The kernel
/// counts them by user and user namespace, so nobody else's count; root's are not limited so.
fn limit_processes() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nproc);
    let lower = |now: Option<u64>| Some(now.map_or(PROCESSES_MAX, |now| now.min(PROCESSES_MAX)));
    // Without it there is still the user's own limit.
    let _ = setrlimit(
        Resource::Nproc,
        Rlimit {
            current: lower(limit.current),
            maximum: lower(limit.maximum),
        },
    );
}

/// What user 0 of a job keeps.
pub(crate) fn kept_capabilities(privileges: Privileges) -> CapabilitySet {
    use CapabilitySet as C;
    match privileges {
        Privileges::Namespace => C::all(),
        Privileges::None => C::empty(),
        Privileges::Files => {
            C::CHOWN
                | C::DAC_OVERRIDE
                | C::DAC_READ_SEARCH
                | C::FOWNER
                | C::FSETID
                | C::KILL
                | C::SETGID
                | C::SETUID
                | C::SETPCAP
                | C::SETFCAP
                | C::NET_BIND_SERVICE
                | C::SYS_CHROOT
                | C::MKNOD
        }
    }
}

/// Takes from the bounding set what the program must not get, even as user 0.
pub(crate) fn limit_capabilities(kept: CapabilitySet) -> Result<(), Blame> {
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Past the last one that this kernel knows.
            Err(Errno::INVAL) => break,
            Err(errno) => {
                return Err(Err::<(), _>(errno)
                    .doing(|| "dropping capabilities".to_owned())
                    .unwrap_err()
                    .into());
            }
        }
    }
    Ok(())
}

/// Closes every descriptor but these and the standard ones.
pub(crate) fn close_all_but(kept: &[&OwnedFd]) {
    let mut kept: Vec<_> = kept.iter().map(|fd| fd.as_raw_fd() as u32).collect();
    kept.sort_unstable();
    kept.push(u32::MAX);
    let mut first = 3;
    for next in kept {
        if next > first {
            let last = if next == u32::MAX { next } else { next - 1 };
            // SAFETY: nothing in this process uses what is closed here.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
        first = next.saturating_add(1);
    }
}

/// Waits for the program, and meanwhile for orphans.
fn wait_for(program: Pid) -> JobStatus {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == program => return job_status(status),
            Ok(_) | Err(Errno::INTR) => {}
            // Cannot be: the program has not been waited for.
            Err(_) => return JobStatus::Signaled(0),
        }
    }
}

pub(crate) fn job_status(status: WaitStatus) -> JobStatus {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => JobStatus::Exited(code as u8),
        (None, Some(signal)) => JobStatus::Signaled(signal as u8),
        (None, None) => JobStatus::Signaled(0),
    }
}

/// Ends every other process, so that nothing of this job is alive when it is reported.
pub(crate) fn end_the_rest() {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Err(Errno::CHILD) => return,
            Ok(None) | Err(_) => break,
        }
    }
    // SAFETY: from inside a PID namespace this reaches all of its processes but this one.
    unsafe { libc::kill(-1, libc::SIGKILL) };
    while !matches!(
        rustix::process::wait(WaitOptions::empty()),
        Err(Errno::CHILD)
    ) {}
}
