//! What is going on, for people.

use crate::{Inner, lock};
use maelstrom_content::LayerId;
use maelstrom_pull::BundleId;
use serde::Serialize;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How often rates are taken.
const EVERY: Duration = Duration::from_secs(1);

/// How many rates are averaged.
const SAMPLES: usize = 3;

/// How often what is no longer used is cleaned up, in samples.
const CLEAN_EVERY: u64 = 60;

/// A layer that is being pulled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PullStats {
    /// Which.
    pub layer: LayerId,
    /// How much is here and verified, in bytes.
    pub done_bytes: u64,
    /// How much there is, in bytes.
    pub total_bytes: u64,
    /// How many nodes tell this one what they have of it.
    pub providers: usize,
}

/// What is being transferred.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TransferStats {
    /// Layers that are being pulled.
    pub pulls: Vec<PullStats>,
    /// How many pieces are being served.
    pub uploads: usize,
    /// How many layers others may ask for.
    pub offered: usize,
    /// Received in the last seconds, in bytes a second.
    pub received_bytes_per_second: f64,
    /// Sent in the last seconds, in bytes a second.
    pub sent_bytes_per_second: f64,
    /// Received since the start, in bytes.
    pub received_bytes: u64,
    /// Sent since the start, in bytes.
    pub sent_bytes: u64,
    /// Pieces that did not match their hashes.
    pub bad_pieces: u64,
    /// Messages that were dropped because the driver did not take them.
    pub dropped_messages: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    received: AtomicU64,
    sent: AtomicU64,
    pub(crate) bad_pieces: AtomicU64,
    pub(crate) dropped: AtomicU64,
    /// When, and what was received and sent by then; the oldest first.
    samples: Mutex<Vec<(Instant, u64, u64)>>,
}

impl Counters {
    pub(crate) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn sample(&self) {
        let received = self.received.load(Ordering::Relaxed);
        let sent = self.sent.load(Ordering::Relaxed);
        let mut samples = lock(&self.samples);
        if samples.len() > SAMPLES {
            samples.remove(0);
        }
        samples.push((Instant::now(), received, sent));
    }

    fn rates(&self) -> (f64, f64) {
        let samples = lock(&self.samples);
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
            return (0.0, 0.0);
        };
        let seconds = (last.0 - first.0).as_secs_f64().max(0.001);
        let rate = |from: u64, to: u64| (to - from) as f64 / seconds;
        (rate(first.1, last.1), rate(first.2, last.2))
    }
}

/// Takes rates and cleans up, for ever.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut ticks = tokio::time::interval(EVERY);
    for tick in 1_u64.. {
        ticks.tick().await;
        inner.counters.sample();
        inner.connections.clean();
        if tick.is_multiple_of(CLEAN_EVERY) {
            let inner = inner.clone();
            crate::blocking(move || {
                inner.clean_library();
                inner.directory.clean();
            })
            .await;
        }
    }
}

impl Inner {
    pub(crate) fn stats(&self) -> TransferStats {
        let layers: Vec<_> = lock(&self.pulls)
            .iter()
            .filter_map(|(layer, pull)| Some((*layer, pull.partial()?)))
            .collect();
        let puller = lock(&self.puller);
        let pulls = layers
            .into_iter()
            .map(|(layer, partial)| {
                let bundle = BundleId(*layer.as_bytes());
                let layout = partial.plan().layout();
                PullStats {
                    layer,
                    done_bytes: puller.have(bundle).map_or(0, |have| layout.sum_bytes(have)),
                    total_bytes: layout.total_bytes(),
                    providers: puller.links(bundle),
                }
            })
            .collect();
        let uploads = puller.uploads();
        drop(puller);
        let (received_bytes_per_second, sent_bytes_per_second) = self.counters.rates();
        TransferStats {
            pulls,
            uploads,
            offered: self.library.offered().len(),
            received_bytes_per_second,
            sent_bytes_per_second,
            received_bytes: self.counters.received.load(Ordering::Relaxed),
            sent_bytes: self.counters.sent.load(Ordering::Relaxed),
            bad_pieces: self.counters.bad_pieces.load(Ordering::Relaxed),
            dropped_messages: self.counters.dropped.load(Ordering::Relaxed),
        }
    }
}
