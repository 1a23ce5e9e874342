//! Whoever lacks the key learns nothing, and nothing leaves the network.

use crate::{BOUND, client, eventually, expect_all, mesh, meshed};
use maelstrom_lab::mesh::jobs;
use std::fs;

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("what_is_sent_tells_nothing", what_is_sent_tells_nothing),
    (
        "a_node_with_another_key_stays_outside",
        a_node_with_another_key_stays_outside,
    ),
];

fn what_is_sent_tells_nothing() {
    let mesh = mesh(3);
    let file = mesh.lab().directory().join("all.pcap");
    let capture = mesh.lab().capture(&file, None).unwrap();
    for host in [2, 3] {
        mesh.start_node(host, 2, &["--label", "a-label-that-tells"])
            .unwrap();
    }
    mesh.wait_members(&[2, 3], 1, BOUND).unwrap();
    expect_all(&client(&mesh, 30, 100), 30);
    mesh.wait_idle(BOUND).unwrap();
    let captured = capture.finish().unwrap();
    assert_eq!(captured.lost(), 0);
    // Jobs did go over the network.
    assert!(captured.bytes() > 10_000, "{} bytes", captured.bytes());
    let outsiders = captured.outsiders();
    assert!(outsiders.is_empty(), "{outsiders:?}");
    let key = fs::read_to_string(mesh.key_file(mesh.lab().host(2).unwrap())).unwrap();
    for secret in [
        jobs::MARK,
        "sleep 0.1",
        "echo job",
        "job 1",
        "host2",
        "host3",
        "a-label-that-tells",
        key.trim(),
    ] {
        assert!(
            !captured.contains(secret.as_bytes()),
            "\"{secret}\" is in clear"
        );
    }
}

fn a_node_with_another_key_stays_outside() {
    let mesh = meshed(4);
    // Host 4 makes a key of its own.
    let stranger = mesh.take_node(4).unwrap();
    stranger.signal(maelstrom_lab::Signal::KILL).unwrap();
    stranger.wait(BOUND).unwrap();
    fs::remove_file(mesh.key_file(mesh.lab().host(4).unwrap())).unwrap();
    let members = mesh.members(2);
    mesh.start_node(4, 2, &["--join", "10.77.0.2"]).unwrap();
    expect_all(&client(&mesh, 20, 50), 20);
    eventually("host 2 tells of the stranger", || {
        let status = mesh.status(2).unwrap();
        let refused = status["refused"].as_array().unwrap();
        refused
            .iter()
            .any(|refusal| refusal.to_string().contains("10.77.0.4"))
    });
    assert_eq!(mesh.members(4), 0);
    assert!(mesh.members(2) <= members);
}
