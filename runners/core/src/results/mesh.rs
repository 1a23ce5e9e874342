//! The results that the members of a mesh know.

use crate::runner::LazyClient;
use maelstrom_node::{ResultKey, SharedResults};
use std::sync::Arc;

/// The results that the mesh of a client knows. Nobody is asked before the client has started, or
/// if it is of no mesh.
pub(crate) struct MeshResults {
    client: Arc<LazyClient>,
}

impl MeshResults {
    pub(crate) fn new(client: Arc<LazyClient>) -> MeshResults {
        MeshResults { client }
    }

    fn others(&self) -> Option<Arc<dyn SharedResults>> {
        self.client.started()?.shared_results()
    }
}

impl SharedResults for MeshResults {
    fn find(&self, keys: &[ResultKey]) -> Vec<Option<Vec<u8>>> {
        match self.others() {
            Some(others) => others.find(keys),
            None => vec![None; keys.len()],
        }
    }

    fn offer(&self, key: ResultKey, result: Vec<u8>) {
        if let Some(others) = self.others() {
            others.offer(key, result);
        }
    }
}
