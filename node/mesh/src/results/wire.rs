//! What nodes say to each other of results.
//!
//! Every message is as hostile as its sender: it is read within bounds, and what passes them is
//! told from what an honest node could have sent.

use bytes::Bytes;
use maelstrom_net::Channel;
use maelstrom_node::{MAX_SHARED_KEYS, MAX_SHARED_RESULT_BYTES, ResultKey};
use serde::{Deserialize, Serialize};

/// Results go into messages of so many bytes, unless one alone is longer.
const BATCH_BYTES: usize = 256 << 10;

/// What starts a batch that is nearly full still fits.
const _: () =
    assert!(BATCH_BYTES + MAX_SHARED_RESULT_BYTES + 1024 < Channel::Results.max_message_bytes());

/// What a result takes in a message besides its bytes, at most.
const OVERHEAD_BYTES: usize = 48;

/// How many bytes of results answer one question.
pub(crate) const MAX_ANSWER_BYTES: usize = 4 << 20;

/// A message about results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Message {
    /// Which of these are known?
    Question { number: u64, keys: Vec<ResultKey> },
    /// Some of them, by their places in the question.
    Answer {
        number: u64,
        results: Vec<(u32, Vec<u8>)>,
        /// Nothing more comes.
        last: bool,
    },
    /// Results that the receiver may want to keep.
    Offer { results: Vec<(ResultKey, Vec<u8>)> },
}

/// Why a message is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Rubbish {
    /// It cannot be read.
    #[error("it sent a message about results that makes no sense")]
    Malformed,
    /// More keys than may be asked for.
    #[error("it asked for {0} results at once, more than {MAX_SHARED_KEYS}")]
    Keys(usize),
    /// A result that is too long.
    #[error("it sent a result of {0} bytes, more than {MAX_SHARED_RESULT_BYTES}")]
    Long(usize),
    /// An answer to what was not asked.
    #[error("it answered with a result that was not asked for")]
    Place,
    /// Bytes that are no result.
    #[error("it offered a result that is none")]
    Result,
}

impl Message {
    /// For [`decode`](Self::decode).
    pub(crate) fn encode(&self) -> Bytes {
        // Fails only for types that cannot be counted beforehand.
        postcard::to_stdvec(self).unwrap_or_default().into()
    }

    /// Reads a message of a peer.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Rubbish> {
        let message = postcard::from_bytes(bytes).map_err(|_| Rubbish::Malformed)?;
        let longest = match &message {
            Self::Question { keys, .. } if keys.len() > MAX_SHARED_KEYS => {
                return Err(Rubbish::Keys(keys.len()));
            }
            Self::Question { .. } => 0,
            Self::Answer { results, .. } => longest(results.iter().map(|(_, bytes)| bytes)),
            Self::Offer { results } => longest(results.iter().map(|(_, bytes)| bytes)),
        };
        if longest > MAX_SHARED_RESULT_BYTES {
            return Err(Rubbish::Long(longest));
        }
        Ok(message)
    }
}

fn longest<'a>(results: impl Iterator<Item = &'a Vec<u8>>) -> usize {
    results.map(Vec::len).max().unwrap_or(0)
}

/// What answers a question: at most [`MAX_ANSWER_BYTES`] in as many messages as that takes.
pub(crate) fn answers(number: u64, found: Vec<Option<Vec<u8>>>) -> Vec<Message> {
    let mut left = MAX_ANSWER_BYTES;
    let results = (0_u32..).zip(found).filter_map(|(place, bytes)| {
        let bytes = bytes.filter(|bytes| bytes.len() <= MAX_SHARED_RESULT_BYTES)?;
        left = left.checked_sub(bytes.len())?;
        Some((place, bytes))
    });
    let mut batches = batches(results.collect());
    let end = batches.pop().unwrap_or_default();
    let answer = |results, last| Message::Answer {
        number,
        results,
        last,
    };
    let mut messages: Vec<Message> = batches
        .into_iter()
        .map(|some| answer(some, false))
        .collect();
    messages.push(answer(end, true));
    messages
}

/// Results in portions that fit into a message each. Those that are too long are left out.
pub(crate) fn batches<K>(results: Vec<(K, Vec<u8>)>) -> Vec<Vec<(K, Vec<u8>)>> {
    let mut batches: Vec<Vec<(K, Vec<u8>)>> = Vec::new();
    let mut bytes = BATCH_BYTES;
    for (key, result) in results {
        if result.len() > MAX_SHARED_RESULT_BYTES {
            continue;
        }
        let length = result.len() + OVERHEAD_BYTES;
        if bytes + length > BATCH_BYTES {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += length;
        if let Some(batch) = batches.last_mut() {
            batch.push((key, result));
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> ResultKey {
        ResultKey::new([n; 16], [n; 16])
    }

    #[test]
    fn messages_come_back_and_rubbish_does_not() {
        let messages = [
            Message::Question {
                number: 7,
                keys: vec![key(1), key(2)],
            },
            Message::Answer {
                number: 7,
                results: vec![(1, b"passed".to_vec())],
                last: true,
            },
            Message::Offer {
                results: vec![(key(3), b"passed".to_vec())],
            },
        ];
        for message in messages {
            let bytes = message.encode();
            assert_eq!(Message::decode(&bytes), Ok(message));
            for end in 0..bytes.len() {
                assert_eq!(Message::decode(&bytes[..end]), Err(Rubbish::Malformed));
            }
        }
        for bytes in [&[0xee; 300][..], &[0, 0, 255, 255, 255, 255, 15]] {
            assert_eq!(Message::decode(bytes), Err(Rubbish::Malformed));
        }
    }

    #[test]
    fn what_passes_a_bound_is_refused() {
        let many = Message::Question {
            number: 0,
            keys: vec![key(0); MAX_SHARED_KEYS + 1],
        };
        let refused = Message::decode(&many.encode());
        assert_eq!(refused, Err(Rubbish::Keys(MAX_SHARED_KEYS + 1)));
        let long = Message::Offer {
            results: vec![(key(0), vec![0; MAX_SHARED_RESULT_BYTES + 1])],
        };
        let refused = Message::decode(&long.encode());
        assert_eq!(refused, Err(Rubbish::Long(MAX_SHARED_RESULT_BYTES + 1)));
    }

    #[test]
    fn answers_fit_into_messages_and_end() {
        let found = (0..100_usize).map(|n| match n % 3 {
            0 => None,
            1 => Some(vec![1; n * 3000]),
            _ => Some(vec![1; 100]),
        });
        let messages = answers(1, found.collect());
        let mut places = Vec::new();
        let mut total = 0;
        for (at, message) in messages.iter().enumerate() {
            let bytes = message.encode();
            assert!(bytes.len() < Channel::Results.max_message_bytes());
            total += bytes.len();
            let Ok(Message::Answer { results, last, .. }) = Message::decode(&bytes) else {
                panic!("{message:?}");
            };
            assert_eq!(last, at + 1 == messages.len());
            places.extend(results.iter().map(|(place, _)| *place));
        }
        assert!(places.is_sorted() && places.len() > 40 && !places.contains(&0));
        // The longest are left out, and what is too much altogether.
        assert!(!places.contains(&97) && total < MAX_ANSWER_BYTES + (1 << 16));
        let none = answers(1, vec![None; 3]);
        assert!(matches!(&none[..], [Message::Answer { last: true, .. }]));
    }
}
