//! Messages that were ignored, and why.

use std::fmt;

/// Why a message, or a part of one, was ignored. None of these does harm: networks repeat,
/// delay and reorder, and a peer may be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ignored {
    /// The sender is no live member.
    NotAMember,
    /// The sender is this node.
    FromMyself,
    /// It is from an earlier life of its sender.
    EarlierLife,
    /// It is for an earlier life of this node.
    ForEarlierLife,
    /// It passes a bound.
    TooLarge,
    /// A request older than one that was answered.
    OldRequest,
    /// A grant for no open request.
    UnaskedGrant,
    /// The sender speaks of a lease that another node holds.
    NotItsLease,
    /// An outcome of a job that has ended.
    LateOutcome,
    /// The driver speaks of a lease that isn't held.
    UnknownLease,
    /// More origins have work than this node keeps account of.
    TooManyOrigins,
}

const REASONS: [Ignored; 11] = [
    Ignored::NotAMember,
    Ignored::FromMyself,
    Ignored::EarlierLife,
    Ignored::ForEarlierLife,
    Ignored::TooLarge,
    Ignored::OldRequest,
    Ignored::UnaskedGrant,
    Ignored::NotItsLease,
    Ignored::LateOutcome,
    Ignored::UnknownLease,
    Ignored::TooManyOrigins,
];

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ignored::NotAMember => "the sender is no live member",
            Ignored::FromMyself => "the sender is this node",
            Ignored::EarlierLife => "from an earlier life of its sender",
            Ignored::ForEarlierLife => "for an earlier life of this node",
            Ignored::TooLarge => "it passes a bound",
            Ignored::OldRequest => "a request older than one that was answered",
            Ignored::UnaskedGrant => "a grant for no open request",
            Ignored::NotItsLease => "the lease is another node's",
            Ignored::LateOutcome => "an outcome of a job that has ended",
            Ignored::UnknownLease => "a lease that isn't held",
            Ignored::TooManyOrigins => "more origins have work than are kept account of",
        })
    }
}

/// How often each reason occurred.
#[derive(Clone, Debug, Default)]
pub struct IgnoredCounts([u64; REASONS.len()]);

impl IgnoredCounts {
    pub(crate) fn count(&mut self, reason: Ignored) {
        self.0[reason as usize] += 1;
    }

    /// How often this reason occurred.
    pub fn get(&self, reason: Ignored) -> u64 {
        self.0[reason as usize]
    }

    /// Every reason that occurred, with how often.
    pub fn iter(&self) -> impl Iterator<Item = (Ignored, u64)> + '_ {
        REASONS
            .into_iter()
            .zip(self.0)
            .filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_count() {
        for (index, reason) in REASONS.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            let mut counts = IgnoredCounts::default();
            counts.count(reason);
            assert_eq!(counts.iter().collect::<Vec<_>>(), [(reason, 1)]);
        }
    }
}
