//! How quickly a membership works, and how much it may hold.

use std::{num::NonZeroU8, num::NonZeroUsize, time::Duration};

use foca::PeriodicParams;

/// How a [`Membership`](crate::Membership) behaves. Every node of a mesh should use the same.
#[derive(Clone, Debug)]
pub struct Config {
    /// How often each node probes one other.
    pub probe_period: Duration,
    /// How long a probed node may take to answer before others are asked to probe it too.
    pub probe_answer_within: Duration,
    /// How long a suspected node has to object, for each factor of ten in the number of nodes.
    /// It never has less than [`Self::suspicion_min`].
    pub suspicion_per_decade: Duration,
    /// The least time that a suspected node has to object.
    pub suspicion_min: Duration,
    /// How often news are passed on to three random nodes, while there are any.
    pub gossip_period: Duration,
    /// How often a node compares what it knows with a random other, in case a broadcast was
    /// lost. After a difference it compares again ten times sooner.
    pub sync_period: Duration,
    /// How often a node tries to reach two of the nodes that are down, in case a network
    /// partition has ended.
    pub retry_down_period: Duration,
    /// How long a node that is down stays known.
    pub forget_down_after: Duration,
    /// How many members, up and down together, are held at most. News of more are refused.
    pub max_members: usize,
    /// How many bytes a second each node should spend on passing on changed loads. With many
    /// nodes each tells its load more seldom, so that all together stay within this.
    pub load_bytes_per_second: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            probe_period: Duration::from_secs(1),
            probe_answer_within: Duration::from_millis(500),
            suspicion_per_decade: Duration::from_millis(2_500),
            suspicion_min: Duration::from_secs(3),
            gossip_period: Duration::from_millis(200),
            sync_period: Duration::from_secs(10),
            retry_down_period: Duration::from_secs(5),
            forget_down_after: Duration::from_secs(3_600),
            max_members: 65_536,
            load_bytes_per_second: 8 * 1_024,
        }
    }
}

/// The largest packet in bytes that foca builds, adverts included.
pub(crate) const MAX_PACKET_BYTES: usize = 1_400;

/// The shortest time between two tellings of a node's own load.
const LOAD_PERIOD_MIN: Duration = Duration::from_secs(1);

impl Config {
    /// How often each node passes on a piece of news, in a mesh of `members` nodes. A node
    /// is missed by all of them with a probability of about e^-transmissions.
    pub(crate) fn transmissions(members: usize) -> NonZeroU8 {
        let transmissions = 4.0 + 3.0 * decades(members);
        NonZeroU8::new(transmissions as u8).expect("at least four")
    }

    pub(crate) fn suspicion(&self, members: usize) -> Duration {
        self.suspicion_per_decade
            .mul_f64(decades(members))
            .max(self.suspicion_min)
    }

    /// How long a node waits between two tellings of its load, so that the loads of `members`
    /// nodes fit into [`Self::load_bytes_per_second`].
    pub(crate) fn load_period(&self, members: usize) -> Duration {
        let bytes_per_telling =
            (crate::wire::LOAD_BYTES + 2) as f64 * f64::from(Self::transmissions(members).get());
        let seconds =
            members as f64 * bytes_per_telling / f64::from(self.load_bytes_per_second.max(1));
        Duration::from_secs_f64(seconds).max(LOAD_PERIOD_MIN)
    }

    /// Foca's own settings in a mesh of `members` nodes.
    pub(crate) fn foca(&self, members: usize) -> foca::Config {
        let periodic = |frequency, count| {
            Some(PeriodicParams {
                frequency,
                num_members: NonZeroUsize::new(count).expect("not zero"),
            })
        };
        foca::Config {
            probe_period: self.probe_period,
            probe_rtt: self.probe_answer_within,
            num_indirect_probes: NonZeroUsize::new(3).expect("not zero"),
            max_transmissions: Self::transmissions(members),
            suspect_to_down_after: self.suspicion(members),
            remove_down_after: Some(self.forget_down_after),
            max_packet_size: NonZeroUsize::new(MAX_PACKET_BYTES).expect("not zero"),
            notify_down_members: true,
            periodic_announce: None,
            periodic_announce_to_down_members: periodic(self.retry_down_period, 2),
            periodic_gossip: periodic(self.gossip_period, 3),
        }
    }
}

fn decades(members: usize) -> f64 {
    (members.max(1) as f64).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_grow_with_the_mesh() {
        let config = Config::default();
        let table = [
            (0, 4, 3.0, 1.0),
            (10, 7, 3.0, 1.0),
            (50, 9, 4.247, 1.373),
            (1_000, 13, 7.5, 39.672),
            (10_000, 16, 10.0, 488.281),
        ];
        for (members, transmissions, suspicion_s, load_period_s) in table {
            assert_eq!(Config::transmissions(members).get(), transmissions);
            let suspicion = config.suspicion(members).as_secs_f64();
            assert!((suspicion - suspicion_s).abs() < 0.001, "{suspicion}");
            let period = config.load_period(members).as_secs_f64();
            assert!(
                (period - load_period_s).abs() < 0.001,
                "{members}: {period}"
            );
        }
    }
}
