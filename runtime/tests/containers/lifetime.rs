//! That nothing outlives its job, its slot or its client.

use crate::{
    Test,
    fixture::{self, Fixture, all_processes, eventually, processes_with},
};
use maelstrom_runtime::{FindingResult, Launcher, check};
use maelstrom_spec::{JobError, JobStatus};
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

pub(crate) const TESTS: &[Test] = &[
    (
        "what_a_job_leaves_behind_is_ended",
        what_a_job_leaves_behind_is_ended,
    ),
    ("a_job_can_be_cancelled", a_job_can_be_cancelled),
    (
        "a_cancellation_before_the_start_counts",
        a_cancellation_before_the_start_counts,
    ),
    ("a_timeout_ends_a_fork_bomb", a_timeout_ends_a_fork_bomb),
    (
        "a_job_has_a_limited_number_of_processes",
        a_job_has_a_limited_number_of_processes,
    ),
    ("a_dropped_slot_ends_its_job", a_dropped_slot_ends_its_job),
    (
        "a_killed_client_leaves_nothing",
        a_killed_client_leaves_nothing,
    ),
    (
        "an_ordinary_user_needs_no_privileges",
        an_ordinary_user_needs_no_privileges,
    ),
    (
        "this_machine_passes_its_own_check",
        this_machine_passes_its_own_check,
    ),
];

/// A text that only the processes of one test have in their environment.
fn marker() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("MAELSTROM_TEST_MARKER={}.{number};", std::process::id())
}

fn marked(fixture: &Fixture, probe: &[&str], marker: &str) -> maelstrom_runtime::ContainerJob {
    let mut job = fixture.job(probe);
    let (name, value) = marker.split_once('=').unwrap();
    job.environment.push((name.to_owned(), value.to_owned()));
    job
}

fn what_a_job_leaves_behind_is_ended(fixture: &Fixture) {
    let marker = marker();
    let job = marked(fixture, &["leave-behind"], &marker);
    let said = fixture.output_of(&job);
    assert!(said.lines().any(|line| line == "left"), "{said}");
    // At once, not eventually: the report comes after the last process.
    assert_eq!(processes_with(&marker), Vec::<u32>::new());
}

fn a_job_can_be_cancelled(fixture: &Fixture) {
    let marker = marker();
    let job = marked(fixture, &["sleep"], &marker);
    let mut slot = fixture.slot();
    let canceller = slot.canceller();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            eventually("the job runs", || !processes_with(&marker).is_empty());
            canceller.cancel();
        });
        let failed = slot.run(&job).unwrap_err();
        assert_eq!((failed.error, failed.fatal), (JobError::Cancelled, false));
    });
    assert_eq!(processes_with(&marker), Vec::<u32>::new());
    slot.arm();
    assert!(slot.run(&fixture.job(&["ok"])).is_ok());
}

fn a_cancellation_before_the_start_counts(fixture: &Fixture) {
    let mut slot = fixture.slot();
    slot.arm();
    slot.canceller().cancel();
    let failed = slot.run(&fixture.job(&["sleep"])).unwrap_err();
    assert_eq!(failed.error, JobError::Cancelled);
}

fn a_timeout_ends_a_fork_bomb(fixture: &Fixture) {
    let marker = marker();
    let mut job = marked(fixture, &["fork-bomb"], &marker);
    job.timeout = Some(Duration::from_millis(300));
    let outcome = fixture.run(&job).unwrap();
    assert_eq!(outcome.status, JobStatus::TimedOut);
    assert_eq!(processes_with(&marker), Vec::<u32>::new());
}

fn a_job_has_a_limited_number_of_processes(fixture: &Fixture) {
    let limited = fixture.output_of(&fixture.job(&["crowd", "6000"]));
    let made: u32 = limited.trim().parse().unwrap();
    // SAFETY: asks for this process's user.
    let is_root = unsafe { libc::geteuid() } == 0;
    let has_cgroups = !check(&fixture.launcher).unwrap().iter().any(|finding| {
        matches!(&finding.result, FindingResult::Absent { consequence }
            if consequence.contains("fork bomb"))
    });
    if is_root && !has_cgroups {
        eprintln!("SKIPPED: root has no limit on processes without control groups");
    } else {
        assert!((1000..5000).contains(&made), "{made}");
    }
}

fn a_dropped_slot_ends_its_job(fixture: &Fixture) {
    let marker = marker();
    let job = marked(fixture, &["sleep"], &marker);
    let mut slot = fixture.slot();
    let canceller = slot.canceller();
    std::thread::scope(|scope| {
        let running = scope.spawn(move || slot.run(&job));
        eventually("the job runs", || !processes_with(&marker).is_empty());
        canceller.cancel();
        assert!(running.join().unwrap().is_err());
    });
    eventually("the job ends", || processes_with(&marker).is_empty());
}

/// A client in a process of its own, which runs a job and says what came of it.
pub(crate) fn client(arguments: &[String]) {
    let [layers_root, marker, probe] = arguments else {
        panic!("a client takes three arguments");
    };
    let launcher = Launcher::start().unwrap();
    println!("client");
    let layers_root = Path::new(layers_root);
    let mut slot = launcher.slot(layers_root.to_path_buf()).unwrap();
    let mut job = fixture::job(layers_root, &[probe]);
    if let Some((name, value)) = marker.split_once('=') {
        job.environment.push((name.to_owned(), value.to_owned()));
    }
    match slot.run(&job) {
        Ok(outcome) => println!("{:?}", outcome.status),
        Err(failed) => println!("{}", failed.error),
    }
}

fn client_command(fixture: &Fixture, marker: &str, probe: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["client".as_ref(), fixture.layers_root().as_os_str()])
        .args([marker, probe])
        // The processes between the client and the job have the client's environment.
        .env_clear()
        .stdout(Stdio::piped());
    command
}

fn a_killed_client_leaves_nothing(fixture: &Fixture) {
    let marker = marker();
    let (name, value) = marker.split_once('=').unwrap();
    let mut client = client_command(fixture, &marker, "sleep")
        .env(name, value)
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(client.stdout.take().unwrap())
        .read_line(&mut said)
        .unwrap();
    // Client, launcher, slot, program; init does not let itself be looked at.
    eventually("the job runs", || processes_with(&marker).len() >= 4);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = namespaces_of(std::process::id());
    let theirs: BTreeSet<PathBuf> = processes_with(&marker)
        .into_iter()
        .flat_map(namespaces_of)
        .filter(|namespace| !ours.contains(namespace))
        .collect();
    assert!(theirs.len() >= 5, "{theirs:?}");
    client.kill().unwrap();
    assert_eq!(client.wait().unwrap().signal(), Some(libc::SIGKILL));
    eventually("everything has ended", || {
        processes_with(&marker).is_empty()
    });
    eventually("no process is left in its namespaces", || {
        all_processes()
            .into_iter()
            .flat_map(namespaces_of)
            .all(|namespace| !theirs.contains(&namespace))
    });
    assert_eq!(
        std::fs::read_to_string("/proc/self/mountinfo").unwrap(),
        mounts
    );
    let groups: Vec<PathBuf> = cgroups_of_launchers_that_are_gone();
    eventually("its control groups are gone", || {
        groups.iter().all(|group| !group.exists())
    });
}

/// The namespaces that a process is in, as their names in `/proc`.
fn namespaces_of(pid: u32) -> BTreeSet<PathBuf> {
    std::fs::read_dir(format!("/proc/{pid}/ns"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .collect()
}

fn cgroups_of_launchers_that_are_gone() -> Vec<PathBuf> {
    let Ok(hierarchies) = std::fs::read_dir("/sys/fs/cgroup") else {
        return Vec::new();
    };
    hierarchies
        .flatten()
        .filter_map(|hierarchy| std::fs::read_dir(hierarchy.path()).ok())
        .flatten()
        .flatten()
        .filter(|group| {
            let name = group.file_name().to_string_lossy().into_owned();
            name.strip_prefix("maelstrom-")
                .and_then(|rest| rest.split('-').next())
                .is_some_and(|pid| !Path::new("/proc").join(pid).exists())
        })
        .map(|group| group.path())
        .collect()
}

fn an_ordinary_user_needs_no_privileges(fixture: &Fixture) {
    let mut command = client_command(fixture, "", "ok");
    // SAFETY: asks for this process's user.
    if unsafe { libc::geteuid() } == 0 {
        // Where this binary stands may be closed to others; a layer is not.
        let program = fixture.layers_root().join("base/probe");
        let mut unprivileged = Command::new(program);
        unprivileged
            .args(command.get_args())
            .env_clear()
            .stdout(Stdio::piped())
            .uid(65_534)
            .gid(65_534);
        command = unprivileged;
    }
    let said = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "client\nExited(0)\n");
}

fn this_machine_passes_its_own_check(fixture: &Fixture) {
    for finding in check(&fixture.launcher).unwrap() {
        println!("{finding}");
        assert!(
            !matches!(finding.result, FindingResult::Fails { .. }),
            "{finding}"
        );
    }
}
