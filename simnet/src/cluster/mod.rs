//! A mesh of nodes that run the real cores: membership, election and dispatch.

mod checks;
mod faults;
mod handle;
mod node;
mod sabotage;
mod sample;
mod upsets;
mod views;
mod work;

use std::time::{Duration, Instant};

use bytes::Bytes;
use maelstrom_dispatch as dispatch;
use maelstrom_gossip as gossip;
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

pub use checks::{Bounds, Broken, Invariant};
pub use faults::{Fault, Plan, everything};
pub use sabotage::Sabotage;
pub use sample::Sample;
pub use views::{SharedView, dispatch_id, gossip_id, node_key, node_number};

use crate::{
    kernel::{Clock, EventQueue, Flows, Latency, Network, Record, Time, Trace},
    workload::JobSpec,
};
use node::{Machines, Node};

/// What a mesh is like.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// How many slots each node has; as many nodes as entries.
    pub slots: Vec<u16>,
    /// How long messages take.
    pub latency: Latency,
    /// How much each node's link carries in each direction. 0: any amount in no time.
    pub bytes_per_second: u64,
    /// Whether each node runs its own membership and election. Otherwise all share one
    /// picture, which is as old as [`Self::staleness`] says.
    pub own_views: bool,
    /// How long news take to show in the shared picture; one is drawn for each.
    pub staleness: Vec<Duration>,
    /// How long a death takes to show in the shared picture.
    pub death_shows: Duration,
    /// How many nodes, from the first on, may coordinate.
    pub eligible: usize,
    /// Whether nodes run jobs.
    pub jobs: bool,
    /// By how much clocks may run too fast or too slow: 0.01 for a hundredth.
    pub clock_skew: f64,
    /// The layers that jobs may need, by size in bytes; origins have them all.
    pub layers: Vec<u64>,
    /// When nodes lend.
    pub lending: dispatch::Lending,
    /// How dispatch behaves.
    pub dispatch: dispatch::Config,
    /// How membership behaves.
    pub gossip: gossip::Config,
    /// How elections behave.
    pub election: gossip::ElectionConfig,
    /// How long things may take.
    pub bounds: Bounds,
    /// What is broken on purpose.
    pub sabotage: Option<Sabotage>,
    /// Whether to check the promises that must hold all the time.
    pub checks: bool,
}

impl Setup {
    /// Nodes of `slots` slots each, with everything real and nothing broken.
    pub fn new(seed: u64, nodes: usize, slots: u16) -> Self {
        Self {
            seed,
            slots: vec![slots; nodes],
            latency: Latency::LAN,
            bytes_per_second: 125_000_000,
            own_views: true,
            staleness: vec![Duration::from_secs(1)],
            death_shows: Duration::from_secs(10),
            eligible: nodes,
            jobs: true,
            clock_skew: 0.0,
            layers: Vec::new(),
            lending: dispatch::Lending::Always,
            dispatch: dispatch::Config::default(),
            gossip: gossip::Config::default(),
            election: gossip::ElectionConfig::default(),
            bounds: Bounds::default(),
            sabotage: None,
            checks: true,
        }
    }
}

/// What can happen.
#[derive(Debug)]
enum Event {
    Deliver {
        to: u32,
        from: u32,
        message: Box<Message>,
    },
    Wake(u32),
    JobEnds {
        node: u32,
        life: u32,
        held: dispatch::Held,
        token: u64,
    },
    FlowsMove,
    LayersFail {
        node: u32,
        life: u32,
        held: dispatch::Held,
    },
    Fault(Fault),
    Submit {
        origin: u32,
        jobs: Vec<u32>,
    },
    Cancel {
        job: u32,
    },
    StillRuns {
        job: u32,
    },
    Shows(Shows),
    Tell(u32),
    Sample,
}

/// News for the shared picture.
#[derive(Clone, Copy, Debug)]
enum Shows {
    Up(u32, u32),
    Down(u32, u32),
    Load(u32, u16, u32),
}

/// What nodes send each other.
#[derive(Clone, Debug)]
enum Message {
    Gossip(Vec<u8>),
    Election(gossip::ElectionMessage),
    Dispatch(dispatch::Message),
}

/// What has become of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Not submitted yet.
    Planned,
    /// Submitted; its origin owes a report.
    Open,
    /// Reported with its outcome.
    Done,
    /// Reported as cancelled.
    Cancelled,
    /// Reported as failed, after too many nodes were lost.
    GivenUp,
    /// Its origin has died.
    Orphaned,
}

/// A job in the mesh.
#[derive(Debug)]
struct JobState {
    spec: JobSpec,
    origin: u32,
    id: Option<dispatch::JobId>,
    fate: Fate,
    cancelled: bool,
    runs: u16,
    started: Time,
    started_on: u32,
    reported: Time,
}

/// How a job fared.
#[derive(Clone, Copy, Debug)]
pub struct JobStory {
    /// Its number.
    pub job: u32,
    /// What it is like.
    pub spec: JobSpec,
    /// When it was started last.
    pub started: Time,
    /// Where.
    pub node: u32,
    /// When it was reported.
    pub reported: Time,
    /// How often it was started.
    pub runs: u16,
}

/// What happened so far, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Messages sent, of all kinds.
    pub messages: u64,
    /// Bytes in messages of membership and election.
    pub gossip_bytes: u64,
    /// Bytes in messages of dispatch.
    pub dispatch_bytes: u64,
    /// Jobs started.
    pub starts: u64,
    /// Slot time of jobs that ended by themselves.
    pub work: Duration,
    /// Jobs reported.
    pub reported: u64,
    /// When the last job was reported.
    pub last_report: Time,
    /// Members taken for dead though they lived and could be reached.
    pub false_deaths: u64,
    /// Elections won.
    pub elections: u64,
}

/// A mesh under virtual time.
pub struct Cluster {
    setup: Setup,
    queue: EventQueue<Event>,
    network: Network,
    flows: Flows,
    flows_move_at: Option<Time>,
    nodes: Vec<Node>,
    jobs: Vec<JobState>,
    open: usize,
    shared: SharedView,
    pool: std::sync::Arc<gossip::ProfilePool>,
    trace: Trace,
    rng: Xoshiro256PlusPlus,
    totals: Totals,
    samples: Vec<Sample>,
    sampling: sample::Sampling,
    tokens: u64,
    deaths_seen: Vec<(Time, u32, u32)>,
    elected_at: Vec<(Time, u32)>,
    broken: Option<Broken>,
    calm_since: Time,
}

impl Cluster {
    /// A mesh whose nodes don't run yet.
    pub fn new(setup: Setup) -> Self {
        let count = setup.slots.len();
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(setup.seed);
        let base = Instant::now();
        let nodes = setup
            .slots
            .iter()
            .map(|slots| {
                let skew = setup.clock_skew;
                let (ahead, rate) = if skew > 0.0 {
                    let ahead = Duration::from_millis(rng.random_range(0..3_600_000));
                    (ahead, rng.random_range(1.0 - skew..1.0 + skew))
                } else {
                    (Duration::ZERO, 1.0)
                };
                Node {
                    clock: Clock::new(base, ahead, rate),
                    slots: *slots,
                    life: 0,
                    alive: false,
                    paused_until: Time::ZERO,
                    slowness: 1.0,
                    term: 0,
                    held_term: 0,
                    machines: None,
                    wakes_at: None,
                    running: Default::default(),
                    slots_running: 0,
                    submitted: Vec::new(),
                    unreported: 0,
                    layers: Default::default(),
                    pulling: Default::default(),
                }
            })
            .collect();
        let network_rng = Xoshiro256PlusPlus::seed_from_u64(rng.random());
        let mut network = Network::new(count, setup.latency, network_rng);
        network.bytes_per_second = setup.bytes_per_second;
        let link = if setup.bytes_per_second == 0 {
            u64::MAX >> 16
        } else {
            setup.bytes_per_second
        };
        let mut shared = SharedView::new(&setup.slots, std::env::consts::ARCH);
        for node in 0..count {
            shared.set_up(node, false);
        }
        Self {
            flows: Flows::new(count, link, Duration::from_millis(1)),
            flows_move_at: None,
            queue: EventQueue::default(),
            network,
            nodes,
            jobs: Vec::new(),
            open: 0,
            shared,
            pool: Default::default(),
            trace: Trace::default(),
            rng,
            totals: Totals::default(),
            samples: Vec::new(),
            sampling: sample::Sampling::default(),
            tokens: 0,
            deaths_seen: Vec::new(),
            elected_at: Vec::new(),
            broken: None,
            calm_since: Time::ZERO,
            setup,
        }
    }

    /// The present.
    pub fn now(&self) -> Time {
        self.queue.now()
    }

    /// How many nodes there are, dead or alive.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The numbers so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// How many events have happened.
    pub fn events(&self) -> u64 {
        self.trace.count()
    }

    /// A number that two runs share only if everything happened alike.
    pub fn hash(&self) -> u64 {
        self.trace.hash()
    }

    /// What was measured along the way.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// When which node was elected.
    pub fn elections(&self) -> &[(Time, u32)] {
        &self.elected_at
    }

    /// When which node saw which other go down.
    pub fn deaths_seen(&self) -> &[(Time, u32, u32)] {
        &self.deaths_seen
    }

    /// Whether a node's process runs.
    pub fn is_alive(&self, node: usize) -> bool {
        self.nodes[node].alive
    }

    /// A node's membership, if it runs one.
    pub fn membership(&self, node: usize) -> Option<&gossip::Membership> {
        self.nodes[node].machines.as_ref()?.membership.as_ref()
    }

    /// How many jobs were reported with which end.
    pub fn fates(&self, fate: Fate) -> usize {
        self.jobs.iter().filter(|job| job.fate == fate).count()
    }

    /// The jobs that were reported last, the last one first.
    pub fn last_jobs(&self, count: usize) -> Vec<JobStory> {
        let mut order: Vec<u32> = (0..self.jobs.len() as u32).collect();
        order.sort_by_key(|job| std::cmp::Reverse(self.jobs[*job as usize].reported));
        order
            .into_iter()
            .take(count)
            .map(|number| {
                let job = &self.jobs[number as usize];
                JobStory {
                    job: number,
                    spec: job.spec,
                    started: job.started,
                    node: job.started_on,
                    reported: job.reported,
                    runs: job.runs,
                }
            })
            .collect()
    }

    /// How many submitted jobs have not been reported.
    pub fn open_jobs(&self) -> usize {
        self.open
    }

    /// How many of an origin's submitted jobs have not been reported.
    pub fn open_of(&self, origin: usize) -> usize {
        self.nodes[origin].unreported
    }

    /// Plans faults.
    pub fn plan(&mut self, plan: Plan) {
        for (time, fault) in plan {
            self.queue.at(time, Event::Fault(fault));
        }
    }

    /// Plans the submission of jobs by a client of a node; returns their numbers.
    pub fn submit(
        &mut self,
        at: Time,
        origin: usize,
        jobs: impl IntoIterator<Item = JobSpec>,
    ) -> std::ops::Range<u32> {
        let first = self.jobs.len() as u32;
        self.jobs.extend(jobs.into_iter().map(|spec| JobState {
            spec,
            origin: origin as u32,
            id: None,
            fate: Fate::Planned,
            cancelled: false,
            runs: 0,
            started: Time::ZERO,
            started_on: 0,
            reported: Time::ZERO,
        }));
        let numbers = first..self.jobs.len() as u32;
        let event = Event::Submit {
            origin: origin as u32,
            jobs: numbers.clone().collect(),
        };
        self.queue.at(at, event);
        numbers
    }

    /// Lets a node tell this load, whatever its jobs are: only where nodes run no jobs.
    pub fn tell(&mut self, node: usize, load: gossip::Load) {
        let now = self.now();
        let local = self.nodes[node].clock.at(now);
        let machines = self.nodes[node].machines.as_mut();
        if let Some(membership) = machines.and_then(|machines| machines.membership.as_mut()) {
            membership.set_load(local, load);
        }
        self.settle(node);
    }

    /// Plans the cancelling of a job.
    pub fn cancel(&mut self, at: Time, job: u32) {
        self.queue.at(at, Event::Cancel { job });
    }

    /// Starts every node; each but the first joins by a node that was started before.
    pub fn start_all(&mut self, spread: Duration) {
        for node in 0..self.nodes.len() {
            let at = spread.mul_f64(node as f64 / self.nodes.len() as f64);
            self.queue
                .at(self.now() + at, Event::Fault(Fault::Start(node)));
        }
        self.queue.at(self.now(), Event::Sample);
    }

    /// Starts the first `count` nodes, with everybody known to everybody already.
    pub fn start_acquainted(&mut self, count: usize) {
        for node in 0..count {
            self.start(node, None);
        }
        if self.setup.own_views {
            self.acquaint();
        }
        for node in 0..count {
            self.settle(node);
        }
        self.queue.at(self.now(), Event::Sample);
    }

    /// Runs until a moment.
    ///
    /// # Errors
    /// If a promise is broken.
    pub fn run_until(&mut self, end: Time) -> Result<(), Box<Broken>> {
        while self.queue.next_time().is_some_and(|time| time <= end) {
            self.step()?;
        }
        self.queue.wait_until(end);
        Ok(())
    }

    /// Runs until all jobs are reported; not longer than to `end`. Whether they are.
    ///
    /// # Errors
    /// If a promise is broken.
    pub fn run_jobs(&mut self, end: Time) -> Result<bool, Box<Broken>> {
        loop {
            let planned = self.open > 0 || self.totals.reported == 0;
            if !planned || self.queue.next_time().is_none_or(|time| time > end) {
                return Ok(!planned);
            }
            self.step()?;
        }
    }

    /// Lets one thing happen.
    ///
    /// # Errors
    /// If a promise is broken.
    pub fn step(&mut self) -> Result<(), Box<Broken>> {
        if let Some((_, event)) = self.queue.pop() {
            self.handle(event);
        }
        match self.broken.take() {
            Some(broken) => Err(Box::new(broken)),
            None => Ok(()),
        }
    }

    /// Whether all jobs of live origins have ended and all nodes know the same.
    pub fn has_settled(&self) -> bool {
        let open = self
            .jobs
            .iter()
            .any(|job| job.fate == Fate::Open && self.nodes[job.origin as usize].alive);
        !open && (!self.setup.own_views || self.views_agree())
    }

    /// Checks what must hold once faults are over and time has passed.
    ///
    /// # Errors
    /// If it doesn't.
    pub fn check_settled(&mut self) -> Result<(), Box<Broken>> {
        let open = self
            .jobs
            .iter()
            .position(|job| job.fate == Fate::Open && self.nodes[job.origin as usize].alive);
        if let Some(open) = open {
            let seen = format!(
                "job {open} of node {} has not ended {:?} after the last fault; {} are open",
                self.jobs[open].origin,
                self.now().since(self.calm_since),
                self.open,
            );
            self.fail(Invariant::EveryJobEnds, seen);
        } else if self.setup.own_views && !self.views_agree() {
            let seen = format!(
                "nodes still know different things {:?} after the last fault",
                self.now().since(self.calm_since)
            );
            self.fail(Invariant::ViewsConverge, seen);
        }
        match self.broken.take() {
            Some(broken) => Err(Box::new(broken)),
            None => Ok(()),
        }
    }

    fn note(&mut self, what: &'static str, node: u32, other: Option<u32>, detail: u64) {
        self.trace.note(Record {
            time: self.queue.now(),
            what,
            node,
            other,
            detail,
        });
    }

    /// Takes note of a broken promise; the first counts.
    fn fail(&mut self, invariant: Invariant, seen: String) {
        if self.broken.is_none() {
            self.broken = Some(Broken::new(invariant, self.now(), &self.trace, seen));
        }
    }

    /// One in `count`, where the nodes are broken in this way.
    fn sabotaged(&mut self, sabotage: Sabotage, count: u32) -> bool {
        self.setup.sabotage == Some(sabotage) && self.rng.random_ratio(1, count)
    }

    /// Starts a node's process, which joins by `seed`.
    fn start(&mut self, number: usize, seed: Option<usize>) {
        let now = self.now();
        let node = &mut self.nodes[number];
        if node.alive {
            return;
        }
        node.alive = true;
        node.life += 1;
        let (life, slots, term) = (node.life, node.slots, node.term);
        let local = node.clock.at(now);
        let machine_seed = self.rng.random();
        let offered = if self.setup.sabotage == Some(Sabotage::ExtraSlot) {
            slots + 1
        } else {
            slots
        };
        let dispatcher = self.setup.jobs.then(|| {
            dispatch::Dispatcher::new(
                dispatch_id(number),
                dispatch::Incarnation(life.into()),
                dispatch::Offer {
                    slots: offered,
                    architecture: std::env::consts::ARCH.into(),
                    labels: Vec::new(),
                },
                self.setup.lending,
                self.setup.dispatch.clone(),
                machine_seed,
            )
        });
        let mut membership = None;
        let mut election = None;
        if self.setup.own_views {
            let profile = gossip::Profile {
                architecture: std::env::consts::ARCH.into(),
                lending: match self.setup.lending {
                    dispatch::Lending::Always => gossip::Lending::Always,
                    dispatch::Lending::Idle => gossip::Lending::Idle,
                    dispatch::Lending::Never => gossip::Lending::Never,
                },
                may_coordinate: number < self.setup.eligible,
                version: "0.1.0".into(),
                addresses: vec!["/ip4/10.0.0.1/tcp/4001".into(), "10.0.0.1:4002".into()],
                ..gossip::Profile::new(gossip_id(number), slots)
            };
            let mut config = self.setup.gossip.clone();
            if self.setup.sabotage == Some(Sabotage::NeverCompare) {
                config.sync_period = Duration::from_secs(1_000_000);
            }
            let mut made = gossip::Membership::new(
                local,
                gossip_id(number),
                life,
                profile,
                config,
                machine_seed,
            )
            .expect("the profile is small");
            made.share_profiles(self.pool.clone());
            if let Some(seed) = seed {
                made.join(local, gossip_id(seed));
            }
            membership = Some(made);
            let mut made = gossip::Election::new(
                local,
                gossip_id(number),
                term,
                self.setup.election,
                machine_seed,
            );
            if number < self.setup.eligible {
                made.add_eligible(local, gossip_id(number));
            }
            election = Some(made);
        } else {
            self.show(Shows::Up(number as u32, life));
        }
        self.nodes[number].machines = Some(Machines {
            membership,
            election,
            dispatcher,
            told: gossip::Load::default(),
            tells_at: None,
        });
        self.note("starts", number as u32, None, life.into());
    }

    /// Lets everybody know everybody, as if the mesh had been there for long.
    fn acquaint(&mut self) {
        let mut roster = Vec::new();
        for node in &self.nodes {
            if let Some(membership) = node.machines.as_ref().and_then(|m| m.membership.as_ref()) {
                roster.push(membership.introduction());
            }
        }
        let now = self.now();
        for number in 0..self.nodes.len() {
            let node = &mut self.nodes[number];
            let local = node.clock.at(now);
            let Some(machines) = &mut node.machines else {
                continue;
            };
            let (Some(membership), Some(election)) =
                (&mut machines.membership, &mut machines.election)
            else {
                continue;
            };
            membership.introduce(local, &roster);
            while membership.poll_event().is_some() {}
            for other in 0..roster.len().min(self.setup.eligible) {
                election.add_eligible(local, gossip_id(other));
            }
        }
    }

    /// Puts news into the shared picture when they have got around.
    fn show(&mut self, news: Shows) {
        if self.setup.own_views {
            return;
        }
        let delay = match news {
            Shows::Down(..) => self.setup.death_shows,
            Shows::Up(..) if self.now() == Time::ZERO => Duration::ZERO,
            _ => self.setup.staleness[self.rng.random_range(0..self.setup.staleness.len())],
        };
        self.queue.at(self.now() + delay, Event::Shows(news));
    }
}

/// A job's payload, and its outcome: its number, and as many bytes as such things have.
fn payload(job: u32, size: usize) -> Bytes {
    let mut bytes = vec![0; size];
    bytes[..4].copy_from_slice(&job.to_le_bytes());
    bytes.into()
}

fn payload_job(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.first_chunk()?))
}
