//! When a machine with the policy `idle` is lent.

mod machine;
mod policy;

pub(crate) use policy::Reason;
use policy::{Policy, Sample};
use std::{
    path::Path,
    time::{Duration, Instant, SystemTime},
};

/// How often the machine is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How often the session manager is asked, which starts a program.
const ASK_EVERY: Duration = Duration::from_secs(15);

/// Looks at the machine from time to time, and decides.
#[derive(Debug)]
pub(crate) struct Watcher {
    policy: Policy,
    last: Option<Look>,
    asked: Option<(Instant, bool)>,
}

/// What had been used at some time, in clock ticks.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    all_ticks: u64,
    our_ticks: u64,
}

impl Watcher {
    pub(crate) fn new() -> Self {
        let mut watcher = Self {
            policy: Policy::default(),
            last: None,
            asked: None,
        };
        watcher.last = watcher.look();
        watcher
    }

    /// Why the machine is not to be lent now, if so.
    pub(crate) fn judge(&mut self) -> Option<Reason> {
        let look = self.look();
        let (since, others) = match (self.last, look) {
            (Some(before), Some(now)) => used_by_others(before, now),
            _ => (LOOK_EVERY, None),
        };
        self.last = look;
        let sample = Sample {
            others,
            processors: processors(),
            on_battery: machine::on_battery(Path::new("/sys/class/power_supply")),
            input_ago: machine::input_ago(Path::new("/dev"), SystemTime::now()),
            session_active: self.session_active(),
        };
        self.policy.judge(since, &sample)
    }

    fn look(&self) -> Option<Look> {
        let our_ticks = machine::ticks_of_tree(Path::new("/proc"), std::process::id());
        Some(Look {
            at: Instant::now(),
            all_ticks: machine::busy_ticks(&machine::stat().ok()?)?,
            our_ticks,
        })
    }

    fn session_active(&mut self) -> bool {
        match self.asked {
            Some((at, answer)) if at.elapsed() < ASK_EVERY => answer,
            _ => {
                let answer = machine::session_active().unwrap_or(false);
                self.asked = Some((Instant::now(), answer));
                answer
            }
        }
    }
}

/// How many processors others used between two looks.
fn used_by_others(before: Look, now: Look) -> (Duration, Option<f64>) {
    let since = now.at.saturating_duration_since(before.at);
    if since < Duration::from_millis(100) {
        return (since, None);
    }
    let all = now.all_ticks.saturating_sub(before.all_ticks);
    let ours = now.our_ticks.saturating_sub(before.our_ticks);
    let ticks = all.saturating_sub(ours) as f64;
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    (since, Some(ticks / per_second / since.as_secs_f64()))
}

fn processors() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_jobs_are_no_load() {
        let at = Instant::now();
        let per_second = rustix::param::clock_ticks_per_second();
        let before = Look {
            at,
            all_ticks: 1000,
            our_ticks: 500,
        };
        let look = |all: u64, ours: u64| Look {
            at: at + Duration::from_secs(5),
            all_ticks: 1000 + all * per_second,
            our_ticks: 500 + ours * per_second,
        };
        let used = |all, ours| used_by_others(before, look(all, ours)).1.unwrap();
        assert!((used(10, 10) - 0.0).abs() < 1e-9);
        assert!((used(10, 0) - 2.0).abs() < 1e-9);
        assert!((used(10, 5) - 1.0).abs() < 1e-9);
        // The two cannot be read at the same moment.
        assert!((used(10, 11) - 0.0).abs() < 1e-9);
        assert_eq!(used_by_others(before, before).1, None);
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let mut watcher = Watcher::new();
        // Whatever it says, it says it.
        let _ = watcher.judge();
        assert!(watcher.last.is_some());
    }
}
