//! A container that is made, and waits for its job.
//!
//! Making a container takes longer than starting a program in it, and several processes have to
//! take turns for it. So while one job runs its slot makes a container like that one's for the
//! job after it. Nothing of a job runs before its turn: the container holds an init and mounts,
//! and whoever does not fit is given a container of their own.

use crate::{
    base,
    job::ContainerJob,
    kept::SetNumber,
    order::{Order, Versions},
    wire::{self, Stream},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd, OwnedFd},
    process::Signal,
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a slot without a job keeps the container that it made ahead of time.
pub(crate) const KEPT_WHEN_IDLE: Duration = Duration::from_secs(1);

/// How long it keeps templates.
pub(crate) const TEMPLATES_KEPT_WHEN_IDLE: Duration = Duration::from_secs(10);

/// A container whose init has been started.
pub(crate) struct Prepared {
    /// Its init.
    pub(crate) process: OwnedFd,
    /// Where init is told its job, and reports.
    pub(crate) link: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) outputs: Option<OwnedFd>,
    /// The file systems that it was given, to be taken back when it has ended.
    pub(crate) kept: Option<SetNumber>,
}

/// A container that was made before its job was known.
pub(crate) struct Ahead {
    prepared: Prepared,
    like: Versions,
    layers: Vec<Identity>,
}

/// Which directory a path led to.
pub(crate) type Identity = Option<(u64, u64)>;

impl Ahead {
    /// Notes what a container was made for.
    pub(crate) fn new(prepared: Prepared, like: Versions, layers: Vec<Identity>) -> Self {
        Self {
            prepared,
            like,
            layers,
        }
    }

    /// Gives the container its job, if it is one for it. The error is the container.
    pub(crate) fn start(
        self,
        job: &ContainerJob,
        versions: Versions,
        layers: &[Identity],
    ) -> Result<Prepared, Box<Self>> {
        let fits = job.can_be_prepared()
            && versions.container == self.like.container
            // A layer may have been removed and unpacked again. What the container has mounted
            // keeps its inode number taken, so equal numbers are the same directory.
            && self.layers == layers
            && self.is_well();
        if !fits {
            return Err(Box::new(self));
        }
        // Its init knows what it was made like.
        let order = Order::with(job, versions.environment != self.like.environment, false);
        if wire::write_frame(Stream(self.prepared.link.as_fd()), &order).is_ok() {
            Ok(self.prepared)
        } else {
            Err(Box::new(self))
        }
    }

    /// Whether nothing went wrong with it so far: it would have said so.
    fn is_well(&self) -> bool {
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut said = [PollFd::new(&self.prepared.link, PollFlags::IN)];
        poll(&mut said, Some(&at_once)) == Ok(0)
    }

    /// Ends it. Its process is still to be waited for. Nothing has run in it, so what it was
    /// given can be taken back.
    pub(crate) fn discard(self) -> Option<SetNumber> {
        let _ = rustix::process::pidfd_send_signal(&self.prepared.process, Signal::KILL);
        self.prepared.kept
    }
}

/// Which directories these paths lead to.
pub(crate) fn identities(layers: &[PathBuf]) -> Vec<Identity> {
    layers
        .iter()
        .map(|layer| {
            rustix::fs::stat(layer)
                .ok()
                .map(|stat| (stat.st_dev, stat.st_ino))
        })
        .collect()
}

/// The paths of layers as a slot sees them. The error is a layer that is somewhere else.
pub(crate) fn inside(layers: &[PathBuf], layers_root: &Path) -> Result<Vec<PathBuf>, PathBuf> {
    layers
        .iter()
        .map(|layer| match layer.strip_prefix(layers_root) {
            Ok(relative) => Ok(Path::new(base::LAYERS).join(relative)),
            Err(_) => Err(layer.clone()),
        })
        .collect()
}
