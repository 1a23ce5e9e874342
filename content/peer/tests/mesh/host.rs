//! Nodes of one process on loopback. The messages that would travel on the control connections
//! are handed over in memory.

use maelstrom_content::{LayerId, Store, StoreOptions};
use maelstrom_gossip::NodeId;
use maelstrom_layers::{Layers, LayersConfig, Outgoing};
use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::AbortHandle,
};

/// Where messages for a node go.
#[derive(Clone, Default)]
pub(crate) struct Post {
    nodes: Arc<Mutex<HashMap<NodeId, Layers>>>,
    pub(crate) rubbish: Arc<AtomicU64>,
}

impl Post {
    async fn carry(self, from: NodeId, mut messages: mpsc::Receiver<Outgoing>) {
        while let Some(Outgoing { to, message }) = messages.recv().await {
            let node = self.nodes.lock().unwrap().get(&to).cloned();
            if let Some(node) = node
                && node.handle_message(from, &message).is_err()
            {
                self.rubbish
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
    }
}

/// One node.
pub(crate) struct Host {
    pub(crate) layers: Layers,
    pub(crate) store: Store,
    pub(crate) root: PathBuf,
    pub(crate) seed: u8,
    pub(crate) address: SocketAddr,
    post: Post,
    listening: AbortHandle,
}

/// What connections begin with.
pub(crate) const OPENING: [u8; 16] = *b"a test's opening";

/// Hands connections over that begin as they should.
async fn listen(listener: TcpListener, connections: mpsc::Sender<TcpStream>) {
    while let Ok((mut socket, _)) = listener.accept().await {
        let connections = connections.clone();
        tokio::spawn(async move {
            let mut begin = [0; OPENING.len()];
            if socket.read_exact(&mut begin).await.is_ok() && begin == OPENING {
                let _ = connections.send(socket).await;
            }
        });
    }
}

impl Host {
    pub(crate) async fn start(root: &Path, seed: u8, post: &Post, cache_bytes: u64) -> Host {
        let root = root.join(format!("host-{seed}"));
        Host::start_in(root, seed, post, cache_bytes).await
    }

    async fn start_in(root: PathBuf, seed: u8, post: &Post, cache_bytes: u64) -> Host {
        let options = StoreOptions {
            cache_size_bytes: cache_bytes,
        };
        let store = Store::open(&root.join("cache"), options).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, incoming) = mpsc::channel(64);
        let listening = tokio::spawn(listen(listener, connections)).abort_handle();
        let config = LayersConfig {
            seed: [seed; 32],
            store: store.clone(),
            directory: root.join("cache/transfer"),
            opening: OPENING,
            incoming,
        };
        let (layers, messages) = Layers::start(config).await.unwrap();
        let id = layers.id();
        post.nodes.lock().unwrap().insert(id, layers.clone());
        tokio::spawn(post.clone().carry(id, messages));
        Host {
            layers,
            store,
            root,
            seed,
            address,
            post: post.clone(),
            listening,
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.layers.id()
    }

    /// Ends it; what was on its way stays on disk.
    pub(crate) async fn stop(self) {
        self.post.nodes.lock().unwrap().remove(&self.layers.id());
        self.listening.abort();
        self.layers.shutdown().await;
    }

    /// Ends it and starts it again.
    pub(crate) async fn restart(self) -> Host {
        let (root, seed, post) = (self.root.clone(), self.seed, self.post.clone());
        let cache_bytes = self.store.cache_size_bytes();
        self.stop().await;
        Host::start_in(root, seed, &post, cache_bytes).await
    }

    /// How much of the layer that is being pulled is here, in bytes.
    pub(crate) fn done_bytes(&self) -> u64 {
        self.layers
            .stats()
            .pulls
            .iter()
            .map(|pull| pull.done_bytes)
            .sum()
    }

    /// A layer of files of random bytes, told by a number.
    pub(crate) fn layer(&self, files: usize, bytes: usize, salt: u64) -> LayerId {
        let mut builder = self.store.layer();
        for index in 0..files {
            let directory = format!("d{}", index % 100);
            builder.add_directory(&directory, 0o755);
            let path = format!("{directory}/f{index}");
            builder.add_bytes(path, noise(bytes, salt + index as u64), 0o644);
        }
        builder.finish().unwrap()
    }
}

/// Makes every node a member for every other.
pub(crate) fn acquaint(hosts: &[Host]) {
    for host in hosts {
        for other in hosts.iter().filter(|other| other.seed != host.seed) {
            host.layers.member_up(other.id(), &[other.address], false);
        }
    }
}

/// Bytes that do not repeat.
pub(crate) fn noise(bytes: usize, salt: u64) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    let mut noise = vec![0; bytes];
    hasher.finalize_xof().fill(&mut noise);
    noise
}

/// Waits for something that is to happen.
pub(crate) async fn until(what: &str, mut happened: impl FnMut() -> bool) {
    for _ in 0..12_000 {
        if happened() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited two minutes for {what}");
}

/// Compares the contents of a layer in two stores.
pub(crate) fn assert_same(one: &Store, other: &Store, layer: LayerId) {
    use std::io::Read;
    let manifest = one.manifest(layer).unwrap();
    assert_eq!(manifest, other.manifest(layer).unwrap());
    for entry in manifest.entries() {
        let read = |store: &Store| {
            store.open_entry(entry).map(|file| {
                let mut bytes = Vec::new();
                file.unwrap().read_to_end(&mut bytes).unwrap();
                bytes
            })
        };
        assert!(read(one) == read(other), "{}", entry.path);
    }
}
