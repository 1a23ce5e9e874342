use crate::{LayerSpec, Mount};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

/// A container as written: its own fields, and possibly a parent that it builds on.
///
/// For vectors, what stands here comes after what the parent gives. For scalars, `None` means
/// "the parent's, else the default".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerSpec {
    /// What this container inherits from, and which members of it.
    pub parent: Option<ContainerParent>,
    /// File system layers, lowest first.
    pub layers: Vec<LayerSpec>,
    /// Environment elements, evaluated in order.
    pub environment: Vec<EnvironmentElement>,
    /// Mounts, made in order.
    pub mounts: Vec<Mount>,
    /// Default: [`Network::Disabled`].
    pub network: Option<Network>,
    /// Whether the root file system may be written to. Default: false.
    pub enable_writable_file_system: Option<bool>,
    /// Default: `/`.
    pub working_directory: Option<PathBuf>,
    /// User id inside the container. Default: 0.
    pub user: Option<u32>,
    /// Group id inside the container. Default: 0.
    pub group: Option<u32>,
}

/// What a container inherits from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerParent {
    /// A container image, by URI (`docker://…`, `oci:…`, `oci-archive:…`).
    Image {
        /// The URI as written.
        name: String,
        /// The members taken from it.
        members: BTreeSet<ImageUse>,
    },
    /// A named container.
    Container {
        /// Its name.
        name: String,
        /// The members taken from it.
        members: BTreeSet<ContainerUse>,
    },
}

/// A member that an image can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageUse {
    /// Its layers.
    Layers,
    /// Its environment.
    Environment,
    /// Its working directory.
    WorkingDirectory,
}

/// A member that a named container can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContainerUse {
    /// `layers`
    Layers,
    /// `enable_writable_file_system`
    EnableWritableFileSystem,
    /// `environment`
    Environment,
    /// `working_directory`
    WorkingDirectory,
    /// `mounts`
    Mounts,
    /// `network`
    Network,
    /// `user`
    User,
    /// `group`
    Group,
}

impl ImageUse {
    /// All members, in the order of the documentation.
    pub const ALL: [ImageUse; 3] = [
        ImageUse::Layers,
        ImageUse::Environment,
        ImageUse::WorkingDirectory,
    ];

    /// The name in specifications.
    pub const fn name(self) -> &'static str {
        match self {
            ImageUse::Layers => "layers",
            ImageUse::Environment => "environment",
            ImageUse::WorkingDirectory => "working_directory",
        }
    }
}

impl From<ImageUse> for ContainerUse {
    fn from(member: ImageUse) -> Self {
        match member {
            ImageUse::Layers => ContainerUse::Layers,
            ImageUse::Environment => ContainerUse::Environment,
            ImageUse::WorkingDirectory => ContainerUse::WorkingDirectory,
        }
    }
}

impl ContainerUse {
    /// All members, in the order of the documentation.
    pub const ALL: [ContainerUse; 8] = [
        ContainerUse::Layers,
        ContainerUse::Environment,
        ContainerUse::WorkingDirectory,
        ContainerUse::EnableWritableFileSystem,
        ContainerUse::Mounts,
        ContainerUse::Network,
        ContainerUse::User,
        ContainerUse::Group,
    ];

    /// The name in specifications.
    pub const fn name(self) -> &'static str {
        match self {
            ContainerUse::Layers => "layers",
            ContainerUse::EnableWritableFileSystem => "enable_writable_file_system",
            ContainerUse::Environment => "environment",
            ContainerUse::WorkingDirectory => "working_directory",
            ContainerUse::Mounts => "mounts",
            ContainerUse::Network => "network",
            ContainerUse::User => "user",
            ContainerUse::Group => "group",
        }
    }
}

/// One step of building an environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvironmentElement {
    /// Names and unevaluated values.
    pub vars: BTreeMap<String, String>,
    /// Whether the values are merged over what came before, or replace it.
    pub extend: bool,
}

/// What network a container sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Network {
    /// An empty network namespace; not even loopback is up.
    #[default]
    Disabled,
    /// A namespace of its own with loopback up.
    Loopback,
    /// The network of the machine. Such jobs never leave the machine of their client.
    Local,
}
