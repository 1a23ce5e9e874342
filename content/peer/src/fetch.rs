//! Getting a layer: its manifest, room for it, its pieces, and then into the store.

use crate::{FetchError, Inner, Layers, blocking, lock};
use bytes::Bytes;
use maelstrom_content::{LayerId, Pin, Reservation, StoreError};
use maelstrom_gossip::NodeId;
use maelstrom_pull::{BundleId, Nearness};
use maelstrom_transfer::{Partial, Plan, Shelf, TransferError};
use rand::seq::SliceRandom;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

/// A pull that nobody waits for goes on for so long.
const UNWANTED: Duration = Duration::from_secs(10);

/// A pull into which nothing comes for so long has failed.
const STALLED: Duration = Duration::from_secs(60);

/// How often a pull looks whether it is still wanted and still gets something.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many holders are asked for a manifest before the origin is.
const HOLDERS_FIRST: usize = 2;

/// How often a layer is completed whose contents were evicted while it came.
const TRIES: usize = 3;

/// How long the end of a pull may take when the node shuts down.
const STOPS_WITHIN: Duration = Duration::from_secs(5);

/// How many events wait for a pull.
const EVENTS: usize = 64;

/// What happens to a pull.
#[derive(Debug)]
pub(crate) enum Event {
    /// All pieces are here.
    Complete,
    /// Nobody is left who has any.
    NoProvider,
    /// A node sent bad data.
    Bad(NodeId),
    /// What came cannot be written.
    Failed(TransferError),
    /// Enough.
    Stop,
}

/// A layer that is being pulled, for everyone who waits for it.
#[derive(Debug)]
pub(crate) struct Pull {
    layer: LayerId,
    events: mpsc::Sender<Event>,
    outcome: watch::Sender<Option<Result<(), FetchError>>>,
    waiting: AtomicUsize,
    /// Once the manifest is here.
    partial: Mutex<Option<Arc<Partial>>>,
    /// Who may have it.
    providers: Mutex<Vec<(NodeId, Nearness)>>,
    task: Mutex<Option<JoinHandle<()>>>,
    /// Keeps the layer until everyone who waited has a pin of its own.
    pin: Mutex<Option<Pin>>,
}

impl Pull {
    pub(crate) fn tell(&self, event: Event) {
        // Of so many, any one matters as much as the next.
        let _ = self.events.try_send(event);
    }

    /// Ends the pull, and returns when it touches its files no more.
    pub(crate) async fn stop(&self) {
        self.tell(Event::Stop);
        let task = lock(&self.task).take();
        if let Some(task) = task
            && tokio::time::timeout(STOPS_WITHIN, task).await.is_err()
        {
            tracing::warn!("the pull of layer {} does not end", self.layer);
        }
        self.end(Err(FetchError::Stopped { layer: self.layer }));
    }

    pub(crate) fn partial(&self) -> Option<Arc<Partial>> {
        lock(&self.partial).clone()
    }

    fn end(&self, outcome: Result<(), FetchError>) {
        self.outcome.send_modify(|known| {
            known.get_or_insert(outcome);
        });
    }
}

/// Someone who waits for a pull.
struct Waiting(Arc<Pull>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Layers {
    /// Gets a layer into the store, from `origin` and from `holders`, which are said to have it
    /// too. Several calls for one layer pull it once; when all of them have been dropped, the
    /// pull is given up after a while. What has come stays for the next try, also in another
    /// process.
    ///
    /// # Errors
    ///
    /// If nobody can give it, nothing comes any more, or there is no room for it.
    pub async fn fetch(
        &self,
        layer: LayerId,
        origin: NodeId,
        holders: &[NodeId],
    ) -> Result<Pin, FetchError> {
        let inner = &self.inner;
        if let Some(pin) = inner.stored(layer).await? {
            return Ok(pin);
        }
        let mut providers: Vec<(NodeId, Nearness)> = holders
            .iter()
            .filter(|node| **node != inner.me && **node != origin)
            .map(|node| (*node, inner.members.nearness(*node, Nearness::Neighbour)))
            .collect();
        if origin != inner.me {
            providers.push((origin, inner.members.nearness(origin, Nearness::Origin)));
        }
        let waiting = inner.join(layer, &providers);
        let mut outcome = waiting.0.outcome.subscribe();
        let ended = match outcome.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone(),
            Err(_) => None,
        };
        ended.unwrap_or(Err(FetchError::Stopped { layer }))?;
        let store = inner.store.clone();
        blocking(move || store.pin(layer))
            .await
            .map_err(FetchError::keep(layer))
    }
}

impl Inner {
    /// Pins a layer that the store has whole.
    async fn stored(&self, layer: LayerId) -> Result<Option<Pin>, FetchError> {
        if !self.store.contains(layer) {
            return Ok(None);
        }
        let store = self.store.clone();
        blocking(move || {
            let Ok(pin) = store.pin(layer) else {
                return Ok(None);
            };
            match store.manifest(layer) {
                Ok(manifest) => {
                    let import = store.import(layer, &manifest.encode())?;
                    Ok(import.missing().is_empty().then_some(pin))
                }
                // What is damaged is pulled anew.
                Err(StoreError::Damaged { .. } | StoreError::UnknownLayer { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await
        .map_err(FetchError::keep(layer))
    }

    /// Waits for the pull of a layer, which is begun if there is none.
    fn join(self: &Arc<Self>, layer: LayerId, providers: &[(NodeId, Nearness)]) -> Waiting {
        let mut pulls = lock(&self.pulls);
        if let Some(pull) = pulls.get(&layer)
            && pull.outcome.borrow().is_none()
        {
            pull.waiting.fetch_add(1, Ordering::AcqRel);
            let waiting = Waiting(pull.clone());
            drop(pulls);
            self.add_providers(&waiting.0, providers);
            return waiting;
        }
        let (events, inbox) = mpsc::channel(EVENTS);
        let pull = Arc::new(Pull {
            layer,
            events,
            outcome: watch::Sender::new(None),
            waiting: AtomicUsize::new(1),
            partial: Mutex::default(),
            providers: Mutex::new(providers.to_owned()),
            task: Mutex::default(),
            pin: Mutex::default(),
        });
        pulls.insert(layer, pull.clone());
        drop(pulls);
        let inner = self.clone();
        let mine = pull.clone();
        let task = self.runtime.spawn(async move {
            let outcome = inner.pull(&mine, inbox).await;
            let mut pulls = lock(&inner.pulls);
            if pulls
                .get(&layer)
                .is_some_and(|known| Arc::ptr_eq(known, &mine))
            {
                pulls.remove(&layer);
            }
            drop(pulls);
            mine.end(outcome);
        });
        *lock(&pull.task) = Some(task);
        Waiting(pull)
    }

    fn add_providers(self: &Arc<Self>, pull: &Pull, providers: &[(NodeId, Nearness)]) {
        let mut known = lock(&pull.providers);
        for new in providers {
            if !known.iter().any(|(node, _)| *node == new.0) {
                known.push(*new);
            }
        }
        drop(known);
        let bundle = BundleId(*pull.layer.as_bytes());
        self.with_puller(|puller, now| {
            for (node, nearness) in providers {
                puller.add_provider(now, bundle, *node, *nearness);
            }
        });
    }

    /// Pulls a layer, from beginning to end.
    async fn pull(
        self: &Arc<Self>,
        pull: &Arc<Pull>,
        mut inbox: mpsc::Receiver<Event>,
    ) -> Result<(), FetchError> {
        let layer = pull.layer;
        let began = Instant::now();
        let encoded = self.find_manifest(pull).await?;
        tracing::debug!(
            "layer {layer}: its manifest came after {:?}",
            began.elapsed()
        );
        let plan = blocking(move || Plan::new(layer, encoded)).await;
        let plan = Arc::new(plan.map_err(FetchError::keep(layer))?);
        for attempt in 1.. {
            let (room, partial) = self.open(plan.clone()).await?;
            tracing::debug!("layer {layer}: there was room after {:?}", began.elapsed());
            let result = self.pull_pieces(pull, &partial, &mut inbox).await;
            tracing::debug!(
                "layer {layer}: its contents came after {:?}",
                began.elapsed()
            );
            let result = match result {
                Ok(()) => self.finish(pull, partial.clone(), room).await,
                Err(error) => {
                    self.end_swarm(layer, false);
                    partial.0.close();
                    self.directory.set_idle(layer, room);
                    Err(error)
                }
            };
            *lock(&pull.partial) = None;
            tracing::debug!("layer {layer}: it was kept after {:?}", began.elapsed());
            match result {
                Err(FetchError::Keep { problem, .. })
                    if matches!(*problem, TransferError::Incomplete { .. }) && attempt < TRIES => {}
                result => return result,
            }
        }
        Ok(())
    }

    /// Asks for the manifest: some holders, then the origin, then the other holders.
    async fn find_manifest(self: &Arc<Self>, pull: &Pull) -> Result<Bytes, FetchError> {
        let layer = pull.layer;
        let mut providers = lock(&pull.providers).clone();
        providers.shuffle(&mut rand::rng());
        providers.sort_by_key(|(_, nearness)| *nearness);
        let origin = providers
            .iter()
            .position(|(_, nearness)| *nearness == Nearness::Origin);
        if let Some(origin) = origin.filter(|origin| *origin > HOLDERS_FIRST) {
            let origin = providers.remove(origin);
            providers.insert(HOLDERS_FIRST, origin);
        }
        let mut asked = Vec::new();
        let mut problem = "no member is known to have it".to_owned();
        for (node, _) in providers {
            match self.fetch_manifest(node, layer).await {
                Ok(encoded) => return Ok(encoded),
                Err(error) => {
                    problem = error.to_string();
                    asked.push(node);
                }
            }
        }
        Err(FetchError::Manifest {
            layer,
            asked,
            problem,
        })
    }

    /// Makes room for a layer and opens its files. Puts it up for others.
    async fn open(
        self: &Arc<Self>,
        plan: Arc<Plan>,
    ) -> Result<(Reservation, (Arc<Partial>, maelstrom_pull::Pieces)), FetchError> {
        let layer = plan.id();
        let inner = self.clone();
        let opened = blocking(move || {
            let bytes = plan.missing_bytes(&inner.store)?;
            let room = inner.directory.reserve(&inner.store, layer, bytes)?;
            let opened = Partial::open(&inner.directory.layer(layer), plan, &inner.store)?;
            Ok::<_, TransferError>((room, opened))
        })
        .await;
        let (room, (partial, have)) = opened.map_err(FetchError::keep(layer))?;
        Ok((room, (Arc::new(partial), have)))
    }

    async fn pull_pieces(
        self: &Arc<Self>,
        pull: &Arc<Pull>,
        (partial, have): &(Arc<Partial>, maelstrom_pull::Pieces),
        inbox: &mut mpsc::Receiver<Event>,
    ) -> Result<(), FetchError> {
        let layer = pull.layer;
        let bundle = BundleId(*layer.as_bytes());
        let total_bytes = partial.plan().layout().total_bytes();
        *lock(&pull.partial) = Some(partial.clone());
        let shelf = Arc::new(Shelf::partial(partial.clone()));
        self.library.put_pulling(layer, shelf);
        let providers = lock(&pull.providers).clone();
        let layout = partial.plan().layout().clone();
        self.with_puller(|puller, now| {
            // Where it was whole here and is not any more, it counts as whole no longer.
            puller.forget(bundle);
            puller.pull(now, bundle, layout, have.clone(), &providers);
        });
        let mut bad = Vec::new();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        let mut wanted_at = Instant::now();
        let mut came_at = Instant::now();
        let mut done_bytes = 0;
        loop {
            tokio::select! {
                event = inbox.recv() => match event {
                    Some(Event::Complete) => return Ok(()),
                    Some(Event::NoProvider) => {
                        return Err(FetchError::NoProvider { layer, done_bytes, total_bytes, bad });
                    }
                    Some(Event::Bad(node)) => if !bad.contains(&node) {
                        bad.push(node);
                    },
                    Some(Event::Failed(problem)) => {
                        return Err(FetchError::keep(layer)(problem));
                    }
                    Some(Event::Stop) | None => return Err(FetchError::Stopped { layer }),
                },
                _ = looks.tick() => {
                    if pull.waiting.load(Ordering::Acquire) > 0 {
                        wanted_at = Instant::now();
                    }
                    let done = {
                        let puller = lock(&self.puller);
                        let layout = partial.plan().layout();
                        puller.have(bundle).map_or(0, |have| layout.sum_bytes(have))
                    };
                    if done > done_bytes {
                        (done_bytes, came_at) = (done, Instant::now());
                    }
                    if wanted_at.elapsed() > UNWANTED {
                        return Err(FetchError::Stopped { layer });
                    }
                    if came_at.elapsed() > STALLED {
                        let waited = came_at.elapsed();
                        return Err(FetchError::Stalled { layer, waited, done_bytes, total_bytes });
                    }
                }
            }
        }
    }

    /// Hands a layer that has come whole to the store, and serves it from there.
    async fn finish(
        self: &Arc<Self>,
        pull: &Pull,
        (partial, _): (Arc<Partial>, maelstrom_pull::Pieces),
        room: Reservation,
    ) -> Result<(), FetchError> {
        let layer = pull.layer;
        let inner = self.clone();
        let finished = blocking(move || {
            let pin = partial.finish(&inner.store, || drop(room));
            if pin.is_ok() {
                inner.library.offer(layer);
                if let Some(shelf) = inner.library.shelf(layer) {
                    shelf.arrived(&inner.store);
                }
                partial.remove();
            }
            pin
        })
        .await;
        match finished {
            Ok(pin) => {
                *lock(&pull.pin) = Some(pin);
                self.library.pulled(layer, true);
                Ok(())
            }
            Err(problem) => {
                self.end_swarm(layer, false);
                Err(FetchError::keep(layer)(problem))
            }
        }
    }

    fn end_swarm(self: &Arc<Self>, layer: LayerId, whole: bool) {
        self.library.pulled(layer, whole);
        self.with_puller(|puller, _| puller.forget(BundleId(*layer.as_bytes())));
    }
}
