//! The command line: Maelstrom's options, and what users of `cargo test` type.

use crate::{artifact::Invocation, libtest::HarnessArguments, options::CargoOptions};
use anyhow::{Context as _, Result};
use clap::{Arg, ArgAction, ArgMatches, Command, builder::ValueParser};
use maelstrom_runner::{
    config::{
        self, ClientValues, ClusterValues, Loaded, LogValues, Scalar as _, Slots, TestRunnerValues,
    },
    runner::{Mode, Settings},
};
use std::{ffi::OsString, path::PathBuf};

maelstrom_runner::config_values! {
    /// Values of cargo-maelstrom alone.
    pub(crate) struct CargoValues {
        /// Features to activate, separated by commas.
        pub(crate) features: Option<String> [short('F'), joined_by(','), value_name("FEATURES"), unset_means("Cargo's")],
        /// Activate all features.
        pub(crate) all_features: bool,
        /// Do not activate the default features.
        pub(crate) no_default_features: bool,
        /// Build with this profile.
        pub(crate) profile: Option<String> [value_name("NAME"), unset_means("Cargo's")],
        /// Build for this platform.
        pub(crate) target: Option<String> [value_name("TRIPLE"), unset_means("Cargo's")],
        /// Build in this directory.
        pub(crate) target_dir: Option<PathBuf> [value_name("PATH"), unset_means("Cargo's")],
        /// Path of the `Cargo.toml` of the package or workspace.
        pub(crate) manifest_path: Option<PathBuf> [value_name("PATH"), unset_means("Cargo's")],
        /// Like `--locked` and `--offline` together.
        pub(crate) frozen: bool,
        /// Fail if `Cargo.lock` would change.
        pub(crate) locked: bool,
        /// Do not use the network.
        pub(crate) offline: bool,
        /// Report tests as passed, without running them, that passed before with the same binary,
        /// files, arguments and environment.
        pub(crate) cached: bool,
        /// Arguments for every test binary. Those that select tests, such as `--skip` and names, select
        /// tests here.
        pub(crate) extra_test_binary_args: Vec<String> [trailing(), value_name("ARGS")],
    }
}

type Values = (
    LogValues,
    ClientValues,
    ClusterValues,
    TestRunnerValues,
    CargoValues,
);

/// Options that say which targets are built, as Cargo has them.
const TARGET_FLAGS: [(&str, &str); 6] = [
    ("lib", "Test only the packages' libraries."),
    ("bins", "Test all binaries."),
    ("tests", "Test all targets that are tested by default."),
    ("examples", "Test all examples."),
    ("benches", "Test all benchmarks, each run once."),
    ("all-targets", "Test all targets, benchmarks included."),
];

/// The same with names.
const TARGET_NAMES: [(&str, &str); 4] = [
    ("bin", "Test only this binary."),
    ("test", "Test only this integration test."),
    ("example", "Test only this example."),
    ("bench", "Test only this benchmark."),
];

/// Everything that the command line and the configuration say.
pub(crate) struct Cli {
    pub(crate) settings: Settings,
    pub(crate) options: CargoOptions,
    pub(crate) invocation: Invocation,
    /// Package specifications of `--package`.
    pub(crate) packages: Vec<String>,
}

/// Reads the command line and the configuration of this process, or ends it.
pub(crate) fn load_or_exit() -> Result<Cli> {
    let loaded = config::load_or_exit::<Values>(&config::CARGO_MAELSTROM, extend);
    Cli::new(loaded)
}

fn extend(command: Command) -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::SetTrue)
            .help(help)
    };
    let list = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::Append)
            .value_name(value)
            .value_parser(ValueParser::string())
            .help(help)
    };
    let selecting = "Which tests";
    let cargo = "What Cargo builds";
    let modes = ["list-tests", "list-packages", "list-binaries"];
    command
        .override_usage("cargo maelstrom [OPTIONS] [TESTNAME] [-- ARGS...]")
        .arg(
            Arg::new("name")
                .value_name("TESTNAME")
                .value_parser(ValueParser::string())
                .help("Run only tests whose names contain this.")
                .help_heading(selecting),
        )
        .arg(
            list("include", "PATTERN", "Run only tests that this pattern matches, or another one given so.")
                .short('i')
                .help_heading(selecting),
        )
        .arg(
            list(
                "exclude",
                "PATTERN|PACKAGE",
                "Leave out tests that this pattern matches. What is no pattern is the name of a package to leave out.",
            )
            .short('x')
            .help_heading(selecting),
        )
        .arg(
            list("package", "SPEC", "Test only this package, or another one given so.")
                .short('p')
                .help_heading(selecting),
        )
        .arg(
            flag("workspace", "Test all packages of the workspace, which is the default.")
                .visible_alias("all")
                .help_heading(selecting),
        )
        .arg(flag("release", "Build with optimizations.").conflicts_with("profile").help_heading(cargo))
        .arg(
            Arg::new("jobs")
                .long("jobs")
                .short('j')
                .value_name("COUNT")
                .value_parser(ValueParser::string())
                .allow_hyphen_values(true)
                .help("How many jobs Cargo runs at once.")
                .help_heading(cargo),
        )
        .args(TARGET_FLAGS.map(|(name, help)| flag(name, help).help_heading(cargo)))
        .args(TARGET_NAMES.map(|(name, help)| {
            list(name, "NAME", help).help_heading(cargo)
        }))
        .arg(flag("no-fail-fast", "Run all tests whatever fails, which is the default.").hide(true))
        .arg(flag("watch", "Run again whenever the project changes.").short('w'))
        .arg(
            flag("init", "Write a cargo-maelstrom.toml to start from.")
                .conflicts_with_all(modes)
                .conflicts_with("watch"),
        )
        .arg(
            flag("list-tests", "Print the names of the tests instead of running them.")
                .short('l')
                .visible_alias("list")
                .conflicts_with_all(["list-packages", "list-binaries"]),
        )
        .arg(flag("list-packages", "Print the names of the packages.").conflicts_with("list-binaries"))
        .arg(flag("list-binaries", "Print the names of the test binaries."))
}

impl Cli {
    fn new(loaded: Loaded<Values>) -> Result<Cli> {
        let Loaded {
            values: (log, mut client, _, test_runner, cargo),
            matches,
        } = loaded;
        let name = matches.get_one::<String>("name").map(String::as_str);
        let harness = HarnessArguments::parse(name, &cargo.extra_test_binary_args)?;
        if let Some(threads) = harness.threads
            && threads < client.slots.count()
        {
            // Whoever asks for one thread wants one test at a time.
            let slots = Slots::from_text(threads.to_string().as_ref());
            client.slots = slots
                .map_err(anyhow::Error::msg)
                .context("the test argument `--test-threads`")?;
        }
        let mut settings = Settings::new(log.log_level, client, &test_runner);
        settings.watch = matches.get_flag("watch");
        settings.cached = cargo.cached;
        settings.include = config::strings(&matches, "include");
        settings.exclude = config::strings(&matches, "exclude");
        settings.mode = if matches.get_flag("init") {
            Mode::Init
        } else if matches.get_flag("list-packages") {
            Mode::ListPackages
        } else if matches.get_flag("list-binaries") {
            Mode::ListBinaries
        } else if matches.get_flag("list-tests") || harness.list {
            Mode::ListTests
        } else {
            Mode::Run
        };
        let raw = name
            .map(str::to_owned)
            .into_iter()
            .chain(cargo.extra_test_binary_args.iter().cloned());
        let invocation = Invocation {
            raw: raw.collect(),
            harness,
        };
        let packages = config::strings(&matches, "package");
        Ok(Cli {
            settings,
            options: cargo_options(cargo, &matches),
            invocation,
            packages,
        })
    }
}

fn cargo_options(values: CargoValues, matches: &ArgMatches) -> CargoOptions {
    let mut targets: Vec<OsString> = Vec::new();
    for (name, _) in TARGET_FLAGS {
        if matches.get_flag(name) {
            targets.push(format!("--{name}").into());
        }
    }
    for (name, _) in TARGET_NAMES {
        for value in config::strings(matches, name) {
            targets.extend([format!("--{name}").into(), value.into()]);
        }
    }
    CargoOptions {
        features: values.features.into_iter().collect(),
        all_features: values.all_features,
        no_default_features: values.no_default_features,
        profile: values.profile,
        release: matches.get_flag("release"),
        target: values.target,
        target_dir: values.target_dir,
        manifest_path: values.manifest_path,
        frozen: values.frozen,
        locked: values.locked,
        offline: values.offline,
        jobs: matches.get_one::<String>("jobs").cloned(),
        targets,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maelstrom_runner::config::Environment;

    fn cli(arguments: &[&str]) -> Cli {
        let arguments = ["cargo-maelstrom", "maelstrom"]
            .iter()
            .chain(arguments)
            .map(OsString::from);
        let environment = Environment::from_variables([("HOME", "/nonexistent")]);
        let loaded =
            config::load::<Values>(&config::CARGO_MAELSTROM, extend, arguments, &environment);
        Cli::new(loaded.ok().unwrap()).unwrap()
    }

    fn is_usage_error(arguments: &[&str]) -> bool {
        let arguments = ["cargo-maelstrom"]
            .iter()
            .chain(arguments)
            .map(OsString::from);
        let environment = Environment::from_variables([("HOME", "/nonexistent")]);
        let loaded =
            config::load::<Values>(&config::CARGO_MAELSTROM, extend, arguments, &environment);
        matches!(loaded, Err(config::Stop::CommandLine(_)))
    }

    #[test]
    fn the_command_line_of_cargo_test_works() {
        let cli = cli(&[
            "parses",
            "-p",
            "a",
            "--package=b",
            "--workspace",
            "--release",
            "--lib",
            "--bin",
            "tool",
            "--test=it",
            "-j",
            "3",
            "--features",
            "x,y",
            "-F",
            "z",
            "--no-fail-fast",
            "--exclude",
            "c",
            "--",
            "--skip",
            "slow",
            "--test-threads=1",
            "--include-ignored",
        ]);
        assert_eq!(cli.packages, ["a", "b"]);
        assert_eq!(cli.settings.exclude, ["c"]);
        assert_eq!(cli.settings.client.slots.count(), 1);
        assert_eq!(cli.options.features, ["x,y,z"]);
        assert_eq!(
            cli.options.compilation_arguments(),
            [
                "--release",
                "--jobs",
                "3",
                "--lib",
                "--bin",
                "tool",
                "--test",
                "it"
            ]
        );
        assert_eq!(cli.invocation.harness.names, ["parses"]);
        assert_eq!(cli.invocation.harness.skip, ["slow"]);
        assert!(cli.invocation.harness.include_ignored);
        assert_eq!(
            cli.invocation.raw,
            [
                "parses",
                "--skip",
                "slow",
                "--test-threads=1",
                "--include-ignored"
            ]
        );
        assert_eq!(cli.settings.mode, Mode::Run);
    }

    #[test]
    fn modes() {
        for (arguments, mode) in [
            (&["--list"][..], Mode::ListTests),
            (&["-l"], Mode::ListTests),
            (&["--list-tests"], Mode::ListTests),
            (&["--", "--list"], Mode::ListTests),
            (&["--list-packages"], Mode::ListPackages),
            (&["--list-binaries"], Mode::ListBinaries),
            (&["--init"], Mode::Init),
        ] {
            assert_eq!(cli(arguments).settings.mode, mode, "{arguments:?}");
        }
        assert!(cli(&["-w"]).settings.watch);
    }

    #[test]
    fn contradictions_are_usage_errors() {
        for arguments in [
            &["--list", "--list-packages"][..],
            &["--list-binaries", "--list-packages"],
            &["--init", "--list"],
            &["--release", "--profile", "x"],
            &["a", "b"],
            &["--nonsense"],
        ] {
            assert!(is_usage_error(arguments), "{arguments:?}");
        }
    }
}
