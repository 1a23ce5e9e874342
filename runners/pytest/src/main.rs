//! `maelstrom-pytest`: like `pytest`, with every test in a container of its own.

mod artifact;
mod cli;
mod collection;
mod environment;
mod framework;
mod layers;
mod output;
mod project;
mod record;
mod source;
mod surroundings;
mod template;
mod tree;

use framework::PytestFramework;
use maelstrom_runner::runner::{self, Exit};
use maelstrom_runtime::Launcher;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything that could start a thread.
    let launcher = Launcher::start();
    let exit = match cli::load_or_exit().and_then(PytestFramework::new) {
        Ok((framework, settings)) => runner::run(framework, launcher, settings),
        Err(error) => {
            eprintln!("Error: {error:#}");
            Exit::FAILURE
        }
    };
    exit.exit()
}
