//! What the programs of a job whose time is over have to say before they are killed.
//!
//! Interpreters and runtimes that catch `SIGABRT` answer it with where they are: Python's
//! `faulthandler`, which pytest turns on, with the stacks of all threads, Go with those of all
//! goroutines. So whoever in the container catches that signal gets it, and a moment to answer.
//! Nobody else does, as it would end them just as `SIGKILL` will.

use rustix::{
    fd::{AsFd, AsRawFd, OwnedFd},
    process::{Pid, PidfdFlags, Resource, Rlimit, Signal},
};
use std::{fs, time::Duration};

/// How long they have.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(1);

/// The number of a PID namespace, as the kernel identifies it.
pub(crate) type Namespace = u64;

/// Which PID namespace a descriptor refers to.
pub(crate) fn namespace(of: &OwnedFd) -> Option<Namespace> {
    rustix::fs::fstat(of).ok().map(|status| status.st_ino)
}

/// Which PID namespace the children of a process are in.
pub(crate) fn namespace_below(init: &OwnedFd) -> Option<Namespace> {
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", init.as_raw_fd())).ok()?;
    let pid = field(&about, "Pid:")?;
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children
        .split_ascii_whitespace()
        .find_map(|child| namespace_of(child.parse().ok()?))
}

fn namespace_of(pid: i32) -> Option<Namespace> {
    let status = rustix::fs::stat(format!("/proc/{pid}/ns/pid")).ok()?;
    Some(status.st_ino)
}

/// Asks all processes of a namespace that would answer. Returns whether there is one.
pub(crate) fn ask(namespace: Namespace) -> bool {
    let mut any = false;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(pid) = pid
            && namespace_of(pid) == Some(namespace)
        {
            any |= ask_process(pid, namespace).is_some();
        }
    }
    any
}

fn ask_process(number: i32, namespace: Namespace) -> Option<()> {
    let pid = Pid::from_raw(number)?;
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let status = fs::read_to_string(format!("/proc/{number}/status")).ok()?;
    if !catches(&status, Signal::ABORT) || namespace_of(number) != Some(namespace) {
        return None;
    }
    // It is not a crash that anybody wants a core of. With this limit there is none even where the
    // kernel hands cores to a program.
    let limit = Rlimit {
        current: Some(1),
        maximum: Some(1),
    };
    let _ = rustix::process::prlimit(Some(pid), Resource::Core, limit);
    rustix::process::pidfd_send_signal(process.as_fd(), Signal::ABORT).ok()
}

/// Whether a process handles a signal, by its `/proc/PID/status`.
fn catches(status: &str, signal: Signal) -> bool {
    field(status, "SigCgt:")
        .and_then(|mask| u64::from_str_radix(mask, 16).ok())
        .is_some_and(|mask| mask >> (signal.as_raw() - 1) & 1 == 1)
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_catches_a_signal() {
        let status = "Name:\tcat\nSigIgn:\t0000000000000020\nSigCgt:\t0000000100000440\n";
        assert!(!catches(status, Signal::ABORT));
        let handling = status.replace("440", "460");
        assert!(catches(&handling, Signal::ABORT));
        assert!(!catches("", Signal::ABORT));
        assert!(!catches("SigCgt:\tx\n", Signal::ABORT));
    }
}
