use super::*;
use crate::filter::{CARGO, GO, PYTEST, Pattern};
use maelstrom_spec::{EnvironmentElement, ImageUse, LayerSpec, Mount};
use proptest::prelude::*;

/// A stand-in for the filter language: the beginning of a test's name; `!` is an error.
fn parse_filter(text: &str) -> Result<String, Problem> {
    match text.find('!') {
        Some(at) => Err(Problem::new(at..at + 1, "unexpected `!`")),
        None => Ok(text.to_owned()),
    }
}

fn options() -> MetadataOptions {
    MetadataOptions {
        template_variables: [("build-dir".to_owned(), "/t/debug".to_owned())].into(),
        predefined_containers: ["cargo-test", "go-test", "pytest"]
            .map(|name| (name.to_owned(), stub_container("predefined")))
            .into(),
    }
}

fn parse(text: &str) -> Result<Metadata<String>, SourceError> {
    Metadata::parse("m.toml", text, &options(), parse_filter)
}

fn configuration(text: &str, test: &str) -> TestConfiguration {
    let metadata = parse(text).unwrap_or_else(|error| panic!("{error}"));
    metadata.configuration(|filter| test.starts_with(&**filter))
}

fn stub(name: &str) -> LayerSpec {
    LayerSpec::Stubs {
        stubs: vec![name.into()],
    }
}

fn stub_container(name: &str) -> ContainerSpec {
    ContainerSpec {
        layers: vec![stub(name)],
        ..ContainerSpec::default()
    }
}

#[test]
fn an_empty_file_gives_an_empty_container() {
    for text in ["", "# nothing\n", "[containers]\n", "directives = []\n"] {
        assert_eq!(
            configuration(text, "t"),
            TestConfiguration {
                container: ContainerSpec::default(),
                include_shared_libraries: true,
                timeout: None,
                ignore: false,
                outputs: vec![],
            }
        );
    }
}

#[test]
fn matching_directives_apply_in_file_order() {
    let text = r#"
        [[directives]]
        timeout = 5
        user = 1
        group = 1

        [[directives]]
        filter = "net"
        timeout = 0
        user = 2
        outputs = ["a", "b"]

        [[directives]]
        filter = "net::slow"
        ignore = true
        include_shared_libraries = false
        timeout = 9
        outputs = ["c"]
    "#;
    let other = configuration(text, "fs");
    assert_eq!(other.timeout, Some(Duration::from_secs(5)));
    assert_eq!(other.container.user, Some(1));
    assert!(!other.ignore && other.include_shared_libraries);

    let net = configuration(text, "net::fast");
    assert_eq!(net.timeout, None);
    assert_eq!(
        (net.container.user, net.container.group),
        (Some(2), Some(1))
    );
    assert_eq!(net.outputs, ["a", "b"]);

    let slow = configuration(text, "net::slow");
    assert_eq!(slow.timeout, Some(Duration::from_secs(9)));
    assert!(slow.ignore && !slow.include_shared_libraries);
    assert_eq!(slow.outputs, ["c"]);
}

#[test]
fn without_a_parent_lists_are_replaced_or_appended_to() {
    let text = r#"
        [[directives]]
        added_layers = [{ stubs = ["1"] }]
        added_environment = { A = "1" }
        mounts = [{ type = "tmp", mount_point = "/1" }]

        [[directives]]
        filter = "more"
        added_layers = [{ stubs = ["2"] }]
        added_environment = { A = "2" }
        added_mounts = [{ type = "tmp", mount_point = "/2" }]

        [[directives]]
        filter = "more::other"
        layers = [{ stubs = ["3"] }]
        added_layers = [{ stubs = ["4"] }]
        environment = { B = "3" }
        mounts = []
    "#;
    let vars = |name: &str, value: &str| EnvironmentElement {
        vars: [(name.to_owned(), value.to_owned())].into(),
        extend: true,
    };
    let tmp = |at: &str| Mount::Tmp {
        mount_point: at.into(),
    };
    let more = configuration(text, "more").container;
    assert_eq!(more.layers, [stub("1"), stub("2")]);
    assert_eq!(more.environment, [vars("A", "1"), vars("A", "2")]);
    assert_eq!(more.mounts, [tmp("/1"), tmp("/2")]);

    let other = configuration(text, "more::other").container;
    assert_eq!(other.layers, [stub("3"), stub("4")]);
    assert_eq!(other.environment, [vars("B", "3")]);
    assert_eq!(other.mounts, []);
}

#[test]
fn a_parent_resets_the_container_and_nothing_else() {
    let text = r#"
        [containers.base]
        layers = [{ stubs = ["base"] }]

        [[directives]]
        layers = [{ stubs = ["1"] }]
        user = 1
        network = "loopback"
        timeout = 5
        ignore = true
        include_shared_libraries = false
        outputs = ["o"]

        [[directives]]
        filter = "x"
        parent = "base"
        group = 7

        [[directives]]
        filter = "x::y"
        layers = [{ stubs = ["2"] }]
        group = 8
    "#;
    let got = configuration(text, "x");
    assert_eq!(got.timeout, Some(Duration::from_secs(5)));
    assert!(got.ignore && !got.include_shared_libraries);
    assert_eq!(got.outputs, ["o"]);
    let members = |without: &[ContainerUse]| {
        let mut members = std::collections::BTreeSet::from(ContainerUse::ALL);
        members.retain(|member| !without.contains(member));
        Some(ContainerParent::Container {
            name: "base".into(),
            members,
        })
    };
    assert_eq!(
        got.container,
        ContainerSpec {
            parent: members(&[ContainerUse::Group]),
            group: Some(7),
            ..ContainerSpec::default()
        }
    );
    // A directive without a parent leaves the candidate's parent and what is used of it alone.
    let got = configuration(text, "x::y");
    assert_eq!(
        got.container,
        ContainerSpec {
            parent: members(&[ContainerUse::Group]),
            layers: vec![stub("2")],
            group: Some(8),
            ..ContainerSpec::default()
        }
    );
}

#[test]
fn directives_with_a_parent_follow_the_strict_rules() {
    for (keys, expected) in [
        (
            "parent = 'cargo-test'\nlayers = []\nadded_layers = []",
            "cannot be used together",
        ),
        (
            "parent = { name = 'cargo-test', use = ['user'] }\nuser = 1",
            "`user` is set although",
        ),
        (
            "image = 'docker://i'\nadded_mounts = []",
            "has no mounts to add to",
        ),
    ] {
        let error = parse(&format!("[[directives]]\n{keys}\n")).unwrap_err();
        assert!(error.message().contains(expected), "{error}");
        assert_eq!(error.line(), 1 + keys.lines().count());
    }
}

#[test]
fn shared_libraries_are_left_out_when_layers_come_from_an_image() {
    let containers = r#"
        [containers.image]
        image = "docker://i"
        [containers.image-without-layers]
        image = { name = "docker://i", use = ["environment"] }
        [containers.child]
        parent = "image"
        [containers.own-layers]
        parent = "image"
        layers = []
    "#;
    for (directive, expected) in [
        ("image = 'docker://i'", false),
        (
            "image = { name = 'docker://i', use = ['environment'] }",
            true,
        ),
        ("image = 'docker://i'\nlayers = []", true),
        ("parent = 'image'", false),
        ("parent = 'child'", false),
        ("parent = { name = 'child', use = ['user'] }", true),
        ("parent = 'image-without-layers'", true),
        ("parent = 'own-layers'", true),
        ("parent = 'cargo-test'", true),
        (
            "image = 'docker://i'\ninclude_shared_libraries = true",
            true,
        ),
        ("user = 1\ninclude_shared_libraries = false", false),
    ] {
        let got = configuration(&format!("{containers}\n[[directives]]\n{directive}\n"), "t");
        assert_eq!(got.include_shared_libraries, expected, "{directive}");
    }
}

#[test]
fn definitions_of_the_file_win_over_predefined_ones() {
    let layers = |text: &str| {
        parse(text).unwrap().containers()["cargo-test"]
            .layers
            .clone()
    };
    assert_eq!(layers(""), [stub("predefined")]);
    assert_eq!(
        layers("[containers.cargo-test]\nlayers = [{ stubs = ['mine'] }]"),
        [stub("mine")]
    );
    let error = parse("[containers.cargo-test]\nparent = 'cargo-test'\n").unwrap_err();
    assert_eq!((error.line(), error.column()), (2, 10));
    assert!(
        error.help().unwrap().contains("choose another name"),
        "{error}"
    );
}

#[test]
fn ancestors_that_give_layers_are_known() {
    let metadata = parse("containers.a.parent = 'cargo-test'\ncontainers.b.user = 1").unwrap();
    let child_of = |name: &str, members: &[ContainerUse]| ContainerSpec {
        parent: Some(ContainerParent::Container {
            name: name.into(),
            members: members.iter().copied().collect(),
        }),
        ..ContainerSpec::default()
    };
    let inherits =
        |name, members| metadata.inherits_layers_from(&child_of(name, members), "cargo-test");
    assert!(inherits("a", &ContainerUse::ALL));
    assert!(inherits("cargo-test", &ContainerUse::ALL));
    assert!(!inherits("a", &[ContainerUse::User]));
    assert!(!inherits("b", &ContainerUse::ALL));
}

#[test]
fn templates_are_expanded_in_containers_and_directives() {
    let layers = "layers = [{ tar = '<build-dir>/x.tar' }]";
    let text = format!("[containers.c]\n{layers}\n[[directives]]\n{layers}\n");
    let expected = [LayerSpec::Tar {
        path: "/t/debug/x.tar".into(),
    }];
    assert_eq!(configuration(&text, "t").container.layers, expected);
    assert_eq!(parse(&text).unwrap().containers()["c"].layers, expected);
}

#[test]
fn mistakes() {
    for (text, line, column, message, help) in [
        ("a = \n", 1, 5, "", ""),
        (
            "user = 1",
            1,
            1,
            "unknown key `user` in a metadata file",
            "known keys are `containers`, `directives`",
        ),
        (
            "[container.x]\n",
            1,
            2,
            "unknown key `container` in a metadata file",
            "did you mean `containers`?",
        ),
        (
            "containers = 1",
            1,
            14,
            "expected a table, found an integer",
            "",
        ),
        (
            "[containers]\nx = 1",
            2,
            5,
            "expected a container (a table), found an integer",
            "",
        ),
        (
            "[directives]\nuser = 1",
            1,
            1,
            "expected a list, found a table",
            "a directive starts with `[[directives]]`",
        ),
        (
            "directives = [1]",
            1,
            15,
            "expected a directive (a table), found an integer",
            "",
        ),
        (
            "[[directives]]\nfilters = 'x'",
            2,
            1,
            "unknown key `filters` in a directive",
            "did you mean `filter`?",
        ),
        (
            "[[directives]]\nfilter = 1",
            2,
            10,
            "expected a string, found an integer",
            "",
        ),
        (
            "[[directives]]\nfilter = 'ab!'",
            2,
            13,
            "unexpected `!`",
            "",
        ),
        (
            "[[directives]]\nfilter = \"\"\"\na\\\n  b\n!\"\"\"",
            5,
            1,
            "unexpected `!`",
            "",
        ),
        (
            "[[directives]]\nignore = 1",
            2,
            10,
            "expected true or false, found an integer",
            "",
        ),
        (
            "[[directives]]\ntimeout = 4294967296",
            2,
            11,
            "4294967296 is out of range: expected an integer from 0 to 4294967295",
            "",
        ),
        (
            "[[directives]]\npriority = 1",
            2,
            1,
            "unknown key `priority` in a directive",
            "known keys are",
        ),
        (
            "[[directives]]\noutputs = 'x'",
            2,
            11,
            "expected a list, found a string",
            "",
        ),
        (
            "[[directives]]\nlayers = [{ tar = '<dir>' }]",
            2,
            19,
            "unknown template variable <dir>",
            "known are `build-dir` (a literal",
        ),
        (
            "[[directives]]\nparent = 'cargo-tests'",
            2,
            10,
            "unknown container \"cargo-tests\"",
            "did you mean `cargo-test`?",
        ),
        (
            "[[directives]]\nparent = 'a'\n[containers.a]\nparent = 'zzz'",
            4,
            10,
            "unknown container \"zzz\", named as the parent of container \"a\"",
            "the containers are `a`, `cargo-test`",
        ),
        (
            "[[directives]]\nimage = 'python'",
            2,
            9,
            "bad image name \"python\": no scheme; for an image in a registry write \"docker://python\"",
            "",
        ),
        (
            "[[directives]]\nparent = 'a'\n[containers.a]\nimage = 'python'",
            4,
            9,
            "bad image name \"python\"",
            "",
        ),
        (
            "[containers]\na.parent = 'b'\nb.parent = 'a'",
            2,
            12,
            "containers inherit from each other in a loop: \"a\" -> \"b\" -> \"a\"",
            "",
        ),
        (
            "[containers]\nin.parent = 'b'\na.parent = 'b'\nb.parent = 'b'",
            4,
            12,
            "containers inherit from each other in a loop: \"b\" -> \"b\"",
            "",
        ),
    ] {
        let error = parse(text).map(|_| ()).expect_err(text);
        assert_eq!(
            (error.line(), error.column()),
            (line, column),
            "{text}\n{error}"
        );
        assert!(error.message().starts_with(message), "{text}\n{error}");
        assert!(
            error.help().unwrap_or_default().starts_with(help),
            "{text}\n{error}"
        );
        assert!(
            !help.is_empty() || error.help().is_none(),
            "{text}\n{error}"
        );
    }
}

#[test]
fn unused_containers_may_have_unknown_parents() {
    assert!(parse("[containers.a]\nparent = 'zzz'\n").is_ok());
    assert!(parse("[[directives]]\nparent = { name = 'zzz', use = [] }\n").is_ok());
}

#[test]
fn files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.toml");
    let load = || Metadata::load(&path, &options(), parse_filter);
    assert!(load().unwrap().is_none());

    std::fs::write(&path, "[[directives]]\nuser = 1\n").unwrap();
    let metadata = load().unwrap().unwrap();
    assert_eq!(metadata.configuration(|_| true).container.user, Some(1));

    std::fs::write(&path, b"ok = 1\nbad = '\xff'\n").unwrap();
    let error = load().unwrap_err().to_string();
    assert!(
        error.contains("m.toml:2:8: the file is not valid UTF-8"),
        "{error}"
    );

    std::fs::write(&path, "x").unwrap();
    let error = load().unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("{}:1:", path.display())),
        "{error}"
    );

    std::fs::File::create(&path)
        .unwrap()
        .set_len(MAX_FILE_BYTES + 1)
        .unwrap();
    let error = load().unwrap_err().to_string();
    assert!(error.contains("larger than 16 MiB"), "{error}");

    let error = Metadata::load(directory.path(), &options(), parse_filter).unwrap_err();
    assert!(error.to_string().starts_with("reading /"), "{error}");
}

/// The default of Go, which that of pytest shares and that of Cargo shows as an alternative.
fn assert_nearly_empty(container: &ContainerSpec) {
    let stubs = LayerSpec::Stubs {
        stubs: vec![
            "/{proc,sys,tmp}/".into(),
            "/dev/{full,null,random,urandom,zero}".into(),
        ],
    };
    assert_eq!(container.layers.last(), Some(&stubs));
    let names = ["full", "null", "random", "urandom", "zero"];
    match &container.mounts[..] {
        [
            Mount::Tmp { mount_point: tmp },
            Mount::Proc { mount_point: proc },
            Mount::Sys { mount_point: sys },
            Mount::Devices { devices },
        ] => {
            assert_eq!(
                (tmp.to_str(), proc.to_str(), sys.to_str()),
                (Some("/tmp"), Some("/proc"), Some("/sys"))
            );
            assert!(devices.iter().map(|device| device.name()).eq(names));
        }
        other => panic!("{other:?}"),
    }
}

/// What a commented directive becomes when its comment signs are taken away.
fn uncomment(text: &str) -> String {
    text.lines()
        .map(|line| {
            line.strip_prefix("# ")
                .or(line.strip_prefix('#'))
                .unwrap_or(line)
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn default_of_cargo() {
    let got = configuration(CARGO_DEFAULT, "t");
    let metadata = parse(CARGO_DEFAULT).unwrap();
    assert!(metadata.inherits_layers_from(&got.container, "cargo-test"));
    assert_eq!(got.container.layers, []);

    let (_, alternative) = CARGO_DEFAULT
        .split_once("# Replace the first directive by this one:\n#\n")
        .unwrap();
    let got = configuration(&uncomment(alternative), "t").container;
    assert_nearly_empty(&got);
    assert_eq!(got.layers.len(), 1);
    let vars = &got.environment[0].vars;
    assert_eq!(vars["RUST_BACKTRACE"], "$env{RUST_BACKTRACE:-0}");
    assert_eq!(vars["RUST_LIB_BACKTRACE"], "$env{RUST_LIB_BACKTRACE:-0}");
    assert_eq!(vars.len(), 2);
}

#[test]
fn default_of_go() {
    let got = configuration(GO_DEFAULT, "t");
    let metadata = parse(GO_DEFAULT).unwrap();
    assert!(metadata.inherits_layers_from(&got.container, "go-test"));
    assert!(metadata.inherits_from(&got.container, "go-test"));
    assert!(!metadata.inherits_from(&got.container, "cargo-test"));

    let (_, alternative) = GO_DEFAULT
        .split_once("Replace the first directive by this one:\n#\n")
        .unwrap();
    let got = configuration(&uncomment(alternative), "t").container;
    assert_nearly_empty(&got);
    assert_eq!(got.layers.len(), 1);
    assert_eq!((got.parent, got.environment), (None, vec![]));
}

#[test]
fn default_of_pytest() {
    let got = configuration(PYTEST_DEFAULT, "t");
    let metadata = parse(PYTEST_DEFAULT).unwrap();
    assert!(metadata.inherits_layers_from(&got.container, "pytest"));
    assert_eq!(got.container.layers, []);

    let (_, alternative) = PYTEST_DEFAULT
        .split_once("# Replace the first directive by this one:\n#\n")
        .unwrap();
    let got = configuration(&uncomment(alternative), "t").container;
    assert_nearly_empty(&got);
    let glob = |glob: &str| LayerSpec::Glob {
        glob: glob.into(),
        prefix_options: maelstrom_spec::PrefixOptions::default(),
    };
    assert_eq!(
        got.layers[..2],
        [glob("**.{py,pyc,pyi}"), glob("pyproject.toml")]
    );
    assert_eq!(
        got.parent,
        Some(ContainerParent::Image {
            name: "docker://python:3.12.3-slim".into(),
            members: ImageUse::ALL.into(),
        })
    );
    assert_eq!(
        got.environment[0].vars["PYTEST_XDIST_AUTO_NUM_WORKERS"],
        "1"
    );
    assert!(got.environment[0].extend);
}

#[test]
fn bad_patterns_are_marked_where_they_stand() {
    let text = "[[directives]]\nfilter = 'all && name.equals'\n";
    let parse = |text: &str| Ok(Pattern::parse(text, &CARGO)?);
    let error = Metadata::parse("m.toml", text, &options(), parse).unwrap_err();
    assert_eq!(error.line(), 2);
    assert_eq!(error.column(), "filter = 'all && name.equals'".len());
}

#[test]
fn examples_in_the_defaults_are_well_formed() {
    for (text, dialect) in [
        (CARGO_DEFAULT, &CARGO),
        (GO_DEFAULT, &GO),
        (PYTEST_DEFAULT, &PYTEST),
    ] {
        let parse = |text: &str| {
            Metadata::parse("example", text, &options(), |pattern| {
                Ok(Pattern::parse(pattern, dialect)?)
            })
        };
        let mut examples = 0;
        for block in text
            .split("\n\n")
            .filter(|block| block.contains("\n# [[directives]]"))
        {
            let (_, example) = block.split_once("\n#\n").unwrap();
            parse(&uncomment(example)).unwrap_or_else(|error| panic!("{error}"));
            examples += 1;
        }
        assert!(examples >= 2);
    }
}

/// Text made of the words that metadata files are made of.
fn near_metadata() -> impl Strategy<Value = String> {
    let words = vec![
        "[[directives]]",
        "[containers.a]",
        "[containers.b]",
        "\n",
        "=",
        "filter",
        "parent",
        "image",
        "'a'",
        "'b'",
        "'!'",
        "{ name = 'a', use = ['layers'] }",
        "layers",
        "added_layers",
        "[{ stubs = ['<x>'] }]",
        "timeout",
        "user",
        "1",
        "é",
        "'''",
        "environment",
        "{ A = '1' }",
    ];
    proptest::collection::vec(proptest::sample::select(words), 0..30).prop_map(|w| w.join(" "))
}

proptest! {
    #[test]
    fn nothing_panics(text in prop_oneof![".*", near_metadata()]) {
        match parse(&text) {
            Ok(metadata) => {
                metadata.configuration(|_| true);
            }
            Err(error) => {
                let _ = error.to_string();
            }
        }
    }
}
