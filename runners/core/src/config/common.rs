//! The values that several programs have.

use super::types::{Scalar, number_from_text, number_from_toml, scalar_number, utf8, wrong_type};
use crate::size::ByteSize;
use std::{
    ffi::{OsStr, OsString},
    fmt,
    net::{SocketAddr, ToSocketAddrs},
    num::NonZeroU32,
    path::PathBuf,
    thread,
    time::Duration,
};
use toml::de::DeValue;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// Declares an enumeration whose values are words.
macro_rules! choices {
    (
        $(#[doc = $about:literal])*
        pub enum $name:ident { $($(#[doc = $help:literal])+ $variant:ident = $word:literal),+ $(,)? }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[doc = $help])+ $variant),+ }

        impl Scalar for $name {
            const CHOICES: &'static [&'static str] = &[$($word),+];

            fn from_text(text: &OsStr) -> Result<Self, String> {
                match text.to_str() {
                    $(Some($word) => Ok($name::$variant),)+
                    _ => Err(format!("expected one of {}", Self::CHOICES.join(", "))),
                }
            }

            fn show(&self) -> String {
                format!("{self:?}")
            }
        }
    };
}

choices! {
    /// The least severe log messages that are shown.
    pub enum LogLevel {
        /// Errors only.
        Error = "error",
        /// Also warnings.
        Warning = "warning",
        /// Also what is good to know.
        Info = "info",
        /// Everything.
        Debug = "debug",
    }
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warning => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
        }
    }
}

impl LogLevel {
    /// Shows our own messages of this severity and above, and of what the libraries that we use
    /// say only warnings and errors, unless everything is asked for.
    pub fn filter(self) -> Targets {
        let own = LevelFilter::from(self);
        let others = match self {
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Info | LogLevel::Warning => LevelFilter::WARN,
            LogLevel::Error => LevelFilter::ERROR,
        };
        Targets::new()
            .with_default(others)
            .with_targets(["maelstrom", "cargo_maelstrom"].map(|ours| (ours, own)))
    }
}

choices! {
    /// How a test runner shows what happens.
    pub enum UiStyle {
        /// Fancy on a terminal, unless listing; else simple.
        Auto = "auto",
        /// A line for each test, with progress bars on a terminal.
        Simple = "simple",
        /// Running tests and gauges in an area of their own, on a terminal only.
        Fancy = "fancy",
        /// Only the summary, with one progress bar on a terminal.
        Quiet = "quiet",
    }
}

choices! {
    /// How the parts of a cluster talk to each other.
    pub enum ClusterCommunicationStrategy {
        /// Over the network.
        Tcp = "tcp",
        /// Over the artifact store of a GitHub workflow run.
        Github = "github",
    }
}

/// How many jobs run at once on this machine: 1 to 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots(u16);

impl Slots {
    /// The number, from 1 to 1000.
    pub const fn count(self) -> usize {
        self.0 as usize
    }

    /// How many processors this machine has, as a default.
    pub fn default_text(_environment: &super::Environment) -> OsString {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        processors.clamp(1, 1000).to_string().into()
    }
}

impl fmt::Display for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

scalar_number!(Slots, 1, 1000_u16, |number| Slots(number as u16));

/// A whole number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub u32);

impl Seconds {
    /// As the limit of a test's run time, where 0 means none.
    pub fn as_limit(self) -> Option<Duration> {
        (self.0 != 0).then(|| Duration::from_secs(self.0.into()))
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

scalar_number!(Seconds, 0, u32::MAX, |number| Seconds(number as u32));

/// Where a broker listens. Resolved when it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    /// The address that its name had first.
    pub address: SocketAddr,
    /// As it was written.
    pub text: String,
}

impl Scalar for BrokerAddress {
    fn from_text(text: &OsStr) -> Result<Self, String> {
        let text = utf8(text)?;
        let well_formed = text.rsplit_once(':').is_some_and(|(host, port)| {
            let bracketed = host.starts_with('[') && host.ends_with(']');
            !host.is_empty() && (bracketed || !host.contains(':')) && port.parse::<u16>().is_ok()
        });
        if !well_formed {
            return Err("expected HOST:PORT, such as `build.local:9000` or `[::1]:9000`".into());
        }
        let address = text
            .to_socket_addrs()
            .map_err(|error| format!("could not resolve it: {error}"))?
            .next()
            .ok_or("its name has no address")?;
        Ok(BrokerAddress {
            address,
            text: text.to_owned(),
        })
    }

    fn show(&self) -> String {
        if self.text == self.address.to_string() {
            self.text.clone()
        } else {
            format!("{} ({})", self.text, self.address)
        }
    }
}

/// A text that `--print-config` and logs do not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Scalar for Secret {
    fn from_text(text: &OsStr) -> Result<Self, String> {
        utf8(text).map(|text| Secret(text.to_owned()))
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(text) => Ok(Secret(text.to_string())),
            other => Err(wrong_type("a string", other)),
        }
    }

    fn show(&self) -> String {
        "***".into()
    }
}

crate::config_values! {
    /// Logging, which every program does.
    pub struct LogValues {
        /// Show log messages of this severity and above.
        pub log_level: LogLevel [short('L'), value_name("LEVEL"), default("info")],
    }
}

crate::config_values! {
    /// How programs of a cluster find and reach each other.
    pub struct ClusterValues {
        /// How the parts of the cluster communicate.
        pub cluster_communication_strategy: ClusterCommunicationStrategy
            [value_name("STRATEGY"), default("tcp"), hidden()],
        /// Runtime token of the GitHub workflow run.
        pub github_actions_token: Option<Secret> [value_name("TOKEN"), hidden()],
        /// Results URL of the GitHub workflow run.
        pub github_actions_url: Option<String> [value_name("URL"), hidden()],
    }
}

crate::config_values! {
    /// What every program that submits jobs has: the test runners and `maelstrom-run`.
    pub struct ClientValues {
        /// Send jobs to the mesh through this node.
        pub broker: Option<BrokerAddress>
            [short('b'), value_name("HOST:PORT"), unset_means("run everything on this machine")],
        /// Run jobs on the slots of the mesh too, besides those of this machine. Finds nodes on the
        /// local network by itself.
        pub mesh: bool,
        /// Join the mesh that this node is a member of: HOST, HOST:PORT, or a ticket from
        /// `maelstrom-node invite`. Implies --mesh.
        pub join: Vec<String> [value_name("HOST[:PORT]")],
        /// The file with the key that all nodes of the mesh share.
        pub mesh_key: Option<PathBuf>
            [value_name("FILE"), unset_means("maelstrom/mesh.key in the configuration directory")],
        /// How large the cache may grow before what was used least recently is removed.
        pub cache_size: ByteSize [value_name("BYTES"), default("1 GB")],
        /// How much of what a job writes to stdout and to stderr is kept.
        pub inline_limit: ByteSize [value_name("BYTES"), default("1 MB")],
        /// How many jobs run at once on this machine.
        pub slots: Slots [value_name("COUNT"), default_with(Slots::default_text)],
        /// Where downloaded container images are kept.
        pub container_image_depot_root: PathBuf [
            value_name("PATH"),
            default_with(|environment| environment.cache_home().join("maelstrom/container/").into()),
        ],
        /// Accept any TLS certificate from container registries. Only for tests.
        pub accept_invalid_remote_container_tls_certs: bool,
    }
}

crate::config_values! {
    /// What every test runner has besides [`LogValues`], [`ClientValues`] and [`ClusterValues`].
    pub struct TestRunnerValues {
        /// How to show what happens.
        pub ui: UiStyle [value_name("STYLE"), default("auto")],
        /// Run every test this many times.
        pub repeat: NonZeroU32 [short('r'), alias("loop"), value_name("COUNT"), default("1")],
        /// Stop after this many failures.
        pub stop_after: Option<NonZeroU32> [short('s'), value_name("COUNT"), unset_means("never")],
        /// Kill every test that runs longer than this many seconds; 0 means no limit. Overrides
        /// what the tests' directives say.
        pub timeout: Option<Seconds>
            [short('t'), value_name("SECONDS"), unset_means("what each test's directives say")],
    }
}
