//! What `maelstrom-node status` shows, as it goes from the daemon to whoever asks.

use maelstrom_mesh::Status;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Raised when a field changes its meaning or goes; new ones may come.
pub(crate) const FORMAT: u32 = 1;

/// The daemon, and the mesh as it sees it. `status --json` prints this; docs/MESH.md describes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Which shape this has.
    pub(crate) format: u32,
    /// The daemon's process.
    pub(crate) pid: u32,
    /// Since how many seconds it runs.
    pub(crate) up_seconds: u64,
    /// Where clients of this machine find it.
    pub(crate) socket: PathBuf,
    /// Where layers are kept.
    pub(crate) store: PathBuf,
    /// What that may grow to.
    pub(crate) cache_size_bytes: u64,
    /// How many clients of this machine have a session.
    pub(crate) sessions: usize,
    /// Eight characters by which people can compare mesh keys.
    pub(crate) mesh_key: String,
    /// With the policy `idle`: why the machine isn't lent now.
    pub(crate) owner_active: Option<String>,
    /// The mesh.
    pub(crate) mesh: Status,
}
