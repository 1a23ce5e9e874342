//! File systems that one container after another gets.

use crate::{
    Test,
    fixture::{Fixture, output},
};
use maelstrom_runtime::{ContainerJob, ContainerMount, JobNetwork, Privileges, Root, Slot};
use maelstrom_spec::{Device, JobStatus};
use std::{collections::BTreeSet, time::Duration};

pub(crate) const TESTS: &[Test] = &[
    (
        "nothing_that_a_job_does_stays",
        nothing_that_a_job_does_stays,
    ),
    (
        "nothing_that_a_killed_job_does_stays",
        nothing_that_a_killed_job_does_stays,
    ),
    (
        "untouched_file_systems_are_used_again",
        untouched_file_systems_are_used_again,
    ),
    (
        "the_root_user_gets_out_of_no_kept_root",
        the_root_user_gets_out_of_no_kept_root,
    ),
];

fn job(fixture: &Fixture, probe: &[&str]) -> ContainerJob {
    let mut job = fixture.job(probe);
    job.root = Root::Discard;
    job.network = JobNetwork::Loopback;
    job.more_like_it = true;
    job.mounts.push(ContainerMount::Tmp {
        mount_point: "/tmp".into(),
    });
    job.mounts.push(ContainerMount::device(Device::Shm));
    job
}

fn run(slot: &mut Slot, job: &ContainerJob) -> String {
    output(slot.run(job).map_err(|failed| failed.error))
}

/// Ways to leave something behind, for the probe of this name.
const WAYS: &[&str] = &[
    "a file in the root",
    "a file that was in the root",
    "a change of a file",
    "a change of a file's mode",
    "no file",
    "another name",
    "a directory that was there",
    "the root's mode",
    "the root's owner",
    "the root's times",
    "an attribute of the root",
    "a look at the root",
    "a file in /tmp",
    "a file that was in /tmp",
    "the mode of /tmp",
    "an attribute of /tmp",
    "shared memory",
    "a socket",
    "a file that is held without a name",
];

fn nothing_that_a_job_does_stays(fixture: &Fixture) {
    for privileges in [Privileges::None, Privileges::Files] {
        let probe = |probe: &[&str]| {
            let mut job = job(fixture, probe);
            job.privileges = privileges;
            if privileges == Privileges::Files {
                (job.user, job.group) = (0, 0);
            }
            job
        };
        let mut slot = fixture.slot();
        let clean = run(&mut slot, &probe(&["everything"]));
        assert!(
            clean.contains("/tmp ") && clean.contains("/dev/shm "),
            "{clean}"
        );
        for way in WAYS {
            // Twice, since a slot has two sets of file systems.
            for _ in 0..2 {
                assert_eq!(
                    run(&mut slot, &probe(&["spoil", way])),
                    "spoiled\n",
                    "{way}"
                );
                assert_eq!(run(&mut slot, &probe(&["everything"])), clean, "{way}");
            }
            assert_eq!(run(&mut slot, &probe(&["everything"])), clean, "{way}");
        }
    }
}

fn nothing_that_a_killed_job_does_stays(fixture: &Fixture) {
    let mut slot = fixture.slot();
    let clean = run(&mut slot, &job(fixture, &["everything"]));
    for _ in 0..3 {
        let mut hangs = job(fixture, &["spoil", "a file in /tmp", "and hang"]);
        let mut timeout = Duration::from_millis(200);
        loop {
            hangs.timeout = Some(timeout);
            let outcome = slot.run(&hangs).map_err(|failed| failed.error).unwrap();
            assert_eq!(outcome.status, JobStatus::TimedOut);
            assert_eq!(run(&mut slot, &job(fixture, &["everything"])), clean);
            assert_eq!(run(&mut slot, &job(fixture, &["everything"])), clean);
            if outcome.effects.stdout.bytes() == b"spoiled\n" {
                break;
            }
            // The machine was too busy for it to come so far.
            timeout *= 2;
            assert!(timeout < Duration::from_secs(60), "it says nothing");
        }
    }
}

fn untouched_file_systems_are_used_again(fixture: &Fixture) {
    let mut slot = fixture.slot();
    // When a directory was made shows whether it is the same one.
    let mut seen = || {
        let seen = (0..6).map(|_| run(&mut slot, &job(fixture, &["when-made", "/"])));
        let seen: BTreeSet<_> = seen.collect();
        run(&mut slot, &job(fixture, &["write", "/new"]));
        run(&mut slot, &job(fixture, &["write", "/new"]));
        seen
    };
    let (first, second) = (seen(), seen());
    assert!(
        first.len() <= 2 && second.len() <= 2,
        "{first:?} {second:?}"
    );
    assert!(first.is_disjoint(&second), "{first:?} {second:?}");
}

fn the_root_user_gets_out_of_no_kept_root(fixture: &Fixture) {
    let mut slot = fixture.slot();
    for root in [Root::Discard, Root::ReadOnly] {
        for _ in 0..3 {
            let mut job = job(fixture, &["become-root-of", "/lower/file"]);
            job.privileges = Privileges::Files;
            (job.user, job.group) = (0, 0);
            job.root = root.clone();
            let said = run(&mut slot, &job);
            assert!(!said.contains("escaped"), "{said}");
            let after_chroot = said.lines().find(|line| line.starts_with("root after"));
            let after_chroot = after_chroot.expect("chroot was tried");
            assert!(after_chroot.contains("probe"), "{said}");
            assert!(!after_chroot.contains("kept"), "{said}");
        }
    }
}
