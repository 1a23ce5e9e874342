//! A layer that only its origin has goes to everybody.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::ensure;
use maelstrom_pull::{
    Action, BundleId, Config, FetchError, Layout, Message, Nearness, Pieces, Puller,
};
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

use super::{Options, Scenario};
use crate::{
    kernel::{Clock, EventQueue, Flows, Latency, Network, Record, Time, Trace, Transfer},
    plot::{self, Line, Panel},
    report::Report,
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "pull",
    about: "a layer of 1 GiB that only its origin has is wanted by 256 nodes with equal links: \
            time until all have it, and copies sent by the origin; also with slow links, lying \
            nodes and lost messages",
    run,
};

const LAYER_BYTES: u64 = 1 << 30;
const BUNDLE: BundleId = BundleId([7; 32]);

/// What is wrong with a run.
#[derive(Clone, Copy, Default)]
struct Trouble {
    /// One node in so many has a link of a tenth.
    slow: Option<usize>,
    /// One node in so many sends bad data.
    lying: Option<usize>,
    /// This share of control messages is lost.
    loss: f64,
    /// One node in so many dies after three seconds.
    dying: Option<usize>,
}

enum Event {
    Deliver {
        from: usize,
        to: usize,
        message: Box<Message<usize>>,
    },
    Wake(usize),
    Begin {
        node: usize,
        ticket: u64,
        from: usize,
        piece: usize,
        size_bytes: u64,
    },
    FlowsMove,
    Fetched {
        node: usize,
        ticket: u64,
        from: usize,
    },
    Die(usize),
}

/// The fetch that a flow carries.
#[derive(Clone, Copy)]
struct Carried {
    node: usize,
    ticket: u64,
    from: usize,
    piece: usize,
}

struct Swarm {
    queue: EventQueue<Event>,
    network: Network,
    flows: Flows,
    flows_move_at: Option<Time>,
    clock: Clock,
    nodes: Vec<Option<Puller<usize>>>,
    wakes_at: Vec<Option<Time>>,
    carries: BTreeMap<u64, Carried>,
    flow_of: BTreeMap<(usize, u64), u64>,
    aborted: BTreeSet<(usize, u64)>,
    lying: Vec<bool>,
    complete_at: Vec<Option<Time>>,
    trace: Trace,
    messages: u64,
    bad_data: u64,
}

impl Swarm {
    fn new(count: usize, options: &Options, trouble: Trouble) -> anyhow::Result<Self> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(options.seed);
        let link = options.link_bytes_per_second;
        let mut network = Network::new(
            count,
            Latency::LAN,
            Xoshiro256PlusPlus::seed_from_u64(rng.random()),
        );
        network.loss = trouble.loss;
        let mut flows = Flows::new(count, link, Duration::from_millis(1));
        let one_in = |every: Option<usize>, offset: usize, node: usize| {
            node > 0 && every.is_some_and(|every| node % every == offset)
        };
        let mut swarm = Self {
            queue: EventQueue::default(),
            network,
            flows_move_at: None,
            clock: Clock::new(Instant::now(), Duration::ZERO, 1.0),
            nodes: Vec::new(),
            wakes_at: vec![None; count],
            carries: BTreeMap::new(),
            flow_of: BTreeMap::new(),
            aborted: BTreeSet::new(),
            lying: (0..count)
                .map(|node| one_in(trouble.lying, 1, node))
                .collect(),
            complete_at: vec![None; count],
            trace: Trace::default(),
            messages: 0,
            bad_data: 0,
            flows: {
                for node in 0..count {
                    if one_in(trouble.slow, 2, node) {
                        flows.set_link(node, link / 10);
                    }
                }
                flows
            },
        };
        let now = swarm.clock.at(Time::ZERO);
        for node in 0..count {
            let mut puller = Puller::new(node, Config::default(), rng.random());
            let layout = Layout::new(vec![LAYER_BYTES])?;
            if node == 0 {
                puller.serve(now, BUNDLE, layout);
                swarm.complete_at[0] = Some(Time::ZERO);
            } else {
                puller.pull(now, BUNDLE, layout, Pieces::new(), &[(0, Nearness::Origin)]);
            }
            swarm.nodes.push(Some(puller));
            if one_in(trouble.dying, 3, node) {
                swarm.queue.at(Time::from_secs_f64(3.0), Event::Die(node));
            }
        }
        for node in 0..count {
            swarm.settle(node);
        }
        Ok(swarm)
    }

    fn note(&mut self, what: &'static str, node: usize, other: Option<usize>, detail: u64) {
        self.trace.note(Record {
            time: self.queue.now(),
            what,
            node: node as u32,
            other: other.map(|other| other as u32),
            detail,
        });
    }

    fn done(&self) -> bool {
        self.nodes
            .iter()
            .zip(&self.complete_at)
            .all(|(node, at)| node.is_none() || at.is_some())
    }

    fn step(&mut self) {
        let Some((_, event)) = self.queue.pop() else {
            return;
        };
        let now = self.clock.at(self.queue.now());
        match event {
            Event::Deliver { from, to, message } => {
                self.note(message.body.name(), to, Some(from), 0);
                if let Some(puller) = &mut self.nodes[to] {
                    puller.handle_message(now, from, *message);
                }
                self.settle(to);
            }
            Event::Wake(node) => {
                if self.wakes_at[node] == Some(self.queue.now()) {
                    self.wakes_at[node] = None;
                    if let Some(puller) = &mut self.nodes[node] {
                        puller.handle_timeout(now);
                    }
                    self.settle(node);
                }
            }
            Event::Begin {
                node,
                ticket,
                from,
                piece,
                size_bytes,
            } => {
                if self.aborted.remove(&(node, ticket)) {
                    return;
                }
                let serves = self.nodes[from]
                    .as_ref()
                    .is_some_and(|puller| puller.may_serve(node, BUNDLE, piece));
                if !serves {
                    self.fail(node, ticket, FetchError::NotThere);
                    return;
                }
                let transfer = Transfer { from, to: node };
                let flow = self.flows.start(self.queue.now(), transfer, size_bytes);
                let carried = Carried {
                    node,
                    ticket,
                    from,
                    piece,
                };
                self.carries.insert(flow, carried);
                self.flow_of.insert((node, ticket), flow);
                self.plan_flows();
            }
            Event::FlowsMove => self.flows_move(),
            Event::Fetched { node, ticket, from } => {
                self.note("piece arrives", node, Some(from), ticket);
                if self.lying[from] {
                    self.bad_data += 1;
                    self.fail(node, ticket, FetchError::BadData);
                } else if let Some(puller) = &mut self.nodes[node] {
                    puller.fetched(now, BUNDLE, ticket);
                    self.settle(node);
                }
            }
            Event::Die(node) => self.die(node),
        }
    }

    fn fail(&mut self, node: usize, ticket: u64, why: FetchError) {
        let now = self.clock.at(self.queue.now());
        if let Some(puller) = &mut self.nodes[node] {
            puller.fetch_failed(now, BUNDLE, ticket, why);
            self.settle(node);
        }
    }

    fn die(&mut self, dead: usize) {
        self.note("dies", dead, None, 0);
        self.nodes[dead] = None;
        let broken = self.flows.from_node(dead);
        for (flow, to) in broken {
            self.flows.cancel(self.queue.now(), flow);
            if let Some(Carried { node, ticket, .. }) = self.carries.remove(&flow) {
                debug_assert_eq!(node, to);
                self.flow_of.remove(&(node, ticket));
                self.fail(node, ticket, FetchError::Lost);
            }
        }
        let own: Vec<(usize, u64)> = self
            .flow_of
            .range((dead, 0)..(dead + 1, 0))
            .map(|(key, _)| *key)
            .collect();
        for key in own {
            if let Some(flow) = self.flow_of.remove(&key) {
                self.break_off(flow);
            }
        }
        self.plan_flows();
    }

    /// The receiver wants no more of a flow.
    fn break_off(&mut self, flow: u64) {
        self.flows.cancel(self.queue.now(), flow);
        if let Some(carried) = self.carries.remove(&flow) {
            self.upload_ended(carried);
        }
        self.plan_flows();
    }

    /// The sender's transport notices that it has sent everything, or that nobody listens.
    fn upload_ended(&mut self, carried: Carried) {
        let now = self.clock.at(self.queue.now());
        if let Some(puller) = &mut self.nodes[carried.from] {
            puller.upload_ended(now, carried.node, BUNDLE, carried.piece);
            self.settle(carried.from);
        }
    }

    fn flows_move(&mut self) {
        let now = self.queue.now();
        if self.flows_move_at != Some(now) {
            return;
        }
        self.flows_move_at = None;
        for (flow, transfer) in self.flows.finished(now) {
            if let Some(carried) = self.carries.remove(&flow) {
                let Carried { node, ticket, .. } = carried;
                self.flow_of.remove(&(node, ticket));
                self.upload_ended(carried);
                // The last byte is on its way for as long as a message.
                let [arrival, _] = self.network.deliveries(now, transfer.from, node, 0);
                let event = Event::Fetched {
                    node,
                    ticket,
                    from: transfer.from,
                };
                self.queue
                    .at(arrival.unwrap_or(now + Duration::from_millis(1)), event);
            }
        }
        self.plan_flows();
    }

    fn plan_flows(&mut self) {
        if let Some(time) = self
            .flows
            .next_time()
            .map(|time| time.max(self.queue.now()))
            && self.flows_move_at.is_none_or(|planned| time < planned)
        {
            self.flows_move_at = Some(time);
            self.queue.at(time, Event::FlowsMove);
        }
    }

    fn settle(&mut self, node: usize) {
        let now = self.queue.now();
        let Some(puller) = &mut self.nodes[node] else {
            return;
        };
        while let Some((to, message)) = puller.poll_transmit() {
            self.messages += 1;
            let deliveries = self.network.deliveries(now, node, to, 0);
            for time in deliveries.into_iter().flatten() {
                let message = Box::new(message.clone());
                let event = Event::Deliver {
                    from: node,
                    to,
                    message,
                };
                self.queue.at(time, event);
            }
        }
        let actions: Vec<Action<usize>> = std::iter::from_fn(|| puller.poll_action()).collect();
        if let Some(due) = puller.poll_timeout() {
            let time = self.clock.when(due).max(now);
            if self.wakes_at[node].is_none_or(|planned| time < planned || planned < now) {
                self.wakes_at[node] = Some(time);
                self.queue.at(time, Event::Wake(node));
            }
        }
        for action in actions {
            match action {
                Action::Fetch {
                    ticket,
                    from,
                    piece,
                    ranges,
                    ..
                } => {
                    let size_bytes = ranges
                        .iter()
                        .map(|range| range.bytes.end - range.bytes.start)
                        .sum();
                    let event = Event::Begin {
                        node,
                        ticket,
                        from,
                        piece,
                        size_bytes,
                    };
                    // The request is on its way for as long as a message.
                    let [arrival, _] = self.network.deliveries(now, node, from, 0);
                    self.queue
                        .at(arrival.unwrap_or(now + Duration::from_millis(1)), event);
                }
                Action::Abort { ticket } => match self.flow_of.remove(&(node, ticket)) {
                    Some(flow) => self.break_off(flow),
                    None => {
                        self.aborted.insert((node, ticket));
                    }
                },
                Action::Complete { .. } => {
                    self.note("complete", node, None, 0);
                    self.complete_at[node] = Some(now);
                }
                Action::NoProvider { .. } => {}
            }
        }
    }

    /// Which share of all pieces is where it is wanted.
    fn share(&self, pieces: usize) -> f64 {
        let alive = self.nodes.iter().skip(1).flatten();
        let (have, nodes) = alive.fold((0, 0), |(have, nodes), puller| {
            (have + puller.have(BUNDLE).map_or(0, Pieces::len), nodes + 1)
        });
        have as f64 / (nodes * pieces) as f64
    }
}

fn run(options: &Options) -> anyhow::Result<Report> {
    let wanting = options.nodes.unwrap_or(256);
    ensure!(wanting >= 1, "somebody has to want the layer");
    let pieces = Layout::new(vec![LAYER_BYTES])?.pieces();
    let one_copy = LAYER_BYTES as f64 / options.link_bytes_per_second as f64;
    let mut report = Report::new(
        "1 GiB from one origin to many",
        &[
            "trouble",
            "all have it",
            "in copies",
            "median",
            "origin sends",
            "messages",
            "bound",
        ],
    );
    let fine = Trouble::default();
    let troubles = [
        ("none", fine),
        (
            "1 link in 10 is slow",
            Trouble {
                slow: Some(10),
                ..fine
            },
        ),
        (
            "1 node in 10 lies",
            Trouble {
                lying: Some(10),
                ..fine
            },
        ),
        ("5 % of messages lost", Trouble { loss: 0.05, ..fine }),
        (
            "1 node in 10 dies",
            Trouble {
                dying: Some(10),
                ..fine
            },
        ),
    ];
    let bar = options.bar(troubles.len() as u64, "runs");
    let mut lines = Vec::new();
    for (name, trouble) in troubles {
        let mut swarm = Swarm::new(wanting + 1, options, trouble)?;
        let mut points = Vec::new();
        let mut look_at = Time::ZERO;
        while !swarm.done() {
            ensure!(
                swarm.queue.now() < Time::from_secs_f64(one_copy * 50.0) && !swarm.queue.is_empty(),
                "not everybody has the layer after {} ({name}); {}",
                swarm.queue.now(),
                options.replay(SCENARIO.name, options.seed)
            );
            if swarm.queue.now() >= look_at {
                points.push((swarm.queue.now().as_secs_f64(), swarm.share(pieces) * 100.0));
                look_at = look_at + Duration::from_millis(100);
            }
            swarm.step();
        }
        points.push((swarm.queue.now().as_secs_f64(), 100.0));
        for puller in swarm.nodes.iter().flatten() {
            puller.check_invariants();
        }
        let mut times: Vec<f64> = swarm
            .nodes
            .iter()
            .zip(&swarm.complete_at)
            .skip(1)
            .filter(|(node, _)| node.is_some())
            .filter_map(|(_, at)| Some((*at)?.as_secs_f64()))
            .collect();
        times.sort_by(f64::total_cmp);
        let last = times[times.len() - 1];
        report.row([
            name.to_owned(),
            format!("{last:.2} s"),
            format!("{:.2}", last / one_copy),
            format!("{:.2} s", times[times.len() / 2]),
            format!(
                "{:.2} copies",
                swarm.flows.sent_bytes(0) as f64 / LAYER_BYTES as f64
            ),
            swarm.messages.to_string(),
            if name == "none" { "2 copies" } else { "" }.to_owned(),
        ]);
        lines.push(Line {
            name: name.to_owned(),
            points,
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    report.note(format!(
        "{wanting} nodes, links of {} Mbit/s both ways, {pieces} pieces. One link needs {one_copy:.2} \
         s for one copy; a star around the origin needs {:.0} s. A slow link is a tenth as fast, \
         and needs {:.0} s by itself.",
        options.link_bytes_per_second / 125_000,
        one_copy * wanting as f64,
        one_copy * 10.0
    ));
    let panel = Panel {
        title: "% of all pieces where they are wanted".to_owned(),
        lines,
    };
    let title = format!("1 GiB to {wanting} nodes");
    report.plot("pull", plot::panels_over(&title, "seconds", &[panel]));
    Ok(report)
}
