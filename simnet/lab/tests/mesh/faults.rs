//! Hosts, links and daemons go away: each job is reported once, and nothing stays behind.

use crate::{BOUND, client, expect_all, meshed, runs_jobs};
use maelstrom_lab::{Exit, Signal};
use std::time::Duration;

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("a_killed_host_loses_no_job", a_killed_host_loses_no_job),
    ("a_run_outlives_all_its_peers", a_run_outlives_all_its_peers),
    (
        "a_run_outlives_the_daemon_beside_it",
        a_run_outlives_the_daemon_beside_it,
    ),
    ("a_cut_link_loses_no_job", a_cut_link_loses_no_job),
    ("a_paused_host_loses_no_job", a_paused_host_loses_no_job),
    (
        "a_node_that_is_told_to_end_gives_back",
        a_node_that_is_told_to_end_gives_back,
    ),
    ("ctrl_c_leaves_all_hosts_idle", ctrl_c_leaves_all_hosts_idle),
    (
        "a_killed_client_leaves_all_hosts_idle",
        a_killed_client_leaves_all_hosts_idle,
    ),
];

const COUNT: usize = 60;

fn a_killed_host_loses_no_job() {
    let mesh = meshed(4);
    let client = client(&mesh, COUNT, 300);
    runs_jobs(&mesh, 3);
    mesh.lab().kill(3).unwrap();
    expect_all(&client, COUNT);
    mesh.wait_idle(BOUND).unwrap();
}

fn a_run_outlives_all_its_peers() {
    let mesh = meshed(3);
    let client = client(&mesh, COUNT, 200);
    runs_jobs(&mesh, 2);
    runs_jobs(&mesh, 3);
    mesh.lab().kill(2).unwrap();
    mesh.lab().kill(3).unwrap();
    expect_all(&client, COUNT);
    mesh.wait_idle(BOUND).unwrap();
}

fn a_run_outlives_the_daemon_beside_it() {
    let mesh = meshed(3);
    mesh.start_node(1, 2, &[]).unwrap();
    mesh.wait_members(&[1, 2, 3], 2, BOUND).unwrap();
    let client = client(&mesh, COUNT, 300);
    runs_jobs(&mesh, 1);
    runs_jobs(&mesh, 2);
    let daemon = mesh.take_node(1).unwrap();
    daemon.signal(Signal::KILL).unwrap();
    expect_all(&client, COUNT);
    mesh.wait_idle(BOUND).unwrap();
}

fn a_cut_link_loses_no_job() {
    let mesh = meshed(3);
    let client = client(&mesh, COUNT, 300);
    runs_jobs(&mesh, 3);
    mesh.lab().cut(3).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    mesh.lab().heal(3).unwrap();
    expect_all(&client, COUNT);
    mesh.wait_idle(BOUND).unwrap();
}

fn a_paused_host_loses_no_job() {
    let mesh = meshed(3);
    let client = client(&mesh, COUNT, 300);
    runs_jobs(&mesh, 3);
    mesh.lab().pause(3).unwrap();
    expect_all(&client, COUNT);
    mesh.lab().resume(3).unwrap();
    mesh.wait_idle(BOUND).unwrap();
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
    mesh.wait_idle(BOUND).unwrap();
}

fn ctrl_c_leaves_all_hosts_idle() {
    let mesh = meshed(4);
    let client = client(&mesh, COUNT, 5_000);
    for host in 1..=4 {
        runs_jobs(&mesh, host);
    }
    client.signal_group(Signal::INT).unwrap();
    let time = mesh.wait_idle(BOUND).unwrap();
    println!("all hosts were idle {time:?} after Ctrl-C");
    assert_ne!(client.wait(BOUND).unwrap(), Exit::Code(0));
}

fn a_killed_client_leaves_all_hosts_idle() {
    let mesh = meshed(3);
    let client = client(&mesh, COUNT, 5_000);
    runs_jobs(&mesh, 2);
    runs_jobs(&mesh, 3);
    client.signal(Signal::KILL).unwrap();
    let time = mesh.wait_idle(BOUND).unwrap();
    println!("all hosts were idle {time:?} after the client was killed");
}
