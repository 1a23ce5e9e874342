//! Hosts, links and daemons go away: each job is reported once, and nothing stays behind.

use crate::{BOUND, client, expect_all, meshed, runs_jobs};
use libtest_mimic::{Failed, Trial};
use maelstrom_lab::{
    Exit, Signal,
    mesh::{Mesh, fault::Fault},
};
use std::time::Duration;

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("a_run_outlives_all_its_peers", a_run_outlives_all_its_peers),
    (
        "a_run_outlives_the_daemon_beside_it",
        a_run_outlives_the_daemon_beside_it,
    ),
    (
        "a_node_that_is_told_to_end_gives_back",
        a_node_that_is_told_to_end_gives_back,
    ),
    ("ctrl_c_leaves_all_hosts_idle", ctrl_c_leaves_all_hosts_idle),
    (
        "ctrl_c_beside_a_daemon_leaves_all_hosts_idle",
        ctrl_c_beside_a_daemon_leaves_all_hosts_idle,
    ),
    (
        "a_killed_client_leaves_all_hosts_idle",
        a_killed_client_leaves_all_hosts_idle,
    ),
    ("what_is_left_is_seen", what_is_left_is_seen),
];

const COUNT: usize = 60;
const JOB: Duration = Duration::from_millis(300);
const SLOTS: u16 = 2;

/// What happens to a run on four hosts, three of which have nodes, once host 3 runs some of it.
struct Case {
    name: &'static str,
    faults: fn(Duration) -> Vec<Fault>,
    /// Each is a test.
    seconds: &'static [f64],
}

/// A lease lasts six seconds, and after some time more a silent node is given up.
const CASES: &[Case] = &[
    Case {
        name: "a_killed_host_loses_no_job",
        faults: |time| vec![Fault::Kill(3, Some(time))],
        seconds: &[1.0],
    },
    Case {
        name: "two_killed_hosts_lose_no_job",
        faults: |time| vec![Fault::Kill(3, Some(time)), Fault::Kill(4, Some(time))],
        seconds: &[1.0],
    },
    Case {
        name: "a_killed_node_loses_no_job",
        faults: |time| vec![Fault::KillNode(3, Some(time))],
        seconds: &[0.2],
    },
    Case {
        name: "a_cut_link_loses_no_job",
        faults: |time| vec![Fault::Cut(3, time)],
        seconds: &[1.0, 10.0, 60.0],
    },
    Case {
        name: "a_cut_link_of_the_client_loses_no_job",
        faults: |time| vec![Fault::Cut(1, time)],
        seconds: &[1.0, 10.0, 60.0],
    },
    Case {
        name: "a_link_cut_towards_the_client_loses_no_job",
        faults: |time| vec![Fault::Block(3, 1, time)],
        seconds: &[1.0, 10.0, 60.0],
    },
    Case {
        name: "a_link_cut_from_the_client_loses_no_job",
        faults: |time| vec![Fault::Block(1, 3, time)],
        seconds: &[1.0, 10.0, 60.0],
    },
    Case {
        name: "a_paused_host_loses_no_job",
        faults: |time| vec![Fault::Pause(3, time)],
        seconds: &[2.0, 9.0, 60.0],
    },
];

/// The longest that a test takes which always runs.
const SHORT_SECONDS: f64 = 2.0;

/// A test for each case and time. Those that take longer run where they are asked for.
pub(crate) fn trials() -> impl Iterator<Item = Trial> {
    CASES.iter().flat_map(|case| {
        case.seconds.iter().map(move |seconds| {
            let (time, faults) = (Duration::from_secs_f64(*seconds), case.faults);
            let name = format!("{}::{seconds}s", case.name);
            let test = move || -> Result<(), Failed> {
                loses_no_job(&faults(time), time);
                Ok(())
            };
            Trial::test(name, test).with_ignored_flag(*seconds > SHORT_SECONDS)
        })
    })
}

/// So many jobs, and of such a duration, that the slots of the client and of three nodes are busy
/// longer than that.
fn jobs_for(time: Duration) -> (usize, Duration) {
    let job = JOB.max(time / 20);
    let rounds = (time.as_secs_f64() + 2.0) / job.as_secs_f64();
    (rounds.ceil() as usize * usize::from(4 * SLOTS), job)
}

fn loses_no_job(faults: &[Fault], time: Duration) {
    let mesh = meshed(4);
    let (count, job) = jobs_for(time);
    let client = client(&mesh, count, job.as_millis() as u64);
    runs_jobs(&mesh, 3);
    for fault in faults {
        fault.begin(&mesh).unwrap();
    }
    let ended = client.wait(time);
    for fault in faults {
        fault.end(&mesh, SLOTS).unwrap();
    }
    if time >= JOB * 4 {
        assert!(ended.is_err(), "the run was over before the fault");
    }
    expect_all(&client, count);
    println!(
        "{faults:?}: {count} jobs in {:?}",
        client.started().elapsed()
    );
    mesh.wait_nothing_left(BOUND).unwrap();
    // All find together again.
    mesh.wait_members(&[2, 3, 4], 2, 2 * BOUND).unwrap();
}

fn a_run_outlives_all_its_peers() {
    let mesh = meshed(3);
    let client = client(&mesh, COUNT, 300);
    runs_jobs(&mesh, 2);
    runs_jobs(&mesh, 3);
    mesh.lab().kill(2).unwrap();
    mesh.lab().kill(3).unwrap();
    expect_all(&client, COUNT);
    mesh.wait_nothing_left(BOUND).unwrap();
}

/// A mesh with a node beside the client.
fn meshed_with_local_node() -> Mesh {
    let mesh = meshed(3);
    mesh.start_node(1, SLOTS, &[]).unwrap();
    mesh.wait_members(&[1, 2, 3], 2, BOUND).unwrap();
    mesh
}

fn a_run_outlives_the_daemon_beside_it() {
    let mesh = meshed_with_local_node();
    let client = client(&mesh, COUNT, 300);
    runs_jobs(&mesh, 1);
    runs_jobs(&mesh, 2);
    let daemon = mesh.take_node(1).unwrap();
    daemon.signal(Signal::KILL).unwrap();
    expect_all(&client, COUNT);
    mesh.wait_nothing_left(BOUND).unwrap();
}

fn a_node_that_is_told_to_end_gives_back() {
    let mesh = meshed(3);
    let client = client(&mesh, COUNT, 300);
    runs_jobs(&mesh, 2);
    let node = mesh.take_node(2).unwrap();
    node.signal(Signal::TERM).unwrap();
    assert_eq!(
        node.wait(BOUND).unwrap(),
        Exit::Code(0),
        "{}",
        node.stderr()
    );
    expect_all(&client, COUNT);
    mesh.wait_nothing_left(BOUND).unwrap();
}

fn ctrl_c_leaves_all_hosts_idle() {
    ctrl_c(&meshed(4), 4);
}

fn ctrl_c_beside_a_daemon_leaves_all_hosts_idle() {
    ctrl_c(&meshed_with_local_node(), 3);
}

fn ctrl_c(mesh: &Mesh, hosts: u8) {
    let client = client(mesh, COUNT, 20_000);
    for host in 1..=hosts {
        runs_jobs(mesh, host);
    }
    client.signal_group(Signal::INT).unwrap();
    let time = mesh.wait_idle(BOUND).unwrap();
    println!("all hosts were idle {time:?} after Ctrl-C");
    // The others find out by themselves too, but later: an end by the signal is one after which
    // they have been told.
    assert_eq!(client.wait(BOUND).unwrap(), Exit::Signal(2));
    mesh.wait_nothing_left(BOUND).unwrap();
}

fn a_killed_client_leaves_all_hosts_idle() {
    let mesh = meshed(3);
    let client = client(&mesh, COUNT, 20_000);
    runs_jobs(&mesh, 2);
    runs_jobs(&mesh, 3);
    client.signal(Signal::KILL).unwrap();
    let time = mesh.wait_idle(BOUND).unwrap();
    println!("all hosts were idle {time:?} after the client was killed");
    mesh.wait_nothing_left(BOUND).unwrap();
}

/// The check that the others end with can fail.
fn what_is_left_is_seen() {
    let mesh = meshed(2);
    mesh.wait_nothing_left(BOUND).unwrap();
    let on_host = |script: &str| mesh.lab().on(2, "sh").args(["-c", script]);
    let finds = |what: &str| {
        let left = mesh.wait_nothing_left(Duration::ZERO).unwrap_err();
        assert!(left.contains(what), "{left}");
    };
    let process = on_host("exec sleep 1000").spawn().unwrap();
    finds("(sleep), which no node owns");
    process.signal(Signal::KILL).unwrap();
    mesh.wait_nothing_left(BOUND).unwrap();
    let succeeds = |script| assert!(on_host(script).run(BOUND).unwrap().exit.success());
    succeeds("mount -t tmpfs left $TMPDIR");
    finds("host 2 has 1 mounts");
    succeeds("umount $TMPDIR");
    mesh.wait_nothing_left(BOUND).unwrap();
}
