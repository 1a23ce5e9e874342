//! Layers from neighbours: pulled over TCP from whoever has them, and served to members.
//!
//! [`Layers`] drives the [`Puller`](maelstrom_pull::Puller), which decides what to ask of whom,
//! with the files of [`maelstrom_transfer`] and a few connections to each node that it asks,
//! encrypted by TLS 1.3 under the identities of the two nodes. It talks to the addresses that it
//! is told and to no other; connections of others are given to it by whoever listens. Only members
//! are heard, and a member gets only what belongs to a layer that it can
//! name and that this node offers or has pulled. What comes from others is verified, leaf by leaf
//! of 16 KiB, before it touches the disk, and room in the cache is kept free for it first.
//!
//! The small messages of the puller travel elsewhere: they come out of [`Layers::start`]'s
//! receiver and go into [`Layers::handle_message`].

mod bulk;
mod connect;
mod directory;
mod driver;
mod error;
mod fetch;
mod library;
mod manifest;
mod members;
mod piece;
mod serve;
mod stats;
mod stream;
mod tls;

#[cfg(test)]
mod asking_tests;
#[cfg(test)]
#[path = "../tests/mesh/host.rs"]
#[allow(dead_code)]
mod host;
// The hosts of tests name this crate as users do.
#[cfg(test)]
extern crate self as maelstrom_layers;

pub use connect::Opening;
pub use error::{FetchError, LayersError, Rubbish};
pub use stats::{PullStats, TransferStats};

use bytes::Bytes;
use connect::Connections;
use directory::Directory;
use library::Library;
use maelstrom_content::{LayerId, Store};
use maelstrom_gossip::NodeId;
use maelstrom_pull::{Config, Puller};
use members::Members;
use serve::Accepted;
use stats::Counters;
use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tls::Tls;
use tokio::{
    net::TcpStream,
    runtime::Handle,
    sync::{Notify, Semaphore, mpsc},
    task::AbortHandle,
};

/// How many messages wait for the driver; more are dropped, as the network might.
const OUTGOING_MESSAGES: usize = 4096;

/// How many manifests are sent and taken at a time: they are the only large things that are in
/// memory as a whole.
const MANIFESTS_AT_ONCE: usize = 4;

/// How to start [`Layers`].
#[derive(Debug)]
pub struct LayersConfig {
    /// The seed of the node's ed25519 key.
    pub seed: [u8; 32],
    /// Where layers are taken from and put.
    pub store: Store,
    /// A directory on the store's file system, for what is on its way. Several processes may
    /// share it.
    pub directory: PathBuf,
    /// What connections for layers begin with, in this mesh.
    pub opening: Opening,
    /// Such connections, as others open them, after their [`Opening`] was read.
    pub incoming: mpsc::Receiver<TcpStream>,
}

/// A message for another node, to be sent on the channel for pulling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// To whom.
    pub to: NodeId,
    /// What.
    pub message: Bytes,
}

/// Pulls layers from other nodes and serves them. Clones are the same.
#[derive(Clone, Debug)]
pub struct Layers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    me: NodeId,
    store: Store,
    runtime: Handle,
    bulk: bulk::Threads,
    tls: Tls,
    opening: Opening,
    members: Members,
    connections: Connections,
    accepted: Accepted,
    directory: Directory,
    library: Library,
    puller: Mutex<Puller<NodeId>>,
    /// When the puller is to be called at the latest.
    due: Mutex<Option<Instant>>,
    wake: Notify,
    outgoing: mpsc::Sender<Outgoing>,
    /// The pieces that are being fetched, by ticket.
    fetches: Mutex<HashMap<u64, AbortHandle>>,
    pulls: Mutex<HashMap<LayerId, Arc<fetch::Pull>>>,
    manifests: Semaphore,
    buffers: piece::Buffers,
    counters: Counters,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Layers {
    /// Starts serving. To be called inside a tokio runtime, which has to run until
    /// [`Layers::shutdown`].
    pub async fn start(
        config: LayersConfig,
    ) -> Result<(Layers, mpsc::Receiver<Outgoing>), LayersError> {
        let LayersConfig {
            seed,
            store,
            directory,
            opening,
            incoming,
        } = config;
        let directory = {
            let store = store.clone();
            blocking(move || Directory::open(&directory, &store)).await?
        };
        let tls = Tls::new(&seed).map_err(LayersError::Encryption)?;
        let me = tls.me();
        let (outgoing, messages) = mpsc::channel(OUTGOING_MESSAGES);
        let seed = u64::from_le_bytes(rand::random());
        let inner = Arc::new(Inner {
            me,
            runtime: Handle::current(),
            bulk: bulk::Threads::start().map_err(LayersError::Threads)?,
            connections: Connections::default(),
            library: Library::new(directory.offers()),
            directory,
            tls,
            opening,
            members: Members::default(),
            accepted: Accepted::default(),
            puller: Mutex::new(Puller::new(me, Config::default(), seed)),
            due: Mutex::default(),
            wake: Notify::new(),
            outgoing,
            fetches: Mutex::default(),
            pulls: Mutex::default(),
            manifests: Semaphore::new(MANIFESTS_AT_ONCE),
            buffers: piece::Buffers::default(),
            counters: Counters::default(),
            tasks: Mutex::default(),
            store,
        });
        let tasks = [
            tokio::spawn(driver::run_timer(inner.clone())).abort_handle(),
            tokio::spawn(serve::accept(inner.clone(), incoming)).abort_handle(),
            tokio::spawn(stats::run(inner.clone())).abort_handle(),
        ];
        lock(&inner.tasks).extend(tasks);
        Ok((Layers { inner }, messages))
    }

    /// Who this node is: the public key of the seed.
    pub fn id(&self) -> NodeId {
        self.inner.me
    }

    /// A node is a member from now on, reachable at these addresses: it may connect and ask.
    pub fn member_up(&self, node: NodeId, addresses: &[SocketAddr], same_machine: bool) {
        self.inner.members.insert(node, addresses, same_machine);
    }

    /// A node is no longer a member: its connections end, and it is asked for nothing more.
    pub fn member_down(&self, node: NodeId) {
        self.inner.members.remove(node);
        self.inner.connections.close(node);
        self.inner.accepted.close(node);
        self.inner
            .with_puller(|puller, now| puller.peer_lost(now, node));
    }

    /// Takes a message of another node's puller.
    ///
    /// # Errors
    ///
    /// If it is none: whoever sends such a thing is no sound member.
    pub fn handle_message(&self, from: NodeId, message: &[u8]) -> Result<(), Rubbish> {
        self.inner.handle_message(from, message)
    }

    /// Lets members ask for a layer of the store, on behalf of jobs that need it. Nothing is
    /// read before someone asks.
    pub fn keep_offering(&self, layer: LayerId) {
        self.inner.library.offer(layer);
    }

    /// The layers that others may ask for.
    pub fn held(&self) -> Vec<LayerId> {
        let mut held = self.inner.library.offered();
        held.retain(|layer| self.inner.store.contains(*layer));
        held
    }

    /// What is going on.
    pub fn stats(&self) -> TransferStats {
        self.inner.stats()
    }

    /// Ends all transfers. What has come of layers stays for the next start.
    pub async fn shutdown(self) {
        for task in lock(&self.inner.tasks).drain(..) {
            task.abort();
        }
        for (_, fetch) in lock(&self.inner.fetches).drain() {
            fetch.abort();
        }
        let pulls: Vec<_> = lock(&self.inner.pulls).drain().collect();
        for (_, pull) in pulls {
            pull.stop().await;
        }
        self.inner.accepted.close_all();
        self.inner.directory.release();
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs something that blocks where that does no harm.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that is going down cancels such tasks, and then nothing is left
            // that could wait for this one.
            Err(_) => std::future::pending().await,
        },
    }
}
