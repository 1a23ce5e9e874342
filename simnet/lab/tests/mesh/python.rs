//! A suite of pytest on several hosts: with templates, and in a container image from a registry.

use crate::{BOUND, meshed, spread};
use maelstrom_lab::{Command, Finished, mesh::Mesh, program};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

pub(crate) const TESTS: &[(&str, fn())] = &[(
    "a_python_suite_has_its_verdicts",
    a_python_suite_has_its_verdicts,
)];

/// Debian packages have these names.
const TOOLS: [&str; 3] = ["docker-registry", "skopeo", "umoci"];

const SUITE: &str = r#"
import os, time
import pytest

STATE = []

@pytest.mark.parametrize("number", range(24))
def test(number):
    # What another test has left in a template's memory would show.
    assert not STATE
    STATE.append(number)
    time.sleep(0.2)
    assert number % 10 != 3
    if number % 10 == 7:
        os.abort()
"#;

const IN_IMAGE: &str = r#"
[[directives]]
image = "docker://REGISTRY/python:v1"
added_layers = [
    { glob = "**.py" },
    { stubs = ["/{proc,sys,tmp}/", "/dev/{full,null,random,urandom,zero}"] },
]
mounts = [
    { type = "tmp", mount_point = "/tmp" },
    { type = "proc", mount_point = "/proc" },
    { type = "devices", devices = ["full", "null", "random", "urandom", "zero"] },
]
"#;

fn succeed(command: &mut std::process::Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// A virtual environment with pytest, kept below the target directory.
fn environment() -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lab-venv-1");
    if !place.join("complete").exists() {
        let _ = fs::remove_dir_all(&place);
        let python = |program: &Path, arguments: &[&str]| {
            succeed(
                std::process::Command::new(program)
                    .args(["-m"])
                    .args(arguments),
            );
        };
        python(Path::new("python3"), &["venv", place.to_str().unwrap()]);
        python(
            &place.join("bin/python"),
            &["pip", "install", "--quiet", "pytest"],
        );
        fs::write(place.join("complete"), "").unwrap();
    }
    place
}

/// Makes an image of this machine's Python and pytest.
fn make_image(environment: &Path, layout: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/python_image.py");
    let libraries = fs::read_dir(environment.join("lib")).unwrap();
    let mut sites = libraries.map(|entry| entry.unwrap().path().join("site-packages"));
    let site = sites.find(|path| path.join("pytest").exists()).unwrap();
    succeed(
        std::process::Command::new("python3")
            .arg(script)
            .arg(site)
            .arg("py,_pytest,pluggy,iniconfig,packaging")
            .arg(layout)
            .arg("v1"),
    );
}

/// `maelstrom-pytest` on host 1 in a project.
fn maelstrom_pytest(mesh: &Mesh, environment: &Path, project: &Path) -> Command {
    let program = program("maelstrom-pytest", "maelstrom-pytest").unwrap();
    let own = std::iter::once(environment.join("bin"));
    let path = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths(own.chain(std::env::split_paths(&path))).unwrap();
    let command = mesh.lab().on(1, program).current_dir(project);
    command.env("PATH", path).args([
        "--ui",
        "simple",
        "--slots",
        "1",
        "--accept-invalid-remote-container-tls-certs",
    ])
}

/// Verdicts by the names of tests.
fn verdicts(finished: &Finished) -> BTreeMap<String, String> {
    let words = |line: &str| {
        let name = line.strip_prefix("test_suite.py::")?;
        let (name, rest) = name.split_once(']')?;
        let verdict = ["OK", "FAIL", "ERR", "TIMEOUT"]
            .iter()
            .find(|verdict| rest.contains(*verdict))?;
        Some((name.to_owned(), (*verdict).to_owned()))
    };
    finished.stdout.lines().filter_map(words).collect()
}

fn a_python_suite_has_its_verdicts() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &str| std::env::split_paths(&path).any(|dir| dir.join(tool).exists());
    if let Some(missing) = TOOLS.iter().find(|tool| !is_there(tool)) {
        eprintln!("SKIPPED: {missing} is not installed (.ci/run installs it)");
        return;
    }
    let mesh = meshed(3);
    let environment = environment();
    let directory = mesh.lab().directory().to_owned();

    // It writes down who asks.
    let registry = {
        let config = directory.join("registry.yml");
        let text = format!(
            "version: 0.1\nhttp: {{addr: 10.77.0.1:5000}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n",
            directory.join("registry").display()
        );
        fs::write(&config, text).unwrap();
        mesh.lab()
            .on(1, "docker-registry")
            .arg("serve")
            .arg(config)
            .spawn()
            .unwrap()
    };
    let layout = directory.join("layout");
    make_image(&environment, &layout);
    let pushed = mesh
        .lab()
        .on(1, "skopeo")
        .args(["--insecure-policy", "copy", "--dest-tls-verify=false"])
        .arg(format!("oci:{}:v1", layout.display()))
        .arg("docker://10.77.0.1:5000/python:v1")
        .run(4 * BOUND)
        .unwrap();
    assert!(pushed.exit.success(), "{pushed:#?}");

    for (name, configuration) in [("plain", None), ("image", Some(IN_IMAGE))] {
        let project = directory.join(name);
        fs::create_dir_all(&project).unwrap();
        fs::write(project.join("test_suite.py"), SUITE).unwrap();
        if let Some(text) = configuration {
            let text = text.replace("REGISTRY", "10.77.0.1:5000");
            fs::write(project.join("maelstrom-pytest.toml"), text).unwrap();
        }
        let expected: BTreeMap<String, String> = (0..24)
            .map(|number: i32| {
                let fails = matches!(number % 10, 3 | 7);
                let verdict = if fails { "FAIL" } else { "OK" };
                (format!("test[{number}"), verdict.to_owned())
            })
            .collect();
        spread(&["host2", "host3"], || {
            let together = maelstrom_pytest(&mesh, &environment, &project).arg("--mesh");
            let together = together.run(8 * BOUND).unwrap();
            assert_eq!(verdicts(&together), expected, "{together:#?}");
            for fallback in ["fresh interpreter", "without its template"] {
                assert!(!together.stdout.contains(fallback), "{together:#?}");
            }
            together
        });
        let alone = maelstrom_pytest(&mesh, &environment, &project);
        let alone = alone.run(8 * BOUND).unwrap();
        assert_eq!(verdicts(&alone), expected, "{alone:#?}");
    }
    let log = registry.stdout();
    let asked: BTreeSet<&str> = log
        .lines()
        .filter(|line| line.contains("GET /v2/python/"))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(asked, ["10.77.0.1"].into(), "{log}");
    mesh.wait_idle(BOUND).unwrap();
}
