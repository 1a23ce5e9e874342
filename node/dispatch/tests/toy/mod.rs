//! A handful of dispatchers on a network in memory, with virtual time and faults.
#![allow(dead_code, reason = "each test uses a part of it")]

use bytes::Bytes;
use maelstrom_dispatch::{
    Action, Body, Config, Dispatcher, Held, Incarnation, Job, JobFailed, JobId, Layer, LayerId,
    Lending, Member, MeshSlots, Message, NodeId, Offer, Rank, Requirements, View,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) fn node(index: usize) -> NodeId {
    let mut bytes = [0; 32];
    bytes[0] = index as u8;
    NodeId::from_bytes(bytes)
}

fn index(node: NodeId) -> usize {
    usize::from(node.as_bytes()[0])
}

/// A job that runs for `run` wherever it is.
pub(crate) fn job(run: Duration) -> Job {
    Job {
        rank: Rank {
            priority: 0,
            estimate: Some(run),
        },
        needs: Arc::new(Requirements::default()),
        layers: Arc::from([]),
        payload: Bytes::copy_from_slice(&(run.as_micros() as u64).to_le_bytes()),
    }
}

fn run_time(job: &Job) -> Duration {
    Duration::from_micros(u64::from_le_bytes(job.payload[..8].try_into().unwrap()))
}

#[derive(Debug)]
enum Event {
    Deliver {
        from: usize,
        to: usize,
        bytes: Vec<u8>,
    },
    Timer {
        node: usize,
        life: u64,
    },
    Ended {
        node: usize,
        life: u64,
        held: Held,
    },
    Killed {
        node: usize,
        life: u64,
        held: Held,
    },
    Layers {
        node: usize,
        life: u64,
        held: Held,
    },
    Lost {
        node: usize,
        peer: usize,
        life: u64,
    },
    Adverts,
}

/// A job of one life of one node.
pub(crate) type JobKey = (usize, u64, JobId);

struct Running {
    slots: u16,
    ends: Instant,
    origin: usize,
}

pub(crate) struct Node {
    pub(crate) dispatcher: Option<Dispatcher>,
    pub(crate) life: u64,
    pub(crate) offer: Offer,
    pub(crate) lending: Lending,
    /// How many times slower than others it runs jobs.
    pub(crate) slowness: u32,
    running: BTreeMap<Held, Running>,
    timer: Option<Instant>,
}

/// What the network does to messages.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    pub(crate) loss: f64,
    pub(crate) duplication: f64,
    pub(crate) delay_ms: std::ops::Range<u64>,
}

impl Default for Weather {
    fn default() -> Self {
        Weather {
            loss: 0.0,
            duplication: 0.0,
            delay_ms: 1..3,
        }
    }
}

pub(crate) struct Mesh {
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    pub(crate) nodes: Vec<Node>,
    pub(crate) weather: Weather,
    /// Ordered pairs that cannot talk.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// Whether a job "fails" on a node: the node says that it cannot run it.
    pub(crate) unable: BTreeSet<usize>,
    pub(crate) config: Config,
    pub(crate) submitted: BTreeMap<JobKey, Instant>,
    pub(crate) completed: BTreeMap<JobKey, Result<Bytes, JobFailed>>,
    pub(crate) completed_at: BTreeMap<JobKey, Instant>,
    /// Every start: which job, where.
    pub(crate) starts: Vec<(JobKey, usize)>,
    pub(crate) kills: Vec<(Held, usize)>,
    /// Messages sent, by kind.
    pub(crate) sent: BTreeMap<&'static str, usize>,
    view: ToyView,
    events: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    /// The current second and how many events it had.
    second: (u64, usize),
    rng: ChaCha8Rng,
    /// How long after its death a node is known to be dead.
    pub(crate) detection: Duration,
}

#[derive(Clone, Debug, Default)]
struct Advert {
    offer: Option<Offer>,
    free: u16,
    queued: usize,
    lends: bool,
}

/// What every node knows: adverts a few milliseconds old, the truth about who lives.
#[derive(Clone, Debug, Default)]
struct ToyView {
    adverts: Vec<Advert>,
    /// Members other than the one who looks.
    me: usize,
    members: Vec<usize>,
    loaded: Vec<usize>,
}

impl View for ToyView {
    fn member(&self, id: NodeId) -> Option<Member<'_>> {
        let advert = self
            .adverts
            .get(index(id))
            .filter(|_| self.members.contains(&index(id)))?;
        Some(Member {
            capabilities: advert.offer.as_ref()?.capabilities(),
            slots_free: advert.free,
            lends: advert.lends,
        })
    }

    fn len(&self) -> usize {
        self.members.len()
    }

    fn nth(&self, index: usize) -> Option<NodeId> {
        self.members.get(index).map(|&member| node(member))
    }

    fn loaded_len(&self) -> usize {
        self.loaded.len()
    }

    fn nth_loaded(&self, index: usize) -> Option<NodeId> {
        self.loaded.get(index).map(|&member| node(member))
    }

    fn slots(&self) -> MeshSlots {
        let mut slots = MeshSlots::default();
        for &member in &self.members {
            let advert = &self.adverts[member];
            slots.total += advert
                .offer
                .as_ref()
                .map_or(0, |offer| u64::from(offer.slots));
            slots.free += u64::from(advert.free);
        }
        slots
    }

    fn holds_layer(&self, node: NodeId, layer: &LayerId) -> bool {
        // A layer is held by the node that its first byte names, and by whoever looks.
        index(node) == self.me || layer.0[0] == node.as_bytes()[0]
    }
}

/// A layer that only one node holds.
pub(crate) fn layer_at(holder: usize, size_bytes: u64) -> Layer {
    Layer {
        id: LayerId([holder as u8; 32]),
        size_bytes,
    }
}

impl Mesh {
    pub(crate) fn new(slots: &[u16], seed: u64) -> Self {
        let start = Instant::now();
        let config = Config::default();
        let mut mesh = Mesh {
            now: start,
            start,
            nodes: Vec::new(),
            weather: Weather::default(),
            cut: BTreeSet::new(),
            unable: BTreeSet::new(),
            config,
            submitted: BTreeMap::new(),
            completed: BTreeMap::new(),
            completed_at: BTreeMap::new(),
            starts: Vec::new(),
            kills: Vec::new(),
            sent: BTreeMap::new(),
            view: ToyView::default(),
            events: BTreeMap::new(),
            sequence: 0,
            second: (0, 0),
            rng: ChaCha8Rng::seed_from_u64(seed),
            detection: ms(3_000),
        };
        for &slots in slots {
            mesh.nodes.push(Node {
                dispatcher: None,
                life: 0,
                offer: Offer {
                    slots,
                    architecture: "x86_64".into(),
                    labels: Vec::new(),
                },
                lending: Lending::Always,
                slowness: 1,
                running: BTreeMap::new(),
                timer: None,
            });
        }
        mesh
    }

    /// Brings all nodes to life.
    pub(crate) fn boot(mut self) -> Self {
        for node in 0..self.nodes.len() {
            self.revive(node);
        }
        self.at(ms(0), Event::Adverts);
        self
    }

    fn at(&mut self, after: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + after, self.sequence), event);
    }

    pub(crate) fn revive(&mut self, index: usize) {
        let seed = self.rng.random();
        let node_state = &mut self.nodes[index];
        if node_state.dispatcher.is_some() {
            return;
        }
        node_state.life += 1;
        node_state.dispatcher = Some(Dispatcher::new(
            node(index),
            Incarnation(node_state.life),
            node_state.offer.clone(),
            node_state.lending,
            self.config.clone(),
            seed,
        ));
        self.adverts();
    }

    /// The node is gone at once; the others learn of it later, unless it is back by then.
    pub(crate) fn crash(&mut self, index: usize) {
        let state = &mut self.nodes[index];
        if state.dispatcher.take().is_none() {
            return;
        }
        state.running.clear();
        state.timer = None;
        let life = state.life;
        for other in (0..self.nodes.len()).filter(|&other| other != index) {
            let after = self.detection;
            self.at(
                after,
                Event::Lost {
                    node: other,
                    peer: index,
                    life,
                },
            );
        }
    }

    fn adverts(&mut self) {
        let adverts = self.nodes.iter().map(|node| match &node.dispatcher {
            None => Advert::default(),
            Some(dispatcher) => {
                let counts = dispatcher.counts();
                Advert {
                    offer: Some(node.offer.clone()),
                    free: if dispatcher.lends() {
                        counts.slots_free
                    } else {
                        0
                    },
                    queued: counts.queued,
                    lends: dispatcher.lends(),
                }
            }
        });
        self.view.adverts = adverts.collect();
    }

    fn view_of(&self, me: usize) -> ToyView {
        let mut view = self.view.clone();
        view.me = me;
        view.members = (0..self.nodes.len())
            .filter(|&other| other != me && view.adverts[other].offer.is_some())
            .collect();
        view.loaded = view
            .members
            .iter()
            .copied()
            .filter(|&other| view.adverts[other].queued > 0)
            .collect();
        view
    }

    /// Calls a dispatcher and carries out what it wants.
    pub(crate) fn with<T>(
        &mut self,
        index: usize,
        call: impl FnOnce(&mut Dispatcher, Instant, &dyn View) -> T,
    ) -> Option<T> {
        let view = self.view_of(index);
        let now = self.now;
        let dispatcher = self.nodes[index].dispatcher.as_mut()?;
        let result = call(dispatcher, now, &view);
        self.drain(index);
        Some(result)
    }

    pub(crate) fn submit(&mut self, index: usize, job: Job) -> JobKey {
        // The id is known before the actions are carried out.
        let view = self.view_of(index);
        let (now, life) = (self.now, self.nodes[index].life);
        let dispatcher = self.nodes[index]
            .dispatcher
            .as_mut()
            .expect("the node lives");
        let id = dispatcher
            .submit(now, &view, job)
            .expect("the job keeps to the bounds");
        self.submitted.insert((index, life, id), now);
        self.drain(index);
        (index, life, id)
    }

    fn drain(&mut self, index: usize) {
        let life = self.nodes[index].life;
        let Some(mut dispatcher) = self.nodes[index].dispatcher.take() else {
            return;
        };
        dispatcher.check_counts();
        // Takes longer the more jobs there are.
        let pause = 1 + dispatcher.counts().unfinished as u64 / 16;
        if self.sequence.is_multiple_of(pause) {
            dispatcher.check_invariants();
        }
        while let Some((to, message)) = dispatcher.poll_transmit() {
            self.transmit(index, to, &message);
        }
        let mut actions = Vec::new();
        while let Some(action) = dispatcher.poll_action() {
            actions.push(action);
        }
        let timer = dispatcher.poll_timeout();
        self.nodes[index].dispatcher = Some(dispatcher);
        for action in actions {
            self.act(index, life, action);
        }
        if timer != self.nodes[index].timer {
            self.nodes[index].timer = timer;
            if let Some(timer) = timer {
                self.at(
                    timer.saturating_duration_since(self.now),
                    Event::Timer { node: index, life },
                );
            }
        }
    }

    fn transmit(&mut self, from: usize, to: NodeId, message: &Message) {
        *self.sent.entry(message.body.name()).or_default() += 1;
        let bytes = postcard::to_stdvec(message).unwrap();
        assert_eq!(&postcard::from_bytes::<Message>(&bytes).unwrap(), message);
        let to = index(to);
        assert_ne!(from, to, "nobody sends to itself");
        if self.cut.contains(&(from, to)) {
            return;
        }
        let copies = 1 + usize::from(self.rng.random_bool(self.weather.duplication));
        for _ in 0..copies {
            if !self.rng.random_bool(self.weather.loss) {
                let delay = ms(self.rng.random_range(self.weather.delay_ms.clone()));
                self.at(
                    delay,
                    Event::Deliver {
                        from,
                        to,
                        bytes: bytes.clone(),
                    },
                );
            }
        }
    }

    fn act(&mut self, index: usize, life: u64, action: Action) {
        match action {
            Action::FetchLayers { held, .. } => {
                self.at(
                    ms(5),
                    Event::Layers {
                        node: index,
                        life,
                        held,
                    },
                );
            }
            Action::Start { held, job, lent } => {
                let origin = held.origin.as_bytes()[0] as usize;
                assert_eq!(lent, origin != index);
                let run = run_time(&job) * self.nodes[index].slowness;
                let slots = job.needs.slots;
                let ends = self.now + run;
                let running = Running {
                    slots,
                    ends,
                    origin,
                };
                let twice = self.nodes[index].running.insert(held, running);
                assert!(twice.is_none(), "{held:?} started twice");
                self.invariant_no_node_runs_more_than_its_slots(index);
                let life_of_origin = self.nodes[origin].life;
                self.starts
                    .push(((origin, life_of_origin, held.lease.job), index));
                self.at(
                    run,
                    Event::Ended {
                        node: index,
                        life,
                        held,
                    },
                );
            }
            Action::Kill { held } => {
                assert!(
                    self.nodes[index].running.contains_key(&held),
                    "kills what runs"
                );
                self.kills.push((held, index));
                self.at(
                    ms(1),
                    Event::Killed {
                        node: index,
                        life,
                        held,
                    },
                );
            }
            Action::Forget { .. } | Action::Started { .. } => {}
            Action::Completed { job, result } => {
                let key = (index, life, job);
                assert!(
                    self.submitted.contains_key(&key),
                    "{key:?} was never submitted"
                );
                if let Ok(outcome) = &result {
                    assert_eq!(
                        outcome[..],
                        job.0.to_le_bytes(),
                        "the outcome of another job"
                    );
                }
                let twice = self.completed.insert(key, result);
                assert!(twice.is_none(), "{key:?} was reported twice");
                self.completed_at.insert(key, self.now);
            }
        }
    }

    fn invariant_no_node_runs_more_than_its_slots(&self, index: usize) {
        let node = &self.nodes[index];
        let taken: u32 = node
            .running
            .values()
            .map(|running| u32::from(running.slots))
            .sum();
        assert!(
            taken <= u32::from(node.offer.slots),
            "node {index} runs {taken} slots"
        );
    }

    /// Slots of a node that run jobs of one origin.
    pub(crate) fn slots_of(&self, index: usize, origin: usize) -> u32 {
        let running = self.nodes[index].running.values();
        running
            .filter(|job| job.origin == origin)
            .map(|job| u32::from(job.slots))
            .sum()
    }

    /// Slots that the jobs of one origin hold, as far as it knows.
    pub(crate) fn leased(&self, origin: usize) -> usize {
        let dispatcher = self.nodes[origin].dispatcher.as_ref();
        dispatcher.map_or(0, |dispatcher| dispatcher.counts().slots_held)
    }

    /// Handles events until a condition holds; panics after `limit` of virtual time.
    pub(crate) fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Mesh) -> bool) {
        let until = self.now + limit;
        while !done(self) {
            let Some((&(at, _), _)) = self.events.first_key_value() else {
                panic!("nothing will ever happen again");
            };
            assert!(
                at <= until,
                "not done after {limit:?}: {}",
                self.unfinished()
            );
            self.step();
        }
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self
            .events
            .first_key_value()
            .is_some_and(|(&(at, _), _)| at <= until)
        {
            self.step();
        }
        self.now = until;
    }

    /// Jobs whose origin still lives and that have not been reported.
    pub(crate) fn open(&self) -> Vec<JobKey> {
        self.submitted
            .keys()
            .filter(|key| !self.completed.contains_key(key))
            .filter(|(node, life, _)| {
                self.nodes[*node].dispatcher.is_some() && self.nodes[*node].life == *life
            })
            .copied()
            .collect()
    }

    fn unfinished(&self) -> String {
        let open = self.open();
        let nodes: Vec<String> = self
            .nodes
            .iter()
            .enumerate()
            .filter_map(|(index, node)| {
                let dispatcher = node.dispatcher.as_ref()?;
                Some(format!("node {index}: {:?}", dispatcher.counts()))
            })
            .collect();
        format!(
            "{} jobs open, first {:?}\n{}",
            open.len(),
            open.first(),
            nodes.join("\n")
        )
    }

    fn invariant_no_storm(&mut self, at: Instant) {
        let second = (at - self.start).as_secs();
        if self.second.0 != second {
            self.second = (second, 0);
        }
        self.second.1 += 1;
        assert!(
            self.second.1 < 10_000,
            "a storm: {:?}, {}",
            self.sent,
            self.unfinished()
        );
    }

    fn step(&mut self) {
        let Some(((at, _), event)) = self.events.pop_first() else {
            return;
        };
        self.invariant_no_storm(at);
        self.now = at;
        match event {
            Event::Deliver { from, to, bytes } => {
                let message: Message = postcard::from_bytes(&bytes).unwrap();
                self.with(to, |dispatcher, now, view| {
                    dispatcher.handle_message(now, view, node(from), message);
                });
            }
            Event::Timer { node, life } => {
                if self.nodes[node].life == life && self.nodes[node].timer == Some(at) {
                    self.nodes[node].timer = None;
                    self.with(node, |dispatcher, now, view| {
                        dispatcher.handle_timeout(now, view);
                    });
                }
            }
            Event::Ended { node, life, held } => {
                let due = self.nodes[node]
                    .running
                    .get(&held)
                    .is_some_and(|job| job.ends == at);
                if self.nodes[node].life == life && due {
                    let outcome = Bytes::copy_from_slice(&held.lease.job.0.to_le_bytes());
                    let result = if self.unable.contains(&node) {
                        Err("broken".to_owned())
                    } else {
                        Ok(outcome)
                    };
                    self.end(node, held, result);
                }
            }
            Event::Killed { node, life, held } => {
                let runs = self.nodes[node].running.contains_key(&held);
                if self.nodes[node].life == life && runs {
                    self.end(node, held, Err("killed".to_owned()));
                }
            }
            Event::Layers { node, life, held } => {
                if self.nodes[node].life == life {
                    self.with(node, |dispatcher, now, view| {
                        dispatcher.layers_ready(now, view, held);
                    });
                }
            }
            Event::Lost {
                node: at,
                peer,
                life,
            } => {
                if self.nodes[peer].dispatcher.is_none() || self.nodes[peer].life > life {
                    self.with(at, |dispatcher, now, view| {
                        dispatcher.peer_lost(now, view, node(peer));
                    });
                }
            }
            Event::Adverts => {
                self.adverts();
                self.at(ms(50), Event::Adverts);
            }
        }
    }

    fn end(&mut self, index: usize, held: Held, result: Result<Bytes, String>) {
        self.nodes[index].running.remove(&held);
        self.with(index, |dispatcher, now, view| {
            dispatcher.job_ended(now, view, held, result);
        });
    }

    /// Hands a message to a node as if another had sent it.
    pub(crate) fn inject(&mut self, from: usize, to: usize, body: Body) {
        let message = Message {
            from: Incarnation(self.nodes[from].life),
            to: None,
            body,
        };
        self.with(to, |dispatcher, now, view| {
            dispatcher.handle_message(now, view, node(from), message);
        });
    }
}
