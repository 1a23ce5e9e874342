//! A clock that counts sleep.

use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// Tells time as the cores want it: never back, and going on while the machine sleeps, so that a
/// laptop that wakes up knows that its leases are over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
    boot_time: Duration,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            start: Instant::now(),
            boot_time: boot_time(),
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.start + boot_time().saturating_sub(self.boot_time)
    }
}

/// Since the machine was switched on, sleep included.
fn boot_time() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}
