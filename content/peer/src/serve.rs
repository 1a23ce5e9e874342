//! Answering requests of members.

use crate::{
    Inner, blocking,
    error::Short,
    lock,
    piece::PieceError,
    stream::{LENGTH_BYTES, MAX_PART_BYTES, Stream},
};
use maelstrom_content::LayerId;
use maelstrom_gossip::NodeId;
use maelstrom_pull::BundleId;
use maelstrom_transfer::{
    Encoder, manifest_response,
    request::{Asked, MAX_REQUEST_BYTES},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::AbortHandle,
};

/// How many handshakes are under way at a time.
const MAX_HANDSHAKES: usize = 64;

/// How many connections of others there are.
const MAX_CONNECTIONS: usize = 512;

/// How many of them are of one member.
pub(crate) const MAX_CONNECTIONS_EACH: usize = 8;

/// How long a handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// How long a connection may be there without a request.
const ASKS_WITHIN: Duration = Duration::from_secs(60);

/// The connections that others opened.
#[derive(Debug, Default)]
pub(crate) struct Accepted {
    of: Mutex<HashMap<NodeId, Vec<AbortHandle>>>,
}

impl Accepted {
    /// Closes those of a node.
    pub(crate) fn close(&self, node: NodeId) {
        for task in lock(&self.of).remove(&node).into_iter().flatten() {
            task.abort();
        }
    }

    pub(crate) fn close_all(&self) {
        for task in lock(&self.of).drain().flat_map(|(_, tasks)| tasks) {
            task.abort();
        }
    }

    /// Takes note of another connection, unless there are too many.
    fn add(&self, node: NodeId, task: AbortHandle) -> bool {
        let mut of = lock(&self.of);
        of.retain(|_, tasks| {
            tasks.retain(|task| !task.is_finished());
            !tasks.is_empty()
        });
        let all: usize = of.values().map(Vec::len).sum();
        let tasks = of.entry(node).or_default();
        let fits = all < MAX_CONNECTIONS && tasks.len() < MAX_CONNECTIONS_EACH;
        if fits {
            tasks.push(task);
        }
        fits
    }
}

/// Serves all connections that come.
pub(crate) async fn accept(inner: Arc<Inner>, mut incoming: mpsc::Receiver<TcpStream>) {
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    while let Some(socket) = incoming.recv().await {
        // Those beyond the bound are closed.
        if let Ok(turn) = handshakes.clone().try_acquire_owned() {
            let welcomed = welcome(inner.clone(), socket, turn);
            inner.bulk.spawn(welcomed);
        }
    }
}

async fn welcome(inner: Arc<Inner>, socket: TcpStream, turn: OwnedSemaphorePermit) {
    // From here on it is driven by the threads that serve it.
    let moved = socket.into_std().and_then(TcpStream::from_std);
    let Ok(socket) = moved else { return };
    let handshake = Stream::accepted(socket, &inner.tls);
    let stream = match tokio::time::timeout(HANDSHAKE_WITHIN, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!("a handshake for layers: {error}");
            return;
        }
        Err(_) => return,
    };
    drop(turn);
    let Some(node) = stream.node().filter(|node| inner.members.contains(*node)) else {
        return;
    };
    let (begin, begins) = tokio::sync::oneshot::channel();
    let task = tokio::spawn({
        let inner = inner.clone();
        async move {
            if begins.await.is_ok() {
                inner.serve(node, stream).await;
            }
        }
    });
    if inner.accepted.add(node, task.abort_handle()) {
        let _ = begin.send(());
    }
}

impl Inner {
    async fn serve(self: &Arc<Self>, node: NodeId, mut stream: Stream) {
        loop {
            let asked = stream.asked(MAX_REQUEST_BYTES);
            let request = match tokio::time::timeout(ASKS_WITHIN, asked).await {
                Ok(Ok(Some(request))) => request,
                Ok(Err(error)) => {
                    tracing::debug!("a request of {}: {error}", Short(node));
                    return;
                }
                Ok(Ok(None)) | Err(_) => return,
            };
            if !self.members.contains(node) {
                return;
            }
            let result = match Asked::decode(&request) {
                Some(Asked::Manifest(layer)) => self.send_manifest(layer, &mut stream).await,
                Some(asked) => self.send_piece(node, &asked, &mut stream).await,
                None => Err(PieceError::NotHere),
            };
            let ended = match result {
                Ok(()) => stream.end_answer().await,
                Err(PieceError::NotHere) => stream.refuse().await,
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                tracing::debug!("not served to {}: {error}", Short(node));
                return;
            }
        }
    }

    async fn send_manifest(
        self: &Arc<Self>,
        layer: LayerId,
        stream: &mut Stream,
    ) -> Result<(), PieceError> {
        let shelf = self.prepare(layer).await.ok_or(PieceError::NotHere)?;
        let _turn = self.manifests.acquire().await.map_err(PieceError::lost)?;
        let response = blocking(move || manifest_response(shelf.plan().encoded())).await;
        let mut part = Vec::with_capacity(LENGTH_BYTES + response.len().min(MAX_PART_BYTES));
        for bytes in response.chunks(MAX_PART_BYTES) {
            part.clear();
            part.resize(LENGTH_BYTES, 0);
            part.extend_from_slice(bytes);
            self.give(stream, &mut part).await?;
        }
        Ok(())
    }

    async fn send_piece(
        self: &Arc<Self>,
        node: NodeId,
        asked: &Asked,
        stream: &mut Stream,
    ) -> Result<(), PieceError> {
        let shelf = asked
            .sequence()
            .and_then(|sequence| self.library.shelf_of(sequence))
            .ok_or(PieceError::NotHere)?;
        let layer = shelf.plan().id();
        let bundle = BundleId(*layer.as_bytes());
        let ranges = asked.ranges(shelf.plan()).ok_or(PieceError::NotHere)?;
        let piece = shelf.plan().piece_of(&ranges).ok_or(PieceError::NotHere)?;
        if !lock(&self.puller).may_serve(node, bundle, piece) {
            return Err(PieceError::NotHere);
        }
        let result = self.send_ranges(Encoder::new(shelf, ranges), stream).await;
        self.with_puller(|puller, now| puller.upload_ended(now, node, bundle, piece));
        if matches!(result, Err(PieceError::NotHere)) {
            self.lose(layer);
        }
        result
    }

    async fn send_ranges(
        self: &Arc<Self>,
        mut encoder: Encoder,
        stream: &mut Stream,
    ) -> Result<(), PieceError> {
        let mut part = self.buffers.take();
        loop {
            let end = LENGTH_BYTES + MAX_PART_BYTES;
            let filled = encoder.fill(&mut part[LENGTH_BYTES..end]);
            let filled = filled.map_err(|error| {
                tracing::warn!("cannot read what is asked for: {error}");
                PieceError::NotHere
            })?;
            if filled == 0 {
                self.buffers.give_back(part);
                return Ok(());
            }
            self.give(stream, &mut part[..LENGTH_BYTES + filled])
                .await?;
        }
    }

    async fn give(&self, stream: &mut Stream, part: &mut [u8]) -> Result<(), PieceError> {
        stream.give(part).await?;
        self.counters.sent(part.len());
        Ok(())
    }
}
