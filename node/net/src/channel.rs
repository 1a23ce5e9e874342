//! What kinds of messages there are, and their bounds.

/// A kind of message: each has a stream of its own in a connection, so that a long message of
/// one kind doesn't hold up another kind, and bounds of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Channel {
    /// Membership and adverts.
    Gossip,
    /// Votes and claims of the coordinator's election.
    Election,
    /// Jobs stolen, given back and cancelled, and their outcomes.
    Dispatch,
    /// Who has which pieces of a layer.
    Pull,
    /// Results that are known.
    Results,
}

/// How many channels there are.
pub(crate) const CHANNELS: usize = 5;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

impl Channel {
    /// All channels.
    pub const ALL: [Self; CHANNELS] = [
        Self::Gossip,
        Self::Election,
        Self::Dispatch,
        Self::Pull,
        Self::Results,
    ];

    /// The channel's short name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gossip => "gossip",
            Self::Election => "election",
            Self::Dispatch => "dispatch",
            Self::Pull => "pull",
            Self::Results => "results",
        }
    }

    /// The name and version by which two nodes agree on the channel.
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::Gossip => "/maelstrom/gossip/1",
            Self::Election => "/maelstrom/election/1",
            Self::Dispatch => "/maelstrom/dispatch/1",
            Self::Pull => "/maelstrom/pull/1",
            Self::Results => "/maelstrom/results/1",
        }
    }

    /// The longest message, in bytes. Whoever sends a longer one is banned.
    pub const fn max_message_bytes(self) -> usize {
        match self {
            Self::Gossip => 64 * KIB,
            Self::Election => 16 * KIB,
            Self::Dispatch => 16 * MIB,
            Self::Pull | Self::Results => MIB,
        }
    }

    /// How many bytes of messages may wait for one peer. What doesn't fit is dropped.
    pub const fn max_queue_bytes(self) -> usize {
        match self {
            Self::Gossip => 4 * MIB,
            Self::Election => 256 * KIB,
            Self::Dispatch => 64 * MIB,
            Self::Pull | Self::Results => 8 * MIB,
        }
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// What a queued message is counted as beyond its length, so that empty ones are bounded too.
pub(crate) const MESSAGE_OVERHEAD_BYTES: usize = 64;
