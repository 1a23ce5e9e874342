//! The command line: Maelstrom's options, and what users of pytest type.

use anyhow::Result;
use clap::{Arg, ArgAction, Command, builder::ValueParser};
use maelstrom_runner::{
    config::{self, ClientValues, ClusterValues, Loaded, LogValues, TestRunnerValues},
    runner::{Mode, Settings},
};

maelstrom_runner::config_values! {
    /// Values of maelstrom-pytest alone.
    pub(crate) struct PytestValues {
        /// Collect tests from this installed module instead of from files.
        pub(crate) collect_from_module: Option<String> [value_name("MODULE"), unset_means("collect from files")],
        /// Arguments for pytest when it collects and when it runs tests.
        pub(crate) extra_pytest_args: Vec<String> [value_name("ARG")],
        /// Arguments for pytest when it collects tests.
        pub(crate) extra_pytest_collect_args: Vec<String> [value_name("ARG")],
        /// Start a fresh interpreter for every test, instead of one that imports everything once and
        /// forks for each test.
        pub(crate) no_template: bool,
        /// Report tests as passed, without running them, that passed before with the same interpreter,
        /// packages, files, arguments and environment.
        pub(crate) cached: bool,
        /// Arguments for pytest when it runs tests.
        pub(crate) extra_pytest_test_args: Vec<String> [trailing(), value_name("ARGS")],
    }
}

type Values = (
    LogValues,
    ClientValues,
    ClusterValues,
    TestRunnerValues,
    PytestValues,
);

/// Everything that the command line and the configuration say.
pub(crate) struct Cli {
    pub(crate) settings: Settings,
    pub(crate) arguments: PytestArguments,
}

/// What pytest is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PytestArguments {
    /// When it collects and when it runs tests.
    pub(crate) always: Vec<String>,
    /// When it collects: what selects tests.
    pub(crate) select: Vec<String>,
    /// When it collects: the rest.
    pub(crate) collect: Vec<String>,
    /// When it runs tests.
    pub(crate) test: Vec<String>,
    /// Whether every test gets a fresh interpreter.
    pub(crate) fresh_interpreters: bool,
}

/// Reads the command line and the configuration of this process, or ends it.
pub(crate) fn load_or_exit() -> Result<Cli> {
    let loaded = config::load_or_exit::<Values>(&config::MAELSTROM_PYTEST, extend);
    Ok(Cli::new(loaded))
}

fn extend(command: Command) -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::SetTrue)
            .help(help)
    };
    let list = |name: &'static str, short: char, value: &'static str, help: &'static str| {
        Arg::new(name)
            .short(short)
            .action(ArgAction::Append)
            .value_name(value)
            .value_parser(ValueParser::string())
            .help(help)
            .help_heading("Which tests")
    };
    command
        .override_usage("maelstrom-pytest [OPTIONS] [FILE|DIRECTORY|NODE_ID]... [-- ARGS...]")
        .arg(
            Arg::new("paths")
                .value_name("FILE|DIRECTORY|NODE_ID")
                .action(ArgAction::Append)
                .value_parser(ValueParser::string())
                .help("Collect only what is here, as pytest does.")
                .help_heading("Which tests"),
        )
        .arg(
            list(
                "keyword",
                'k',
                "EXPRESSION",
                "Run only tests whose names match, as pytest does.",
            )
            .allow_hyphen_values(true),
        )
        .arg(
            list(
                "markexpr",
                'm',
                "EXPRESSION",
                "Run only tests whose markers match, as pytest does.",
            )
            .allow_hyphen_values(true),
        )
        .arg(
            list(
                "deselect",
                'd',
                "NODE_ID",
                "Leave out tests whose node ids start so, as pytest does.",
            )
            .short(None)
            .long("deselect"),
        )
        .arg(
            list(
                "include",
                'i',
                "PATTERN",
                "Run only tests that this pattern matches, or another one given so.",
            )
            .long("include"),
        )
        .arg(
            list(
                "exclude",
                'x',
                "PATTERN",
                "Leave out tests that this pattern matches.",
            )
            .long("exclude"),
        )
        .arg(flag("watch", "Run again whenever the project changes.").short('w'))
        .arg(
            flag("init", "Write a maelstrom-pytest.toml to start from.")
                .conflicts_with("list")
                .conflicts_with("watch"),
        )
        .arg(
            flag(
                "list",
                "Print the names of the tests instead of running them.",
            )
            .short('l')
            .visible_alias("list-tests"),
        )
}

impl Cli {
    fn new(loaded: Loaded<Values>) -> Cli {
        let Loaded {
            values: (log, client, _, test_runner, pytest),
            matches,
        } = loaded;
        let mut settings = Settings::new(log.log_level, client, &test_runner);
        settings.cached = pytest.cached;
        settings.watch = matches.get_flag("watch");
        settings.include = config::strings(&matches, "include");
        settings.exclude = config::strings(&matches, "exclude");
        settings.mode = if matches.get_flag("init") {
            Mode::Init
        } else if matches.get_flag("list") {
            Mode::ListTests
        } else {
            Mode::Run
        };
        let mut select = Vec::new();
        for (name, option) in [
            ("keyword", "-k"),
            ("markexpr", "-m"),
            ("deselect", "--deselect"),
        ] {
            for value in config::strings(&matches, name) {
                select.extend([option.to_owned(), value]);
            }
        }
        if let Some(module) = pytest.collect_from_module {
            select.extend(["--pyargs".to_owned(), module]);
        }
        select.extend(config::strings(&matches, "paths"));
        Cli {
            settings,
            arguments: PytestArguments {
                always: pytest.extra_pytest_args,
                select,
                collect: pytest.extra_pytest_collect_args,
                test: pytest.extra_pytest_test_args,
                fresh_interpreters: pytest.no_template,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maelstrom_runner::config::Environment;
    use std::ffi::OsString;

    fn load(arguments: &[&str]) -> Result<Cli, config::Stop> {
        let arguments = ["maelstrom-pytest"]
            .iter()
            .chain(arguments)
            .map(OsString::from);
        let environment = Environment::from_variables([("HOME", "/nonexistent")]);
        config::load::<Values>(&config::MAELSTROM_PYTEST, extend, arguments, &environment)
            .map(Cli::new)
    }

    #[test]
    fn the_command_line_of_pytest_works() {
        let cli = load(&[
            "tests/test_a.py::TestX::test_one[a-b]",
            "-k",
            "not slow",
            "-m=db",
            "--deselect",
            "tests/b.py",
            "tests",
            "--extra-pytest-args",
            "-p",
            "--extra-pytest-args=no:randomly",
            "--extra-pytest-collect-args",
            "--strict-markers",
            "--no-template",
            "--",
            "--tb=short",
        ])
        .ok()
        .unwrap();
        assert_eq!(
            cli.arguments,
            PytestArguments {
                always: vec!["-p".into(), "no:randomly".into()],
                select: [
                    "-k",
                    "not slow",
                    "-m",
                    "db",
                    "--deselect",
                    "tests/b.py",
                    "tests/test_a.py::TestX::test_one[a-b]",
                    "tests",
                ]
                .map(str::to_owned)
                .into(),
                collect: vec!["--strict-markers".into()],
                test: vec!["--tb=short".into()],
                fresh_interpreters: true,
            }
        );
        assert_eq!(cli.settings.mode, Mode::Run);
    }

    #[test]
    fn modes() {
        for (arguments, mode) in [
            (&["--list"][..], Mode::ListTests),
            (&["-l"], Mode::ListTests),
            (&["--init"], Mode::Init),
        ] {
            assert_eq!(
                load(arguments).ok().unwrap().settings.mode,
                mode,
                "{arguments:?}"
            );
        }
        for arguments in [
            &["--init", "--list"][..],
            &["--nonsense"],
            &["--list-packages"],
        ] {
            assert!(
                matches!(load(arguments), Err(config::Stop::CommandLine(_))),
                "{arguments:?}"
            );
        }
    }
}
