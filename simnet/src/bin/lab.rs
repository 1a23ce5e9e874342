//! The program of the lab: see the crate `maelstrom-lab`.

use std::process::ExitCode;

fn main() -> ExitCode {
    maelstrom_lab::cli::main()
}
