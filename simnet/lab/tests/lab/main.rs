//! The lab's promises, shown with small programs on its hosts. As root they are shown a second
//! time as an ordinary user.

mod hosts;
mod links;
mod packets;
mod probe;

use libtest_mimic::{Arguments, Failed, Trial};
use maelstrom_lab::{Command, Exit, Lab, LabConfig, LabError, Process};
use std::{
    os::unix::{fs::PermissionsExt, process::CommandExt},
    time::{Duration, Instant},
};

/// Says that this run is the one as an ordinary user.
const ORDINARY: &str = "MAELSTROM_LAB_ORDINARY";

/// A bound for what takes milliseconds on an idle machine.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [first, probe @ ..] = arguments.as_slice()
        && first == "probe"
    {
        probe::run(probe);
    }
    let mut arguments = Arguments::from_args();
    // Hosts of several labs on few processors would only wait for each other.
    arguments.test_threads.get_or_insert(2);
    match Lab::start(&LabConfig::new(1)) {
        Err(error @ LabError::Unsupported { .. }) => {
            eprintln!("SKIP: all tests of the lab: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
        Ok(_) => {}
    }
    let mut trials = Vec::new();
    for (name, test) in [hosts::TESTS, links::TESTS, packets::TESTS].concat() {
        trials.push(Trial::test(name, move || -> Result<(), Failed> {
            test();
            Ok(())
        }));
    }
    if rustix::process::geteuid().is_root() && std::env::var_os(ORDINARY).is_none() {
        trials.push(Trial::test("all_of_it_as_an_ordinary_user", || {
            as_ordinary_user();
            Ok(())
        }));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// Runs all tests again as a user who may nothing.
fn as_ordinary_user() {
    let directory = tempfile::tempdir().unwrap();
    let public = |path: &std::path::Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    };
    public(directory.path());
    let binary = directory.path().join("lab-tests");
    std::fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    public(&binary);
    // The directory that it was built in may be closed to others.
    let run = maelstrom_lab::program("maelstrom-run", "maelstrom-run").unwrap();
    std::fs::copy(run, directory.path().join("maelstrom-run")).unwrap();
    let output = std::process::Command::new(&binary)
        .env("LAB_PROGRAMS", directory.path())
        .uid(65534)
        .gid(65534)
        .current_dir("/")
        .env("TMPDIR", directory.path())
        .env("HOME", directory.path())
        .env(ORDINARY, "1")
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("SKIP") {
        eprint!("{stderr}");
    }
    assert!(output.status.success(), "{stdout}{stderr}");
}

pub(crate) fn lab(hosts: u8) -> Lab {
    Lab::start(&LabConfig::new(hosts)).unwrap_or_else(|error| panic!("{error}"))
}

/// A probe to run on a host.
pub(crate) fn probe(lab: &Lab, host: u8, arguments: &[&str]) -> Command {
    let binary = std::env::current_exe().unwrap();
    lab.on(host, binary).arg("probe").args(arguments)
}

/// Runs a probe and returns what it printed, if it succeeded.
pub(crate) fn try_probe(lab: &Lab, host: u8, arguments: &[&str]) -> Result<String, String> {
    let finished = probe(lab, host, arguments).run(BOUND).unwrap();
    match finished.exit {
        Exit::Code(0) => Ok(finished.stdout),
        _ => Err(finished.stdout + &finished.stderr),
    }
}

/// Starts a probe that prints when it is ready, and waits for that.
pub(crate) fn serve(lab: &Lab, host: u8, arguments: &[&str]) -> Process {
    let process = probe(lab, host, arguments).spawn().unwrap();
    eventually(|| process.stdout().contains("ready"));
    process
}

/// Whether a host's echo on port 7000 answers another within some time.
pub(crate) fn reaches(lab: &Lab, from: u8, to: u8) -> bool {
    reaches_within(lab, from, to, "20000")
}

/// As [`reaches`], where it is expected not to.
pub(crate) fn reaches_soon(lab: &Lab, from: u8, to: u8) -> bool {
    reaches_within(lab, from, to, "700")
}

fn reaches_within(lab: &Lab, from: u8, to: u8, bound_ms: &str) -> bool {
    let address = format!("10.77.0.{to}:7000");
    try_probe(lab, from, &["ping", &address, bound_ms]).is_ok()
}

/// Waits for a condition.
#[track_caller]
pub(crate) fn eventually(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + BOUND;
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "it has not come true in {BOUND:?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
