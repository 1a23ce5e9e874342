//! What a container can write to, made as new for a job that runs where another did.

use crate::{
    container::{self, Blame, is_memory, make_memory},
    job::ContainerJob,
    kept::Memory,
    sys::{Doing, Failure},
};
use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags},
    mount::UnmountFlags,
};

/// The file systems of a container that take writes. Used from inside its namespaces.
pub(crate) struct Writable {
    /// Takes the writes to the root.
    root: Option<Memory>,
    /// By the index of the job's mount.
    mounts: Vec<(usize, Memory)>,
}

impl Writable {
    /// Those of a container that has just been built. `upper` takes the writes to its root.
    pub(crate) fn new(job: &ContainerJob, upper: Option<OwnedFd>) -> Result<Self, Failure> {
        let mounts = job.mounts.iter().enumerate();
        let memories = mounts.filter(|(_, mount)| is_memory(mount));
        Ok(Self {
            root: upper.map(Memory::new).transpose()?,
            mounts: memories
                .map(|(index, _)| Ok((index, memory(job, index)?)))
                .collect::<Result<_, Failure>>()?,
        })
    }

    /// What must stay open.
    pub(crate) fn descriptors(&self) -> Vec<&OwnedFd> {
        let mounts = self.mounts.iter().map(|(_, memory)| memory);
        let memories = self.root.iter().chain(mounts);
        memories.map(Memory::top).collect()
    }

    /// Makes everything as new, if that can be done: new file systems take the place of those that
    /// a job has written to, but not of the root.
    ///
    /// # Errors
    ///
    /// What the kernel says. Then the container is not to be used.
    pub(crate) fn renew(&mut self, job: &ContainerJob) -> Result<bool, Blame> {
        if self.root.as_mut().is_some_and(|root| !root.is_as_new()) {
            return Ok(false);
        }
        let used: Vec<usize> = (0..self.mounts.len())
            .filter(|&place| !self.mounts[place].1.is_as_new())
            .collect();
        for place in used {
            // Not kept open, or it would be in use.
            let (index, _) = self.mounts.remove(place);
            let mount = &job.mounts[index];
            let at = container::mount_point(mount);
            let holds_another = |other| {
                let other = container::mount_point(other);
                other != at && other.starts_with(&at)
            };
            if job.mounts.iter().any(holds_another) {
                return Ok(false);
            }
            rustix::mount::unmount(&at, UnmountFlags::empty())
                .doing(|| format!("unmounting {}", at.display()))?;
            let made = make_memory().doing(|| "creating a file system in memory".to_owned())?;
            container::attach(mount, &made)?;
            self.mounts.insert(place, (index, memory(job, index)?));
        }
        Ok(true)
    }
}

/// The file system that is mounted as a mount of the job says.
fn memory(job: &ContainerJob, index: usize) -> Result<Memory, Failure> {
    let at = container::mount_point(&job.mounts[index]);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::open(&at, flags, Mode::empty())
        .doing(|| format!("opening {}", at.display()))?;
    Memory::new(top)
}
