//! Fetching a piece: ask for it, verify it, write it.

use crate::{Inner, blocking, error::Short, fetch::Event, lock};
use iroh::endpoint::{ReadError, RecvStream, VarInt};
use maelstrom_content::LayerId;
use maelstrom_gossip::NodeId;
use maelstrom_pull::{BlobRange, BundleId, FetchError};
use maelstrom_transfer::{DecodeError, Decoder, Partial, TransferError, Writer, request};
use std::{
    io,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

/// How much of an answer is gathered before it is verified and written, in bytes.
const PART_BYTES: usize = 512 << 10;

/// Free buffers that are kept for the next fetch.
const MAX_BUFFERS: usize = 16;

/// A provider that sends nothing for so long has failed.
const SILENCE: Duration = Duration::from_secs(15);

/// How a provider says that it does not have, or does not give, what was asked for.
pub(crate) const NOT_HERE: VarInt = VarInt::from_u32(4);

/// Buffers for what comes.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    free: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    pub(crate) fn take(&self) -> Vec<u8> {
        lock(&self.free)
            .pop()
            .unwrap_or_else(|| vec![0; PART_BYTES])
    }

    pub(crate) fn give_back(&self, buffer: Vec<u8>) {
        let mut free = lock(&self.free);
        if free.len() < MAX_BUFFERS {
            free.push(buffer);
        }
    }
}

/// Why a piece did not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PieceError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("it does not have it")]
    NotHere,
    #[error("{0}")]
    Lost(String),
}

impl PieceError {
    pub(crate) fn lost(error: impl std::fmt::Display) -> PieceError {
        PieceError::Lost(error.to_string())
    }
}

/// Fills the buffer behind its first `filled` bytes. Returns how much it holds then, and whether
/// the stream has ended.
pub(crate) async fn fill(
    stream: &mut RecvStream,
    buffer: &mut [u8],
    mut filled: usize,
    wait: Duration,
) -> Result<(usize, bool), PieceError> {
    while filled < buffer.len() {
        let read = tokio::time::timeout(wait, stream.read(&mut buffer[filled..])).await;
        match read {
            Ok(Ok(Some(read))) => filled += read,
            Ok(Ok(None)) => return Ok((filled, true)),
            Ok(Err(ReadError::Reset(NOT_HERE))) => return Err(PieceError::NotHere),
            Ok(Err(error)) => return Err(PieceError::lost(error)),
            Err(_) => {
                let seconds = wait.as_secs();
                return Err(PieceError::lost(format!("it sent nothing for {seconds} s")));
            }
        }
    }
    Ok((filled, false))
}

impl Inner {
    pub(crate) async fn fetch_piece(
        self: Arc<Self>,
        ticket: u64,
        from: NodeId,
        layer: LayerId,
        ranges: Vec<BlobRange>,
    ) {
        let partial = lock(&self.pulls)
            .get(&layer)
            .and_then(|pull| pull.partial());
        let result = match partial {
            Some(partial) => self.try_piece(from, &partial, ranges).await,
            None => Err(PieceError::lost("the pull has ended")),
        };
        lock(&self.fetches).remove(&ticket);
        let bundle = BundleId(*layer.as_bytes());
        let why = match result {
            Ok(()) => {
                self.with_puller(|puller, now| puller.fetched(now, bundle, ticket));
                return;
            }
            Err(PieceError::Decode(DecodeError::Sink(source))) => {
                let problem = TransferError::Io {
                    action: "write to",
                    path: self.directory.layer(layer),
                    source,
                };
                self.tell(bundle.0, Event::Failed(problem));
                FetchError::Lost
            }
            Err(PieceError::Decode(DecodeError::Bad(problem))) => {
                tracing::warn!(
                    "node {} sent bad data for layer {layer}: {problem}; it is not asked for \
                     this layer again",
                    Short(from)
                );
                self.counters.bad_pieces.fetch_add(1, Ordering::Relaxed);
                self.tell(bundle.0, Event::Bad(from));
                FetchError::BadData
            }
            Err(PieceError::NotHere) => FetchError::NotThere,
            Err(PieceError::Lost(problem)) => {
                tracing::debug!("a piece of layer {layer} from {}: {problem}", Short(from));
                FetchError::Lost
            }
        };
        self.with_puller(|puller, now| puller.fetch_failed(now, bundle, ticket, why));
    }

    async fn try_piece(
        self: &Arc<Self>,
        from: NodeId,
        partial: &Arc<Partial>,
        ranges: Vec<BlobRange>,
    ) -> Result<(), PieceError> {
        let ranges = partial.missing(ranges);
        if ranges.is_empty() {
            return Ok(());
        }
        let asked = request::ranges(partial.plan(), &ranges);
        let mut decoder = Decoder::new(partial.plan(), &ranges);
        let connection = self.connection(from).await.map_err(PieceError::lost)?;
        let (mut send, mut receive) = connection.open_bi().await.map_err(PieceError::lost)?;
        send.write_all(&asked).await.map_err(PieceError::lost)?;
        send.finish().map_err(PieceError::lost)?;
        let mut buffer = self.buffers.take();
        let mut filled = 0;
        loop {
            let before = filled;
            let ended;
            (filled, ended) = fill(&mut receive, &mut buffer, filled, SILENCE).await?;
            self.counters.received(filled - before);
            let partial = partial.clone();
            let decoded;
            (decoder, buffer, decoded) = blocking(move || {
                let decoded = write(&mut decoder, &buffer[..filled], &partial);
                (decoder, buffer, decoded)
            })
            .await;
            let decoded = decoded?;
            if decoded.complete {
                self.buffers.give_back(buffer);
                return Ok(());
            }
            if ended {
                return Err(PieceError::lost("it ended early"));
            }
            buffer.copy_within(decoded.used_bytes..filled, 0);
            filled -= decoded.used_bytes;
        }
    }
}

fn write(
    decoder: &mut Decoder,
    input: &[u8],
    partial: &Partial,
) -> Result<maelstrom_transfer::Decoded, DecodeError> {
    let mut writer = Writer::new(partial);
    let decoded = decoder.run(input, &mut writer);
    // What was right before something was wrong is kept.
    let flushed: io::Result<()> = writer.flush();
    let decoded = decoded?;
    flushed?;
    Ok(decoded)
}
