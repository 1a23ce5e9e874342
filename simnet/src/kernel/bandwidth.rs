//! Bulk transfers that share links fairly.
//!
//! Transfers are fluids: at each moment each flows at its max-min fair rate. No transfer can
//! then flow faster without another, which is no faster, flowing slower; which is what many TCP
//! or QUIC streams come close to.

use std::{collections::BTreeMap, time::Duration};

use super::Time;

/// A transfer from one node to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// Who sends.
    pub from: usize,
    /// Who receives.
    pub to: usize,
}

#[derive(Debug)]
struct Flow {
    transfer: Transfer,
    left_bytes: f64,
    /// Bytes a nanosecond.
    rate: f64,
}

/// All transfers under way. Each node has a link up and a link down.
#[derive(Debug)]
pub struct Flows {
    /// Bytes a nanosecond, of each node's link up and, behind all those, of its link down.
    capacity: Vec<f64>,
    flows: BTreeMap<u64, Flow>,
    started: u64,
    /// Until when [`Flow::left_bytes`] is reckoned.
    reckoned: Time,
    /// Whether flows have come or gone since rates were set.
    stale: bool,
    /// Rates are set anew at most once in this time; a flow that comes in between waits.
    step: Duration,
    set_at: Option<Time>,
    sent_bytes: Vec<f64>,
}

impl Flows {
    /// No transfers, between nodes whose links carry this much in each direction.
    pub fn new(nodes: usize, bytes_per_second: u64, step: Duration) -> Self {
        Self {
            capacity: vec![bytes_per_second as f64 / 1e9; nodes * 2],
            flows: BTreeMap::new(),
            started: 0,
            reckoned: Time::ZERO,
            stale: false,
            step,
            set_at: None,
            sent_bytes: vec![0.0; nodes],
        }
    }

    /// Changes how much one node's links carry in each direction.
    pub fn set_link(&mut self, node: usize, bytes_per_second: u64) {
        let nodes = self.sent_bytes.len();
        self.capacity[node] = bytes_per_second as f64 / 1e9;
        self.capacity[nodes + node] = bytes_per_second as f64 / 1e9;
        self.stale = true;
    }

    /// Starts a transfer; its number tells when it has ended.
    pub fn start(&mut self, now: Time, transfer: Transfer, size_bytes: u64) -> u64 {
        self.reckon(now);
        self.started += 1;
        self.flows.insert(
            self.started,
            Flow {
                transfer,
                left_bytes: size_bytes as f64,
                rate: 0.0,
            },
        );
        self.stale = true;
        self.started
    }

    /// Ends a transfer early; whether it was under way.
    pub fn cancel(&mut self, now: Time, number: u64) -> bool {
        self.reckon(now);
        self.stale = true;
        self.flows.remove(&number).is_some()
    }

    /// The transfers that a node sends, with their receivers.
    pub fn from_node(&self, from: usize) -> Vec<(u64, usize)> {
        self.flows
            .iter()
            .filter(|(_, flow)| flow.transfer.from == from)
            .map(|(number, flow)| (*number, flow.transfer.to))
            .collect()
    }

    /// How many transfers are under way.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether no transfer is under way.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// How many bytes a node has sent.
    pub fn sent_bytes(&self, node: usize) -> u64 {
        self.sent_bytes[node].round() as u64
    }

    /// When to call [`finished`](Self::finished) next.
    pub fn next_time(&self) -> Option<Time> {
        if self.stale {
            return Some(self.set_at.map_or(self.reckoned, |at| at + self.step));
        }
        self.flows
            .values()
            .filter(|flow| flow.rate > 0.0)
            .map(|flow| {
                self.reckoned + Duration::from_nanos((flow.left_bytes / flow.rate).ceil() as u64)
            })
            .min()
    }

    /// The transfers that have ended by now, in the order in which they were started.
    pub fn finished(&mut self, now: Time) -> Vec<(u64, Transfer)> {
        self.reckon(now);
        let ended: Vec<u64> = self
            .flows
            .iter()
            // Half a byte: a rate times a time isn't exact.
            .filter(|(_, flow)| flow.left_bytes < 0.5)
            .map(|(number, _)| *number)
            .collect();
        let ended: Vec<(u64, Transfer)> = ended
            .into_iter()
            .filter_map(|number| Some((number, self.flows.remove(&number)?.transfer)))
            .collect();
        self.stale |= !ended.is_empty();
        if self.stale && self.set_at.is_none_or(|at| now >= at + self.step) {
            self.set_rates();
            self.set_at = Some(now);
            self.stale = false;
        }
        ended
    }

    fn reckon(&mut self, now: Time) {
        let nanos = now.since(self.reckoned).as_nanos() as f64;
        if nanos > 0.0 {
            for flow in self.flows.values_mut() {
                let moved = (flow.rate * nanos).min(flow.left_bytes);
                flow.left_bytes -= moved;
                self.sent_bytes[flow.transfer.from] += moved;
            }
            self.reckoned = now;
        }
    }

    /// Fills links until the first is full, fixes the rates of its flows, and goes on with the
    /// others.
    fn set_rates(&mut self) {
        let nodes = self.sent_bytes.len();
        let mut on_link: Vec<Vec<u64>> = vec![Vec::new(); nodes * 2];
        let mut open = vec![0usize; nodes * 2];
        for (number, flow) in &mut self.flows {
            flow.rate = -1.0;
            for link in [flow.transfer.from, nodes + flow.transfer.to] {
                on_link[link].push(*number);
                open[link] += 1;
            }
        }
        let mut left = self.capacity.clone();
        let mut busy: Vec<usize> = (0..nodes * 2).filter(|link| open[*link] > 0).collect();
        while !busy.is_empty() {
            let share = |link: usize| left[link].max(0.0) / open[link] as f64;
            let Some(tightest) = busy
                .iter()
                .copied()
                .min_by(|a, b| share(*a).total_cmp(&share(*b)).then(a.cmp(b)))
            else {
                break;
            };
            let rate = share(tightest);
            for number in std::mem::take(&mut on_link[tightest]) {
                let Some(flow) = self.flows.get_mut(&number) else {
                    continue;
                };
                if flow.rate >= 0.0 {
                    continue;
                }
                flow.rate = rate;
                for link in [flow.transfer.from, nodes + flow.transfer.to] {
                    left[link] -= rate;
                    open[link] -= 1;
                }
            }
            busy.retain(|link| open[*link] > 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(flows: &mut Flows) -> Vec<(f64, u64)> {
        let mut ended = Vec::new();
        while let Some(time) = flows.next_time() {
            for (number, _) in flows.finished(time) {
                ended.push(((time.as_secs_f64() * 1e3).round() / 1e3, number));
            }
        }
        ended
    }

    #[test]
    fn transfers_share_the_tightest_link() {
        // Both from node 0, at 100 bytes a second: half of it each, then all of it.
        let mut flows = Flows::new(3, 100, Duration::ZERO);
        flows.start(Time::ZERO, Transfer { from: 0, to: 1 }, 100);
        flows.start(Time::ZERO, Transfer { from: 0, to: 2 }, 200);
        assert_eq!(run(&mut flows), [(2.0, 1), (3.0, 2)]);
        assert_eq!(flows.sent_bytes(0), 300);
    }

    #[test]
    fn what_one_link_cannot_take_another_transfer_gets() {
        // Node 2 takes only 20 bytes a second, so node 1 gets 80 of node 0's 100.
        let mut flows = Flows::new(3, 100, Duration::ZERO);
        flows.set_link(2, 20);
        flows.start(Time::ZERO, Transfer { from: 0, to: 1 }, 80);
        flows.start(Time::ZERO, Transfer { from: 0, to: 2 }, 20);
        assert_eq!(run(&mut flows), [(1.0, 1), (1.0, 2)]);
    }

    proptest! {
        /// Max-min fair: no link carries too much, and each flow meets a link that is full and
        /// on which nobody is faster.
        #[test]
        fn rates_are_max_min_fair(
            pairs in proptest::collection::vec((0..6usize, 0..6usize), 1..30),
            links in proptest::collection::vec(1..1_000u64, 6),
        ) {
            let mut flows = Flows::new(6, 1, Duration::ZERO);
            for (node, capacity) in links.iter().enumerate() {
                flows.set_link(node, *capacity);
            }
            for (from, to) in pairs {
                flows.start(Time::ZERO, Transfer { from, to }, 1_000_000);
            }
            flows.finished(Time::ZERO);
            let load = |link: usize| -> f64 { on(&flows, link).map(|flow| flow.rate).sum() };
            for link in 0..12 {
                prop_assert!(load(link) <= flows.capacity[link] * 1.000_001);
            }
            for flow in flows.flows.values() {
                let held_back = [flow.transfer.from, 6 + flow.transfer.to].into_iter().any(|link| {
                    load(link) >= flows.capacity[link] * 0.999_999
                        && on(&flows, link).all(|other| other.rate <= flow.rate * 1.000_001)
                });
                prop_assert!(held_back, "{flow:?}");
            }
        }
    }

    fn on(flows: &Flows, link: usize) -> impl Iterator<Item = &Flow> {
        flows
            .flows
            .values()
            .filter(move |flow| flow.transfer.from == link || 6 + flow.transfer.to == link)
    }
}
