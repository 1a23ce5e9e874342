//! A node on this machine, with real containers. The launcher must be made before there are
//! threads, so this has a `main` of its own.

use libtest_mimic::{Arguments, Trial};
use maelstrom_content::{BuildContext, LayerId, Store, StoreOptions};
use maelstrom_node::{Container, Hold, Job, JobEvent, JobId, Node, Rank};
use maelstrom_runtime::{ContainerMount, JobNetwork, Launcher, Privileges, Root};
use maelstrom_spec::{JobError, JobStatus, LayerSpec};
use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

struct Fixture {
    launcher: Launcher,
    store: Store,
    layers: Vec<LayerId>,
    _cache: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let launcher = Launcher::start().expect("the launcher starts");
        let cache = tempfile::tempdir().expect("a directory for the cache");
        let store = Store::open(cache.path(), StoreOptions::default()).expect("the store opens");
        let context = BuildContext {
            project_dir: PathBuf::from("/"),
            current_dir: PathBuf::from("/"),
            library_path: Vec::new(),
            program_path: std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
                .collect(),
        };
        let layers = [
            LayerSpec::Stubs {
                stubs: vec!["/{proc,tmp}/".to_owned()],
            },
            LayerSpec::Programs {
                programs: ["sh", "sleep", "kill"].map(str::to_owned).to_vec(),
            },
        ]
        .map(|layer| store.build(&layer, &context).expect("a layer is built"))
        .to_vec();
        Self {
            launcher,
            store,
            layers,
            _cache: cache,
        }
    }

    fn node(&self, slots: usize) -> Node {
        Node::start(self.launcher.clone(), self.store.clone(), slots)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// A job that runs a line of shell.
    fn job(&self, script: &str) -> Job {
        let container = Container {
            layers: self.layers.clone(),
            environment: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            working_directory: PathBuf::from("/"),
            root: Root::Discard,
            mounts: vec![ContainerMount::Proc {
                mount_point: "/proc".into(),
            }],
            network: JobNetwork::Disabled,
            user: 1000,
            group: 1000,
            privileges: Privileges::None,
            leads_session: true,
        };
        Job {
            container: Arc::new(container),
            program: "sh".to_owned(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            timeout: None,
            inline_limit_bytes: 1_000_000,
            rank: Rank::default(),
            outputs: Arc::new([]),
            trace_missing: false,
            template: None,
            background: false,
            terminal: None,
            hold: None,
        }
    }
}

/// What happened, as it reached the handlers of jobs.
#[derive(Debug, PartialEq)]
enum Seen {
    Running(JobId),
    Completed(JobId, Result<JobStatus, JobError>),
}

fn watcher(to: &Sender<Seen>) -> impl FnMut(JobId, JobEvent) + Send + 'static {
    let to = to.clone();
    move |id, event| {
        let seen = match event {
            JobEvent::Running { .. } => Seen::Running(id),
            JobEvent::Completed(result) => {
                Seen::Completed(id, result.map(|outcome| outcome.status))
            }
        };
        let _ = to.send(seen);
    }
}

fn next(from: &Receiver<Seen>) -> Seen {
    from.recv_timeout(Duration::from_secs(30))
        .expect("something happens in time")
}

fn every_job_completes_once(fixture: &Fixture) {
    let node = fixture.node(2);
    let (to, from) = channel();
    for code in 0..20 {
        let id = node.submit(fixture.job(&format!("exit {code}")), watcher(&to));
        assert_eq!(id, JobId(code));
    }
    drop(to);
    let mut codes: Vec<u64> = Vec::new();
    for seen in from.iter() {
        if let Seen::Completed(id, result) = seen {
            assert_eq!(result, Ok(JobStatus::Exited(id.0 as u8)));
            codes.push(id.0);
        }
    }
    codes.sort_unstable();
    assert_eq!(codes, (0..20).collect::<Vec<_>>());
}

fn the_highest_rank_runs_first(fixture: &Fixture) {
    let node = fixture.node(1);
    let (to, from) = channel();
    // Holds the only slot until everything else is queued.
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let (started, has_started) = channel();
    let waits = gate.clone();
    node.submit(fixture.job("exit 0"), move |_, event| {
        if matches!(event, JobEvent::Running { .. }) {
            started.send(()).unwrap();
            drop(waits.lock().unwrap());
        }
    });
    has_started.recv().unwrap();
    let estimate = |millis| Some(Duration::from_millis(millis));
    let ranks = [
        (0, estimate(1)),
        (0, estimate(9)),
        (0, None),
        (1, estimate(1)),
    ];
    for (priority, estimate) in ranks {
        let mut job = fixture.job("exit 0");
        job.rank = Rank { priority, estimate };
        node.submit(job, watcher(&to));
    }
    drop(closed);
    drop(to);
    let order: Vec<_> = from
        .iter()
        .filter_map(|seen| match seen {
            Seen::Running(id) => Some(id.0),
            Seen::Completed(..) => None,
        })
        .collect();
    assert_eq!(order, [4, 3, 2, 1]);
}

fn cancelling_completes_everything(fixture: &Fixture) {
    let node = fixture.node(1);
    let (to, from) = channel();
    let running = node.submit(fixture.job("sleep 600"), watcher(&to));
    assert_eq!(next(&from), Seen::Running(running));
    let waiting = node.submit(fixture.job("exit 0"), watcher(&to));
    node.cancel_all();
    let mut completed = [next(&from), next(&from)];
    completed.sort_by_key(|seen| format!("{seen:?}"));
    assert_eq!(
        completed,
        [running, waiting].map(|id| Seen::Completed(id, Err(JobError::Cancelled)))
    );
    // The node goes on.
    let later = node.submit(fixture.job("exit 3"), watcher(&to));
    assert_eq!(next(&from), Seen::Running(later));
    assert_eq!(
        next(&from),
        Seen::Completed(later, Ok(JobStatus::Exited(3)))
    );
}

fn cancelling_one_job_leaves_the_others(fixture: &Fixture) {
    let node = fixture.node(1);
    let (to, seen) = channel();
    let running = node.submit(fixture.job("sleep 1000"), watcher(&to));
    assert_eq!(next(&seen), Seen::Running(running));
    let waiting = node.submit(fixture.job("exit 1"), watcher(&to));
    let last = node.submit(fixture.job("exit 3"), watcher(&to));
    node.cancel(waiting);
    let cancelled = |id| Seen::Completed(id, Err(JobError::Cancelled));
    assert_eq!(next(&seen), cancelled(waiting));
    node.cancel(running);
    assert_eq!(next(&seen), cancelled(running));
    assert_eq!(next(&seen), Seen::Running(last));
    assert_eq!(next(&seen), Seen::Completed(last, Ok(JobStatus::Exited(3))));
    // Too late to mean anything.
    node.cancel(last);
}

fn a_hold_keeps_its_slot(fixture: &Fixture) {
    let node = fixture.node(1);
    let (to, seen) = channel();
    let hold = Hold::default();
    let mut job = fixture.job("exit 7");
    job.hold = Some(hold.clone());
    assert!(job.needs_this_machine().is_some());
    let held = node.submit(job, watcher(&to));
    let behind = node.submit(fixture.job("exit 3"), watcher(&to));
    assert_eq!(next(&seen), Seen::Running(held));
    hold.release();
    assert_eq!(next(&seen), Seen::Completed(held, Ok(JobStatus::Exited(0))));
    assert_eq!(next(&seen), Seen::Running(behind));
    assert_eq!(
        next(&seen),
        Seen::Completed(behind, Ok(JobStatus::Exited(3)))
    );
    let mut job = fixture.job("exit 7");
    job.hold = Some(Hold::default());
    let cancelled = node.submit(job, watcher(&to));
    assert_eq!(next(&seen), Seen::Running(cancelled));
    node.cancel(cancelled);
    assert_eq!(
        next(&seen),
        Seen::Completed(cancelled, Err(JobError::Cancelled))
    );
}

fn a_stopped_node_takes_no_jobs(fixture: &Fixture) {
    let node = fixture.node(1);
    let (to, from) = channel();
    let running = node.submit(fixture.job("sleep 600"), watcher(&to));
    assert_eq!(next(&from), Seen::Running(running));
    node.stop();
    assert_eq!(
        next(&from),
        Seen::Completed(running, Err(JobError::Cancelled))
    );
    let late = node.submit(fixture.job("exit 0"), watcher(&to));
    assert_eq!(next(&from), Seen::Completed(late, Err(JobError::Cancelled)));
}

fn a_missing_layer_fails_its_job_alone(fixture: &Fixture) {
    let node = fixture.node(1);
    let (to, from) = channel();
    let mut job = fixture.job("exit 0");
    Arc::make_mut(&mut job.container).layers = vec![LayerId::from_bytes([7; 32])];
    let bad = node.submit(job, watcher(&to));
    let good = node.submit(fixture.job("exit 0"), watcher(&to));
    assert_eq!(next(&from), Seen::Running(bad));
    match next(&from) {
        Seen::Completed(id, Err(JobError::System(message))) => {
            assert_eq!(id, bad);
            assert!(message.contains("0707"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(next(&from), Seen::Running(good));
    assert_eq!(next(&from), Seen::Completed(good, Ok(JobStatus::Exited(0))));
}

/// As after a shortage of memory that takes the slot's process instead of the test's.
fn a_lost_slot_is_replaced(fixture: &Fixture) {
    let node = fixture.node(1);
    let (to, from) = channel();
    let marker = format!("lost-slot-{}", std::process::id());
    let job = node.submit(fixture.job(&format!("sleep 600 # {marker}")), watcher(&to));
    assert_eq!(next(&from), Seen::Running(job));
    let started = std::time::Instant::now();
    let slot = loop {
        if let Some(slot) = slot_of(&marker) {
            break slot;
        }
        assert!(started.elapsed().as_secs() < 30, "the job does not start");
        std::thread::sleep(Duration::from_millis(1));
    };
    let killed = std::process::Command::new("kill")
        .args(["-9", &slot.to_string()])
        .status();
    assert!(killed.unwrap().success());
    match next(&from) {
        Seen::Completed(id, Err(JobError::System(_))) => assert_eq!(id, job),
        other => panic!("{other:?}"),
    }
    let next_job = node.submit(fixture.job("exit 0"), watcher(&to));
    assert_eq!(next(&from), Seen::Running(next_job));
    assert_eq!(
        next(&from),
        Seen::Completed(next_job, Ok(JobStatus::Exited(0)))
    );
}

/// The process of the slot that runs a program with this in its arguments: the parent of its
/// parent, which is the container's init.
fn slot_of(marker: &str) -> Option<u32> {
    let program = std::fs::read_dir("/proc")
        .ok()?
        .flatten()
        .find_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let arguments = std::fs::read(entry.path().join("cmdline")).ok()?;
            let text = String::from_utf8_lossy(&arguments);
            (text.starts_with("sh\0") && text.contains(marker)).then_some(pid)
        })?;
    parent(parent(program)?)
}

fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

fn main() {
    let fixture = Arc::new(Fixture::new());
    type Test = (&'static str, fn(&Fixture));
    let tests: [Test; 9] = [
        ("every_job_completes_once", every_job_completes_once),
        ("the_highest_rank_runs_first", the_highest_rank_runs_first),
        (
            "cancelling_completes_everything",
            cancelling_completes_everything,
        ),
        (
            "cancelling_one_job_leaves_the_others",
            cancelling_one_job_leaves_the_others,
        ),
        (
            "cancelling_one_job_leaves_the_others",
            cancelling_one_job_leaves_the_others,
        ),
        (
            "a_hold_keeps_its_slot_until_it_is_released",
            a_hold_keeps_its_slot,
        ),
        ("a_stopped_node_takes_no_jobs", a_stopped_node_takes_no_jobs),
        (
            "a_missing_layer_fails_its_job_alone",
            a_missing_layer_fails_its_job_alone,
        ),
        ("a_lost_slot_is_replaced", a_lost_slot_is_replaced),
    ];
    let trials = tests
        .into_iter()
        .map(|(name, test)| {
            let fixture = fixture.clone();
            Trial::test(name, move || {
                test(&fixture);
                Ok(())
            })
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
