//! A mesh of memberships on a virtual network, small enough to test the crate by itself.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    time::{Duration, Instant},
};

use maelstrom_gossip::{Config, Event, Membership, NodeId, Profile};
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

/// The id of the node with this number.
pub(crate) fn id(number: usize) -> NodeId {
    let mut bytes = [0x5a; 32];
    let word = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bytes[..8].copy_from_slice(&word.to_be_bytes());
    bytes[24..].copy_from_slice(&(number as u64).to_be_bytes());
    NodeId::from_bytes(bytes)
}

/// The number of the node with this id.
pub(crate) fn number(node: NodeId) -> usize {
    u64::from_be_bytes(node.as_bytes()[24..].try_into().unwrap()) as usize
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    at: Instant,
    order: u64,
    from: usize,
    to: usize,
    message: Vec<u8>,
}

/// Memberships, the messages between them, and the weather.
pub(crate) struct Mesh {
    pub(crate) now: Instant,
    pub(crate) nodes: Vec<Option<Membership>>,
    pub(crate) events: Vec<Vec<Event>>,
    /// Which share of the messages is lost.
    pub(crate) loss: f64,
    /// Messages between nodes in different groups are lost.
    pub(crate) groups: Vec<u32>,
    /// Nodes whose process is stopped: neither messages nor timers reach them.
    pub(crate) asleep: BTreeSet<usize>,
    pub(crate) bytes_sent: u64,
    pub(crate) config: Config,
    packets: BinaryHeap<Reverse<Packet>>,
    order: u64,
    rng: Xoshiro256PlusPlus,
    start: Instant,
}

impl Mesh {
    pub(crate) fn new(seed: u64) -> Self {
        let now = Instant::now();
        Self {
            now,
            start: now,
            nodes: Vec::new(),
            events: Vec::new(),
            loss: 0.0,
            groups: Vec::new(),
            asleep: BTreeSet::new(),
            bytes_sent: 0,
            config: Config::default(),
            packets: BinaryHeap::new(),
            order: 0,
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
        }
    }

    /// A mesh of `count` nodes that have all joined by the first.
    pub(crate) fn of(count: usize, seed: u64) -> Self {
        let mut mesh = Self::new(seed);
        for number in 0..count {
            mesh.start(number, 1);
            if number > 0 {
                mesh.join(number, 0);
                mesh.run_for(Duration::from_millis(20));
            }
        }
        let settled = mesh.run_until(Duration::from_secs(60), Mesh::agree);
        assert!(settled, "a mesh of {count} settles");
        mesh
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub(crate) fn start(&mut self, number: usize, generation: u32) {
        if number >= self.nodes.len() {
            self.nodes.resize_with(number + 1, || None);
            self.events.resize_with(number + 1, Vec::new);
            self.groups.resize(number + 1, 0);
        }
        let membership = Membership::new(
            self.now,
            id(number),
            generation,
            Profile::new(id(number), 4),
            self.config.clone(),
            self.rng.random(),
        );
        self.nodes[number] = Some(membership.unwrap());
    }

    pub(crate) fn join(&mut self, number: usize, seed: usize) {
        let now = self.now;
        self.node(number).join(now, id(seed));
        self.drain(number);
    }

    /// Ends the node without a word.
    pub(crate) fn kill(&mut self, number: usize) {
        self.nodes[number] = None;
    }

    pub(crate) fn node(&mut self, number: usize) -> &mut Membership {
        self.nodes[number].as_mut().expect("the node runs")
    }

    pub(crate) fn alive(&self) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|number| self.nodes[*number].is_some())
            .collect()
    }

    /// Does something to a node and sends what comes of it.
    pub(crate) fn with<T>(
        &mut self,
        number: usize,
        act: impl FnOnce(&mut Membership, Instant) -> T,
    ) -> T {
        let now = self.now;
        let result = act(self.node(number), now);
        self.drain(number);
        result
    }

    pub(crate) fn drain(&mut self, number: usize) {
        let Some(node) = &mut self.nodes[number] else {
            return;
        };
        while let Some(transmit) = node.poll_transmit() {
            self.bytes_sent += transmit.message.len() as u64;
            let to = self::number(transmit.to);
            let cut = self.groups[number] != self.groups[to];
            if cut || self.rng.random_bool(self.loss) {
                continue;
            }
            self.order += 1;
            let delay = Duration::from_micros(self.rng.random_range(1_000..10_000));
            self.packets.push(Reverse(Packet {
                at: self.now + delay,
                order: self.order,
                from: number,
                to,
                message: transmit.message,
            }));
        }
        while let Some(event) = node.poll_event() {
            self.events[number].push(event);
        }
    }

    /// Handles the next packet or timer, unless it comes after `end`.
    fn step(&mut self, end: Instant) -> bool {
        let timer = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(number, _)| !self.asleep.contains(number))
            .filter_map(|(number, node)| Some((node.as_ref()?.poll_timeout()?, number)))
            .min();
        let packet = self.packets.peek().map(|Reverse(packet)| packet.at);
        match (timer, packet) {
            (Some((at, number)), packet) if packet.is_none_or(|packet| at <= packet) => {
                if at > end {
                    return false;
                }
                self.now = self.now.max(at);
                let now = self.now;
                self.node(number).handle_timeout(now);
                self.drain(number);
            }
            (_, Some(at)) => {
                if at > end {
                    return false;
                }
                self.now = self.now.max(at);
                let Reverse(packet) = self.packets.pop().unwrap();
                if self.asleep.contains(&packet.to) {
                    return true;
                }
                if let Some(node) = &mut self.nodes[packet.to] {
                    node.handle_message(self.now, id(packet.from), &packet.message)
                        .expect("nodes understand each other");
                    self.drain(packet.to);
                }
            }
            _ => return false,
        }
        true
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until the condition holds, asked every 100 ms; `false` if it doesn't in time.
    pub(crate) fn run_until(&mut self, time: Duration, condition: impl Fn(&Mesh) -> bool) -> bool {
        let end = self.now + time;
        while !condition(self) {
            if self.now >= end {
                return false;
            }
            self.run_for(Duration::from_millis(100));
        }
        true
    }

    /// Whether all running nodes know each other, and the same of each other.
    pub(crate) fn agree(&self) -> bool {
        let mut nodes = self.nodes.iter().flatten();
        let count = self.alive().len();
        let Some(first) = nodes.next() else {
            return true;
        };
        first.view().len() == count - 1
            && nodes.all(|node| {
                node.view().len() == count - 1
                    && node.view().fingerprint() == first.view().fingerprint()
            })
    }

    /// How many of the running nodes other than itself show the node.
    pub(crate) fn known_by(&self, number: usize) -> usize {
        self.nodes
            .iter()
            .flatten()
            .filter(|node| node.view().get(&id(number)).is_some())
            .count()
    }
}
