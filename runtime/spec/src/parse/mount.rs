use crate::{Device, Fields, Mount, Node, Problem, value::choose};
use std::path::{Component, Path, PathBuf};

/// The types of mounts, which need not have the same fields.
#[derive(Clone, Copy)]
enum Type {
    Bind,
    Devices,
    Devpts,
    Mqueue,
    Proc,
    Sys,
    Tmp,
}

impl Type {
    const ALL: [Type; 7] = [
        Type::Bind,
        Type::Devices,
        Type::Devpts,
        Type::Mqueue,
        Type::Proc,
        Type::Sys,
        Type::Tmp,
    ];

    const fn name(self) -> &'static str {
        match self {
            Type::Bind => "bind",
            Type::Devices => "devices",
            Type::Devpts => "devpts",
            Type::Mqueue => "mqueue",
            Type::Proc => "proc",
            Type::Sys => "sys",
            Type::Tmp => "tmp",
        }
    }
}

pub(super) fn parse_mount(node: &Node) -> Result<Mount, Problem> {
    let fields = Fields::new(node, "a mount")?;
    let kind = choose(
        fields.require("type")?,
        "type of mount",
        Type::ALL,
        Type::name,
    )?;
    fields.allow_only(&match kind {
        Type::Bind => [&["type", "mount_point", "local_path", "read_only"][..]],
        Type::Devices => [&["type", "devices"][..]],
        _ => [&["type", "mount_point"][..]],
    })?;
    let mount_point = || parse_mount_point(fields.require("mount_point")?);
    Ok(match kind {
        Type::Bind => Mount::Bind {
            mount_point: mount_point()?,
            local_path: fields.require("local_path")?.path()?,
            read_only: fields
                .optional("read_only", Node::boolean)?
                .unwrap_or(false),
        },
        Type::Devices => Mount::Devices {
            devices: fields
                .require("devices")?
                .list(|device| choose(device, "device", Device::ALL, Device::name))?,
        },
        Type::Devpts => Mount::Devpts {
            mount_point: mount_point()?,
        },
        Type::Mqueue => Mount::Mqueue {
            mount_point: mount_point()?,
        },
        Type::Proc => Mount::Proc {
            mount_point: mount_point()?,
        },
        Type::Sys => Mount::Sys {
            mount_point: mount_point()?,
        },
        Type::Tmp => Mount::Tmp {
            mount_point: mount_point()?,
        },
    })
}

fn parse_mount_point(node: &Node) -> Result<PathBuf, Problem> {
    let path = node.path()?;
    if is_root(&path) {
        return Err(Problem::new(
            node.span.clone(),
            "a mount point must not be the root directory",
        )
        .with_help("mount points are paths below `/`, such as \"/tmp\""));
    }
    Ok(path)
}

/// Whether a path, taken from `/`, is `/` itself. Symlinks are not considered.
fn is_root(path: &Path) -> bool {
    let mut depth = 0u32;
    for component in path.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::ParentDir => depth = depth.saturating_sub(1),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    depth == 0
}
