//! The keys of a node, made at its first start.

use crate::options::{JoinTarget, NodeOptions};
use anyhow::{Context as _, Result, bail};
use maelstrom_net::{MeshKey, NodeKey};
use std::{
    fs::{self, DirBuilder},
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::Path,
};

/// What a node needs to be admitted.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) node: NodeKey,
    pub(crate) mesh: MeshKey,
    /// Whether the mesh key was made just now, so that nobody else can have it.
    pub(crate) is_new_mesh: bool,
    /// Whom to join, without tickets.
    pub(crate) join: Vec<String>,
}

impl Keys {
    /// What to tell the user about a mesh key that was made just now, although a node of some mesh
    /// is to be joined.
    pub(crate) fn join_without_key(&self, path: &Path) -> Option<String> {
        let target = self.join.first().filter(|_| self.is_new_mesh)?;
        Some(format!(
            "this machine had no mesh key, so {} has a new one now, with which the mesh of {target} cannot be joined. Run `maelstrom-node invite` on {target}; then stop this node, remove that file, and start it with `--join` and the word that was printed",
            path.display()
        ))
    }
}

/// Reads the keys, and makes those that are missing.
pub(crate) fn load(options: &NodeOptions) -> Result<Keys> {
    let node = NodeKey::load_or_create(&options.state_root.join("node.key"))
        .context("the key of this node")?;
    let mut join = Vec::new();
    let mut invited: Option<&MeshKey> = None;
    for target in &options.join {
        match target {
            JoinTarget::Host(host) => join.push(host.clone()),
            JoinTarget::Ticket(ticket) => {
                let key = ticket.mesh_key();
                if invited.is_some_and(|other| other != key) {
                    bail!("`join`: the tickets are of different meshes; give those of one");
                }
                invited = Some(key);
                join.extend(ticket.addresses().iter().map(SocketAddr::to_string));
            }
        }
    }
    let path = &options.mesh_key;
    let (mesh, is_new_mesh) = match invited {
        Some(key) if !path.exists() => {
            keep(key, path).with_context(|| {
                format!("keeping the mesh key of the ticket in {}", path.display())
            })?;
            (key.clone(), false)
        }
        _ => MeshKey::load_or_create(path).context("the key of the mesh")?,
    };
    if let Some(key) = invited
        && *key != mesh
    {
        bail!(
            "`join`: the ticket is of another mesh (key {}) than this machine is in (key {}, from {}); to move to the other mesh, remove that file and start again",
            key.fingerprint(),
            mesh.fingerprint(),
            path.display()
        );
    }
    Ok(Keys {
        node,
        mesh,
        is_new_mesh,
        join,
    })
}

/// Writes a mesh key to a file that is not there yet, readable by its owner only.
fn keep(key: &MeshKey, path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    // Such files are made with mode 600.
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    writeln!(file, "{key}")?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Lend;
    use maelstrom_mesh::Lending;
    use maelstrom_net::Ticket;
    use std::{os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

    fn options(home: &Path, join: &[&Ticket]) -> NodeOptions {
        let ticket = |ticket: &&Ticket| JoinTarget::Ticket(Box::new((*ticket).clone()));
        NodeOptions {
            join: join.iter().map(ticket).collect(),
            listen: Vec::new(),
            slots: 1,
            lend: Lend(Lending::Always),
            mesh_key: home.join("config/mesh.key"),
            name: "here".to_owned(),
            labels: Vec::new(),
            mdns: true,
            cache_root: PathBuf::new(),
            cache_size_bytes: 0,
            drain_timeout: Duration::ZERO,
            state_root: home.join("state"),
        }
    }

    fn ticket() -> Ticket {
        Ticket::new(&["10.0.0.1:7357".parse().unwrap()], &MeshKey::generate())
    }

    #[test]
    fn the_first_start_makes_keys_and_the_second_reads_them() {
        let home = tempfile::tempdir().unwrap();
        let first = load(&options(home.path(), &[])).unwrap();
        assert!(first.is_new_mesh);
        for path in ["config/mesh.key", "state/node.key"] {
            let mode = home.path().join(path).metadata().unwrap().permissions();
            assert_eq!(mode.mode() & 0o777, 0o600, "{path}");
        }
        let second = load(&options(home.path(), &[])).unwrap();
        assert!(!second.is_new_mesh);
        assert_eq!(second.node.id(), first.node.id());
        assert_eq!(second.mesh, first.mesh);
    }

    #[test]
    fn an_address_is_not_enough_for_a_machine_without_a_key() {
        let home = tempfile::tempdir().unwrap();
        let mut options = options(home.path(), &[]);
        let path = options.mesh_key.clone();
        options.join.push(JoinTarget::Host("10.0.0.1".to_owned()));
        let advice = load(&options).unwrap().join_without_key(&path).unwrap();
        assert!(advice.contains("10.0.0.1") && advice.contains("mesh.key"));
        // With the key that is there from then on it may well be.
        assert_eq!(load(&options).unwrap().join_without_key(&path), None);
    }

    #[test]
    fn the_key_of_a_ticket_is_kept() {
        let home = tempfile::tempdir().unwrap();
        let ticket = ticket();
        let keys = load(&options(home.path(), &[&ticket])).unwrap();
        assert!(!keys.is_new_mesh);
        assert_eq!(keys.mesh, *ticket.mesh_key());
        assert_eq!(keys.join, ["10.0.0.1:7357"]);
        let path = home.path().join("config/mesh.key");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        // Without the ticket, and with it again.
        assert_eq!(load(&options(home.path(), &[])).unwrap().mesh, keys.mesh);
        load(&options(home.path(), &[&ticket])).unwrap();
    }

    #[test]
    fn tickets_of_other_meshes_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let (one, other) = (ticket(), ticket());
        let error = load(&options(home.path(), &[&one, &other])).unwrap_err();
        assert!(error.to_string().contains("different meshes"), "{error}");
        load(&options(home.path(), &[&one])).unwrap();
        let error = load(&options(home.path(), &[&other]))
            .unwrap_err()
            .to_string();
        let (ours, theirs) = (one.mesh_key(), other.mesh_key());
        for expected in [
            ours.fingerprint(),
            theirs.fingerprint(),
            "mesh.key".to_owned(),
        ] {
            assert!(error.contains(&expected), "{error}");
        }
    }
}
