//! Captures, and what can be asked of them.

use crate::{lab, reaches, serve, try_probe};
use maelstrom_lab::{Captured, Lab, LabConfig, LabError};

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "a_capture_holds_what_was_said",
        a_capture_holds_what_was_said,
    ),
    (
        "packets_to_the_outside_are_noticed",
        packets_to_the_outside_are_noticed,
    ),
    (
        "a_file_of_another_format_is_refused",
        a_file_of_another_format_is_refused,
    ),
];

fn a_capture_holds_what_was_said() {
    let lab = lab(3);
    let _echo = serve(&lab, 2, &["echo", "7000"]);
    let all = lab
        .capture(&lab.directory().join("all.pcap"), None)
        .unwrap();
    let third = lab
        .capture(&lab.directory().join("third.pcap"), Some(3))
        .unwrap();
    assert!(reaches(&lab, 1, 2));
    let all = all.finish().unwrap();
    assert!(
        all.count() > 5 && all.bytes() > 200 && all.lost() == 0,
        "{all:?}"
    );
    assert!(all.contains(b"hello, neighbour"));
    assert!(!all.contains(b"hello, stranger"));
    assert!(all.outsiders().is_empty(), "{:?}", all.outsiders());
    assert!(all.first_tcp_to(7000).is_some() && all.first_tcp_to(7001).is_none());
    assert!(!third.finish().unwrap().contains(b"hello, neighbour"));
}

fn packets_to_the_outside_are_noticed() {
    let config = LabConfig {
        gateway: true,
        ..LabConfig::new(2)
    };
    let lab = Lab::start(&config).unwrap();
    let capture = lab
        .capture(&lab.directory().join("all.pcap"), None)
        .unwrap();
    try_probe(&lab, 1, &["udp", "192.0.2.7:53", "hello, world"]).unwrap();
    let captured = capture.finish().unwrap();
    let expected = "UDP 10.77.0.1 → 192.0.2.7".to_owned();
    assert_eq!(
        captured.outsiders().into_iter().collect::<Vec<_>>(),
        [expected]
    );
}

fn a_file_of_another_format_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for content in ["", "text", "a longer text that is no capture at all"] {
        std::fs::write(file.path(), content).unwrap();
        let error = Captured::read(file.path()).unwrap_err();
        assert!(matches!(error, LabError::Step { .. }), "{error}");
    }
}
