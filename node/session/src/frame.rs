//! Frames: a little-endian `u32` length, then postcard.

use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, Read};

/// The longest frame that a client sends: a container with a large environment, a job with many
/// arguments.
pub(crate) const MAX_REQUEST_BYTES: usize = 32 << 20;
/// The longest frame that a daemon sends: the outcome of a job with all its output.
pub(crate) const MAX_EVENT_BYTES: usize = 1 << 30;

/// A message as a frame, unless it is longer than `max_bytes`; then its length.
pub(crate) fn encode(message: &impl Serialize, max_bytes: usize) -> Result<Vec<u8>, usize> {
    // Only a message that cannot be counted beforehand fails to encode; there is none.
    let mut frame = postcard::to_extend(message, vec![0; 4]).map_err(|_| 0_usize)?;
    let length = frame.len() - 4;
    if length > max_bytes {
        return Err(length);
    }
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

/// Reads one message. `Ok(None)`: the stream ended between two.
pub(crate) fn read<T: DeserializeOwned>(
    from: &mut impl Read,
    max_bytes: usize,
) -> io::Result<Option<T>> {
    let mut header = [0; 4];
    let first = loop {
        match from.read(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    if first == 0 {
        return Ok(None);
    }
    from.read_exact(&mut header[first..])?;
    let length = u32::from_le_bytes(header) as usize;
    if length > max_bytes {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a message of {length} bytes, where {max_bytes} is the limit"),
        ));
    }
    // Grows with what arrives, so that a length alone takes no memory.
    let mut bytes = Vec::with_capacity(length.min(64 << 10));
    from.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    postcard::from_bytes(&bytes).map(Some).map_err(|error| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a message that cannot be read: {error}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back() {
        let mut bytes = encode(&("a".to_owned(), 7_u32), 100).expect("it fits");
        bytes.extend(encode(&("b".to_owned(), 8_u32), 100).expect("it fits"));
        let mut from = bytes.as_slice();
        assert_eq!(read(&mut from, 100).unwrap(), Some(("a".to_owned(), 7_u32)));
        assert_eq!(read(&mut from, 100).unwrap(), Some(("b".to_owned(), 8_u32)));
        assert_eq!(read::<(String, u32)>(&mut from, 100).unwrap(), None);
    }

    #[test]
    fn too_long_torn_and_absurd_ones_are_errors() {
        assert_eq!(encode(&vec![7_u8; 100], 100), Err(101));
        for bytes in [
            &[0xff; 8][..],
            &[3, 0, 0, 0, 1],
            &[1, 0],
            &[1, 0, 0, 0, 0xff],
        ] {
            let mut from = bytes;
            assert!(read::<u32>(&mut from, 100).is_err(), "{bytes:?}");
        }
    }
}
