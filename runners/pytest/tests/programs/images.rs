//! A suite that runs in a container image from a real registry, with packages from the package
//! index on top of it.

use crate::support::{Project, Run, environment, succeed};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

/// Debian packages have these names.
const TOOLS: [&str; 3] = ["docker-registry", "skopeo", "umoci"];

const TESTS: &str = r#"
import os, pathlib, sys

def test_image():
    assert pathlib.Path("/etc/text").read_text() == os.environ["TEXT"]

def test_packages():
    # Not in the environment that collects.
    import six
    assert six.__version__ == "1.17.0"

def test_interpreter(tmp_path):
    assert sys.executable == "/usr/local/bin/python"
    assert not os.path.exists("/etc/passwd")
    (tmp_path / "x").write_text("x")

def test_fails():
    assert os.environ["TEXT"] == "nothing"
"#;

const CONFIGURATION: &str = r#"
[[directives]]
image = "docker://HOST/team/python:stable"
added_layers = [
    { glob = "**.py" },
    { stubs = ["/{proc,sys,tmp}/", "/dev/{full,null,random,urandom,zero}"] },
]
mounts = [
    { type = "tmp", mount_point = "/tmp" },
    { type = "proc", mount_point = "/proc" },
    { type = "devices", devices = ["full", "null", "random", "urandom", "zero"] },
]
added_environment = { TEXT = "$env{TEXT}" }
"#;

/// Whether this machine has what these tests need. Says so if it has not.
fn has_tools() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &str| std::env::split_paths(&path).any(|dir| dir.join(tool).exists());
    let missing: Vec<_> = TOOLS.into_iter().filter(|tool| !is_there(tool)).collect();
    if !missing.is_empty() {
        eprintln!(
            "SKIPPED: not installed: {} (.ci/run installs them)",
            missing.join(", ")
        );
    }
    missing.is_empty()
}

/// A registry that keeps its contents below a directory, until this is dropped.
struct Registry(Child, String);

impl Registry {
    fn start(directory: &Path) -> Registry {
        let config = directory.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nhttp: {{addr: 127.0.0.1:0}}\nstorage: \
             {{filesystem: {{rootdirectory: {}}}}}\n",
            directory.display()
        );
        fs::write(&config, text).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        let host = loop {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "it has no address");
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest[..rest.find(['"', ',']).unwrap()].to_owned();
            }
        };
        // It must not wait for somebody to read its log.
        thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Registry(process, host)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What stands before the registry: counts connections, and after so many bytes of answers
/// breaks all off and accepts no more.
#[derive(Default)]
struct Gate {
    connections: AtomicUsize,
    bytes_left: AtomicUsize,
}

impl Gate {
    fn start(registry: &str) -> (Arc<Gate>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let gate = Arc::new(Gate::default());
        gate.open(usize::MAX);
        let (shared, registry) = (gate.clone(), registry.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (gate, registry) = (shared.clone(), registry.clone());
                gate.connections.fetch_add(1, SeqCst);
                thread::spawn(move || gate.pass(client, &registry));
            }
        });
        (gate, host)
    }

    fn open(&self, bytes: usize) {
        self.bytes_left.store(bytes, SeqCst);
    }

    fn pass(&self, mut client: TcpStream, registry: &str) -> Option<()> {
        if self.bytes_left.load(SeqCst) == 0 {
            return None;
        }
        let mut server = TcpStream::connect(registry).ok()?;
        let (mut from, mut to) = (client.try_clone().ok()?, server.try_clone().ok()?);
        thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
        let mut buffer = [0; 1 << 14];
        loop {
            let read = server.read(&mut buffer).ok().filter(|read| *read > 0);
            let passed = self.bytes_left.fetch_update(SeqCst, SeqCst, |left| {
                Some(left.saturating_sub(read.unwrap_or(0)))
            });
            let passed = read.unwrap_or(0).min(passed.unwrap_or(0));
            if passed == 0 || client.write_all(&buffer[..passed]).is_err() {
                let _ = client.shutdown(Shutdown::Both);
                let _ = server.shutdown(Shutdown::Both);
                return None;
            }
        }
    }
}

/// A project, a registry with an image of this machine's Python, and the gate between them.
struct Place {
    project: Project,
    directory: tempfile::TempDir,
    registry: Registry,
    gate: Arc<Gate>,
    host: String,
}

impl Place {
    fn new() -> Place {
        let directory = tempfile::tempdir().unwrap();
        let registry = Registry::start(directory.path());
        let (gate, host) = Gate::start(&registry.1);
        let project = Project::new(&[
            ("test_image.py", TESTS),
            ("test-requirements.txt", "pytest\nsix==1.17.0\n"),
            (
                "maelstrom-pytest.toml",
                &CONFIGURATION.replace("HOST", &host),
            ),
        ]);
        let place = Place {
            project,
            directory,
            registry,
            gate,
            host,
        };
        place.make_image("base", None);
        place
    }

    fn layout(&self) -> PathBuf {
        self.directory.path().join("layout")
    }

    /// Makes an image of that name, and with a text, one with the text and noise on top.
    fn make_image(&self, name: &str, text: Option<&str>) {
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/python_image.py");
        let libraries = fs::read_dir(environment().join("lib")).unwrap();
        let mut sites = libraries.map(|entry| entry.unwrap().path().join("site-packages"));
        let site = sites.find(|path| path.join("pip").exists()).unwrap();
        succeed(
            Command::new("python3")
                .arg(script)
                .arg(site)
                .arg("pip")
                .arg(self.layout())
                .arg(name)
                .args(text),
        );
    }

    /// Gives the tag that the project uses to an image.
    fn push(&self, name: &str) {
        succeed(
            Command::new("skopeo")
                .args(["--insecure-policy", "copy", "--dest-tls-verify=false"])
                .arg(format!("oci:{}:{name}", self.layout().display()))
                .arg(format!("docker://{}/team/python:stable", self.registry.1)),
        );
    }

    fn command(&self, wrapper: &[&str], text: &str) -> Command {
        let program = env!("CARGO_BIN_EXE_maelstrom-pytest");
        let depot = self.depot();
        let arguments = [program, "--container-image-depot-root"];
        let all: Vec<&str> = wrapper.iter().chain(&arguments).copied().collect();
        let mut command = self.project.command(Path::new(all[0]), &all[1..]);
        command.arg(depot).env("TEXT", text);
        command
    }

    fn run(&self, text: &str) -> Run {
        Run::of(self.command(&[], text))
    }

    fn depot(&self) -> PathBuf {
        self.directory.path().join("depot")
    }

    /// The digest of the topmost layer of an image of the layout, without `sha256:`.
    fn top_layer(&self, name: &str) -> String {
        let said = Command::new("skopeo")
            .args([
                "inspect",
                "--format",
                "{{range .Layers}}{{println .}}{{end}}",
            ])
            .arg(format!("oci:{}:{name}", self.layout().display()))
            .output()
            .unwrap();
        let text = String::from_utf8(said.stdout).unwrap();
        let last = text.lines().rfind(|line| !line.is_empty()).unwrap();
        last.strip_prefix("sha256:").unwrap().to_owned()
    }

    /// Where the registry keeps what has this digest.
    fn blob(&self, digest: &str) -> PathBuf {
        let blobs = self
            .directory
            .path()
            .join("docker/registry/v2/blobs/sha256");
        blobs.join(&digest[..2]).join(digest).join("data")
    }

    fn forget_tag(&self) {
        let lock = self.project.path("maelstrom-container-tags.lock");
        let text = fs::read_to_string(&lock).unwrap();
        let kept = text.lines().filter(|line| !line.starts_with("stable"));
        fs::write(&lock, kept.collect::<Vec<_>>().join("\n")).unwrap();
    }
}

#[track_caller]
fn passes(run: &Run) {
    for (test, verdict) in [
        ("image", "OK"),
        ("packages", "OK"),
        ("interpreter", "OK"),
        ("fails", "FAIL"),
    ] {
        let name = format!("test_image.py::test_{test}");
        assert_eq!(run.verdict(&name), verdict, "{}{}", run.stdout, run.stderr);
    }
    for fallback in ["fresh interpreter", "without its template"] {
        assert!(!run.stdout.contains(fallback), "{}", run.stdout);
    }
}

#[test]
fn an_image_with_packages_from_the_index() {
    if !has_tools() {
        return;
    }
    let place = Place::new();
    for text in ["one", "two"] {
        place.make_image(text, Some(text));
    }
    place.push("one");
    passes(&place.run("one"));
    let asked = || place.gate.connections.load(SeqCst);
    let before = asked();
    assert!(before > 0);

    // The second run needs no network. Where it has none, it would fail.
    let alone = ["unshare", "--user", "--map-current-user", "--net"];
    let mut probe = Command::new(alone[0]);
    probe.args(&alone[1..]).arg("true");
    if probe.output().is_ok_and(|said| said.status.success()) {
        passes(&Run::of(place.command(&alone, "one")));
    } else {
        eprintln!("SKIPPED: a run without network: {alone:?} does not work here");
        passes(&place.run("one"));
    }
    // What the tag means is pinned.
    place.push("two");
    passes(&place.run("one"));
    assert_eq!(asked(), before);

    // Who deletes the line gets the new image: but what the registry sends is not what it should.
    place.forget_tag();
    let digest = place.top_layer("two");
    let good = fs::read(place.blob(&digest)).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    fs::write(place.blob(&digest), &bad).unwrap();
    let run = place.run("two");
    assert_ne!(run.code, Some(0));
    assert!(
        run.stdout
            .contains(&format!("{}/team/python:stable", place.host))
            && run.stdout.contains(&digest)
            && run.stdout.contains("nothing of it was kept"),
        "{}{}",
        run.stdout,
        run.stderr
    );

    // Now it sends what it should, and dies in the middle of a layer.
    fs::write(place.blob(&digest), &good).unwrap();
    place.gate.open(good.len() / 2);
    let run = place.run("two");
    assert_ne!(run.code, Some(0));
    assert!(
        run.stdout
            .contains(&format!("{}/team/python:stable", place.host)),
        "{}{}",
        run.stdout,
        run.stderr
    );

    // It is back, and sends the other half.
    place.gate.open(good.len() * 3 / 4);
    passes(&place.run("two"));
}

#[test]
fn requirements_that_cannot_be_installed_are_told() {
    if !has_tools() {
        return;
    }
    let place = Place::new();
    place.push("base");
    place
        .project
        .write("test-requirements.txt", "pytest\nno-such-package ===\n");
    let run = place.run("");
    assert_ne!(run.code, Some(0));
    assert!(
        run.stdout.contains("remote error: installing ")
            && run.stdout.contains("test-requirements.txt")
            && !run.stdout.contains("Traceback"),
        "{}{}",
        run.stdout,
        run.stderr
    );
    // Once, and not for every test.
    let told = run.stdout.matches("No matching distribution found").count();
    assert_eq!(told, 1, "{}", run.stdout);
}
