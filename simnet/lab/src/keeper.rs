//! The processes that hold the lab's namespaces.
//!
//! ```text
//! client ── keeper ── switch ── first process of host 1 ── programs
//!           user      process 1   process 1 of namespaces
//!           namespace of the lab  of its own
//! ```
//!
//! The keeper outlives its client: when the client's end of their connection closes, however that
//! happens, it kills the switch, which takes every process of every host with it, as process 1 of
//! the namespace that they are in; then it removes the lab's directory.
//!
//! The keeper is forked from a process that may have threads. So neither it nor what is forked
//! from it takes a lock of the standard library: no standard streams, no environment.

use crate::{
    LabError,
    groups::Groups,
    host_init, netlink,
    process::{Child, die_with_parent, exit, fork_into, settle},
    wire::{self, Failure, FromSwitch, ToSwitch},
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
    process::{Pid, Signal, WaitOptions},
    thread::{UnshareFlags, unshare_unsafe},
};
use std::{
    fs, io,
    os::fd::FromRawFd,
    path::{Path, PathBuf},
    sync::Mutex,
};

/// The client's end of the lab's processes.
#[derive(Debug)]
pub(crate) struct Keeper {
    control: Mutex<OwnedFd>,
    /// `None` once it has been waited for.
    process: Mutex<Option<Pid>>,
}

impl Keeper {
    /// Starts the processes. `remove` is the directory to remove at the end, with the groups.
    pub(crate) fn start(
        remove: Option<PathBuf>,
        groups: &Groups,
    ) -> Result<(Self, OwnedFd), LabError> {
        let pair = wire::pair();
        let (ours, theirs) = pair.map_err(|e| LabError::step("making a socket")(e.into()))?;
        // SAFETY: the child runs only code of this crate that takes no lock which another thread
        // could hold; glibc keeps its allocator usable in the child of a fork.
        let pid = match unsafe { libc::fork() } {
            0 => {
                std::mem::forget(ours);
                keeper_process(theirs, remove.as_deref(), groups)
            }
            pid => pid,
        };
        drop(theirs);
        let Some(process) = Pid::from_raw(pid).filter(|_| pid > 0) else {
            return Err(LabError::step("forking")(io::Error::last_os_error()));
        };
        let keeper = Self {
            control: Mutex::new(ours),
            process: Mutex::new(Some(process)),
        };
        match keeper.receive()? {
            (FromSwitch::Unmapped, _) => {}
            (FromSwitch::Failed(failure), _) => return Err(LabError::unsupported(failure)),
            _ => return Err(LabError::Gone),
        }
        map_ids(process).map_err(LabError::unsupported)?;
        match keeper.ask(&ToSwitch::Mapped, &[])? {
            (FromSwitch::Ready, Some(netlink)) => Ok((keeper, netlink)),
            (FromSwitch::Failed(failure), _) => Err(LabError::unsupported(failure)),
            _ => Err(LabError::Gone),
        }
    }

    /// An `AF_PACKET` socket of the switch, bound to nothing.
    pub(crate) fn packet_socket(&self) -> Result<OwnedFd, LabError> {
        match self.ask(&ToSwitch::PacketSocket, &[])? {
            (FromSwitch::Done, Some(socket)) => Ok(socket),
            (FromSwitch::Failed(failure), _) => Err(failure.into()),
            _ => Err(LabError::Gone),
        }
    }

    /// Makes the first process of a host. Returns its pidfd.
    pub(crate) fn boot(&self, name: &str, control: BorrowedFd<'_>) -> Result<OwnedFd, LabError> {
        let request = ToSwitch::Boot {
            name: name.to_owned(),
        };
        match self.ask(&request, &[control])? {
            (FromSwitch::Done, Some(pidfd)) => Ok(pidfd),
            (FromSwitch::Failed(failure), _) => Err(failure.into()),
            _ => Err(LabError::Gone),
        }
    }

    fn ask(
        &self,
        request: &ToSwitch,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(FromSwitch, Option<OwnedFd>), LabError> {
        let control = self.control.lock().unwrap_or_else(|e| e.into_inner());
        match wire::ask(control.as_fd(), request, descriptors) {
            Ok(Some((answer, descriptors))) => Ok((answer, descriptors.into_iter().next())),
            _ => Err(LabError::Gone),
        }
    }

    fn receive(&self) -> Result<(FromSwitch, Option<OwnedFd>), LabError> {
        let control = self.control.lock().unwrap_or_else(|e| e.into_inner());
        match wire::receive(control.as_fd()) {
            Ok(Some((answer, descriptors))) => Ok((answer, descriptors.into_iter().next())),
            _ => Err(LabError::Gone),
        }
    }
}

impl Keeper {
    /// Ends the lab's processes and waits until all have ended.
    pub(crate) fn stop(&self) {
        let control = self.control.lock().unwrap_or_else(|e| e.into_inner());
        let _ = rustix::net::shutdown(&*control, rustix::net::Shutdown::Both);
        let mut process = self.process.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(process) = process.take() {
            let _ = rustix::io::retry_on_intr(|| {
                rustix::process::waitpid(Some(process), WaitOptions::empty())
            });
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Maps the ids of the keeper's user namespace: all that exist if root may, else those of the
/// caller, each onto itself.
fn map_ids(process: Pid) -> Result<(), Failure> {
    let directory = PathBuf::from(format!("/proc/{}", process.as_raw_nonzero()));
    let write = |name: &str, content: &str| {
        let path = directory.join(name);
        fs::write(&path, content).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            Failure::new(
                format!("writing \"{}\" to {}", content.trim(), path.display()),
                errno,
            )
        })
    };
    let everything = |name: &str| -> Option<String> {
        let mine = fs::read_to_string(format!("/proc/self/{name}")).ok()?;
        let line = |line: &str| {
            let mut numbers = line.split_whitespace();
            let (first, count) = (numbers.next()?, numbers.nth(1)?);
            Some(format!("{first} {first} {count}\n"))
        };
        mine.lines().map(line).collect()
    };
    if rustix::process::geteuid().is_root()
        && let (Some(users), Some(groups)) = (everything("uid_map"), everything("gid_map"))
        && write("uid_map", &users).is_ok()
    {
        return write("gid_map", &groups);
    }
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    write("setgroups", "deny")?;
    write("uid_map", &format!("{user} {user} 1"))?;
    write("gid_map", &format!("{group} {group} 1"))
}

/// The keeper itself: never returns.
fn keeper_process(control: OwnedFd, remove: Option<&Path>, groups: &Groups) -> ! {
    let switch = match keeper_start(&control) {
        Ok(Some(switch)) => switch,
        // The client has gone already.
        Ok(None) => exit(0),
        Err(failure) => {
            let _ = wire::send(control.as_fd(), &FromSwitch::Failed(failure), &[]);
            exit(1)
        }
    };
    watch(control.as_fd(), &switch);
    let _ = rustix::process::pidfd_send_signal(&switch.pidfd, Signal::KILL);
    let _ = rustix::io::retry_on_intr(|| {
        rustix::process::waitpid(Some(switch.pid), WaitOptions::empty())
    });
    groups.remove();
    if let Some(directory) = remove {
        remove_tree(directory);
    }
    exit(0)
}

fn keeper_start(control: &OwnedFd) -> Result<Option<Child>, Failure> {
    settle(c"lab-keeper", control)?;
    // SAFETY: this process has a single thread and shares its file descriptors with none.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }
        .map_err(|errno| Failure::new("making a user namespace", errno))?;
    let mapped = wire::ask(control.as_fd(), &FromSwitch::Unmapped, &[]);
    if !matches!(mapped, Ok(Some((ToSwitch::Mapped, _)))) {
        return Ok(None);
    }
    let namespaces = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWNET;
    // SAFETY: this process has a single thread.
    let child = unsafe { fork_into(namespaces) };
    match child.map_err(|errno| Failure::new("making the switch's namespaces", errno))? {
        Some(child) => Ok(Some(child)),
        None => switch_process(control),
    }
}

/// Waits until the client or the switch ends.
fn watch(control: BorrowedFd<'_>, switch: &Child) {
    use rustix::event::{PollFd, PollFlags, poll};
    loop {
        // Of the client's socket only its end matters here: what comes by it is the switch's.
        let mut polled = [
            PollFd::from_borrowed_fd(control, PollFlags::empty()),
            PollFd::new(&switch.pidfd, PollFlags::IN),
        ];
        match poll(&mut polled, None) {
            Ok(_) if polled.iter().any(|p| !p.revents().is_empty()) => return,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Removes the lab's directory, also what programs made unreadable in it.
fn remove_tree(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if fs::remove_dir_all(directory).is_ok() {
        return;
    }
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        let _ = fs::set_permissions(&directory, fs::Permissions::from_mode(0o700));
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(entry.path());
            }
        }
    }
    let _ = fs::remove_dir_all(directory);
}

/// The switch's process: process 1 of the lab. Never returns.
fn switch_process(control: &OwnedFd) -> ! {
    let ready = die_with_parent().and_then(|()| {
        let _ = rustix::thread::set_name(c"lab-switch");
        host_init::make_mounts_private()?;
        // No interface of the switch takes part in what it forwards. A kernel without IPv6 has
        // no such file.
        let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        // The kernel reaps the first processes of hosts.
        // SAFETY: ignoring a signal runs no code.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        netlink::open().map_err(|errno| Failure::new("opening a netlink socket", errno))
    });
    let (answer, netlink) = match ready {
        Ok(netlink) => (FromSwitch::Ready, Some(netlink)),
        Err(failure) => (FromSwitch::Failed(failure), None),
    };
    let descriptors: Vec<_> = netlink.iter().map(AsFd::as_fd).collect();
    if wire::send(control.as_fd(), &answer, &descriptors).is_err() || netlink.is_none() {
        exit(1);
    }
    drop(descriptors);
    drop(netlink);
    while let Ok(Some((request, descriptors))) = wire::receive::<ToSwitch>(control.as_fd()) {
        let answer = match request {
            ToSwitch::Mapped => continue,
            ToSwitch::PacketSocket => packet_socket(),
            ToSwitch::Boot { name } => descriptors
                .into_iter()
                .next()
                .ok_or_else(|| Failure::new("booting without a socket", Errno::INVAL))
                .and_then(|host| boot(&name, host)),
        };
        let sent = match &answer {
            Ok(descriptor) => wire::send(control.as_fd(), &FromSwitch::Done, &[descriptor.as_fd()]),
            Err(failure) => wire::send(control.as_fd(), &FromSwitch::Failed(failure.clone()), &[]),
        };
        if sent.is_err() {
            break;
        }
    }
    exit(0)
}

fn packet_socket() -> Result<OwnedFd, Failure> {
    // Protocol 0: nothing is received before the socket is bound.
    // SAFETY: makes a new descriptor, which has no other owner.
    unsafe {
        let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            let errno = crate::process::last_errno();
            return Err(Failure::new("opening a packet socket", errno));
        }
        Ok(OwnedFd::from_raw_fd(socket))
    }
}

fn boot(name: &str, control: OwnedFd) -> Result<OwnedFd, Failure> {
    let namespaces = libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC;
    // SAFETY: this process has a single thread.
    let child = unsafe { fork_into(namespaces) };
    match child.map_err(|errno| Failure::new("making a host's namespaces", errno))? {
        Some(child) => Ok(child.pidfd),
        None => host_init::run(name, control),
    }
}
