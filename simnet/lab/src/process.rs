//! Making the lab's processes: forks, namespaces, and what every one of them does first.

use crate::wire::Failure;
use rustix::{
    fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    io::Errno,
    process::Pid,
};
use std::{ffi::CStr, mem::size_of};

/// The child of a [`fork_into`], as its parent sees it.
pub(crate) struct Child {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
}

/// Forks into new namespaces. `None` is the child.
///
/// # Safety
///
/// The calling process has a single thread.
pub(crate) unsafe fn fork_into(namespaces: libc::c_int) -> Result<Option<Child>, Errno> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: all-zero is the documented default of this structure.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (namespaces | libc::CLONE_PIDFD) as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: without CLONE_VM this is a fork; the structure lives through the call.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            size_of::<libc::clone_args>(),
        )
    };
    if pid < 0 {
        return Err(last_errno());
    }
    Ok(Pid::from_raw(pid as i32).map(|pid| Child {
        pid,
        // SAFETY: the kernel has just made this descriptor for us.
        pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
    }))
}

/// What the kernel said to the last call through `libc`.
pub(crate) fn last_errno() -> Errno {
    // SAFETY: reads the thread's errno.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

/// Ends the calling process without running anything of the one it was forked from.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// What each of the lab's own processes does first: it keeps one descriptor of its parent, ends
/// with it, is of a session of its own, and has the default answer to signals that reach it.
pub(crate) fn settle(name: &CStr, keep: &OwnedFd) -> Result<(), Failure> {
    let failed = |doing: &'static str| move |errno| Failure::new(doing, errno);
    let null = rustix::fs::open(
        c"/dev/null",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map_err(failed("opening /dev/null"))?;
    for stream in 0..3 {
        // SAFETY: no owner of a standard stream exists in this process.
        if unsafe { libc::dup2(null.as_raw_fd(), stream) } < 0 {
            return Err(failed("closing the standard streams")(last_errno()));
        }
    }
    close_all_but(keep.as_raw_fd());
    // The null descriptor is closed as well; its owner must not close another in its place.
    std::mem::forget(null);
    let _ = rustix::process::setsid();
    rustix::process::chdir(c"/").map_err(failed("entering /"))?;
    for signal in 1..=64 {
        // SAFETY: default handlers run no code of this process; impossible signals are refused.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an empty set is a valid set; unblocking all signals touches no memory.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
    let _ = rustix::thread::set_name(name);
    Ok(())
}

/// Has the kernel kill this process when its parent ends.
pub(crate) fn die_with_parent() -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|errno| Failure::new("asking to end with the parent process", errno))
}

/// Closes every descriptor above the standard streams but one.
fn close_all_but(kept: libc::c_int) {
    let kept = kept as libc::c_uint;
    // SAFETY: what is closed here belongs to owners that this process never drops: they are
    // those of the process it was forked from.
    unsafe {
        if kept > 3 {
            libc::syscall(libc::SYS_close_range, 3, kept - 1, 0);
        }
        libc::syscall(libc::SYS_close_range, kept.max(2) + 1, libc::c_uint::MAX, 0);
    }
}

/// Waits until a process or a socket is ready to be read, or its other end has gone.
pub(crate) fn wait_readable(descriptors: &[BorrowedFd<'_>]) -> Result<Vec<bool>, Errno> {
    let mut polled: Vec<_> = descriptors
        .iter()
        .map(|fd| rustix::event::PollFd::from_borrowed_fd(*fd, rustix::event::PollFlags::IN))
        .collect();
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, None))?;
    Ok(polled.iter().map(|p| !p.revents().is_empty()).collect())
}
