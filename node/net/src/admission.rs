//! The first bytes of a connection: does the other side have the mesh key?
//!
//! libp2p's pre-shared key protector (pnet) encrypts everything with the key and does not check
//! anything: with another key the other side's bytes are noise, which the next protocol may take
//! for the start of something long and wait for the rest. So the dialler sends a fixed greeting
//! through the protector, and the listener answers only if that is what it reads. A dialler
//! without the key sees 24 random bytes and the end of the connection.
//!
//! A connection for bulk data, which the protector would slow down, begins with an opening that
//! follows from the key instead. It is handed over as it is: who opened it has yet to be found
//! out.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::core::ConnectedPoint;
use libp2p::pnet::{PnetConfig, PnetError, PnetOutput, PreSharedKey};
use libp2p::tcp::tokio::TcpStream;
use tokio::sync::mpsc;

use crate::NetConfig;
use crate::address::to_socket;
use crate::state::Shared;

const GREETING: [u8; 16] = *b"maelstrom mesh 1";
/// What the protector sends first.
const NONCE_BYTES: usize = 24;
/// How long to wait for the rest of an opening.
const REST_COMES_AFTER: Duration = Duration::from_millis(5);

/// Part of each error message about another mesh's node, by which it is told from other errors:
/// libp2p hands on only texts.
pub(crate) const OTHER_KEY: &str = "does not have this mesh's key";

/// Why a connection ended before it was authenticated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdmissionError {
    #[error("it {OTHER_KEY} (fingerprint {0}): it has another key, or none")]
    OtherKey(String),
    #[error("what it sent is not the start of a connection between nodes of a mesh")]
    Rubbish,
    #[error("it did not finish the handshake within {0} seconds")]
    Slow(u64),
    #[error("it closed the connection during the handshake")]
    Closed,
    #[error("it is for bulk data, and handed over")]
    Bulk,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Lets connections in that have the mesh key.
#[derive(Clone)]
pub(crate) struct Admission {
    key: PreSharedKey,
    fingerprint: String,
    opening: [u8; 16],
    bulk: Option<mpsc::Sender<tokio::net::TcpStream>>,
    shared: Arc<Shared>,
}

impl Admission {
    pub(crate) fn new(config: &NetConfig, shared: Arc<Shared>) -> Self {
        let key = &config.mesh_key;
        Self {
            key: PreSharedKey::new(key.of_connections()),
            fingerprint: key.fingerprint(),
            opening: key.opening_of_bulk(),
            bulk: config.bulk.clone(),
            shared,
        }
    }

    /// The connection inside the mesh key, once the other side has shown that it has the key.
    pub(crate) async fn admit(
        self,
        socket: TcpStream,
        point: ConnectedPoint,
    ) -> Result<PnetOutput<Counted<TcpStream>>, AdmissionError> {
        let limit = self.shared.timing.handshake;
        let handshake = async {
            let socket = match &self.bulk {
                Some(bulk) if point.is_listener() => self.divert(socket, bulk).await?,
                _ => socket,
            };
            self.handshake(socket, &point).await
        };
        let result = match tokio::time::timeout(limit, handshake).await {
            Ok(result) => result,
            Err(_) => Err(AdmissionError::Slow(limit.as_secs())),
        };
        if let Err(error) = &result
            && let Some(address) = to_socket(point.get_remote_address())
        {
            self.note(error, address, point.is_listener());
        }
        result
    }

    /// Hands a connection over that begins with the opening of bulk data; gives any other back
    /// untouched.
    async fn divert(
        &self,
        socket: TcpStream,
        bulk: &mpsc::Sender<tokio::net::TcpStream>,
    ) -> Result<TcpStream, AdmissionError> {
        let mut begin = [0; 16];
        loop {
            let seen = socket.0.peek(&mut begin).await?;
            if seen == 0 || begin[..seen] != self.opening[..seen] {
                return Ok(socket);
            }
            if seen == begin.len() {
                break;
            }
            tokio::time::sleep(REST_COMES_AFTER).await;
        }
        let mut socket = tokio::net::TcpStream::from(socket);
        tokio::io::AsyncReadExt::read_exact(&mut socket, &mut begin).await?;
        // With too many of them it is closed.
        let _ = bulk.try_send(socket);
        Err(AdmissionError::Bulk)
    }

    async fn handshake(
        &self,
        socket: TcpStream,
        point: &ConnectedPoint,
    ) -> Result<PnetOutput<Counted<TcpStream>>, AdmissionError> {
        let received = Arc::new(AtomicUsize::new(0));
        let socket = Counted {
            socket,
            received: received.clone(),
        };
        let ended = |error: io::Error| {
            use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
            if !matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof) {
                return AdmissionError::Io(error);
            }
            // A node that has dialled several addresses closes all but one connection, mostly
            // right after the protector's first bytes.
            match received.load(Ordering::Relaxed) {
                0 | NONCE_BYTES => AdmissionError::Closed,
                _ => AdmissionError::Rubbish,
            }
        };
        let other_key = || AdmissionError::OtherKey(self.fingerprint.clone());

        let mut socket = match PnetConfig::new(self.key).handshake(socket).await {
            Ok(socket) => socket,
            Err(PnetError::HandshakeError(error) | PnetError::IoError(error)) => {
                return Err(ended(error));
            }
        };
        let mut greeting = [0; GREETING.len()];
        if point.is_dialer() {
            socket.write_all(&GREETING).await.map_err(ended)?;
            socket.flush().await.map_err(ended)?;
            match socket.read_exact(&mut greeting).await.map_err(ended) {
                Ok(()) => {}
                // The listener has read the greeting, and has not answered.
                Err(AdmissionError::Closed) => return Err(other_key()),
                Err(error) => return Err(error),
            }
        } else {
            socket.read_exact(&mut greeting).await.map_err(ended)?;
        }
        if greeting != GREETING {
            return Err(other_key());
        }
        if point.is_listener() {
            socket.write_all(&GREETING).await.map_err(ended)?;
            socket.flush().await.map_err(ended)?;
        }
        Ok(socket)
    }

    fn note(&self, error: &AdmissionError, address: SocketAddr, is_listener: bool) {
        match error {
            AdmissionError::Bulk => {}
            AdmissionError::OtherKey(_) => self.shared.refused(address, &error.to_string()),
            AdmissionError::Rubbish | AdmissionError::Slow(_) if is_listener => {
                self.shared.refused(address, &error.to_string());
            }
            _ if is_listener => self.shared.lock().abandoned += 1,
            _ => {}
        }
    }
}

/// A socket that counts the first bytes that it receives.
pub(crate) struct Counted<S> {
    socket: S,
    received: Arc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.socket).poll_read(context, buffer);
        if let Poll::Ready(Ok(bytes)) = read
            && self.received.load(Ordering::Relaxed) <= NONCE_BYTES
        {
            self.received.fetch_add(bytes, Ordering::Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(context)
    }
}
