//! Real nodes and clients on the hosts of a lab: finding each other, losing each other, trust.

mod faults;
mod finding;
mod python;
mod results;
mod sharing;
mod suite;
mod trust;

use libtest_mimic::{Arguments, Failed, Trial};
use maelstrom_lab::{
    Finished, Lab, LabConfig, LabError, Process,
    mesh::{BOUND, Mesh, jobs},
};
use std::time::{Duration, Instant};

fn main() {
    let mut arguments = Arguments::from_args();
    // One mesh at a time is what a machine with two processors bears.
    arguments.test_threads.get_or_insert(1);
    match Lab::start(&LabConfig::new(1)) {
        Err(error @ LabError::Unsupported { .. }) => {
            eprintln!("SKIP: all tests of the mesh: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
        Ok(_) => {}
    }
    let tests = [
        finding::TESTS,
        suite::TESTS,
        python::TESTS,
        results::TESTS,
        sharing::TESTS,
        faults::TESTS,
        trust::TESTS,
    ]
    .concat();
    let trials = tests.into_iter().map(|(name, test)| {
        Trial::test(name, move || -> Result<(), Failed> {
            test();
            Ok(())
        })
    });
    let trials = trials.chain(faults::trials());
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// A lab with no node yet, whose packets to the outside would show.
pub(crate) fn mesh(hosts: u8) -> Mesh {
    let config = LabConfig {
        gateway: true,
        ..LabConfig::new(hosts)
    };
    Mesh::start(&config).unwrap_or_else(|error| panic!("{error}"))
}

/// A mesh with a node of two slots on every host but the first, where clients are.
pub(crate) fn meshed(hosts: u8) -> Mesh {
    let mesh = mesh(hosts);
    let nodes: Vec<u8> = (2..=hosts).collect();
    for host in &nodes {
        mesh.start_node(*host, 2, &[]).unwrap();
    }
    mesh.wait_members(&nodes, nodes.len() - 1, BOUND).unwrap();
    mesh
}

/// A client on host 1 with so many jobs of so many milliseconds.
pub(crate) fn client(mesh: &Mesh, count: usize, ms: u64) -> Process {
    let durations = std::iter::repeat_n(Duration::from_millis(ms), count);
    let client = mesh.client(1, 2, &jobs::sleeping(durations)).unwrap();
    client.spawn().unwrap()
}

/// Waits for a client and sees that each job was reported once.
#[track_caller]
pub(crate) fn expect_all(client: &Process, count: usize) {
    let exit = client.wait(4 * BOUND).unwrap();
    let wrong = jobs::check(count, &client.stdout(), &client.stderr());
    assert!(
        exit.success() && wrong.is_empty(),
        "{exit:?}: {wrong:?}\n{}",
        client.stderr()
    );
}

/// Runs tests until some have been reported from each of these hosts. The first time layers have to
/// travel, which on a busy machine may take as long as all the tests do.
#[track_caller]
pub(crate) fn spread(hosts: &[&str], run: impl Fn() -> Finished) -> Finished {
    let deadline = Instant::now() + 4 * BOUND;
    let mut missing = hosts.to_vec();
    loop {
        let finished = run();
        missing.retain(|host| !finished.stdout.contains(host));
        if missing.is_empty() {
            return finished;
        }
        assert!(
            Instant::now() < deadline,
            "none ran on {missing:?}: {finished:#?}"
        );
        println!("none ran on {missing:?}: once more");
    }
}

/// Waits for a condition.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + BOUND;
    while !condition() {
        assert!(Instant::now() < deadline, "not in {BOUND:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until a host runs processes of jobs.
#[track_caller]
pub(crate) fn runs_jobs(mesh: &Mesh, host: u8) {
    eventually(&format!("host {host} runs jobs"), || {
        mesh.processes(host, jobs::MARK).unwrap() > 0
    });
}
