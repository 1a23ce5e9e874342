//! Whether the owner of a machine needs it: the decision, without the looking.

use std::{fmt, time::Duration};

/// Input counts as activity for this long.
const INPUT_COUNTS_FOR: Duration = Duration::from_secs(300);

/// Over which time processor use is averaged: a mail that arrives is no reason to hand jobs back,
/// and a build that waits for its disk no reason to take some.
const LOAD_AVERAGED_OVER: Duration = Duration::from_secs(15);

/// Others use the machine when they use more than this part of its processors, ...
const BUSY_ABOVE: f64 = 0.35;

/// ... and until they use less than this.
const QUIET_BELOW: f64 = 0.20;

/// What the machine looks like at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    /// How many processors others than this node's jobs have used since the last sample. `None`:
    /// unknown.
    pub(crate) others: Option<f64>,
    /// How many there are.
    pub(crate) processors: f64,
    /// Whether the machine runs on its battery.
    pub(crate) on_battery: bool,
    /// Since when nobody has typed on any terminal. `None`: there is none.
    pub(crate) input_ago: Option<Duration>,
    /// Whether the session manager says that somebody uses a session.
    pub(crate) session_active: bool,
}

/// Why a machine isn't lent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reason {
    /// It runs on its battery.
    Battery,
    /// Somebody has typed.
    Input {
        /// How long ago.
        ago: Duration,
    },
    /// Somebody uses a session.
    Session,
    /// Other programs need the processors.
    Load {
        /// How many of them, over the last while.
        used: f64,
        /// How many there are.
        processors: f64,
    },
    /// Nothing is known of the load yet.
    Starting,
}

impl Reason {
    /// Whether it is of the same kind.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Battery => f.write_str("the machine runs on its battery"),
            Reason::Input { ago } => {
                write!(f, "somebody typed on a terminal {} s ago", ago.as_secs())
            }
            Reason::Session => f.write_str("somebody uses a session on this machine"),
            Reason::Load { used, processors } => write!(
                f,
                "other programs use {used:.1} of {processors:.0} processors"
            ),
            Reason::Starting => f.write_str("the load is not known yet"),
        }
    }
}

/// Decides from sample to sample whether the owner needs the machine.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    /// The average of what others use, in processors.
    average: Option<f64>,
    busy: bool,
}

impl Policy {
    /// Why the machine is not to be lent now, if so. `since` is the time since the last sample.
    pub(crate) fn judge(&mut self, since: Duration, sample: &Sample) -> Option<Reason> {
        self.learn_load(since, sample);
        if sample.on_battery {
            return Some(Reason::Battery);
        }
        if let Some(ago) = sample.input_ago
            && ago < INPUT_COUNTS_FOR
        {
            return Some(Reason::Input { ago });
        }
        if sample.session_active {
            return Some(Reason::Session);
        }
        match self.average {
            None => Some(Reason::Starting),
            Some(used) if self.busy => Some(Reason::Load {
                used,
                processors: sample.processors,
            }),
            Some(_) => None,
        }
    }

    fn learn_load(&mut self, since: Duration, sample: &Sample) {
        let Some(others) = sample.others else { return };
        let weight = 1.0 - (-since.as_secs_f64() / LOAD_AVERAGED_OVER.as_secs_f64()).exp();
        let average = match self.average {
            None => others,
            Some(before) => before + (others - before) * weight,
        };
        self.average = Some(average);
        let part = average / sample.processors.max(1.0);
        let bound = if self.busy { QUIET_BELOW } else { BUSY_ABOVE };
        self.busy = part > bound;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STEP: Duration = Duration::from_secs(5);

    fn quiet() -> Sample {
        Sample {
            others: Some(0.1),
            processors: 4.0,
            on_battery: false,
            input_ago: None,
            session_active: false,
        }
    }

    fn using(processors: f64) -> Sample {
        Sample {
            others: Some(processors),
            ..quiet()
        }
    }

    #[test]
    fn a_quiet_machine_is_lent_from_the_first_look() {
        assert_eq!(Policy::default().judge(STEP, &quiet()), None);
    }

    #[test]
    fn each_reason_counts_alone() {
        let cases = [
            (
                Sample {
                    on_battery: true,
                    ..quiet()
                },
                "battery",
            ),
            (
                Sample {
                    input_ago: Some(Duration::from_secs(12)),
                    ..quiet()
                },
                "typed on a terminal 12 s ago",
            ),
            (
                Sample {
                    session_active: true,
                    ..quiet()
                },
                "session",
            ),
            (using(3.0), "other programs use 3.0 of 4 processors"),
            (
                Sample {
                    others: None,
                    ..quiet()
                },
                "not known yet",
            ),
        ];
        for (sample, expected) in cases {
            let reason = Policy::default().judge(STEP, &sample).expect(expected);
            assert!(reason.to_string().contains(expected), "{reason}");
        }
    }

    #[test]
    fn input_counts_for_five_minutes() {
        let at = |seconds| Sample {
            input_ago: Some(Duration::from_secs(seconds)),
            ..quiet()
        };
        let mut policy = Policy::default();
        assert!(policy.judge(STEP, &at(299)).is_some());
        assert_eq!(policy.judge(STEP, &at(300)), None);
        assert!(policy.judge(STEP, &at(0)).is_some());
    }

    #[test]
    fn a_peak_is_no_load() {
        let mut policy = Policy::default();
        assert_eq!(policy.judge(STEP, &quiet()), None);
        // All processors for five seconds.
        assert_eq!(policy.judge(STEP, &using(4.0)), None);
        assert_eq!(policy.judge(STEP, &quiet()), None);
    }

    #[test]
    fn a_load_is_noticed_within_fifteen_seconds_and_its_end_within_a_minute() {
        let mut policy = Policy::default();
        policy.judge(STEP, &quiet());
        let noticed = (1..20)
            .find(|_| policy.judge(STEP, &using(4.0)).is_some())
            .expect("it is noticed");
        assert!(noticed <= 3, "after {noticed} looks");
        for _ in 0..20 {
            policy.judge(STEP, &using(4.0));
        }
        let over = (1..30)
            .find(|_| policy.judge(STEP, &quiet()).is_none())
            .expect("it is over");
        assert!((3..=12).contains(&over), "after {over} looks");
    }

    #[test]
    fn what_is_between_the_bounds_changes_nothing() {
        let between = using(4.0 * (BUSY_ABOVE + QUIET_BELOW) / 2.0);
        let mut policy = Policy::default();
        policy.judge(STEP, &quiet());
        for _ in 0..100 {
            assert_eq!(policy.judge(STEP, &between), None);
        }
        for _ in 0..100 {
            policy.judge(STEP, &using(4.0));
        }
        for _ in 0..100 {
            assert!(policy.judge(STEP, &between).is_some());
        }
    }

    proptest! {
        /// However often and unevenly it looks: a steady load means one thing in the end.
        #[test]
        fn a_steady_load_is_judged_the_same_by_all(
            others in 0.0..8.0_f64,
            steps in proptest::collection::vec(1_u64..60_000, 200),
        ) {
            let part = others / 4.0;
            prop_assume!(!(QUIET_BELOW - 0.01..BUSY_ABOVE + 0.01).contains(&part));
            let mut policy = Policy::default();
            let mut last = None;
            for step in steps {
                last = policy.judge(Duration::from_millis(step), &using(others));
            }
            prop_assert_eq!(last.is_some(), part > BUSY_ABOVE);
        }
    }
}
