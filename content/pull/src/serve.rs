//! Whom this node gives which pieces.

use crate::{
    Body, BundleId, Puller,
    link::Link,
    uploads::{Active, Waiting},
};
use std::time::Instant;

impl<N: Copy + Ord> Puller<N> {
    /// The transport has finished serving a piece, or given up. Need not be called: the other node
    /// says so too.
    pub fn upload_ended(&mut self, now: Instant, node: N, bundle: BundleId, piece: usize) {
        if let Some(number) = self.uploads.number(node, bundle, piece as u32) {
            self.uploads.end(node, number);
            self.serve_next(now);
        }
    }

    /// Whether it was agreed to serve this piece to this node now.
    pub fn may_serve(&self, node: N, bundle: BundleId, piece: usize) -> bool {
        self.uploads.serves(node, bundle, piece as u32)
    }

    pub(crate) fn handle_ask(
        &mut self,
        now: Instant,
        bundle: BundleId,
        from: N,
        number: u64,
        pieces: Vec<u32>,
    ) {
        let Some(swarm) = self.swarms.get_mut(&bundle) else {
            return;
        };
        if !swarm.links.get(&from).is_some_and(Link::is_linked) {
            self.ignored.not_linked += 1;
            self.send(from, bundle, Body::Leave);
            return;
        }
        if let Some(active) = self.uploads.active(from, number) {
            self.send(
                from,
                bundle,
                Body::Serve {
                    number,
                    piece: active.piece,
                },
            );
            return;
        }
        let ask = Waiting {
            bundle,
            number,
            pieces,
        };
        if !self.uploads.add(from, ask, self.config.waiting_each) {
            self.send(from, bundle, Body::Refuse { number });
        }
        self.serve_next(now);
    }

    /// Serves whose turn it is, as long as there are uploads left: of what each asks for the piece
    /// that was given out the least, and of several the one it wants most.
    pub(crate) fn serve_next(&mut self, now: Instant) {
        while let Some((node, ask)) = self.uploads.next(self.config.uploads) {
            let Waiting {
                bundle,
                number,
                pieces,
            } = ask;
            let Some(swarm) = self.swarms.get_mut(&bundle) else {
                continue;
            };
            let here = pieces
                .iter()
                .copied()
                .filter(|&piece| swarm.mine.contains(piece as usize));
            let Some(piece) = here.min_by_key(|&piece| swarm.served[piece as usize]) else {
                self.send(node, bundle, Body::Refuse { number });
                continue;
            };
            let served = &mut swarm.served[piece as usize];
            *served = served.saturating_add(1);
            let bytes = swarm.layout.bytes(piece as usize);
            let until = now + self.config.upload_time;
            self.uploads.start(
                node,
                number,
                Active {
                    bundle,
                    piece,
                    until,
                },
                bytes,
            );
            self.send(node, bundle, Body::Serve { number, piece });
        }
    }
}
