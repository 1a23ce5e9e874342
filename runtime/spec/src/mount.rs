use std::path::PathBuf;

/// Something mounted into a container. Mount points must exist in the layers and are relative to
/// the root, never to the working directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Mount {
    /// A file or directory of the client's machine. Such jobs never leave that machine.
    Bind {
        /// Where it appears.
        mount_point: PathBuf,
        /// What appears, relative to the project directory.
        local_path: PathBuf,
        /// Whether it may only be read.
        read_only: bool,
    },
    /// Devices of the executing machine, each at `/dev/<name>`.
    Devices {
        /// Which.
        devices: Vec<Device>,
    },
    /// A pseudo-terminal file system.
    Devpts {
        /// Where it appears.
        mount_point: PathBuf,
    },
    /// POSIX message queues.
    Mqueue {
        /// Where it appears.
        mount_point: PathBuf,
    },
    /// The processes of the container.
    Proc {
        /// Where it appears.
        mount_point: PathBuf,
    },
    /// Kernel objects. Not with [`crate::Network::Local`].
    Sys {
        /// Where it appears.
        mount_point: PathBuf,
    },
    /// An empty file system in memory.
    Tmp {
        /// Where it appears.
        mount_point: PathBuf,
    },
}

/// A device that can be given to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Device {
    Full,
    Fuse,
    Null,
    Random,
    Shm,
    Tty,
    Urandom,
    Zero,
}

impl Device {
    /// The name below `/dev`, which is also its name in specifications.
    pub const fn name(self) -> &'static str {
        match self {
            Device::Full => "full",
            Device::Fuse => "fuse",
            Device::Null => "null",
            Device::Random => "random",
            Device::Shm => "shm",
            Device::Tty => "tty",
            Device::Urandom => "urandom",
            Device::Zero => "zero",
        }
    }

    /// All devices, in the order of their names.
    pub const ALL: [Device; 8] = [
        Device::Full,
        Device::Fuse,
        Device::Null,
        Device::Random,
        Device::Shm,
        Device::Tty,
        Device::Urandom,
        Device::Zero,
    ];
}
