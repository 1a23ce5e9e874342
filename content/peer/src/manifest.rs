//! Fetching a manifest.

use crate::{
    Inner,
    piece::{PieceError, SILENCE},
    stream::MAX_PART_BYTES,
};
use bytes::Bytes;
use maelstrom_content::{LayerId, MAX_MANIFEST_BYTES};
use maelstrom_gossip::NodeId;
use maelstrom_transfer::{Decoder, Sink, TreeNode, request};
use std::{io, sync::Arc, time::Duration};

/// What could not be decoded yet is shorter than this, in bytes.
const UNDECODED_BYTES: usize = 64 << 10;

/// How long a node may take until it sends something: it may have to read the whole layer first.
const PREPARES_WITHIN: Duration = Duration::from_secs(120);

/// Verified bytes of one blob, which come in order.
struct Whole(Vec<u8>);

impl<'a> Sink<'a> for Whole {
    fn pair(&mut self, _: usize, _: TreeNode, _: &'a [u8; 64]) -> io::Result<()> {
        Ok(())
    }

    fn bytes(&mut self, _: usize, _: u64, bytes: &'a [u8]) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

impl Inner {
    /// Asks one node for the manifest of a layer.
    pub(crate) async fn fetch_manifest(
        self: &Arc<Self>,
        from: NodeId,
        layer: LayerId,
    ) -> Result<Bytes, PieceError> {
        let _turn = self.manifests.acquire().await.map_err(PieceError::lost)?;
        let mut connection = self.connection(from).await.map_err(PieceError::lost)?;
        let stream = &mut connection.stream;
        stream.ask(&request::manifest(layer)).await?;
        let mut decoder = Decoder::manifest(layer, MAX_MANIFEST_BYTES as u64);
        let mut whole = Whole(Vec::new());
        let mut buffer = vec![0; UNDECODED_BYTES + MAX_PART_BYTES];
        let mut undecoded = 0;
        let mut complete = false;
        let mut wait = PREPARES_WITHIN;
        while let Some(filled) = stream.take_part(&mut buffer, undecoded, wait).await? {
            wait = SILENCE;
            self.counters.received(filled - undecoded);
            let decoded = decoder.run(&buffer[..filled], &mut whole)?;
            complete = decoded.complete;
            buffer.copy_within(decoded.used_bytes..filled, 0);
            undecoded = filled - decoded.used_bytes;
        }
        if !complete {
            return Err(PieceError::lost("it ended early"));
        }
        connection.answered();
        Ok(whole.0.into())
    }
}
