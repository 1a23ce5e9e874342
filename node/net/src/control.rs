//! What two nodes say to each other about their connection.

use bytes::{BufMut, Bytes, BytesMut};

use crate::agreement::{Accept, Hello};

/// The longest one, in bytes.
pub(crate) const MAX_CONTROL_BYTES: usize = 32;

/// One message about the connection itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Control {
    Hello(Hello),
    Accept(Accept),
    /// Asks for a sign of life.
    Ping,
    /// The sign of life.
    Pong,
    /// The dialler sends nothing more for now and would like to close the idle connection.
    MayClose,
    /// Agreed: nothing more comes.
    Close,
    /// Not agreed.
    Stay,
    /// Asks for word when all messages sent before this have been read.
    Flush,
    /// They have.
    Flushed,
}

impl Control {
    pub(crate) fn encode(self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(17);
        let numbered = |bytes: &mut BytesMut, kind, hello: Hello| {
            bytes.put_u8(kind);
            bytes.put_u64(hello.life);
            bytes.put_u64(hello.number);
        };
        match self {
            Self::Hello(hello) => numbered(&mut bytes, 1, hello),
            Self::Accept(accept) => numbered(&mut bytes, 2, accept.withdrawn),
            Self::Ping => bytes.put_u8(3),
            Self::Pong => bytes.put_u8(4),
            Self::MayClose => bytes.put_u8(5),
            Self::Close => bytes.put_u8(6),
            Self::Stay => bytes.put_u8(7),
            Self::Flush => bytes.put_u8(8),
            Self::Flushed => bytes.put_u8(9),
        }
        bytes.freeze()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let numbered = |rest: &[u8]| {
            let (life, rest) = rest.split_first_chunk()?;
            let number = rest.try_into().ok()?;
            Some(Hello {
                life: u64::from_be_bytes(*life),
                number: u64::from_be_bytes(number),
            })
        };
        match bytes {
            [1, rest @ ..] => Some(Self::Hello(numbered(rest)?)),
            [2, rest @ ..] => Some(Self::Accept(Accept {
                withdrawn: numbered(rest)?,
            })),
            [3] => Some(Self::Ping),
            [4] => Some(Self::Pong),
            [5] => Some(Self::MayClose),
            [6] => Some(Self::Close),
            [7] => Some(Self::Stay),
            [8] => Some(Self::Flush),
            [9] => Some(Self::Flushed),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rubbish_is_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            if let Some(control) = Control::decode(&bytes) {
                prop_assert_eq!(&control.encode()[..], &bytes[..]);
            }
        }

        #[test]
        fn numbers_are_kept(life: u64, number: u64) {
            let hello = Hello { life, number };
            for control in [Control::Hello(hello), Control::Accept(Accept { withdrawn: hello })] {
                prop_assert!(control.encode().len() <= MAX_CONTROL_BYTES);
                prop_assert_eq!(Control::decode(&control.encode()), Some(control));
            }
        }
    }

    #[test]
    fn all_kinds_are_kept() {
        use Control::{Close, Flush, Flushed, MayClose, Ping, Pong, Stay};
        for control in [Ping, Pong, MayClose, Close, Stay, Flush, Flushed] {
            assert_eq!(Control::decode(&control.encode()), Some(control));
        }
    }
}
