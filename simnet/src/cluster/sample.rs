//! What is measured, and checked, ten times a second.

use std::{collections::BTreeMap, time::Duration};

use super::{Cluster, Event, Invariant};
use crate::kernel::Time;

/// How often.
pub(super) const PERIOD: Duration = Duration::from_millis(100);

/// Over which time shares are averaged.
const AVERAGED_OVER: Duration = Duration::from_secs(3);

/// The mesh at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When.
    pub at: Time,
    /// Nodes that run.
    pub nodes: u32,
    /// Slots of nodes that run.
    pub slots: u64,
    /// Slots that run a job.
    pub slots_busy: u64,
    /// Jobs that wait at their origins.
    pub queued: u64,
    /// Layers being pulled.
    pub pulls: usize,
}

/// What has been seen for how long.
#[derive(Debug, Default)]
pub(super) struct Sampling {
    /// Slots that each origin's jobs held lately.
    held: BTreeMap<u32, f64>,
    /// Since when an origin has been below its share while another was above.
    below: BTreeMap<u32, Time>,
    /// Since when there has been more than one coordinator.
    several_since: Option<Time>,
}

impl Cluster {
    pub(super) fn sample(&mut self) {
        let now = self.now();
        let mut sample = Sample {
            at: now,
            nodes: 0,
            slots: 0,
            slots_busy: 0,
            queued: 0,
            pulls: self.flows.len(),
        };
        let mut queued = BTreeMap::new();
        for (number, node) in self.nodes.iter().enumerate() {
            if !node.alive {
                continue;
            }
            sample.nodes += 1;
            sample.slots += u64::from(node.slots);
            sample.slots_busy += u64::from(node.slots_running);
            if node.unreported == 0 {
                continue;
            }
            let dispatcher = node.machines.as_ref().and_then(|m| m.dispatcher.as_ref());
            let waits = dispatcher.map_or(0, |dispatcher| dispatcher.counts().queued);
            sample.queued += waits as u64;
            if waits > 0 {
                queued.insert(number as u32, waits);
            }
        }
        if self.setup.checks {
            self.check_shares(&queued, sample.slots);
            self.check_coordinators();
            self.check_books();
        }
        self.samples.push(sample);
        self.queue.at(now + PERIOD, Event::Sample);
    }

    /// Slots that each origin's jobs hold, wherever they run.
    fn held(&self) -> BTreeMap<u32, u64> {
        let mut held = BTreeMap::new();
        for node in self.nodes.iter().filter(|node| node.alive) {
            for running in node.running.values() {
                let origin = self.jobs[running.job as usize].origin;
                *held.entry(origin).or_default() += u64::from(running.slots);
            }
        }
        held
    }

    /// Whether nothing is wrong at this moment, so that promises about shares and coordinators
    /// hold.
    fn is_calm(&self) -> bool {
        let now = self.now();
        self.network.cuts.is_empty()
            && self.network.loss < 0.02
            && self
                .nodes
                .iter()
                .all(|node| node.alive && node.paused_until <= now)
    }

    /// Shares are averaged over seconds: at one moment a slot may just be between two jobs.
    fn check_shares(&mut self, queued: &BTreeMap<u32, usize>, slots: u64) {
        if queued.len() < 2 || !self.is_calm() {
            self.sampling.below.clear();
            self.sampling.held.clear();
            return;
        }
        let fair = slots as f64 / queued.len() as f64;
        let held = self.held();
        let average = &mut self.sampling.held;
        average.retain(|origin, _| queued.contains_key(origin));
        for origin in queued.keys() {
            let holds = held.get(origin).copied().unwrap_or(0) as f64;
            // Whoever comes is taken to have had its share so far.
            let before = average.entry(*origin).or_insert(fair);
            *before += (holds - *before) * PERIOD.as_secs_f64() / AVERAGED_OVER.as_secs_f64();
        }
        let above = average.values().any(|holds| *holds > fair * 1.25 + 0.5);
        let below: Vec<(u32, f64)> = average
            .iter()
            .map(|(origin, holds)| (*origin, *holds))
            .filter(|(_, holds)| above && *holds < fair * 0.75 - 0.5)
            .collect();
        let now = self.now();
        self.sampling
            .below
            .retain(|origin, _| below.iter().any(|(low, _)| low == origin));
        for (origin, holds) in below {
            let since = *self.sampling.below.entry(origin).or_insert(now);
            if now.since(since) > self.setup.bounds.unfair {
                let seen = format!(
                    "node {origin}'s jobs hold {holds:.1} slots where {fair:.1} are its share, \
                     below it since {since}, while another's hold more than theirs: {:.1?}",
                    self.sampling.held
                );
                self.fail(Invariant::FairShares, seen);
                return;
            }
        }
    }

    /// Whether all nodes that run know each other, and the same of each other.
    pub fn views_agree(&self) -> bool {
        let mut views = self
            .nodes
            .iter()
            .filter(|node| node.alive)
            .filter_map(|node| node.machines.as_ref()?.membership.as_ref())
            .map(|membership| membership.view());
        let count = self.nodes.iter().filter(|node| node.alive).count();
        let Some(first) = views.next() else {
            return true;
        };
        let agreed = first.fingerprint();
        first.len() + 1 == count
            && views.all(|view| view.len() + 1 == count && view.fingerprint() == agreed)
    }

    /// The nodes that believe that they coordinate, with their terms.
    pub fn coordinators(&self) -> Vec<(usize, u64)> {
        let now = self.now();
        self.nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| node.alive && node.paused_until <= now)
            .filter_map(|(number, node)| {
                let election = node.machines.as_ref()?.election.as_ref()?;
                Some((number, election.coordinates_in(node.clock.at(now))?))
            })
            .collect()
    }

    fn check_coordinators(&mut self) {
        if !self.setup.own_views {
            return;
        }
        let now = self.now();
        let coordinators = self.coordinators();
        let settled = coordinators.len() > 1 && self.is_calm() && self.views_agree();
        if !settled {
            self.sampling.several_since = None;
            return;
        }
        let since = *self.sampling.several_since.get_or_insert(now);
        if now.since(since) > self.setup.bounds.one_coordinator {
            let seen = format!("{coordinators:?} (node, term) all coordinate since {since}");
            self.fail(Invariant::OneCoordinator, seen);
        }
    }

    /// Asks the cores themselves, which panic where two parts of their state disagree.
    fn check_books(&mut self) {
        let number = self.samples.len() % self.nodes.len();
        let Some(machines) = &self.nodes[number].machines else {
            return;
        };
        if let Some(dispatcher) = &machines.dispatcher {
            dispatcher.check_invariants();
        }
    }
}
