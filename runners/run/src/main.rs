//! `maelstrom-run`: runs arbitrary programs, each in a container of its own.

mod batch;
mod check;
mod end;
mod escape;
mod input;
mod one;
mod options;
mod outputs;
mod print;
mod report;
mod terminal;
mod tty;

use anyhow::{Context as _, Result, bail};
use input::Inputs;
use maelstrom_runner::{
    client::{Client, ClientConfig},
    images::ImageConfig,
    runner::watch_signals,
};
use maelstrom_runtime::Launcher;
use options::{Mode, Options};
use report::Ending;
use std::{
    env,
    fs::File,
    io::{self, IsTerminal as _, Read},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tracing_subscriber::{Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

fn main() {
    // Before anything that could start a thread.
    let launcher = Launcher::start();
    let options = Options::load_or_exit();
    let ending = launcher
        .map_err(Into::into)
        .and_then(|launcher| run(launcher, options))
        .unwrap_or_else(|error| {
            eprintln!("Error: {error:#}");
            Ending::Code(1)
        });
    end::end(ending)
}

/// Tells the other nodes before a signal ends the process, so that they stop at once what they run
/// for it. Returns whether that has begun.
fn leave_at_signal(client: &Client) -> Result<Arc<AtomicBool>> {
    let signals = watch_signals().context("watching for signals")?;
    let client = client.clone();
    let leaves = Arc::new(AtomicBool::new(false));
    let begun = leaves.clone();
    std::thread::Builder::new()
        .name("leaving".into())
        .spawn(move || {
            if let Ok(signal) = signals.recv() {
                leaves.store(true, Ordering::SeqCst);
                client.shutdown();
                end::die_by(signal);
            }
        })
        .context("watching for signals")?;
    Ok(begun)
}

fn run(launcher: Launcher, options: Options) -> Result<Ending> {
    let log = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_filter(options.log_level.filter());
    tracing_subscriber::registry().with(log).init();
    if options.mode == Mode::Check {
        return check::run(&launcher);
    }
    if options.mode == Mode::Tty && !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        bail!("--tty needs a terminal as standard input and output");
    }
    if let Some(broker) = &options.broker {
        bail!(
            "`broker` is set to {broker}, but this version of maelstrom-run only runs jobs on this machine; unset it, or override it with --no-broker"
        );
    }
    let (name, source): (String, Box<dyn Read>) = match &options.file {
        None => ("stdin".into(), Box::new(io::stdin())),
        Some(path) => {
            let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
            (path.display().to_string(), Box::new(file))
        }
    };
    let mut inputs = Inputs::new(name, source).with_command_line(options.command_line);

    let project_dir = env::current_dir().context("finding the current directory")?;
    let in_mesh = options.mesh.is_some();
    let client = Client::start(
        launcher,
        ClientConfig {
            project_dir: project_dir.clone(),
            cache_dir: project_dir.join(options.cache_root),
            cache_size_bytes: options.cache_size_bytes,
            inline_limit_bytes: options.inline_limit_bytes,
            slots: options.slots,
            library_path: Vec::new(),
            mesh: options.mesh,
            images: ImageConfig::new(options.image_depot_root)
                .accept_invalid_tls_certs(options.accept_invalid_tls_certs),
        },
    )?;
    let watches = in_mesh && options.mode != Mode::Tty;
    let leaves = watches.then(|| leave_at_signal(&client)).transpose()?;
    let result = match options.mode {
        Mode::Batch => batch::run(&client, project_dir, inputs).map(Ending::Code),
        Mode::One => {
            one::first_job(&client, &mut inputs).map(|spec| one::run(&client, &project_dir, &spec))
        }
        Mode::Tty => one::first_job(&client, &mut inputs)
            .and_then(|spec| tty::run(&client, &project_dir, &spec, options.escape_char)),
        Mode::Check => unreachable!("handled above"),
    };
    client.shutdown();
    while leaves.iter().any(|leaves| leaves.load(Ordering::SeqCst)) {
        // The thread that got the signal is about to end the process by it.
        std::thread::park();
    }
    result
}
