//! A node of the mesh: the cores, driven with sockets, clocks and slots.
//!
//! A [`MeshNode`] runs jobs on its own slots and on those of the mesh, and runs jobs of others on
//! its own. The daemon has one, and so has every client that finds no daemon.
//!
//! What decides is in `maelstrom-cores`; this crate carries messages ([`maelstrom_net`]), pulls
//! layers ([`maelstrom_layers`]), starts containers ([`maelstrom_node`]), keeps time and remembers
//! things over a restart.

mod clock;
mod config;
mod layers;
mod memory;
mod node;
mod outbox;
mod own;
mod peers;
mod results;
mod status;
mod wire;

pub use config::{DEFAULT_PORT, MeshConfig, MeshError};
pub use maelstrom_gossip::{Lending, NodeId};
pub use node::MeshNode;
pub use status::{MemberStatus, PullStatus, RefusalStatus, RunningJob, Status};
pub use wire::{JobRefused, LentContainer, decode_job, decode_result, encode_job, encode_result};
