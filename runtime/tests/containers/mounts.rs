//! Everything that can be mounted, and what is said when it cannot.

use crate::{Test, fixture::Fixture};
use maelstrom_runtime::{ContainerMount, JobNetwork, Privileges, Root};
use maelstrom_spec::{Device, JobError};
use std::{fs, path::PathBuf};

pub(crate) const TESTS: &[Test] = &[
    ("every_kind_of_mount_works", every_kind_of_mount_works),
    (
        "missing_mount_points_are_named",
        missing_mount_points_are_named,
    ),
    ("binds_read_and_write", binds_read_and_write),
    (
        "read_only_binds_stay_read_only",
        read_only_binds_stay_read_only,
    ),
    (
        "shared_memory_is_not_shared_between_jobs",
        shared_memory_is_not_shared,
    ),
    ("changes_are_captured", changes_are_captured),
    ("later_layers_win", later_layers_win),
    ("many_layers_stack", many_layers_stack),
];

fn at(path: &str) -> PathBuf {
    path.into()
}

fn every_kind_of_mount_works(fixture: &Fixture) {
    let mut mounts = vec![
        ContainerMount::Sys {
            mount_point: at("/sys"),
        },
        ContainerMount::Tmp {
            mount_point: at("/tmp"),
        },
        ContainerMount::Mqueue {
            mount_point: at("/mnt"),
        },
        ContainerMount::Devpts {
            mount_point: at("/dev/pts"),
        },
    ];
    let devices = [
        Device::Full,
        Device::Null,
        Device::Random,
        Device::Shm,
        Device::Tty,
        Device::Urandom,
        Device::Zero,
    ];
    mounts.extend(devices.map(ContainerMount::device));
    for (privileges, user) in [(Privileges::None, 1000), (Privileges::Namespace, 0)] {
        let with_mounts = |probe: &[&str]| {
            let mut job = fixture.job(probe);
            (job.privileges, job.user) = (privileges, user);
            job.mounts.extend(mounts.clone());
            fixture.output_of(&job)
        };
        assert_eq!(with_mounts(&["write", "/tmp/x"]), "written\n");
        assert_eq!(with_mounts(&["write", "/dev/null"]), "written\n");
        assert_eq!(
            with_mounts(&["write", "/dev/full"]),
            format!("Some({})\n", libc::ENOSPC)
        );
        assert_eq!(with_mounts(&["exists", "/dev/pts/ptmx"]), "true\n");
        // Only the network that the job sees shows.
        assert_eq!(with_mounts(&["list", "/sys/class/net"]), "lo\n");
    }
}

fn missing_mount_points_are_named(fixture: &Fixture) {
    for (mount, is_the_jobs_fault) in [
        (
            ContainerMount::Tmp {
                mount_point: at("/nowhere"),
            },
            false,
        ),
        (
            ContainerMount::Proc {
                mount_point: at("/nowhere"),
            },
            false,
        ),
        (
            ContainerMount::Bind {
                mount_point: at("/nowhere"),
                source: at("/"),
                read_only: true,
            },
            true,
        ),
        (ContainerMount::device(Device::Fuse), true),
    ] {
        let mut job = fixture.job(&["ok"]);
        job.mounts.push(mount.clone());
        match (fixture.run(&job), is_the_jobs_fault) {
            (Err(JobError::Execution(message)), true) | (Err(JobError::System(message)), false) => {
                assert!(message.contains("stubs = ["), "{message}");
            }
            (other, _) => panic!("{mount:?}: {other:?}"),
        }
    }
    let mut job = fixture.job(&["ok"]);
    job.mounts.push(ContainerMount::Bind {
        mount_point: at("/mnt"),
        source: at("/nowhere/at/all"),
        read_only: false,
    });
    match fixture.run(&job) {
        Err(JobError::Execution(message)) => {
            assert!(message.contains("/nowhere/at/all"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

fn binds_read_and_write(fixture: &Fixture) {
    let scratch = fixture.scratch();
    fs::write(scratch.path().join("there"), "hello").unwrap();
    let mut job = fixture.job(&["read", "/mnt/there"]);
    job.mounts.push(ContainerMount::Bind {
        mount_point: at("/mnt"),
        source: scratch.path().to_path_buf(),
        read_only: false,
    });
    assert_eq!(fixture.output_of(&job), "hello");
    job.arguments = ["probe", "write", "/mnt/new"].map(str::to_owned).to_vec();
    assert_eq!(fixture.output_of(&job), "written\n");
    assert_eq!(
        fs::read_to_string(scratch.path().join("new")).unwrap(),
        "written"
    );
    // A single file.
    let mut job = fixture.job(&["read", "/file"]);
    job.mounts.push(ContainerMount::Bind {
        mount_point: at("/file"),
        source: scratch.path().join("there"),
        read_only: true,
    });
    assert_eq!(fixture.output_of(&job), "hello");
}

fn read_only_binds_stay_read_only(fixture: &Fixture) {
    let scratch = fixture.scratch();
    for (user, privileges) in [(1000, Privileges::None), (0, Privileges::Namespace)] {
        let mut job = fixture.job(&["write", "/mnt/new"]);
        (job.user, job.privileges) = (user, privileges);
        job.mounts.push(ContainerMount::Bind {
            mount_point: at("/mnt"),
            source: scratch.path().to_path_buf(),
            read_only: true,
        });
        assert_eq!(fixture.output_of(&job), format!("Some({})\n", libc::EROFS));
    }
    assert!(!scratch.path().join("new").exists());
}

fn shared_memory_is_not_shared(fixture: &Fixture) {
    let mut job = fixture.job(&["write", "/dev/shm/x"]);
    job.mounts.push(ContainerMount::device(Device::Shm));
    assert_eq!(fixture.output_of(&job), "written\n");
    job.arguments = ["probe", "list", "/dev/shm"].map(str::to_owned).to_vec();
    assert_eq!(fixture.output_of(&job), "\n");
}

fn changes_are_captured(fixture: &Fixture) {
    let scratch = fixture.scratch();
    let (upper, work) = (scratch.path().join("upper"), scratch.path().join("work"));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    let mut job = fixture.job(&["write", "/mnt/new"]);
    job.root = Root::Capture {
        upper: upper.clone(),
        work,
    };
    assert_eq!(fixture.output_of(&job), "written\n");
    assert_eq!(
        fs::read_to_string(upper.join("mnt/new")).unwrap(),
        "written"
    );
}

fn layer(fixture: &Fixture, name: &str, content: &str) -> PathBuf {
    let layer = fixture.layers_root().join(name);
    fs::create_dir_all(&layer).unwrap();
    fs::write(layer.join("file"), content).unwrap();
    layer
}

fn later_layers_win(fixture: &Fixture) {
    let mut job = fixture.job(&["read", "/file"]);
    job.layers.push(layer(fixture, "first", "first"));
    job.layers.push(layer(fixture, "second", "second"));
    assert_eq!(fixture.output_of(&job), "second");
    job.layers.swap(1, 2);
    assert_eq!(fixture.output_of(&job), "first");
}

fn many_layers_stack(fixture: &Fixture) {
    let mut job = fixture.job(&["read", "/file"]);
    for index in 0..100 {
        let name = format!("layer {index}, with: odd \"characters\"");
        job.layers.push(layer(fixture, &name, &index.to_string()));
    }
    job.network = JobNetwork::Loopback;
    assert_eq!(fixture.output_of(&job), "99");
}
