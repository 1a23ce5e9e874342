//! Secrets and tickets as one pasteable word: a prefix, then bytes and a checksum in base 32.

use data_encoding::{Encoding, Specification};
use std::sync::LazyLock;

const CHECKSUM_BYTES: usize = 4;

/// RFC 4648's alphabet in small letters without padding; capital letters are read too.
static BASE_32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification
        .symbols
        .push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification
        .translate
        .from
        .push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    specification
        .translate
        .to
        .push_str("abcdefghijklmnopqrstuvwxyz");
    specification.encoding().expect("the alphabet is valid")
});

/// Why a text isn't a key or a ticket. None of these show any of the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Nothing but white space.
    #[error("{0} was expected, and there is nothing")]
    Empty(&'static str),
    /// Something that starts differently.
    #[error("{what} starts with {prefix:?}, and this does not{hint}")]
    Prefix {
        /// What was expected.
        what: &'static str,
        /// How that starts.
        prefix: &'static str,
        /// What it seems to be instead, after a semicolon; or nothing.
        hint: &'static str,
    },
    /// A character that base 32 doesn't have.
    #[error(
        "character {position} of {what} is not a letter or one of the digits 2 to 7: \
         copy it again, as one word"
    )]
    Character {
        /// What was expected.
        what: &'static str,
        /// Which character, from 1.
        position: usize,
    },
    /// Too short, too long, or with a typing mistake.
    #[error("{0} is damaged: a part is missing or mistyped; copy it again, whole")]
    Damaged(&'static str),
    /// Longer than any ticket.
    #[error("{what} has at most {most} characters, and this is longer")]
    TooLong {
        /// What was expected.
        what: &'static str,
        /// The bound.
        most: usize,
    },
}

/// The longest text that is looked at, in bytes.
const MAX_TEXT_BYTES: usize = 1024;

/// A kind of text.
pub(crate) struct Kind {
    /// With an article, for error messages.
    pub(crate) what: &'static str,
    pub(crate) prefix: &'static str,
}

pub(crate) const NODE_KEY: Kind = Kind {
    what: "a node key",
    prefix: "maelstromnode1",
};
pub(crate) const MESH_KEY: Kind = Kind {
    what: "a mesh key",
    prefix: "maelstromkey1",
};
pub(crate) const TICKET: Kind = Kind {
    what: "a ticket",
    prefix: "maelstrom1",
};

impl Kind {
    pub(crate) fn encode(&self, bytes: &[u8]) -> String {
        let mut whole = bytes.to_vec();
        whole.extend_from_slice(&self.checksum(bytes));
        format!("{}{}", self.prefix, BASE_32.encode(&whole))
    }

    pub(crate) fn decode(&self, text: &str) -> Result<Vec<u8>, TextError> {
        let what = self.what;
        let text = text.trim();
        if text.is_empty() {
            return Err(TextError::Empty(what));
        }
        if text.len() > MAX_TEXT_BYTES {
            return Err(TextError::TooLong {
                what,
                most: MAX_TEXT_BYTES,
            });
        }
        let Some(rest) = self.after_prefix(text) else {
            return Err(TextError::Prefix {
                what,
                prefix: self.prefix,
                hint: seems(text),
            });
        };
        let is_base_32 = |c: char| c.is_ascii_alphabetic() || ('2'..='7').contains(&c);
        if let Some(at) = rest.chars().position(|c| !is_base_32(c)) {
            return Err(TextError::Character {
                what,
                position: self.prefix.len() + at + 1,
            });
        }
        let damaged = TextError::Damaged(what);
        let Ok(mut bytes) = BASE_32.decode(rest.as_bytes()) else {
            return Err(damaged);
        };
        let Some(end) = bytes.len().checked_sub(CHECKSUM_BYTES) else {
            return Err(damaged);
        };
        if self.checksum(&bytes[..end]) != bytes[end..] {
            return Err(damaged);
        }
        bytes.truncate(end);
        Ok(bytes)
    }

    fn after_prefix<'a>(&self, text: &'a str) -> Option<&'a str> {
        let head = text.get(..self.prefix.len())?;
        head.eq_ignore_ascii_case(self.prefix)
            .then(|| &text[self.prefix.len()..])
    }

    fn checksum(&self, bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.prefix.as_bytes());
        hasher.update(bytes);
        let mut checksum = [0; CHECKSUM_BYTES];
        checksum.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM_BYTES]);
        checksum
    }
}

/// What a text with an unexpected prefix is instead.
fn seems(text: &str) -> &'static str {
    if NODE_KEY.after_prefix(text).is_some() {
        "; it is a node's own key, which nobody else needs"
    } else if MESH_KEY.after_prefix(text).is_some() {
        "; it is a mesh key"
    } else if TICKET.after_prefix(text).is_some() {
        "; it is a ticket"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for kind in [NODE_KEY, MESH_KEY, TICKET] {
                let text = kind.encode(&bytes);
                prop_assert_eq!(kind.decode(&text).unwrap(), bytes.clone());
                prop_assert_eq!(kind.decode(&format!(" {}\n", text.to_uppercase())).unwrap(), bytes.clone());
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
            for kind in [NODE_KEY, MESH_KEY, TICKET] {
                let _ = kind.decode(&text);
                let _ = kind.decode(&format!("{}{text}", kind.prefix));
            }
        }

        #[test]
        fn one_wrong_character_is_noticed(
            bytes in proptest::collection::vec(any::<u8>(), 1..60), at in any::<prop::sample::Index>(),
            by in 1..32usize,
        ) {
            let symbols = b"abcdefghijklmnopqrstuvwxyz234567";
            let text = MESH_KEY.encode(&bytes);
            let at = MESH_KEY.prefix.len() + at.index(text.len() - MESH_KEY.prefix.len());
            let mut wrong = text.into_bytes();
            let old = symbols.iter().position(|symbol| *symbol == wrong[at]).unwrap();
            wrong[at] = symbols[(old + by) % 32];
            let wrong = String::from_utf8(wrong).unwrap();
            prop_assert_eq!(MESH_KEY.decode(&wrong), Err(TextError::Damaged("a mesh key")));
        }
    }

    #[test]
    fn errors_say_what_to_do_and_show_nothing_secret() {
        let key = MESH_KEY.encode(&[7; 32]);
        let cases = [
            (
                TICKET.decode(" "),
                "a ticket was expected, and there is nothing",
            ),
            (
                TICKET.decode(&key),
                "a ticket starts with \"maelstrom1\", and this does not; it is a mesh key",
            ),
            (
                MESH_KEY.decode("hello"),
                "a mesh key starts with \"maelstromkey1\", and this does not",
            ),
            (
                MESH_KEY.decode("maelstromkey1ab cd"),
                "character 16 of a mesh key is not a letter or one of the digits 2 to 7: \
                 copy it again, as one word",
            ),
            (
                MESH_KEY.decode(&key[..key.len() - 1]),
                "a mesh key is damaged: a part is missing or mistyped; copy it again, whole",
            ),
            (
                MESH_KEY.decode(&"x".repeat(2000)),
                "a mesh key has at most 1024 characters, and this is longer",
            ),
        ];
        for (result, message) in cases {
            assert_eq!(result.unwrap_err().to_string(), message);
        }
    }
}
