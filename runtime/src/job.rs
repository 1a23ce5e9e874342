//! What a slot is asked to run: a container whose layers are directories on this machine.

use maelstrom_spec::{Device, Network, WindowSize};
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, sync::Arc, time::Duration};

/// One program in one container, ready to run on this machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerJob {
    /// `argv[0]`, and what is looked up: a path where it holds a `/`, else a name in the `PATH`
    /// of [`Self::environment`].
    pub program: String,
    /// `argv[1..]`.
    pub arguments: Vec<String>,
    /// The whole environment; nothing else leaks in.
    pub environment: Vec<(String, String)>,
    /// Where the program starts, inside the container.
    pub working_directory: PathBuf,
    /// Unpacked layers on this machine, lowest first. At least one.
    pub layers: Vec<PathBuf>,
    /// What becomes of writes to the root file system.
    pub root: Root,
    /// Mounts, in the order in which they are made.
    pub mounts: Vec<ContainerMount>,
    /// What network the program sees.
    pub network: JobNetwork,
    /// User id inside the container.
    pub user: u32,
    /// Group id inside the container.
    pub group: u32,
    /// What the program may do beyond what its user may do.
    pub privileges: Privileges,
    /// Whether the program leads a session and a process group of its own. Otherwise it is a
    /// member of a group led by the container's init, and may make itself leader of a session.
    pub leads_session: bool,
    /// How long the program may run. `None`: no limit.
    pub timeout: Option<Duration>,
    /// How many bytes of each output stream are kept.
    pub inline_limit_bytes: u64,
    /// Globs of files that are brought back. Relative ones start at the working directory.
    pub outputs: Vec<String>,
    /// Whether to find out which paths the program looks for in vain. Slow.
    pub trace_missing: bool,
    /// Whether the program only gets processor time that nobody else on the machine wants
    /// (`SCHED_IDLE`), as is right for jobs of others.
    pub background: bool,
    /// Whether the standard streams are a terminal that is handed over beside this message.
    pub terminal: Option<TerminalSize>,
    /// Whether the next job will probably want a container like this one, so that it is worth
    /// making that container while this job runs. Only a hint.
    pub more_like_it: bool,
    /// A program that is started once and forks for each of many jobs. Where it cannot be used,
    /// the job's own program is run, and a note in the outcome says why.
    pub template: Option<Template>,
}

/// How a job is run in a fork of a program that has prepared what it needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// What is started once.
    pub program: Arc<TemplateProgram>,
    /// What this job's fork is told, at most [`Template::PAYLOAD_MAX_BYTES`]. Empty: there is no
    /// fork, and nothing is run. The template is started if it is not running, so that later jobs
    /// need not wait for it, and whatever goes wrong with it is left for them to find.
    pub payload: Vec<u8>,
}

/// A program that prepares once what many jobs need, and then forks for each of them. What it has
/// to do is in `docs/TEMPLATES.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateProgram {
    /// `argv[0]`, looked up as [`ContainerJob::program`] is.
    pub program: String,
    /// `argv[1..]`.
    pub arguments: Vec<String>,
    /// Its whole environment, which its forks inherit.
    pub environment: Vec<(String, String)>,
}

impl Template {
    /// A longer payload makes its job run without the template.
    pub const PAYLOAD_MAX_BYTES: usize = 64 << 10;

    pub(crate) fn is_only_started(&self) -> bool {
        self.payload.is_empty()
    }
}

impl ContainerJob {
    /// Whether a container made for `other` is one for this job too: whether they differ only in
    /// what they run and in what becomes of it.
    pub(crate) fn fits_container_of(&self, other: &Self) -> bool {
        // Named one by one, so that whoever adds a field decides where it belongs.
        let Self {
            program: _,
            arguments: _,
            environment: _,
            working_directory,
            layers,
            root,
            mounts,
            network,
            user,
            group,
            privileges,
            leads_session: _,
            timeout: _,
            inline_limit_bytes: _,
            outputs: _,
            trace_missing: _,
            background: _,
            terminal: _,
            more_like_it: _,
            template: _,
        } = self;
        *layers == other.layers
            && *mounts == other.mounts
            && *working_directory == other.working_directory
            && *root == other.root
            && (*network, *user, *group, *privileges)
                == (other.network, other.user, other.group, other.privileges)
    }

    /// Whether a template that was started for `other` can fork for this job.
    pub(crate) fn fits_template_of(&self, other: &Self) -> bool {
        let same_program = match (&self.template, &other.template) {
            (Some(template), Some(others)) => template.program == others.program,
            _ => false,
        };
        same_program
            && self.fits_container_of(other)
            && (self.leads_session, self.background) == (other.leads_session, other.background)
    }

    /// Whether a fork of a template can do for it all that a process of its own could.
    pub(crate) fn can_have_template(&self) -> bool {
        Self {
            outputs: Vec::new(),
            ..self.clone()
        }
        .can_be_prepared()
    }

    /// Whether its container can be made before the job is known: whether it needs nothing that
    /// comes with the job, and nothing outside of the container.
    pub(crate) fn can_be_prepared(&self) -> bool {
        self.terminal.is_none()
            && !self.trace_missing
            && self.outputs.is_empty()
            && !matches!(self.root, Root::Capture { .. })
            && !self
                .mounts
                .iter()
                .any(|mount| matches!(mount, ContainerMount::Bind { .. }))
    }
}

impl Default for ContainerJob {
    fn default() -> Self {
        Self {
            program: String::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            working_directory: PathBuf::from("/"),
            layers: Vec::new(),
            root: Root::ReadOnly,
            mounts: Vec::new(),
            network: JobNetwork::Disabled,
            user: 0,
            group: 0,
            privileges: Privileges::Namespace,
            leads_session: true,
            timeout: None,
            inline_limit_bytes: 1_000_000,
            outputs: Vec::new(),
            trace_missing: false,
            background: false,
            terminal: None,
            more_like_it: false,
            template: None,
        }
    }
}

/// What becomes of writes to the root file system of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// They fail.
    ReadOnly,
    /// They are thrown away with the container.
    Discard,
    /// They are kept in `upper`, in overlayfs' format. Both directories exist, empty, on one
    /// file system.
    Capture {
        /// Receives the changes.
        upper: PathBuf,
        /// Scratch space.
        work: PathBuf,
    },
}

/// What a program may do beyond what its user id may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Privileges {
    /// No capabilities.
    None,
    /// What root does to files and processes (owners, modes, other users' files, signals), but
    /// nothing that changes mounts, networks or the kernel.
    Files,
    /// Every capability over the namespaces of the container. With [`JobNetwork::Loopback`] these
    /// include a network of its own.
    Namespace,
}

/// What network a container sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobNetwork {
    /// Nothing, not even loopback.
    Disabled,
    /// Loopback of its own.
    Loopback,
    /// The network of this machine.
    Local,
}

impl From<Network> for JobNetwork {
    fn from(network: Network) -> Self {
        match network {
            Network::Disabled => JobNetwork::Disabled,
            Network::Loopback => JobNetwork::Loopback,
            Network::Local => JobNetwork::Local,
        }
    }
}

/// A mount with everything in it resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum ContainerMount {
    /// `source` is absolute, on this machine.
    Bind {
        mount_point: PathBuf,
        source: PathBuf,
        read_only: bool,
    },
    /// A name from [`Device::name`], mounted at `/dev/<name>`.
    Device {
        name: String,
    },
    Devpts {
        mount_point: PathBuf,
    },
    Mqueue {
        mount_point: PathBuf,
    },
    Proc {
        mount_point: PathBuf,
    },
    Sys {
        mount_point: PathBuf,
    },
    Tmp {
        mount_point: PathBuf,
    },
}

impl ContainerMount {
    /// The mount of one device.
    pub fn device(device: Device) -> Self {
        ContainerMount::Device {
            name: device.name().to_owned(),
        }
    }
}

/// The size of a terminal, in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TerminalSize {
    pub rows: u16,
    pub columns: u16,
}

impl From<WindowSize> for TerminalSize {
    fn from(size: WindowSize) -> Self {
        Self {
            rows: size.rows,
            columns: size.columns,
        }
    }
}
