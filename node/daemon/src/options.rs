//! The command line and the configuration values.

use clap::{Arg, ArgAction, ArgMatches};
use maelstrom_mesh::{DEFAULT_PORT, Lending};
use maelstrom_net::Ticket;
use maelstrom_runner::{
    config::{
        self, Environment, Loaded, LogLevel, LogValues, MAELSTROM_NODE, Scalar, Seconds, Slots,
    },
    mesh::host_name,
    size::ByteSize,
};
use std::{
    ffi::OsStr,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

maelstrom_runner::config_values! {
    /// Values of `maelstrom-node`.
    pub(crate) struct NodeValues {
        /// Join the mesh of this node: its address, or a ticket that `maelstrom-node invite`
        /// printed there. May be given several times; one that answers is enough.
        pub join: Vec<String> [value_name("HOST[:PORT]|TICKET")],
        /// Where to listen (TCP): an address, a port, or both. May be given several times.
        pub listen: Vec<String> [value_name("ADDRESS[:PORT]"), unset_means("0.0.0.0:7357")],
        /// How many jobs run at once on this machine.
        pub slots: Slots [value_name("COUNT"), default_with(Slots::default_text)],
        /// When to run jobs of others: always, when nobody needs this machine, or never.
        pub lend: Lend [value_name("WHEN"), default("always")],
        /// The file with the secret that the nodes of a mesh share. Made if it is missing.
        pub mesh_key: PathBuf [
            value_name("FILE"),
            default_with(|environment| config_home(environment).join("maelstrom/mesh.key").into()),
        ],
        /// What to call this node.
        pub name: String [value_name("NAME"), default_with(|_| host_name().into())],
        /// Something that jobs can ask for in a node. May be given several times.
        pub label: Vec<String> [value_name("LABEL")],
        /// Look for other nodes on the local network, and be found there.
        pub mdns: bool [default("true")],
        /// Where layers are kept.
        pub cache_root: PathBuf [
            value_name("PATH"),
            default_with(|environment| environment.cache_home().join("maelstrom/node").into()),
        ],
        /// How large the cache may grow before what was used least recently is removed.
        pub cache_size: ByteSize [value_name("BYTES"), default("10 GB")],
        /// How long jobs of others may go on when the daemon is told to end, before they are
        /// given back.
        pub drain_timeout: Seconds [value_name("SECONDS"), default("30")],
        /// Where the node keeps its own key and what it remembers.
        pub state_root: PathBuf [
            value_name("PATH"),
            default_with(|environment| state_home(environment).join("maelstrom").into()),
        ],
    }
}

type Values = (LogValues, NodeValues);

/// When jobs of others are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lend(pub(crate) Lending);

impl Lend {
    /// As it is written.
    pub(crate) const fn word(self) -> &'static str {
        match self.0 {
            Lending::Always => "always",
            Lending::Idle => "idle",
            Lending::Never => "never",
        }
    }
}

impl Scalar for Lend {
    const CHOICES: &'static [&'static str] = &["always", "idle", "never"];

    fn from_text(text: &OsStr) -> Result<Self, String> {
        [Lending::Always, Lending::Idle, Lending::Never]
            .map(Lend)
            .into_iter()
            .find(|lend| text == lend.word())
            .ok_or_else(|| format!("expected one of {}", Self::CHOICES.join(", ")))
    }

    fn show(&self) -> String {
        format!("{:?}", self.0)
    }
}

fn config_home(environment: &Environment) -> PathBuf {
    environment
        .config_directories()
        .into_iter()
        .next()
        .unwrap_or_else(|| PathBuf::from("/etc/xdg"))
}

fn state_home(environment: &Environment) -> PathBuf {
    let set = |name: &str| {
        environment
            .get(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    set("XDG_STATE_HOME")
        .or_else(|| Some(set("HOME")?.join(".local/state")))
        .unwrap_or_else(|| PathBuf::from("/var/lib"))
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Be a node.
    Run,
    /// Show the mesh as the running node sees it.
    Status { json: bool },
    /// Print a ticket of the running node.
    Invite,
}

/// All that was asked for.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) command: Command,
    pub(crate) log_level: LogLevel,
    pub(crate) node: Box<NodeOptions>,
}

/// What a node is started with.
#[derive(Debug)]
pub(crate) struct NodeOptions {
    pub(crate) join: Vec<JoinTarget>,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) slots: u16,
    pub(crate) lend: Lend,
    pub(crate) mesh_key: PathBuf,
    pub(crate) name: String,
    pub(crate) labels: Vec<String>,
    pub(crate) mdns: bool,
    pub(crate) cache_root: PathBuf,
    pub(crate) cache_size_bytes: u64,
    pub(crate) drain_timeout: Duration,
    pub(crate) state_root: PathBuf,
}

/// What follows `--join`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JoinTarget {
    /// `HOST` or `HOST:PORT`.
    Host(String),
    /// Addresses and a mesh key.
    Ticket(Box<Ticket>),
}

impl Options {
    /// Loads everything, or ends the process if that is all there is to do.
    pub(crate) fn load_or_exit() -> Options {
        let loaded = config::load_or_exit::<Values>(&MAELSTROM_NODE, arguments);
        Options::new(loaded).unwrap_or_else(|message| {
            eprintln!("Error: {message}");
            std::process::exit(1)
        })
    }

    fn new(loaded: Loaded<Values>) -> Result<Self, String> {
        let (log, node) = loaded.values;
        Ok(Self {
            command: command(&loaded.matches),
            log_level: log.log_level,
            node: Box::new(NodeOptions {
                join: node
                    .join
                    .iter()
                    .map(|text| join(text))
                    .collect::<Result<_, _>>()?,
                listen: addresses(&node.listen)?,
                slots: node.slots.count() as u16,
                lend: node.lend,
                mesh_key: node.mesh_key,
                name: name(&node.name)?,
                labels: node.label,
                mdns: node.mdns,
                cache_root: node.cache_root,
                cache_size_bytes: node.cache_size.bytes(),
                drain_timeout: Duration::from_secs(node.drain_timeout.0.into()),
                state_root: node.state_root,
            }),
        })
    }
}

fn arguments(command: clap::Command) -> clap::Command {
    command
        .subcommand(
            clap::Command::new("status")
                .about("Show the mesh as the node of this machine sees it")
                .arg(
                    Arg::new("json")
                        .long("json")
                        .action(ArgAction::SetTrue)
                        .help("Print it as JSON; docs/MESH.md describes the fields."),
                ),
        )
        .subcommand(
            clap::Command::new("invite")
                .about("Print a ticket with which another machine can join"),
        )
}

fn command(matches: &ArgMatches) -> Command {
    match matches.subcommand() {
        Some(("status", matches)) => Command::Status {
            json: matches.get_flag("json"),
        },
        Some(("invite", _)) => Command::Invite,
        _ => Command::Run,
    }
}

fn join(text: &str) -> Result<JoinTarget, String> {
    if Ticket::looks_like(text) {
        let ticket = text.parse();
        return ticket
            .map(|ticket| JoinTarget::Ticket(Box::new(ticket)))
            .map_err(|error| {
                format!("`join`: {error}: the whole word that `maelstrom-node invite` prints")
            });
    }
    let (host, port) = match text.rsplit_once(':') {
        // An IPv6 address, in brackets or bare, may be all there is.
        Some((before, _))
            if text.ends_with(']') || (before.contains(':') && !before.ends_with(']')) =>
        {
            (text, None)
        }
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let bad_port = port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port != 0));
    if host.is_empty() || bad_port || text.contains(char::is_whitespace) {
        return Err(format!(
            "`join`: `{text}`: expected HOST, HOST:PORT (such as `build.local:{DEFAULT_PORT}` or `[::1]:{DEFAULT_PORT}`), or a ticket"
        ));
    }
    Ok(JoinTarget::Host(text.to_owned()))
}

fn addresses(texts: &[String]) -> Result<Vec<SocketAddr>, String> {
    if texts.is_empty() {
        return Ok(vec![SocketAddr::from((
            Ipv4Addr::UNSPECIFIED,
            DEFAULT_PORT,
        ))]);
    }
    texts
        .iter()
        .map(|text| {
            address(text).ok_or_else(|| {
                format!(
                    "`listen`: `{text}`: expected an address of this machine, a port, or both, such as `10.0.0.5`, `{DEFAULT_PORT}`, `10.0.0.5:{DEFAULT_PORT}` or `[::]:{DEFAULT_PORT}`"
                )
            })
        })
        .collect()
}

fn address(text: &str) -> Option<SocketAddr> {
    let everywhere = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address);
    }
    if let Ok(port) = text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        return Some(SocketAddr::new(everywhere, port));
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let ip = bare.unwrap_or(text).parse::<IpAddr>().ok()?;
    Some(SocketAddr::new(ip, DEFAULT_PORT))
}

fn name(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.len() > 64 || text.contains(char::is_control) {
        return Err(format!(
            "`name`: {text:?}: expected 1 to 64 bytes without control characters"
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use maelstrom_net::MeshKey;
    use maelstrom_runner::config::Stop;
    use std::ffi::OsString;

    fn load(line: &str) -> Result<Options, String> {
        let environment = Environment::from_variables([("HOME", "/h")]);
        let words = ["maelstrom-node", "-c", "-"].into_iter();
        let arguments = words.chain(line.split_whitespace()).map(OsString::from);
        config::load::<Values>(&MAELSTROM_NODE, super::arguments, arguments, &environment)
            .map_err(|stop: Stop| stop.to_string())
            .and_then(Options::new)
    }

    #[test]
    fn without_options_everything_has_a_default() {
        let options = load("").unwrap();
        assert_eq!(options.command, Command::Run);
        let node = options.node;
        assert_eq!(node.listen, ["0.0.0.0:7357".parse().unwrap()]);
        assert_eq!(node.lend, Lend(Lending::Always));
        assert_eq!(
            node.mesh_key,
            PathBuf::from("/h/.config/maelstrom/mesh.key")
        );
        assert_eq!(node.state_root, PathBuf::from("/h/.local/state/maelstrom"));
        assert_eq!(node.cache_root, PathBuf::from("/h/.cache/maelstrom/node"));
        assert_eq!(node.drain_timeout, Duration::from_secs(30));
        assert!(node.mdns && node.join.is_empty() && !node.name.is_empty());
    }

    #[test]
    fn commands() {
        let command = |line| load(line).unwrap().command;
        assert_eq!(command("status"), Command::Status { json: false });
        assert_eq!(command("status --json"), Command::Status { json: true });
        assert_eq!(command("invite"), Command::Invite);
        assert!(load("nonsense").is_err());
        assert!(load("--json").is_err());
    }

    #[test]
    fn addresses_to_listen_on() {
        for (text, expected) in [
            ("10.0.0.5", "10.0.0.5:7357"),
            ("10.0.0.5:1", "10.0.0.5:1"),
            ("9000", "0.0.0.0:9000"),
            (":9000", "0.0.0.0:9000"),
            ("0", "0.0.0.0:0"),
            ("[::]:9000", "[::]:9000"),
            ("::1", "[::1]:7357"),
            ("[::1]", "[::1]:7357"),
        ] {
            let options = load(&format!("--listen {text}")).expect(text);
            assert_eq!(options.node.listen, [expected.parse().unwrap()], "{text}");
        }
        for text in ["host", "10.0.0.5:x", "70000", "10.0.0", "[::1"] {
            let error = load(&format!("--listen {text}")).expect_err(text);
            assert!(
                error.contains(text) && error.contains("10.0.0.5:7357"),
                "{error}"
            );
        }
    }

    #[test]
    fn whom_to_join() {
        for text in [
            "host",
            "host:1",
            "10.0.0.1",
            "10.0.0.1:7357",
            "::1",
            "[::1]",
            "[::1]:9",
        ] {
            let options = load(&format!("--join {text}")).expect(text);
            assert_eq!(options.node.join, [JoinTarget::Host(text.to_owned())]);
        }
        for text in ["host:", "host:x", ":7357", "host:0", "host:70000"] {
            let error = load(&format!("--join {text}")).expect_err(text);
            assert!(error.contains(text) && error.contains("ticket"), "{error}");
        }
        let ticket = Ticket::new(&["10.0.0.1:1".parse().unwrap()], &MeshKey::generate());
        let options = load(&format!("--join {ticket}")).unwrap();
        assert_eq!(
            options.node.join,
            [JoinTarget::Ticket(Box::new(ticket.clone()))]
        );
        let mut damaged = ticket.to_string();
        damaged.truncate(damaged.len() - 2);
        let error = load(&format!("--join {damaged}")).expect_err("it is damaged");
        assert!(error.contains("the whole word"), "{error}");
    }

    #[test]
    fn wrong_values_are_explained() {
        for (line, expected) in [
            ("--lend sometimes", "always, idle, never"),
            ("--slots 0", "from 1 to 1000"),
            ("--cache-size much", "a number of bytes"),
            ("--drain-timeout soon", "a whole number"),
            ("--log-level loud", "debug"),
        ] {
            let error = load(line).expect_err(line);
            assert!(error.contains(expected), "{line}: {error}");
        }
        assert!(name(&"n".repeat(65)).is_err());
        assert!(name("a\nb").is_err());
        assert!(name(" ").is_err());
    }
}
