//! What can be wrong with a configuration, told in terms of the place where it was written.

use maelstrom_spec::Excerpt;
use std::{io, path::PathBuf, process};

/// Where the value of a key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An option of the command line, with its dashes.
    Option(String),
    /// An environment variable.
    Variable(String),
    /// A configuration file.
    File(PathBuf),
    /// Nobody set it.
    Default,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Option(option) => f.write_str(option),
            Origin::Variable(variable) => f.write_str(variable),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// Why a configuration could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A bad value on the command line.
    #[error("invalid value {value:?} for option {option}: {reason}")]
    BadOption {
        /// The option with its dashes.
        option: String,
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A bad value in an environment variable.
    #[error("invalid value {value:?} of environment variable {variable}: {reason}")]
    BadVariable {
        /// The variable.
        variable: String,
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A bad value in a configuration file.
    #[error(
        "invalid value of key \"{key}\" in configuration file {path}, line {line}, column {column}: {reason}\n{excerpt}",
        path = path.display(), line = excerpt.line(), column = excerpt.column()
    )]
    BadKey {
        /// The key.
        key: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with its value.
        reason: String,
        /// The value in its line.
        excerpt: Box<Excerpt>,
    },
    /// A configuration file that is not TOML.
    #[error(
        "could not parse configuration file {path}, line {line}, column {column}: {reason}\n{excerpt}",
        path = path.display(), line = excerpt.line(), column = excerpt.column()
    )]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser stumbled over.
        reason: String,
        /// The spot.
        excerpt: Box<Excerpt>,
    },
    /// A configuration file that cannot be read.
    #[error("could not read configuration file {path}: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a program ends before it has started: it was only asked to print something, or its
/// configuration is bad.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// `--help` or `--version`, or an error in the use of the command line.
    #[error(transparent)]
    CommandLine(Box<clap::Error>),
    /// `--print-config`; the text ends with a newline.
    #[error("{0}")]
    PrintConfig(String),
    /// A bad configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Stop {
    /// 0 for what was asked for, 1 for a bad configuration, 2 for errors in usage.
    pub fn exit_code(&self) -> i32 {
        match self {
            Stop::CommandLine(error) => error.exit_code(),
            Stop::PrintConfig(_) => 0,
            Stop::Config(_) => 1,
        }
    }

    /// Prints what there is to print, to stdout if it was asked for and otherwise to stderr.
    /// A closed stream is nobody's problem.
    pub fn print(&self) {
        use io::Write;
        let _ = match self {
            Stop::CommandLine(error) => error.print(),
            Stop::PrintConfig(text) => io::stdout().write_all(text.as_bytes()),
            Stop::Config(error) => writeln!(io::stderr(), "Error: {error}"),
        };
    }

    /// Prints and ends the process.
    pub fn exit(&self) -> ! {
        self.print();
        process::exit(self.exit_code())
    }
}
