//! Which changes to files leave nothing that outlives the file systems in memory of a container.
//!
//! Those are made as new before the next job (`writable.rs`), or their container is not used
//! again. So it is enough to know that what a call changes is in one of them. What it names is
//! looked up as the process would look it up, whose only thread waits meanwhile.

use crate::trace::{self, Notification};
use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags, ResolveFlags, fstatfs, openat, openat2, readlinkat},
    io::Errno,
};
use std::path::Path;

/// `TMPFS_MAGIC`, also of files in memory without names and of device nodes.
const IN_MEMORY: u64 = 0x0102_1994;
/// `OVERLAYFS_SUPER_MAGIC`: the root of the container, whose changes go to memory.
const OVERLAY: u64 = 0x794c_7630;

/// What a call changes.
enum Object {
    /// A name, and the directory that it is looked up in.
    Name {
        directory: u64,
        name: u64,
    },
    Descriptor(u64),
}

const CURRENT_DIRECTORY: u64 = libc::AT_FDCWD as u64;

/// What a call changes, if all that it changes are files.
fn objects(call: libc::c_long, arguments: [u64; 6]) -> Option<Vec<Object>> {
    let [first, second, third, fourth, ..] = arguments;
    let at = |directory, name| Object::Name { directory, name };
    let here = |name| at(CURRENT_DIRECTORY, name);
    Some(match call {
        libc::SYS_openat
        | libc::SYS_mkdirat
        | libc::SYS_unlinkat
        | libc::SYS_fchmodat
        | libc::SYS_fchownat => vec![at(first, second)],
        libc::SYS_utimensat if second == 0 => vec![Object::Descriptor(first)],
        libc::SYS_utimensat => vec![at(first, second)],
        libc::SYS_renameat | libc::SYS_renameat2 | libc::SYS_linkat => {
            vec![at(first, second), at(third, fourth)]
        }
        libc::SYS_symlinkat => vec![at(second, third)],
        libc::SYS_truncate => vec![here(first)],
        libc::SYS_fchmod | libc::SYS_fchown => vec![Object::Descriptor(first)],
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open
        | libc::SYS_creat
        | libc::SYS_mkdir
        | libc::SYS_rmdir
        | libc::SYS_unlink
        | libc::SYS_chmod
        | libc::SYS_chown
        | libc::SYS_lchown
        | libc::SYS_utime
        | libc::SYS_utimes => vec![here(first)],
        #[cfg(target_arch = "x86_64")]
        libc::SYS_rename | libc::SYS_link => vec![here(first), here(second)],
        #[cfg(target_arch = "x86_64")]
        libc::SYS_symlink => vec![here(second)],
        _ => return None,
    })
}

/// Whether a call changes nothing but files in the container's own memory. `process` is the
/// directory in `/proc` of the process that makes it.
pub(super) fn stays_in_memory(call: &Notification, process: &OwnedFd) -> bool {
    let number = libc::c_long::from(call.data.nr);
    objects(number, call.data.args).is_some_and(|objects| {
        objects
            .iter()
            .all(|object| is_in_memory(object, call.pid, process).unwrap_or(false))
    })
}

fn is_in_memory(object: &Object, pid: u32, process: &OwnedFd) -> Result<bool, Errno> {
    let (directory, name) = match object {
        Object::Descriptor(number) => {
            let file = look_at(process, &format!("fd/{}", *number as i32))?;
            return has_such_type(&file);
        }
        Object::Name { directory, name } => (*directory as i32, *name),
    };
    let name = trace::read_string(pid, name).ok_or(Errno::FAULT)?;
    let (start, resolve) = if name.is_absolute() {
        ("root".to_owned(), ResolveFlags::IN_ROOT)
    } else if directory == libc::AT_FDCWD {
        ("cwd".to_owned(), ResolveFlags::BENEATH)
    } else {
        (format!("fd/{directory}"), ResolveFlags::BENEATH)
    };
    let start = look_at(process, &start)?;
    let open = |path: &Path| {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = resolve | ResolveFlags::NO_MAGICLINKS;
        openat2(&start, path, flags, Mode::empty(), resolve)
    };
    let (parent, last) = match (name.parent(), name.file_name()) {
        (Some(parent), Some(last)) if parent.as_os_str().is_empty() => (Path::new("."), last),
        (Some(parent), Some(last)) => (parent, last),
        // The root, or something that ends in `..`.
        _ => return Ok(false),
    };
    let parent = match open(parent) {
        Ok(parent) => parent,
        Err(Errno::NOENT | Errno::NOTDIR) => return is_missing(parent, &open),
        Err(errno) => return Err(errno),
    };
    if !has_such_type(&parent)? {
        return Ok(false);
    }
    match open(&name) {
        Ok(file) => has_such_type(&file),
        // What a symbolic link promises may be made anywhere.
        Err(Errno::NOENT) => Ok(readlinkat(&parent, last, Vec::new()).is_err()),
        Err(errno) => Err(errno),
    }
}

/// Whether a directory that we could not open is not there for the process either, so that its call
/// will change nothing. `/proc/self` is there for the process only.
fn is_missing(path: &Path, open: &impl Fn(&Path) -> Result<OwnedFd, Errno>) -> Result<bool, Errno> {
    let mut below = path;
    while let (Some(above), Some(name)) = (below.parent(), below.file_name()) {
        let is_here = above.as_os_str().is_empty();
        match open(if is_here { Path::new(".") } else { above }) {
            Ok(above) => {
                let is_link = readlinkat(&above, name, Vec::new()).is_ok();
                return Ok(has_such_type(&above)? && !is_link);
            }
            Err(Errno::NOENT | Errno::NOTDIR) => below = above,
            Err(errno) => return Err(errno),
        }
    }
    Ok(false)
}

fn look_at(process: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    openat(process, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

fn has_such_type(file: &OwnedFd) -> Result<bool, Errno> {
    let kind = fstatfs(file)?.f_type as u64;
    Ok(kind == IN_MEMORY || kind == OVERLAY)
}
