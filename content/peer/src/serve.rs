//! Answering requests of members.

use crate::{
    Inner, blocking,
    error::Short,
    lock,
    members::node_of,
    piece::{NOT_HERE, PieceError},
};
use iroh::endpoint::{Connection, Incoming, RecvStream, SendStream, VarInt};
use maelstrom_content::LayerId;
use maelstrom_gossip::NodeId;
use maelstrom_pull::BundleId;
use maelstrom_transfer::{
    Encoder, manifest_response,
    request::{Asked, MAX_REQUEST_BYTES},
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many handshakes are under way at a time.
const MAX_HANDSHAKES: usize = 64;

/// How long a handshake, or a request, may take to come.
const COMES_WITHIN: Duration = Duration::from_secs(10);

/// How much is read and encoded at a time, in bytes.
const PART_BYTES: usize = 256 << 10;

/// Closes the older of two connections of one member.
const REPLACED: VarInt = VarInt::from_u32(2);

/// The connections that others opened: one for each member.
type Accepted = Arc<std::sync::Mutex<HashMap<NodeId, Connection>>>;

/// Accepts connections until the endpoint is closed.
pub(crate) async fn accept(inner: Arc<Inner>) {
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let accepted = Accepted::default();
    while let Some(incoming) = inner.endpoint.accept().await {
        match handshakes.clone().try_acquire_owned() {
            Ok(turn) => {
                tokio::spawn(serve(inner.clone(), incoming, turn, accepted.clone()));
            }
            Err(_) => incoming.ignore(),
        }
    }
}

async fn serve(
    inner: Arc<Inner>,
    incoming: Incoming,
    turn: OwnedSemaphorePermit,
    accepted: Accepted,
) {
    let handshake = async { incoming.accept().ok()?.await.ok() };
    let Ok(Some(connection)) = tokio::time::timeout(COMES_WITHIN, handshake).await else {
        return;
    };
    drop(turn);
    let node = node_of(&connection);
    // The gate has seen to this; a member may have left since.
    if !inner.members.contains(node) {
        return;
    }
    if let Some(older) = lock(&accepted).insert(node, connection.clone()) {
        older.close(REPLACED, b"replaced by another connection");
    }
    while let Ok((send, receive)) = connection.accept_bi().await {
        if !inner.members.contains(node) {
            connection.close(REPLACED, b"no longer a member");
            break;
        }
        tokio::spawn(answer(inner.clone(), node, send, receive));
    }
    let mut accepted = lock(&accepted);
    if accepted
        .get(&node)
        .is_some_and(|latest| latest.stable_id() == connection.stable_id())
    {
        accepted.remove(&node);
    }
}

async fn answer(inner: Arc<Inner>, node: NodeId, mut send: SendStream, mut receive: RecvStream) {
    let request = receive.read_to_end(MAX_REQUEST_BYTES);
    let Ok(Ok(request)) = tokio::time::timeout(COMES_WITHIN, request).await else {
        let _ = send.reset(NOT_HERE);
        return;
    };
    let result = match Asked::decode(&request) {
        Some(asked) if asked.is_whole_blob() => {
            inner
                .send_manifest(LayerId::from_bytes(*asked.hash()), &mut send)
                .await
        }
        Some(asked) => inner.send_piece(node, &asked, &mut send).await,
        None => Err(PieceError::NotHere),
    };
    match result {
        Ok(()) => {
            let _ = send.finish();
        }
        Err(error) => {
            tracing::debug!("not served to {}: {error}", Short(node));
            let _ = send.reset(NOT_HERE);
        }
    }
}

impl Inner {
    async fn send_manifest(
        self: &Arc<Self>,
        layer: LayerId,
        send: &mut SendStream,
    ) -> Result<(), PieceError> {
        let shelf = self.prepare(layer).await.ok_or(PieceError::NotHere)?;
        let _turn = self.manifests.acquire().await.map_err(PieceError::lost)?;
        let response = blocking(move || manifest_response(shelf.plan().encoded())).await;
        self.send(send, response).await
    }

    async fn send_piece(
        self: &Arc<Self>,
        node: NodeId,
        asked: &Asked,
        send: &mut SendStream,
    ) -> Result<(), PieceError> {
        let shelf = self
            .library
            .shelf_of(asked.hash())
            .ok_or(PieceError::NotHere)?;
        let layer = shelf.plan().id();
        let bundle = BundleId(*layer.as_bytes());
        let ranges = asked.ranges(shelf.plan()).ok_or(PieceError::NotHere)?;
        let piece = shelf.plan().piece_of(&ranges).ok_or(PieceError::NotHere)?;
        if !lock(&self.puller).may_serve(node, bundle, piece) {
            return Err(PieceError::NotHere);
        }
        let result = self.send_ranges(Encoder::new(shelf, ranges), send).await;
        self.with_puller(|puller, now| puller.upload_ended(now, node, bundle, piece));
        if matches!(result, Err(PieceError::NotHere)) {
            self.lose(layer);
        }
        result
    }

    async fn send_ranges(
        self: &Arc<Self>,
        mut encoder: Encoder,
        send: &mut SendStream,
    ) -> Result<(), PieceError> {
        loop {
            let (part, more);
            (encoder, part, more) = blocking(move || {
                let mut part = Vec::with_capacity(PART_BYTES + (16 << 10));
                let more = encoder.fill(&mut part, PART_BYTES);
                (encoder, part, more)
            })
            .await;
            let more = more.map_err(|error| {
                tracing::warn!("cannot read what is asked for: {error}");
                PieceError::NotHere
            })?;
            self.send(send, part).await?;
            if !more {
                return Ok(());
            }
        }
    }

    async fn send(&self, stream: &mut SendStream, bytes: Vec<u8>) -> Result<(), PieceError> {
        let length = bytes.len();
        stream
            .write_chunk(bytes.into())
            .await
            .map_err(PieceError::lost)?;
        self.counters.sent(length);
        Ok(())
    }
}
