//! The three networks.

use crate::{
    Test,
    fixture::{Fixture, output},
};
use maelstrom_runtime::{JobNetwork, Privileges};
use std::net::TcpListener;

pub(crate) const TESTS: &[Test] = &[
    (
        "only_the_local_network_reaches_the_machine",
        only_local_reaches_the_machine,
    ),
    (
        "loopback_is_there_when_asked_for",
        loopback_is_there_when_asked_for,
    ),
    ("ports_are_free_in_every_job", ports_are_free_in_every_job),
    ("kinds_of_network_alternate", kinds_of_network_alternate),
];

fn only_local_reaches_the_machine(fixture: &Fixture) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    for (network, reaches) in [
        (JobNetwork::Disabled, "false\n"),
        (JobNetwork::Loopback, "false\n"),
        (JobNetwork::Local, "true\n"),
    ] {
        let mut job = fixture.job(&["connect", &port]);
        job.network = network;
        assert_eq!(fixture.output_of(&job), reaches, "{network:?}");
    }
}

fn loopback_is_there_when_asked_for(fixture: &Fixture) {
    for privileges in [Privileges::None, Privileges::Namespace] {
        let mut job = fixture.job(&["listen", "4567"]);
        job.privileges = privileges;
        job.network = JobNetwork::Loopback;
        assert_eq!(fixture.output_of(&job), "listened\n");
        job.arguments[1] = "connect".to_owned();
        job.network = JobNetwork::Disabled;
        assert_eq!(fixture.output_of(&job), "false\n");
    }
}

/// Also where the job before has left a connection in TIME-WAIT, or a process.
fn ports_are_free_in_every_job(fixture: &Fixture) {
    let mut slot = fixture.slot();
    for probe in [
        ["listen", "4568"],
        ["listen", "4568"],
        ["hold-port", "4568"],
    ] {
        let mut job = fixture.job(&probe);
        job.network = JobNetwork::Loopback;
        let said = output(slot.run(&job).map_err(|failed| failed.error));
        assert!(said == "listened\n" || said == "true\n", "{said}");
    }
}

fn kinds_of_network_alternate(fixture: &Fixture) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut slot = fixture.slot();
    for _ in 0..2 {
        for (network, reaches) in [
            (JobNetwork::Loopback, "false\n"),
            (JobNetwork::Local, "true\n"),
            (JobNetwork::Disabled, "false\n"),
        ] {
            let mut job = fixture.job(&["connect", &port]);
            job.network = network;
            let said = output(slot.run(&job).map_err(|failed| failed.error));
            assert_eq!(said, reaches, "{network:?}");
        }
    }
}
