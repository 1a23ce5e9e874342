//! Both ends of a session, with real containers and with a service that does as it is told.

mod fake;

use fake::{Fake, SLOW, Said};
use libtest_mimic::{Arguments, Trial};
use maelstrom_content::{BuildContext, LayerId, Store, StoreOptions};
use maelstrom_node::{
    Container, Job, JobEvent, JobId, JobService, MAX_SHARED_KEYS, Node, Rank, ResultKey,
};
use maelstrom_runtime::{ContainerMount, JobNetwork, Launcher, Privileges, Root};
use maelstrom_session::{
    Fallback, Question, Server, Session, SessionClient, SessionError, Socket, WINDOW, Welcome,
};
use maelstrom_spec::{JobError, JobStatus, LayerSpec};
use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(120);

struct Fixture {
    launcher: Launcher,
    home: tempfile::TempDir,
    store: Store,
    layer: LayerId,
}

/// A daemon's end and where it listens.
struct Daemon {
    server: Server,
    _home: tempfile::TempDir,
    path: PathBuf,
}

impl Fixture {
    fn new(launcher: Launcher) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let store =
            Store::open(&home.path().join("store"), StoreOptions::default()).expect("a store");
        let stubs = LayerSpec::Stubs {
            stubs: ["/{bin,lib,lib64,usr,tmp}/"].map(Into::into).to_vec(),
        };
        let context = BuildContext {
            project_dir: home.path().to_owned(),
            current_dir: home.path().to_owned(),
            library_path: Vec::new(),
            program_path: Vec::new(),
        };
        let layer = store.build(&stubs, &context).expect("a layer");
        Self {
            launcher,
            home,
            store,
            layer,
        }
    }

    /// A job without anything of this machine. Without a program in its layer it fails to start,
    /// if anything tries.
    fn job(&self, program: &str) -> Job {
        let container = Container {
            layers: vec![self.layer],
            environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
            working_directory: "/".into(),
            root: Root::ReadOnly,
            mounts: Vec::new(),
            network: JobNetwork::Disabled,
            user: 1000,
            group: 1000,
            privileges: Privileges::None,
            leads_session: true,
        };
        Job {
            container: Arc::new(container),
            program: program.to_owned(),
            arguments: Vec::new(),
            timeout: None,
            inline_limit_bytes: 1_000_000,
            rank: Rank::default(),
            outputs: Arc::new([]),
            trace_missing: false,
            background: false,
            terminal: None,
            hold: None,
            template: None,
        }
    }

    /// A job that sees this machine's programs, and so must run in this process.
    fn local_job(&self, script: &str) -> Job {
        let mut job = self.job("sh");
        let container = Arc::make_mut(&mut job.container);
        for at in ["bin", "lib", "lib64", "usr"] {
            let path = Path::new("/").join(at);
            if path.exists() {
                container.mounts.push(ContainerMount::Bind {
                    mount_point: path.clone(),
                    source: path,
                    read_only: true,
                });
            }
        }
        job.arguments = vec!["-c".to_owned(), script.to_owned()];
        job
    }

    fn daemon(&self, jobs: Arc<dyn JobService>) -> Daemon {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("run/node.sock");
        let socket = Socket::claim(&path).expect("a socket");
        let answer = |question| match question {
            Question::Status => Ok("{}".to_owned()),
            Question::Invite => Err("there is no key".to_owned()),
        };
        let welcome = Welcome {
            node: "a7".to_owned(),
            name: "here".to_owned(),
            slots: 2,
            store: self.store.root().to_owned(),
            cache_size_bytes: 1 << 30,
            pid: std::process::id(),
        };
        let server = Server::start(socket, welcome, jobs, Box::new(answer)).expect("a server");
        Daemon {
            server,
            _home: home,
            path,
        }
    }

    fn node(&self) -> Arc<Node> {
        let node = Node::start(self.launcher.clone(), self.store.clone(), 2);
        Arc::new(node.expect("containers"))
    }

    fn client(&self, daemon: &Daemon, fallback: Fallback) -> SessionClient {
        let session = Session::connect(&daemon.path)
            .expect("a session")
            .expect("a daemon");
        assert_eq!(session.welcome().store, self.store.root());
        session
            .into_service(self.launcher.clone(), self.store.clone(), fallback)
            .expect("threads")
    }
}

/// For clients whose daemon stays.
fn none() -> Fallback {
    Box::new(|why| Err(format!("the daemon went away: {why}")))
}

type Seen = Receiver<(JobId, JobEvent)>;

fn watch(to: &Sender<(JobId, JobEvent)>) -> maelstrom_node::Handler {
    let to = to.clone();
    Box::new(move |id, event| {
        let _ = to.send((id, event));
    })
}

fn submit(client: &dyn JobService, job: Job, to: &Sender<(JobId, JobEvent)>) -> JobId {
    let id = client.reserve();
    client.submit_reserved(id, job, watch(to));
    id
}

fn next(seen: &Seen) -> (JobId, JobEvent) {
    seen.recv_timeout(PATIENCE)
        .expect("something happens in time")
}

fn expect_running(seen: &Seen, id: JobId) -> Option<Arc<str>> {
    match next(seen) {
        (of, JobEvent::Running { on }) if of == id => on,
        other => panic!("job {id} should run: {other:?}"),
    }
}

fn expect_end(seen: &Seen, id: JobId) -> Result<JobStatus, JobError> {
    match next(seen) {
        (of, JobEvent::Completed(result)) if of == id => result.map(|outcome| outcome.status),
        other => panic!("job {id} should end: {other:?}"),
    }
}

fn jobs_run_at_the_daemon(fixture: &Fixture) {
    let fake = Arc::new(Fake::default());
    let daemon = fixture.daemon(fake.clone());
    let client = fixture.client(&daemon, none());
    let (to, seen) = channel();
    let mut job = fixture.job("true");
    job.arguments = vec!["an argument".to_owned()];
    job.rank.priority = 3;
    let container = job.container.clone();
    let first = submit(&client, job, &to);
    let Said::Submitted(at, got) = fake.next() else {
        panic!("it should be submitted")
    };
    assert_eq!(got.arguments, ["an argument"]);
    assert_eq!(got.rank.priority, 3);
    assert_eq!(got.container, container);
    fake.run(at, Some("build-7"));
    fake.end(at, Ok(7));
    assert_eq!(expect_running(&seen, first).as_deref(), Some("build-7"));
    assert_eq!(expect_end(&seen, first), Ok(JobStatus::Exited(7)));
    // Jobs that share a container here share it there.
    let again = |program: &str| Job {
        container: container.clone(),
        ..fixture.job(program)
    };
    submit(&client, again("a"), &to);
    submit(&client, again("b"), &to);
    let (Said::Submitted(_, a), Said::Submitted(_, b)) = (fake.next(), fake.next()) else {
        panic!("both should be submitted")
    };
    assert!(Arc::ptr_eq(&a.container, &b.container));
    assert!(Arc::ptr_eq(&a.container, &got.container));
    client.cancel_all();
    for _ in 0..2 {
        let (_, event) = next(&seen);
        assert!(matches!(
            event,
            JobEvent::Completed(Err(JobError::Cancelled))
        ));
    }
    assert_eq!(daemon.server.sessions(), 1);
}

fn one_job_is_cancelled(fixture: &Fixture) {
    let fake = Arc::new(Fake::default());
    let daemon = fixture.daemon(fake.clone());
    let client = fixture.client(&daemon, none());
    let (to, seen) = channel();
    let one = submit(&client, fixture.job("one"), &to);
    let other = submit(&client, fixture.job("other"), &to);
    let (Said::Submitted(..), Said::Submitted(at, _)) = (fake.next(), fake.next()) else {
        panic!("both should be submitted")
    };
    client.cancel(one);
    assert_eq!(expect_end(&seen, one), Err(JobError::Cancelled));
    fake.end(at, Ok(0));
    assert_eq!(expect_end(&seen, other), Ok(JobStatus::Exited(0)));
}

fn a_client_keeps_what_does_not_fit_into_the_window(fixture: &Fixture) {
    let fake = Arc::new(Fake::default());
    let daemon = fixture.daemon(fake.clone());
    let client = fixture.client(&daemon, none());
    let (to, seen) = channel();
    let extra = 10;
    let container = fixture.job("").container;
    for index in 0..WINDOW + extra {
        let mut job = Job {
            container: container.clone(),
            ..fixture.job("many")
        };
        // The last ones are the most urgent.
        job.rank.priority = i8::from(index >= WINDOW + extra - 1);
        submit(&client, job, &to);
    }
    let mut there = Vec::new();
    for _ in 0..WINDOW {
        match fake.next() {
            Said::Submitted(at, _) => there.push(at),
            other => panic!("{other:?}"),
        }
    }
    // Only now does one of the others come: the one that should run first.
    fake.end(there[0], Ok(0));
    match fake.next() {
        Said::Submitted(at, job) => {
            assert_eq!(job.rank.priority, 1);
            there.push(at);
        }
        other => panic!("{other:?}"),
    }
    for at in &there[1..] {
        fake.end(*at, Ok(0));
    }
    for _ in 0..extra - 1 {
        match fake.next() {
            Said::Submitted(at, _) => fake.end(at, Ok(0)),
            other => panic!("{other:?}"),
        }
    }
    let mut ended = std::collections::HashSet::new();
    while ended.len() < WINDOW + extra {
        if let (id, JobEvent::Completed(result)) = next(&seen) {
            assert!(result.is_ok());
            assert!(ended.insert(id), "job {id} ended twice");
        }
    }
}

fn what_a_client_leaves_is_cancelled(fixture: &Fixture) {
    let fake = Arc::new(Fake::default());
    let daemon = fixture.daemon(fake.clone());
    // A client that is killed: its socket closes, and nothing is said.
    let mut killed = UnixStream::connect(&daemon.path).unwrap();
    killed.write_all(&hello()).unwrap();
    // A slot for job 0, of ordinary rank.
    killed.write_all(&[4, 0, 0, 0, 2, 0, 0, 0]).unwrap();
    let Said::Submitted(at, job) = fake.next() else {
        panic!("it should be submitted")
    };
    assert!(job.hold.is_some());
    drop(killed);
    assert!(matches!(fake.next(), Said::Cancelled(id) if id == at));
    // One that ends in an orderly way.
    let client = fixture.client(&daemon, none());
    let (to, _seen) = channel();
    submit(&client, fixture.job("left"), &to);
    let Said::Submitted(at, _) = fake.next() else {
        panic!("it should be submitted")
    };
    client.stop();
    assert!(matches!(fake.next(), Said::Cancelled(id) if id == at));
}

fn questions_are_answered(fixture: &Fixture) {
    let daemon = fixture.daemon(Arc::new(Fake::default()));
    let mut session = Session::connect(&daemon.path).unwrap().unwrap();
    assert_eq!(session.ask(Question::Status).unwrap(), "{}");
    let refused = session.ask(Question::Invite).unwrap_err().to_string();
    assert!(refused.contains("there is no key"), "{refused}");
    assert_eq!(session.ask(Question::Status).unwrap(), "{}");
}

/// The greeting of a client.
fn hello() -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let mut hello = b"mlstsock\x02\0\0\0".to_vec();
    hello.push(version.len() as u8);
    hello.extend(version.as_bytes());
    hello
}

fn a_client_goes_on_without_its_daemon(fixture: &Fixture) {
    let (fake, stand_in) = (Arc::new(Fake::default()), Arc::new(Fake::default()));
    let daemon = fixture.daemon(fake.clone());
    let (told, why) = channel();
    let fallback = stand_in.clone();
    let client = fixture.client(
        &daemon,
        Box::new(move |why| {
            let _ = told.send(why.to_owned());
            Ok(fallback)
        }),
    );
    let (to, seen) = channel();
    let ended = submit(&client, fixture.job("ended"), &to);
    let running = submit(&client, fixture.job("running"), &to);
    let waiting = submit(&client, fixture.job("waiting"), &to);
    let mut there = Vec::new();
    for _ in 0..3 {
        match fake.next() {
            Said::Submitted(at, _) => there.push(at),
            other => panic!("{other:?}"),
        }
    }
    fake.run(there[0], None);
    fake.end(there[0], Ok(0));
    fake.run(there[1], None);
    expect_running(&seen, ended);
    assert_eq!(expect_end(&seen, ended), Ok(JobStatus::Exited(0)));
    expect_running(&seen, running);
    assert!(client.has_daemon());
    daemon.server.close("its user wants it to end");
    let why = why.recv_timeout(PATIENCE).expect("it is told why");
    assert_eq!(why, "its user wants it to end");
    for _ in 0..2 {
        match stand_in.next() {
            Said::Submitted(at, job) => {
                assert!(job.program == "running" || job.program == "waiting");
                stand_in.run(at, None);
                stand_in.end(at, Ok(3));
            }
            other => panic!("{other:?}"),
        }
    }
    for _ in 0..2 {
        let id = match next(&seen) {
            (id, JobEvent::Running { .. }) => id,
            other => panic!("{other:?}"),
        };
        assert!(id == running || id == waiting);
        assert_eq!(expect_end(&seen, id), Ok(JobStatus::Exited(3)));
    }
    assert!(!client.has_daemon());
    // So does what comes later.
    let later = submit(&client, fixture.job("later"), &to);
    assert!(matches!(stand_in.next(), Said::Submitted(..)));
    client.cancel(later);
    assert_eq!(expect_end(&seen, later), Err(JobError::Cancelled));
}

fn without_a_stand_in_jobs_fail_with_the_reason(fixture: &Fixture) {
    let fake = Arc::new(Fake::default());
    let daemon = fixture.daemon(fake.clone());
    let client = fixture.client(&daemon, none());
    let (to, seen) = channel();
    let job = submit(&client, fixture.job("lost"), &to);
    fake.next();
    daemon.server.close("bye");
    match expect_end(&seen, job) {
        Err(JobError::System(why)) => assert!(why.contains("bye"), "{why}"),
        other => panic!("{other:?}"),
    }
}

/// With containers on both ends: the daemon keeps a slot free and the client uses it.
fn jobs_that_need_this_machine_run_in_their_client(fixture: &Fixture) {
    let daemon = fixture.daemon(fixture.node());
    let client = fixture.client(&daemon, none());
    let (to, seen) = channel();
    let local = submit(&client, fixture.local_job("exit 5"), &to);
    assert_eq!(expect_running(&seen, local), None);
    assert_eq!(expect_end(&seen, local), Ok(JobStatus::Exited(5)));
    // Both slots are taken by jobs of this process, so that a third waits.
    let long = || fixture.local_job("sleep 1000");
    let (first, second) = (submit(&client, long(), &to), submit(&client, long(), &to));
    let mut running = [next(&seen).0, next(&seen).0];
    running.sort_unstable();
    assert_eq!(running, [first, second]);
    let third = submit(&client, fixture.local_job("exit 6"), &to);
    client.cancel(first);
    assert_eq!(expect_end(&seen, first), Err(JobError::Cancelled));
    expect_running(&seen, third);
    assert_eq!(expect_end(&seen, third), Ok(JobStatus::Exited(6)));
    // The daemon's end is none of theirs.
    daemon.server.close("bye");
    client.cancel_all();
    assert_eq!(expect_end(&seen, second), Err(JobError::Cancelled));
}

/// A program that the layer lacks: the daemon's own slot says so.
fn containers_run_at_the_daemon(fixture: &Fixture) {
    let daemon = fixture.daemon(fixture.node());
    let client = fixture.client(&daemon, none());
    let (to, seen) = channel();
    let job = submit(&client, fixture.job("/nothing"), &to);
    expect_running(&seen, job);
    match expect_end(&seen, job) {
        Err(JobError::Execution(why)) => assert!(why.contains("/nothing"), "{why}"),
        other => panic!("{other:?}"),
    }
}

fn no_daemon_is_no_error(fixture: &Fixture) {
    let nowhere = fixture.home.path().join("nowhere.sock");
    assert!(Session::connect(&nowhere).unwrap().is_none());
    // What a killed daemon leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&nowhere).unwrap());
    assert!(Session::connect(&nowhere).unwrap().is_none());
}

fn another_version_is_told_apart(fixture: &Fixture) {
    let daemon = fixture.daemon(Arc::new(Fake::default()));
    // A client of another version gets the daemon's greeting and no more.
    let mut stream = UnixStream::connect(&daemon.path).unwrap();
    stream.write_all(b"mlstsock\xff\0\0\0\x039.9").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"mlstsock\x02\0\0\0"));
    // A daemon of another version.
    let path = fixture.home.path().join("other.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let other = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"mlstsock\x07\0\0\0\x059.9.9").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    match Session::connect(&path) {
        Err(SessionError::Version { theirs, .. }) => assert!(theirs.starts_with("9.9.9")),
        other => panic!("{other:?}"),
    }
    other.join().unwrap();
}

fn rubbish_ends_the_session_and_no_more(fixture: &Fixture) {
    let daemon = fixture.daemon(Arc::new(Fake::default()));
    let hello = hello();
    for rubbish in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[&hello[..], &[0xff; 64]].concat(),
        &[&hello[..], &[5, 0, 0, 0, 1, 2, 3, 4, 5]].concat(),
        &[&hello[..], &[3, 0, 0, 0, 99, 0, 0]].concat(),
    ] {
        let mut stream = UnixStream::connect(&daemon.path).unwrap();
        // The other end may have gone before all of it is written.
        let _ = stream.write_all(rubbish);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert!(Session::connect(&daemon.path).unwrap().is_some());
}

fn results_go_through_the_daemon(fixture: &Fixture) {
    let service = Arc::new(Fake::default());
    let daemon = fixture.daemon(service.clone());
    let client = fixture.client(&daemon, none());
    let results = client.results().expect("a daemon shares results");
    let key = |job: u8| ResultKey::new([1; 16], [job; 16]);
    service
        .results
        .0
        .lock()
        .unwrap()
        .insert(key(1), vec![7; 100]);
    let found = || results.find(&[key(0), key(1)]);
    assert_eq!(found(), [None, Some(vec![7; 100])]);
    // Those beyond the bound are not asked for.
    let many = vec![key(1); MAX_SHARED_KEYS + 3];
    let known = results.find(&many).iter().flatten().count();
    assert_eq!(known, MAX_SHARED_KEYS);
    // A mesh that does not answer holds up neither who asks for long, nor jobs.
    let start = Instant::now();
    let slow = [ResultKey::new([1; 16], SLOW)];
    assert_eq!(results.find(&slow), [None]);
    let id = client.reserve();
    let (done, ended) = channel();
    let handler = move |_, event| {
        if matches!(event, JobEvent::Completed(_)) {
            let _ = done.send(());
        }
    };
    client.submit_reserved(id, fixture.job("a"), Box::new(handler));
    let Said::Submitted(number, _) = service.next() else {
        panic!("it is not submitted");
    };
    service.end(number, Ok(0));
    ended.recv_timeout(PATIENCE).expect("the job ends");
    let waited = start.elapsed();
    assert!(waited < Duration::from_secs(3), "{waited:?}");
    // What was offered arrives, also when the client stops at once.
    for job in 2..200 {
        results.offer(key(job), vec![job; 5000]);
    }
    client.stop();
    let end = Instant::now() + PATIENCE;
    while service.results.0.lock().unwrap().len() < 199 {
        assert!(Instant::now() < end, "some results are lost");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn main() {
    // Before there are threads.
    let launcher = Launcher::start().expect("a launcher");
    let fixture = Arc::new(Fixture::new(launcher));
    type Test = (&'static str, fn(&Fixture));
    let tests: [Test; 13] = [
        (
            "results_go_through_the_daemon",
            results_go_through_the_daemon,
        ),
        ("jobs_run_at_the_daemon", jobs_run_at_the_daemon),
        ("one_job_is_cancelled", one_job_is_cancelled),
        (
            "a_client_keeps_what_does_not_fit_into_the_window",
            a_client_keeps_what_does_not_fit_into_the_window,
        ),
        (
            "what_a_client_leaves_is_cancelled",
            what_a_client_leaves_is_cancelled,
        ),
        (
            "a_client_goes_on_without_its_daemon",
            a_client_goes_on_without_its_daemon,
        ),
        (
            "without_a_stand_in_jobs_fail_with_the_reason",
            without_a_stand_in_jobs_fail_with_the_reason,
        ),
        (
            "jobs_that_need_this_machine_run_in_their_client",
            jobs_that_need_this_machine_run_in_their_client,
        ),
        ("containers_run_at_the_daemon", containers_run_at_the_daemon),
        ("questions_are_answered", questions_are_answered),
        ("no_daemon_is_no_error", no_daemon_is_no_error),
        (
            "another_version_is_told_apart",
            another_version_is_told_apart,
        ),
        (
            "rubbish_ends_the_session_and_no_more",
            rubbish_ends_the_session_and_no_more,
        ),
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
