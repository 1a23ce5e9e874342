//! Times and bounds.

use std::time::Duration;

/// How a node pulls and serves. The defaults suit a local network.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many nodes a pulling node tries to be linked to, for each bundle.
    pub links_wanted: usize,
    /// How many it is linked to at most.
    pub links_most: usize,
    /// How many pieces are asked for or being fetched at a time, for each bundle.
    pub in_flight: usize,
    /// How many of them from one provider where there are many.
    pub in_flight_each: usize,
    /// How many pieces are fetched twice at a time, once none is left to ask for.
    pub doubled: usize,
    /// How many pieces a node serves at a time, over all bundles.
    pub uploads: usize,
    /// How many asks wait for their turn, for each node that asks.
    pub waiting_each: usize,
    /// How often a link is told of new pieces, at most.
    pub have_interval: Duration,
    /// How often a link is told even where there is nothing new, while one of the two still pulls.
    pub alive_interval: Duration,
    /// A link that is silent for so long is given up.
    pub silence: Duration,
    /// How long until an unanswered message is repeated.
    pub retry: Duration,
    /// A fetch that takes longer than this, and longer than [`slow_factor`](Self::slow_factor)
    /// usual ones, is given to another provider.
    pub slow_least: Duration,
    /// See [`slow_least`](Self::slow_least).
    pub slow_factor: u32,
    /// After how many slow or broken fetches in a row a provider is left alone for a while.
    pub strikes: u32,
    /// That while.
    pub rest: Duration,
    /// How long a served piece occupies its upload when nobody says that it is over.
    pub upload_time: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            links_wanted: 16,
            links_most: 40,
            in_flight: 16,
            in_flight_each: 3,
            doubled: 4,
            uploads: 8,
            waiting_each: 16,
            have_interval: Duration::from_millis(50),
            alive_interval: Duration::from_secs(2),
            silence: Duration::from_secs(10),
            retry: Duration::from_millis(500),
            slow_least: Duration::from_secs(2),
            slow_factor: 8,
            strikes: 3,
            rest: Duration::from_secs(30),
            upload_time: Duration::from_secs(20),
        }
    }
}

/// How near a provider is: nearer ones are asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nearness {
    /// On the same machine.
    SameMachine,
    /// A neighbour that has the bundle, or some of it.
    Neighbour,
    /// Where the bundle comes from: asked only for what no one nearer is known to have.
    Origin,
}
