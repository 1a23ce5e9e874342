//! Pullers on a network in memory, with virtual time. Each node has one link, whose bandwidth the
//! pieces on it share.
#![allow(dead_code, reason = "each test uses a part of it")]

use maelstrom_pull::{
    Action, BundleId, Config, FetchError, Layout, Message, Nearness, Pieces, Puller,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

pub(crate) const BUNDLE: BundleId = BundleId([7; 32]);

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
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
    },
    Arrived {
        flow: u64,
        version: u32,
    },
    Lost {
        node: usize,
        peer: usize,
    },
}

/// A piece on its way.
#[derive(Debug)]
struct Flow {
    from: usize,
    to: usize,
    ticket: u64,
    piece: usize,
    left_bytes: f64,
    rate: f64,
    since: Instant,
    version: u32,
}

pub(crate) struct Node {
    pub(crate) puller: Option<Puller<usize>>,
    /// Bytes a second, each way.
    pub(crate) link: f64,
    /// What it sends is garbage.
    pub(crate) lies: bool,
    up: BTreeSet<u64>,
    down: BTreeSet<u64>,
    timer: Option<Instant>,
    pub(crate) sent_bytes: f64,
    pub(crate) received_bytes: f64,
    pub(crate) completed: Option<Instant>,
    pub(crate) stuck: usize,
}

pub(crate) struct Mesh {
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    pub(crate) nodes: Vec<Node>,
    pub(crate) layout: Layout,
    pub(crate) loss: f64,
    pub(crate) duplication: f64,
    pub(crate) delay_ms: std::ops::Range<u64>,
    pub(crate) messages: BTreeMap<&'static str, usize>,
    /// Providers that each piece was fetched from after having sent garbage.
    pub(crate) bad_fetches: BTreeMap<(usize, usize), usize>,
    flows: BTreeMap<u64, Flow>,
    flow_ids: u64,
    events: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    checks: u64,
    /// The current second and how many events it had.
    second: (u64, usize),
    rng: ChaCha8Rng,
}

impl Mesh {
    /// Nodes with equal links; the first serves the bundle.
    pub(crate) fn new(nodes: usize, link: f64, layout: Layout, seed: u64) -> Self {
        let start = Instant::now();
        let mut mesh = Mesh {
            now: start,
            start,
            nodes: Vec::new(),
            layout,
            loss: 0.0,
            duplication: 0.0,
            delay_ms: 1..3,
            messages: BTreeMap::new(),
            bad_fetches: BTreeMap::new(),
            flows: BTreeMap::new(),
            flow_ids: 0,
            events: BTreeMap::new(),
            sequence: 0,
            checks: 0,
            second: (0, 0),
            rng: ChaCha8Rng::seed_from_u64(seed),
        };
        for index in 0..nodes {
            mesh.nodes.push(Node {
                puller: Some(Puller::new(index, Config::default(), seed + index as u64)),
                link,
                lies: false,
                up: BTreeSet::new(),
                down: BTreeSet::new(),
                timer: None,
                sent_bytes: 0.0,
                received_bytes: 0.0,
                completed: None,
                stuck: 0,
            });
        }
        mesh.serve(0);
        mesh
    }

    pub(crate) fn serve(&mut self, node: usize) {
        let layout = self.layout.clone();
        self.with(node, |puller, now| puller.serve(now, BUNDLE, layout));
    }

    pub(crate) fn pull(&mut self, node: usize, providers: &[(usize, Nearness)]) {
        let layout = self.layout.clone();
        self.with(node, |puller, now| {
            puller.pull(now, BUNDLE, layout, Pieces::new(), providers);
        });
    }

    fn at(&mut self, after: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + after, self.sequence), event);
    }

    pub(crate) fn with(&mut self, index: usize, call: impl FnOnce(&mut Puller<usize>, Instant)) {
        let now = self.now;
        let Some(puller) = self.nodes[index].puller.as_mut() else {
            return;
        };
        call(puller, now);
        self.drain(index);
    }

    fn drain(&mut self, index: usize) {
        let Some(mut puller) = self.nodes[index].puller.take() else {
            return;
        };
        self.checks += 1;
        if self.checks.is_multiple_of(1 + self.nodes.len() as u64) {
            puller.check_invariants();
        }
        let mut actions = Vec::new();
        while let Some((to, message)) = puller.poll_transmit() {
            self.transmit(index, to, &message);
        }
        while let Some(action) = puller.poll_action() {
            actions.push(action);
        }
        let timer = puller.poll_timeout();
        self.nodes[index].puller = Some(puller);
        for action in actions {
            self.act(index, action);
        }
        if timer != self.nodes[index].timer {
            self.nodes[index].timer = timer;
            if let Some(timer) = timer {
                let after = timer.saturating_duration_since(self.now);
                self.at(after, Event::Timer { node: index });
            }
        }
    }

    fn transmit(&mut self, from: usize, to: usize, message: &Message<usize>) {
        assert_ne!(from, to, "nobody sends to itself");
        *self.messages.entry(message.body.name()).or_default() += 1;
        let bytes = postcard::to_stdvec(message).unwrap();
        let copies = 1 + usize::from(self.rng.random_bool(self.duplication));
        for _ in 0..copies {
            if !self.rng.random_bool(self.loss) {
                let delay = ms(self.rng.random_range(self.delay_ms.clone()));
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

    fn act(&mut self, index: usize, action: Action<usize>) {
        match action {
            Action::Fetch {
                ticket,
                from,
                bundle,
                piece,
                ranges,
            } => {
                assert_eq!(bundle, BUNDLE);
                assert_eq!(ranges, self.layout.ranges(piece));
                self.flow_ids += 1;
                let flow = Flow {
                    from,
                    to: index,
                    ticket,
                    piece,
                    left_bytes: self.layout.bytes(piece) as f64,
                    rate: 0.0,
                    since: self.now,
                    version: 0,
                };
                self.flows.insert(self.flow_ids, flow);
                self.nodes[from].up.insert(self.flow_ids);
                self.nodes[index].down.insert(self.flow_ids);
                self.share(from, index);
            }
            Action::Abort { ticket } => {
                let found = self.nodes[index].down.iter().copied();
                let found = found.into_iter().find(|id| self.flows[id].ticket == ticket);
                if let Some(id) = found {
                    self.end_flow(id);
                }
            }
            Action::Complete { .. } => {
                let twice = self.nodes[index].completed.replace(self.now);
                assert!(twice.is_none(), "node {index} completed twice");
            }
            Action::NoProvider { .. } => self.nodes[index].stuck += 1,
        }
    }

    /// Shares two links anew.
    fn share(&mut self, from: usize, to: usize) {
        let mut touched = self.nodes[from].up.clone();
        touched.extend(&self.nodes[to].down);
        for id in touched {
            let flow = self.flows.get_mut(&id).unwrap();
            let passed = (self.now - flow.since).as_secs_f64() * flow.rate;
            flow.left_bytes = (flow.left_bytes - passed).max(0.0);
            flow.since = self.now;
            self.nodes[flow.from].sent_bytes += passed;
            self.nodes[flow.to].received_bytes += passed;
            let (up, down) = (&self.nodes[flow.from], &self.nodes[flow.to]);
            flow.rate = (up.link / up.up.len() as f64).min(down.link / down.down.len() as f64);
            flow.version += 1;
            let event = Event::Arrived {
                flow: id,
                version: flow.version,
            };
            let after = Duration::from_secs_f64(flow.left_bytes / flow.rate);
            self.at(after, event);
        }
    }

    fn end_flow(&mut self, id: u64) -> Option<Flow> {
        let flow = self.flows.remove(&id)?;
        let passed = (self.now - flow.since).as_secs_f64() * flow.rate;
        self.nodes[flow.from].sent_bytes += passed;
        self.nodes[flow.to].received_bytes += passed;
        self.nodes[flow.from].up.remove(&id);
        self.nodes[flow.to].down.remove(&id);
        self.share(flow.from, flow.to);
        Some(flow)
    }

    /// The node is gone; the others learn of it later.
    pub(crate) fn crash(&mut self, index: usize) {
        self.nodes[index].puller = None;
        let flows: Vec<u64> = self.nodes[index]
            .up
            .iter()
            .chain(&self.nodes[index].down)
            .copied()
            .collect();
        for id in flows {
            if let Some(flow) = self.end_flow(id) {
                let ticket = flow.ticket;
                self.with(flow.to, |puller, now| {
                    puller.fetch_failed(now, BUNDLE, ticket, FetchError::Lost);
                });
            }
        }
        for node in 0..self.nodes.len() {
            self.at(ms(3_000), Event::Lost { node, peer: index });
        }
    }

    pub(crate) fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Mesh) -> bool) {
        let until = self.now + limit;
        while !done(self) {
            let Some((&(at, _), _)) = self.events.first_key_value() else {
                panic!("nothing will ever happen again");
            };
            assert!(at <= until, "not done after {limit:?}: {}", self.state());
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

    fn state(&self) -> String {
        let state = |(index, node): (usize, &Node)| {
            let puller = node.puller.as_ref()?;
            let have = puller.have(BUNDLE).map_or(0, Pieces::len);
            let links = puller.links(BUNDLE);
            (node.completed.is_none() && index > 0)
                .then(|| format!("node {index}: {have} pieces, {links} links"))
        };
        self.nodes
            .iter()
            .enumerate()
            .filter_map(state)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Whether every living node that pulls has everything.
    pub(crate) fn all_complete(&self) -> bool {
        self.nodes
            .iter()
            .skip(1)
            .all(|node| node.puller.is_none() || node.completed.is_some())
    }

    /// No more than so many events in a second: messages don't beget messages.
    fn invariant_no_storm(&mut self, at: Instant) {
        let second = (at - self.start).as_secs();
        if self.second.0 != second {
            self.second = (second, 0);
        }
        self.second.1 += 1;
        let most = 8_000 * self.nodes.len();
        assert!(
            self.second.1 < most,
            "a storm: {:?}, {}",
            self.messages,
            self.state()
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
                let message = postcard::from_bytes(&bytes).unwrap();
                self.with(to, |puller, now| puller.handle_message(now, from, message));
            }
            Event::Timer { node } => {
                if self.nodes[node].timer == Some(at) {
                    self.nodes[node].timer = None;
                    self.with(node, |puller, now| puller.handle_timeout(now));
                }
            }
            Event::Arrived { flow, version } => {
                if self
                    .flows
                    .get(&flow)
                    .is_some_and(|flow| flow.version == version)
                {
                    let Some(flow) = self.end_flow(flow) else {
                        return;
                    };
                    self.arrived(&flow);
                }
            }
            Event::Lost { node, peer } => {
                self.with(node, |puller, now| puller.peer_lost(now, peer));
            }
        }
    }

    fn arrived(&mut self, flow: &Flow) {
        let source = &self.nodes[flow.from];
        let has = |puller: &Puller<usize>| {
            puller
                .have(BUNDLE)
                .is_some_and(|pieces| pieces.contains(flow.piece))
        };
        let result = match &source.puller {
            None => Err(FetchError::Lost),
            Some(_) if source.lies => Err(FetchError::BadData),
            Some(puller) if !has(puller) => Err(FetchError::NotThere),
            Some(_) => Ok(()),
        };
        if result == Err(FetchError::BadData) {
            *self.bad_fetches.entry((flow.to, flow.from)).or_default() += 1;
        }
        let ticket = flow.ticket;
        self.with(flow.to, |puller, now| match result {
            Ok(()) => puller.fetched(now, BUNDLE, ticket),
            Err(why) => puller.fetch_failed(now, BUNDLE, ticket, why),
        });
    }
}
