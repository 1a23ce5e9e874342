//! A node's own clock, which may be ahead of others and run too fast or too slow.

use std::time::{Duration, Instant};

use super::Time;

/// How a node's clock relates to virtual time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: Instant,
    /// What it showed at the beginning.
    ahead: Duration,
    /// How many of its seconds pass in a second.
    rate: f64,
}

impl Clock {
    /// A clock that shows `ahead` more than others and runs at `rate`.
    pub fn new(base: Instant, ahead: Duration, rate: f64) -> Self {
        Self { base, ahead, rate }
    }

    /// What the clock shows at a moment.
    pub fn at(&self, time: Time) -> Instant {
        let passed = if self.rate == 1.0 {
            Duration::from_nanos(time.0)
        } else {
            Duration::from_nanos((time.0 as f64 * self.rate) as u64)
        };
        self.base + self.ahead + passed
    }

    /// The first moment at which the clock shows `instant` or later.
    pub fn when(&self, instant: Instant) -> Time {
        let passed = instant.saturating_duration_since(self.base + self.ahead);
        if self.rate == 1.0 {
            return Time(passed.as_nanos() as u64);
        }
        let mut time = Time((passed.as_nanos() as f64 / self.rate) as u64);
        while self.at(time) < instant {
            time.0 += 1 + (instant - self.at(time)).as_nanos() as u64 / 2;
        }
        time
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_timer_is_never_early(
            nanos in 0..u64::MAX / 1_000,
            ahead in 0..1_000_000_000_000u64,
            rate in 0.9..1.1f64,
        ) {
            let base = Instant::now();
            let clock = Clock::new(base, Duration::from_nanos(ahead), rate);
            let instant = base + Duration::from_nanos(nanos);
            let time = clock.when(instant);
            prop_assert!(clock.at(time) >= instant);
            let early = clock.at(time).saturating_duration_since(instant);
            prop_assert!(time == Time::ZERO || early < Duration::from_micros(100));
        }
    }
}
