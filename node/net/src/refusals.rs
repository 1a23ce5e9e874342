//! Who was refused and why, in bounded memory.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

/// The most machines that are remembered.
const MAX_REMEMBERED: usize = 1024;
/// A refusal is reported again after this long.
const REPORT_AGAIN_AFTER: Duration = Duration::from_secs(3600);
/// The most reports in that time, about one machine and about all.
const MAX_REPORTS_OF_MACHINE: usize = 8;
const MAX_REPORTS: usize = 256;

/// Connections from or to one machine that were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The other end of the last one.
    pub address: SocketAddr,
    /// Why the last one was refused.
    pub reason: String,
    /// How many there were.
    pub times: u64,
    /// When the last one was.
    pub last: SystemTime,
}

struct Entry {
    refusal: Refusal,
    at: Instant,
    reported: Vec<(String, Instant)>,
}

/// Remembers refusals by machine: each attempt comes from another port.
#[derive(Default)]
pub(crate) struct Refusals {
    by_machine: HashMap<IpAddr, Entry>,
    reports: usize,
    /// Since when `reports` are counted.
    counted_from: Option<Instant>,
}

impl Refusals {
    /// Notes a refusal, and says whether to report it.
    pub(crate) fn note(&mut self, address: SocketAddr, reason: &str, now: Instant) -> bool {
        let machine = machine(address.ip());
        if self.by_machine.len() >= MAX_REMEMBERED && !self.by_machine.contains_key(&machine) {
            let oldest = self.by_machine.iter().min_by_key(|(_, entry)| entry.at);
            let oldest = oldest.map(|(ip, _)| *ip);
            oldest.and_then(|ip| self.by_machine.remove(&ip));
        }
        let refusal = |times| Refusal {
            address,
            reason: reason.to_owned(),
            times,
            last: SystemTime::now(),
        };
        let entry = self.by_machine.entry(machine).or_insert_with(|| Entry {
            refusal: refusal(0),
            at: now,
            reported: Vec::new(),
        });
        entry.refusal = refusal(entry.refusal.times + 1);
        entry.at = now;
        let is_recent = |at: Instant| now.duration_since(at) < REPORT_AGAIN_AFTER;
        entry.reported.retain(|(_, at)| is_recent(*at));
        if entry.reported.iter().any(|(known, _)| known == reason)
            || entry.reported.len() >= MAX_REPORTS_OF_MACHINE
        {
            return false;
        }
        if !self.counted_from.is_some_and(is_recent) {
            self.counted_from = Some(now);
            self.reports = 0;
        }
        if self.reports >= MAX_REPORTS {
            return false;
        }
        self.reports += 1;
        entry.reported.push((reason.to_owned(), now));
        true
    }

    /// All that are remembered, the latest first.
    pub(crate) fn list(&self) -> Vec<Refusal> {
        let mut entries: Vec<_> = self.by_machine.values().collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.at));
        entries.iter().map(|entry| entry.refusal.clone()).collect()
    }
}

/// What stands for a machine: of IPv6 the network, since a machine has its addresses for free.
pub(crate) fn machine(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_report_for_a_machine_and_reason_in_an_hour() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        let at = |port| SocketAddr::from(([10, 0, 0, 9], port));
        assert!(refusals.note(at(1), "wrong key", now));
        assert!(!refusals.note(at(2), "wrong key", now));
        assert!(refusals.note(at(3), "rubbish", now));
        assert!(!refusals.note(at(2), "wrong key", now));
        assert!(!refusals.note(at(3), "rubbish", now + Duration::from_secs(3599)));
        assert!(refusals.note(at(4), "rubbish", now + Duration::from_secs(3600)));
        let list = refusals.list();
        assert_eq!(list.len(), 1);
        assert_eq!((list[0].times, list[0].address), (6, at(4)));
    }

    #[test]
    fn an_ipv6_network_is_one_machine() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        assert!(refusals.note("[fd00::1]:1".parse().unwrap(), "wrong key", now));
        assert!(!refusals.note("[fd00::2]:1".parse().unwrap(), "wrong key", now));
        assert!(refusals.note("[fd00:0:0:1::1]:1".parse().unwrap(), "wrong key", now));
    }

    #[test]
    fn memory_and_reports_are_bounded_and_the_oldest_goes_first() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        let at = |n: u32| SocketAddr::from((n.to_be_bytes(), 1));
        let reports = (0..3000)
            .filter(|n| refusals.note(at(*n), "rubbish", now + Duration::from_millis((*n).into())))
            .count();
        assert_eq!(reports, MAX_REPORTS);
        let list = refusals.list();
        assert_eq!(list.len(), MAX_REMEMBERED);
        assert_eq!(list[0].address, at(2999));
        assert_eq!(list[MAX_REMEMBERED - 1].address, at(3000 - 1024));
        let reports = (0..100)
            .filter(|n| refusals.note(at(2999), &n.to_string(), now))
            .count();
        assert_eq!(reports, 0);
    }
}
