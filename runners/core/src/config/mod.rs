//! Configuration values, each from the command line, an environment variable, a configuration
//! file, or a default.
//!
//! A program declares its values once, with [`config_values!`](crate::config_values), and loads
//! them together with the common ones; the options, both variables, the key in files, the help and
//! `--print-config` follow from the declaration:
//!
//! ```no_run
//! use maelstrom_runner::config::{self, ClientValues, ClusterValues, LogValues, TestRunnerValues};
//!
//! maelstrom_runner::config_values! {
//!     /// Values of cargo-maelstrom alone.
//!     pub struct CargoValues {
//!         /// Comma-separated features to activate.
//!         pub features: Option<String> [short('F'), joined_by(',')],
//!         /// Activate all features.
//!         pub all_features: bool,
//!     }
//! }
//!
//! type Values = (LogValues, ClientValues, ClusterValues, TestRunnerValues, CargoValues);
//! let loaded = config::load_or_exit::<Values>(&config::CARGO_MAELSTROM, |command| {
//!     command.arg(clap::Arg::new("watch").short('w').action(clap::ArgAction::SetTrue))
//! });
//! let (log, client, cluster, test_runner, cargo) = loaded.values;
//! if loaded.matches.get_flag("watch") { /* … */ }
//! ```
//!
//! # Rules
//!
//! The first source that has a key decides, also when its value is bad; lists are replaced, never
//! merged. What goes beyond Maelstrom 0.14, without changing the meaning of a command that
//! works there:
//!
//! - `--flag=false`, and `--no-KEY` for flags, lists and optional values, take back what a variable
//!   or a file set.
//! - A list in a variable may be a TOML array of strings, so that its elements can have blanks.
//! - Options that take a list accept values that start with a dash.
//! - Configuration subdirectories in the spelling of Maelstrom's manual are read besides those of
//!   its programs.

mod command;
mod common;
mod environment;
mod error;
mod program;
mod reader;
mod spec;
mod types;

#[cfg(test)]
mod tests;

pub use common::{
    BrokerAddress, ClientValues, ClusterCommunicationStrategy, ClusterValues, LogLevel, LogValues,
    Seconds, Secret, Slots, TestRunnerValues, UiStyle,
};
pub use environment::Environment;
pub use error::{ConfigError, Origin, Stop};
pub use program::{
    CARGO_MAELSTROM, MAELSTROM_ADMIN, MAELSTROM_BROKER, MAELSTROM_GO_TEST, MAELSTROM_NODE,
    MAELSTROM_PYTEST, MAELSTROM_RUN, MAELSTROM_WORKER, Program,
};
pub use reader::Reader;
pub use spec::{ConfigValues, ValueSpec};
pub use types::{
    ConfigType, Given, Scalar, Shape, number_from_text, number_from_toml, utf8, wrong_type,
};

use clap::{ArgMatches, Command};
use command::{CONFIG_FILE, PRINT_CONFIG};
use reader::ConfigText;
use std::{
    env,
    ffi::{OsStr, OsString},
    path::Path,
};

/// What a program was told.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// Its configuration values.
    pub values: T,
    /// The rest of the command line: the arguments that the program added itself.
    pub matches: ArgMatches,
}

/// Loads the values of `program`. `extend` adds arguments that are no configuration values.
/// `arguments` start with the name of the program.
///
/// # Errors
///
/// A [`Stop`] when the program was only asked to print something, was called wrongly, or has a
/// bad configuration.
pub fn load<T: ConfigValues>(
    program: &Program,
    extend: impl FnOnce(Command) -> Command,
    arguments: impl IntoIterator<Item = OsString>,
    environment: &Environment,
) -> Result<Loaded<T>, Stop> {
    let specs = T::specs();
    let matches = command::command(program, &specs, environment, extend)
        .try_get_matches_from(command::without_cargo_subcommand(arguments))
        .map_err(|error| Stop::CommandLine(Box::new(error)))?;
    let texts = match matches.get_one::<OsString>(CONFIG_FILE) {
        None => ConfigText::read_existing(&command::search_list(program, environment))?,
        Some(path) if path == OsStr::new("-") => Vec::new(),
        Some(path) => vec![ConfigText::read(Path::new(path))?],
    };
    let files = texts
        .iter()
        .map(ConfigText::parse)
        .collect::<Result<Vec<_>, _>>()?;
    let mut reader = Reader {
        program,
        specs: &specs,
        matches: &matches,
        environment,
        files: &files,
        shown: String::new(),
    };
    let values = T::read(&mut reader)?;
    if matches.get_flag(PRINT_CONFIG) {
        let text = format!("{} configuration {{\n{}}}\n", program.name, reader.shown);
        return Err(Stop::PrintConfig(text));
    }
    Ok(Loaded { values, matches })
}

/// The values of an option or argument of a runner's own that may be given several times, as
/// [`Loaded::matches`] has them; none if it was not given.
pub fn strings(matches: &ArgMatches, name: &str) -> Vec<String> {
    matches
        .get_many::<String>(name)
        .into_iter()
        .flatten()
        .cloned()
        .collect()
}

/// Like [`load`], with the arguments and the environment of this process. Where there is nothing
/// to run, prints what there is to say and ends the process: with 0 after `--help`, `--version` and
/// `--print-config`, 1 for a bad configuration, 2 for errors in usage.
pub fn load_or_exit<T: ConfigValues>(
    program: &Program,
    extend: impl FnOnce(Command) -> Command,
) -> Loaded<T> {
    load(program, extend, env::args_os(), &Environment::of_process())
        .unwrap_or_else(|stop| stop.exit())
}
