//! The few kernel interfaces that `rustix` has no safe wrapper for, and errors that say what was
//! being done.

use rustix::{
    fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    io::Errno,
    process::Pid,
};
use std::{ffi::CString, fmt, io, mem::size_of};

/// A failed step: what was being done, and what the kernel said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// In the form "mounting proc on /proc".
    pub(crate) doing: String,
    /// The kernel's answer.
    pub(crate) errno: Errno,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, describe(self.errno))
    }
}

/// The text of an error without the number that `std` appends.
pub(crate) fn describe(errno: Errno) -> String {
    let text = io::Error::from(errno).to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// Says what was being done when a call failed.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> Doing<T> for Result<T, Errno> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|errno| Failure {
            doing: what(),
            errno,
        })
    }
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            doing: what(),
            errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
        })
    }
}

/// Turns a raw return value into a result.
pub(crate) fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result < 0 {
        // SAFETY: reading the thread's errno.
        Err(Errno::from_raw_os_error(unsafe {
            *libc::__errno_location()
        }))
    } else {
        Ok(result)
    }
}

/// The child of a [`fork_into`], as its parent sees it.
pub(crate) struct Child {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
}

/// Forks into new namespaces. `None` is the child.
///
/// # Safety
///
/// The calling process has a single thread (or, in the child, calls only what works after a fork
/// of a multi-threaded process).
pub(crate) unsafe fn fork_into(namespaces: libc::c_int) -> Result<Option<Child>, Errno> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: all-zero is the documented default of this structure.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (namespaces | libc::CLONE_PIDFD) as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: without CLONE_VM this is a fork; the structure lives through the call.
    let pid = check(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            size_of::<libc::clone_args>(),
        )
    })?;
    Ok(Pid::from_raw(pid as i32).map(|pid| Child {
        pid,
        // SAFETY: the kernel has just made this descriptor for us.
        pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
    }))
}

/// Makes a mount, and all below it if `recursive`, read-only.
pub(crate) fn set_read_only(mount: BorrowedFd<'_>, recursive: bool) -> Result<(), Errno> {
    // SAFETY: all-zero is the documented default of this structure.
    let mut attributes: libc::mount_attr = unsafe { std::mem::zeroed() };
    attributes.attr_set = libc::MOUNT_ATTR_RDONLY;
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the structure and the empty string live through the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw mut attributes,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(|_| ())
}

/// Brings the loopback interface of the current network namespace up.
pub(crate) fn bring_up_loopback() -> Result<(), Errno> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request lives through the call and has the type this ioctl takes.
    check(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) as libc::c_long
    })
    .map(|_| ())
}

/// A string for the kernel.
pub(crate) fn c_string(what: &str, text: impl Into<Vec<u8>>) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure {
        doing: format!("{what} contains a NUL byte"),
        errno: Errno::INVAL,
    })
}

/// Maps one user and one group of a fresh user namespace of this process onto its own ids.
pub(crate) fn map_ids(inside: (u32, u32), outside: (u32, u32)) -> Result<(), Failure> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    // Looked up once: the kernel makes every name below it anew for each process.
    let this = openat(
        CWD,
        "/proc/self",
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .doing(|| "opening /proc/self".to_owned())?;
    let write = |name: &str, content: String| {
        openat(&this, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|file| rustix::io::write(&file, content.as_bytes()))
            .doing(|| format!("writing \"{content}\" to /proc/self/{name}"))
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{} {} 1", inside.0, outside.0))?;
    write("gid_map", format!("{} {} 1", inside.1, outside.1))?;
    Ok(())
}

/// Asks the scheduler to run this process soon after it wakes, so that it can end a job however
/// many processes that has. Children start without this. Before Linux 6.12 it has no effect.
///
/// A process that takes short turns gets them early: see `sched_setattr(2)` and the EEVDF
/// scheduler's time slices.
pub(crate) fn be_prompt() {
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime_ns: u64,
        deadline_ns: u64,
        period_ns: u64,
    }
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: libc::SCHED_OTHER as u32,
        flags: libc::SCHED_FLAG_RESET_ON_FORK as u64,
        nice: rustix::process::getpriority_process(None).unwrap_or(0),
        priority: 0,
        runtime_ns: 100_000,
        deadline_ns: 0,
        period_ns: 0,
    };
    // SAFETY: the structure lives through the call. A refusal changes nothing that matters.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}
