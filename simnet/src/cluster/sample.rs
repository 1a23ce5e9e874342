//! What is measured, and checked, ten times a second.

use std::{collections::BTreeMap, time::Duration};

use super::{Cluster, Event, Invariant};
use crate::kernel::Time;

/// How often.
pub(super) const PERIOD: Duration = Duration::from_millis(100);

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

    fn check_shares(&mut self, queued: &BTreeMap<u32, usize>, slots: u64) {
        if queued.len() < 2 || !self.is_calm() {
            self.sampling.below.clear();
            return;
        }
        let held = self.held();
        let fair = slots as f64 / queued.len() as f64;
        // Someone above by more than a rounding, and by more than a batch in flight.
        let above = queued
            .keys()
            .any(|origin| held.get(origin).copied().unwrap_or(0) as f64 > fair * 1.25 + 1.0);
        let now = self.now();
        for origin in queued.keys() {
            let has = held.get(origin).copied().unwrap_or(0) as f64;
            if !above || has >= fair * 0.75 - 1.0 {
                self.sampling.below.remove(origin);
                continue;
            }
            let since = *self.sampling.below.entry(*origin).or_insert(now);
            if now.since(since) > self.setup.bounds.unfair {
                let seen = format!(
                    "node {origin}'s jobs hold {has} slots where {fair:.1} are its share, since \
                     {since}, while another's hold more than theirs: {held:?}"
                );
                self.fail(Invariant::FairShares, seen);
                return;
            }
        }
        self.sampling
            .below
            .retain(|origin, _| queued.contains_key(origin));
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
