//! File systems that a slot gives to one container after another.
//!
//! Most tests write nothing: not to their root, nor to `/tmp`. Making an overlay and file systems
//! in memory for each of them, and taking them apart, costs a quarter of a container; and as the
//! kernel forgets what it looked up in an overlay with the overlay, the dynamic loader of each
//! test looks up a hundred names anew. So a slot makes a few sets of them, gives a set to one
//! container at a time, and looks afterwards whether anything was written. A set in which
//! anything was is thrown away, as every container's own file systems are.
//!
//! Nothing can be written without a trace: all writes go to file systems in memory whose inodes
//! and blocks the kernel counts. A file takes an inode for as long as it is there; whatever
//! happened to one that was in a layer takes one, too; and what is made and removed again below
//! the topmost directory leaves a copy of the directory that it was in. That leaves the topmost
//! directory itself, which shows its changes in its times, mode, owner and attributes.
//!
//! The file systems belong to the user namespace of the slot, so jobs cannot change their
//! options. Jobs with all privileges over their namespaces get new ones, which they may.

use crate::{
    base,
    container::{is_memory, make_memory, make_root},
    job::{ContainerJob, Privileges, Root},
    prepared::Identity,
    sys::{Doing, Failure},
};
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, Mode, OFlags, StatxFlags, Timespec, Timestamps, fstatfs},
    io::Errno,
    mount::UnmountFlags,
};
use std::path::{Path, PathBuf};

/// One for the job that runs, one for the container that is made meanwhile.
const SETS_MAX: usize = 2;

/// What a slot keeps.
#[derive(Default)]
pub(crate) struct Kept {
    sets: [Option<Set>; SETS_MAX],
}

/// The file systems of one container.
struct Set {
    like: ContainerJob,
    layers: Vec<Identity>,
    is_given: bool,
    /// Everything that can be written to.
    memories: Vec<Memory>,
    given: Given,
}

/// Where the file systems of a container are attached, for it to copy.
#[derive(Clone)]
pub(crate) struct Given {
    pub(crate) number: SetNumber,
    directory: PathBuf,
    root: PathBuf,
    /// By the index of the job's mount.
    memories: Vec<(usize, PathBuf)>,
}

/// Which of a slot's sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SetNumber(usize);

impl Given {
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The file system in memory for a mount of the job.
    pub(crate) fn memory(&self, mount: usize) -> Option<&Path> {
        let mut memories = self.memories.iter();
        memories
            .find(|(index, _)| *index == mount)
            .map(|(_, path)| path.as_path())
    }
}

impl Kept {
    /// File systems for a container of this job that nobody else uses: kept ones, or new ones
    /// that are worth keeping. `None`: the container is to make its own.
    pub(crate) fn give(
        &mut self,
        job: &ContainerJob,
        layers: &[PathBuf],
        identities: &[Identity],
    ) -> Option<Given> {
        if job.privileges == Privileges::Namespace || !job.can_be_prepared() {
            return None;
        }
        let fits = |set: &&mut Set| {
            !set.is_given && set.like.fits_container_of(job) && set.layers == identities
        };
        if let Some(set) = self.sets.iter_mut().flatten().find(fits) {
            set.is_given = true;
            return Some(set.given.clone());
        }
        if !job.more_like_it {
            return None;
        }
        let is_free = |set: &Option<Set>| set.as_ref().is_none_or(|set| !set.is_given);
        let place = self.sets.iter().position(is_free)?;
        self.drop_set(place);
        // Whatever is wrong, the container that makes its own says so.
        let set = Set::new(SetNumber(place), job, layers, identities).ok()?;
        Some(self.sets[place].insert(set).given.clone())
    }

    /// After a container has ended: keeps its file systems if nothing is left in them.
    pub(crate) fn take_back(&mut self, number: SetNumber) {
        let Some(set) = &mut self.sets[number.0] else {
            return;
        };
        set.is_given = false;
        if !set.memories.iter_mut().all(Memory::is_as_new) {
            self.drop_set(number.0);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sets.iter().all(Option::is_none)
    }

    /// Throws away what no container has.
    pub(crate) fn drop_unused(&mut self) {
        for place in 0..SETS_MAX {
            if self.sets[place].as_ref().is_some_and(|set| !set.is_given) {
                self.drop_set(place);
            }
        }
    }

    fn drop_set(&mut self, place: usize) {
        if let Some(set) = self.sets[place].take() {
            set.given.detach();
        }
    }
}

impl Set {
    fn new(
        number: SetNumber,
        job: &ContainerJob,
        layers: &[PathBuf],
        identities: &[Identity],
    ) -> Result<Self, Failure> {
        let directory = Path::new(base::KEPT).join(number.0.to_string());
        base::create_directory(&directory)?;
        let mut given = Given {
            number,
            root: directory.join("root"),
            directory,
            memories: Vec::new(),
        };
        // Modes are as they are asked for.
        let umask = rustix::process::umask(Mode::empty());
        let made = fill(&mut given, job, layers);
        rustix::process::umask(umask);
        match made {
            Ok(memories) => Ok(Self {
                like: job.clone(),
                layers: identities.to_vec(),
                is_given: true,
                memories,
                given,
            }),
            Err(failure) => {
                given.detach();
                Err(failure)
            }
        }
    }
}

/// Makes the file systems and attaches them.
fn fill(given: &mut Given, job: &ContainerJob, layers: &[PathBuf]) -> Result<Vec<Memory>, Failure> {
    let attach = |mount: &OwnedFd, at: &Path| {
        base::create_directory(at)?;
        base::attach(mount, at).doing(|| "attaching a file system".to_owned())
    };
    let mut memories = Vec::new();
    let root = make_root(&job.root, layers);
    if job.root == Root::Discard {
        // The overlay has a mount of its own.
        let _ = rustix::mount::unmount(base::SCRATCH, UnmountFlags::DETACH);
    }
    let (root, upper) = root?;
    attach(&root, &given.root)?;
    if let Some(upper) = upper {
        memories.push(Memory::new(upper)?);
    }
    for (index, mount) in job.mounts.iter().enumerate() {
        if is_memory(mount) {
            let memory =
                make_memory().doing(|| "creating a file system in memory (tmpfs)".to_owned())?;
            let at = given.directory.join(index.to_string());
            attach(&memory, &at)?;
            given.memories.push((index, at.clone()));
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let top = rustix::fs::open(&at, flags, Mode::empty())
                .doing(|| "opening a file system in memory".to_owned())?;
            memories.push(Memory::new(top)?);
        }
    }
    Ok(memories)
}

impl Given {
    /// Containers that have copies go on having them.
    fn detach(&self) {
        for at in self
            .memories
            .iter()
            .map(|(_, path)| path)
            .chain([&self.root])
        {
            let _ = rustix::mount::unmount(at, UnmountFlags::DETACH);
        }
    }
}

/// A file system in memory, by the directory to which everything in it belongs.
pub(crate) struct Memory {
    top: OwnedFd,
    when_new: State,
    accessed: Time,
}

type Time = (i64, u32);

/// What every write to a file system in memory changes.
#[derive(PartialEq, Eq)]
struct State {
    inodes_free: u64,
    blocks_free: u64,
    mode: u16,
    owner: (u32, u32),
    links: u32,
    size_bytes: u64,
    modified: Time,
    changed: Time,
    flags: u64,
    attributes: Vec<u8>,
}

impl Memory {
    /// One that nobody has written to. `top` is its topmost directory.
    pub(crate) fn new(top: OwnedFd) -> Result<Self, Failure> {
        let settled = date_back(&top).and_then(|()| State::of(&top));
        settled
            .map(|(when_new, accessed)| Self {
                top,
                when_new,
                accessed,
            })
            .doing(|| "looking at a file system in memory".to_owned())
    }

    /// Its topmost directory.
    pub(crate) fn top(&self) -> &OwnedFd {
        &self.top
    }

    /// Whether nothing is left in it, nor to be seen of who has read it.
    pub(crate) fn is_as_new(&mut self) -> bool {
        match State::of(&self.top) {
            Ok((state, accessed)) if state == self.when_new => {
                accessed == self.accessed || self.forget_access()
            }
            _ => false,
        }
    }

    fn forget_access(&mut self) -> bool {
        let settled = date_back(&self.top).and_then(|()| State::of(&self.top));
        match settled {
            Ok((when_new, accessed)) => {
                (self.when_new, self.accessed) = (when_new, accessed);
                true
            }
            Err(_) => false,
        }
    }
}

/// Gives a directory times that no later change can have.
fn date_back(top: &OwnedFd) -> Result<(), Errno> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let past = Timespec {
        tv_sec: now.tv_sec - 1,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: past,
        last_modification: past,
    };
    rustix::fs::futimens(top, &times)
}

impl State {
    /// The state, and when the topmost directory was last read.
    fn of(top: &OwnedFd) -> Result<(Self, Time), Errno> {
        let stat = rustix::fs::statx(top, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
        let file_system = fstatfs(top)?;
        // Without a limit nothing is counted.
        if file_system.f_files == 0 || file_system.f_blocks == 0 {
            return Err(Errno::NOTSUP);
        }
        let mut attributes = vec![0; 1024];
        let length = rustix::fs::flistxattr(top, &mut attributes[..])?;
        attributes.truncate(length);
        let time = |time: &rustix::fs::StatxTimestamp| (time.tv_sec, time.tv_nsec);
        let state = Self {
            inodes_free: file_system.f_ffree as u64,
            blocks_free: file_system.f_bfree as u64,
            mode: stat.stx_mode,
            owner: (stat.stx_uid, stat.stx_gid),
            links: stat.stx_nlink,
            size_bytes: stat.stx_size,
            modified: time(&stat.stx_mtime),
            changed: time(&stat.stx_ctime),
            flags: stat.stx_attributes.bits(),
            attributes,
        };
        Ok((state, time(&stat.stx_atime)))
    }
}
