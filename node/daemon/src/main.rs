//! `maelstrom-node`: lends this machine to the mesh, and runs jobs for the clients on it.

mod daemon;
mod keys;
mod lending;
mod options;
mod report;
mod supervisor;
mod table;

use anyhow::{Context as _, Result, bail};
use maelstrom_runtime::Launcher;
use maelstrom_session::{Question, Session, socket_path};
use options::{Command, Options};
use report::Report;
use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};
use tracing_subscriber::{Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

fn main() -> ExitCode {
    // Before anything that could start a thread.
    let launcher = Launcher::start();
    let options = Options::load_or_exit();
    let log = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_filter(options.log_level.filter());
    tracing_subscriber::registry().with(log).init();
    let done = match options.command {
        Command::Run => launcher
            .map_err(Into::into)
            .and_then(|launcher| daemon::run(launcher, *options.node)),
        Command::Status { json } => status(json),
        Command::Invite => invite(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Asks the daemon of this user something.
fn ask(question: Question) -> Result<String> {
    let path = socket_path();
    let Some(mut session) = Session::connect(&path)? else {
        bail!(
            "no maelstrom-node of this user runs on this machine: nobody listens on {}. Start one with `maelstrom-node`. (If one runs as another user or as a service, use that user; if it was started with another XDG_RUNTIME_DIR, set the same.)",
            path.display()
        );
    };
    Ok(session.ask(question)?)
}

fn status(json: bool) -> Result<()> {
    let text = ask(Question::Status)?;
    if json {
        return print(&text);
    }
    let report: Report = serde_json::from_str(&text).context("reading what the daemon answered")?;
    print(&table::show(&report))
}

fn invite() -> Result<()> {
    print(&ask(Question::Invite)?)
}

/// Prints a text. Whoever reads it may stop reading.
fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("writing to standard output"),
    }
}
