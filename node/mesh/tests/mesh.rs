//! Several nodes on loopback in one process, with real containers. The launcher must be made
//! before there are threads, so this has a `main` of its own.

use libtest_mimic::{Arguments, Trial};
use maelstrom_content::{BuildContext, LayerId, Store, StoreOptions};
use maelstrom_mesh::{Lending, MeshConfig, MeshNode};
use maelstrom_net::{Channel, MeshKey, Net, NetConfig, NetEvent, NodeKey};
use maelstrom_node::{
    Container, Job, JobEvent, JobId, JobService, Rank, ResultKey, ResultStore, SharedResults,
};
use maelstrom_runtime::{ContainerMount, JobNetwork, Launcher, Privileges, Root};
use maelstrom_spec::{JobError, JobOutcome, JobStatus, LayerSpec};
use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long something may take on a machine that does a lot besides.
const PATIENCE: Duration = Duration::from_secs(60);

/// Results in memory.
#[derive(Debug, Default)]
struct Kept(Mutex<HashMap<ResultKey, Vec<u8>>>);

impl ResultStore for Kept {
    fn get(&self, keys: &[ResultKey]) -> Vec<Option<Vec<u8>>> {
        let kept = self.0.lock().expect("no panic");
        keys.iter().map(|key| kept.get(key).cloned()).collect()
    }

    fn put(&self, results: &[(ResultKey, Vec<u8>)]) -> bool {
        let (good, bad): (Vec<_>, Vec<_>) = results
            .iter()
            .cloned()
            .partition(|(_, result)| result.starts_with(b"passed"));
        self.0.lock().expect("no panic").extend(good);
        bad.is_empty()
    }
}

struct Host {
    node: MeshNode,
    _cache: TempDir,
}

struct Fixture {
    launcher: Launcher,
}

struct Mesh<'a> {
    fixture: &'a Fixture,
    key: MeshKey,
    hosts: Vec<Host>,
}

impl Mesh<'_> {
    /// Starts a node that joins the first.
    fn start(&mut self, slots: u16, lending: Lending) -> usize {
        let cache = tempfile::tempdir().expect("a directory for the cache");
        let store = Store::open(cache.path(), StoreOptions::default()).expect("the store opens");
        let first = self.hosts.first().map(|host| {
            let addresses = host.node.net().addresses();
            addresses.first().expect("the node listens").to_string()
        });
        let number = self.hosts.len();
        let config = MeshConfig {
            node_key: NodeKey::generate(),
            mesh_key: self.key.clone(),
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            join: first.into_iter().collect(),
            mdns: false,
            name: format!("host{number}"),
            labels: Vec::new(),
            slots,
            lending,
            may_coordinate: true,
            state_dir: Some(cache.path().join("state")),
            store,
            // As a client, whoever never lends.
            results: (lending != Lending::Never).then(|| Arc::new(Kept::default()) as _),
        };
        let node = MeshNode::start(self.fixture.launcher.clone(), config)
            .unwrap_or_else(|error| panic!("{error}"));
        self.hosts.push(Host {
            node,
            _cache: cache,
        });
        number
    }

    fn settle(&self) {
        let end = Instant::now() + PATIENCE;
        let all = self.hosts.len() - 1;
        while self.hosts.iter().any(|host| host.node.members() != all) {
            assert!(Instant::now() < end, "they never all know each other");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Layers with a shell, made on one host.
    fn layers(&self, host: usize) -> Vec<LayerId> {
        let context = BuildContext {
            project_dir: PathBuf::from("/"),
            current_dir: PathBuf::from("/"),
            library_path: Vec::new(),
            program_path: std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
                .collect(),
        };
        [
            LayerSpec::Stubs {
                stubs: vec!["/{proc,tmp}/".to_owned()],
            },
            LayerSpec::Programs {
                programs: ["sh", "sleep", "kill"].map(str::to_owned).to_vec(),
            },
        ]
        .map(|layer| {
            let store = self.hosts[host].node.store();
            store.build(&layer, &context).expect("a layer is built")
        })
        .to_vec()
    }

    fn submit(&self, host: usize, job: Job, seen: &Sender<Seen>) -> JobId {
        let seen = seen.clone();
        let id = self.hosts[host].node.reserve();
        self.hosts[host].node.submit_reserved(
            id,
            job,
            Box::new(move |id, event| {
                let _ = seen.send((id, event));
            }),
        );
        id
    }
}

type Seen = (JobId, JobEvent);

/// Where a job ran last, and how it ended.
type End = (Option<Arc<str>>, Result<JobOutcome, JobError>);

fn job(layers: &[LayerId], script: &str) -> Job {
    let container = Container {
        layers: layers.to_vec(),
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
        background: false,
        hold: None,
        template: None,
        terminal: None,
    }
}

fn next(seen: &Receiver<Seen>) -> Seen {
    seen.recv_timeout(PATIENCE).expect("something happens")
}

/// Waits for the ends of so many jobs, each reported once. With where each ran last.
fn ends(seen: &Receiver<Seen>, jobs: usize) -> Vec<End> {
    let mut ran: Vec<Option<Arc<str>>> = vec![None; jobs];
    let mut ended: Vec<Option<Result<JobOutcome, JobError>>> = vec![None; jobs];
    while ended.iter().any(Option::is_none) {
        match next(seen) {
            (id, JobEvent::Running { on }) => ran[id.0 as usize] = on,
            (id, JobEvent::Completed(result)) => {
                let before = ended[id.0 as usize].replace(result);
                assert!(before.is_none(), "job {id} is reported twice");
            }
        }
    }
    let silent = seen.recv_timeout(Duration::from_millis(20));
    assert!(
        matches!(silent, Err(RecvTimeoutError::Timeout)),
        "{silent:?}"
    );
    ran.into_iter().zip(ended.into_iter().flatten()).collect()
}

fn mesh(fixture: &Fixture) -> Mesh<'_> {
    Mesh {
        fixture,
        key: MeshKey::generate(),
        hosts: Vec::new(),
    }
}

fn jobs_run_where_slots_are(fixture: &Fixture) {
    let mut mesh = mesh(fixture);
    mesh.start(2, Lending::Always);
    mesh.start(2, Lending::Always);
    let client = mesh.start(1, Lending::Never);
    mesh.settle();
    let layers = mesh.layers(client);
    let (to, seen) = channel();
    for number in 0..40 {
        mesh.submit(
            client,
            job(
                &layers,
                &format!("echo {number}; sleep 0.1; exit {}", number % 3),
            ),
            &to,
        );
    }
    let ends = ends(&seen, 40);
    let mut elsewhere = 0;
    for (number, (on, result)) in ends.iter().enumerate() {
        let outcome = result.as_ref().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(outcome.status, JobStatus::Exited(number as u8 % 3));
        assert_eq!(
            outcome.effects.stdout.bytes(),
            format!("{number}\n").as_bytes()
        );
        elsewhere += usize::from(on.is_some());
    }
    for host in ["host0", "host1"] {
        let ran = ends
            .iter()
            .filter(|(on, _)| on.as_deref() == Some(host))
            .count();
        assert!(ran > 0, "{host} ran nothing");
    }
    assert!(elsewhere < 40, "the client ran nothing itself");
}

fn a_lost_node_loses_no_job(fixture: &Fixture) {
    let mut mesh = mesh(fixture);
    mesh.start(1, Lending::Always);
    mesh.start(2, Lending::Always);
    let client = mesh.start(1, Lending::Never);
    mesh.settle();
    let layers = mesh.layers(client);
    let (to, seen) = channel();
    for _ in 0..12 {
        mesh.submit(client, job(&layers, "sleep 0.5"), &to);
    }
    // As soon as the second host runs something, it goes.
    let mut early = Vec::new();
    loop {
        let event = next(&seen);
        let there = matches!(&event.1, JobEvent::Running { on: Some(on) } if **on == *"host1");
        early.push(event);
        if there {
            break;
        }
    }
    mesh.hosts[1].node.stop();
    for event in early {
        to.send(event).expect("the receiver is here");
    }
    for (_, result) in ends(&seen, 12) {
        assert_eq!(result.expect("every job ends").status, JobStatus::Exited(0));
    }
}

fn cancelled_jobs_end_everywhere(fixture: &Fixture) {
    let mut mesh = mesh(fixture);
    mesh.start(3, Lending::Always);
    let client = mesh.start(1, Lending::Never);
    mesh.settle();
    let layers = mesh.layers(client);
    let (to, seen) = channel();
    for _ in 0..6 {
        mesh.submit(client, job(&layers, "sleep 1000"), &to);
    }
    let mut running = 0;
    while running < 4 {
        running += usize::from(matches!(next(&seen).1, JobEvent::Running { .. }));
    }
    mesh.hosts[client].node.cancel_all();
    let mut ended = 0;
    while ended < 6 {
        if let (_, JobEvent::Completed(result)) = next(&seen) {
            assert_eq!(result, Err(JobError::Cancelled));
            ended += 1;
        }
    }
    let end = Instant::now() + PATIENCE;
    while !mesh.hosts[0].node.status().running.is_empty() {
        assert!(Instant::now() < end, "the jobs go on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn what_reaches_out_of_a_container_stays_here(fixture: &Fixture) {
    let mut mesh = mesh(fixture);
    mesh.start(4, Lending::Always);
    let client = mesh.start(1, Lending::Never);
    mesh.settle();
    let layers = mesh.layers(client);
    let (to, seen) = channel();
    for _ in 0..4 {
        let mut job = job(&layers, "sleep 0.1");
        Arc::make_mut(&mut job.container).network = JobNetwork::Local;
        mesh.submit(client, job, &to);
    }
    for (on, result) in ends(&seen, 4) {
        assert_eq!(on, None);
        assert_eq!(result.expect("it runs").status, JobStatus::Exited(0));
    }
}

fn a_node_that_drains_finishes_what_it_runs(fixture: &Fixture) {
    let mut mesh = mesh(fixture);
    mesh.start(1, Lending::Always);
    let client = mesh.start(1, Lending::Never);
    mesh.settle();
    let layers = mesh.layers(client);
    let (to, seen) = channel();
    for _ in 0..2 {
        mesh.submit(client, job(&layers, "sleep 0.7"), &to);
    }
    loop {
        if let (_, JobEvent::Running { on: Some(_) }) = next(&seen) {
            break;
        }
    }
    mesh.hosts[0].node.drain(PATIENCE);
    assert!(mesh.hosts[0].node.status().running.is_empty());
    assert!(!mesh.hosts[0].node.status().lends);
    for _ in 0..2 {
        loop {
            if let (_, JobEvent::Completed(result)) = next(&seen) {
                assert_eq!(result.expect("it ends").status, JobStatus::Exited(0));
                break;
            }
        }
    }
}

fn nodes_with_another_key_stay_strangers(fixture: &Fixture) {
    let mut mesh = mesh(fixture);
    mesh.start(1, Lending::Always);
    mesh.key = MeshKey::generate();
    let stranger = mesh.start(1, Lending::Never);
    let end = Instant::now() + PATIENCE;
    while mesh.hosts[0].node.status().refused.is_empty() {
        assert!(Instant::now() < end, "nobody is turned away");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(mesh.hosts[0].node.members(), 0);
    assert_eq!(mesh.hosts[stranger].node.members(), 0);
}

/// Whoever has the key and speaks no protocol, on each channel.
fn who_sends_rubbish_is_disconnected_and_reported(fixture: &Fixture) {
    let mut mesh = mesh(fixture);
    mesh.start(1, Lending::Always);
    mesh.start(1, Lending::Always);
    mesh.settle();
    let victim = &mesh.hosts[0].node;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for channel in Channel::ALL {
        let rogue = NodeKey::generate();
        let id = rogue.id();
        runtime.block_on(async {
            let config = NetConfig {
                node_key: rogue,
                mesh_key: mesh.key.clone(),
                listen: Vec::new(),
                mdns: false,
                bulk: None,
            };
            let (net, mut events) = Net::start(config).await.expect("the rogue starts");
            net.learn(victim.id(), &victim.net().addresses());
            net.send(victim.id(), channel, vec![0xee; 300].into());
            let gone = async {
                while let Some(event) = events.recv().await {
                    if matches!(event, NetEvent::PeerDown { .. }) {
                        return;
                    }
                }
            };
            let gone = tokio::time::timeout(PATIENCE, gone).await;
            assert!(gone.is_ok(), "rubbish on {} is listened to", channel.name());
        });
        let refused = victim.status().refused;
        let told = refused.iter().any(|refusal| refusal.who == id.to_string());
        assert!(told, "{}: {refused:?}", channel.name());
    }
    // Those who keep to the rules go on.
    let layers = mesh.layers(1);
    let (to, seen) = channel();
    mesh.submit(1, job(&layers, "exit 5"), &to);
    mesh.submit(1, job(&layers, "exit 5"), &to);
    for (_, result) in ends(&seen, 2) {
        assert_eq!(result.expect("it runs").status, JobStatus::Exited(5));
    }
    assert_eq!(mesh.hosts[0].node.members(), 1);
}

fn key(container: u8, job: u8) -> ResultKey {
    ResultKey::new([container; 16], [job; 16])
}

impl Mesh<'_> {
    fn results(&self, host: usize) -> Arc<dyn SharedResults> {
        let results = self.hosts[host].node.results();
        results.expect("a mesh shares results")
    }
}

/// What a client found out stays in the mesh when the client is gone.
fn what_one_found_out_others_know(fixture: &Fixture) {
    let mut mesh = mesh(fixture);
    for lending in [Lending::Always, Lending::Always, Lending::Always] {
        mesh.start(1, lending);
    }
    let client = mesh.start(1, Lending::Never);
    mesh.settle();
    let long = [b"passed".to_vec(), vec![b'x'; 20_000]].concat();
    let found_out: Vec<(ResultKey, Vec<u8>)> = (0..50)
        .map(|n| (key(n % 5, n), [&long, &vec![n; 10][..]].concat()))
        .collect();
    for (key, result) in &found_out {
        mesh.results(client).offer(*key, result.clone());
    }
    let too_long = key(0, 200);
    let results = mesh.results(client);
    results.offer(too_long, vec![0; 1 << 20]);
    // Stopping tells others what is still to be told.
    let gone = mesh.hosts.pop().expect("the client");
    gone.node.stop();
    drop((gone, results));
    let asking = mesh.start(1, Lending::Never);
    let end = Instant::now() + PATIENCE;
    for container in 0..5 {
        let those = found_out
            .iter()
            .filter(|(key, _)| key.container() == [container; 16]);
        let (mut keys, mut expected): (Vec<_>, Vec<_>) = those
            .map(|(key, result)| (*key, Some(result.clone())))
            .unzip();
        keys.push(key(container, 200));
        expected.push(None);
        while mesh.results(asking).find(&keys) != expected {
            assert!(
                Instant::now() < end,
                "not all of container {container} is known"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    // Nobody waits for a member that is gone without a word, but once.
    let unknown = [key(9, 9)];
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(mesh.results(asking).find(&unknown), [None]);
    }
    assert!(start.elapsed() < PATIENCE / 4, "{:?}", start.elapsed());
}

fn who_offers_what_is_no_result_is_disconnected(fixture: &Fixture) {
    let mut mesh = mesh(fixture);
    mesh.start(1, Lending::Always);
    let rogue = mesh.start(1, Lending::Never);
    mesh.settle();
    mesh.results(rogue).offer(key(1, 1), b"rubbish".to_vec());
    let id = mesh.hosts[rogue].node.id().to_string();
    let end = Instant::now() + PATIENCE;
    let is_refused = || {
        let refused = mesh.hosts[0].node.status().refused;
        refused.iter().any(|refusal| refusal.who == id)
    };
    while !is_refused() {
        assert!(Instant::now() < end, "it is listened to");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(mesh.results(0).find(&[key(1, 1)]), [None]);
}

fn main() {
    let fixture = Arc::new(Fixture {
        launcher: Launcher::start().expect("the launcher starts"),
    });
    type Test = (&'static str, fn(&Fixture));
    let tests: [Test; 9] = [
        ("jobs_run_where_slots_are", jobs_run_where_slots_are),
        ("a_lost_node_loses_no_job", a_lost_node_loses_no_job),
        (
            "cancelled_jobs_end_everywhere",
            cancelled_jobs_end_everywhere,
        ),
        (
            "what_reaches_out_of_a_container_stays_here",
            what_reaches_out_of_a_container_stays_here,
        ),
        (
            "a_node_that_drains_finishes_what_it_runs",
            a_node_that_drains_finishes_what_it_runs,
        ),
        (
            "who_sends_rubbish_is_disconnected_and_reported",
            who_sends_rubbish_is_disconnected_and_reported,
        ),
        (
            "what_one_found_out_others_know",
            what_one_found_out_others_know,
        ),
        (
            "who_offers_what_is_no_result_is_disconnected",
            who_offers_what_is_no_result_is_disconnected,
        ),
        (
            "nodes_with_another_key_stay_strangers",
            nodes_with_another_key_stay_strangers,
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
