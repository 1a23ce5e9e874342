//! Frames between the processes of this crate: a little-endian `u32` length, then postcard.
//!
//! Both ends are the same program, started from the same memory, so there is no versioning. The
//! length is bounded all the same.

use rustix::io::{Errno, retry_on_intr};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io::{self, Read, Write},
    os::fd::BorrowedFd,
};

/// No frame is larger than this.
pub(crate) const FRAME_MAX_BYTES: usize = 1 << 30;

/// A file descriptor with blocking `Read` and `Write`.
pub(crate) struct Stream<'a>(pub(crate) BorrowedFd<'a>);

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(retry_on_intr(|| rustix::io::read(self.0, &mut *buffer))?)
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match retry_on_intr(|| rustix::net::send(self.0, buffer, rustix::net::SendFlags::NOSIGNAL))
        {
            Err(Errno::NOTSOCK) => Ok(retry_on_intr(|| rustix::io::write(self.0, buffer))?),
            other => Ok(other?),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes one frame, in one call where the kernel takes it.
pub(crate) fn write_frame<T: Serialize>(mut to: impl Write, value: &T) -> io::Result<()> {
    let mut frame = postcard::to_extend(value, vec![0; 4]).map_err(io::Error::other)?;
    let length = frame.len() - 4;
    if length > FRAME_MAX_BYTES {
        return Err(io::Error::other("message is too large"));
    }
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    to.write_all(&frame)
}

/// Reads one frame. `Ok(None)` is a clean end of the stream.
pub(crate) fn read_frame<T: DeserializeOwned>(mut from: impl Read) -> io::Result<Option<T>> {
    let mut header = [0; 4];
    let first = from.read(&mut header)?;
    if first == 0 {
        return Ok(None);
    }
    from.read_exact(&mut header[first..])?;
    let length = u32::from_le_bytes(header) as usize;
    if length > FRAME_MAX_BYTES {
        return Err(io::Error::other("message is too large"));
    }
    let mut frame = vec![0; length];
    from.read_exact(&mut frame)?;
    postcard::from_bytes(&frame)
        .map(Some)
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_way() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &("a".to_owned(), 7_u32)).unwrap();
        write_frame(&mut bytes, &("b".to_owned(), 8_u32)).unwrap();
        let mut from = bytes.as_slice();
        assert_eq!(
            read_frame(&mut from).unwrap(),
            Some(("a".to_owned(), 7_u32))
        );
        assert_eq!(
            read_frame(&mut from).unwrap(),
            Some(("b".to_owned(), 8_u32))
        );
        assert_eq!(read_frame::<(String, u32)>(&mut from).unwrap(), None);
    }

    #[test]
    fn a_torn_or_absurd_frame_is_an_error() {
        assert!(read_frame::<u32>([3, 0, 0, 0, 1].as_slice()).is_err());
        assert!(read_frame::<u32>([0xff; 8].as_slice()).is_err());
        assert!(read_frame::<u32>([1, 0].as_slice()).is_err());
    }
}
