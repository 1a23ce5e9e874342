//! The mount namespace that the containers of a slot are copied from.
//!
//! Creating a container copies the mount tree of its parent, so a slot first builds itself a
//! tiny tree that holds only what containers are made of:
//!
//! ```text
//! /layers   the directory of unpacked layers
//! /proc     the machine's, never visible to a job: the kernel lets a user namespace mount a
//!           new proc only where a whole one is in sight
//! /sys      likewise
//! /dev/*    the devices that a job may ask for
//! /netsys   the sysfs of the slot's own network namespace
//! /protected/*  the machine's settings in proc (see `settings.rs`)
//! /empty    an empty directory
//! /scratch  where a container puts the memory file system that takes its writes
//! /binds/*  directories of the client's machine that the present job has bound
//! /kept/*   file systems that one container after another gets (see `kept.rs`)
//! ```

use crate::{
    settings,
    sys::{Doing, Failure},
};
use maelstrom_spec::Device;
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{CWD, Mode, OFlags},
    io::Errno,
    mount::{
        MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
        mount_change, move_mount, open_tree, unmount,
    },
    thread::{UnshareFlags, unshare_unsafe},
};
use std::path::{Path, PathBuf};

/// What `hostname` says in every container.
pub(crate) const HOST_NAME: &str = "maelstrom";

pub(crate) const LAYERS: &str = "/layers";
pub(crate) const EMPTY: &str = "/empty";
pub(crate) const SCRATCH: &str = "/scratch";
pub(crate) const NETWORK_SYS: &str = "/netsys";
pub(crate) const BINDS: &str = "/binds";
pub(crate) const KEPT: &str = "/kept";

/// Mount events of the machine do not come in, and ours do not go out.
pub(crate) fn make_mounts_private() -> Result<(), Failure> {
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )
    .doing(|| "making mounts private".to_owned())
}

/// Opens a directory or file to refer to it later.
pub(crate) fn open_path(path: impl AsRef<Path>) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path.as_ref(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// A copy of a mount of this namespace, attached nowhere.
pub(crate) fn copy_mount(path: &Path, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, path, flags)
}

/// Attaches a mount to a path.
pub(crate) fn attach(mount: &OwnedFd, at: impl AsRef<Path>) -> Result<(), Errno> {
    move_mount(
        mount.as_fd(),
        "",
        CWD,
        at.as_ref(),
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS,
    )
}

/// Where the machine's mounts can still be found after [`enter`].
pub(crate) struct HostMounts {
    pub(crate) namespace: OwnedFd,
    pub(crate) root: OwnedFd,
}

/// Moves this process into a fresh mount namespace with the tree described above.
pub(crate) fn enter(layers_root: &Path) -> Result<HostMounts, Failure> {
    let opening = |path: &str| format!("opening {path}");
    let namespace = rustix::fs::open(
        "/proc/self/ns/mnt",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .doing(|| opening("/proc/self/ns/mnt"))?;
    let root = open_path("/").doing(|| opening("/"))?;
    // SAFETY: this process has a single thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }
        .doing(|| "creating a mount namespace".to_owned())?;

    // Copies are taken first: once the new root is in place, the old one is out of reach.
    let mut attachments: Vec<(OwnedFd, PathBuf, bool)> = Vec::new();
    let layers = copy_mount(layers_root, false)
        .or_else(|_| copy_mount(layers_root, true))
        .doing(|| format!("opening the directory of layers {}", layers_root.display()))?;
    attachments.push((layers, LAYERS.into(), true));
    for name in ["proc", "sys"] {
        let path = Path::new("/").join(name);
        // A mount with others locked on top of it can only be copied together with them.
        let copy = copy_mount(&path, false)
            .or_else(|_| copy_mount(&path, true))
            .doing(|| format!("copying the mount of {}", path.display()))?;
        attachments.push((copy, path, true));
    }
    for device in Device::ALL {
        let path = Path::new("/dev").join(device.name());
        if device == Device::Shm || !path.exists() {
            continue;
        }
        let copy = copy_mount(&path, false)
            .doing(|| format!("copying the mount of {}", path.display()))?;
        attachments.push((copy, path, false));
    }

    let scaffold = layers_root;
    mount(
        "maelstrom",
        scaffold,
        "tmpfs",
        MountFlags::NOSUID,
        c"mode=755",
    )
    .doing(|| "mounting a file system in memory (tmpfs)".to_owned())?;
    for directory in [LAYERS, EMPTY, SCRATCH, NETWORK_SYS, BINDS, KEPT, "/dev"] {
        create_directory(&scaffold.join(&directory[1..]))?;
    }
    for (copy, path, is_directory) in &attachments {
        let inside = scaffold.join(path.strip_prefix("/").unwrap_or(path));
        if *is_directory {
            create_directory(&inside)?;
        } else {
            create_file(&inside)?;
        }
        attach(copy, &inside).doing(|| format!("attaching {}", path.display()))?;
    }
    rustix::process::chdir(scaffold).doing(|| "entering the new root".to_owned())?;
    pivot_into_current_directory()?;
    settings::prepare()?;
    Ok(HostMounts { namespace, root })
}

/// Makes the current directory, which is a mount, the root, and drops what was the root before.
pub(crate) fn pivot_into_current_directory() -> Result<(), Failure> {
    rustix::process::pivot_root(".", ".").doing(|| "changing the root".to_owned())?;
    unmount(".", UnmountFlags::DETACH).doing(|| "dropping the old root".to_owned())?;
    rustix::process::chdir("/").doing(|| "entering the new root".to_owned())
}

pub(crate) fn create_directory(path: &Path) -> Result<(), Failure> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno).doing(|| format!("creating {}", path.display())),
    }
}

pub(crate) fn create_file(path: &Path) -> Result<(), Failure> {
    rustix::fs::open(
        path,
        OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o644),
    )
    .map(drop)
    .doing(|| format!("creating {}", path.display()))
}
