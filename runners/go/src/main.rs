//! `maelstrom-go-test`: like `go test ./...`, with every test in a container of its own.

mod arguments;
mod artifact;
mod build;
mod cli;
mod collection;
mod coverage;
mod environment;
mod framework;
mod go_test;
mod known;
mod options;
mod output;
mod packages;
mod project;
mod selector;
mod test2json;
mod toolchain;
mod unchanged;

use framework::GoFramework;
use maelstrom_runner::runner::{self, Exit};
use maelstrom_runtime::Launcher;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything that could start a thread.
    let launcher = Launcher::start();
    let exit = match cli::load_or_exit().and_then(GoFramework::new) {
        Ok((framework, settings)) => runner::run(framework, launcher, settings),
        Err(error) => {
            eprintln!("Error: {error:#}");
            Exit::FAILURE
        }
    };
    exit.exit()
}
