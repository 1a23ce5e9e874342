//! `cargo maelstrom`: like `cargo test`, with every test in a container of its own.

mod artifact;
mod build;
mod built;
mod cargo_config;
mod cargo_project;
mod cargo_test;
mod cli;
mod collection;
mod environment;
mod framework;
mod harness;
mod libtest;
mod options;
mod sysroot;
mod workspace;

use framework::CargoFramework;
use maelstrom_runner::runner::{self, Exit};
use maelstrom_runtime::Launcher;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything that could start a thread.
    let launcher = Launcher::start();
    let exit = match cli::load_or_exit().and_then(CargoFramework::new) {
        Ok((framework, settings)) => runner::run(framework, launcher, settings),
        Err(error) => {
            eprintln!("Error: {error:#}");
            Exit::FAILURE
        }
    };
    exit.exit()
}
