//! The machine's settings in proc and sysfs, which no job may change.
//!
//! The kernel lets whoever has the user id of the machine's root write most of them, whatever
//! user namespace and capabilities that process has; and those of a network namespace, which a
//! slot keeps for its next job, to whoever has the id of that namespace's root. So where it is
//! root who runs jobs, containers see them read-only.
//!
//! A job with all privileges over its own namespaces may take these mounts away again.

use crate::{
    base,
    sys::{Doing, Failure},
};
use rustix::{
    fd::{AsFd, OwnedFd},
    io::Errno,
    mount::{MountFlags, MoveMountFlags, mount_remount, move_mount},
};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

/// What of `/proc` acts on the machine and not on a process.
const IN_PROC: [&str; 7] = ["acpi", "bus", "fs", "irq", "scsi", "sys", "sysrq-trigger"];

/// In a slot's tree: what of these there is, read-only.
const PROTECTED: &str = "/protected";

/// Whether jobs have the user id of the machine's root.
pub(crate) fn are_at_risk() -> bool {
    rustix::process::getuid().is_root()
}

/// What a new sysfs is mounted with besides what any is.
pub(crate) fn sysfs_flags() -> MountFlags {
    if are_at_risk() {
        MountFlags::RDONLY
    } else {
        MountFlags::empty()
    }
}

/// Puts copies of the machine's settings into the tree of a slot, which has just become the
/// root, for [`protect`].
pub(crate) fn prepare() -> Result<(), Failure> {
    if !are_at_risk() {
        return Ok(());
    }
    base::create_directory(Path::new(PROTECTED))?;
    for name in IN_PROC {
        let path = Path::new("/proc").join(name);
        if !can_be_written_to(&path) {
            continue;
        }
        let copying = || format!("copying the mount of {}", path.display());
        let copy = base::copy_mount(&path, false)
            .or_else(|_| base::copy_mount(&path, true))
            .doing(copying)?;
        let at = Path::new(PROTECTED).join(name);
        if path.is_dir() {
            base::create_directory(&at)?;
        } else {
            base::create_file(&at)?;
        }
        base::attach(&copy, &at).doing(copying)?;
        let flags = MountFlags::BIND
            | MountFlags::RDONLY
            | MountFlags::NOSUID
            | MountFlags::NODEV
            | MountFlags::NOEXEC;
        mount_remount(&at, flags, c"").doing(|| format!("protecting {}", path.display()))?;
    }
    Ok(())
}

/// Whether a path or anything below it has a mode that lets anybody write.
fn can_be_written_to(path: &Path) -> bool {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return false;
    };
    if metadata.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path())
            .any(|path| can_be_written_to(&path))
    } else {
        metadata.is_file() && metadata.permissions().mode() & 0o222 != 0
    }
}

/// What covers the settings in one proc, attached nowhere yet, by its place there. The settings
/// of a network that is the container's own stay as they are.
pub(crate) fn covers(owns_network: bool) -> Result<Vec<(&'static str, OwnedFd)>, Failure> {
    let mut covers = Vec::new();
    if !are_at_risk() {
        return Ok(covers);
    }
    for name in IN_PROC {
        match base::copy_mount(&Path::new(PROTECTED).join(name), false) {
            Ok(copy) => covers.push((name, copy)),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).doing(|| format!("protecting /proc/{name}")),
        }
    }
    if owns_network {
        let own = base::copy_mount(Path::new("/proc/sys/net"), false)
            .doing(|| "copying the mount of /proc/sys/net".to_owned())?;
        covers.push(("sys/net", own));
    }
    Ok(covers)
}

/// Puts covers into a proc that is mounted.
pub(crate) fn cover(proc: &OwnedFd, covers: &[(&'static str, OwnedFd)]) -> Result<(), Failure> {
    for (name, copy) in covers {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(copy.as_fd(), "", proc.as_fd(), *name, flags)
            .doing(|| format!("protecting /proc/{name}"))?;
    }
    Ok(())
}
