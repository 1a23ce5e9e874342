//! The program `lab`.

mod control;
mod measure;
mod shell;

use crate::{Lab, LabConfig, LabError, MOST_HOSTS};
use clap::{Args, Parser, Subcommand};
use control::{Answer, Client, Order};
use std::{
    ffi::OsString,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

/// Real programs on hosts of their own: network namespaces on a bridge, without root.
///
/// Without a command, starts a lab and a shell on one of its hosts. In it (or in another terminal)
/// the commands act on that lab. When the shell ends, so does everything in the lab.
#[derive(Debug, Parser)]
#[command(name = "lab", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Subcommands>,
    #[command(flatten)]
    start: Start,
}

#[derive(Debug, Args)]
struct Start {
    /// How many hosts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=i64::from(MOST_HOSTS)))]
    nodes: u8,
    /// The host of the shell.
    #[arg(long, default_value_t = 1)]
    host: u8,
    /// Tell hosts of a gateway that does not exist, so that packets to the outside can be captured.
    #[arg(long)]
    gateway: bool,
    /// Keep the hosts' directories at the end.
    #[arg(long)]
    keep: bool,
    /// Run this in place of a shell.
    #[arg(last = true)]
    program: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Run a program on a host, with these standard streams.
    Exec {
        host: u8,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        program: Vec<OsString>,
    },
    /// Show hosts and links.
    Status,
    /// Pull a host's cable.
    Cut { hosts: Vec<u8> },
    /// Plug it in again, and undo `slow`.
    Heal { hosts: Vec<u8> },
    /// Kill all processes of a host at once.
    Kill { hosts: Vec<u8> },
    /// Start a host that was killed.
    Boot { hosts: Vec<u8> },
    /// Stop all processes of a host where they are.
    Pause { hosts: Vec<u8> },
    /// Let them go on.
    Resume { hosts: Vec<u8> },
    /// Lose all packets from one host to another.
    Block { from: u8, to: u8 },
    /// Let them through again.
    Unblock { from: u8, to: u8 },
    /// Let only hosts of one group reach each other; no groups: all.
    Partition {
        /// Hosts joined by commas, for example: 1,2 3
        groups: Vec<String>,
    },
    /// Make a host's link slow or lossy.
    Slow(Slow),
    /// Turn multicast on or off.
    Multicast {
        #[arg(value_parser = ["on", "off"])]
        state: String,
    },
    /// Runs of a mesh with random faults: each job must be reported once, and nothing stay behind.
    Soak(measure::Soak),
    /// Measure a mesh on this machine.
    Bench {
        #[command(subcommand)]
        what: measure::Bench,
    },
    /// Write all packets to a file; without one, end that and say what was in it.
    Capture { file: Option<PathBuf> },
}

#[derive(Debug, Args)]
struct Slow {
    host: u8,
    /// Megabits a second.
    #[arg(long)]
    rate: Option<f64>,
    /// Milliseconds added to each packet's way.
    #[arg(long, default_value_t = 0.0)]
    latency: f64,
    /// Percent of packets that are lost.
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Only what the host receives.
    #[arg(long)]
    to: bool,
    /// Only what the host sends.
    #[arg(long)]
    from: bool,
}

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => start(&cli.start),
        Some(command) => carry_out(command),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(options: &Start) -> Result<u8, LabError> {
    let config = LabConfig {
        gateway: options.gateway,
        keep: options.keep,
        ..LabConfig::new(options.nodes)
    };
    let lab = Arc::new(Lab::start(&config)?);
    control::serve(&lab)?;
    if options.program.is_empty() && std::io::stdin().is_terminal() {
        println!(
            "{} hosts, 10.77.0.1 to 10.77.0.{}; this shell is on host {}.\n\
             on N CMD, all CMD        run a program on host N, on all\n\
             cut N, heal N            pull and plug host N's cable\n\
             kill N, boot N           kill all of host N at once, start it again\n\
             pause N, resume N        stop its processes where they are\n\
             slow N --rate MBIT …     see `lab help` for this, block, partition, multicast, capture\n\
             status                   hosts and links\n\
             In another terminal: {} exec N CMD",
            options.nodes,
            options.nodes,
            options.host,
            std::env::args().next().unwrap_or_else(|| "lab".to_owned()),
        );
    }
    let code = shell::run(&lab, options.host, &options.program);
    if options.keep {
        eprintln!(
            "The hosts' directories are in {}",
            lab.directory().display()
        );
    }
    // Threads that serve still hold the lab; the keeper takes it down when this process ends.
    // What a person sees next is to be a machine without it.
    lab.stop();
    code
}

fn carry_out(command: Subcommands) -> Result<u8, LabError> {
    let command = match command {
        Subcommands::Soak(options) => return measure::soak(&options),
        Subcommands::Bench { what } => return measure::bench(what),
        command => command,
    };
    let client = Client::connect(&directory()?)?;
    let hosts = |hosts: Vec<u8>, order: fn(u8) -> Order| hosts.into_iter().map(order).collect();
    let orders: Vec<Order> = match command {
        Subcommands::Soak(_) | Subcommands::Bench { .. } => Vec::new(),
        Subcommands::Exec { host, program } => return execute(client, host, program),
        Subcommands::Status => vec![Order::Status],
        Subcommands::Cut { hosts: all } => hosts(all, Order::Cut),
        Subcommands::Heal { hosts: all } => hosts(all, Order::Heal),
        Subcommands::Kill { hosts: all } => hosts(all, Order::Kill),
        Subcommands::Boot { hosts: all } => hosts(all, Order::Boot),
        Subcommands::Pause { hosts: all } => hosts(all, Order::Pause),
        Subcommands::Resume { hosts: all } => hosts(all, Order::Resume),
        Subcommands::Block { from, to } => vec![Order::Block(from, to)],
        Subcommands::Unblock { from, to } => vec![Order::Unblock(from, to)],
        Subcommands::Partition { groups } => vec![Order::Partition(parse_groups(&groups)?)],
        Subcommands::Slow(slow) => vec![Order::Shape {
            host: slow.host,
            toward: slow.to,
            from: slow.from,
            rate: slow.rate.map(|megabits| (megabits * 1e6) as u64),
            latency: Duration::try_from_secs_f64(slow.latency / 1000.0).unwrap_or_default(),
            loss: slow.loss / 100.0,
        }],
        Subcommands::Multicast { state } => vec![Order::Multicast(state == "on")],
        Subcommands::Capture { file } => vec![Order::Capture(file.map(absolute))],
    };
    for order in orders {
        match client.ask(&order)? {
            Answer::Done(text) => print!("{text}"),
            Answer::Failed(text) => {
                eprintln!("lab: {text}");
                return Ok(1);
            }
            Answer::Ended(code) => return Ok(code),
        }
    }
    Ok(0)
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

fn parse_groups(groups: &[String]) -> Result<Vec<Vec<u8>>, LabError> {
    let group = |text: &String| {
        let numbers = text.split(',').map(|number| number.trim().parse());
        let numbers: Result<Vec<u8>, _> = numbers.collect();
        numbers.map_err(|error| {
            LabError::step(format!("reading the group \"{text}\""))(std::io::Error::other(error))
        })
    };
    groups.iter().map(group).collect()
}

/// Executes a program on a host, passing on the signals that a person sends.
fn execute(client: Client, host: u8, program: Vec<OsString>) -> Result<u8, LabError> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    let failed = || LabError::step("passing on signals");
    let mut signals =
        signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT]).map_err(failed())?;
    let connection = rustix::io::dup(&client.connection).map_err(|errno| failed()(errno.into()))?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let connection = rustix::fd::AsFd::as_fd(&connection);
            let _ = crate::wire::send(connection, &Order::Signal(signal), &[]);
        }
    });
    match client.execute(host, program)? {
        Answer::Ended(code) => Ok(code),
        Answer::Done(_) => Ok(0),
        Answer::Failed(text) => {
            eprintln!("lab: {text}");
            Ok(127)
        }
    }
}

/// The directory of the lab that is meant: the one around this process, or the only one there is.
fn directory() -> Result<PathBuf, LabError> {
    if let Some(directory) = std::env::var_os("LAB_DIRECTORY") {
        return Ok(directory.into());
    }
    let parent = std::env::temp_dir();
    let doing = format!("looking for a running lab in {}", parent.display());
    let entries = std::fs::read_dir(&parent).map_err(LabError::step(doing.clone()))?;
    let is_lab = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("lab-") && Client::connect(path).is_ok()
    };
    let mut labs = entries.flatten().map(|e| e.path()).filter(|p| is_lab(p));
    match (labs.next(), labs.next()) {
        (Some(lab), None) => Ok(lab),
        (None, _) => Err(LabError::step(doing)(std::io::Error::other(
            "there is none; start one with: lab --nodes 3",
        ))),
        (Some(_), Some(_)) => Err(LabError::step(doing)(std::io::Error::other(
            "there are several; set LAB_DIRECTORY to the directory of one",
        ))),
    }
}
