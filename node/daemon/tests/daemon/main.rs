//! The built daemon: its start, its keys, its answers, its clients, and its ends.

mod machine;

use libtest_mimic::{Arguments, Trial};
use machine::{Machine, PATIENCE, wait_until};
use maelstrom_content::{BuildContext, Store, StoreOptions};
use maelstrom_net::Ticket;
use maelstrom_node::{Container, Job, JobEvent, JobId, JobService, Node, Rank};
use maelstrom_runtime::{ContainerMount, JobNetwork, Launcher, Privileges, Root};
use maelstrom_session::{Fallback, Session, SessionClient};
use maelstrom_spec::{JobError, JobStatus, LayerSpec};
use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
};

fn the_first_start_makes_keys_and_says_how_others_join(_: &Launcher) {
    let machine = Machine::new();
    let mut daemon = machine.start(&[]);
    for key in ["config/maelstrom/mesh.key", "state/maelstrom/node.key"] {
        let mode = fs::metadata(machine.path(key)).expect(key).permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "{key}");
    }
    let invite = machine.run(&["invite"]);
    assert!(invite.status.success(), "{invite:?}");
    let word = String::from_utf8(invite.stdout).unwrap();
    let ticket: Ticket = word.trim().parse().expect("a ticket");
    let line = format!("maelstrom-node --join {}", word.trim());
    assert!(daemon.stdout().contains(&line), "{}", daemon.stdout());
    assert!(daemon.stdout().contains("loopback"), "{}", daemon.stdout());
    assert!(
        !daemon.stderr().contains(word.trim()),
        "the log has the key"
    );
    let first = machine.status();
    let address = ticket.addresses()[0].to_string();
    assert_eq!(first["mesh"]["this"]["addresses"][0], address.as_str());

    daemon.signal("-TERM");
    assert!(daemon.ended().success(), "{}", daemon.stderr());
    assert!(!machine.socket().exists());
    let daemon = machine.start(&["--name", "again"]);
    let second = machine.status();
    assert_eq!(first["mesh"]["this"]["id"], second["mesh"]["this"]["id"]);
    assert_eq!(first["mesh_key"], second["mesh_key"]);
    assert_eq!(second["mesh"]["this"]["name"], "again");
    assert_eq!(daemon.stdout(), "");
}

fn status_is_for_people_and_for_programs(_: &Launcher) {
    let machine = Machine::new();
    let daemon = machine.start(&["--name", "desk", "--label", "gpu", "--lend", "never"]);
    let json = machine.status();
    assert_eq!(json["format"], 1);
    assert_eq!(json["pid"], daemon.pid());
    assert_eq!(json["sessions"], 0);
    assert_eq!(json["owner_active"], serde_json::Value::Null);
    let this = &json["mesh"]["this"];
    assert_eq!(this["name"], "desk");
    assert_eq!(this["slots"], 2);
    assert_eq!(this["lending"], "never");
    assert_eq!(this["labels"], serde_json::json!(["gpu"]));
    assert_eq!(this["architecture"], std::env::consts::ARCH);
    assert_eq!(json["mesh"]["lends"], false);
    let text = machine.run(&["status"]);
    let text = String::from_utf8(text.stdout).unwrap();
    for expected in ["desk *", "MEMBER", "lending: never", "gpu", "1 member"] {
        assert!(text.contains(expected), "{text}");
    }
}

fn an_owner_at_work_is_seen(_: &Launcher) {
    let machine = Machine::new();
    let _daemon = machine.start(&["--lend", "idle"]);
    // Until the first look nothing is lent; afterwards it depends on the machine.
    let json = machine.status();
    let lends = json["mesh"]["lends"].as_bool().unwrap();
    assert_eq!(lends, json["owner_active"].is_null());
    let text = String::from_utf8(machine.run(&["status"]).stdout).unwrap();
    assert!(text.contains("lending: idle"), "{text}");
}

fn errors_help(_: &Launcher) {
    let machine = Machine::new();
    let error = |arguments: &[&str]| {
        let output = machine.run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for (arguments, expected) in [
        (&["status"][..], "Start one with `maelstrom-node`"),
        (&["invite"], "Start one with `maelstrom-node`"),
        (&["--lend", "sometimes"], "always, idle, never"),
        (&["--listen", "nowhere"], "such as `10.0.0.5`"),
        (&["--join", "host:port"], "expected HOST"),
        (&["--slots", "0"], "from 1 to 1000"),
        (&["--nonsense"], "--nonsense"),
    ] {
        let text = error(arguments);
        assert!(text.contains(expected), "{arguments:?}: {text}");
    }
    let key = machine.path("bad.key");
    fs::write(&key, "not a key").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let text = error(&["--mesh-key", key.to_str().unwrap()]);
    assert!(
        text.contains("bad.key") && text.contains("maelstromkey1"),
        "{text}"
    );
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let text = error(&["--mesh-key", key.to_str().unwrap()]);
    assert!(text.contains("chmod"), "{text}");
    let config = machine.path("config/maelstrom/node/config.toml");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    fs::write(&config, "slots = \"many\"\n").unwrap();
    let text = error(&[]);
    assert!(
        text.contains("config.toml") && text.contains("slots"),
        "{text}"
    );
}

fn two_daemons_get_in_nobody_s_way(_: &Launcher) {
    let machine = Machine::new();
    let daemon = machine.start(&[]);
    let second = machine.run(&["--listen", "127.0.0.1:0"]);
    let text = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(text.contains("runs already"), "{text}");
    assert!(
        text.contains(&format!("process {}", daemon.pid())),
        "{text}"
    );
    machine.status();

    // Another user's, say.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let other = Machine::new();
    let refused = other.run(&["--listen", &address, "--mdns=false"]);
    let text = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(text.contains(&address) && text.contains("in use"), "{text}");
}

/// A client of a machine's daemon, with a shell in a layer.
struct Client {
    service: Arc<SessionClient>,
    container: Arc<Container>,
    to: Sender<(JobId, JobEvent)>,
    seen: Receiver<(JobId, JobEvent)>,
}

impl Client {
    fn new(launcher: &Launcher, machine: &Machine) -> Self {
        let session = machine.connect();
        let welcome = session.welcome();
        let options = StoreOptions {
            cache_size_bytes: welcome.cache_size_bytes,
        };
        let store = Store::open(&welcome.store, options).expect("the daemon's store");
        let container = container(&store);
        let (again, fallback_store) = (launcher.clone(), store.clone());
        let fallback: Fallback = Box::new(move |_| {
            Node::start(again, fallback_store, 2)
                .map(|node| Arc::new(node) as Arc<dyn JobService>)
                .map_err(|error| error.to_string())
        });
        let service = session
            .into_service(launcher.clone(), store, fallback)
            .expect("threads");
        let (to, seen) = channel();
        Self {
            service: Arc::new(service),
            container,
            to,
            seen,
        }
    }

    fn submit(&self, script: &str) -> JobId {
        let id = self.service.reserve();
        let to = self.to.clone();
        let handler = move |id, event| {
            let _ = to.send((id, event));
        };
        let job = job(&self.container, script);
        self.service.submit_reserved(id, job, Box::new(handler));
        id
    }

    fn next(&self) -> (JobId, JobEvent) {
        self.seen.recv_timeout(PATIENCE).expect("something happens")
    }

    /// How all of these jobs end, and where they ran last.
    fn finish(
        &self,
        jobs: &[JobId],
    ) -> HashMap<JobId, (Result<JobStatus, JobError>, Option<String>)> {
        let mut ran_on = HashMap::new();
        let mut ended = HashMap::new();
        while ended.len() < jobs.len() {
            match self.next() {
                (id, JobEvent::Running { on }) => {
                    ran_on.insert(id, on.map(|on| on.to_string()));
                }
                (id, JobEvent::Completed(result)) => {
                    let on = ran_on.get(&id).cloned().flatten();
                    let status = result.map(|outcome| outcome.status);
                    assert!(
                        ended.insert(id, (status, on)).is_none(),
                        "job {id} ended twice"
                    );
                }
            }
        }
        ended
    }
}

fn container(store: &Store) -> Arc<Container> {
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
            programs: ["sh", "sleep"].map(str::to_owned).to_vec(),
        },
    ];
    Arc::new(Container {
        layers: layers
            .map(|layer| store.build(&layer, &context).expect("a layer"))
            .to_vec(),
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
    })
}

fn job(container: &Arc<Container>, script: &str) -> Job {
    Job {
        container: container.clone(),
        program: "sh".to_owned(),
        arguments: vec!["-c".to_owned(), script.to_owned()],
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

/// The processes of this machine that have this among their arguments.
fn processes(marker: &str) -> usize {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            entry.file_name().to_str()?.parse::<u32>().ok()?;
            fs::read(entry.path().join("cmdline")).ok()
        })
        .filter(|arguments| {
            let text = String::from_utf8_lossy(arguments);
            text.starts_with("sh\0") && text.contains(marker)
        })
        .count()
}

fn a_client_s_jobs_run_at_the_daemon(launcher: &Launcher) {
    let machine = Machine::new();
    let _daemon = machine.start(&[]);
    let client = Client::new(launcher, &machine);
    let jobs: Vec<JobId> = (0..20)
        .map(|code| client.submit(&format!("exit {code}")))
        .collect();
    let ended = client.finish(&jobs);
    for (code, job) in jobs.iter().enumerate() {
        assert_eq!(ended[job].0, Ok(JobStatus::Exited(code as u8)));
    }
    let json = machine.status();
    assert_eq!(json["sessions"], 1);
    // While one runs, it is shown.
    let marker = format!("shown-{}", std::process::id());
    let long = client.submit(&format!("sleep 100000 # {marker}"));
    wait_until("the job is shown", || {
        machine.status()["mesh"]["running"]
            .as_array()
            .is_some_and(|running| running.len() == 1)
    });
    let text = String::from_utf8(machine.run(&["status"]).stdout).unwrap();
    assert!(text.contains("RUNNING HERE"), "{text}");
    assert!(text.contains("1 client on this machine"), "{text}");
    client.service.cancel(long);
    assert_eq!(client.finish(&[long])[&long].0, Err(JobError::Cancelled));
    wait_until("nothing runs", || processes(&marker) == 0);
}

/// As another process, so that it can be killed.
const CLIENT: &str = "MAELSTROM_TEST_CLIENT";

fn be_a_client(launcher: &Launcher, socket: PathBuf) {
    let session = Session::connect(&socket).unwrap().unwrap();
    let store = Store::open(&session.welcome().store, StoreOptions::default()).unwrap();
    let container = container(&store);
    let marker = std::env::var("MAELSTROM_TEST_MARKER").unwrap();
    let none: Fallback = Box::new(|why| Err(why.to_owned()));
    let client = session.into_service(launcher.clone(), store, none).unwrap();
    for _ in 0..10 {
        let say = |_, event| {
            if matches!(event, JobEvent::Running { .. }) {
                println!("running");
                let _ = std::io::stdout().flush();
            }
        };
        let job = job(&container, &format!("sleep 100000 # {marker}"));
        client.submit_reserved(client.reserve(), job, Box::new(say));
    }
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn a_killed_client_leaves_nothing(_: &Launcher) {
    let machine = Machine::new();
    let _daemon = machine.start(&[]);
    let marker = format!("killed-client-{}", std::process::id());
    let mut client = Command::new(std::env::current_exe().unwrap())
        .env(CLIENT, machine.socket())
        .env("MAELSTROM_TEST_MARKER", &marker)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        assert_eq!(lines.next().unwrap().unwrap(), "running");
    }
    wait_until("both run", || processes(&marker) >= 2);
    client.kill().unwrap();
    client.wait().unwrap();
    wait_until("its jobs end", || processes(&marker) == 0);
    wait_until("its session ends", || {
        let json = machine.status();
        json["sessions"] == 0 && json["mesh"]["jobs_unfinished"] == 0
    });
}

fn a_client_survives_its_daemon(launcher: &Launcher) {
    for signal in ["-KILL", "-TERM"] {
        let machine = Machine::new();
        let mut daemon = machine.start(&[]);
        let client = Client::new(launcher, &machine);
        let done = client.submit("exit 1");
        assert_eq!(client.finish(&[done])[&done].0, Ok(JobStatus::Exited(1)));
        let marker = format!("survives{signal}-{}", std::process::id());
        let script = format!("exit 4 # {marker}");
        let slow = format!("sleep 100000 # {marker}");
        let stuck: Vec<JobId> = (0..2).map(|_| client.submit(&slow)).collect();
        let waiting: Vec<JobId> = (0..5).map(|_| client.submit(&script)).collect();
        wait_until("both slots are taken", || processes(&marker) >= 2);
        daemon.signal(signal);
        let status = daemon.ended();
        assert_eq!(status.success(), signal == "-TERM", "{}", daemon.stderr());
        wait_until("the client has noticed", || !client.service.has_daemon());
        // The two that were stuck run again in this process, and can be cancelled.
        for job in &stuck {
            client.service.cancel(*job);
        }
        let all: Vec<JobId> = stuck.iter().chain(&waiting).copied().collect();
        let ended = client.finish(&all);
        for job in &stuck {
            assert_eq!(ended[job].0, Err(JobError::Cancelled));
        }
        for job in &waiting {
            assert_eq!(ended[job].0, Ok(JobStatus::Exited(4)));
        }
        wait_until("nothing is left", || processes(&marker) == 0);
        // What a killed daemon leaves is in nobody's way.
        let _daemon = machine.start(&[]);
        machine.status();
    }
}

fn nodes_join_by_a_ticket_and_share_work(launcher: &Launcher) {
    let (home, lender) = (Machine::new(), Machine::new());
    let _first = home.start(&["--name", "home"]);
    let ticket = home.run(&["invite"]).stdout;
    let ticket = String::from_utf8(ticket).unwrap();
    let mut second = lender.start(&["--name", "lender", "--join", ticket.trim()]);
    assert_eq!(second.stdout(), "");
    wait_until("both know each other", || {
        [&home, &lender].iter().all(|machine| {
            let members = machine.status()["mesh"]["members"].clone();
            members.as_array().is_some_and(|members| members.len() == 1)
        })
    });
    assert_eq!(home.status()["mesh_key"], lender.status()["mesh_key"]);
    let client = Client::new(launcher, &home);
    let jobs: Vec<JobId> = (0..12).map(|_| client.submit("sleep 1; exit 9")).collect();
    let ended = client.finish(&jobs);
    let places: HashSet<_> = ended.values().map(|(_, on)| on.clone()).collect();
    assert!(
        ended
            .values()
            .all(|(result, _)| *result == Ok(JobStatus::Exited(9)))
    );
    assert!(places.contains(&Some("lender".to_owned())), "{places:?}");

    // A node that is told to end lets what it has started go on.
    let marker = format!("drained-{}", std::process::id());
    let jobs: Vec<JobId> = (0..12)
        .map(|_| client.submit(&format!("sleep 2; exit 9 # {marker}")))
        .collect();
    wait_until("the lender runs some", || {
        lender.status()["mesh"]["running"]
            .as_array()
            .is_some_and(|running| !running.is_empty())
    });
    second.signal("-TERM");
    let ended = client.finish(&jobs);
    assert!(
        ended
            .values()
            .all(|(result, _)| *result == Ok(JobStatus::Exited(9)))
    );
    assert!(second.ended().success(), "{}", second.stderr());
    wait_until("home notices", || {
        home.status()["mesh"]["members"] == serde_json::json!([])
    });
    wait_until("nothing is left", || processes(&marker) == 0);
}

fn a_node_of_another_mesh_is_turned_away(_: &Launcher) {
    let (home, stranger) = (Machine::new(), Machine::new());
    let _home = home.start(&["--name", "home"]);
    let address = home.status()["mesh"]["this"]["addresses"][0].clone();
    let address = address.as_str().unwrap().to_owned();
    let _stranger = stranger.start(&["--name", "stranger", "--join", &address]);
    wait_until("the stranger is turned away", || {
        home.status()["mesh"]["refused"]
            .as_array()
            .is_some_and(|refused| !refused.is_empty())
    });
    let json = home.status();
    assert_eq!(json["mesh"]["members"], serde_json::json!([]));
    let text = String::from_utf8(home.run(&["status"]).stdout).unwrap();
    assert!(text.contains("TURNED AWAY"), "{text}");
}

fn main() {
    // Before there are threads.
    let launcher = Launcher::start().expect("a launcher");
    if let Some(socket) = std::env::var_os(CLIENT) {
        return be_a_client(&launcher, socket.into());
    }
    let launcher = Arc::new(launcher);
    type Test = (&'static str, fn(&Launcher));
    let tests: [Test; 10] = [
        (
            "the_first_start_makes_keys_and_says_how_others_join",
            the_first_start_makes_keys_and_says_how_others_join,
        ),
        (
            "status_is_for_people_and_for_programs",
            status_is_for_people_and_for_programs,
        ),
        ("an_owner_at_work_is_seen", an_owner_at_work_is_seen),
        ("errors_help", errors_help),
        (
            "two_daemons_get_in_nobody_s_way",
            two_daemons_get_in_nobody_s_way,
        ),
        (
            "a_client_s_jobs_run_at_the_daemon",
            a_client_s_jobs_run_at_the_daemon,
        ),
        (
            "a_killed_client_leaves_nothing",
            a_killed_client_leaves_nothing,
        ),
        ("a_client_survives_its_daemon", a_client_survives_its_daemon),
        (
            "nodes_join_by_a_ticket_and_share_work",
            nodes_join_by_a_ticket_and_share_work,
        ),
        (
            "a_node_of_another_mesh_is_turned_away",
            a_node_of_another_mesh_is_turned_away,
        ),
    ];
    let trials = tests
        .into_iter()
        .map(|(name, test)| {
            let launcher = launcher.clone();
            Trial::test(name, move || {
                test(&launcher);
                Ok(())
            })
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
