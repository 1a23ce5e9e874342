//! The helper process that slots are forked from, and its handle.
//!
//! A process with many threads and much memory is a bad parent for containers: forking it copies
//! page tables and may deadlock the child. So the client forks one small process at its start,
//! before it has threads; that process enters a user namespace and forks one process for each
//! slot on request.

use crate::{
    base,
    cgroup::{self, Cgroup, Place},
    seccomp,
    slot::Slot,
    slot_process::{self, FromSlot, SlotConfig},
    sys::{self, Doing, Failure},
    wire::{self, Stream},
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    },
    process::{Pid, Signal, WaitOptions},
    thread::{UnshareFlags, unshare_unsafe},
};
use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    path::PathBuf,
    sync::{Arc, Mutex},
};

/// Why no container can be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The helper process could not be made or has gone.
    #[error("cannot start the helper process that makes containers: {0}")]
    Launcher(String),
    /// The kernel refused a step of setting up a slot.
    #[error("this machine cannot run containers: {message}\n{advice}")]
    Unsupported {
        /// The step and the kernel's answer.
        message: String,
        /// What to do about it.
        advice: String,
    },
}

/// The process that slots are forked from. When the last handle goes, including those that slots
/// have, so does whatever runs in them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Launcher {
    control: Arc<Mutex<OwnedFd>>,
}

impl Launcher {
    /// Forks the launcher. Call this first thing in `main`: it must be done before the process
    /// has threads.
    ///
    /// # Errors
    ///
    /// Only if the process cannot fork. What the kernel lacks for containers shows in
    /// [`Self::slot`].
    pub fn start() -> Result<Self, StartError> {
        let (ours, theirs) =
            socket_pair().map_err(|errno| StartError::Launcher(sys::describe(errno)))?;
        // SAFETY: the child runs only code of this crate, which takes no lock that another
        // thread could hold; glibc keeps its allocator usable in the child of a fork.
        match unsafe { libc::fork() } {
            -1 => Err(StartError::Launcher(
                std::io::Error::last_os_error().to_string(),
            )),
            0 => {
                drop(ours);
                launcher_process(theirs)
            }
            _ => Ok(Self {
                control: Arc::new(Mutex::new(ours)),
            }),
        }
    }

    /// Makes a slot that runs one job at a time. `layers_root` is the directory below which the
    /// layers of its jobs will be.
    ///
    /// # Errors
    ///
    /// [`StartError::Unsupported`] says what this machine lacks and how to enable it.
    pub fn slot(&self, layers_root: PathBuf) -> Result<Slot, StartError> {
        Slot::new(self.clone(), layers_root)
    }

    /// Forks a process for a slot. Returns the connection to it.
    pub(crate) fn fork_slot(&self, layers_root: PathBuf) -> Result<OwnedFd, StartError> {
        let gone = |error: std::io::Error| StartError::Launcher(error.to_string());
        let (ours, theirs) = socket_pair().map_err(|errno| gone(errno.into()))?;
        let config = SlotConfig { layers_root };
        let mut frame = Vec::new();
        wire::write_frame(&mut frame, &config).map_err(gone)?;
        {
            let control = self.control.lock().unwrap_or_else(|e| e.into_inner());
            send_with_descriptor(control.as_fd(), &frame, Some(theirs.as_fd())).map_err(gone)?;
        }
        drop(theirs);
        match wire::read_frame(Stream(ours.as_fd())).map_err(gone)? {
            Some(FromSlot::Ready) => Ok(ours),
            Some(FromSlot::Failed { message, advice }) => {
                Err(StartError::Unsupported { message, advice })
            }
            _ => Err(StartError::Launcher("it has ended".to_owned())),
        }
    }
}

/// A connected pair of streams that no program inherits.
pub(crate) fn socket_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
}

/// A connected pair of sockets that keep the bounds of messages.
pub(crate) fn packet_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
}

/// No message carries more descriptors than this.
const DESCRIPTORS_MAX: usize = 8;

/// Sends bytes, the first of which carry a descriptor.
pub(crate) fn send_with_descriptor(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> std::io::Result<()> {
    send_with_descriptors(socket, bytes, descriptor.as_slice())
}

/// Sends bytes, the first of which carry descriptors, at most [`DESCRIPTORS_MAX`].
pub(crate) fn send_with_descriptors(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> std::io::Result<()> {
    let mut sent = 0;
    if !descriptors.is_empty() {
        sent = send_packet(socket, bytes, descriptors)?;
    }
    std::io::Write::write_all(&mut Stream(socket), &bytes[sent..])
}

/// Sends bytes and descriptors in one call. Returns how many bytes the kernel took.
pub(crate) fn send_packet(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> std::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(std::io::Error::other("too many descriptors"));
    }
    Ok(rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(
            socket,
            &[IoSlice::new(bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )
    })?)
}

/// Sends a descriptor alone.
pub(crate) fn send_descriptor(
    socket: BorrowedFd<'_>,
    descriptor: BorrowedFd<'_>,
) -> std::io::Result<()> {
    send_with_descriptor(socket, &[0], Some(descriptor))
}

/// Receives what [`send_descriptor`] sends. `None`: the other end is closed.
pub(crate) fn receive_descriptor(socket: BorrowedFd<'_>) -> std::io::Result<Option<OwnedFd>> {
    Ok(receive_part(socket, &mut [0])?.1.into_iter().next())
}

/// Reads bytes that may carry descriptors.
pub(crate) fn receive_part(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> std::io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let count = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(buffer)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?
    .bytes;
    let mut received = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            received.extend(descriptors);
        }
    }
    Ok((count, received))
}

/// Reads a frame whose first bytes may carry a descriptor.
pub(crate) fn receive_with_descriptor<T: serde::de::DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> std::io::Result<Option<(T, Option<OwnedFd>)>> {
    let received = receive_with_descriptors(socket)?;
    Ok(received.map(|(frame, descriptors)| (frame, descriptors.into_iter().next())))
}

/// Reads a frame whose first bytes may carry descriptors.
pub(crate) fn receive_with_descriptors<T: serde::de::DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> std::io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut header = [0; 4];
    let (first, descriptors) = receive_part(socket, &mut header)?;
    if first == 0 {
        return Ok(None);
    }
    let rest = std::io::Read::chain(&header[..first], Stream(socket));
    Ok(wire::read_frame(rest)?.map(|frame| (frame, descriptors)))
}

/// Namespaces and ids that every slot starts from.
pub(crate) struct Host {
    pub(crate) user: u32,
    pub(crate) group: u32,
    pub(crate) cgroup_places: Vec<Place>,
}

/// The launcher itself: never returns. Its client's end of the connection closes when the client
/// ends, however that happens.
fn launcher_process(control: OwnedFd) -> ! {
    let code = match launcher_loop(&control) {
        Ok(()) => 0,
        Err(_) => 1,
    };
    // SAFETY: ends the process without running the handlers of the one it was forked from.
    unsafe { libc::_exit(code) }
}

fn launcher_loop(control: &OwnedFd) -> std::io::Result<()> {
    leave_terminal()?;
    detach_from_standard_streams()?;
    let host = enter_namespaces();
    let launcher = rustix::process::getpid();
    let mut slots = Vec::new();
    let mut made = 0;
    while let Some((config, descriptor)) = receive_with_descriptor::<SlotConfig>(control.as_fd())? {
        let Some(slot_control) = descriptor else {
            continue;
        };
        // Slots that have ended.
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
        let cgroup_name = cgroup::name(launcher.as_raw_nonzero().get() as u32, made);
        made += 1;
        // SAFETY: this process has a single thread.
        match unsafe { libc::fork() } {
            0 => {
                let ended = die_with_parent(launcher).and_then(|()| {
                    let entered = host.as_ref().map_err(Clone::clone).and_then(|host| {
                        Ok((host, enter_cgroup(&host.cgroup_places, &cgroup_name)?))
                    });
                    slot_process::run(slot_control, &config, entered)
                });
                // SAFETY: as in `launcher_process`.
                unsafe { libc::_exit(i32::from(ended.is_err())) }
            }
            -1 => {
                let failed = FromSlot::Failed {
                    message: format!("forking: {}", std::io::Error::last_os_error()),
                    advice: "Check the limit on processes (ulimit -u).".to_owned(),
                };
                let _ = wire::write_frame(Stream(slot_control.as_fd()), &failed);
            }
            pid => slots.push((pid, cgroup_name)),
        }
    }
    for (pid, _) in &slots {
        if let Some(pid) = Pid::from_raw(*pid) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
    while rustix::process::wait(WaitOptions::empty()).is_ok() {}
    if let Ok(host) = host {
        for (_, name) in &slots {
            cgroup::remove(&host.cgroup_places, name);
        }
    }
    Ok(())
}

/// Moves this process, a slot, into control groups of its own, and makes them look like the
/// topmost ones to its jobs.
fn enter_cgroup(places: &[Place], name: &str) -> Result<Cgroup, Failure> {
    let cgroup = Cgroup::enter(places, name);
    // SAFETY: this process has a single thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWCGROUP) }
        .doing(|| "creating a cgroup namespace".to_owned())?;
    Ok(cgroup)
}

/// Out of reach of the terminal's Ctrl-C, which is for the client, and without a way back to the
/// terminal for jobs. The session stays the client's: the kernel shares processors between
/// sessions, and jobs count as part of what started them.
fn leave_terminal() -> std::io::Result<()> {
    rustix::process::setpgid(None, None)?;
    if let Ok(terminal) = rustix::fs::open(
        "/dev/tty",
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    ) {
        // SAFETY: gives up this process's controlling terminal.
        unsafe { libc::ioctl(rustix::fd::AsRawFd::as_raw_fd(&terminal), libc::TIOCNOTTY) };
    }
    Ok(())
}

/// Points the standard streams nowhere, so that a reader of the client's output sees its end when
/// the client ends, and so that no other descriptor gets their numbers.
fn detach_from_standard_streams() -> std::io::Result<()> {
    let null = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDWR,
        rustix::fs::Mode::empty(),
    )?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    if rustix::fd::AsRawFd::as_raw_fd(&null) < 3 {
        std::mem::forget(null);
    }
    Ok(())
}

/// Ends this process when its parent ends, also if that has happened already.
fn die_with_parent(parent: Pid) -> std::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != Some(parent) {
        return Err(Errno::SRCH.into());
    }
    Ok(())
}

/// Enters the user namespace in which slots have their privileges.
fn enter_namespaces() -> Result<Host, Failure> {
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    let cgroup_places = cgroup::places();
    cgroup::remove_abandoned(&cgroup_places);
    // Supplementary groups would give containers access to what those groups may reach. Only
    // root may drop them.
    let _ = rustix::thread::set_thread_groups(&[]);
    // SAFETY: this process has a single thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }
        .doing(|| "creating a user namespace".to_owned())?;
    sys::map_ids((user, group), (user, group))?;
    // SAFETY: as above.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS) }
        .doing(|| "creating mount, IPC and UTS namespaces".to_owned())?;
    rustix::system::sethostname(base::HOST_NAME.as_bytes())
        .doing(|| "setting the host name of containers".to_owned())?;
    base::make_mounts_private()?;
    rustix::thread::set_no_new_privs(true).doing(|| "setting no_new_privs".to_owned())?;
    seccomp::install().doing(|| "installing the system call filter".to_owned())?;
    Ok(Host {
        user,
        group,
        cgroup_places,
    })
}
