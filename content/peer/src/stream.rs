//! One connection, and how requests and answers follow each other on it.
//!
//! ```text
//! request   length as 4 bytes, little endian; so many bytes
//! answer    parts, each a length as 4 bytes and so many bytes; 0 after the last
//!           or 0xffff_ffff in place of a length: it is not here, or not given
//! ```
//!
//! The next request follows when an answer has come whole.

use crate::{
    piece::PieceError,
    tls::{Tls, node_of},
};
use maelstrom_gossip::NodeId;
use std::{io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsStream;

/// A part of an answer is no longer than this, in bytes.
pub(crate) const MAX_PART_BYTES: usize = 512 << 10;

/// How much is taken from the socket at a time, in bytes: the library that decrypts asks for a
/// few kilobytes only.
const SOCKET_BYTES: usize = 128 << 10;

/// How much is encrypted before it is sent.
const SEND_BYTES: Option<usize> = Some(256 << 10);

/// Who takes nothing for so long has failed.
const TAKES_WITHIN: Duration = Duration::from_secs(15);

/// Stands before each request and each part.
pub(crate) const LENGTH_BYTES: usize = 4;

const NOT_HERE: u32 = u32::MAX;

/// An encrypted connection with someone who has shown who they are.
#[derive(Debug)]
pub(crate) struct Stream {
    inner: TlsStream<BufReader<TcpStream>>,
}

impl Stream {
    /// The dialling side.
    pub(crate) async fn dialled(socket: TcpStream, tls: &Tls) -> io::Result<Stream> {
        let socket = BufReader::with_capacity(SOCKET_BYTES, socket);
        let inner = tls.connector.connect(Tls::server_name(), socket).await?;
        Ok(Stream::over(inner.into()))
    }

    /// The listening side.
    pub(crate) async fn accepted(socket: TcpStream, tls: &Tls) -> io::Result<Stream> {
        let socket = BufReader::with_capacity(SOCKET_BYTES, socket);
        let inner = tls.acceptor.accept(socket).await?;
        Ok(Stream::over(inner.into()))
    }

    fn over(mut inner: TlsStream<BufReader<TcpStream>>) -> Stream {
        match &mut inner {
            TlsStream::Client(stream) => stream.get_mut().1.set_buffer_limit(SEND_BYTES),
            TlsStream::Server(stream) => stream.get_mut().1.set_buffer_limit(SEND_BYTES),
        }
        Stream { inner }
    }

    /// Who is at the other end.
    pub(crate) fn node(&self) -> Option<NodeId> {
        let (_, session) = self.inner.get_ref();
        session.peer_certificates().and_then(|shown| match shown {
            [key] => node_of(key),
            _ => None,
        })
    }

    /// Whether the connection is open and the other side says nothing, as it should while it is
    /// not asked.
    pub(crate) fn is_quiet(&self) -> bool {
        let (socket, _) = self.inner.get_ref();
        let nothing = socket.get_ref().try_read(&mut [0]);
        socket.buffer().is_empty()
            && nothing.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends a request.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<(), PieceError> {
        let mut framed = Vec::with_capacity(LENGTH_BYTES + request.len());
        framed.extend_from_slice(&(request.len() as u32).to_le_bytes());
        framed.extend_from_slice(request);
        self.write(&framed).await
    }

    /// Receives a request of at most so many bytes; nothing if the other side has no more.
    pub(crate) async fn asked(&mut self, longest: usize) -> io::Result<Option<Vec<u8>>> {
        let mut length = [0; LENGTH_BYTES];
        match self.inner.read_exact(&mut length).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let length = u32::from_le_bytes(length) as usize;
        if length > longest {
            return Err(io::Error::other(format!("a request of {length} bytes")));
        }
        // What is only announced takes no memory.
        let mut request = Vec::new();
        let mut rest = (&mut self.inner).take(length as u64);
        rest.read_to_end(&mut request).await?;
        if request.len() < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(request))
    }

    /// Sends a part of an answer, in front of which [`LENGTH_BYTES`] bytes are free.
    pub(crate) async fn give(&mut self, part: &mut [u8]) -> Result<(), PieceError> {
        let length = (part.len() - LENGTH_BYTES) as u32;
        part[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        self.write(part).await
    }

    /// Ends an answer.
    pub(crate) async fn end_answer(&mut self) -> Result<(), PieceError> {
        self.write(&0_u32.to_le_bytes()).await
    }

    /// Says that there is no answer, or no more of it.
    pub(crate) async fn refuse(&mut self) -> Result<(), PieceError> {
        self.write(&NOT_HERE.to_le_bytes()).await
    }

    /// Receives a part of an answer behind the first `filled` bytes of a buffer, which has room
    /// for one. Returns how much it holds then; nothing if the answer has ended. Whoever says
    /// nothing for `wait` has failed.
    pub(crate) async fn take_part(
        &mut self,
        buffer: &mut [u8],
        filled: usize,
        wait: Duration,
    ) -> Result<Option<usize>, PieceError> {
        let mut length = [0; LENGTH_BYTES];
        self.read(&mut length, wait).await?;
        let length = match u32::from_le_bytes(length) {
            0 => return Ok(None),
            NOT_HERE => return Err(PieceError::NotHere),
            length => length as usize,
        };
        let part = (length <= MAX_PART_BYTES)
            .then(|| buffer.get_mut(filled..filled + length))
            .flatten()
            .ok_or_else(|| PieceError::lost("a part of its answer is too long"))?;
        self.read(part, wait).await?;
        Ok(Some(filled + length))
    }

    async fn read(&mut self, buffer: &mut [u8], wait: Duration) -> Result<(), PieceError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match timeout(wait, self.inner.read(&mut buffer[filled..])).await {
                Ok(Ok(0)) => return Err(PieceError::lost("it closed the connection")),
                Ok(Ok(read)) => filled += read,
                Ok(Err(error)) => return Err(PieceError::lost(error)),
                Err(_) => {
                    let seconds = wait.as_secs();
                    return Err(PieceError::lost(format!("it sent nothing for {seconds} s")));
                }
            }
        }
        Ok(())
    }

    async fn write(&mut self, mut bytes: &[u8]) -> Result<(), PieceError> {
        let late = |_| {
            let seconds = TAKES_WITHIN.as_secs();
            PieceError::lost(format!("it took nothing for {seconds} s"))
        };
        while !bytes.is_empty() {
            let write = timeout(TAKES_WITHIN, self.inner.write(bytes)).await;
            let written = write.map_err(late)?.map_err(PieceError::lost)?;
            bytes = &bytes[written..];
        }
        let flushed = timeout(TAKES_WITHIN, self.inner.flush()).await;
        flushed.map_err(late)?.map_err(PieceError::lost)
    }
}
