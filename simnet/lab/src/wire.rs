//! Messages between the lab and its processes: postcard in sequenced packets, with descriptors.

use rustix::{
    cmsg_space,
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
};

/// The longest message in bytes. A packet of a Unix socket fits in the smallest usual send buffer.
const LONGEST: usize = 160 * 1024;

/// Descriptors in one message, at most.
const DESCRIPTORS: usize = 4;

/// To the process that holds the switch's namespaces.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToSwitch {
    /// The user and group ids of the user namespace are mapped.
    Mapped,
    /// Wants an `AF_PACKET` socket of the switch.
    PacketSocket,
    /// Wants a host of this name. Comes with the host's control socket.
    Boot { name: String },
}

/// From the process that holds the switch's namespaces.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromSwitch {
    /// In a new user namespace: its ids are to be mapped.
    Unmapped,
    /// Comes with a netlink socket of the switch.
    Ready,
    /// Done. Comes with the packet socket, or the pidfd of the host's first process.
    Done,
    /// Could not do it.
    Failed(Failure),
}

/// To the first process of a host.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToHost {
    /// Comes with four descriptors: where to report, and the program's standard streams.
    Spawn(Spawn),
    /// Signals a process that a spawn reported, or its process group.
    Signal { pid: i32, signal: i32, group: bool },
    /// Signals every process of the host but its first.
    SignalAll { signal: i32 },
}

/// What to run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spawn {
    pub(crate) program: Vec<u8>,
    pub(crate) arguments: Vec<Vec<u8>>,
    /// `NAME=value` each.
    pub(crate) environment: Vec<Vec<u8>>,
    pub(crate) directory: Vec<u8>,
    /// Standard input is a terminal, which becomes the session's.
    pub(crate) terminal: bool,
}

/// From the first process of a host.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromHost {
    /// Comes with a netlink socket of the host and its network namespace.
    Ready,
    /// A signal was sent.
    Done,
    /// Could not do it.
    Failed(Failure),
}

/// About one program, on its own socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    Started {
        pid: i32,
    },
    Failed(Failure),
    /// As `waitpid` gives it.
    Ended {
        status: i32,
    },
}

/// A step that failed, and the kernel's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) doing: String,
    pub(crate) errno: i32,
}

impl Failure {
    pub(crate) fn new(doing: impl Into<String>, errno: Errno) -> Self {
        Self {
            doing: doing.into(),
            errno: errno.raw_os_error(),
        }
    }
}

/// A connected pair for messages.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
}

/// Sends a message with at most four descriptors.
pub(crate) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
    if bytes.len() > LONGEST {
        return Err(io::Error::new(
            io::ErrorKind::ArgumentListTooLong,
            format!("{} bytes of arguments and environment", bytes.len()),
        ));
    }
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(
            socket,
            &[IoSlice::new(&bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )
    })?;
    Ok(())
}

/// Receives a message. `None`: the other end is closed.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; LONGEST];
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
    });
    let count = match received {
        Ok(received) => received.bytes,
        Err(Errno::CONNRESET) => 0,
        Err(errno) => return Err(errno.into()),
    };
    if count == 0 {
        return Ok(None);
    }
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    let message = postcard::from_bytes(&bytes[..count]).map_err(io::Error::other)?;
    Ok(Some((message, descriptors)))
}

/// Sends a request and receives its answer.
pub(crate) fn ask<Q: Serialize, A: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    request: &Q,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<Option<(A, Vec<OwnedFd>)>> {
    send(socket, request, descriptors)?;
    receive(socket.as_fd())
}
