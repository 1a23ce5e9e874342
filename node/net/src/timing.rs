//! How long things may take.

use std::time::Duration;

/// How long things may take. Tests use shorter ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// From the first byte of a connection to an authenticated one, and from there to its first
    /// question; each.
    pub(crate) handshake: Duration,
    /// A connection that carries nothing for this long is closed by who dialled it.
    pub(crate) idle: Duration,
    /// The other side agrees to that if it has sent nothing for this long.
    pub(crate) consent: Duration,
    /// When what was sent is followed by silence for this long, a sign of life is asked for.
    pub(crate) ping: Duration,
    /// And after this long the connection is given up. Longer than TCP takes to get over a
    /// link that was cut for ten seconds.
    pub(crate) dead: Duration,
    /// How often a connection looks at the times above.
    pub(crate) tick: Duration,
    /// How long a peer that broke the rules is refused.
    pub(crate) ban: Duration,
    /// The first pause after a peer could not be reached; it doubles up to `redial_most`.
    pub(crate) redial: Duration,
    pub(crate) redial_most: Duration,
    /// The pause after a peer turned out to have another mesh key.
    pub(crate) redial_stranger: Duration,
    /// The first pause after an address to join could not be reached; it doubles up to
    /// `rejoin_most`.
    pub(crate) rejoin: Duration,
    pub(crate) rejoin_most: Duration,
    /// How long a node that stops goes on sending what is queued.
    pub(crate) linger: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            consent: Duration::from_secs(5),
            ping: Duration::from_secs(3),
            dead: Duration::from_secs(15),
            tick: Duration::from_secs(1),
            ban: Duration::from_secs(3600),
            redial: Duration::from_millis(200),
            redial_most: Duration::from_secs(5),
            redial_stranger: Duration::from_secs(60),
            rejoin: Duration::from_millis(500),
            rejoin_most: Duration::from_secs(15),
            linger: Duration::from_secs(1),
        }
    }
}

/// The pause after `failures` failures in a row: doubling, with a quarter more or less, so that
/// nodes that failed together don't try again together.
pub(crate) fn pause(first: Duration, most: Duration, failures: u32) -> Duration {
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(20));
    doubled.min(most).mul_f64(rand::random_range(0.75..1.25))
}
