//! Other ways to run the same jobs, for comparison.
//!
//! None of these loses messages or nodes, and none pays for what it computes: each is better
//! here than it could be in life.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

use crate::workload::JobSpec;

/// The makespan of a scheduler that knows every duration exactly, and the state of every slot
/// at every moment at no cost: the longest job goes first, to the slot that is free first.
pub fn ideal(jobs: &[JobSpec], slots: usize) -> Duration {
    let mut durations: Vec<Duration> = jobs.iter().map(|job| job.duration).collect();
    durations.sort_unstable_by(|a, b| b.cmp(a));
    let mut free_at: BinaryHeap<Reverse<Duration>> =
        (0..slots).map(|_| Reverse(Duration::ZERO)).collect();
    let mut last = Duration::ZERO;
    for duration in durations {
        let Some(Reverse(free)) = free_at.pop() else {
            return Duration::MAX;
        };
        let ends = free + duration;
        last = last.max(ends);
        free_at.push(Reverse(ends));
    }
    last
}

/// The makespan of such a scheduler where `dead` of the slots die at a moment, and what runs on
/// them has to begin anew.
pub fn ideal_with_deaths(
    jobs: &[JobSpec],
    slots: usize,
    dead: usize,
    die_at: Duration,
) -> Duration {
    let mut durations: Vec<Duration> = jobs.iter().map(|job| job.duration).collect();
    durations.sort_unstable();
    // (free at, slot); the first `dead` slots die.
    let mut free_at: BinaryHeap<Reverse<(Duration, usize)>> = (0..slots)
        .map(|slot| Reverse((Duration::ZERO, slot)))
        .collect();
    let mut last = Duration::ZERO;
    while let Some(duration) = durations.pop() {
        let Some(Reverse((free, slot))) = free_at.pop() else {
            return Duration::MAX;
        };
        let ends = free + duration;
        if slot < dead && ends > die_at {
            // Knowing everything, it starts nothing on a slot that dies too soon.
            durations.push(duration);
            continue;
        }
        last = last.max(ends);
        free_at.push(Reverse((ends, slot)));
    }
    last
}

/// What a central broker, or Sparrow, works with.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// How long a message takes.
    pub latency: Duration,
    /// What each link carries in each direction.
    pub bytes_per_second: u64,
}

impl Network {
    fn on_link(&self, bytes: u64) -> Duration {
        Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / self.bytes_per_second)
    }

    /// When the last message has come in over one link, of those sent at these times.
    fn all_received(&self, mut sent_at: Vec<Duration>, bytes: u64) -> Duration {
        sent_at.sort_unstable();
        sent_at.into_iter().fold(Duration::ZERO, |received, sent| {
            received.max(sent + self.latency) + self.on_link(bytes)
        })
    }
}

/// What moves for each job.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// A job's specification, in bytes.
    pub spec: u64,
    /// A job's outcome, in bytes.
    pub outcome: u64,
    /// What each worker must have before it can run the first job, in bytes.
    pub artifacts: u64,
}

/// The makespan of a central broker: clients send it every job and every artifact, it sends
/// both to the workers, and hands a job to a worker for each slot that is free, longest
/// estimate first. Everything passes through its link, once in and once out.
pub fn broker(
    jobs: &[JobSpec],
    workers: usize,
    slots: usize,
    network: Network,
    sizes: Sizes,
) -> Duration {
    let mut order: Vec<&JobSpec> = jobs.iter().collect();
    order.sort_by_key(|job| Reverse(job.estimate.unwrap_or(Duration::MAX)));
    // The artifacts come from the client first, over the broker's link down.
    let received = network.latency + network.on_link(sizes.artifacts);
    let mut link_up = received;
    let mut ends_at = Vec::with_capacity(jobs.len());
    // (when a free slot is known to the broker, worker)
    let mut free: BinaryHeap<Reverse<(Duration, usize)>> = BinaryHeap::new();
    for slot in 0..slots {
        for worker in 0..workers {
            // Each worker fetches the artifacts once, one after the other over the link up.
            if slot == 0 {
                link_up += network.on_link(sizes.artifacts);
            }
            free.push(Reverse((link_up + network.latency, worker)));
        }
    }
    for (number, job) in order.into_iter().enumerate() {
        let Some(Reverse((known_free, worker))) = free.pop() else {
            return Duration::MAX;
        };
        // The job has come from the client by then, and waits for the link to the worker.
        let came = network.latency + network.on_link(sizes.spec * (number as u64 + 1));
        link_up = link_up.max(known_free).max(came) + network.on_link(sizes.spec);
        let ends = link_up + network.latency + job.duration;
        ends_at.push(ends);
        let heard = ends + network.latency + network.on_link(sizes.outcome);
        free.push(Reverse((heard, worker)));
    }
    // Outcomes go to the broker, and from there to the client.
    network.all_received(ends_at, sizes.outcome) + network.latency + network.on_link(sizes.outcome)
}

/// The makespan of Sparrow: batch sampling with late binding, two probes a job. Each probe is a
/// place in a worker's queue; when it is reached the worker asks the scheduler for a job, and
/// gets one in the order of submission as long as there are any.
pub fn sparrow(
    jobs: &[JobSpec],
    workers: usize,
    slots: usize,
    network: Network,
    sizes: Sizes,
    seed: u64,
) -> Duration {
    const PROBES_PER_JOB: usize = 2;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    // All artifacts come from the scheduler's client, from each worker that has them already:
    // as fast as a chain can be, so that this is not what is compared.
    let begin = network.latency + network.on_link(sizes.artifacts) * 2;
    let mut probes: Vec<VecDeque<()>> = vec![VecDeque::new(); workers];
    for _ in 0..jobs.len() * PROBES_PER_JOB {
        probes[rng.random_range(0..workers)].push_back(());
    }
    let mut waiting = jobs.iter();
    let mut left = waiting.next();
    let mut link_up = begin;
    let mut ends_at = Vec::with_capacity(jobs.len());
    // (when the worker's request reaches the scheduler, worker)
    let mut asks: BinaryHeap<Reverse<(Duration, usize)>> = BinaryHeap::new();
    for (worker, queue) in probes.iter_mut().enumerate() {
        for _ in 0..slots {
            if queue.pop_front().is_some() {
                asks.push(Reverse((begin + network.latency * 2, worker)));
            }
        }
    }
    while let Some(Reverse((asked, worker))) = asks.pop() {
        // Once all jobs are placed, the other probes are void.
        let Some(job) = left else {
            break;
        };
        left = waiting.next();
        link_up = link_up.max(asked) + network.on_link(sizes.spec);
        let ends = link_up + network.latency + job.duration;
        ends_at.push(ends);
        if probes[worker].pop_front().is_some() {
            asks.push(Reverse((ends + network.latency, worker)));
        }
    }
    if left.is_some() {
        // Probes are placed at random: with few jobs a worker may be asked for none.
        return Duration::MAX;
    }
    network.all_received(ends_at, sizes.outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: Network = Network {
        latency: Duration::from_micros(500),
        bytes_per_second: 125_000_000,
    };
    const SIZES: Sizes = Sizes {
        spec: 240,
        outcome: 320,
        artifacts: 0,
    };

    fn jobs(seconds: &[u64]) -> Vec<JobSpec> {
        seconds
            .iter()
            .map(|seconds| JobSpec {
                duration: Duration::from_secs(*seconds),
                estimate: Some(Duration::from_secs(*seconds)),
                slots: 1,
                layer: None,
            })
            .collect()
    }

    #[test]
    fn the_ideal_packs_longest_first() {
        assert_eq!(ideal(&jobs(&[1, 1, 1, 3]), 2), Duration::from_secs(3));
        assert_eq!(ideal(&jobs(&[2, 2, 2]), 1), Duration::from_secs(6));
    }

    #[test]
    fn nobody_beats_the_ideal() {
        let jobs = jobs(&[5, 4, 3, 3, 2, 2, 2, 1, 1, 1, 1, 1]);
        let ideal = ideal(&jobs, 4);
        assert!(broker(&jobs, 2, 2, NETWORK, SIZES) > ideal);
        assert!(sparrow(&jobs, 2, 2, NETWORK, SIZES, 1) > ideal);
    }

    #[test]
    fn artifacts_pass_the_brokers_link_once_for_each_worker() {
        let sizes = Sizes {
            artifacts: 125_000_000,
            ..SIZES
        };
        let makespan = broker(&jobs(&[1; 10]), 10, 1, NETWORK, sizes).as_secs_f64();
        // One second in, ten out; the last worker's job takes another.
        assert!((11.9..12.3).contains(&makespan), "{makespan}");
    }
}
