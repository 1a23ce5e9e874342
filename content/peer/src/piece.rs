//! Fetching a piece: ask for it, verify it, write it.

use crate::{Inner, error::Short, fetch::Event, lock, stream::MAX_PART_BYTES};
use maelstrom_content::LayerId;
use maelstrom_gossip::NodeId;
use maelstrom_pull::{BlobRange, BundleId, FetchError};
use maelstrom_transfer::{DecodeError, Decoder, Partial, TransferError, Writer, request};
use std::{
    io,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

/// What could not be decoded yet is shorter than this, in bytes: a leaf and some hashes.
const UNDECODED_BYTES: usize = 64 << 10;

/// Free buffers that are kept for the next piece.
const MAX_BUFFERS: usize = 16;

/// A provider that sends nothing for so long has failed.
pub(crate) const SILENCE: Duration = Duration::from_secs(15);

/// Buffers for what comes and goes.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    free: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// A buffer for a part of an answer and some more, with whatever is in it.
    pub(crate) fn take(&self) -> Vec<u8> {
        lock(&self.free)
            .pop()
            .unwrap_or_else(|| vec![0; UNDECODED_BYTES + MAX_PART_BYTES])
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
        let mut connection = self.connection(from).await.map_err(PieceError::lost)?;
        let stream = &mut connection.stream;
        stream.ask(&asked).await?;
        let mut buffer = self.buffers.take();
        let mut undecoded = 0;
        let mut complete = false;
        while let Some(filled) = stream.take_part(&mut buffer, undecoded, SILENCE).await? {
            self.counters.received(filled - undecoded);
            let decoded = write(&mut decoder, &buffer[..filled], partial)?;
            complete = decoded.complete;
            buffer.copy_within(decoded.used_bytes..filled, 0);
            undecoded = filled - decoded.used_bytes;
        }
        if !complete {
            return Err(PieceError::lost("it ended early"));
        }
        self.buffers.give_back(buffer);
        connection.answered();
        Ok(())
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
