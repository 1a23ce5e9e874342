//! A template program as `docs/TEMPLATES.md` asks for it. Its forks do what a probe does; the
//! payload is the probe's words, each ended by a NUL byte.

use crate::probe;
use rustix::{
    fd::{AsRawFd, FromRawFd, OwnedFd},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags},
};
use std::{
    io::{IoSliceMut, Write},
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
    // SAFETY: the runtime has put a socket there for us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    let directory = std::env::current_dir().unwrap();
    PREPARED.store(u64::from(std::process::id()), Ordering::Relaxed);
    if how == ["refuse"] {
        say(&socket, "refuse there are threads");
        return 0;
    }
    say(&socket, "ready");
    let mut forks = 0;
    while let Some((packet, descriptors)) = receive(&socket) {
        forks += 1;
        let end = packet.iter().position(|&byte| byte == b'\n').unwrap();
        let line = std::str::from_utf8(&packet[..end]).unwrap();
        let request = line.strip_prefix("fork ").unwrap();
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
            become_container(&descriptors, &directory, leads_session, capabilities);
            std::process::exit(fork(&packet[end + 1..]));
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
        for name in ["FD", "CAPABILITIES", "SESSION"] {
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
    // SAFETY: ends this process without running what its parent registered.
    unsafe { libc::_exit(code) }
}
