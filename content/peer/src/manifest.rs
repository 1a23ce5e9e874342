//! Fetching a manifest.

use crate::{
    Inner,
    piece::{PieceError, fill},
};
use bytes::Bytes;
use maelstrom_content::{LayerId, MAX_MANIFEST_BYTES};
use maelstrom_gossip::NodeId;
use maelstrom_transfer::{Decoder, Sink, TreeNode, request};
use std::{io, sync::Arc, time::Duration};

/// How much is read at a time, in bytes.
const PART_BYTES: usize = 64 << 10;

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
        let connection = self.connection(from).await.map_err(PieceError::lost)?;
        let (mut send, mut receive) = connection.open_bi().await.map_err(PieceError::lost)?;
        let asked = request::manifest(layer);
        send.write_all(&asked).await.map_err(PieceError::lost)?;
        send.finish().map_err(PieceError::lost)?;
        let mut decoder = Decoder::manifest(layer, MAX_MANIFEST_BYTES as u64);
        let mut whole = Whole(Vec::new());
        let mut buffer = vec![0; PART_BYTES];
        let mut filled = 0;
        loop {
            let before = filled;
            let ended;
            (filled, ended) = fill(&mut receive, &mut buffer, filled, PREPARES_WITHIN).await?;
            self.counters.received(filled - before);
            let decoded = decoder.run(&buffer[..filled], &mut whole)?;
            if decoded.complete {
                return Ok(whole.0.into());
            }
            if ended && filled == 0 {
                return Err(PieceError::NotHere);
            }
            if ended {
                return Err(PieceError::lost("it ended early"));
            }
            buffer.copy_within(decoded.used_bytes..filled, 0);
            filled -= decoded.used_bytes;
        }
    }
}
