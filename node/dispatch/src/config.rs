//! Times and bounds.

use std::time::Duration;

/// How a dispatcher behaves. The defaults suit a local network.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many unfinished jobs an origin accepts.
    pub max_jobs: usize,
    /// How many leases a node holds at most, and at most [`MAX_LEASES`](crate::message::MAX_LEASES).
    pub max_held: usize,
    /// Origin and executor give up on each other after this much silence.
    pub lease_time: Duration,
    /// An executor that has been silent for so long may stand still: where other nodes are idle,
    /// they run what it has not started. A few times [`holding_interval`](Self::holding_interval),
    /// and shorter than [`lease_time`](Self::lease_time).
    pub quiet_time: Duration,
    /// How often an executor tells an origin what it holds. A few times shorter than
    /// [`lease_time`](Self::lease_time).
    pub holding_interval: Duration,
    /// The first repetition of an unanswered message, where the round trip isn't known to take
    /// longer. Doubles with each repetition.
    pub retry_first: Duration,
    /// The longest time between repetitions.
    pub retry_longest: Duration,
    /// How often a request is repeated before it is given up.
    pub request_retries: u32,
    /// How often an executor with free slots looks for an origin with a queue by itself; doubles
    /// up to [`poll_longest`](Self::poll_longest) while it finds none.
    pub poll_first: Duration,
    /// See [`poll_first`](Self::poll_first).
    pub poll_longest: Duration,
    /// How long an origin waits before it wakes a node again.
    pub wake_interval: Duration,
    /// How many nodes an origin wakes at once.
    pub wake_burst: usize,
    /// An executor that hasn't been heard of this long after a revocation loses its unstarted
    /// leases.
    pub revoke_time: Duration,
    /// A job that runs this many times longer than estimated is run again elsewhere once the queue
    /// is empty.
    pub straggler_factor: u32,
    /// The shortest run that counts as too long.
    pub straggler_least: Duration,
    /// After how many lost or unable nodes a job is given up.
    pub attempts: usize,
    /// How long a job avoids a node that was unable to run it.
    pub avoid_time: Duration,
    /// What pulling a layer is taken to cost: bytes a second.
    pub pull_bytes_per_second: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            max_jobs: 1 << 22,
            max_held: crate::message::MAX_LEASES,
            lease_time: Duration::from_secs(6),
            quiet_time: Duration::from_millis(2500),
            holding_interval: Duration::from_secs(1),
            retry_first: Duration::from_millis(50),
            retry_longest: Duration::from_secs(2),
            request_retries: 4,
            poll_first: Duration::from_millis(100),
            poll_longest: Duration::from_secs(2),
            wake_interval: Duration::from_millis(250),
            wake_burst: 32,
            revoke_time: Duration::from_millis(500),
            straggler_factor: 3,
            straggler_least: Duration::from_secs(1),
            attempts: 3,
            avoid_time: Duration::from_secs(2),
            pull_bytes_per_second: 100_000_000,
        }
    }
}

/// When a node runs jobs of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lending {
    /// Always; its own jobs share its slots with theirs.
    Always,
    /// While its owner is away and it has no jobs of its own. Otherwise it hands jobs back.
    #[default]
    Idle,
    /// Never.
    Never,
}
