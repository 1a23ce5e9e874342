//! Finding out what a program looks for in vain.
//!
//! The program's calls that take a path are held up by the kernel (seccomp user notification,
//! Linux 5.5) until this process, the container's init, has looked at the path: if it does not
//! exist in the container but does on the machine, the container probably lacks it. The calls
//! then go on as if nothing had happened, so verdicts stay what they are.

use crate::{
    container::Blame,
    job::ContainerJob,
    launcher::{receive_descriptor, send_descriptor},
    seccomp,
    slot_process::Surroundings,
    sys::{self, Doing},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::{AsFd, AsRawFd, OwnedFd},
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
    process::{Pid, PidfdFlags},
};
use std::{
    collections::BTreeSet,
    ffi::{OsString, c_int},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// No more paths than this are reported.
const MISSING_MAX: usize = 200;

/// No more bytes of paths than this are reported, so that a report fits into a pipe.
const MISSING_MAX_BYTES: usize = 16 << 10;

/// Below these nothing is ever missing that a layer could add.
const IGNORED: &[&str] = &["/proc", "/sys", "/dev", "/tmp", "/run", "/var/run"];

/// The calls that are watched, and which of their arguments is the path. For those with a
/// directory argument, it is the one before the path.
const CALLS: &[(libc::c_long, usize)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 0),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_stat, 0),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_lstat, 0),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_access, 0),
    (libc::SYS_execve, 0),
    (libc::SYS_chdir, 0),
    (libc::SYS_openat, 1),
    (libc::SYS_openat2, 1),
    (libc::SYS_newfstatat, 1),
    (libc::SYS_statx, 1),
    (libc::SYS_faccessat, 1),
    (libc::SYS_faccessat2, 1),
    (libc::SYS_execveat, 1),
];

/// A program that is watched.
pub(crate) struct Traced {
    program: Pid,
    listener: OwnedFd,
}

/// What the new process calls before it becomes the program: installs the filter and hands the
/// listener over.
pub(crate) fn submit(to: &OwnedFd) -> Result<(), Errno> {
    let calls: Vec<_> = CALLS.iter().map(|(call, _)| *call).collect();
    let program = seccomp::program(&calls, libc::SECCOMP_RET_USER_NOTIF);
    let listener = seccomp::load(&program, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    // SAFETY: the kernel has just made this descriptor for us.
    let listener: OwnedFd = unsafe { rustix::fd::FromRawFd::from_raw_fd(listener) };
    send_descriptor(to.as_fd(), listener.as_fd()).map_err(|_| Errno::PIPE)
}

impl Traced {
    /// Receives the listener of a program that is being started.
    pub(crate) fn receive(program: Pid, from: &OwnedFd) -> Result<Self, Blame> {
        let listener = receive_descriptor(from.as_fd())
            .and_then(|listener| listener.ok_or(std::io::ErrorKind::UnexpectedEof.into()))
            .doing(|| "watching the program's file system calls".to_owned())?;
        Ok(Self { program, listener })
    }

    /// Answers the program's calls until it ends. Returns what it looked for in vain.
    pub(crate) fn watch(&self, job: &ContainerJob, around: &Surroundings<'_>) -> Vec<PathBuf> {
        let mut missing = BTreeSet::new();
        let Ok(ended) = rustix::process::pidfd_open(self.program, PidfdFlags::empty()) else {
            return Vec::new();
        };
        loop {
            let mut descriptors = [
                PollFd::new(&self.listener, PollFlags::IN),
                PollFd::new(&ended, PollFlags::IN),
            ];
            match poll(&mut descriptors, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(_) => break,
            }
            if descriptors[0].revents().contains(PollFlags::IN) {
                self.answer(job, around, &mut missing);
            } else if !descriptors[1].revents().is_empty() {
                break;
            }
        }
        let mut bytes = 0;
        missing
            .into_iter()
            .take_while(|path: &PathBuf| {
                bytes += path.as_os_str().len();
                bytes <= MISSING_MAX_BYTES
            })
            .collect()
    }

    fn answer(
        &self,
        job: &ContainerJob,
        around: &Surroundings<'_>,
        missing: &mut BTreeSet<PathBuf>,
    ) {
        let Some(notification) = receive_notification(&self.listener) else {
            return;
        };
        if missing.len() < MISSING_MAX
            && let Some(path) = path_of(&notification, job)
            && is_missing(&path, around)
        {
            missing.insert(path);
        }
        let_go_on(&self.listener, notification.id);
    }
}

/// A call that the kernel holds up.
pub(crate) type Notification = libc::seccomp_notif;

/// Receives what a listener has to tell. `None`: the caller has gone meanwhile.
pub(crate) fn receive_notification(listener: &OwnedFd) -> Option<Notification> {
    // SAFETY: the kernel wants this structure zeroed.
    let mut notification: Notification = unsafe { std::mem::zeroed() };
    // SAFETY: the structure lives through the call and has the type this ioctl takes.
    let received = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            SECCOMP_IOCTL_NOTIF_RECV,
            &raw mut notification,
        )
    };
    (received >= 0).then_some(notification)
}

/// Lets a call happen as if it had not been held up.
pub(crate) fn let_go_on(listener: &OwnedFd, id: u64) {
    respond(
        listener,
        id,
        0,
        libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
    );
}

/// Lets a call return this value without happening.
pub(crate) fn answer(listener: &OwnedFd, id: u64, value: i64) {
    respond(listener, id, value, 0);
}

fn respond(listener: &OwnedFd, id: u64, value: i64, flags: u32) {
    let mut response = libc::seccomp_notif_resp {
        id,
        val: value,
        error: 0,
        flags,
    };
    // SAFETY: as in `receive_notification`. An error means that the caller has ended.
    unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            SECCOMP_IOCTL_NOTIF_SEND,
            &raw mut response,
        );
    }
}

/// Opens one of our descriptors in a process whose call is held up. Returns the number that it has
/// there.
pub(crate) fn give_descriptor(
    listener: &OwnedFd,
    id: u64,
    descriptor: &OwnedFd,
) -> Result<u32, Errno> {
    /// `struct seccomp_notif_addfd`
    #[repr(C)]
    struct Addition {
        id: u64,
        flags: u32,
        source: u32,
        target: u32,
        target_flags: u32,
    }
    let mut addition = Addition {
        id,
        flags: 0,
        source: descriptor.as_raw_fd() as u32,
        target: 0,
        target_flags: libc::O_CLOEXEC as u32,
    };
    // SAFETY: the structure lives through the call and has the type this ioctl takes.
    let given = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            SECCOMP_IOCTL_NOTIF_ADDFD,
            &raw mut addition,
        )
    };
    sys::check(given.into()).map(|number| number as u32)
}

const SECCOMP_IOCTL_NOTIF_ADDFD: libc::Ioctl = 0x4018_2103_u32 as libc::Ioctl;
const SECCOMP_IOCTL_NOTIF_RECV: libc::Ioctl = 0xc050_2100_u32 as libc::Ioctl;
const SECCOMP_IOCTL_NOTIF_SEND: libc::Ioctl = 0xc018_2101_u32 as libc::Ioctl;

/// The absolute path that a call names, if it can be known.
fn path_of(notification: &libc::seccomp_notif, job: &ContainerJob) -> Option<PathBuf> {
    let call = libc::c_long::from(notification.data.nr);
    let (_, argument) = CALLS.iter().find(|(number, _)| *number == call)?;
    let path = read_string(notification.pid, notification.data.args[*argument])?;
    if path.as_os_str().is_empty() {
        return None;
    }
    if path.is_absolute() {
        return Some(normal(&path));
    }
    let from_current =
        *argument == 0 || notification.data.args[argument - 1] as c_int == libc::AT_FDCWD;
    if !from_current {
        return None;
    }
    let directory = std::fs::read_link(format!("/proc/{}/cwd", notification.pid))
        .unwrap_or_else(|_| job.working_directory.clone());
    Some(normal(&directory.join(path)))
}

/// Without `.` components and doubled separators. `..` stays: it depends on symbolic links.
fn normal(path: &Path) -> PathBuf {
    path.components().collect()
}

/// Reads a path out of another process of the container.
pub(crate) fn read_string(pid: u32, address: u64) -> Option<PathBuf> {
    let mut bytes = Vec::new();
    let mut address = address as usize;
    while bytes.len() < libc::PATH_MAX as usize {
        // Never across a page, the next of which may not be there.
        let length = 4096 - address % 4096;
        let mut part = vec![0_u8; length];
        let local = libc::iovec {
            iov_base: part.as_mut_ptr().cast(),
            iov_len: length,
        };
        let remote = libc::iovec {
            iov_base: address as *mut _,
            iov_len: length,
        };
        // SAFETY: the local buffer lives through the call and has the length given.
        let read = sys::check(unsafe {
            libc::process_vm_readv(pid as i32, &raw const local, 1, &raw const remote, 1, 0)
                as libc::c_long
        })
        .ok()? as usize;
        part.truncate(read);
        if let Some(end) = part.iter().position(|byte| *byte == 0) {
            bytes.extend_from_slice(&part[..end]);
            return Some(PathBuf::from(OsString::from_vec(bytes)));
        }
        bytes.extend_from_slice(&part);
        address += read;
    }
    None
}

/// Whether the container lacks a path that the machine has.
fn is_missing(path: &Path, around: &Surroundings<'_>) -> bool {
    if IGNORED.iter().any(|ignored| path.starts_with(ignored)) {
        return false;
    }
    if path.symlink_metadata().is_ok() {
        return false;
    }
    rustix::fs::openat2(
        around.host_root,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT,
    )
    .is_ok()
}
