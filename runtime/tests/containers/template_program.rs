//! A template program as `docs/TEMPLATES.md` asks for it. Its forks do what a probe does; the
//! payload is the probe's words, each ended by a NUL byte.

use crate::{probe, traces};
use rustix::{
    fd::AsFd,
    fd::{AsRawFd, FromRawFd, OwnedFd},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags,
    },
};
use std::{
    io::{IoSlice, IoSliceMut, Write},
    mem::MaybeUninit,
    sync::atomic::{AtomicU64, Ordering},
};

/// What was prepared, for forks to see and to change.
static PREPARED: AtomicU64 = AtomicU64::new(0);

/// Runs the template. The arguments say what it does differently from a good one.
pub(crate) fn run(arguments: &[String]) -> i32 {
    let how: Vec<&str> = arguments.iter().map(String::as_str).collect();
    println!("preparing");
    if how == ["die"] {
        eprintln!("there is nothing to prepare");
        return 3;
    }
    let number: i32 = variable("FD").parse().unwrap();
    let capabilities = u64::from_str_radix(&variable("CAPABILITIES"), 16).unwrap();
    let leads_session = variable("SESSION") == "1";
    let filter = variable("FILTER");
    let mut payload = Box::new([0_u8; 4096]);
    // SAFETY: the runtime has put a socket there for us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    let directory = std::env::current_dir().unwrap();
    traces::prepare();
    PREPARED.store(u64::from(std::process::id()), Ordering::Relaxed);
    if how == ["refuse"] {
        say(&socket, "refuse there are threads");
        return 0;
    }
    let rewinds = how == ["rewind"];
    say(&socket, if rewinds { "ready rewind" } else { "ready" });
    let mut forks = 0;
    while let Some((packet, descriptors)) = receive(&socket) {
        forks += 1;
        let end = packet.iter().position(|&byte| byte == b'\n').unwrap();
        let line = std::str::from_utf8(&packet[..end]).unwrap();
        let (word, request) = line.split_once(' ').unwrap();
        assert!(word == "fork" || rewinds, "{line}");
        if how == ["die-once-asked"] || (how == ["die-at-second"] && forks == 2) {
            return 4;
        }
        if how == ["kill-once-asked"] {
            // Its forks' containers, but not the init above it.
            // SAFETY: plain system calls that take no memory.
            unsafe {
                libc::kill(-1, libc::SIGKILL);
                libc::pause();
            }
        }
        if how == ["cannot-fork"] {
            say(&socket, &format!("failed {request} out of forks"));
            continue;
        }
        enter(&descriptors[3]);
        // SAFETY: this process has a single thread.
        let child = unsafe { libc::fork() };
        if child == 0 {
            if word == "stand" {
                be_watched(&socket, &filter, request);
            }
            become_container(&descriptors, &directory, leads_session, capabilities);
            let told = match word {
                "stand" => stand(&mut payload[..]),
                _ => &packet[end + 1..],
            };
            let code = fork(told);
            end_job(code);
            // SAFETY: ends this process without running what its parent registered.
            unsafe { libc::_exit(code) }
        }
        drop(descriptors);
        let mut status = 0;
        // SAFETY: waits for the child made above.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        say(&socket, &format!("ended {request} {status}"));
        if how == ["die-once-answered"] {
            return 4;
        }
    }
    0
}

fn variable(name: &str) -> String {
    std::env::var(format!("MAELSTROM_TEMPLATE_{name}")).unwrap()
}

fn say(socket: &OwnedFd, text: &str) {
    rustix::net::send(socket, text.as_bytes(), rustix::net::SendFlags::NOSIGNAL).unwrap();
}

fn receive(socket: &OwnedFd) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
    let mut packet = vec![0; 80 << 10];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let length = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut packet)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )
    .unwrap()
    .bytes;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    packet.truncate(length);
    (length > 0).then_some((packet, descriptors))
}

fn enter(namespace: &OwnedFd) {
    // SAFETY: changes this process's namespaces only.
    let result = unsafe { libc::setns(namespace.as_raw_fd(), 0) };
    assert!(result == 0, "setns: {}", std::io::Error::last_os_error());
}

/// Steps 1 to 6 of the child.
fn become_container(
    descriptors: &[OwnedFd],
    directory: &std::path::Path,
    leads_session: bool,
    capabilities: u64,
) {
    let [_, _, _, _, user, ipc, mount, network @ ..] = descriptors else {
        panic!("{} descriptors", descriptors.len());
    };
    for namespace in network.iter().chain([user, ipc, mount]) {
        enter(namespace);
    }
    std::env::set_current_dir(directory).unwrap();
    // SAFETY: plain system calls about this process; nothing uses what is closed.
    unsafe {
        for (stream, number) in descriptors[..3].iter().zip(0..) {
            libc::dup2(stream.as_raw_fd(), number);
        }
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
        if leads_session {
            libc::setsid();
        } else {
            libc::setpgid(0, 0);
        }
    }
    drop_capabilities(capabilities);
    // SAFETY: as above; the environment belongs to a process with one thread.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 1);
        for name in ["FD", "CAPABILITIES", "SESSION", "FILTER"] {
            std::env::remove_var(format!("MAELSTROM_TEMPLATE_{name}"));
        }
    }
}

fn drop_capabilities(kept: u64) {
    use rustix::thread::{CapabilitySet, CapabilitySets};
    for number in 0..64 {
        // SAFETY: takes from this process what it does not need.
        if kept & (1 << number) == 0 && unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number) } < 0 {
            break;
        }
    }
    let kept = CapabilitySet::from_bits_retain(kept & all_capabilities());
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).unwrap();
}

fn all_capabilities() -> u64 {
    rustix::thread::capabilities(None).unwrap().permitted.bits()
}

fn fork(payload: &[u8]) -> i32 {
    let words: Vec<String> = payload
        .split(|&byte| byte == 0)
        .map(|word| String::from_utf8(word.to_vec()).unwrap())
        .collect();
    let words = &words[..words.len() - 1];
    let code = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["prepared"] => {
            println!("{}", PREPARED.fetch_add(1, Ordering::Relaxed));
            0
        }
        ["exit-quietly"] => 0,
        _ => probe::run(words),
    };
    std::io::stdout().flush().unwrap();
    code
}

const REWIND: libc::c_ulong = 0x4d53_4d52;

/// Has the kernel report this process's calls and first writes.
fn be_watched(socket: &OwnedFd, filter: &str, request: &str) {
    let bytes: Vec<u8> = (0..filter.len() / 2)
        .map(|index| u8::from_str_radix(&filter[2 * index..2 * index + 2], 16).unwrap())
        .collect();
    let program = libc::sock_fprog {
        len: (bytes.len() / 8) as u16,
        filter: bytes.as_ptr().cast_mut().cast(),
    };
    let user_mode_only = 1;
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | user_mode_only;
    // SAFETY: the kernel makes two descriptors, and reads the program, which lives through this.
    let [faults, listener] = unsafe {
        [
            libc::syscall(libc::SYS_userfaultfd, flags),
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
                &raw const program,
            ),
        ]
    }
    .map(|descriptor| {
        assert!(descriptor >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: the kernel has just made it for us.
        unsafe { OwnedFd::from_raw_fd(descriptor as i32) }
    });
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let both = [listener.as_fd(), faults.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&both)));
    let text = format!("watch {request}");
    let text = [IoSlice::new(text.as_bytes())];
    rustix::net::sendmsg(socket, &text, &mut ancillary, SendFlags::NOSIGNAL).unwrap();
}

/// Where this process is set back to, to return with another payload.
fn stand(payload: &mut [u8]) -> &[u8] {
    // SAFETY: the runtime writes no more than there is room for.
    let length =
        unsafe { libc::prctl(REWIND as i32, 0_u64, payload.as_mut_ptr(), payload.len(), 0) };
    assert!(length >= 0);
    &payload[..length as usize]
}

fn end_job(code: i32) {
    // SAFETY: nothing uses what is closed any more, and the runtime is told something.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
        libc::prctl(REWIND as i32, 1_u64, code as u64, 0_u64, 0_u64);
    }
}
