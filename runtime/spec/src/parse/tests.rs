use super::*;
use crate::*;
use proptest::prelude::*;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

fn toml_container(text: &str) -> Result<ContainerSpec, SourceError> {
    let parse = |options| {
        let node = parse_toml(text)?;
        let fields = Fields::new(&node, "a container")?;
        fields.allow_only(&[&CONTAINER_KEYS])?;
        ContainerFields::parse(&fields, options)?.into_container()
    };
    parse(ParseOptions::default()).map_err(|problem| Source::new("f", text).error(problem))
}

fn json_job(text: &str) -> Result<JobSpec, SourceError> {
    parse_json(text)
        .and_then(|node| parse_job(&node, ParseOptions::default()))
        .map_err(|problem| Source::new("f", text).error(problem))
}

/// What went wrong: the place, the message, the marked text and the advice, on one line.
fn toml_error(text: &str) -> String {
    let error = toml_container(text).expect_err(text);
    let shown = error.to_string();
    let lines: Vec<&str> = shown.lines().collect();
    let marks = lines[3];
    let marked: String = lines[2]
        .chars()
        .zip(marks.chars())
        .filter(|(_, mark)| *mark == '^')
        .map(|(c, _)| c)
        .collect();
    let help = error.help().map(|help| format!(" | {help}"));
    format!("{} [{marked}]{}", error.message(), help.unwrap_or_default())
}

fn stubs(names: &[&str]) -> LayerSpec {
    LayerSpec::Stubs {
        stubs: names.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn every_field_in_toml() {
    let spec = toml_container(
        r#"
        parent = { name = "base", use = ["layers", "user"], ignored = 1 }
        added_layers = [{ stubs = ["/{proc,tmp}/"] }]
        environment = { A = "1", B = "$env{B}" }
        network = "loopback"
        enable_writable_file_system = true
        working_directory = "/w"
        group = 4294967295

        [[mounts]]
        type = "bind"
        mount_point = "/m"
        local_path = "here"

        [[mounts]]
        type = "devices"
        devices = ["full", "fuse", "null", "random", "shm", "tty", "urandom", "zero"]
        "#,
    );
    assert_eq!(
        spec.unwrap(),
        ContainerSpec {
            parent: Some(ContainerParent::Container {
                name: "base".into(),
                members: [ContainerUse::Layers, ContainerUse::User].into(),
            }),
            layers: vec![stubs(&["/{proc,tmp}/"])],
            environment: vec![EnvironmentElement {
                vars: [("A", "1"), ("B", "$env{B}")]
                    .map(|(name, value)| (name.into(), value.into()))
                    .into(),
                extend: true,
            }],
            mounts: vec![
                Mount::Bind {
                    mount_point: "/m".into(),
                    local_path: "here".into(),
                    read_only: false,
                },
                Mount::Devices {
                    devices: Device::ALL.to_vec(),
                },
            ],
            network: Some(Network::Loopback),
            enable_writable_file_system: Some(true),
            working_directory: Some("/w".into()),
            user: None,
            group: Some(u32::MAX),
        }
    );
}

#[test]
fn every_field_of_a_job_in_json() {
    let job = json_job(
        r#"{
            "program": "sh", "arguments": ["-c", "true"], "timeout": 3, "priority": -128,
            "outputs": ["out/*"],
            "image": "docker://alpine",
            "added_environment": [{ "vars": {"A": "1"}, "extend": false, "ignored": 1 }],
            "mounts": [{ "type": "tmp", "mount_point": "/tmp" }],
            "network": "local", "user": 7, "working_directory": null
        }"#,
    )
    .unwrap();
    assert_eq!(job.program, "sh");
    assert_eq!(job.arguments, ["-c", "true"]);
    assert_eq!(job.timeout, Some(Duration::from_secs(3)));
    assert_eq!(job.priority, -128);
    assert_eq!(job.outputs, ["out/*"]);
    assert_eq!(
        job.container.parent,
        Some(ContainerParent::Image {
            name: "docker://alpine".into(),
            members: ImageUse::ALL.into(),
        })
    );
    assert!(!job.container.environment[0].extend);
    assert_eq!(job.container.network, Some(Network::Local));
    assert_eq!(job.container.user, Some(7));
    assert_eq!(job.container.working_directory, None);

    let job = json_job(r#"{"program": "x", "timeout": 0}"#).unwrap();
    assert_eq!(
        job,
        JobSpec {
            program: "x".into(),
            ..JobSpec::default()
        }
    );
}

#[test]
fn layers() {
    let prefix_options = PrefixOptions {
        follow_symlinks: true,
        canonicalize: true,
        strip_prefix: Some("s".into()),
        prepend_prefix: Some("p".into()),
    };
    let all =
        "follow_symlinks = true, canonicalize = true, strip_prefix = 's', prepend_prefix = 'p'";
    let paths = || vec![PathBuf::from("a"), PathBuf::from("/b")];
    for (text, expected) in [
        (
            "tar = 'a.tar'",
            LayerSpec::Tar {
                path: "a.tar".into(),
            },
        ),
        (
            &format!("glob = '**', {all}"),
            LayerSpec::Glob {
                glob: "**".into(),
                prefix_options: prefix_options.clone(),
            },
        ),
        (
            &format!("paths = ['a', '/b'], {all}"),
            LayerSpec::Paths {
                paths: paths(),
                prefix_options: prefix_options.clone(),
            },
        ),
        (
            &format!("trees = ['a', '/b'], {all}"),
            LayerSpec::Trees {
                trees: paths(),
                prefix_options: prefix_options.clone(),
            },
        ),
        (
            &format!("shared_library_dependencies = ['a', '/b'], {all}"),
            LayerSpec::SharedLibraryDependencies {
                binary_paths: paths(),
                prefix_options: prefix_options.clone(),
            },
        ),
        (
            "shared-library-dependencies = ['a', '/b']",
            LayerSpec::SharedLibraryDependencies {
                binary_paths: paths(),
                prefix_options: PrefixOptions::default(),
            },
        ),
        (
            "programs = ['sh', '/bin/cat']",
            LayerSpec::Programs {
                programs: vec!["sh".into(), "/bin/cat".into()],
            },
        ),
        ("stubs = ['<a>', 'b/']", stubs(&["<a>", "b/"])),
        (
            "symlinks = [{ link = '/l', target = 't' }]",
            LayerSpec::Symlinks {
                symlinks: vec![SymlinkSpec {
                    link: "/l".into(),
                    target: "t".into(),
                }],
            },
        ),
        (
            "command = 'make it'",
            LayerSpec::Command {
                program: "make it".into(),
                arguments: vec![],
            },
        ),
        (
            "command = ['make', 'it']",
            LayerSpec::Command {
                program: "make".into(),
                arguments: vec!["it".into()],
            },
        ),
    ] {
        let spec = toml_container(&format!("layers = [{{ {text} }}]"));
        assert_eq!(spec.unwrap().layers, [expected], "{text}");
    }
}

/// What is left of `use` and of a member, or the error, for each way of setting both.
#[test]
fn rules_for_a_parent_beside_a_list() {
    let lists = [
        ("layers", "[{ stubs = ['x'] }]"),
        ("environment", "{ A = '1' }"),
        ("environment", "[{ vars = { A = '1' }, extend = false }]"),
        ("mounts", "[{ type = 'tmp', mount_point = '/x' }]"),
    ];
    for (member, value) in lists {
        let inherits = |text: String| {
            let spec = toml_container(&text).expect(&text);
            let own = match member {
                "layers" => spec.layers.len(),
                "environment" => spec.environment.len(),
                _ => spec.mounts.len(),
            };
            assert_eq!(own, 1, "{text}");
            match spec.parent {
                Some(ContainerParent::Container { members, .. }) => {
                    members.iter().any(|m| m.name() == member)
                }
                Some(ContainerParent::Image { members, .. }) => {
                    members.iter().any(|m| m.name() == member)
                }
                None => false,
            }
        };
        let error = |text: String| toml_error(&text);

        // No parent.
        assert!(!inherits(format!("{member} = {value}")));
        assert_eq!(
            error(format!("added_{member} = {value}")),
            format!(
                "`added_{member}` without an `image` or a `parent` to add to [added_{member}] | write `{member}`"
            )
        );

        for key in ["parent", "image"] {
            if key == "image" && member == "mounts" {
                continue;
            }
            let implicit = format!("{key} = 'p'\n");
            let with =
                format!("{key} = {{ name = 'p', use = ['working_directory', '{member}'] }}\n");
            let without = format!("{key} = {{ name = 'p', use = ['working_directory'] }}\n");

            assert!(!inherits(format!("{implicit}{member} = {value}")));
            assert!(inherits(format!("{implicit}added_{member} = {value}")));
            assert!(!inherits(format!("{without}{member} = {value}")));
            assert!(inherits(format!("{with}added_{member} = {value}")));
            assert_eq!(
                error(format!("{with}{member} = {value}")),
                format!(
                    "`{member}` is set although the `use` of `{key}` lists \"{member}\" [{member}] | write `added_{member}` to add to what is inherited, or take \"{member}\" out of `use`"
                )
            );
            assert_eq!(
                error(format!("{without}added_{member} = {value}")),
                format!(
                    "`added_{member}` although the `use` of `{key}` does not list \"{member}\" [added_{member}] | write `{member}` to inherit none, or add \"{member}\" to `use`"
                )
            );
            for head in [&implicit, &with, &without] {
                assert!(
                    error(format!(
                        "{head}added_{member} = {value}\n{member} = {value}"
                    ))
                    .starts_with(&format!(
                        "`{member}` and `added_{member}` cannot be used together [added_{member}]"
                    ))
                );
            }
        }
    }
    let mounts = "mounts = [{ type = 'tmp', mount_point = '/x' }]";
    assert_eq!(
        toml_error(&format!("image = 'i'\nadded_{mounts}")),
        "`added_mounts` beside an `image`, which has no mounts to add to [added_mounts] | write `mounts`"
    );
    assert!(toml_container(&format!("image = 'i'\n{mounts}")).is_ok());
}

#[test]
fn rules_for_a_parent_beside_a_scalar() {
    for (member, value) in [
        ("network", "'local'"),
        ("enable_writable_file_system", "false"),
        ("working_directory", "'/w'"),
        ("user", "1"),
        ("group", "1"),
    ] {
        let members = |head: &str| {
            let text = format!("{head}\n{member} = {value}");
            match toml_container(&text).expect(&text).parent {
                Some(ContainerParent::Container { members, .. }) => {
                    members.iter().map(|m| m.name()).collect::<Vec<_>>()
                }
                Some(ContainerParent::Image { members, .. }) => {
                    members.iter().map(|m| m.name()).collect()
                }
                None => Vec::new(),
            }
        };
        let implicit = members("parent = 'p'");
        assert_eq!(implicit.len(), 7);
        assert!(!implicit.contains(&member));
        assert_eq!(
            members("parent = { name = 'p', use = ['layers'] }"),
            ["layers"]
        );
        assert!(!members("image = 'p'").contains(&member));

        let text = format!("parent = {{ name = 'p', use = ['{member}'] }}\n{member} = {value}");
        assert_eq!(
            toml_error(&text),
            format!(
                "`{member}` is set although the `use` of `parent` lists \"{member}\" [{member}] | drop `{member}` here, or take \"{member}\" out of `use`"
            )
        );
    }
    assert!(
        toml_error("image = { name = 'i', use = ['working_directory'] }\nworking_directory = '/'")
            .starts_with("`working_directory` is set although the `use` of `image`")
    );
}

#[test]
fn use_may_be_empty_and_repeat_itself() {
    let members = |text: &str| match toml_container(text).unwrap().parent {
        Some(ContainerParent::Container { members, .. }) => members.len(),
        Some(ContainerParent::Image { members, .. }) => members.len(),
        None => panic!(),
    };
    assert_eq!(members("parent = { name = 'p', use = [] }"), 0);
    assert_eq!(
        members("parent = { name = 'p', use = ['user', 'user'] }"),
        1
    );
    assert_eq!(members("parent = { name = 'p' }"), 8);
    assert_eq!(members("parent = 'p'"), 8);
    assert_eq!(members("image = { name = 'p' }"), 3);
}

#[test]
fn mistakes_in_containers() {
    for (text, expected) in [
        (
            "layerz = []",
            "unknown key `layerz` in a container [layerz] | did you mean `layers`?",
        ),
        (
            "added-layers = []",
            "unknown key `added-layers` in a container [added-layers] | did you mean `added_layers`?",
        ),
        (
            "xyz = 1",
            "unknown key `xyz` in a container [xyz] | known keys are `image`, `parent`, `layers`, `added_layers`, `environment`, `added_environment`, `mounts`, `added_mounts`, `network`, `enable_writable_file_system`, `working_directory`, `user`, `group`",
        ),
        ("user = 1\nuser = 2", "duplicate key [user]"),
        (
            "user = -1",
            "-1 is out of range: expected an integer from 0 to 4294967295 [-1]",
        ),
        (
            "user = 4294967296",
            "4294967296 is out of range: expected an integer from 0 to 4294967295 [4294967296]",
        ),
        ("user = 'x'", "expected an integer, found a string ['x']"),
        (
            "user = 1.5",
            "expected an integer, found a fractional number [1.5]",
        ),
        (
            "user = 1979-05-27",
            "expected an integer, found a date or time [1979-05-27]",
        ),
        (
            "enable_writable_file_system = 1",
            "expected true or false, found an integer [1]",
        ),
        (
            "network = 'host'",
            "unknown network \"host\" ['host'] | expected one of `disabled`, `loopback`, `local`",
        ),
        (
            "network = 'locale'",
            "unknown network \"locale\" ['locale'] | did you mean `local`?",
        ),
        (
            "working_directory = \"a\\u0000b\"",
            "a string with a NUL character cannot be used [\"a\\u0000b\"]",
        ),
        (
            "image = 'i'\nparent = 'p'",
            "`image` and `parent` cannot be used together [parent] | give the named container the image and this one the container",
        ),
        (
            "parent = 'p'\nimage = 'i'",
            "`image` and `parent` cannot be used together [image] | give the named container the image and this one the container",
        ),
        (
            "parent = 1",
            "expected a string, or a table with `name` and `use`, found an integer [1]",
        ),
        (
            "parent = { use = [] }",
            "missing key `name` in a parent [{ use = [] }]",
        ),
        (
            "image = { name = 1 }",
            "expected a string, found an integer [1]",
        ),
        (
            "image = { name = 'i', use = 'layers' }",
            "expected a list, found a string ['layers']",
        ),
        (
            "image = { name = 'i', use = ['user'] }",
            "unknown member of an image \"user\" ['user'] | expected one of `layers`, `environment`, `working_directory`",
        ),
        (
            "parent = { name = 'i', use = ['mount'] }",
            "unknown member of a parent \"mount\" ['mount'] | did you mean `mounts`?",
        ),
        (
            "environment = 'A=1'",
            "expected a table of variables, or a list of tables with `vars` and `extend`, found a string ['A=1']",
        ),
        (
            "environment = { A = 1 }",
            "expected a string, found an integer [1]",
        ),
        (
            "environment = [{ vars = {} }]",
            "missing key `extend` in an environment element [{ vars = {} }]",
        ),
        (
            "environment = [{ extend = true }]",
            "missing key `vars` in an environment element [{ extend = true }]",
        ),
        (
            "environment = [{ vars = {}, extend = 'no' }]",
            "expected true or false, found a string ['no']",
        ),
        (
            "environment = ['A=1']",
            "expected an environment element (a table), found a string ['A=1']",
        ),
        (
            "environment = { \"a\\u0000\" = '' }",
            "a variable's name with a NUL character cannot be used [\"a\\u0000\"]",
        ),
        ("layers = 'x'", "expected a list, found a string ['x']"),
        (
            "layers = ['x.tar']",
            "expected a layer (a table), found a string ['x.tar']",
        ),
        (
            "layers = [{}]",
            "a layer without a kind [{}] | it needs one of `tar`, `glob`, `paths`, `trees`, `programs`, `stubs`, `symlinks`, `shared_library_dependencies`",
        ),
        (
            "layers = [{ canonicalize = true }]",
            "a layer without a kind [{ canonicalize = true }] | it needs one of `tar`, `glob`, `paths`, `trees`, `programs`, `stubs`, `symlinks`, `shared_library_dependencies`",
        ),
        (
            "layers = [{ stub = [] }]",
            "unknown kind of layer `stub` [stub] | did you mean `stubs`?",
        ),
        (
            "layers = [{ tar = 'a', glob = 'b' }]",
            "a layer is of one kind, this one has both `tar` and `glob` [glob] | write two layers",
        ),
        (
            "layers = [{ tar = 'a', strip_prefix = 'b' }]",
            "unknown key `strip_prefix` in a layer [strip_prefix] | known keys are `tar`",
        ),
        (
            "layers = [{ paths = [], strip-prefix = 'b' }]",
            "unknown key `strip-prefix` in a layer [strip-prefix] | did you mean `strip_prefix`?",
        ),
        (
            "layers = [{ stubs = 'x' }]",
            "expected a list, found a string ['x']",
        ),
        (
            "layers = [{ symlinks = [{ link = 'a' }] }]",
            "missing key `target` in a symlink [{ link = 'a' }]",
        ),
        (
            "layers = [{ symlinks = [{ link = 'a', target = 'b', x = 1 }] }]",
            "unknown key `x` in a symlink [x] | known keys are `link`, `target`",
        ),
        (
            "layers = [{ command = [] }]",
            "a command needs at least a program [[]]",
        ),
        (
            "layers = [{ command = 1 }]",
            "expected a string, found an integer [1]",
        ),
        (
            "mounts = [{ mount_point = '/x' }]",
            "missing key `type` in a mount [{ mount_point = '/x' }]",
        ),
        (
            "mounts = [{ type = 'tmpfs', mount_point = '/x' }]",
            "unknown type of mount \"tmpfs\" ['tmpfs'] | did you mean `tmp`?",
        ),
        (
            "mounts = [{ type = 'tmp' }]",
            "missing key `mount_point` in a mount [{ type = 'tmp' }]",
        ),
        (
            "mounts = [{ type = 'tmp', mount_point = '/x', read_only = true }]",
            "unknown key `read_only` in a mount [read_only] | known keys are `type`, `mount_point`",
        ),
        (
            "mounts = [{ type = 'bind', mount_point = '/x' }]",
            "missing key `local_path` in a mount [{ type = 'bind', mount_point = '/x' }]",
        ),
        (
            "mounts = [{ type = 'devices', devices = ['nul'] }]",
            "unknown device \"nul\" ['nul'] | did you mean `null`?",
        ),
        (
            "mounts = [{ type = 'devices', mount_point = '/dev', devices = [] }]",
            "unknown key `mount_point` in a mount [mount_point] | known keys are `type`, `devices`",
        ),
    ] {
        assert_eq!(toml_error(text), expected, "{text}");
    }
}

#[test]
fn mount_points_are_not_the_root() {
    for kind in ["bind", "devpts", "mqueue", "proc", "sys", "tmp"] {
        let more = if kind == "bind" {
            ", local_path = '.'"
        } else {
            ""
        };
        let mount =
            |at: &str| format!("mounts = [{{ type = '{kind}', mount_point = '{at}'{more} }}]");
        for root in ["/", "//", "/.", "", ".", "/a/..", "/../"] {
            assert!(
                toml_error(&mount(root))
                    .starts_with("a mount point must not be the root directory"),
                "{kind} {root}"
            );
        }
        for good in ["/a", "a", "/a/../b", "/../a"] {
            assert!(toml_container(&mount(good)).is_ok(), "{kind} {good}");
        }
    }
}

#[test]
fn mistakes_in_jobs() {
    for (text, expected) in [
        ("{}", "f:1:1: missing key `program` in a job"),
        ("[]", "f:1:1: expected a job (a table), found a list"),
        (
            "{\"program\": 1}",
            "f:1:13: expected a string, found an integer",
        ),
        (
            "{\n \"programm\": \"x\"}",
            "f:2:2: unknown key `programm` in a job",
        ),
        (
            "{\"program\": \"x\", \"program\": \"y\"}",
            "f:1:18: duplicate key `program` in a job",
        ),
        (
            "{\"program\": \"x\", \"timeout\": -1}",
            "f:1:29: -1 is out of range",
        ),
        (
            "{\"program\": \"x\", \"timeout\": 1.0}",
            "f:1:29: expected an integer",
        ),
        (
            "{\"program\": \"x\", \"priority\": 128}",
            "f:1:30: 128 is out of range: expected an integer from -128 to 127",
        ),
        (
            "{\"program\": \"x\", \"arguments\": \"y\"}",
            "f:1:31: expected a list",
        ),
        (
            "{\"program\": \"x\", \"containers\": {}}",
            "f:1:18: unknown key `containers` in a job",
        ),
        (
            "{\"program\": \"x\", \"estimated_duration\": 1}",
            "f:1:18: unknown key `estimated_duration`",
        ),
        (
            "{\"program\": \"x\", \"allocate_tty\": 1}",
            "f:1:18: unknown key `allocate_tty`",
        ),
    ] {
        let error = json_job(text).expect_err(text).to_string();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
    let error = json_job("{\n \"programm\": \"x\"}").unwrap_err();
    assert_eq!(error.help(), Some("did you mean `program`?"));
}

#[test]
fn templates_are_expanded_in_paths_only() {
    let variables = TemplateVariables::from([("build-dir".to_owned(), "/t/debug".to_owned())]);
    let options = ParseOptions {
        template_variables: Some(&variables),
    };
    let parse = |layer: &str| {
        let text = format!("c.layers = [{{ {layer} }}]");
        let containers = parse_containers(&parse_toml(&text).unwrap(), options)?;
        Ok::<_, Problem>(containers["c"].0.layers[0].clone())
    };
    for layer in [
        "tar = '@'",
        "glob = '@'",
        "paths = ['@']",
        "trees = ['@']",
        "stubs = ['@']",
        "programs = ['@']",
        "symlinks = [{ link = '@', target = 'x' }]",
        "symlinks = [{ link = 'x', target = '@' }]",
        "shared_library_dependencies = ['@']",
    ] {
        let templated = parse(&layer.replace('@', "<build-dir>/<<a>"));
        assert_eq!(
            templated,
            parse(&layer.replace('@', "/t/debug/<<a>")),
            "{layer}"
        );
        let problem = parse(&layer.replace('@', "<bild-dir>")).unwrap_err();
        assert_eq!(problem.message, "unknown template variable <bild-dir>");
        assert!(
            problem
                .help
                .unwrap()
                .starts_with("did you mean `build-dir`?")
        );
    }
    for layer in [
        "paths = [], strip_prefix = '<x>', prepend_prefix = '<y>'",
        "command = ['<x>', '<y>']",
    ] {
        assert!(parse(layer).is_ok());
    }
}

#[test]
fn named_containers() {
    let text = "[a]\nparent = 'b'\n[b]\n";
    let containers = parse_containers(&parse_toml(text).unwrap(), ParseOptions::default()).unwrap();
    let spans: BTreeMap<&str, Option<&str>> = containers
        .iter()
        .map(|(name, (_, span))| (&**name, span.clone().map(|span| &text[span])))
        .collect();
    assert_eq!(spans, BTreeMap::from([("a", Some("'b'")), ("b", None)]));
}

/// Text made of the words that specifications are made of.
fn near_specification() -> impl Strategy<Value = String> {
    let words = CONTAINER_KEYS
        .into_iter()
        .chain([
            "=",
            "\n",
            "{",
            "}",
            "[",
            "]",
            ",",
            "'",
            "\"",
            "'p'",
            "1",
            "true",
            "name",
            "use",
            "type",
            "mount_point",
            "stubs",
            "tar",
            "devices",
            "vars",
            "extend",
            "é",
            ":",
            "null",
        ])
        .collect::<Vec<&str>>();
    proptest::collection::vec(proptest::sample::select(words), 0..24).prop_map(|w| w.join(" "))
}

proptest! {
    #[test]
    fn nothing_panics(text in prop_oneof![".*", near_specification()]) {
        if let Err(error) = toml_container(&text) {
            let _ = error.to_string();
        }
        if let Err(error) = json_job(&text) {
            let _ = error.to_string();
        }
    }
}
