//! The layers that leases need.

use maelstrom_content::{LayerId, Pin, Store};
use maelstrom_dispatch::{self as dispatch, Held};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a layer that no lease needs any more is kept from being evicted.
const KEPT: Duration = Duration::from_secs(60);

/// Layers of other nodes that are here, kept from being evicted while a lease needs them.
#[derive(Debug, Default)]
pub(crate) struct PinnedLayers {
    here: HashMap<LayerId, Pinned>,
    leases: HashMap<Held, Vec<Arc<Pin>>>,
}

#[derive(Debug)]
struct Pinned {
    pin: Arc<Pin>,
    used: Instant,
}

impl PinnedLayers {
    /// Takes hold of these layers for a lease, if all of them are here.
    pub(crate) fn hold(&mut self, now: Instant, held: Held, layers: &[dispatch::Layer]) -> bool {
        let pins: Option<Vec<Arc<Pin>>> = layers
            .iter()
            .map(|layer| {
                let pinned = self.here.get_mut(&LayerId::from_bytes(layer.id.0))?;
                pinned.used = now;
                Some(pinned.pin.clone())
            })
            .collect();
        pins.map(|pins| self.leases.insert(held, pins)).is_some()
    }

    /// A layer has come.
    pub(crate) fn add(&mut self, now: Instant, pin: Pin) {
        let id = pin.id();
        let pin = Arc::new(pin);
        self.here.insert(id, Pinned { pin, used: now });
    }

    /// A lease could not be run here, perhaps since something is wrong with its layers: whoever
    /// needs one of them next asks the store for it again.
    pub(crate) fn doubt(&mut self, held: Held) {
        for pin in self.leases.get(&held).into_iter().flatten() {
            self.here.remove(&pin.id());
        }
    }

    /// A lease has ended.
    pub(crate) fn release(&mut self, held: Held) {
        self.leases.remove(&held);
    }

    /// Lets go of what hasn't been needed for a while.
    pub(crate) fn tidy(&mut self, now: Instant) {
        self.here.retain(|_, pinned| {
            Arc::strong_count(&pinned.pin) > 1 || now.saturating_duration_since(pinned.used) < KEPT
        });
    }
}

/// Layers as dispatch knows them, each list once for all jobs that have it.
#[derive(Debug, Default)]
pub(crate) struct KnownLayers {
    lists: HashMap<Vec<LayerId>, Arc<[dispatch::Layer]>>,
}

impl KnownLayers {
    /// The list with what pulling each layer would move. `true`: it is new.
    pub(crate) fn list(
        &mut self,
        store: &Store,
        layers: &[LayerId],
    ) -> (Arc<[dispatch::Layer]>, bool) {
        if let Some(known) = self.lists.get(layers) {
            return (known.clone(), false);
        }
        let list: Arc<[dispatch::Layer]> = layers
            .iter()
            .map(|id| dispatch::Layer {
                id: dispatch::LayerId(*id.as_bytes()),
                size_bytes: size_bytes(store, *id),
            })
            .collect();
        self.lists.insert(layers.to_vec(), list.clone());
        (list, true)
    }
}

/// What pulling all of a layer would move.
fn size_bytes(store: &Store, id: LayerId) -> u64 {
    store.manifest(id).map_or(0, |manifest| {
        let contents: u64 = manifest.contents().iter().map(|(_, bytes)| bytes).sum();
        contents + manifest.encode().len() as u64
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use maelstrom_content::StoreOptions;
    use maelstrom_dispatch::{JobId, LeaseId, NodeId};

    #[test]
    fn a_layer_in_doubt_is_not_held_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path(), StoreOptions::default()).expect("a store");
        let mut pinned = PinnedLayers::default();
        let now = Instant::now();
        let lists = ["one", "two"].map(|name| {
            let mut builder = store.layer();
            builder.add_bytes(name, name, 0o644);
            let id = builder.finish().expect("a layer");
            pinned.add(now, store.pin(id).expect("a pin"));
            [dispatch::Layer {
                id: dispatch::LayerId(*id.as_bytes()),
                size_bytes: 1,
            }]
        });
        let held = |job| Held {
            origin: NodeId::from_bytes([1; 32]),
            lease: LeaseId {
                job: JobId(job),
                copy: 0,
            },
        };
        for (job, layers) in lists.iter().enumerate() {
            assert!(pinned.hold(now, held(job as u64), layers));
        }
        pinned.doubt(held(0));
        pinned.release(held(0));
        assert!(!pinned.hold(now, held(2), &lists[0]));
        assert!(pinned.hold(now, held(3), &lists[1]));
    }
}
