//! Nodes find each other, with nothing configured but the key they share.

use crate::{BOUND, client, expect_all, mesh, runs_jobs};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("five_hosts_find_each_other", five_hosts_find_each_other),
    (
        "one_address_is_enough_without_multicast",
        one_address_is_enough_without_multicast,
    ),
    (
        "a_client_without_peers_runs_its_jobs",
        a_client_without_peers_runs_its_jobs,
    ),
];

fn five_hosts_find_each_other() {
    let mesh = mesh(5);
    let hosts = [1, 2, 3, 4, 5];
    for host in hosts {
        mesh.start_node(host, 1, &[]).unwrap();
    }
    let time = mesh.wait_members(&hosts, 4, BOUND).unwrap();
    println!("five hosts found each other {time:?} after the last had started");
    let names: Vec<_> = mesh.status(1).unwrap()["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| member["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["host2", "host3", "host4", "host5"]);
}

fn one_address_is_enough_without_multicast() {
    let mesh = mesh(4);
    mesh.lab().set_multicast(false).unwrap();
    mesh.start_node(2, 2, &[]).unwrap();
    for host in [3, 4] {
        mesh.start_node(host, 2, &["--join", "10.77.0.2"]).unwrap();
    }
    mesh.wait_members(&[2, 3, 4], 2, BOUND).unwrap();
    // A client that knows one address reaches all.
    let durations = std::iter::repeat_n(std::time::Duration::from_millis(500), 80);
    let jobs = maelstrom_lab::mesh::jobs::sleeping(durations);
    let client = mesh.client(1, 1, &jobs).unwrap();
    let client = client.args(["--join", "10.77.0.2:7357"]).spawn().unwrap();
    for host in [2, 3, 4] {
        runs_jobs(&mesh, host);
    }
    expect_all(&client, 80);
}

fn a_client_without_peers_runs_its_jobs() {
    let mesh = mesh(2);
    mesh.start_node(2, 1, &[]).unwrap();
    mesh.lab().kill(2).unwrap();
    expect_all(&client(&mesh, 4, 10), 4);
}
