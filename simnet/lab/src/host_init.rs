//! The first process of a host: it makes the host's own view of the machine, starts programs,
//! and reports how they end.

use crate::{
    netlink,
    process::{die_with_parent, exit, last_errno, settle, wait_readable},
    wire::{self, Failure, FromHost, Report, Spawn, ToHost},
};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    io::Errno,
    mount::{MountFlags, MountPropagationFlags},
    process::{Pid, WaitOptions},
};
use std::{
    collections::BTreeMap,
    ffi::{CStr, CString},
    fs,
    io::Read,
};

/// The first process of a host: never returns. It ends when the lab closes its end of `control`.
pub(crate) fn run(name: &str, control: OwnedFd) -> ! {
    let started = start(name, &control);
    let (answer, descriptors) = match &started {
        Ok((network, netlink, _)) => (FromHost::Ready, vec![netlink.as_fd(), network.as_fd()]),
        Err(failure) => (FromHost::Failed(failure.clone()), Vec::new()),
    };
    let sent = wire::send(control.as_fd(), &answer, &descriptors);
    drop(descriptors);
    let Ok((network, netlink, children)) = started else {
        exit(1)
    };
    drop((network, netlink));
    if sent.is_ok() {
        serve(&control, &children);
    }
    exit(0)
}

type Started = (OwnedFd, OwnedFd, OwnedFd);

fn start(name: &str, control: &OwnedFd) -> Result<Started, Failure> {
    settle(c"lab-host", control)?;
    die_with_parent()?;
    make_mounts_private()?;
    rustix::mount::mount(
        c"proc",
        c"/proc",
        c"proc",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        None::<&CStr>,
    )
    .map_err(|errno| Failure::new("mounting proc on /proc", errno))?;
    // Programs share memory by name here. A machine without it has nothing to hide.
    let _ = rustix::mount::mount(
        c"tmpfs",
        c"/dev/shm",
        c"tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        Some(c"mode=1777"),
    );
    // Addresses can be used at once: nobody else has them. A kernel without IPv6 has no such file.
    let _ = fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0");
    rustix::system::sethostname(name.as_bytes())
        .map_err(|errno| Failure::new("setting the host's name", errno))?;
    let network = rustix::fs::open(
        c"/proc/self/ns/net",
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map_err(|errno| Failure::new("opening /proc/self/ns/net", errno))?;
    let netlink =
        netlink::open().map_err(|errno| Failure::new("opening a netlink socket", errno))?;
    Ok((network, netlink, child_signals()?))
}

/// Mounts of the machine stay as they are, and those of the lab do not reach it.
pub(crate) fn make_mounts_private() -> Result<(), Failure> {
    rustix::mount::mount_change(
        c"/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )
    .map_err(|errno| Failure::new("making mounts private", errno))
}

/// A descriptor that is readable when a child has ended.
fn child_signals() -> Result<OwnedFd, Failure> {
    // SAFETY: the set lives through the calls; the new descriptor has no other owner.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        let descriptor = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if descriptor < 0 {
            return Err(Failure::new("opening a signalfd", last_errno()));
        }
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

fn serve(control: &OwnedFd, children: &OwnedFd) {
    let mut running = BTreeMap::new();
    loop {
        let Ok(ready) = wait_readable(&[control.as_fd(), children.as_fd()]) else {
            return;
        };
        if ready[1] {
            let mut information = [0; size_of::<libc::signalfd_siginfo>()];
            while rustix::io::read(children, &mut information).is_ok() {}
        }
        reap(&mut running);
        if !ready[0] {
            continue;
        }
        let Ok(Some((request, descriptors))) = wire::receive::<ToHost>(control.as_fd()) else {
            return;
        };
        if !answer(control, &mut running, request, descriptors) {
            return;
        }
    }
}

/// Carries out a request. False: the lab has gone.
fn answer(
    control: &OwnedFd,
    running: &mut BTreeMap<i32, OwnedFd>,
    request: ToHost,
    descriptors: Vec<OwnedFd>,
) -> bool {
    let signalled = match request {
        ToHost::Spawn(what) => {
            if let Ok([report, streams @ ..]) = <[OwnedFd; 4]>::try_from(descriptors) {
                match spawn(&what, &streams) {
                    Ok(pid) => {
                        let _ = wire::send(report.as_fd(), &Report::Started { pid }, &[]);
                        running.insert(pid, report);
                    }
                    Err(failure) => {
                        let _ = wire::send(report.as_fd(), &Report::Failed(failure), &[]);
                    }
                }
            }
            return true;
        }
        // Whoever has been reaped is no longer there to be signalled.
        ToHost::Signal { pid, .. } if !running.contains_key(&pid) => Ok(()),
        ToHost::Signal { pid, signal, group } => {
            send_signal(if group { -pid } else { pid }, signal)
        }
        ToHost::SignalAll { signal } => send_signal(-1, signal),
    };
    let answer = match signalled {
        Ok(()) | Err(Errno::SRCH) => FromHost::Done,
        Err(errno) => FromHost::Failed(Failure::new("sending a signal", errno)),
    };
    wire::send(control.as_fd(), &answer, &[]).is_ok()
}

fn send_signal(pid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: sends a signal; touches no memory.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// Reaps all that have ended, also orphans, and reports those that were asked for.
fn reap(running: &mut BTreeMap<i32, OwnedFd>) {
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if let Some(report) = running.remove(&pid.as_raw_nonzero().get()) {
            let ended = Report::Ended {
                status: status.as_raw(),
            };
            let _ = wire::send(report.as_fd(), &ended, &[]);
        }
    }
}

/// Starts a program. Its process is the leader of a session of its own.
fn spawn(what: &Spawn, streams: &[OwnedFd; 3]) -> Result<i32, Failure> {
    let text = |bytes: &Vec<u8>| {
        CString::new(bytes.as_slice())
            .map_err(|_| Failure::new("a text contains a NUL byte", Errno::INVAL))
    };
    let texts = |all: &[Vec<u8>]| all.iter().map(text).collect::<Result<Vec<_>, _>>();
    let program = text(&what.program)?;
    let directory = text(&what.directory)?;
    let arguments = texts(&what.arguments)?;
    let environment = texts(&what.environment)?;
    let pointers = |all: &[CString]| {
        let mut pointers: Vec<_> = all.iter().map(|text| text.as_ptr()).collect();
        pointers.push(std::ptr::null());
        pointers
    };
    let argument_pointers = pointers(&arguments);
    let environment_pointers = pointers(&environment);
    let (failure, failure_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| Failure::new("making a pipe", errno))?;
    // SAFETY: this process has a single thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: the child of a single-threaded process; all pointers live until it executes.
        let (step, errno) = unsafe {
            become_program(
                &program,
                &directory,
                &argument_pointers,
                &environment_pointers,
                streams,
                what.terminal,
            )
        };
        let mut report = [step, 0, 0, 0, 0];
        report[1..].copy_from_slice(&errno.raw_os_error().to_ne_bytes());
        let _ = rustix::io::write(&failure_write, &report);
        exit(127)
    }
    if pid < 0 {
        return Err(Failure::new("forking", last_errno()));
    }
    drop(failure_write);
    let mut report = Vec::new();
    let _ = fs::File::from(failure).read_to_end(&mut report);
    if let &[step, a, b, c, d] = report.as_slice() {
        let _ = rustix::process::waitpid(Pid::from_raw(pid), WaitOptions::empty());
        let errno = Errno::from_raw_os_error(i32::from_ne_bytes([a, b, c, d]));
        let doing = match step {
            STREAMS => "giving the program its standard streams".to_owned(),
            DIRECTORY => format!("entering {}", directory.to_string_lossy()),
            _ => format!("executing {}", program.to_string_lossy()),
        };
        return Err(Failure::new(doing, errno));
    }
    Ok(pid)
}

const STREAMS: u8 = 1;
const DIRECTORY: u8 = 2;
const EXECUTE: u8 = 3;

/// Turns the calling process into the program. Returns only the step that failed, and why.
///
/// # Safety
///
/// The pointers are to strings that live on, and end with a null pointer.
unsafe fn become_program(
    program: &CStr,
    directory: &CStr,
    arguments: &[*const libc::c_char],
    environment: &[*const libc::c_char],
    streams: &[OwnedFd; 3],
    terminal: bool,
) -> (u8, Errno) {
    let _ = rustix::process::setsid();
    // The descriptors that arrived are above the standard ones, which are always open here.
    for (stream, descriptor) in (0..).zip(streams) {
        // SAFETY: no owner of a standard stream exists in this process.
        if unsafe { libc::dup2(descriptor.as_raw_fd(), stream) } < 0 {
            return (STREAMS, last_errno());
        }
    }
    // SAFETY: standard input is open, as it has just been put there.
    let input = unsafe { BorrowedFd::borrow_raw(0) };
    if terminal && let Err(errno) = rustix::process::ioctl_tiocsctty(input) {
        return (STREAMS, errno);
    }
    if let Err(errno) = rustix::process::chdir(directory) {
        return (DIRECTORY, errno);
    }
    // SAFETY: an empty set is a valid set; the arrays are as this function's caller promises.
    // Everything else is closed by execution.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr());
    }
    (EXECUTE, last_errno())
}
