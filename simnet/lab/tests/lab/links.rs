//! Links: reaching, cutting, blocking, parting, slowing.

use crate::{eventually, lab, probe, reaches, reaches_soon, serve, try_probe};
use maelstrom_lab::{Direction, Lab, Shape};
use std::time::Duration;

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("hosts_reach_each_other", hosts_reach_each_other),
    ("a_cut_link_heals", a_cut_link_heals),
    (
        "a_blocked_direction_blocks_no_other",
        a_blocked_direction_blocks_no_other,
    ),
    (
        "a_partition_keeps_groups_apart",
        a_partition_keeps_groups_apart,
    ),
    (
        "multicast_reaches_all_unless_it_is_off",
        multicast_reaches_all_unless_it_is_off,
    ),
    (
        "a_slow_link_has_its_rate_and_latency",
        a_slow_link_has_its_rate_and_latency,
    ),
    ("a_silent_direction_is_silent", a_silent_direction_is_silent),
];

fn echoes(lab: &Lab) -> Vec<maelstrom_lab::Process> {
    let hosts = 1..=lab.hosts().len() as u8;
    hosts
        .map(|host| serve(lab, host, &["echo", "7000"]))
        .collect()
}

fn hosts_reach_each_other() {
    let lab = lab(3);
    let _echoes = echoes(&lab);
    for (from, to) in [(1, 2), (2, 3), (3, 1), (1, 1)] {
        assert!(reaches(&lab, from, to), "{from} to {to}");
    }
    if lab
        .on(1, "test")
        .args(["-e", "/proc/net/if_inet6"])
        .run(crate::BOUND)
        .unwrap()
        .exit
        .success()
    {
        try_probe(&lab, 1, &["ping", "[fd77::3]:7000", "20000"]).unwrap();
    } else {
        eprintln!("SKIP: this machine has no IPv6");
    }
    let outside = try_probe(&lab, 1, &["ping", "192.0.2.1:7000", "1000"]).unwrap_err();
    assert!(outside.contains("unreachable"), "{outside}");
}

fn a_cut_link_heals() {
    let lab = lab(2);
    let _echoes = echoes(&lab);
    assert!(reaches(&lab, 1, 2));
    lab.cut(2).unwrap();
    assert_eq!(lab.describe_link(2).as_deref(), Some("cut"));
    assert!(!reaches_soon(&lab, 1, 2));
    assert!(reaches(&lab, 2, 2));
    // A host that boots with its cable pulled stays so.
    lab.kill(2).unwrap();
    lab.boot(2).unwrap();
    let _echo = serve(&lab, 2, &["echo", "7000"]);
    assert!(!reaches_soon(&lab, 1, 2));
    lab.heal(2).unwrap();
    assert_eq!(lab.describe_link(2), None);
    assert!(reaches(&lab, 1, 2));
}

/// Whether a packet from one host arrives at another.
fn arrives(lab: &Lab, from: u8, to: u8) -> bool {
    let file = lab.directory().join(format!("{from}-{to}.pcap"));
    let capture = lab.capture(&file, Some(to)).unwrap();
    let text = format!("from {from} to {to}");
    let address = format!("10.77.0.{to}:9");
    for _ in 0..10 {
        // Refused once the first has arrived: nobody listens.
        let _ = try_probe(lab, from, &["udp", &address, &text]);
    }
    std::thread::sleep(Duration::from_millis(300));
    let captured = capture.finish().unwrap();
    captured.contains(format!("from {from} to {to}").as_bytes())
}

fn a_blocked_direction_blocks_no_other() {
    let lab = lab(3);
    let _echoes = echoes(&lab);
    // Hardware addresses are known, so that packets need no answer to be sent.
    assert!(reaches(&lab, 1, 2) && reaches(&lab, 1, 3) && reaches(&lab, 2, 3));
    lab.block(1, 2).unwrap();
    assert_eq!(lab.describe_link(2).as_deref(), Some("hears nothing of 1"));
    assert!(!reaches_soon(&lab, 1, 2));
    assert!(!reaches_soon(&lab, 2, 1), "answers are blocked");
    assert!(reaches(&lab, 1, 3));
    assert!(reaches(&lab, 2, 3) && reaches(&lab, 3, 2));
    assert!(arrives(&lab, 2, 1), "the other direction is open");
    lab.unblock(1, 2).unwrap();
    assert_eq!(lab.describe_link(2), None);
    assert!(reaches(&lab, 1, 2) && reaches(&lab, 2, 1));
}

fn a_partition_keeps_groups_apart() {
    let lab = lab(5);
    let _echoes = echoes(&lab);
    lab.partition(&[&[1, 2], &[3]]).unwrap();
    for (from, to, expected) in [
        (1, 2, true),
        (4, 5, true),
        (1, 3, false),
        (3, 4, false),
        (5, 2, false),
    ] {
        let reached = if expected {
            reaches(&lab, from, to)
        } else {
            reaches_soon(&lab, from, to)
        };
        assert_eq!(reached, expected, "{from} to {to}");
    }
    lab.partition(&[]).unwrap();
    assert!(reaches(&lab, 1, 3) && reaches(&lab, 5, 2));
}

fn multicast_reaches_all_unless_it_is_off() {
    let lab = lab(3);
    let _echoes = echoes(&lab);
    let _say = probe(&lab, 1, &["say", "anybody there?"]).spawn().unwrap();
    for host in [2, 3] {
        let heard = try_probe(&lab, host, &["hear", "20000"]).unwrap();
        assert_eq!(heard, "10.77.0.1 anybody there?\n");
    }
    lab.set_multicast(false).unwrap();
    eventually(|| try_probe(&lab, 2, &["hear", "500"]).is_err());
    assert!(reaches(&lab, 1, 2));
    lab.set_multicast(true).unwrap();
    try_probe(&lab, 2, &["hear", "20000"]).unwrap();
}

/// The milliseconds that so many bytes take from one host to another.
fn transfer_ms(lab: &Lab, from: u8, to: u8, bytes: u64) -> u64 {
    let _sink = serve(lab, to, &["sink", "7001"]);
    let address = format!("10.77.0.{to}:7001");
    let printed = try_probe(lab, from, &["send", &address, &bytes.to_string()]).unwrap();
    printed.trim().parse().unwrap()
}

fn a_slow_link_has_its_rate_and_latency() {
    let lab = lab(2);
    let _echoes = echoes(&lab);
    lab.shape(2, Direction::Both, Shape::slow(16, 30)).unwrap();
    let us: u64 = try_probe(&lab, 1, &["ping", "10.77.0.2:7000", "20000"])
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(us >= 60_000, "two ways of 30 ms in {us} µs");
    // 4 MB at 2 MB a second. A busy machine makes it longer, nothing shorter.
    let ms = transfer_ms(&lab, 1, 2, 4_000_000);
    assert!((1900..30_000).contains(&ms), "{ms} ms");
    lab.shape(2, Direction::Both, Shape::default()).unwrap();
    let ms = transfer_ms(&lab, 1, 2, 4_000_000);
    assert!(ms < 1900, "{ms} ms");
}

fn a_silent_direction_is_silent() {
    let lab = lab(2);
    let _echoes = echoes(&lab);
    assert!(reaches(&lab, 1, 2));
    lab.shape(2, Direction::FromHost, Shape::silent()).unwrap();
    assert!(!reaches_soon(&lab, 1, 2));
    assert!(arrives(&lab, 1, 2));
    lab.shape(2, Direction::FromHost, Shape::default()).unwrap();
    assert!(reaches(&lab, 1, 2));
}
