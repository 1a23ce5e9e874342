//! The command line: Maelstrom's options, and what users of `go test` type.

use crate::{
    arguments::GoFlags,
    options::{BuildOptions, TestOptions},
};
use anyhow::{Context as _, Result};
use clap::{Arg, ArgAction, Command, builder::ValueParser};
use maelstrom_runner::{
    config::{self, ClientValues, ClusterValues, Environment, Loaded, LogValues, TestRunnerValues},
    runner::{Mode, Settings},
    size::ByteSize,
};
use std::{env, io::Write as _, num::NonZeroU32};

maelstrom_runner::config_values! {
    /// Values of maelstrom-go-test alone.
    pub(crate) struct GoValues {
        /// Which checks `go vet` makes of the packages: a comma list, `all` or `off`.
        pub(crate) vet: Option<String> [value_name("LIST"), unset_means("go test's")],
        /// Tell tests to take less time.
        pub(crate) short: bool,
        /// Show whole paths of files in messages.
        pub(crate) fullpath: bool,
        /// Run tests again that passed before and whose content has not changed.
        pub(crate) no_cache: bool,
        /// Arguments for every test binary.
        pub(crate) extra_test_binary_args: Vec<String> [trailing(), value_name("ARGS")],
    }
}

type Values = (
    LogValues,
    ClientValues,
    ClusterValues,
    TestRunnerValues,
    GoValues,
);

/// How much of what a test writes is kept for `-json`, at least.
const JSON_OUTPUT_BYTES: u64 = 64 << 20;

const GO_FLAGS_HELP: &str = "\
Flags of `go test`, with one dash or two:
  -run, -skip     tests and subtests to run or to leave out, such as -run 'TestX/sub'
  -list REGEXP    print the names of matching tests
  -count N        run each test N times, even if it passed before
  -timeout D      how long a test may run, such as 30s; 0 is for ever [default: 10m]
  -v              show what passing tests wrote
  -json           tell results as `go tool test2json` does
  -failfast       stop after the first failure
  -cover, -coverprofile FILE, -covermode, -coverpkg, -outputdir
                  measure coverage; profiles of all tests are merged
  -parallel, -cpu, -shuffle
                  passed on to every test binary
  -race, -tags, -mod, -ldflags and other flags of the build
                  passed on to `go test`
  -C DIR          change to DIR first
  -args           the same as `--`

-bench and -fuzz are `go test`'s.";

/// Everything that the command line and the configuration say.
pub(crate) struct Cli {
    pub(crate) settings: Settings,
    pub(crate) build: BuildOptions,
    pub(crate) test: TestOptions,
    pub(crate) verbose: bool,
}

/// Reads the command line and the configuration of this process, or ends it.
pub(crate) fn load_or_exit() -> Result<Cli> {
    let (flags, rest) = GoFlags::take(env::args_os()).unwrap_or_else(|error| {
        // If that cannot be told, nothing can.
        let _ = writeln!(
            std::io::stderr(),
            "error: {error:#}\n\nFor more information, try '--help'."
        );
        std::process::exit(2)
    });
    let loaded = config::load::<Values>(
        &config::MAELSTROM_GO_TEST,
        extend,
        rest,
        &Environment::of_process(),
    )
    .unwrap_or_else(|stop| stop.exit());
    if let Some(directory) = &flags.directory {
        env::set_current_dir(directory)
            .with_context(|| format!("changing to the directory {}", directory.display()))?;
    }
    Cli::new(&flags, loaded)
}

fn extend(command: Command) -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::SetTrue)
            .help(help)
    };
    let list = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::Append)
            .value_name("PATTERN")
            .value_parser(ValueParser::string())
            .help(help)
    };
    command
        .override_usage("maelstrom-go-test [OPTIONS] [PACKAGES] [-- ARGS...]")
        .after_help(GO_FLAGS_HELP)
        .arg(
            Arg::new("packages")
                .value_name("PACKAGES")
                .num_args(0..)
                .value_parser(ValueParser::string())
                .help(
                    "Packages to test, such as ./... or example.com/m/p. None: all of the module.",
                ),
        )
        .arg(
            list(
                "include",
                "Run only tests that this pattern matches, or another one given so.",
            )
            .short('i'),
        )
        .arg(list("exclude", "Leave out tests that this pattern matches.").short('x'))
        .arg(flag("watch", "Run again whenever the module changes.").short('w'))
        .arg(
            flag("init", "Write a maelstrom-go-test.toml to start from.").conflicts_with_all([
                "list-tests",
                "list-packages",
                "watch",
            ]),
        )
        .arg(
            flag(
                "list-tests",
                "Print the names of the tests instead of running them.",
            )
            .short('l')
            .visible_alias("list")
            .conflicts_with("list-packages"),
        )
        .arg(flag(
            "list-packages",
            "Print the import paths of the packages.",
        ))
}

impl Cli {
    fn new(flags: &GoFlags, loaded: Loaded<Values>) -> Result<Cli> {
        let Loaded {
            values: (log, client, _, test_runner, go),
            matches,
        } = loaded;
        let mut settings = Settings::new(log.log_level, client, &test_runner);
        settings.watch = matches.get_flag("watch");
        settings.include = config::strings(&matches, "include");
        settings.exclude = config::strings(&matches, "exclude");
        settings.mode = if matches.get_flag("init") {
            Mode::Init
        } else if matches.get_flag("list-packages") {
            Mode::ListPackages
        } else if matches.get_flag("list-tests") || flags.list.is_some() {
            Mode::ListTests
        } else {
            Mode::Run
        };
        if let Some(count) = flags.count.and_then(NonZeroU32::new) {
            settings.repeat = count;
        }
        if flags.json {
            // Subtests are told of by what a test writes, so none of it may be missing.
            let limit = &mut settings.client.inline_limit;
            *limit = ByteSize(limit.bytes().max(JSON_OUTPUT_BYTES));
        }
        if flags.fail_fast {
            settings.stop_after = Some(NonZeroU32::MIN);
        }
        // Whoever says how often means it.
        settings.cached = !go.no_cache && flags.count.is_none();
        let cover_profile = flags.cover_profile.as_ref().map(|profile| {
            let directory = flags.output_directory.clone().unwrap_or_default();
            std::path::absolute(directory.join(profile)).unwrap_or_else(|_| profile.clone())
        });
        let mut build_flags = flags.build.clone();
        build_flags.extend(go.vet.map(|vet| format!("-vet={vet}")));
        build_flags.extend(flags.parallel_builds.map(|count| format!("-p={count}")));
        Ok(Cli {
            build: BuildOptions {
                flags: build_flags,
                patterns: config::strings(&matches, "packages"),
                cover_profile,
                cover: flags.cover,
            },
            test: TestOptions::new(flags, go.short, go.fullpath, go.extra_test_binary_args)?,
            verbose: flags.verbose,
            settings,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{ffi::OsString, path::PathBuf};

    fn cli(arguments: &[&str]) -> Cli {
        let arguments = ["maelstrom-go-test"]
            .iter()
            .chain(arguments)
            .map(OsString::from);
        let (flags, rest) = GoFlags::take(arguments).unwrap();
        let environment = Environment::from_variables([("HOME", "/nonexistent")]);
        let loaded = config::load::<Values>(&config::MAELSTROM_GO_TEST, extend, rest, &environment);
        Cli::new(&flags, loaded.ok().unwrap()).unwrap()
    }

    #[test]
    fn the_command_line_of_go_test_works() {
        let cli = cli(&[
            "-v",
            "-short",
            "-race",
            "-vet=off",
            "-failfast",
            "-coverprofile=c.out",
            "-outputdir=/tmp",
            "./...",
            "example.com/x",
            "-args",
            "-flag",
        ]);
        assert_eq!(cli.build.patterns, ["./...", "example.com/x"]);
        assert_eq!(cli.build.flags, ["-race", "-vet=off"]);
        assert_eq!(cli.build.cover_profile, Some(PathBuf::from("/tmp/c.out")));
        assert!(cli.verbose && cli.build.cover && cli.settings.cached);
        assert_eq!(cli.settings.stop_after, NonZeroU32::new(1));
        let arguments = cli.test.arguments("TestA", "x".into(), false);
        assert!(arguments.contains(&"-test.short=true".to_owned()));
        assert_eq!(arguments.last().unwrap(), "-flag");
    }

    #[test]
    fn modes_and_the_cache() {
        for (arguments, mode, cached) in [
            (&["--list"][..], Mode::ListTests, true),
            (&["-list", "."], Mode::ListTests, true),
            (&["--list-packages"], Mode::ListPackages, true),
            (&["--init"], Mode::Init, true),
            (&["-count=1"], Mode::Run, false),
            (&["--no-cache"], Mode::Run, false),
        ] {
            let cli = cli(arguments);
            assert_eq!(cli.settings.mode, mode, "{arguments:?}");
            assert_eq!(cli.settings.cached, cached, "{arguments:?}");
        }
        assert_eq!(cli(&["-count=3"]).settings.repeat.get(), 3);
    }
}
