//! The life of a daemon.

use crate::{
    keys::{self, Keys},
    lending::{self, Reason, Watcher},
    options::NodeOptions,
    report::{FORMAT, Report},
    supervisor,
};
use anyhow::{Context as _, Result};
use maelstrom_content::{Store, StoreOptions};
use maelstrom_mesh::{Lending, MeshConfig, MeshNode};
use maelstrom_net::{MeshKey, Ticket};
use maelstrom_node::JobService as _;
use maelstrom_runner::results::ResultCache;
use maelstrom_runtime::Launcher;
use maelstrom_session::{Answer, Question, Server, Socket, Welcome, socket_path};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::JoinHandle,
    time::Instant,
};

/// Everything that answers about the daemon need.
struct About {
    node: Arc<MeshNode>,
    mesh_key: MeshKey,
    started: Instant,
    welcome: Welcome,
    /// Why the machine isn't lent, with the policy `idle`.
    owner: Arc<Mutex<Option<Reason>>>,
    server: OnceLock<Server>,
}

/// Is a node of the mesh until it is told to end.
pub(crate) fn run(launcher: Launcher, options: NodeOptions) -> Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("listening for signals")?;
    // First of all, so that a second daemon changes nothing.
    let socket = Socket::claim(&socket_path())?;
    let keys = keys::load(&options)?;
    let without_key = keys.join_without_key(&options.mesh_key);
    let Keys {
        node: node_key,
        mesh: mesh_key,
        is_new_mesh,
        join,
    } = keys;
    let store_options = StoreOptions {
        cache_size_bytes: options.cache_size_bytes,
    };
    let store = Store::open(&options.cache_root, store_options)?;
    let results = ResultCache::new(store.root().join("results"), None);
    let node = MeshNode::start(
        launcher,
        MeshConfig {
            node_key,
            mesh_key: mesh_key.clone(),
            listen: options.listen.clone(),
            join,
            mdns: options.mdns,
            name: options.name.clone(),
            labels: options.labels.clone(),
            slots: options.slots,
            lending: options.lend.0,
            may_coordinate: true,
            state_dir: Some(options.state_root.clone()),
            store: store.clone(),
            results: Some(Arc::new(results)),
        },
    )?;
    let node = Arc::new(node);
    let welcome = Welcome {
        node: node.id().to_string(),
        name: options.name.clone(),
        slots: options.slots,
        store: store.root().to_path_buf(),
        cache_size_bytes: options.cache_size_bytes,
        pid: std::process::id(),
    };
    let about = Arc::new(About {
        node: node.clone(),
        mesh_key,
        started: Instant::now(),
        welcome: welcome.clone(),
        owner: Arc::default(),
        server: OnceLock::new(),
    });
    let server = Server::start(socket, welcome, node.clone(), answers(&about))
        .context("serving the clients of this machine")?;
    let server = about.server.get_or_init(|| server);
    let watching = watch_owner(&about, options.lend.0).context("starting a thread")?;
    tell_of_start(&about, &options, is_new_mesh && without_key.is_none());
    if let Some(advice) = without_key {
        tracing::warn!("{advice}");
    }
    supervisor::notify("READY=1");

    let signal = signals.forever().next();
    supervisor::notify("STOPPING=1");
    let bound = options.drain_timeout;
    tracing::info!(
        "ending{}: jobs of others have {} s; a second signal ends everything at once",
        signal
            .map(|signal| match signal_hook::low_level::signal_name(signal) {
                Some(name) => format!(" by {name}"),
                None => format!(" by signal {signal}"),
            })
            .unwrap_or_default(),
        bound.as_secs()
    );
    let handle = signals.handle();
    let impatient = std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if signals.forever().next().is_some() {
                // The kernel ends every job with this process.
                std::process::exit(1);
            }
        })
        .context("starting a thread")?;
    drop(watching);
    server.close("it was told to end");
    node.drain(bound);
    node.stop();
    handle.close();
    let _ = impatient.join();
    tracing::info!("ended");
    Ok(())
}

/// Answers what clients ask.
fn answers(about: &Arc<About>) -> Answer {
    let about = Arc::downgrade(about);
    Box::new(move |question| {
        let about = about.upgrade().ok_or("it is ending")?;
        match question {
            Question::Status => {
                serde_json::to_string_pretty(&about.report()).map_err(|error| error.to_string())
            }
            Question::Invite => Ok(about.ticket().to_string()),
        }
    })
}

impl About {
    fn report(&self) -> Report {
        let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        let server = self.server.get();
        Report {
            format: FORMAT,
            pid: self.welcome.pid,
            up_seconds: self.started.elapsed().as_secs(),
            socket: server
                .map(|server| server.path().to_owned())
                .unwrap_or_default(),
            store: self.welcome.store.clone(),
            cache_size_bytes: self.welcome.cache_size_bytes,
            // Whoever asks has one, and is no client.
            sessions: server.map_or(0, Server::sessions).saturating_sub(1),
            mesh_key: self.mesh_key.fingerprint(),
            owner_active: owner.as_ref().map(Reason::to_string),
            mesh: self.node.status(),
        }
    }

    fn ticket(&self) -> Ticket {
        Ticket::new(&self.addresses(), &self.mesh_key)
    }

    /// Where others reach this node: on a network if it listens on one.
    fn addresses(&self) -> Vec<SocketAddr> {
        let mut addresses = self.node.net().addresses();
        if addresses.iter().any(|address| !address.ip().is_loopback()) {
            addresses.retain(|address| !address.ip().is_loopback());
        }
        addresses.sort_by_key(|address| (address.is_ipv6(), *address));
        addresses
    }
}

/// Says where the node listens and, where it is the first of a mesh, how others join.
fn tell_of_start(about: &About, options: &NodeOptions, is_first: bool) {
    let addresses = about.addresses();
    let listed: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    tracing::info!(
        "node {} ({}) listens on {}; {} slots, lent {}; mesh key {}",
        about.welcome.name,
        &about.welcome.node[..8.min(about.welcome.node.len())],
        listed.join(", "),
        options.slots,
        options.lend.word(),
        about.mesh_key.fingerprint(),
    );
    if !is_first {
        return;
    }
    println!(
        "This machine has no mesh key yet, so this is the first node of a new mesh. Type on the next machine:\n\n    maelstrom-node --join {}\n\nWhoever has this line can join: treat it like a password. `maelstrom-node invite` prints the last word of it again.",
        about.ticket()
    );
    if addresses.iter().all(|address| address.ip().is_loopback()) {
        println!(
            "(This node listens on this machine's loopback interface only, so that no other machine can join it; see --listen.)"
        );
    }
}

/// Looks after the owner of the machine until what it returns is dropped.
fn watch_owner(about: &Arc<About>, lending: Lending) -> std::io::Result<Option<Watching>> {
    if lending != Lending::Idle {
        return Ok(None);
    }
    let (stop, stopped) = mpsc::channel();
    let (node, owner) = (about.node.clone(), about.owner.clone());
    let set = move |reason: Option<Reason>| {
        let mut owner = owner.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*owner, &reason) {
            (Some(before), Some(now)) if before.is_like(now) => {}
            (_, Some(now)) => tracing::info!("not lending: {now}"),
            (Some(_), None) => tracing::info!("lending: nobody needs this machine"),
            (None, None) => {}
        }
        node.set_owner_active(reason.is_some());
        *owner = reason;
    };
    set(Some(Reason::Starting));
    let thread = std::thread::Builder::new()
        .name("lending".to_owned())
        .spawn(move || {
            let mut watcher = Watcher::new();
            while stopped.recv_timeout(lending::LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                set(watcher.judge());
            }
        })?;
    Ok(Some(Watching {
        stop: Some(stop),
        thread: Some(thread),
    }))
}

struct Watching {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
