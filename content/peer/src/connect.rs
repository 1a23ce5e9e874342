//! Connections to those who are asked.

use crate::{Inner, error::Short, lock};
use iroh::endpoint::{Connection, QuicTransportConfig, VarInt};
use maelstrom_gossip::NodeId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

/// How long connecting may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// A connection that is silent for so long is lost.
const SILENCE: Duration = Duration::from_secs(15);

/// How many requests a member may have open.
const MAX_REQUESTS: u32 = 32;

/// What may be on its way in one connection, in bytes. Sockets get 4 MiB of buffer on most
/// machines, a part of which is bookkeeping. More than fits there is lost whenever the receiver is
/// busy with what came before, and loss costs more than waiting. It is enough for 1 GB/s with
/// round trips of 2 ms.
const WINDOW_BYTES: u32 = 2 << 20;

/// The connections that this node opened.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: Mutex<HashMap<NodeId, Arc<Slot>>>,
}

/// The connection to one node; who comes while it is being opened waits.
type Slot = tokio::sync::Mutex<Option<Connection>>;

/// How connections behave on a local network.
pub(crate) fn transport() -> QuicTransportConfig {
    QuicTransportConfig::builder()
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_REQUESTS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES / 2))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(2 * u64::from(WINDOW_BYTES))
        .max_idle_timeout(SILENCE.try_into().ok())
        .build()
}

impl Connections {
    /// Closes the connection to a node.
    pub(crate) fn close(&self, node: NodeId) {
        let slot = lock(&self.open).remove(&node);
        if let Some(slot) = slot
            && let Ok(mut slot) = slot.try_lock()
            && let Some(connection) = slot.take()
        {
            connection.close(VarInt::from_u32(0), b"no longer a member");
        }
    }
}

impl Inner {
    /// The connection to a member, opened if need be.
    pub(crate) async fn connection(&self, node: NodeId) -> Result<Connection, String> {
        let slot = lock(&self.connections.open)
            .entry(node)
            .or_default()
            .clone();
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref()
            && connection.close_reason().is_none()
        {
            return Ok(connection.clone());
        }
        let Some(address) = self.members.address(node) else {
            lock(&self.connections.open).remove(&node);
            return Err(format!("{} is no member", Short(node)));
        };
        let connecting = self
            .endpoint
            .connect(address, maelstrom_transfer::request::ALPN);
        let connection = match tokio::time::timeout(CONNECT_WITHIN, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                return Err(format!("cannot connect to {}: {error:#}", Short(node)));
            }
            Err(_) => {
                let seconds = CONNECT_WITHIN.as_secs();
                return Err(format!("{} did not answer for {seconds} s", Short(node)));
            }
        };
        *slot = Some(connection.clone());
        Ok(connection)
    }
}
