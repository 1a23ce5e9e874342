//! Messages on a stream: four bytes of length, highest first, then the message.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::io::AsyncWrite;

const HEADER_BYTES: usize = 4;
/// Messages up to this length are written together; longer ones are not copied.
const COPIED_BYTES: usize = 8 << 10;
/// What is set aside for a message before its bytes arrive: a peer that announces much has to
/// send it before it costs memory.
const TRUSTED_BYTES: usize = 64 << 10;

/// Puts messages together from what arrives.
#[derive(Default)]
pub(crate) struct Reader {
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    body: Vec<u8>,
}

/// A message is longer than allowed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong {
    pub(crate) announced: usize,
}

impl Reader {
    /// Takes bytes off the front of `input`, up to the end of the next message.
    pub(crate) fn feed(
        &mut self,
        input: &mut &[u8],
        most: usize,
    ) -> Result<Option<Bytes>, TooLong> {
        if self.header_bytes < HEADER_BYTES {
            let missing = (HEADER_BYTES - self.header_bytes).min(input.len());
            let (head, rest) = input.split_at(missing);
            self.header[self.header_bytes..][..missing].copy_from_slice(head);
            self.header_bytes += missing;
            *input = rest;
            if self.header_bytes < HEADER_BYTES {
                return Ok(None);
            }
            let announced = self.length();
            if announced > most {
                return Err(TooLong { announced });
            }
            if input.len() >= announced {
                let (message, rest) = input.split_at(announced);
                *input = rest;
                self.header_bytes = 0;
                return Ok(Some(Bytes::copy_from_slice(message)));
            }
            self.body.reserve(announced.min(TRUSTED_BYTES));
        }
        let missing = (self.length() - self.body.len()).min(input.len());
        let (part, rest) = input.split_at(missing);
        self.body.extend_from_slice(part);
        *input = rest;
        if self.body.len() < self.length() {
            return Ok(None);
        }
        self.header_bytes = 0;
        Ok(Some(std::mem::take(&mut self.body).into()))
    }

    fn length(&self) -> usize {
        u32::from_be_bytes(self.header) as usize
    }
}

/// Messages on their way into a stream.
#[derive(Default)]
pub(crate) struct Writer {
    parts: VecDeque<Bytes>,
    needs_flush: bool,
}

impl Writer {
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty() && !self.needs_flush
    }

    /// Adds messages, each shorter than 4 GiB.
    pub(crate) fn add(&mut self, messages: impl IntoIterator<Item = Bytes>) {
        let mut together = BytesMut::new();
        for message in messages {
            together.put_u32(message.len() as u32);
            if message.len() <= COPIED_BYTES {
                together.put_slice(&message);
            } else {
                self.parts.push_back(together.split().freeze());
                self.parts.push_back(message);
            }
        }
        if !together.is_empty() {
            self.parts.push_back(together.freeze());
        }
    }

    /// Writes what there is. Ready once all of it is with the stream.
    pub(crate) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(part) = self.parts.front_mut() {
            match ready!(Pin::new(&mut *stream).poll_write(context, part)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => part.advance(written),
                Err(error) => return Poll::Ready(Err(error)),
            }
            self.needs_flush = true;
            if part.is_empty() {
                self.parts.pop_front();
            }
        }
        if self.needs_flush {
            ready!(Pin::new(stream).poll_flush(context))?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::task::Waker;

    /// A stream that takes as many bytes at a time as the test says, and now and then none.
    struct Narrow {
        written: Vec<u8>,
        widths: Vec<usize>,
        turn: usize,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let width = self.widths[self.turn % self.widths.len()].min(bytes.len());
            self.turn += 1;
            if width == 0 {
                return Poll::Pending;
            }
            self.written.extend_from_slice(&bytes[..width]);
            Poll::Ready(Ok(width))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    proptest! {
        #[test]
        fn messages_arrive_as_they_were_sent(
            lengths in proptest::collection::vec(prop_oneof![0..40usize, 8_000..20_000usize, 60_000..140_000usize], 0..12),
            mut widths in proptest::collection::vec(0..30_000usize, 1..8),
            cuts in proptest::collection::vec(1..50_000usize, 1..8),
        ) {
            widths.push(1000);
            let messages: Vec<Bytes> = lengths.iter().enumerate()
                .map(|(n, length)| Bytes::from(vec![n as u8; *length])).collect();
            let mut writer = Writer::default();
            writer.add(messages.clone());
            let mut stream = Narrow { written: Vec::new(), widths, turn: 0 };
            let mut context = Context::from_waker(Waker::noop());
            while writer.poll_write(&mut stream, &mut context).is_pending() {}
            prop_assert!(writer.is_empty());

            let mut reader = Reader::default();
            let mut read = Vec::new();
            let mut rest = &stream.written[..];
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (mut part, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                rest = after;
                while !part.is_empty() {
                    read.extend(reader.feed(&mut part, 200_000).unwrap());
                }
            }
            prop_assert_eq!(read, messages);
        }

        #[test]
        fn rubbish_makes_messages_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = Reader::default();
            let mut input = &bytes[..];
            while !input.is_empty() {
                match reader.feed(&mut input, 100) {
                    Ok(message) => prop_assert!(message.is_none_or(|m| m.len() <= 100)),
                    Err(TooLong { announced }) => { prop_assert!(announced > 100); break; }
                }
            }
        }
    }

    #[test]
    fn what_is_only_announced_takes_no_memory() {
        let mut reader = Reader::default();
        let most = 16 << 20;
        let mut input = &(most as u32).to_be_bytes()[..];
        assert_eq!(reader.feed(&mut input, most), Ok(None));
        assert!(reader.body.capacity() <= 2 * TRUSTED_BYTES);
        let mut input = &[0xff; 4][..];
        let announced = u32::MAX as usize;
        assert_eq!(
            Reader::default().feed(&mut input, most),
            Err(TooLong { announced })
        );
    }
}
