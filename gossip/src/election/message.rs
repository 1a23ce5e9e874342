//! What electors tell each other, and how it looks as bytes.

use bytes::BufMut;

use crate::{
    advert::Claim,
    wire::{self, Malformed, Reader},
};

/// What electors tell each other. Encoded it takes at most [`ElectionMessage::MAX_BYTES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ElectionMessage {
    /// The sender asks for a lease in this term.
    Request {
        /// The term that it stands for or holds.
        term: u64,
        /// Which of the sender's questions this is.
        round: u32,
        /// Whether it coordinates already and asks for a longer lease.
        elected: bool,
    },
    /// The sender grants the receiver the lease that it asked for.
    Grant {
        /// The term that was asked for.
        term: u64,
        /// Which question this answers.
        round: u32,
    },
    /// The sender grants nothing.
    Refuse {
        /// The highest term that it knows.
        term: u64,
        /// Who stands against it: the highest claim that the sender knows.
        known: Option<Claim>,
    },
    /// The sender gives its lease of this term back.
    Release {
        /// The term of the lease.
        term: u64,
    },
}

impl ElectionMessage {
    /// The longest encoded message.
    pub const MAX_BYTES: usize = 1 + 8 + 8 + 32;

    /// The message as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, term) = match self {
            Self::Request {
                elected: false,
                term,
                ..
            } => (0, term),
            Self::Request {
                elected: true,
                term,
                ..
            } => (1, term),
            Self::Grant { term, .. } => (2, term),
            Self::Refuse { known: None, term } => (3, term),
            Self::Refuse {
                known: Some(_),
                term,
            } => (4, term),
            Self::Release { term } => (5, term),
        };
        let mut bytes = vec![kind];
        bytes.put_u64_le(*term);
        match self {
            Self::Request { round, .. } | Self::Grant { round, .. } => bytes.put_u32_le(*round),
            Self::Refuse {
                known: Some(known), ..
            } => wire::put_claim(&mut bytes, *known),
            Self::Refuse { known: None, .. } | Self::Release { .. } => {}
        }
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let kind = reader.u8()?;
        let term = reader.u64()?;
        let message = match kind {
            0 | 1 => Self::Request {
                term,
                round: reader.u32()?,
                elected: kind == 1,
            },
            2 => Self::Grant {
                term,
                round: reader.u32()?,
            },
            3 => Self::Refuse { term, known: None },
            4 => Self::Refuse {
                term,
                known: Some(reader.claim()?),
            },
            5 => Self::Release { term },
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::NodeId;

    proptest! {
        #[test]
        fn messages_come_back(term: u64, round: u32, elected: bool, known: u64, node: [u8; 32]) {
            let claim = Claim { term: known, coordinator: NodeId::from_bytes(node) };
            for message in [
                ElectionMessage::Request { term, round, elected },
                ElectionMessage::Grant { term, round },
                ElectionMessage::Refuse { term, known: None },
                ElectionMessage::Refuse { term, known: Some(claim) },
                ElectionMessage::Release { term },
            ] {
                let bytes = message.encode();
                prop_assert!(bytes.len() <= ElectionMessage::MAX_BYTES);
                prop_assert_eq!(ElectionMessage::decode(&bytes), Ok(message));
            }
        }

        #[test]
        fn hostile_bytes_are_refused_without_panic(bytes: Vec<u8>) {
            if let Ok(message) = ElectionMessage::decode(&bytes) {
                prop_assert_eq!(message.encode(), bytes);
            }
        }
    }
}
