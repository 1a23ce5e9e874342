mod types;

use super::*;
use crate::size::ByteSize;
use std::{fs, path::PathBuf};
use tempfile::TempDir;

crate::config_values! {
    struct Own {
        /// Comma-separated features
        /// to activate.
        features: Option<String> [short('F'), joined_by(',')],
        /// Activate all features.
        all_features: bool,
        /// Which manifest.
        manifest_path: Option<PathBuf>,
        /// Arguments for pytest.
        extra_pytest_args: Vec<String>,
        /// Arguments for test binaries.
        extra_test_binary_args: Vec<String> [value_name("ARGS"), trailing()],
    }
}

type Values = (
    LogValues,
    ClientValues,
    ClusterValues,
    TestRunnerValues,
    Own,
);

/// A home directory with configuration files, and variables.
struct World {
    home: TempDir,
    variables: Vec<(String, String)>,
    program: Program,
}

impl World {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().to_str().unwrap().to_owned();
        World {
            variables: vec![
                ("HOME".into(), path.clone()),
                (
                    "XDG_CONFIG_DIRS".into(),
                    format!("{path}/xdg1:relative:{path}/xdg2"),
                ),
            ],
            home,
            program: CARGO_MAELSTROM,
        }
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    fn file(self, path: &str, text: &str) -> Self {
        let path = self.home.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// The most important configuration file.
    fn config(self, text: &str) -> Self {
        let path = format!(
            ".config/{}/config.toml",
            self.program.config_subdirectories[0]
        );
        self.file(&path, text)
    }

    fn load(&self, arguments: &[&str]) -> Result<Loaded<Values>, Stop> {
        let program = [self.program.name];
        let arguments = program.iter().chain(arguments).map(OsString::from);
        let environment = Environment::from_variables(self.variables.clone());
        load(&self.program, |command| command, arguments, &environment)
    }

    fn values(&self, arguments: &[&str]) -> Values {
        self.load(arguments)
            .unwrap_or_else(|stop| panic!("{stop}"))
            .values
    }

    /// The error, with the home directory's path replaced.
    fn error(&self, arguments: &[&str], exit_code: i32) -> String {
        let stop = self.load(arguments).expect_err("bad configuration");
        assert_eq!(stop.exit_code(), exit_code, "{stop}");
        stop.to_string()
            .replace(self.home.path().to_str().unwrap(), "~")
    }
}

fn slots(values: &Values) -> usize {
    values.1.slots.count()
}

#[test]
fn the_first_source_that_has_a_key_decides() {
    let mut world = World::new();
    let shared = "maelstrom/cargo-maelstrom/config.toml";
    world = world.file(&format!("xdg2/{shared}"), "slots = 6");
    assert_eq!(slots(&world.values(&[])), 6);
    world = world.file(&format!("xdg1/{shared}"), "slots = 5\nrepeat = 9");
    assert_eq!(slots(&world.values(&[])), 5);
    world = world.config("slots = 4");
    assert_eq!(slots(&world.values(&[])), 4);
    world = world.variable("MAELSTROM_SLOTS", "3");
    assert_eq!(slots(&world.values(&[])), 3);
    world = world.variable("CARGO_MAELSTROM_SLOTS", "2");
    assert_eq!(slots(&world.values(&[])), 2);
    assert_eq!(slots(&world.values(&["--slots", "1"])), 1);
    assert_eq!(slots(&world.values(&["--slots=1"])), 1);
    // Every key by itself.
    assert_eq!(world.values(&[]).3.repeat.get(), 9);
}

#[test]
fn a_bad_value_is_not_passed_over() {
    let world = World::new()
        .config("slots = 4")
        .variable("MAELSTROM_SLOTS", "3")
        .variable("CARGO_MAELSTROM_SLOTS", "");
    assert_eq!(
        world.error(&[], 1),
        "invalid value \"\" of environment variable CARGO_MAELSTROM_SLOTS: \
         expected a whole number from 1 to 1000"
    );
    assert_eq!(
        world.error(&["--slots", "0"], 1),
        "invalid value \"0\" for option --slots: expected a whole number from 1 to 1000"
    );
}

#[test]
fn defaults_are_those_of_the_contract() {
    let world = World::new();
    let (log, client, cluster, runner, own) = world.values(&[]);
    assert_eq!(log.log_level, LogLevel::Info);
    assert_eq!(client.broker, None);
    assert_eq!(client.cache_size, ByteSize(1_000_000_000));
    assert_eq!(client.inline_limit, ByteSize(1_000_000));
    let processors = std::thread::available_parallelism().unwrap().get();
    assert_eq!(client.slots.count(), processors.min(1000));
    assert_eq!(
        client.container_image_depot_root,
        world.home.path().join(".cache/maelstrom/container/")
    );
    assert!(!client.accept_invalid_remote_container_tls_certs);
    assert_eq!(
        cluster.cluster_communication_strategy,
        ClusterCommunicationStrategy::Tcp
    );
    assert_eq!(cluster.github_actions_url, None);
    assert_eq!(runner.ui, UiStyle::Auto);
    assert_eq!(runner.repeat.get(), 1);
    assert_eq!((runner.stop_after, runner.timeout), (None, None));
    assert_eq!((own.features, own.all_features), (None, false));
    assert_eq!(own.extra_test_binary_args, Vec::<String>::new());

    let world = World::new().variable("XDG_CACHE_HOME", "/c");
    let depot = world.values(&[]).1.container_image_depot_root;
    assert_eq!(depot, PathBuf::from("/c/maelstrom/container/"));
}

#[test]
fn every_program_has_its_own_variables_and_files() {
    for (program, prefix, subdirectories) in [
        (
            CARGO_MAELSTROM,
            "CARGO_MAELSTROM_",
            &["maelstrom/cargo-maelstrom"][..],
        ),
        (
            MAELSTROM_GO_TEST,
            "MAELSTROM_GO_TEST_",
            &["maelstrom/maelstrom-go-test", "maelstrom/go-test"],
        ),
        (
            MAELSTROM_PYTEST,
            "MAELSTROM_PYTEST_",
            &["maelstrom/maelstrom-pytest", "maelstrom/pytest"],
        ),
        (MAELSTROM_RUN, "MAELSTROM_RUN_", &["maelstrom/run"]),
        (MAELSTROM_NODE, "MAELSTROM_NODE_", &["maelstrom/node"]),
        (MAELSTROM_BROKER, "MAELSTROM_BROKER_", &["maelstrom/broker"]),
        (MAELSTROM_WORKER, "MAELSTROM_WORKER_", &["maelstrom/worker"]),
        (MAELSTROM_ADMIN, "MAELSTROM_ADMIN_", &["maelstrom/admin"]),
    ] {
        let world = World {
            program,
            ..World::new()
        }
        .variable(
            &format!("{prefix}ACCEPT_INVALID_REMOTE_CONTAINER_TLS_CERTS"),
            "true",
        );
        assert!(
            world
                .values(&[])
                .1
                .accept_invalid_remote_container_tls_certs
        );
        for (slots, subdirectory) in (1..).zip(subdirectories) {
            let world = World {
                program,
                ..World::new()
            }
            .file(
                &format!(".config/{subdirectory}/config.toml"),
                &format!("slots = {slots}"),
            );
            assert_eq!(world.values(&[]).1.slots.count(), slots);
        }
    }
}

#[test]
fn the_spelling_of_the_program_goes_before_that_of_the_manual() {
    let world = World {
        program: MAELSTROM_PYTEST,
        ..World::new()
    }
    .file(
        ".config/maelstrom/pytest/config.toml",
        "slots = 1\nrepeat = 7",
    )
    .file(
        ".config/maelstrom/maelstrom-pytest/config.toml",
        "slots = 2",
    );
    let values = world.values(&[]);
    assert_eq!((slots(&values), values.3.repeat.get()), (2, 7));
}

#[test]
fn generic_variables_work_for_every_key() {
    let world = World::new().variable("MAELSTROM_MANIFEST_PATH", "x/Cargo.toml");
    assert_eq!(
        world.values(&[]).4.manifest_path,
        Some("x/Cargo.toml".into())
    );
}

#[test]
fn config_file_replaces_the_search_list() {
    let world = World::new()
        .config("slots = 1\nrepeat = 5")
        .file("other.toml", "slots = 2");
    let other = world.home.path().join("other.toml");
    for arguments in [
        ["--config-file", other.to_str().unwrap()],
        ["-c", other.to_str().unwrap()],
    ] {
        let values = world.values(&arguments);
        assert_eq!((slots(&values), values.3.repeat.get()), (2, 1));
    }
    assert_eq!(world.values(&["-c", "-"]).3.repeat.get(), 1);
    assert_eq!(
        world.error(&["-c", "/nonexistent/config.toml"], 1),
        "could not read configuration file /nonexistent/config.toml: No such file or directory (os error 2)"
    );
}

#[test]
fn files_of_the_search_list_that_exist_have_to_be_good() {
    let world = World::new().config("slots = 1").file(
        "xdg2/maelstrom/cargo-maelstrom/config.toml",
        "a = 1\nb = = 2\n",
    );
    assert_eq!(
        world.error(&[], 1),
        "could not parse configuration file ~/xdg2/maelstrom/cargo-maelstrom/config.toml, \
         line 2, column 5: extra `=`, expected nothing\n  |\n2 | b = = 2\n  |     ^"
    );
    let world = World::new().file(".config/maelstrom/cargo-maelstrom/config.toml/x", "");
    assert_eq!(
        world.error(&[], 1),
        "could not read configuration file ~/.config/maelstrom/cargo-maelstrom/config.toml: \
         Is a directory (os error 21)"
    );
    // A file where a directory would be is as good as no file.
    World::new().file(".config/maelstrom", "").values(&[]);
}

#[test]
fn unknown_keys_are_ignored_and_bad_values_only_matter_where_they_are_used() {
    let world = World::new().config("slots = \"many\"\nunknown = 3\nquiet = true\n[table]\nx = 1");
    assert_eq!(slots(&world.values(&["--slots=3"])), 3);
    assert_eq!(
        world.error(&[], 1),
        "invalid value of key \"slots\" in configuration file ~/.config/maelstrom/cargo-maelstrom/config.toml, \
         line 1, column 9: expected a whole number from 1 to 1000, found a string\n  \
           |\n1 | slots = \"many\"\n  |         ^^^^^^"
    );
}

#[test]
fn errors_in_usage_exit_with_2() {
    for arguments in [
        &["--unknown"][..],
        &["--slots"],
        &["--slots", "1", "--slots", "2"],
        &["--all-features", "--all-features"],
        &["--all-features=maybe"],
        &["stray"],
        &["--no-slots"],
        &["-c", "-", "-c", "-"],
    ] {
        World::new().error(arguments, 2);
    }
}

#[test]
fn help_shows_defaults_variables_and_files() {
    let world = World::new();
    let help = world.error(&["--help"], 0);
    assert_eq!(help, world.error(&["-h"], 0));
    // Lines are wrapped to the width of the terminal.
    let flat = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "Usage: cargo maelstrom [OPTIONS]",
        "-r, --repeat <COUNT> Run every test this many times. [default: 1] \
         [env: CARGO_MAELSTROM_REPEAT, MAELSTROM_REPEAT] [alias: --loop]",
        "[one of: error, warning, info, debug] [default: info]",
        "Comma-separated features to activate. [default: unset]",
        "[default: run everything on this machine]",
        "~/.config/maelstrom/cargo-maelstrom/config.toml ~/xdg1/maelstrom/cargo-maelstrom/config.toml \
         ~/xdg2/maelstrom/cargo-maelstrom/config.toml",
        "--no-broker",
    ] {
        assert!(flat.contains(part), "{part:?} not in {help}");
    }
    for hidden in ["github", "cluster", "--no-all-features"] {
        assert!(!help.contains(hidden), "{hidden:?} in {help}");
    }
}

#[test]
fn version_has_no_short_form() {
    let version = World::new().error(&["--version"], 0);
    assert_eq!(
        version,
        format!("cargo-maelstrom {}\n", env!("CARGO_PKG_VERSION"))
    );
    World::new().error(&["-V"], 2);
    World::new().error(&["-v"], 2);
}

#[test]
fn print_config_shows_values_and_their_origins() {
    let world = World::new()
        .config("cache-size = '2 GiB'\nslots = 2")
        .variable("MAELSTROM_REPEAT", "4")
        .variable("XDG_CACHE_HOME", "/c")
        .variable("MAELSTROM_GITHUB_ACTIONS_TOKEN", "hunter2");
    let arguments = ["-P", "-F", "a b", "--broker", "127.0.0.1:9"];
    let file = "~/.config/maelstrom/cargo-maelstrom/config.toml";
    assert_eq!(
        world.error(&arguments, 0),
        format!(
            "cargo-maelstrom configuration {{
    log_level: Info, // default
    broker: Some(127.0.0.1:9), // --broker
    mesh: false, // default
    join: [], // default
    mesh_key: None, // default
    cache_size: 2.1 GB, // {file}
    inline_limit: 1.0 MB, // default
    slots: 2, // {file}
    container_image_depot_root: \"/c/maelstrom/container/\", // default
    accept_invalid_remote_container_tls_certs: false, // default
    cluster_communication_strategy: Tcp, // default
    github_actions_token: Some(***), // MAELSTROM_GITHUB_ACTIONS_TOKEN
    github_actions_url: None, // default
    ui: Auto, // default
    repeat: 4, // MAELSTROM_REPEAT
    stop_after: None, // default
    timeout: None, // default
    features: Some(\"a b\"), // --features
    all_features: false, // default
    manifest_path: None, // default
    extra_pytest_args: [], // default
    extra_test_binary_args: [], // default
}}
"
        )
    );
    let error = world.error(&["-P", "--slots=x"], 1);
    assert!(error.contains("--slots"), "{error}");
}

#[test]
fn cargos_inserted_word_is_dropped() {
    let flat = |arguments: &[&str]| {
        command::without_cargo_subcommand(arguments.iter().map(OsString::from))
            .join(OsStr::new(" "))
    };
    let bin = "/home/me/.cargo/bin/cargo-maelstrom";
    assert_eq!(
        flat(&[bin, "maelstrom", "maelstrom", "-w"]),
        format!("{bin} maelstrom -w").as_str()
    );
    assert_eq!(
        flat(&[bin, "-w", "maelstrom"]),
        format!("{bin} -w maelstrom").as_str()
    );
    assert_eq!(flat(&["maelstrom-run", "run"]), "maelstrom-run run");
    assert_eq!(flat(&[]), "");
}

#[test]
fn programs_add_arguments_of_their_own() {
    let environment = Environment::default();
    let loaded = load::<Values>(
        &CARGO_MAELSTROM,
        |command| command.arg(clap::Arg::new("name")),
        ["cargo-maelstrom", "maelstrom", "my_test", "--", "x"].map(OsString::from),
        &environment,
    )
    .unwrap();
    assert_eq!(loaded.matches.get_one::<String>("name").unwrap(), "my_test");
    assert_eq!(loaded.values.4.extra_test_binary_args, ["x"]);
}

#[test]
fn a_file_that_never_ends_is_refused() {
    let error = World::new().error(&["-c", "/dev/zero"], 1);
    assert!(error.contains("larger than 16 MiB"), "{error}");
}

#[test]
fn deep_nesting_is_an_error() {
    let error = World::new()
        .config(&format!("a = {}", "[".repeat(100_000)))
        .error(&[], 1);
    assert!(
        error.starts_with("could not parse configuration file"),
        "{error}"
    );
}

proptest::proptest! {
    #[test]
    fn no_file_and_no_variable_panics(file: String, line in "(slots|broker|features|repeat|cache-size) = .{0,12}", variable: String) {
        let variable = variable.replace('\0', "");
        for text in [&file, &line] {
            let world = World::new().config(text).variable("MAELSTROM_EXTRA_PYTEST_ARGS", &variable);
            let _ = world.load(&[]).map_err(|stop| stop.to_string());
        }
    }
}
