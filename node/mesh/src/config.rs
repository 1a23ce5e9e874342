//! What a node is started with.

use maelstrom_content::Store;
use maelstrom_gossip::{AdvertError, Lending};
use maelstrom_layers::LayersError;
use maelstrom_net::{MeshKey, NetError, NodeKey};
use maelstrom_node::ResultStore;
use maelstrom_runtime::StartError;
use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

/// The TCP port that nodes listen on unless told otherwise.
pub const DEFAULT_PORT: u16 = 7357;

/// What a node is started with.
#[derive(Debug)]
pub struct MeshConfig {
    /// Who it is. No two nodes that run at a time may have the same.
    pub node_key: NodeKey,
    /// What admits it to its mesh.
    pub mesh_key: MeshKey,
    /// Where it listens (TCP). Port 0: any.
    pub listen: Vec<SocketAddr>,
    /// Nodes to join, as `HOST` or `HOST:PORT`.
    pub join: Vec<String>,
    /// Whether it looks for others on the local network.
    pub mdns: bool,
    /// What people call it: at most 64 bytes.
    pub name: String,
    /// What jobs can ask for.
    pub labels: Vec<String>,
    /// How many jobs it runs at once.
    pub slots: u16,
    /// When it runs jobs of others.
    pub lending: Lending,
    /// Whether it may be elected coordinator.
    pub may_coordinate: bool,
    /// Where it remembers things over a restart; `None`: it doesn't, as clients that come and go.
    pub state_dir: Option<PathBuf>,
    /// Where layers are kept.
    pub store: Store,
    /// Where results are kept for others; `None`: nowhere, as with clients that come and go.
    pub results: Option<Arc<dyn ResultStore>>,
}

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// No container can be made on this machine.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The control transport.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The transfer of layers.
    #[error(transparent)]
    Layers(#[from] LayersError),
    /// What it tells the others of itself is too long.
    #[error(transparent)]
    Advert(#[from] AdvertError),
    /// The process cannot have threads.
    #[error("starting the threads of the node: {0}")]
    Threads(io::Error),
    /// Something that is remembered over a restart cannot be read or written.
    #[error("{action} {path}: {error}", path = path.display())]
    State {
        /// What was being done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
}
