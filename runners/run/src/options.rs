//! The command line and the configuration values.

use crate::{escape::EscapeChar, input::CommandLine};
use clap::{Arg, ArgAction, ArgGroup, Command, value_parser};
use maelstrom_runner::config::{
    self, ClientValues, ClusterValues, Loaded, LogLevel, LogValues, MAELSTROM_RUN,
};
use maelstrom_runner::mesh::MeshChoice;
use std::path::PathBuf;

maelstrom_runner::config_values! {
    /// Values of `maelstrom-run` alone.
    pub struct RunValues {
        /// Where layers are kept.
        pub cache_root: PathBuf [
            value_name("PATH"),
            default_with(|environment| environment.cache_home().join("maelstrom/run").into()),
        ],
        /// The character that starts an escape sequence of --tty: a character such as ~, caret
        /// notation such as ^], or a backslash form such as \x1d.
        pub escape_char: EscapeChar [value_name("CHARACTER"), default("^]")],
    }
}

type Values = (LogValues, ClientValues, ClusterValues, RunValues);

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Run all jobs of the input.
    Batch,
    /// Run the first and end like it.
    One,
    /// Run the first on this terminal.
    Tty,
    /// Say whether this machine can run jobs.
    Check,
}

/// All that was asked for.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    pub(crate) file: Option<PathBuf>,
    pub(crate) command_line: Option<CommandLine>,
    pub(crate) log_level: LogLevel,
    pub(crate) broker: Option<String>,
    pub(crate) mesh: Option<MeshChoice>,
    pub(crate) cache_root: PathBuf,
    pub(crate) cache_size_bytes: u64,
    pub(crate) inline_limit_bytes: u64,
    pub(crate) slots: usize,
    pub(crate) escape_char: EscapeChar,
    pub(crate) image_depot_root: PathBuf,
    pub(crate) accept_invalid_tls_certs: bool,
}

impl Options {
    /// Loads everything, or ends the process if that is all there is to do.
    pub(crate) fn load_or_exit() -> Options {
        config::load_or_exit::<Values>(&MAELSTROM_RUN, arguments).into()
    }
}

fn arguments(command: Command) -> Command {
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    command
        .arg(
            Arg::new("file")
                .short('f')
                .long("file")
                .value_name("PATH")
                .value_parser(value_parser!(PathBuf))
                .help("Read specifications from this file instead of standard input."),
        )
        .arg(
            flag("one")
                .short('1')
                .help("Run one job, and end with its exit code or signal."),
        )
        .arg(
            flag("tty")
                .short('t')
                .help("Run one job interactively on this terminal."),
        )
        .arg(flag("check").help(
            "Say whether this machine can run jobs, and what to do where it cannot; run none.",
        ))
        .group(ArgGroup::new("mode").args(["one", "tty", "check"]))
        .group(ArgGroup::new("single").args(["one", "tty"]).multiple(true))
        .arg(
            Arg::new("program")
                .value_name("COMMAND")
                .num_args(0..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .requires("single")
                .help("Program and arguments to run instead of those of the job; with --one or --tty."),
        )
}

impl From<Loaded<Values>> for Options {
    fn from(loaded: Loaded<Values>) -> Self {
        let (log, client, _cluster, run) = loaded.values;
        let matches = &loaded.matches;
        let mut words = matches
            .get_many::<String>("program")
            .into_iter()
            .flatten()
            .cloned();
        Options {
            mode: match () {
                () if matches.get_flag("one") => Mode::One,
                () if matches.get_flag("tty") => Mode::Tty,
                () if matches.get_flag("check") => Mode::Check,
                () => Mode::Batch,
            },
            file: matches.get_one("file").cloned(),
            command_line: words.next().map(|program| CommandLine {
                program,
                arguments: words.collect(),
            }),
            log_level: log.log_level,
            mesh: MeshChoice::new(&client),
            broker: client.broker.map(|broker| broker.text),
            cache_root: run.cache_root,
            cache_size_bytes: client.cache_size.0,
            inline_limit_bytes: client.inline_limit.0,
            slots: client.slots.count(),
            escape_char: run.escape_char,
            image_depot_root: client.container_image_depot_root,
            accept_invalid_tls_certs: client.accept_invalid_remote_container_tls_certs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maelstrom_runner::config::{Environment, Stop};
    use std::ffi::OsString;

    fn load(line: &str) -> Result<Options, Stop> {
        let arguments = line.split_whitespace().map(OsString::from);
        let no_files = ["maelstrom-run", "-c", "-"].map(OsString::from);
        config::load::<Values>(
            &MAELSTROM_RUN,
            super::arguments,
            no_files.into_iter().chain(arguments),
            &Environment::default(),
        )
        .map(Options::from)
    }

    #[test]
    fn modes() {
        for (line, mode, file, words) in [
            ("", Mode::Batch, None, None),
            ("-f x.json", Mode::Batch, Some("x.json"), None),
            ("-1", Mode::One, None, None),
            ("--one --file x", Mode::One, Some("x"), None),
            (
                "--one sh -c true -t --one",
                Mode::One,
                None,
                Some("sh -c true -t --one"),
            ),
            ("--tty -- -x", Mode::Tty, None, Some("-x")),
            ("-t sh", Mode::Tty, None, Some("sh")),
            ("--check", Mode::Check, None, None),
        ] {
            let options = load(line).unwrap_or_else(|stop| panic!("{line}: {stop}"));
            assert_eq!(options.mode, mode, "{line}");
            assert_eq!(options.file, file.map(PathBuf::from), "{line}");
            let got = options
                .command_line
                .map(|c| [vec![c.program], c.arguments].concat().join(" "));
            assert_eq!(got.as_deref(), words, "{line}");
        }
    }

    #[test]
    fn usage_errors() {
        for line in [
            "sh",
            "--one --tty",
            "--check --one",
            "--check sh",
            "--file",
            "--nonsense",
        ] {
            let stop = load(line).expect_err(line);
            assert_eq!(stop.exit_code(), 2, "{line}: {stop}");
        }
    }

    #[test]
    fn values() {
        let options = load("").unwrap();
        assert_eq!(options.escape_char, EscapeChar(0x1d));
        assert_eq!(options.inline_limit_bytes, 1_000_000);
        assert!(options.cache_root.ends_with("maelstrom/run"));
        let options = load("--escape-char ~ --slots 3 --cache-root /c --cache-size 1kB").unwrap();
        assert_eq!(options.escape_char, EscapeChar(b'~'));
        assert_eq!((options.slots, options.cache_size_bytes), (3, 1000));
        assert_eq!(options.cache_root, PathBuf::from("/c"));
        assert_eq!(
            load("--escape-char ab")
                .expect_err("two characters")
                .exit_code(),
            1
        );
    }
}
