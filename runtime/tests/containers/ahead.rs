//! Containers that are made while the job before them runs.

use crate::{
    Test,
    fixture::{Fixture, all_processes, eventually, output, processes_with},
};
use maelstrom_runtime::{ContainerJob, ContainerMount, JobNetwork, Root, Slot};
use maelstrom_spec::JobStatus;
use std::{fs, path::PathBuf, time::Duration};

pub(crate) const TESTS: &[Test] = &[
    ("jobs_in_a_row_share_nothing", jobs_in_a_row_share_nothing),
    (
        "a_job_of_another_kind_gets_its_own_container",
        a_job_of_another_kind_gets_its_own_container,
    ),
    (
        "a_layer_that_was_made_anew_is_seen",
        a_layer_that_was_made_anew_is_seen,
    ),
    (
        "sockets_left_behind_reach_no_prepared_container",
        sockets_left_behind_reach_no_prepared_container,
    ),
    (
        "an_idle_slot_keeps_no_container",
        an_idle_slot_keeps_no_container,
    ),
    (
        "a_killed_job_does_not_spoil_the_next",
        a_killed_job_does_not_spoil_the_next,
    ),
];

fn job(fixture: &Fixture, probe: &[&str]) -> ContainerJob {
    let mut job = fixture.job(probe);
    job.root = Root::Discard;
    job.more_like_it = true;
    job
}

fn run(slot: &mut Slot, job: &ContainerJob) -> String {
    output(slot.run(job).map_err(|failed| failed.error))
}

fn jobs_in_a_row_share_nothing(fixture: &Fixture) {
    let mut slot = fixture.slot();
    for round in 0..5 {
        assert_eq!(
            run(&mut slot, &job(fixture, &["exists", "/new"])),
            "false\n"
        );
        assert_eq!(
            run(&mut slot, &job(fixture, &["write", "/new"])),
            "written\n"
        );
        // What differs from job to job is the job's own.
        let mut varied = job(fixture, &["environment"]);
        varied
            .environment
            .push(("ROUND".to_owned(), round.to_string()));
        let said = run(&mut slot, &varied);
        assert!(said.contains(&format!("ROUND={round}\n")), "{said}");
        let processes = run(&mut slot, &job(fixture, &["list", "/proc"]));
        let numbers = processes
            .split(' ')
            .filter(|name| name.parse::<u32>().is_ok());
        assert_eq!(numbers.collect::<Vec<_>>(), ["1", "2"]);
        let descriptors = run(&mut slot, &job(fixture, &["list", "/proc/self/fd"]));
        assert_eq!(descriptors, "0 1 2 3\n");
    }
}

fn a_job_of_another_kind_gets_its_own_container(fixture: &Fixture) {
    let mut slot = fixture.slot();
    let usual = job(fixture, &["exists", "/tmp/new"]);
    let mut read_only = job(fixture, &["write", "/new"]);
    read_only.root = Root::ReadOnly;
    let mut other_user = job(fixture, &["ids"]);
    (other_user.user, other_user.group) = (7, 8);
    let mut other_mounts = job(fixture, &["write", "/tmp/new"]);
    other_mounts.mounts.push(ContainerMount::Tmp {
        mount_point: "/tmp".into(),
    });
    let mut loopback = job(fixture, &["listen", "4569"]);
    loopback.network = JobNetwork::Loopback;
    let mut elsewhere = job(fixture, &["environment"]);
    elsewhere.working_directory = PathBuf::from("/lib");
    for _ in 0..3 {
        assert_eq!(run(&mut slot, &usual), "false\n");
        let denied = format!("Some({})\n", libc::EROFS);
        assert_eq!(run(&mut slot, &read_only), denied);
        assert_eq!(run(&mut slot, &other_user), "7 8 2 true\n");
        assert_eq!(run(&mut slot, &other_mounts), "written\n");
        run(&mut slot, &loopback);
        run(&mut slot, &elsewhere);
    }
}

fn a_layer_that_was_made_anew_is_seen(fixture: &Fixture) {
    let layer = tempfile::tempdir_in(fixture.layers_root()).unwrap();
    let layer = layer.path().join("layer");
    let make = |text: &str| {
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join("changing"), text).unwrap();
    };
    let mut slot = fixture.slot();
    let mut reader = job(fixture, &["read", "/changing"]);
    reader.layers.push(layer.clone());
    make("first");
    assert_eq!(run(&mut slot, &reader), "first");
    fs::remove_dir_all(&layer).unwrap();
    make("second");
    assert_eq!(run(&mut slot, &reader), "second");
}

fn sockets_left_behind_reach_no_prepared_container(fixture: &Fixture) {
    let mut slot = fixture.slot();
    for _ in 0..3 {
        let mut job = job(fixture, &["listen", "4570"]);
        job.network = JobNetwork::Loopback;
        assert_eq!(run(&mut slot, &job), "listened\n");
    }
}

fn an_idle_slot_keeps_no_container(fixture: &Fixture) {
    let mut slot = fixture.slot();
    let marker = format!("IDLE_SLOT_{}", std::process::id());
    let mut sleeper = job(fixture, &["sleep"]);
    sleeper.environment.push((marker.clone(), String::new()));
    let canceller = slot.canceller();
    let process = std::thread::scope(|scope| {
        scope.spawn(|| slot.run(&sleeper));
        eventually("the job runs", || !processes_with(&marker).is_empty());
        let init = parent(processes_with(&marker)[0]).unwrap();
        let process = parent(init).unwrap();
        eventually("the next container is being made", || {
            children(process).iter().any(|child| *child != init)
        });
        canceller.cancel();
        process
    });
    eventually("nothing is kept", || children(process).is_empty());
    // And the slot goes on.
    slot.arm();
    assert_eq!(
        run(&mut slot, &job(fixture, &["exists", "/new"])),
        "false\n"
    );
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

fn children(pid: u32) -> Vec<u32> {
    let is_child = |child: &u32| parent(*child) == Some(pid);
    all_processes().into_iter().filter(is_child).collect()
}

fn a_killed_job_does_not_spoil_the_next(fixture: &Fixture) {
    let mut slot = fixture.slot();
    for _ in 0..3 {
        let mut hangs = job(fixture, &["sleep"]);
        hangs.timeout = Some(Duration::from_millis(50));
        let outcome = slot.run(&hangs).map_err(|failed| failed.error).unwrap();
        assert_eq!(outcome.status, JobStatus::TimedOut);
        // Time that went into making a container is no job's time.
        let outcome = slot
            .run(&job(fixture, &["exit", "3"]))
            .map_err(|failed| failed.error)
            .unwrap();
        assert_eq!(outcome.status, JobStatus::Exited(3));
    }
}
