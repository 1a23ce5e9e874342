//! Values of all types from all sources.

use super::*;

#[test]
fn types_in_files() {
    let values = World::new()
        .config(
            "log-level = 'debug'\nui = 'quiet'\ncache-size = 2_000\ninline-limit = '1.5 kB'\nslots = 0x10\n\
             repeat = 2\nstop-after = 3\ntimeout = 0\nall-features = true\nmanifest-path = 'm'\n\
             extra-pytest-args = ['-k', 'a or b']\nextra-test-binary-args = []\nbroker = '127.0.0.1:9000'",
        )
        .values(&[]);
    let (log, client, _, runner, own) = values;
    assert_eq!(log.log_level, LogLevel::Debug);
    assert_eq!(client.cache_size, ByteSize(2000));
    assert_eq!(client.inline_limit, ByteSize(1500));
    assert_eq!(client.slots.count(), 16);
    assert_eq!(
        client.broker.unwrap().address,
        "127.0.0.1:9000".parse().unwrap()
    );
    assert_eq!(runner.ui, UiStyle::Quiet);
    assert_eq!(runner.stop_after.unwrap().get(), 3);
    assert_eq!(runner.timeout, Some(Seconds(0)));
    assert_eq!(runner.timeout.unwrap().as_limit(), None);
    assert!(own.all_features);
    assert_eq!(own.extra_pytest_args, ["-k", "a or b"]);

    for (line, reason) in [
        ("slots = 1001", "expected a whole number from 1 to 1000"),
        (
            "slots = 1.5",
            "expected a whole number from 1 to 1000, found a float",
        ),
        ("cache-size = -1", "a size cannot be negative"),
        (
            "cache-size = true",
            "expected an integer or a string, found a boolean",
        ),
        ("cache-size = '1 XB'", "unknown unit `XB`"),
        (
            "all-features = 'true'",
            "expected `true` or `false`, found a string",
        ),
        (
            "extra-pytest-args = 'x'",
            "expected an array of strings, found a string",
        ),
        (
            "extra-pytest-args = [1]",
            "expected an array of strings, found an integer",
        ),
        (
            "log-level = 'warn'",
            "expected one of error, warning, info, debug",
        ),
        ("features = ['a']", "expected a string, found an array"),
        ("repeat = 0", "expected a whole number from 1 to 4294967295"),
        (
            "timeout = 4294967296",
            "expected a whole number from 0 to 4294967295",
        ),
        (
            "timeout = 99999999999999999999999",
            "expected a whole number from 0",
        ),
        ("broker = 'nowhere'", "expected HOST:PORT"),
    ] {
        let error = World::new().config(line).error(&[], 1);
        assert!(error.contains(reason), "{line}: {error}");
        assert!(error.contains("line 1, column "), "{line}: {error}");
    }
}

#[test]
fn types_in_variables() {
    let world = World::new()
        .variable("MAELSTROM_ALL_FEATURES", "true")
        .variable("MAELSTROM_EXTRA_PYTEST_ARGS", "  -v  --maxfail=1 ")
        .variable("MAELSTROM_EXTRA_TEST_BINARY_ARGS", "")
        .variable("MAELSTROM_FEATURES", "")
        .variable("MAELSTROM_CACHE_SIZE", "1 GiB")
        .variable("MAELSTROM_UI", "simple");
    let (_, client, _, runner, own) = world.values(&[]);
    assert!(own.all_features);
    assert_eq!(own.extra_pytest_args, ["-v", "--maxfail=1"]);
    assert_eq!(own.extra_test_binary_args, Vec::<String>::new());
    assert_eq!(own.features.as_deref(), Some(""));
    assert_eq!(client.cache_size, ByteSize(1 << 30));
    assert_eq!(runner.ui, UiStyle::Simple);

    for text in ["", "1", "True", "yes"] {
        let error = World::new()
            .variable("MAELSTROM_ALL_FEATURES", text)
            .error(&[], 1);
        assert!(
            error.contains("MAELSTROM_ALL_FEATURES: expected `true` or `false`"),
            "{error}"
        );
    }
    let error = World::new().variable("MAELSTROM_REPEAT", "0").error(&[], 1);
    assert!(error.contains("MAELSTROM_REPEAT"), "{error}");
}

#[test]
fn list_elements_in_variables_can_have_blanks() {
    for (text, elements) in [
        (r#"["-k", "a or b"]"#, &["-k", "a or b"][..]),
        (r#"["a"] ["b"]"#, &[r#"["a"]"#, r#"["b"]"#]),
        (r#"[] x"#, &["[]", "x"]),
        (r#"["a", 1, "b"]"#, &[r#"["a","#, "1,", r#""b"]"#]),
        ("a\tb c", &["a\tb", "c"]),
    ] {
        let world = World::new().variable("MAELSTROM_EXTRA_PYTEST_ARGS", text);
        assert_eq!(world.values(&[]).4.extra_pytest_args, elements);
    }
}

#[test]
fn types_on_the_command_line() {
    let (log, client, _, runner, own) = World::new().values(&[
        "-L",
        "error",
        "--loop",
        "3",
        "-s2",
        "-t",
        "10",
        "-b",
        "[::1]:80",
        "-F",
        "a",
        "-F",
        "b,c",
        "--all-features",
        "--extra-pytest-args",
        "-v",
        "--extra-pytest-args=a b",
        "--",
        "-x",
        "--",
        "y",
    ]);
    assert_eq!(log.log_level, LogLevel::Error);
    assert_eq!(client.broker.unwrap().address, "[::1]:80".parse().unwrap());
    assert_eq!(runner.repeat.get(), 3);
    assert_eq!(runner.stop_after.unwrap().get(), 2);
    assert_eq!(runner.timeout.unwrap().as_limit().unwrap().as_secs(), 10);
    assert_eq!(own.features.as_deref(), Some("a,b,c"));
    assert!(own.all_features);
    assert_eq!(own.extra_pytest_args, ["-v", "a b"]);
    assert_eq!(own.extra_test_binary_args, ["-x", "--", "y"]);
}

#[test]
fn names_are_resolved_while_loading() {
    let broker = World::new()
        .values(&["--broker=localhost:7"])
        .1
        .broker
        .unwrap();
    assert!(broker.address.ip().is_loopback());
    assert_eq!(broker.text, "localhost:7");
    for text in ["x", ":7", "host:", "host:99999", "::1", ""] {
        let error = World::new().error(&[&format!("--broker={text}")], 1);
        assert!(error.contains("expected HOST:PORT"), "{text}: {error}");
    }
    let error = World::new().error(&["--broker=no such host:1"], 1);
    assert!(error.contains("could not resolve it"), "{error}");
}

#[test]
fn an_empty_list_in_a_variable_hides_the_files() {
    let world = World::new()
        .config("extra-pytest-args = ['-v']")
        .variable("MAELSTROM_EXTRA_PYTEST_ARGS", "");
    assert_eq!(world.values(&[]).4.extra_pytest_args, Vec::<String>::new());
}

#[test]
fn what_lower_sources_set_can_be_taken_back() {
    let world = World::new().config(
        "broker = '127.0.0.1:1'\nall-features = true\nextra-pytest-args = ['x']\nextra-test-binary-args = ['y']",
    );
    assert!(!world.values(&["--all-features=false"]).4.all_features);
    assert!(world.values(&["--all-features=true"]).4.all_features);
    assert!(!world.values(&["--no-all-features"]).4.all_features);
    assert_eq!(world.values(&["--no-broker"]).1.broker, None);
    let own = world
        .values(&["--no-extra-pytest-args", "--no-extra-test-binary-args"])
        .4;
    assert_eq!(
        (
            own.extra_pytest_args.len(),
            own.extra_test_binary_args.len()
        ),
        (0, 0)
    );
    // Nothing after the dashes is nothing said.
    assert_eq!(world.values(&["--"]).4.extra_test_binary_args, ["y"]);
    world.error(&["--no-broker", "--broker=127.0.0.1:2"], 2);
}
