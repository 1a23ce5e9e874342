//! Forks that are used again: that a job cannot tell, whatever the job before it did.

use crate::{
    Test,
    fixture::Fixture,
    templates::{forked, outcome, said},
};
use maelstrom_runtime::{ContainerJob, ContainerMount, Slot};
use maelstrom_spec::JobStatus;
use std::time::Duration;

pub(crate) const TESTS: &[Test] = &[
    ("a_fork_is_used_again", a_fork_is_used_again),
    ("a_rewound_fork_is_as_it_was", a_rewound_fork_is_as_it_was),
    (
        "what_leaves_a_trace_is_used_once",
        what_leaves_a_trace_is_used_once,
    ),
    ("output_goes_to_its_job", output_goes_to_its_job),
    (
        "rewound_forks_fail_like_others",
        rewound_forks_fail_like_others,
    ),
    ("much_memory_is_rewound", much_memory_is_rewound),
    (
        "a_template_outlives_its_rewound_forks",
        a_template_outlives_its_rewound_forks,
    ),
];

fn job(fixture: &Fixture, probe: &[&str]) -> ContainerJob {
    let mut job = forked(fixture, &["rewind"], probe);
    job.mounts.push(ContainerMount::Tmp {
        mount_point: "/tmp".into(),
    });
    job
}

/// An ordinary one, and root.
const USERS: [u32; 2] = [1000, 0];

fn job_of(user: u32, fixture: &Fixture, probe: &[&str]) -> ContainerJob {
    ContainerJob {
        user,
        group: user,
        ..job(fixture, probe)
    }
}

/// When the process was started that runs a job now.
fn birth(slot: &mut Slot, fixture: &Fixture) -> String {
    said(slot, &job(fixture, &["birth"]))
}

/// Whether the kernel has what this takes.
fn can_rewind(fixture: &Fixture) -> bool {
    let mut slot = fixture.slot();
    let first = birth(&mut slot, fixture);
    // Processes are born at ticks of ten milliseconds.
    std::thread::sleep(Duration::from_millis(30));
    let can = first == birth(&mut slot, fixture);
    if !can {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split('.').map(|number| number.parse().unwrap_or(0));
        let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        assert!(
            version < (6, 7) || cfg!(not(target_arch = "x86_64")),
            "Linux {release} can rewind processes, and no fork was used again"
        );
        println!("SKIPPED: Linux {release} cannot rewind processes (6.7 can, on x86-64)");
    }
    can
}

fn a_fork_is_used_again(fixture: &Fixture) {
    if !can_rewind(fixture) {
        return;
    }
    let mut slot = fixture.slot();
    let first = birth(&mut slot, fixture);
    for _ in 0..20 {
        assert_eq!(birth(&mut slot, fixture), first);
    }
    // It is for jobs of the same kind only.
    let mut other = job(fixture, &["birth"]);
    other.outputs = vec!["/tmp/*.txt".to_owned()];
    std::thread::sleep(Duration::from_millis(30));
    assert_ne!(said(&mut slot, &other), first);
}

/// All that a job can easily see of itself and its container.
fn state(slot: &mut Slot, fixture: &Fixture) -> String {
    said(slot, &job(fixture, &["state"]))
}

/// What vanishes with memory and descriptors.
const FORGOTTEN: &[&str] = &[
    "nothing",
    "a changed variable",
    "memory",
    "large memory",
    "a changed environment",
    "a file that is open",
    "a file without a name",
    "a pipe",
    "a pair of sockets",
    "an event loop",
    "another standard stream",
    "no standard input",
    "blocked signals",
    "a file",
    "a directory",
    "many files",
    "a file that is mapped",
    "a file that is locked",
    "a socket that has no name",
];

/// What the kernel remembers.
const REMEMBERED: &[&str] = &[
    "a file in the root",
    "a changed file of a layer",
    "no file of a layer",
    "a setting",
    "a setting by a link to it",
    "a setting by the number of a descriptor",
    "a socket that has a name",
    "another directory",
    "another directory in memory",
    "a mask for files",
    "a limit",
    "a signal handler",
    "an ignored signal",
    "a timer",
    "a thread",
    "a process",
    "another name",
    "a lower priority",
    "one processor",
    "a socket",
    "other flags of a stream",
    "memory that was there made read-only",
    "memory that was there dropped",
    "memory that was there replaced",
    "memory that was there moved",
    "shared memory",
    "a message queue",
    "a session",
    "no core dumps",
];

fn a_rewound_fork_is_as_it_was(fixture: &Fixture) {
    if !can_rewind(fixture) {
        return;
    }
    for user in USERS {
        let mut slot = fixture.slot();
        let mut says = |probe: &[&str]| said(&mut slot, &job_of(user, fixture, probe));
        let pristine = says(&["state"]);
        let first = says(&["birth"]);
        for way in FORGOTTEN {
            for _ in 0..3 {
                says(&["leave", way]);
                assert_eq!(says(&["state"]), pristine, "{way}");
            }
            assert_eq!(says(&["birth"]), first, "{way}");
        }
    }
}

fn what_leaves_a_trace_is_used_once(fixture: &Fixture) {
    for user in USERS {
        let mut slot = fixture.slot();
        let mut says = |probe: &[&str]| said(&mut slot, &job_of(user, fixture, probe));
        let pristine = says(&["state"]);
        for way in REMEMBERED.iter().chain(FORGOTTEN) {
            says(&["leave", way]);
            assert_eq!(says(&["state"]), pristine, "{way}");
            says(&["leave", way]);
            says(&["leave", way]);
            assert_eq!(says(&["state"]), pristine, "{way}");
        }
    }
}

fn output_goes_to_its_job(fixture: &Fixture) {
    let mut slot = fixture.slot();
    // More than a pipe holds, and nothing.
    for bytes in ["0", "300000", "5", "0", "70000"] {
        let printed = said(&mut slot, &job(fixture, &["print", bytes]));
        assert_eq!(printed.len(), bytes.parse::<usize>().unwrap());
    }
    let mut short = job(fixture, &["print", "5000"]);
    short.inline_limit_bytes = 100;
    assert_eq!(outcome(&mut slot, &short).effects.stdout.bytes().len(), 100);
    assert_eq!(
        said(&mut slot, &job(fixture, &["print", "5000"])).len(),
        5000
    );
}

fn rewound_forks_fail_like_others(fixture: &Fixture) {
    let mut slot = fixture.slot();
    for _ in 0..2 {
        for (probe, status) in [
            (&["ok"][..], JobStatus::Exited(0)),
            (&["exit", "7"], JobStatus::Exited(7)),
            (&["ok"], JobStatus::Exited(0)),
            (&["fault"], JobStatus::Signaled(11)),
            (&["ok"], JobStatus::Exited(0)),
            (&["signal", "9"], JobStatus::Signaled(9)),
            (&["exit", "255"], JobStatus::Exited(255)),
        ] {
            let ended = outcome(&mut slot, &job(fixture, probe));
            assert_eq!(ended.status, status, "{probe:?}");
            assert_eq!(ended.effects.notes, Vec::<String>::new());
        }
        let mut hangs = job(fixture, &["sleep"]);
        hangs.timeout = Some(Duration::from_millis(200));
        assert_eq!(outcome(&mut slot, &hangs).status, JobStatus::TimedOut);
    }
}

fn much_memory_is_rewound(fixture: &Fixture) {
    let mut slot = fixture.slot();
    let pristine = state(&mut slot, fixture);
    // More than is kept of a process.
    for mebibytes in ["20", "200"] {
        for _ in 0..2 {
            said(&mut slot, &job(fixture, &["scribble", mebibytes]));
            assert_eq!(state(&mut slot, fixture), pristine);
        }
    }
}

fn a_template_outlives_its_rewound_forks(fixture: &Fixture) {
    let mut slot = fixture.slot();
    let prepared = said(&mut slot, &job(fixture, &["prepared"]));
    for _ in 0..3 {
        assert_eq!(said(&mut slot, &job(fixture, &["prepared"])), prepared);
        said(&mut slot, &job(fixture, &["leave", "a file"]));
        outcome(&mut slot, &job(fixture, &["fault"]));
        // In between, forks as of templates that cannot rewind.
        let mut other = job(fixture, &["prepared"]);
        other.outputs = vec!["/tmp/*.txt".to_owned()];
        assert_eq!(said(&mut slot, &other), prepared);
    }
}
