//! What goes wrong, and when.

use std::time::Duration;

use rand::{RngExt, rngs::Xoshiro256PlusPlus, seq::index};

use crate::kernel::{Cut, Time};

/// One thing that goes wrong, or is put right again.
#[derive(Clone, PartialEq, Debug)]
pub enum Fault {
    /// The node's process ends without a word.
    Kill(usize),
    /// The node's process starts anew and knows nothing.
    Start(usize),
    /// The node leaves in good order.
    Leave(usize),
    /// The node neither runs nor hears anything until then, as with its lid closed.
    Pause(usize, Duration),
    /// The node's jobs take this many times as long.
    Slow(usize, f64),
    /// A partition begins.
    Cut(u32, Cut),
    /// A partition ends.
    Mend(u32),
    /// From now on this share of messages is lost, late, and repeated.
    Weather {
        /// Lost.
        loss: f64,
        /// Much later than others.
        late: f64,
        /// Delivered twice.
        twice: f64,
    },
    /// The node's owner comes back, or goes away.
    Owner(usize, bool),
    /// Whoever coordinates is killed, and starts again after this time.
    KillCoordinator(Duration),
}

/// Faults with their times.
pub type Plan = Vec<(Time, Fault)>;

/// Everything that can go wrong, several times each, between `from` and `until`; at `until`
/// everything is put right again.
pub fn everything(nodes: usize, from: Time, until: Time, rng: &mut Xoshiro256PlusPlus) -> Plan {
    let mut plan = Plan::new();
    let span = until.since(from);
    let moment = |rng: &mut Xoshiro256PlusPlus| from + span.mul_f64(rng.random_range(0.0..0.9));
    let some = |rng: &mut Xoshiro256PlusPlus, most: usize| rng.random_range(1..=most.max(1));

    // Killed and restarted, some of them several times.
    for _ in 0..some(rng, nodes / 5) {
        let node = rng.random_range(0..nodes);
        let at = moment(rng);
        let back = (at + Duration::from_millis(rng.random_range(100..15_000))).min(until);
        plan.push((at, Fault::Kill(node)));
        plan.push((back, Fault::Start(node)));
    }
    for _ in 0..some(rng, nodes / 20) {
        let node = rng.random_range(0..nodes);
        let at = moment(rng);
        plan.push((at, Fault::Leave(node)));
        let back = (at + Duration::from_millis(rng.random_range(1_000..15_000))).min(until);
        plan.push((back, Fault::Start(node)));
    }
    for _ in 0..some(rng, nodes / 10) {
        let at = moment(rng);
        let time = Duration::from_millis(rng.random_range(200..20_000)).min(until.since(at));
        plan.push((at, Fault::Pause(rng.random_range(0..nodes), time)));
    }
    for _ in 0..some(rng, nodes / 10) {
        let node = rng.random_range(0..nodes);
        plan.push((moment(rng), Fault::Slow(node, rng.random_range(2.0..20.0))));
        plan.push((until, Fault::Slow(node, 1.0)));
    }
    for number in 0..some(rng, 3) {
        let number = number as u32;
        let near_count = rng.random_range(1..nodes);
        let mut near = vec![false; nodes];
        for node in index::sample(rng, nodes, near_count) {
            near[node] = true;
        }
        let (inward, outward) = match rng.random_range(0..4) {
            0 => (true, false),
            1 => (false, true),
            _ => (true, true),
        };
        let at = moment(rng);
        let mended = (at + Duration::from_millis(rng.random_range(500..20_000))).min(until);
        let cut = Cut {
            near,
            inward,
            outward,
        };
        plan.push((at, Fault::Cut(number, cut)));
        plan.push((mended, Fault::Mend(number)));
    }
    for _ in 0..some(rng, 3) {
        let weather = Fault::Weather {
            loss: rng.random_range(0.0..0.2),
            late: rng.random_range(0.0..0.2),
            twice: rng.random_range(0.0..0.1),
        };
        plan.push((moment(rng), weather));
    }
    for _ in 0..some(rng, nodes / 10) {
        let node = rng.random_range(0..nodes);
        plan.push((moment(rng), Fault::Owner(node, true)));
        plan.push((until, Fault::Owner(node, false)));
    }
    for _ in 0..some(rng, 2) {
        let back = Duration::from_millis(rng.random_range(500..8_000));
        plan.push((moment(rng), Fault::KillCoordinator(back.min(span))));
    }
    let fine = Fault::Weather {
        loss: 0.0,
        late: 0.0,
        twice: 0.0,
    };
    plan.push((until, fine));
    plan.sort_by_key(|(time, _)| *time);
    plan
}
