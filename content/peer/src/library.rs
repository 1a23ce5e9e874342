//! What members may ask for.

use crate::{Inner, blocking, lock};
use maelstrom_content::LayerId;
use maelstrom_gossip::NodeId;
use maelstrom_pull::{BundleId, Message};
use maelstrom_transfer::{Plan, Shelf, TransferError};
use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// The most layers that are offered; the others are forgotten.
const MAX_OFFERS: usize = 8192;

/// The most layers whose hash trees are at hand.
const MAX_SHELVES: usize = 128;

/// Hash trees that nobody has asked for in so long are dropped.
const KEEP_SHELF: Duration = Duration::from_secs(10 * 60);

/// The most messages that wait for one layer's hash trees.
const MAX_WAITING: usize = 64;

/// The offered layers, and those that are at hand.
#[derive(Debug)]
pub(crate) struct Library {
    /// Every process that shares the store writes what it offers there, so that a daemon offers
    /// what a client did who is gone.
    directory: PathBuf,
    offered: Mutex<HashSet<LayerId>>,
    shelves: Mutex<HashMap<LayerId, Standing>>,
    preparing: Mutex<HashMap<LayerId, Arc<Preparing>>>,
    /// Messages about layers that are being prepared.
    waiting: Mutex<HashMap<LayerId, Messages>>,
}

type Messages = Vec<(NodeId, Message<NodeId>)>;

type Preparing = tokio::sync::Mutex<()>;

#[derive(Debug)]
struct Standing {
    shelf: Arc<Shelf>,
    used: Instant,
    /// Others must not drop it.
    pulling: bool,
}

impl Library {
    /// What is offered according to the directory.
    pub(crate) fn new(directory: PathBuf) -> Library {
        let names = fs::read_dir(&directory).into_iter().flatten().flatten();
        let ids = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Library {
            offered: Mutex::new(ids.take(MAX_OFFERS).collect()),
            directory,
            shelves: Mutex::default(),
            preparing: Mutex::default(),
            waiting: Mutex::default(),
        }
    }

    pub(crate) fn offer(&self, layer: LayerId) {
        let mut offered = lock(&self.offered);
        if offered.len() >= MAX_OFFERS || !offered.insert(layer) {
            return;
        }
        drop(offered);
        let path = self.directory.join(layer.to_string());
        if let Err(error) = File::create(&path) {
            tracing::debug!("cannot create {}: {error}", path.display());
        }
    }

    pub(crate) fn offered(&self) -> Vec<LayerId> {
        lock(&self.offered).iter().copied().collect()
    }

    /// Whether members may ask for a layer, here or through another process.
    pub(crate) fn is_offered(&self, layer: LayerId) -> bool {
        lock(&self.offered).contains(&layer) || self.directory.join(layer.to_string()).exists()
    }

    fn withdraw(&self, layer: LayerId) {
        lock(&self.offered).remove(&layer);
        let _ = fs::remove_file(self.directory.join(layer.to_string()));
    }

    /// Puts a layer up that is being pulled.
    pub(crate) fn put_pulling(&self, layer: LayerId, shelf: Arc<Shelf>) {
        let standing = Standing {
            shelf,
            used: Instant::now(),
            pulling: true,
        };
        lock(&self.shelves).insert(layer, standing);
    }

    /// A pull has ended; its layer stays up if it has come whole.
    pub(crate) fn pulled(&self, layer: LayerId, whole: bool) {
        let mut shelves = lock(&self.shelves);
        if whole {
            if let Some(standing) = shelves.get_mut(&layer) {
                standing.pulling = false;
            }
        } else {
            shelves.remove(&layer);
        }
    }

    /// A layer that is at hand.
    pub(crate) fn shelf(&self, layer: LayerId) -> Option<Arc<Shelf>> {
        let mut shelves = lock(&self.shelves);
        let standing = shelves.get_mut(&layer)?;
        standing.used = Instant::now();
        Some(standing.shelf.clone())
    }

    /// The layer of a hash sequence that is at hand.
    pub(crate) fn shelf_of(&self, sequence: &[u8; 32]) -> Option<Arc<Shelf>> {
        let mut shelves = lock(&self.shelves);
        let standing = shelves
            .values_mut()
            .find(|standing| standing.shelf.plan().sequence() == sequence)?;
        standing.used = Instant::now();
        Some(standing.shelf.clone())
    }
}

impl Inner {
    /// Gets an offered layer at hand: reads it for its hash trees, once. Nothing if it is not
    /// offered or no longer there.
    pub(crate) async fn prepare(self: &Arc<Self>, layer: LayerId) -> Option<Arc<Shelf>> {
        if let Some(shelf) = self.library.shelf(layer) {
            return Some(shelf);
        }
        if !self.library.is_offered(layer) {
            return None;
        }
        let mine = lock(&self.library.preparing)
            .entry(layer)
            .or_default()
            .clone();
        let guard = mine.lock().await;
        if let Some(shelf) = self.library.shelf(layer) {
            return Some(shelf);
        }
        let inner = self.clone();
        let made = blocking(move || inner.make_shelf(layer)).await;
        let shelf = match made {
            Ok(shelf) => {
                let shelf = Arc::new(shelf);
                let standing = Standing {
                    shelf: shelf.clone(),
                    used: Instant::now(),
                    pulling: false,
                };
                lock(&self.library.shelves).insert(layer, standing);
                let layout = shelf.plan().layout().clone();
                self.with_puller(|puller, now| {
                    puller.serve(now, BundleId(*layer.as_bytes()), layout);
                });
                Some(shelf)
            }
            Err(error) => {
                tracing::warn!("cannot offer layer {layer}: {error}");
                self.library.withdraw(layer);
                None
            }
        };
        drop(guard);
        lock(&self.library.preparing).remove(&layer);
        shelf
    }

    fn make_shelf(&self, layer: LayerId) -> Result<Shelf, TransferError> {
        // What is read must not be evicted meanwhile.
        let _pin = self.store.pin(layer)?;
        let encoded = self.store.manifest(layer)?.encode();
        let plan = Arc::new(Plan::new(layer, encoded.into())?);
        Shelf::whole(&self.store, plan, self.directory.path())
    }

    /// Keeps a message about an offered layer that is not at hand, and gets that at hand.
    /// Returns whether it did.
    pub(crate) fn postpone(
        self: &Arc<Self>,
        layer: LayerId,
        from: NodeId,
        message: &Message<NodeId>,
    ) -> bool {
        if self.library.shelf(layer).is_some() || !self.library.is_offered(layer) {
            return false;
        }
        let mut waiting = lock(&self.library.waiting);
        let is_first = !waiting.contains_key(&layer);
        let messages = waiting.entry(layer).or_default();
        if messages.len() < MAX_WAITING {
            messages.push((from, message.clone()));
        }
        if is_first {
            let inner = self.clone();
            self.runtime.spawn(async move {
                inner.prepare(layer).await;
                let messages = lock(&inner.library.waiting).remove(&layer);
                for (from, message) in messages.into_iter().flatten() {
                    inner.with_puller(|puller, now| puller.handle_message(now, from, message));
                }
            });
        }
        true
    }

    /// A layer turns out not to be there any more.
    pub(crate) fn lose(self: &Arc<Self>, layer: LayerId) {
        {
            let mut shelves = lock(&self.library.shelves);
            if shelves.get(&layer).is_some_and(|standing| standing.pulling) {
                // Its pull finds out by itself what is wrong.
                return;
            }
            shelves.remove(&layer);
        }
        self.with_puller(|puller, _| puller.forget(BundleId(*layer.as_bytes())));
        if !self.store.contains(layer) {
            self.library.withdraw(layer);
        }
    }

    /// Drops hash trees that nobody asks for, and those that asked the longest ago if there are
    /// too many.
    pub(crate) fn clean_library(self: &Arc<Self>) {
        let mut shelves: Vec<(Instant, LayerId)> = lock(&self.library.shelves)
            .iter()
            .filter(|(_, standing)| !standing.pulling)
            .map(|(id, standing)| (standing.used, *id))
            .collect();
        shelves.sort_unstable();
        let surplus = shelves.len().saturating_sub(MAX_SHELVES);
        for (index, (used, layer)) in shelves.into_iter().enumerate() {
            if index < surplus || used.elapsed() > KEEP_SHELF {
                lock(&self.library.shelves).remove(&layer);
                self.with_puller(|puller, _| puller.forget(BundleId(*layer.as_bytes())));
            }
        }
        for layer in self.library.offered() {
            if !self.store.contains(layer) {
                self.library.withdraw(layer);
            }
        }
    }
}
