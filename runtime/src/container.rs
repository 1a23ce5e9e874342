//! The file system of a container, built from inside its namespaces.

use crate::{
    base,
    job::{ContainerJob, ContainerMount, JobNetwork, Privileges, Root},
    network, settings,
    slot_process::Surroundings,
    sys::{self, Doing, Failure},
};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{CWD, Mode, OFlags},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
        fsconfig_set_string, fsmount, fsopen, move_mount,
    },
};
use std::path::{Path, PathBuf};

/// Whose fault it is that a container could not be made.
#[derive(Debug)]
pub(crate) enum Blame {
    Job(String),
    Machine(String),
}

impl Blame {
    pub(crate) fn job(failure: Failure) -> Self {
        Blame::Job(failure.to_string())
    }
}

impl From<Failure> for Blame {
    fn from(failure: Failure) -> Self {
        Blame::Machine(failure.to_string())
    }
}

/// How what lies beneath the root is kept out of reach.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enclosure {
    /// By a changed root. For those who can neither unmount it nor leave it.
    Covered,
    /// By taking it away. For those who may mount and unmount.
    Sealed,
}

impl Enclosure {
    /// What the program of a job needs.
    pub(crate) fn of(job: &ContainerJob) -> Self {
        match job.privileges {
            Privileges::Namespace => Enclosure::Sealed,
            Privileges::None | Privileges::Files => Enclosure::Covered,
        }
    }
}

/// Makes the container's root and everything mounted in it, and enters its working directory.
/// Returns the directory that takes writes to the root if they are thrown away.
pub(crate) fn build(
    job: &ContainerJob,
    around: &Surroundings<'_>,
    enclosure: Enclosure,
) -> Result<Option<OwnedFd>, Blame> {
    // Modes are as they are asked for.
    let umask = rustix::process::umask(Mode::empty());
    let built = enter(job, around, enclosure);
    rustix::process::umask(umask);
    built
}

fn enter(
    job: &ContainerJob,
    around: &Surroundings<'_>,
    enclosure: Enclosure,
) -> Result<Option<OwnedFd>, Blame> {
    if around.owns_network && job.network == JobNetwork::Loopback {
        sys::bring_up_loopback().doing(|| "bringing up loopback".to_owned())?;
    }
    let (root, upper) = root(job, around)?;
    // Made while the slot's tree is in sight, attached when the container's is.
    let mounts = job
        .mounts
        .iter()
        .enumerate()
        .map(|(index, mount)| {
            let covers = match mount {
                ContainerMount::Proc { .. } => settings::covers(around.owns_network)?,
                _ => Vec::new(),
            };
            Ok((mount, make(index, mount, job, around)?, covers))
        })
        .collect::<Result<Vec<_>, Blame>>()?;
    base::attach(&root, "/").doing(|| "attaching the root file system".to_owned())?;
    rustix::process::fchdir(&root).doing(|| "entering the root file system".to_owned())?;
    match enclosure {
        Enclosure::Sealed => base::pivot_into_current_directory()?,
        Enclosure::Covered => {
            rustix::process::chroot(".").doing(|| "changing the root".to_owned())?;
        }
    }
    for (mount, made, covers) in mounts {
        attach(mount, &made)?;
        settings::cover(&made, &covers)?;
    }
    rustix::process::chdir(&job.working_directory)
        .doing(|| {
            format!(
                "entering the working directory {}",
                job.working_directory.display()
            )
        })
        .map_err(Blame::job)?;
    Ok(upper)
}

/// The root file system: the one that the slot gives, or a new one with the directory that takes
/// its writes.
fn root(
    job: &ContainerJob,
    around: &Surroundings<'_>,
) -> Result<(OwnedFd, Option<OwnedFd>), Blame> {
    if around.layers.is_empty() {
        return Err(Blame::Job("the container has no layers".to_owned()));
    }
    if let Some(given) = around.given {
        return base::copy_mount(given.root(), false)
            .map(|root| (root, None))
            .doing(|| "copying the mount of a root file system".to_owned())
            .map_err(Blame::from);
    }
    Ok(make_root(&job.root, around.layers)?)
}

/// Makes a root file system of layers and what takes writes to them, and for those that are
/// thrown away, the directory of a file system in memory that takes them. That file system is
/// attached at [`base::SCRATCH`].
pub(crate) fn make_root(
    root: &Root,
    layers: &[PathBuf],
) -> Result<(OwnedFd, Option<OwnedFd>), Failure> {
    let mut upper_directory = None;
    let writable = match root {
        Root::ReadOnly => None,
        Root::Discard => {
            let memory = file_system("tmpfs", |context| {
                fsconfig_set_string(context, "mode", "755")
            })
            .and_then(|context| mount_of(&context, MountAttrFlags::empty()))
            .doing(|| "creating a file system in memory (tmpfs)".to_owned())?;
            base::attach(&memory, base::SCRATCH)
                .doing(|| "attaching a file system in memory".to_owned())?;
            let directories = [("upper", 0o755), ("work", 0o700)].map(|(name, mode)| {
                rustix::fs::mkdirat(&memory, name, Mode::from_raw_mode(mode))
                    .doing(|| "creating a directory for changes".to_owned())?;
                Ok(Path::new(base::SCRATCH).join(name))
            });
            let [upper, work]: [Result<PathBuf, Failure>; 2] = directories;
            let upper = upper?;
            upper_directory = Some(
                rustix::fs::open(
                    &upper,
                    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                    Mode::empty(),
                )
                .doing(|| "opening a directory for changes".to_owned())?,
            );
            Some((upper, work?))
        }
        Root::Capture { upper, work } => Some((upper.clone(), work.clone())),
    };
    let context =
        fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).doing(|| "opening overlayfs".to_owned())?;
    set_lower(&context, layers, writable.is_none())?;
    if let Some((upper, work)) = &writable {
        fsconfig_set_string(&context, "upperdir", upper)
            .doing(|| "setting the upper directory of an overlay".to_owned())?;
        fsconfig_set_string(&context, "workdir", work)
            .doing(|| "setting the work directory of an overlay".to_owned())?;
        if *root == Root::Discard {
            fsconfig_set_flag(&context, "volatile")
                .doing(|| "setting an option of an overlay".to_owned())?;
        }
    }
    fsconfig_set_flag(&context, "userxattr")
        .doing(|| "setting an option of an overlay".to_owned())?;
    fsconfig_create(&context)
        .doing(|| format!("stacking {} layers with overlayfs", layers.len()))?;
    let read_only = if writable.is_none() {
        MountAttrFlags::MOUNT_ATTR_RDONLY
    } else {
        MountAttrFlags::empty()
    };
    let mount = fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        read_only | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV,
    )
    .doing(|| "mounting an overlay".to_owned())?;
    Ok((mount, upper_directory))
}

/// Whether a mount is a file system in memory of the container's own.
pub(crate) fn is_memory(mount: &ContainerMount) -> bool {
    match mount {
        ContainerMount::Tmp { .. } => true,
        // The machine's own would be shared between jobs.
        ContainerMount::Device { name } => name == "shm",
        _ => false,
    }
}

/// A file system in memory that anybody may write to.
pub(crate) fn make_memory() -> Result<OwnedFd, Errno> {
    file_system("tmpfs", |context| {
        fsconfig_set_string(context, "mode", "1777")
    })
    .and_then(|context| mount_of(&context, MountAttrFlags::MOUNT_ATTR_NODEV))
}

/// Names the lower directories of an overlay, the topmost first.
fn set_lower(context: &OwnedFd, layers: &[PathBuf], read_only: bool) -> Result<(), Failure> {
    // Without an upper directory an overlay wants at least two lower ones.
    let filler = (read_only && layers.len() == 1).then(|| PathBuf::from(base::EMPTY));
    let top_down: Vec<_> = layers.iter().rev().chain(&filler).collect();
    for (index, layer) in top_down.iter().enumerate() {
        match fsconfig_set_string(context, "lowerdir+", layer.as_path()) {
            Ok(()) => {}
            // Before Linux 6.5 there is only the list in one string.
            Err(Errno::INVAL) if index == 0 => {
                let list: Vec<_> = top_down
                    .iter()
                    .map(|layer| layer.to_string_lossy())
                    .collect();
                return fsconfig_set_string(context, "lowerdir", list.join(":"))
                    .doing(|| "setting the layers of an overlay".to_owned());
            }
            Err(errno) => {
                return Err(errno).doing(|| format!("adding layer {}", layer.display()));
            }
        }
    }
    Ok(())
}

/// A file system with its options set, ready to be mounted.
fn file_system(
    kind: &str,
    options: impl FnOnce(&OwnedFd) -> Result<(), Errno>,
) -> Result<OwnedFd, Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    options(&context)?;
    fsconfig_create(&context)?;
    Ok(context)
}

fn mount_of(context: &OwnedFd, attributes: MountAttrFlags) -> Result<OwnedFd, Errno> {
    fsmount(
        context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes | MountAttrFlags::MOUNT_ATTR_NOSUID,
    )
}

/// Makes the mount with this index among the job's, attached nowhere yet.
fn make(
    index: usize,
    mount: &ContainerMount,
    job: &ContainerJob,
    around: &Surroundings<'_>,
) -> Result<OwnedFd, Blame> {
    let inert = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let none = |_: &OwnedFd| Ok(());
    let new = |kind: &str, attributes| {
        file_system(kind, none).and_then(|context| mount_of(&context, attributes))
    };
    let memory = || match around.given.and_then(|given| given.memory(index)) {
        Some(path) => base::copy_mount(path, false),
        None => make_memory(),
    };
    let made = match mount {
        ContainerMount::Tmp { .. } => memory(),
        ContainerMount::Device { .. } if is_memory(mount) => memory(),
        ContainerMount::Proc { .. } => new("proc", inert),
        ContainerMount::Mqueue { .. } => new("mqueue", inert),
        ContainerMount::Sys { .. } if around.owns_network => {
            let settings = if settings::are_at_risk() {
                MountAttrFlags::MOUNT_ATTR_RDONLY
            } else {
                MountAttrFlags::empty()
            };
            new("sysfs", inert | settings)
        }
        ContainerMount::Sys { .. } => base::copy_mount(&network::sys_path(job.network), false),
        ContainerMount::Devpts { .. } => file_system("devpts", |context| {
            fsconfig_set_string(context, "ptmxmode", "0666")
        })
        .and_then(|context| mount_of(&context, MountAttrFlags::MOUNT_ATTR_NOEXEC)),
        ContainerMount::Device { name } => base::copy_mount(&Path::new("/dev").join(name), false),
        ContainerMount::Bind {
            source,
            mount_point,
            ..
        } => {
            return base::copy_mount(source, true)
                .doing(|| format!("bind mounting on {}", mount_point.display()))
                .map_err(Blame::job);
        }
    };
    made.doing(|| describe(mount)).map_err(Blame::from)
}

pub(crate) fn attach(mount: &ContainerMount, made: &OwnedFd) -> Result<(), Blame> {
    let at = mount_point(mount);
    let result = move_mount(
        made.as_fd(),
        "",
        CWD,
        at.as_path(),
        rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH
            | rustix::mount::MoveMountFlags::MOVE_MOUNT_T_SYMLINKS,
    )
    .doing(|| {
        if at.exists() {
            describe(mount)
        } else {
            format!(
                "{}: the mount point does not exist in the container (add a layer with \
                 stubs = [\"{}\"])",
                describe(mount),
                stub_for(mount, &at)
            )
        }
    });
    match mount {
        ContainerMount::Bind { .. } | ContainerMount::Device { .. } => result.map_err(Blame::job),
        _ => result.map_err(Blame::from),
    }
}

fn stub_for(mount: &ContainerMount, at: &Path) -> String {
    let slash = match mount {
        ContainerMount::Device { name } if name != "shm" => "",
        _ => "/",
    };
    format!("{}{slash}", at.display())
}

pub(crate) fn mount_point(mount: &ContainerMount) -> PathBuf {
    let given = match mount {
        ContainerMount::Device { name } => return Path::new("/dev").join(name),
        ContainerMount::Bind { mount_point, .. }
        | ContainerMount::Devpts { mount_point }
        | ContainerMount::Mqueue { mount_point }
        | ContainerMount::Proc { mount_point }
        | ContainerMount::Sys { mount_point }
        | ContainerMount::Tmp { mount_point } => mount_point,
    };
    Path::new("/").join(given)
}

fn describe(mount: &ContainerMount) -> String {
    let kind = match mount {
        ContainerMount::Bind { .. } => "a bind mount",
        ContainerMount::Device { name } => return format!("mounting the device {name}"),
        ContainerMount::Devpts { .. } => "devpts",
        ContainerMount::Mqueue { .. } => "mqueue",
        ContainerMount::Proc { .. } => "proc",
        ContainerMount::Sys { .. } => "sysfs",
        ContainerMount::Tmp { .. } => "tmpfs",
    };
    format!("mounting {kind} on {}", mount_point(mount).display())
}
