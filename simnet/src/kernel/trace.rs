//! What has happened: a hash over all of it, and the last of it in words.

use std::{collections::VecDeque, fmt};

use super::Time;

/// How many events are kept to be shown when something breaks.
const KEPT: usize = 40;

/// Takes note of every event.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    count: u64,
    last: VecDeque<Record>,
}

/// One event in few words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// When.
    pub time: Time,
    /// What.
    pub what: &'static str,
    /// Which node it happens to.
    pub node: u32,
    /// Which other node has to do with it, if any.
    pub other: Option<u32>,
    /// A number that tells it from others: a size, a job.
    pub detail: u64,
}

impl Trace {
    /// Takes note of an event.
    pub fn note(&mut self, record: Record) {
        let what = record
            .what
            .bytes()
            .fold(0u64, |word, byte| word.rotate_left(7) ^ u64::from(byte));
        let nodes = u64::from(record.node) << 32 | u64::from(record.other.unwrap_or(u32::MAX));
        for word in [record.time.0, what, nodes, record.detail] {
            self.hash = (self.hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        self.count += 1;
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(record);
    }

    /// A number that two runs share only if everything happened alike.
    pub fn hash(&self) -> u64 {
        self.hash ^ (self.hash >> 32)
    }

    /// How many events there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The last events, oldest first.
    pub fn last(&self) -> impl Iterator<Item = &Record> {
        self.last.iter()
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>14}  ", self.time.to_string())?;
        match self.other {
            Some(other) => write!(f, "{:>5} -> {:<5}", other, self.node)?,
            None => write!(f, "{:>14}", self.node)?,
        }
        write!(f, "  {} {}", self.what, self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_an_event_counts() {
        let record = Record {
            time: Time(1),
            what: "Ping",
            node: 2,
            other: Some(3),
            detail: 4,
        };
        let hash = |record: Record| {
            let mut trace = Trace::default();
            trace.note(record);
            trace.hash()
        };
        let changed = [
            Record {
                time: Time(2),
                ..record
            },
            Record {
                what: "Pong",
                ..record
            },
            Record { node: 3, ..record },
            Record {
                other: None,
                ..record
            },
            Record {
                detail: 5,
                ..record
            },
        ];
        assert_eq!(hash(record), hash(record));
        for other in changed {
            assert_ne!(hash(record), hash(other), "{other}");
        }
    }

    #[test]
    fn only_the_last_events_are_kept() {
        let mut trace = Trace::default();
        for time in 0..100 {
            trace.note(Record {
                time: Time(time),
                what: "tick",
                node: 0,
                other: None,
                detail: 0,
            });
        }
        assert_eq!(trace.count(), 100);
        assert_eq!(trace.last().next().unwrap().time, Time(60));
        assert_eq!(trace.last().count(), KEPT);
    }
}
