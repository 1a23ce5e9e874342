//! What a job can see and do.

use crate::{
    Test,
    fixture::{Fixture, output},
};
use maelstrom_runtime::{ContainerMount, JobNetwork, Privileges, Root};
use std::{os::linux::net::SocketAddrExt, os::unix::net};

pub(crate) const TESTS: &[Test] = &[
    ("sees_only_its_layers", sees_only_its_layers),
    ("sees_only_its_processes", sees_only_its_processes),
    ("sees_only_its_environment", sees_only_its_environment),
    ("has_only_standard_streams", has_only_standard_streams),
    ("stdin_is_at_its_end", stdin_is_at_its_end),
    (
        "abstract_sockets_are_out_of_reach",
        abstract_sockets_are_out_of_reach,
    ),
    ("ids_are_as_asked", ids_are_as_asked),
    ("groups_end_at_the_container", groups_end_at_the_container),
    (
        "read_only_root_takes_no_writes",
        read_only_root_takes_no_writes,
    ),
    (
        "writes_vanish_with_the_container",
        writes_vanish_with_the_container,
    ),
    ("user_has_no_capabilities", user_has_no_capabilities),
    ("file_privileges_are_no_more", file_privileges_are_no_more),
    ("root_cannot_get_out", root_cannot_get_out),
    ("file_root_cannot_get_out", file_root_cannot_get_out),
    (
        "settings_of_the_machine_stay_as_they_are",
        settings_of_the_machine_stay_as_they_are,
    ),
    ("nested_namespaces_work", nested_namespaces_work),
    ("key_rings_are_refused", key_rings_are_refused),
    (
        "host_name_and_cgroup_say_nothing",
        host_name_and_cgroup_say_nothing,
    ),
];

const LAYER: &str = "dev file lib lib64 mnt probe proc sys tmp\n";

fn sees_only_its_layers(fixture: &Fixture) {
    assert_eq!(fixture.output_of(&fixture.job(&["list", "/"])), LAYER);
    let mut writable = fixture.job(&["list", "/"]);
    writable.root = Root::Discard;
    assert_eq!(fixture.output_of(&writable), LAYER);
}

fn sees_only_its_processes(fixture: &Fixture) {
    let names = fixture.output_of(&fixture.job(&["list", "/proc"]));
    let processes: Vec<_> = names
        .split_ascii_whitespace()
        .filter(|name| name.parse::<u32>().is_ok())
        .collect();
    assert_eq!(processes, ["1", "2"]);
}

fn sees_only_its_environment(fixture: &Fixture) {
    let mut job = fixture.job(&["environment"]);
    job.environment.push(("A".to_owned(), "b=c".to_owned()));
    assert_eq!(fixture.output_of(&job), "LD_LIBRARY_PATH=/lib\nA=b=c\n");
}

fn has_only_standard_streams(fixture: &Fixture) {
    // The fourth is the directory that is being listed.
    assert_eq!(
        fixture.output_of(&fixture.job(&["list", "/proc/self/fd"])),
        "0 1 2 3\n"
    );
}

fn stdin_is_at_its_end(fixture: &Fixture) {
    assert_eq!(fixture.output_of(&fixture.job(&["stdin"])), "0\n");
}

fn abstract_sockets_are_out_of_reach(fixture: &Fixture) {
    let name = format!("maelstrom-test-{}", std::process::id());
    let address = net::SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = net::UnixListener::bind_addr(&address).unwrap();
    let mut job = fixture.job(&["connect-abstract", &name]);
    assert_eq!(fixture.output_of(&job), "false\n");
    job.network = JobNetwork::Loopback;
    assert_eq!(fixture.output_of(&job), "false\n");
    job.network = JobNetwork::Local;
    assert_eq!(fixture.output_of(&job), "true\n");
}

fn ids_are_as_asked(fixture: &Fixture) {
    let mut job = fixture.job(&["ids"]);
    assert_eq!(fixture.output_of(&job), "1000 1001 2 true\n");
    (job.user, job.group) = (0, 0);
    assert_eq!(fixture.output_of(&job), "0 0 2 true\n");
}

/// As under `cargo test`, where the program is one of its group, but not the whole of it.
fn groups_end_at_the_container(fixture: &Fixture) {
    let mut slot = fixture.slot();
    let mut job = fixture.job(&["own-session"]);
    for (leads_session, may_lead) in [(false, "true\n"), (true, "false\n")] {
        job.leads_session = leads_session;
        let said = output(slot.run(&job).map_err(|failed| failed.error));
        assert_eq!(said, may_lead);
    }
}

fn read_only_root_takes_no_writes(fixture: &Fixture) {
    let denied = format!("Some({})\n", libc::EROFS);
    for user in [0, 1000] {
        let mut job = fixture.job(&["write", "/file"]);
        job.user = user;
        assert_eq!(fixture.output_of(&job), denied);
    }
}

fn writes_vanish_with_the_container(fixture: &Fixture) {
    let mut slot = fixture.slot();
    let mut job = |probe: &[&str]| {
        let mut job = fixture.job(probe);
        job.root = Root::Discard;
        output(slot.run(&job).map_err(|failed| failed.error))
    };
    assert_eq!(job(&["write", "/new"]), "written\n");
    assert_eq!(job(&["exists", "/new"]), "false\n");
    assert_eq!(job(&["write", "/file"]), "written\n");
    assert_eq!(job(&["read", "/file"]), "from the layer");
}

fn user_has_no_capabilities(fixture: &Fixture) {
    for (user, privileges) in [
        (1000, Privileges::None),
        (1000, Privileges::Namespace),
        (0, Privileges::None),
    ] {
        let mut job = fixture.job(&["status", "CapEff"]);
        job.user = user;
        job.privileges = privileges;
        assert_eq!(fixture.output_of(&job), "0000000000000000\n");
    }
    let no_new = fixture.job(&["status", "NoNewPrivs"]);
    assert_eq!(fixture.output_of(&no_new), "1\n");
}

fn file_privileges_are_no_more(fixture: &Fixture) {
    let mut job = fixture.job(&["status", "CapEff"]);
    job.user = 0;
    job.privileges = Privileges::Files;
    let effective = u64::from_str_radix(fixture.output_of(&job).trim(), 16).unwrap();
    let has = |number: u32| effective & (1 << number) != 0;
    // CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_SETUID
    assert!(has(0) && has(1) && has(7), "{effective:x}");
    // CAP_NET_ADMIN, CAP_SYS_MODULE, CAP_SYS_PTRACE, CAP_SYS_ADMIN
    assert!(
        !has(12) && !has(16) && !has(19) && !has(21),
        "{effective:x}"
    );
}

fn root_cannot_get_out(fixture: &Fixture) {
    cannot_get_out(fixture, Privileges::Namespace);
}

fn file_root_cannot_get_out(fixture: &Fixture) {
    cannot_get_out(fixture, Privileges::Files);
}

fn cannot_get_out(fixture: &Fixture, privileges: Privileges) {
    let mut job = fixture.job(&["become-root-of", "/file"]);
    (job.user, job.group, job.privileges) = (0, 0, privileges);
    job.mounts.push(ContainerMount::Tmp {
        mount_point: "/tmp".into(),
    });
    let said = fixture.output_of(&job);
    assert!(!said.contains("escaped"), "{said}");
    assert!(!said.contains("environment"), "{said}");
    for line in said.lines() {
        if let Some(root) = line.split_once(": ").map(|(_, root)| format!("{root}\n")) {
            assert_eq!(root, LAYER, "{said}");
        }
    }
    // What the layer holds is as it was.
    let file = fixture.layers_root().join("base/file");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "from the layer");
}

/// Root could write them in whatever namespace; so could whoever has the id of the root of a
/// network namespace that a slot keeps.
fn settings_of_the_machine_stay_as_they_are(fixture: &Fixture) {
    for path in [
        "/proc/sys/vm/stat_interval",
        "/proc/sys/kernel/panic",
        "/proc/sys/net/ipv4/ip_default_ttl",
        "/sys/kernel/mm/transparent_hugepage/enabled",
    ] {
        if !std::path::Path::new(path).exists() {
            continue;
        }
        let mut job = fixture.job(&["write", path]);
        (job.user, job.group, job.privileges) = (0, 0, Privileges::Files);
        job.network = JobNetwork::Loopback;
        job.mounts.push(ContainerMount::Sys {
            mount_point: "/sys".into(),
        });
        let said = fixture.output_of(&job);
        let denied = [libc::EROFS, libc::EACCES].map(|number| format!("Some({number})\n"));
        assert!(denied.contains(&said), "{path}: {said}");
    }
}

fn nested_namespaces_work(fixture: &Fixture) {
    assert_eq!(fixture.output_of(&fixture.job(&["nested"])), "nested\n");
}

fn key_rings_are_refused(fixture: &Fixture) {
    let said = fixture.output_of(&fixture.job(&["keyctl"]));
    assert!(said.contains("not permitted"), "{said}");
}

fn host_name_and_cgroup_say_nothing(fixture: &Fixture) {
    let name = fixture.job(&["read", "/proc/sys/kernel/hostname"]);
    assert_eq!(fixture.output_of(&name), "maelstrom\n");
    let groups = fixture.output_of(&fixture.job(&["read", "/proc/self/cgroup"]));
    assert!(!groups.contains("maelstrom"), "{groups}");
}
