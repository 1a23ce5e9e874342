//! Which messages arrive, and when.

use std::time::Duration;

use rand::{RngExt, rngs::Xoshiro256PlusPlus};

use super::Time;

/// How long messages take.
#[derive(Clone, Copy, Debug)]
pub enum Latency {
    /// Any time between the two, all equally likely.
    Uniform(Duration, Duration),
    /// A least time and a heavy tail: `least` plus a log-normal time with this median, whose
    /// logarithm spreads by `sigma`; cut at a second.
    HeavyTailed {
        /// What the distance alone takes.
        least: Duration,
        /// What queues add in the middle.
        median: Duration,
        /// How much that varies: 1.0 means that one message in forty takes seven times as long.
        sigma: f64,
    },
}

impl Latency {
    /// A local network: 0.2 ms to about a millisecond, sometimes more.
    pub const LAN: Self = Self::HeavyTailed {
        least: Duration::from_micros(200),
        median: Duration::from_micros(300),
        sigma: 0.8,
    };

    fn sample(&self, rng: &mut Xoshiro256PlusPlus) -> Duration {
        match *self {
            Self::Uniform(least, most) if least < most => rng.random_range(least..most),
            Self::Uniform(least, _) => least,
            Self::HeavyTailed {
                least,
                median,
                sigma,
            } => {
                let tail = median.mul_f64((sigma * normal(rng)).exp());
                least + tail.min(Duration::from_secs(1))
            }
        }
    }
}

/// A number from the standard normal distribution (Box and Muller's way).
pub(crate) fn normal(rng: &mut Xoshiro256PlusPlus) -> f64 {
    let radius: f64 = rng.random_range(f64::MIN_POSITIVE..1.0);
    let angle: f64 = rng.random_range(0.0..std::f64::consts::TAU);
    (-2.0 * radius.ln()).sqrt() * angle.cos()
}

/// Nodes that cannot reach others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    /// For each node, whether it is on the near side.
    pub near: Vec<bool>,
    /// Whether messages from the far side to the near side are lost.
    pub inward: bool,
    /// Whether messages from the near side to the far side are lost.
    pub outward: bool,
}

/// The network between the nodes.
#[derive(Debug)]
pub struct Network {
    /// How long messages take.
    pub latency: Latency,
    /// Which share of the messages is lost.
    pub loss: f64,
    /// Which share of the messages takes up to ten times as long, and so comes after later ones.
    pub late: f64,
    /// Which share of the messages arrives twice.
    pub twice: f64,
    /// How many bytes each node can send, and receive, in a second. 0: as many as it likes.
    pub bytes_per_second: u64,
    /// Partitions, by the number they were given.
    pub cuts: Vec<(u32, Cut)>,
    sending_until: Vec<Time>,
    receiving_until: Vec<Time>,
    rng: Xoshiro256PlusPlus,
}

impl Network {
    /// A network between `nodes` nodes that loses nothing.
    pub fn new(nodes: usize, latency: Latency, rng: Xoshiro256PlusPlus) -> Self {
        Self {
            latency,
            loss: 0.0,
            late: 0.0,
            twice: 0.0,
            bytes_per_second: 0,
            cuts: Vec::new(),
            sending_until: vec![Time::ZERO; nodes],
            receiving_until: vec![Time::ZERO; nodes],
            rng,
        }
    }

    /// Whether no partition keeps a message from arriving.
    pub fn reaches(&self, from: usize, to: usize) -> bool {
        !self.cuts.iter().any(|(_, cut)| {
            (cut.near[from] && !cut.near[to] && cut.outward)
                || (!cut.near[from] && cut.near[to] && cut.inward)
        })
    }

    /// When a message arrives: never, once, or twice.
    pub fn deliveries(
        &mut self,
        now: Time,
        from: usize,
        to: usize,
        size_bytes: usize,
    ) -> [Option<Time>; 2] {
        if !self.reaches(from, to) || (self.loss > 0.0 && self.rng.random_bool(self.loss)) {
            return [None, None];
        }
        let mut delay = self.latency.sample(&mut self.rng);
        if self.late > 0.0 && self.rng.random_bool(self.late) {
            delay = delay.mul_f64(self.rng.random_range(1.0..10.0));
        }
        let arrival = self.through_links(now, delay, from, to, size_bytes);
        let again = (self.twice > 0.0 && self.rng.random_bool(self.twice))
            .then(|| arrival + self.latency.sample(&mut self.rng));
        [Some(arrival), again]
    }

    /// Adds the time that a message waits for, and takes on, both ends' links.
    fn through_links(
        &mut self,
        now: Time,
        delay: Duration,
        from: usize,
        to: usize,
        size_bytes: usize,
    ) -> Time {
        if self.bytes_per_second == 0 {
            return now + delay;
        }
        let on_link =
            Duration::from_nanos(size_bytes as u64 * 1_000_000_000 / self.bytes_per_second);
        let sent = self.sending_until[from].max(now) + on_link;
        self.sending_until[from] = sent;
        // The receiving end takes in while the sending end puts out.
        let received = (sent + delay).max(self.receiving_until[to] + on_link);
        self.receiving_until[to] = received;
        received
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn network() -> Network {
        let latency = Latency::Uniform(Duration::from_millis(1), Duration::from_millis(2));
        Network::new(4, latency, Xoshiro256PlusPlus::seed_from_u64(1))
    }

    #[test]
    fn a_one_way_cut_lets_the_other_way_through() {
        let mut network = network();
        let near = vec![true, true, false, false];
        network.cuts.push((
            1,
            Cut {
                near,
                inward: false,
                outward: true,
            },
        ));
        assert_eq!(network.deliveries(Time::ZERO, 0, 2, 1), [None, None]);
        assert!(network.deliveries(Time::ZERO, 2, 0, 1)[0].is_some());
        assert!(network.deliveries(Time::ZERO, 0, 1, 1)[0].is_some());
    }

    #[test]
    fn loss_and_repetition_come_as_often_as_asked() {
        let mut network = network();
        network.loss = 0.3;
        network.twice = 0.1;
        let (mut lost, mut twice) = (0, 0);
        for _ in 0..10_000 {
            match network.deliveries(Time::ZERO, 0, 1, 1) {
                [None, _] => lost += 1,
                [_, Some(_)] => twice += 1,
                _ => {}
            }
        }
        assert!((2_800..3_200).contains(&lost), "{lost}");
        assert!((600..800).contains(&twice), "{twice}");
    }

    #[test]
    fn messages_wait_for_the_sender_and_the_receiver() {
        let mut network = network();
        network.latency = Latency::Uniform(Duration::ZERO, Duration::ZERO);
        network.bytes_per_second = 1_000;
        let second = |network: &mut Network, from, to| {
            let [arrival, _] = network.deliveries(Time::ZERO, from, to, 500);
            arrival.unwrap().as_secs_f64()
        };
        assert_eq!(second(&mut network, 0, 1), 0.5);
        assert_eq!(second(&mut network, 0, 2), 1.0, "after the first was sent");
        assert_eq!(
            second(&mut network, 3, 1),
            1.0,
            "after the first was received"
        );
        assert_eq!(second(&mut network, 3, 2), 1.5, "after both");
    }
}
