//! The network namespaces of a slot.
//!
//! Creating a network namespace costs about half a millisecond of processor time and as much
//! again to tear down, which is more than everything else in a container together. So a slot
//! keeps one for each kind of network and gives it to one job after another. A job that does not
//! own its network namespace cannot change it (addresses, routes, settings); all it can leave
//! behind are sockets that outlive their process, such as TCP connections in TIME-WAIT. After
//! each job the kernel's own count of sockets is read, and a namespace in which any is left is
//! replaced.
//!
//! A slot that has left the network of the machine cannot come back to it: that network does not
//! belong to the slot's user namespace. So jobs on the network of the machine run in slot
//! processes of their own.

use crate::{
    base,
    job::{ContainerJob, ContainerMount, JobNetwork, Privileges},
    settings,
    sys::{self, Doing, Failure},
};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{Mode, OFlags},
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount, unmount},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};
use std::path::{Path, PathBuf};

pub(crate) struct Networks {
    isolated: [Option<Isolated>; 2],
    current: JobNetwork,
}

struct Isolated {
    namespace: OwnedFd,
    /// Counts of sockets, for IPv4 and IPv6. They belong to the namespace in which they were
    /// opened.
    counts: [Option<OwnedFd>; 2],
    has_sys: bool,
}

impl Networks {
    pub(crate) fn new() -> Self {
        Self {
            isolated: [None, None],
            current: JobNetwork::Local,
        }
    }

    /// Enters the network namespace that containers of this job inherit. `true`: the job gets
    /// one of its own instead.
    pub(crate) fn switch_to(&mut self, job: &ContainerJob) -> Result<bool, Failure> {
        let wanted = job.network;
        // Where there is no network, there is nothing in it to configure either.
        if job.privileges == Privileges::Namespace && wanted == JobNetwork::Loopback {
            return Ok(true);
        }
        let Some(index) = index(wanted) else {
            return if self.current == wanted {
                Ok(false)
            } else {
                Err(Errno::PERM).doing(|| "returning to the machine's network".to_owned())
            };
        };
        match &self.isolated[index] {
            Some(_) if self.current == wanted => {}
            Some(isolated) => enter(&isolated.namespace)?,
            None => self.isolated[index] = Some(Isolated::new(wanted)?),
        }
        self.current = wanted;
        let wants_sys = job
            .mounts
            .iter()
            .any(|mount| matches!(mount, ContainerMount::Sys { .. }));
        if let Some(isolated) = &mut self.isolated[index]
            && wants_sys
            && !isolated.has_sys
        {
            let at = sys_path(wanted);
            base::create_directory(&at)?;
            mount(
                "sysfs",
                &at,
                "sysfs",
                MountFlags::NOSUID
                    | MountFlags::NODEV
                    | MountFlags::NOEXEC
                    | settings::sysfs_flags(),
                None,
            )
            .doing(|| "mounting sysfs".to_owned())?;
            isolated.has_sys = true;
        }
        Ok(false)
    }

    /// Whether nothing is left in the current namespace.
    pub(crate) fn is_clean(&self) -> bool {
        index(self.current)
            .and_then(|index| self.isolated[index].as_ref())
            .is_none_or(Isolated::is_clean)
    }

    /// What must stay open for this to go on working.
    pub(crate) fn descriptors(&self) -> Vec<&OwnedFd> {
        let isolated = self.isolated.iter().flatten();
        isolated
            .flat_map(|isolated| {
                isolated
                    .counts
                    .iter()
                    .flatten()
                    .chain([&isolated.namespace])
            })
            .collect()
    }

    /// Replaces the current namespace, at its next use, if a socket is left in it. Whether one
    /// was.
    pub(crate) fn renew_if_used(&mut self) -> bool {
        let Some(index) = index(self.current) else {
            return false;
        };
        if let Some(isolated) = &self.isolated[index]
            && !isolated.is_clean()
        {
            if isolated.has_sys {
                let _ = unmount(sys_path(self.current), UnmountFlags::DETACH);
            }
            // This process itself keeps the old one alive until it enters another.
            self.isolated[index] = None;
            return true;
        }
        false
    }
}

impl Isolated {
    fn new(kind: JobNetwork) -> Result<Self, Failure> {
        // SAFETY: this process has a single thread.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
            .doing(|| "creating a network namespace".to_owned())?;
        if kind == JobNetwork::Loopback {
            sys::bring_up_loopback().doing(|| "bringing up loopback".to_owned())?;
        }
        let open = |name: &str| {
            rustix::fs::open(
                Path::new("/proc/self/net").join(name),
                OFlags::RDONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )
        };
        Ok(Self {
            namespace: this_namespace()?,
            counts: [
                Some(open("sockstat").doing(|| "opening /proc/self/net/sockstat".to_owned())?),
                // Absent where IPv6 is switched off.
                open("sockstat6").ok(),
            ],
            has_sys: false,
        })
    }

    fn is_clean(&self) -> bool {
        self.counts.iter().flatten().all(|counts| {
            let mut text = [0; 2048];
            match rustix::io::pread(counts, &mut text, 0) {
                Ok(length) => no_sockets(&String::from_utf8_lossy(&text[..length])),
                Err(_) => false,
            }
        })
    }
}

/// Whether a `sockstat` shows no socket of the Internet protocols.
///
/// `orphan`, `alloc` and `mem` count the whole machine and say nothing about a namespace.
fn no_sockets(sockstat: &str) -> bool {
    sockstat
        .lines()
        .filter(|line| !line.starts_with("sockets:"))
        .all(|line| {
            let words: Vec<_> = line.split_ascii_whitespace().collect();
            words
                .windows(2)
                .all(|pair| !matches!(pair[0], "inuse" | "tw") || pair[1] == "0")
        })
}

fn index(kind: JobNetwork) -> Option<usize> {
    match kind {
        JobNetwork::Disabled => Some(0),
        JobNetwork::Loopback => Some(1),
        JobNetwork::Local => None,
    }
}

/// Where the sysfs of a kind of network is mounted, for containers to copy.
pub(crate) fn sys_path(kind: JobNetwork) -> PathBuf {
    let name = match kind {
        JobNetwork::Disabled => "disabled",
        JobNetwork::Loopback => "loopback",
        JobNetwork::Local => "local",
    };
    Path::new(base::NETWORK_SYS).join(name)
}

fn enter(namespace: &OwnedFd) -> Result<(), Failure> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .doing(|| "entering a network namespace".to_owned())
}

fn this_namespace() -> Result<OwnedFd, Failure> {
    rustix::fs::open(
        "/proc/self/ns/net",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .doing(|| "opening /proc/self/ns/net".to_owned())
}

#[cfg(test)]
mod tests {
    use super::no_sockets;

    #[test]
    fn counts_of_sockets() {
        let clean = "sockets: used 3\nTCP: inuse 0 orphan 2 tw 0 alloc 9 mem 4\nUDP: inuse 0 mem 3\nFRAG: inuse 0 memory 0\n";
        assert!(no_sockets(clean));
        assert!(!no_sockets(&clean.replace("tw 0", "tw 1")));
        assert!(!no_sockets(&clean.replace("UDP: inuse 0", "UDP: inuse 1")));
        assert!(no_sockets("TCP6: inuse 0\n"));
        assert!(!no_sockets("TCP6: inuse 2\n"));
    }
}
