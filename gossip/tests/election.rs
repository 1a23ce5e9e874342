//! Elections among a handful of nodes whose clocks run at different rates.

mod common;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::{Duration, Instant},
};

use common::{id, number};
use maelstrom_gossip::{Claim, Election, ElectionConfig, ElectionEvent, ElectionMessage, NodeId};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

const LEASE: Duration = Duration::from_secs(5);

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    at: Duration,
    order: u64,
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

struct Node {
    /// `None` while it is dead.
    election: Option<Election>,
    /// How many of its seconds pass in a second.
    rate: f64,
    /// What it wrote down to remember over a restart.
    term: u64,
    /// The terms that it ever held, in order.
    held: Vec<u64>,
}

/// Electors, the messages between them, and true time.
struct Electors {
    base: Instant,
    now: Duration,
    nodes: Vec<Node>,
    packets: BinaryHeap<Reverse<Packet>>,
    order: u64,
    loss: f64,
    delay: Duration,
    /// Messages between different groups are lost.
    groups: Vec<u32>,
    rng: Xoshiro256PlusPlus,
    /// Who was elected for which term.
    elected: BTreeMap<u64, NodeId>,
    /// Whether at most one node may coordinate at any time.
    strict: bool,
}

impl Electors {
    fn new(rates: &[f64], seed: u64) -> Self {
        let mut electors = Self {
            base: Instant::now(),
            now: Duration::ZERO,
            nodes: Vec::new(),
            packets: BinaryHeap::new(),
            order: 0,
            loss: 0.0,
            delay: Duration::from_millis(20),
            groups: vec![0; rates.len()],
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            elected: BTreeMap::new(),
            strict: true,
        };
        for (number, rate) in rates.iter().enumerate() {
            electors.nodes.push(Node {
                election: None,
                rate: *rate,
                term: 0,
                held: Vec::new(),
            });
            electors.start(number);
        }
        electors
    }

    /// The node's own time.
    fn local(&self, number: usize) -> Instant {
        self.base + self.now.mul_f64(self.nodes[number].rate)
    }

    fn start(&mut self, number: usize) {
        let now = self.local(number);
        let seed = self.rng.random();
        let config = ElectionConfig::default();
        let term = self.nodes[number].term;
        let mut election = Election::new(now, id(number), term, config, seed);
        for other in 0..self.groups.len() {
            if self.groups[other] == self.groups[number] {
                election.add_eligible(now, id(other));
            }
        }
        self.nodes[number].election = Some(election);
    }

    fn kill(&mut self, number: usize) {
        self.nodes[number].election = None;
    }

    /// Lets all nodes see exactly those of their own group.
    fn regroup(&mut self, groups: &[u32]) {
        self.groups = groups.to_vec();
        for number in 0..self.nodes.len() {
            let now = self.local(number);
            for other in 0..self.nodes.len() {
                let Some(election) = &mut self.nodes[number].election else {
                    continue;
                };
                if groups[number] == groups[other] {
                    election.add_eligible(now, id(other));
                } else {
                    election.remove_eligible(now, id(other));
                }
            }
            self.drain(number);
        }
    }

    fn drain(&mut self, number: usize) {
        let local = self.local(number);
        let node = &mut self.nodes[number];
        let Some(election) = &mut node.election else {
            return;
        };
        let mut claims = Vec::new();
        let mut sent = Vec::new();
        while let Some(transmit) = election.poll_transmit() {
            sent.push(transmit);
        }
        while let Some(event) = election.poll_event() {
            match event {
                ElectionEvent::Elected(claim) => claims.push(claim),
                ElectionEvent::Deposed(_) => {}
                ElectionEvent::Term(term) => {
                    assert!(term > node.term, "terms never go back");
                    node.term = term;
                }
            }
        }
        let coordinates_in = election.coordinates_in(local);
        for transmit in sent {
            let to = common::number(transmit.to);
            if self.groups[to] == self.groups[number] && !self.rng.random_bool(self.loss) {
                self.order += 1;
                let delay = self.rng.random_range(Duration::from_millis(1)..self.delay);
                self.packets.push(Reverse(Packet {
                    at: self.now + delay,
                    order: self.order,
                    from: number,
                    to,
                    bytes: transmit.message.encode(),
                }));
            }
        }
        for claim in claims {
            assert_eq!(coordinates_in, Some(claim.term));
            let highest = self.nodes[number].held.last();
            assert!(highest.is_none_or(|highest| *highest < claim.term));
            self.nodes[number].held.push(claim.term);
            if self.strict {
                let before = self.elected.last_key_value();
                assert!(
                    before.is_none_or(|(before, _)| *before < claim.term),
                    "{claim:?} after {before:?}"
                );
            }
            self.elected.insert(claim.term, claim.coordinator);
        }
        if self.strict {
            let coordinators = self.coordinators();
            assert!(
                coordinators.len() <= 1,
                "{coordinators:?} at {:?}",
                self.now
            );
        }
    }

    fn coordinators(&self) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|number| {
                let election = self.nodes[*number].election.as_ref();
                election.is_some_and(|election| election.is_coordinator(self.local(*number)))
            })
            .collect()
    }

    /// Everybody of a group hears who was elected, as membership would tell.
    fn tell_claims(&mut self) {
        for teller in 0..self.nodes.len() {
            let claim = self.nodes[teller]
                .election
                .as_ref()
                .and_then(Election::coordinator);
            let Some(claim) = claim else {
                continue;
            };
            for number in 0..self.nodes.len() {
                let now = self.local(number);
                if self.groups[number] == self.groups[teller]
                    && let Some(election) = &mut self.nodes[number].election
                {
                    election.handle_claim(now, claim);
                    self.drain(number);
                }
            }
        }
    }

    /// When the node's next timeout is due, in true time, rounded up.
    fn due(&self, number: usize) -> Option<Duration> {
        let node = &self.nodes[number];
        let local = node.election.as_ref()?.poll_timeout()?;
        let local = local.saturating_duration_since(self.base).as_secs_f64();
        Some(Duration::from_secs_f64(local / node.rate) + Duration::from_micros(1))
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let timer = (0..self.nodes.len())
                .filter_map(|number| Some((self.due(number)?, number)))
                .min();
            let packet = self.packets.peek().map(|Reverse(packet)| packet.at);
            match (timer, packet) {
                (Some((at, number)), packet) if packet.is_none_or(|packet| at <= packet) => {
                    if at > end {
                        break;
                    }
                    self.now = self.now.max(at);
                    let now = self.local(number);
                    let election = self.nodes[number].election.as_mut().unwrap();
                    election.handle_timeout(now);
                    self.drain(number);
                }
                (_, Some(at)) => {
                    if at > end {
                        break;
                    }
                    self.now = self.now.max(at);
                    let Reverse(packet) = self.packets.pop().unwrap();
                    let now = self.local(packet.to);
                    if let Some(election) = &mut self.nodes[packet.to].election {
                        let message = ElectionMessage::decode(&packet.bytes).unwrap();
                        election.handle_message(now, id(packet.from), message);
                        self.drain(packet.to);
                    }
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn run_until(&mut self, time: Duration, condition: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + time;
        while !condition(self) {
            if self.now > end {
                return false;
            }
            self.run_for(Duration::from_millis(20));
        }
        true
    }
}

#[test]
fn one_node_elects_itself_and_two_agree() {
    for count in [1, 2, 3, 20] {
        let mut electors = Electors::new(&vec![1.0; count], 1);
        assert!(electors.run_until(3 * LEASE, |electors| electors.coordinators().len() == 1));
        let first = electors.coordinators();
        electors.run_for(20 * LEASE);
        assert_eq!(
            electors.coordinators(),
            first,
            "who is up stays coordinator"
        );
        assert_eq!(electors.elected.len(), 1);
    }
}

#[test]
fn a_hundred_killed_coordinators_are_each_replaced_within_two_leases() {
    let mut electors = Electors::new(&[1.0, 1.04, 0.96, 1.02, 0.98, 1.0, 1.0], 2);
    let mut dead: Vec<usize> = Vec::new();
    for round in 0..100 {
        let elected = electors.run_until(2 * LEASE, |electors| !electors.coordinators().is_empty());
        assert!(elected, "round {round}");
        let coordinator = electors.coordinators()[0];
        electors.run_for(LEASE / 2);
        electors.kill(coordinator);
        dead.push(coordinator);
        if dead.len() > 2 {
            electors.start(dead.remove(0));
        }
    }
    assert!(electors.elected.len() >= 100);
}

#[test]
fn each_half_of_a_partition_has_a_coordinator_and_together_they_have_one() {
    let mut electors = Electors::new(&[1.0; 10], 3);
    electors.run_for(3 * LEASE);
    electors.strict = false;
    for halves in [
        [1, 1, 1, 1, 1, 2, 2, 2, 2, 2],
        [1, 2, 1, 2, 1, 2, 1, 2, 1, 2],
    ] {
        electors.regroup(&halves);
        electors.run_for(5 * LEASE);
        let coordinators = electors.coordinators();
        assert_eq!(coordinators.len(), 2);
        assert_ne!(halves[coordinators[0]], halves[coordinators[1]]);
        electors.regroup(&[0; 10]);
        electors.tell_claims();
        assert!(electors.run_until(2 * LEASE, |electors| electors.coordinators().len() == 1));
        electors.run_for(10 * LEASE);
        assert_eq!(electors.coordinators().len(), 1);
    }
}

#[test]
fn a_new_lower_id_does_not_unseat_a_coordinator() {
    let mut electors = Electors::new(&[1.0; 12], 4);
    let mut order: Vec<usize> = (0..12).collect();
    order.sort_by_key(|number| id(*number));
    let late = order[0];
    electors.kill(late);
    electors.run_for(4 * LEASE);
    let coordinator = electors.coordinators();
    electors.start(late);
    electors.run_for(10 * LEASE);
    assert_eq!(electors.coordinators(), coordinator);
}

#[test]
fn a_coordinator_that_sleeps_is_none_when_it_wakes() {
    let mut electors = Electors::new(&[1.0; 5], 5);
    electors.run_for(3 * LEASE);
    let sleeper = electors.coordinators()[0];
    let sleeping = electors.nodes[sleeper].election.take();
    assert!(electors.run_until(2 * LEASE, |electors| electors.coordinators().len() == 1));
    electors.nodes[sleeper].election = sleeping;
    assert!(!electors.coordinators().contains(&sleeper));
    electors.run_for(5 * LEASE);
    assert_eq!(electors.coordinators().len(), 1);
}

#[test]
fn the_claim_of_another_mesh_in_a_higher_term_wins() {
    let mut electors = Electors::new(&[1.0; 1], 6);
    electors.run_for(3 * LEASE);
    let now = electors.local(0);
    let claim = Claim {
        term: 70,
        coordinator: id(99),
    };
    let election = electors.nodes[0].election.as_mut().unwrap();
    election.add_eligible(now, id(99));
    election.handle_claim(now, claim);
    assert_eq!(election.coordinator(), Some(claim));
    assert!(!election.is_coordinator(now));
    assert_eq!(number(claim.coordinator), 99);
}

#[derive(Clone, Debug)]
enum Fault {
    Kill(usize),
    Start(usize),
    Loss(f64),
    Delay(u64),
    Wait(u64),
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let fault = prop_oneof![
        3 => (0..7usize).prop_map(Fault::Kill),
        3 => (0..7usize).prop_map(Fault::Start),
        1 => (0..60u32).prop_map(|percent| Fault::Loss(f64::from(percent) / 100.0)),
        1 => (2..4_000u64).prop_map(Fault::Delay),
        4 => (10..8_000u64).prop_map(Fault::Wait),
    ];
    proptest::collection::vec(fault, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever dies, restarts, is lost or late, and however the clocks run within bounds: as
    /// long as all agree who the council is there is never more than one coordinator, and
    /// terms only grow (both asserted after every step); when the faults end there is one.
    #[test]
    fn at_most_one_coordinates_whatever_happens(
        faults in faults(),
        rates in proptest::collection::vec(0.95..1.05f64, 7),
        seed: u64,
    ) {
        let mut electors = Electors::new(&rates, seed);
        for fault in faults {
            match fault {
                Fault::Kill(number) => electors.kill(number),
                Fault::Start(number) => {
                    if electors.nodes[number].election.is_none() {
                        electors.start(number);
                    }
                }
                Fault::Loss(loss) => electors.loss = loss,
                Fault::Delay(millis) => electors.delay = Duration::from_millis(millis),
                Fault::Wait(millis) => electors.run_for(Duration::from_millis(millis)),
            }
        }
        electors.loss = 0.0;
        electors.delay = Duration::from_millis(20);
        for number in 0..7 {
            if electors.nodes[number].election.is_none() {
                electors.start(number);
            }
        }
        let settled = electors.run_until(4 * LEASE, |electors| !electors.coordinators().is_empty());
        prop_assert!(settled);
    }
}
