//! The node.

mod work;

use crate::{
    LentContainer, MeshConfig, MeshError, NodeId, Status,
    clock::Clock,
    layers::{KnownLayers, PinnedLayers},
    memory::{Memory, MemoryFile, Peer},
    outbox::Outbox,
    own::OwnJobs,
    peers,
    results::{self, Results},
    status,
};
use maelstrom_content::{LayerId, Store};
use maelstrom_cores::{Cores, Event, Protocol, Setup, dispatch_id};
use maelstrom_dispatch::{self as dispatch, Held, Incarnation};
use maelstrom_gossip::{LayerDigest, Lending, Profile};
use maelstrom_layers::{Layers, LayersConfig, Outgoing};
use maelstrom_net::{Channel, Events, Net, NetConfig, NetEvent};
use maelstrom_node::{Handler, Job, JobEvent, JobId, JobService, Node, SharedResults};
use maelstrom_runtime::Launcher;
use std::{
    collections::{HashMap, HashSet},
    fmt::{self, Write as _},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{
        Notify,
        mpsc::{self, Receiver},
    },
    task::AbortHandle,
};

/// How often a node looks after what nobody tells it of.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// How long the timer sleeps where nothing is due.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// How long after the end of a connection another node is given up on, where the two have jobs of
/// each other. They speak every second then, so the connection does not end for want of use.
const LOST_AFTER: Duration = Duration::from_millis(400);

/// How many connections for layers wait until they are looked at.
const BULK_CONNECTIONS: usize = 64;

/// How long a node that stops gives its last messages to be sent.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A node of the mesh: runs the jobs that are submitted to it on its own slots and on those of
/// the mesh, and jobs of others on its own.
pub struct MeshNode {
    shared: Arc<Shared>,
    runtime: Mutex<Option<Runtime>>,
    /// Looks after results.
    clerk: Mutex<Option<JoinHandle<()>>>,
}

pub(crate) struct Shared {
    pub(crate) id: NodeId,
    pub(crate) clock: Clock,
    pub(crate) net: Net,
    pub(crate) layers: Layers,
    pub(crate) results: Results,
    slots: Node,
    store: Store,
    state: Mutex<State>,
    /// Some job on a slot of this node has ended.
    ended: Condvar,
    known: Mutex<KnownLayers>,
    next_id: AtomicU64,
    /// For the slots, in the order in which dispatch decided it.
    orders: Outbox<Order>,
    /// For those who submitted jobs, in the order in which it happened.
    reports: Outbox<Report>,
    /// Something is due earlier than the timer thinks.
    sooner: Notify,
    threads: Handle,
}

pub(crate) struct State {
    pub(crate) cores: Cores,
    own: OwnJobs,
    /// What runs on the slots of this node.
    pub(crate) here: HashMap<Held, Here>,
    fetching: HashMap<Held, AbortHandle>,
    /// That of the job of another node that was started last.
    lent_container: Option<LentContainer>,
    pinned: PinnedLayers,
    pub(crate) profile: Profile,
    memory: Option<MemoryFile>,
    term: u64,
    /// When the timer goes off.
    timer_at: Option<Instant>,
    /// Jobs of others that ran here, ever.
    pub(crate) lent_jobs: u64,
    /// Nodes that there is a connection with.
    connected: HashSet<NodeId>,
    /// Whether there was ever another member.
    pub(crate) met: bool,
    stopping: bool,
}

/// A job on a slot.
pub(crate) struct Here {
    /// Its number at the slots.
    id: JobId,
    pub(crate) program: String,
    pub(crate) since: Instant,
}

/// What the slots are to do.
enum Order {
    Start {
        id: JobId,
        held: Held,
        job: Box<Job>,
        /// Whether the job that comes next has the same container.
        more_like_it: bool,
    },
    Cancel(JobId),
}

/// Something to tell whoever submitted a job.
struct Report {
    id: JobId,
    event: JobEvent,
    handler: Arc<Mutex<Handler>>,
}

impl fmt::Debug for MeshNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshNode")
            .field("id", &self.shared.id)
            .finish_non_exhaustive()
    }
}

impl MeshNode {
    /// Starts a node; it goes on looking for others by itself. Call it from a thread outside any
    /// asynchronous runtime.
    ///
    /// # Errors
    ///
    /// If this machine cannot run containers, or an address or file cannot be used.
    pub fn start(launcher: Launcher, config: MeshConfig) -> Result<Self, MeshError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("mesh")
            .enable_all()
            .build()
            .map_err(MeshError::Threads)?;
        let started = runtime.block_on(start(launcher, config, runtime.handle().clone()))?;
        let Started {
            shared,
            from_net,
            from_layers,
            join,
        } = started;
        runtime.spawn(hear_net(shared.clone(), from_net));
        runtime.spawn(send_for_layers(shared.clone(), from_layers));
        runtime.spawn(keep_time(shared.clone()));
        runtime.spawn(tidy(shared.clone()));
        for target in join {
            shared.net.join(&target);
        }
        let working = shared.clone();
        let clerk = std::thread::Builder::new()
            .name("results".to_owned())
            .spawn(move || results::work(&working))
            .map_err(MeshError::Threads)?;
        Ok(Self {
            shared,
            runtime: Mutex::new(Some(runtime)),
            clerk: Mutex::new(Some(clerk)),
        })
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.shared.id
    }

    /// The control transport, to ask where it listens and to join others.
    pub fn net(&self) -> &Net {
        &self.shared.net
    }

    /// Where layers are kept.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// The owner of this machine came back or went away. Matters with [`Lending::Idle`].
    pub fn set_owner_active(&self, active: bool) {
        self.shared.act(|state, now| {
            state.cores.dispatch(now, |dispatcher, view| {
                dispatcher.set_owner_active(now, view, active);
            });
        });
    }

    /// The mesh as this node sees it.
    pub fn status(&self) -> Status {
        let state = self.shared.lock();
        status::status(&self.shared, &state)
    }

    /// How many other members are up.
    pub fn members(&self) -> usize {
        self.shared.lock().cores.view().len()
    }

    /// Before the node stops: takes no more jobs of others, gives back those that have not
    /// started, waits for those that run, and gives back those that have not ended in time.
    pub fn drain(&self, bound: Duration) {
        let end = Instant::now() + bound;
        self.shared.act(|state, now| {
            state
                .cores
                .dispatch(now, |dispatcher, view| dispatcher.drain(now, view));
        });
        let me = dispatch_id(self.shared.id);
        let mut state = self.shared.lock();
        while state.here.keys().any(|held| held.origin != me) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.shared.ended.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        self.shared.act(|state, now| {
            state.cores.dispatch(now, |dispatcher, view| {
                dispatcher.set_lending(now, view, dispatch::Lending::Never);
            });
        });
    }
}

impl JobService for MeshNode {
    fn reserve(&self) -> JobId {
        JobId(self.shared.next_id.fetch_add(1, Ordering::Relaxed))
    }

    fn submit_reserved(&self, id: JobId, job: Job, handler: Handler) {
        self.shared.submit(id, job, handler);
    }

    fn cancel(&self, id: JobId) {
        self.shared.act(|state, now| {
            if let Some(job) = state.own.number(id) {
                state
                    .cores
                    .dispatch(now, |dispatcher, view| dispatcher.cancel(now, view, job));
            }
        });
    }

    fn cancel_all(&self) {
        self.shared.act(State::cancel_all);
    }

    fn remark(&self) -> Option<String> {
        let state = self.shared.lock();
        (!state.met).then(|| {
            let refused = status::refusals(&self.shared);
            let mut remark = "No other node of the mesh was found".to_owned();
            match refused.first() {
                Some(refused) => {
                    let _ = write!(remark, " ({}: {})", refused.who, refused.reason);
                }
                None => remark.push_str("; is `maelstrom-node` running on another machine, and if it is not on this local network, is it named with --join?"),
            }
            remark
        })
    }

    fn results(&self) -> Option<Arc<dyn SharedResults>> {
        Some(Arc::new(results::Desk(self.shared.clone())))
    }

    fn stop(&self) {
        // Held to the end: whoever asks for the same meanwhile, perhaps since its jobs are
        // cancelled, must not end the process before the others have been told.
        let mut runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(runtime) = runtime.take() else {
            return;
        };
        self.shared.act(|state, now| {
            state.stopping = true;
            state.cancel_all(now);
        });
        self.shared.slots.stop();
        self.shared.results.close();
        let clerk = self
            .clerk
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(clerk) = clerk {
            let _ = clerk.join();
            results::wait_until_sent(&self.shared);
        }
        self.shared.act(|state, now| state.cores.leave(now));
        let (net, layers) = (self.shared.net.clone(), self.shared.layers.clone());
        runtime.block_on(async {
            let _ = tokio::time::timeout(LAST_WORDS, net.shutdown()).await;
            let _ = tokio::time::timeout(LAST_WORDS, layers.shutdown()).await;
        });
        runtime.shutdown_timeout(LAST_WORDS);
    }
}

impl Drop for MeshNode {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Started {
    shared: Arc<Shared>,
    from_net: Events,
    from_layers: Receiver<Outgoing>,
    join: Vec<String>,
}

async fn start(
    launcher: Launcher,
    config: MeshConfig,
    threads: Handle,
) -> Result<Started, MeshError> {
    let slots = Node::start(launcher, config.store.clone(), usize::from(config.slots))?;
    let id = config.node_key.id();
    let (bulk, incoming) = mpsc::channel(BULK_CONNECTIONS);
    let layers_config = LayersConfig {
        seed: config.node_key.seed(),
        store: config.store.clone(),
        directory: config.store.root().join("transfer"),
        opening: config.mesh_key.opening_of_bulk(),
        incoming,
    };
    let net_config = NetConfig {
        node_key: config.node_key,
        mesh_key: config.mesh_key,
        listen: config.listen,
        mdns: config.mdns,
        bulk: Some(bulk),
    };
    let (net, from_net) = Net::start(net_config).await?;
    let (layers, from_layers) = Layers::start(layers_config).await?;
    let memory = match &config.state_dir {
        Some(dir) => Some(MemoryFile::open(dir)?),
        None => None,
    };
    let remembered = memory
        .as_ref()
        .map(|file| file.memory().clone())
        .unwrap_or_default();
    let profile = Profile {
        name: cut(&config.name, Profile::MAX_NAME_BYTES).into(),
        architecture: std::env::consts::ARCH.into(),
        labels: config.labels.into_iter().map(Into::into).collect(),
        lending: config.lending,
        may_coordinate: config.may_coordinate,
        version: env!("CARGO_PKG_VERSION").into(),
        addresses: peers::tell(&net.addresses()),
        ..Profile::new(id, config.slots)
    };
    let clock = Clock::start();
    let since_1970 = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let setup = Setup {
        profile: profile.clone(),
        generation: since_1970.as_secs() as u32,
        incarnation: Incarnation(since_1970.as_micros() as u64),
        last_term: remembered.term,
        dispatch: dispatch::Config::default(),
        seed: rand::random(),
    };
    let mut cores = Cores::new(clock.now(), setup)?;
    for peer in &remembered.peers {
        if let Some(id) = peer.id() {
            net.learn(id, &peer.addresses);
            cores.join(clock.now(), id);
        }
    }
    let shared = Arc::new(Shared {
        id,
        clock,
        net,
        layers,
        results: Results::new(config.results),
        slots,
        store: config.store,
        state: Mutex::new(State {
            cores,
            own: OwnJobs::default(),
            here: HashMap::new(),
            fetching: HashMap::new(),
            lent_container: None,
            pinned: PinnedLayers::default(),
            profile,
            memory,
            term: remembered.term,
            timer_at: None,
            lent_jobs: 0,
            connected: HashSet::new(),
            met: false,
            stopping: false,
        }),
        ended: Condvar::new(),
        known: Mutex::default(),
        next_id: AtomicU64::new(0),
        orders: Outbox::new(),
        reports: Outbox::new(),
        sooner: Notify::new(),
        threads,
    });
    shared.act(|_, _| {});
    Ok(Started {
        shared,
        from_net,
        from_layers,
        join: config.join,
    })
}

impl State {
    fn cancel_all(&mut self, now: Instant) {
        for job in self.own.all() {
            self.cores
                .dispatch(now, |dispatcher, view| dispatcher.cancel(now, view, job));
        }
    }
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something, and does whatever the cores want done about it.
    fn act<T>(self: &Arc<Self>, change: impl FnOnce(&mut State, Instant) -> T) -> T {
        let mut state = self.lock();
        let now = self.clock.now();
        let result = change(&mut state, now);
        self.settle(&mut state, now);
        drop(state);
        self.orders.empty(|order| self.obey(order));
        self.reports.empty(|report| {
            let mut handler = report
                .handler
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            handler(report.id, report.event);
        });
        result
    }

    fn settle(self: &Arc<Self>, state: &mut State, now: Instant) {
        while let Some(event) = state.cores.poll_event() {
            match event {
                Event::Send {
                    to,
                    protocol,
                    message,
                } => self.net.send(to, channel(protocol), message.into()),
                Event::Act(action) => self.do_action(state, now, action),
                Event::Up(node) | Event::Changed(node) => {
                    state.met = true;
                    self.member_told(state, node);
                }
                Event::Down(node) => {
                    tracing::debug!(node = %node, "a member is gone");
                    self.layers.member_down(node);
                }
                Event::Term(term) => state.term = state.term.max(term),
                Event::Coordinator(claim) => {
                    tracing::debug!(node = %claim.coordinator, term = claim.term, "coordinates");
                }
            }
        }
        let due = state.cores.poll_timeout();
        let sooner = match (due, state.timer_at) {
            (Some(due), Some(at)) => due < at,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if sooner {
            state.timer_at = due;
            self.sooner.notify_one();
        }
    }

    /// A member tells where it is.
    fn member_told(&self, state: &State, node: NodeId) {
        let Some(member) = state.cores.view().get(&node) else {
            return;
        };
        let told = &member.profile.addresses;
        let theirs = peers::told(told);
        let own = peers::told(&state.profile.addresses);
        let same_machine = theirs
            .iter()
            .any(|theirs| own.iter().any(|ours| ours.ip() == theirs.ip()));
        self.net.learn(node, &theirs);
        self.layers.member_up(node, &theirs, same_machine);
    }

    /// Tells the others which layers are here, and writes down what is to be remembered.
    fn tidy(self: &Arc<Self>) {
        let layers = self.layers.held();
        let addresses = peers::tell(&self.net.addresses());
        self.act(|state, now| {
            state.pinned.tidy(now);
            let latest = layers.iter().rev().take(LayerDigest::MAX_LAYERS);
            let profile = Profile {
                layers: LayerDigest::of(latest.map(LayerId::as_bytes)),
                addresses,
                ..state.profile.clone()
            };
            if profile != state.profile {
                match state.cores.set_profile(now, profile.clone()) {
                    Ok(()) => state.profile = profile,
                    Err(error) => tracing::warn!("telling what this node has: {error}"),
                }
            }
            let members = state.cores.view().iter();
            let peers = members
                .filter(|member| member.profile.lending != Lending::Never)
                .map(|member| Peer::new(member.node(), peers::told(&member.profile.addresses)))
                .take(crate::memory::MAX_PEERS)
                .collect::<Vec<_>>();
            let term = state.term;
            if let Some(file) = &mut state.memory {
                // Who was there last is worth knowing after the last has gone.
                let peers = if peers.is_empty() {
                    file.memory().peers.clone()
                } else {
                    peers
                };
                if let Err(error) = file.write(Memory { term, peers }) {
                    tracing::warn!("writing down which nodes are there: {error}");
                }
            }
        });
    }
}

async fn hear_net(shared: Arc<Shared>, mut events: Events) {
    while let Some(event) = events.recv().await {
        match event {
            NetEvent::Message {
                from,
                channel,
                bytes,
            } => hear(&shared, from, channel, &bytes),
            NetEvent::Discovered { peer, .. } => {
                shared.act(|state, now| {
                    if state.cores.view().get(&peer).is_none() {
                        state.cores.join(now, peer);
                    }
                });
            }
            NetEvent::Joined { target, peer } => {
                tracing::info!(%target, node = %peer, "joined");
                shared.act(|state, now| state.cores.join(now, peer));
            }
            NetEvent::JoinFailed { target, reason } => {
                tracing::warn!(%target, "cannot join: {reason}");
            }
            NetEvent::Refused { address, reason } => {
                tracing::warn!(%address, "refused: {reason}");
            }
            NetEvent::Listening(address) => tracing::debug!(%address, "listening"),
            NetEvent::PeerUp { peer, address } => {
                tracing::debug!(node = %peer, %address, "connected");
                shared.lock().connected.insert(peer);
            }
            NetEvent::PeerDown { peer } => {
                tracing::debug!(node = %peer, "disconnected");
                shared.lock().connected.remove(&peer);
                tokio::spawn(notice_loss(shared.clone(), peer));
            }
        }
    }
}

/// Gives up on the jobs that this node and another have of each other, unless their connection is
/// soon there again: a process that was killed does not come back, and it would take membership
/// and leases many seconds to be sure. Where this is wrong, jobs run twice and are reported once.
async fn notice_loss(shared: Arc<Shared>, peer: NodeId) {
    tokio::time::sleep(LOST_AFTER).await;
    shared.act(|state, now| {
        if !state.connected.contains(&peer) {
            state.cores.dispatch(now, |dispatcher, view| {
                dispatcher.peer_lost(now, view, dispatch_id(peer));
            });
        }
    });
}

fn hear(shared: &Arc<Shared>, from: NodeId, channel: Channel, bytes: &[u8]) {
    let protocol = match channel {
        Channel::Gossip => Protocol::Gossip,
        Channel::Election => Protocol::Election,
        Channel::Dispatch => Protocol::Dispatch,
        Channel::Pull => {
            if let Err(rubbish) = shared.layers.handle_message(from, bytes) {
                shared.net.ban(from, &rubbish.to_string());
            }
            return;
        }
        Channel::Results => {
            if let Err(rubbish) = shared.results.hear(from, bytes) {
                shared.net.ban(from, &rubbish.to_string());
            }
            return;
        }
    };
    let heard = shared.act(|state, now| state.cores.handle_message(now, from, protocol, bytes));
    if let Err(rubbish) = heard {
        tracing::warn!(node = %from, "sent rubbish: {rubbish}");
        shared.net.ban(from, &rubbish.to_string());
    }
}

async fn send_for_layers(shared: Arc<Shared>, mut messages: Receiver<Outgoing>) {
    while let Some(Outgoing { to, message }) = messages.recv().await {
        shared.net.send(to, Channel::Pull, message);
    }
}

async fn keep_time(shared: Arc<Shared>) {
    loop {
        let now = shared.act(|state, now| {
            // Nothing is sooner than now, so what comes of this does not wake this task.
            state.timer_at = Some(now);
            if state.cores.poll_timeout().is_some_and(|due| due <= now) {
                state.cores.handle_timeout(now);
            }
            now
        });
        let wait = {
            let mut state = shared.lock();
            state.timer_at = state.cores.poll_timeout();
            state.timer_at.map(|at| at.saturating_duration_since(now))
        };
        tokio::select! {
            () = tokio::time::sleep(wait.unwrap_or(LONGEST_WAIT)) => {}
            () = shared.sooner.notified() => {}
        }
    }
}

async fn tidy(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(TIDY_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        shared.tidy();
    }
}

fn channel(protocol: Protocol) -> Channel {
    match protocol {
        Protocol::Gossip => Channel::Gossip,
        Protocol::Election => Channel::Election,
        Protocol::Dispatch => Channel::Dispatch,
    }
}

fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}
