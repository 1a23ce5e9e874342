//! The programs, their variable prefixes and the places of their configuration files.

/// What tells the configuration of one program from that of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Name of the executable.
    pub name: &'static str,
    /// One line for `--help`.
    pub about: &'static str,
    /// What `--version` prints after the name.
    pub version: &'static str,
    /// Beginning of its own environment variables, with the underscore.
    pub variable_prefix: &'static str,
    /// Directories of its `config.toml` below each configuration directory, first come first
    /// served. Two where Maelstrom's program and its manual spell it differently.
    pub config_subdirectories: &'static [&'static str],
}

impl Program {
    const fn new(
        name: &'static str,
        about: &'static str,
        variable_prefix: &'static str,
        config_subdirectories: &'static [&'static str],
    ) -> Self {
        Program {
            name,
            about,
            version: env!("CARGO_PKG_VERSION"),
            variable_prefix,
            config_subdirectories,
        }
    }

    /// How people call it: `cargo maelstrom` for `cargo-maelstrom`.
    pub fn command_line_name(&self) -> String {
        match self.name.strip_prefix("cargo-") {
            Some(subcommand) => format!("cargo {subcommand}"),
            None => self.name.to_owned(),
        }
    }

    /// Its own variable for a key in kebab case.
    pub(crate) fn own_variable(&self, key: &str) -> String {
        format!("{}{}", self.variable_prefix, screaming(key))
    }
}

/// The variable that all programs look at for a key in kebab case.
pub(crate) fn generic_variable(key: &str) -> String {
    format!("MAELSTROM_{}", screaming(key))
}

fn screaming(key: &str) -> String {
    key.replace('-', "_").to_ascii_uppercase()
}

/// `cargo maelstrom`.
pub const CARGO_MAELSTROM: Program = Program::new(
    "cargo-maelstrom",
    "Runs Cargo tests, each in a container of its own.",
    "CARGO_MAELSTROM_",
    &["maelstrom/cargo-maelstrom"],
);

/// `maelstrom-go-test`.
pub const MAELSTROM_GO_TEST: Program = Program::new(
    "maelstrom-go-test",
    "Runs Go tests, each in a container of its own.",
    "MAELSTROM_GO_TEST_",
    &["maelstrom/maelstrom-go-test", "maelstrom/go-test"],
);

/// `maelstrom-pytest`.
pub const MAELSTROM_PYTEST: Program = Program::new(
    "maelstrom-pytest",
    "Runs pytest tests, each in a container of its own.",
    "MAELSTROM_PYTEST_",
    &["maelstrom/maelstrom-pytest", "maelstrom/pytest"],
);

/// `maelstrom-run`.
pub const MAELSTROM_RUN: Program = Program::new(
    "maelstrom-run",
    "Runs arbitrary programs, each in a container of its own.",
    "MAELSTROM_RUN_",
    &["maelstrom/run"],
);

/// `maelstrom-node`.
pub const MAELSTROM_NODE: Program = Program::new(
    "maelstrom-node",
    "Lends this machine to the mesh and runs jobs for its clients.",
    "MAELSTROM_NODE_",
    &["maelstrom/node"],
);

/// `maelstrom-broker`.
pub const MAELSTROM_BROKER: Program = Program::new(
    "maelstrom-broker",
    "Gives clients and workers an address to meet at.",
    "MAELSTROM_BROKER_",
    &["maelstrom/broker"],
);

/// `maelstrom-worker`.
pub const MAELSTROM_WORKER: Program = Program::new(
    "maelstrom-worker",
    "Runs jobs for clients.",
    "MAELSTROM_WORKER_",
    &["maelstrom/worker"],
);

/// `maelstrom-admin`.
pub const MAELSTROM_ADMIN: Program = Program::new(
    "maelstrom-admin",
    "Looks after a running cluster.",
    "MAELSTROM_ADMIN_",
    &["maelstrom/admin"],
);
