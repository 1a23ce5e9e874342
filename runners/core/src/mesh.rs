//! The mesh as clients use it: which one, and a node of it in this process.

use crate::{client::ClientConfig, config::ClientValues};
use anyhow::{Context as _, Result, bail};
use maelstrom_content::{Store, StoreOptions};
use maelstrom_mesh::{Lending, MeshConfig, MeshNode};
use maelstrom_net::{MeshKey, NodeKey, Ticket};
use maelstrom_node::{JobService, Node};
use maelstrom_runtime::Launcher;
use maelstrom_session::{Fallback, Session, socket_path};
use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Which mesh a client uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshChoice {
    /// Nodes to join, as `HOST`, `HOST:PORT` or a ticket; empty: those on the local network.
    pub join: Vec<String>,
    /// The file with the mesh key; `None`: where nodes keep it.
    pub key_file: Option<PathBuf>,
}

impl MeshChoice {
    /// The mesh that was asked for, if one was.
    pub fn new(values: &ClientValues) -> Option<MeshChoice> {
        (values.mesh || !values.join.is_empty()).then(|| MeshChoice {
            join: values.join.clone(),
            key_file: values.mesh_key.clone(),
        })
    }
}

/// Where nodes of this user keep their mesh key.
fn usual_key_file() -> Result<PathBuf> {
    let config = match env::var_os("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => {
            let home = env::var_os("HOME").context(
                "finding the mesh key: neither XDG_CONFIG_HOME nor HOME is set; use --mesh-key",
            )?;
            PathBuf::from(home).join(".config")
        }
    };
    Ok(config.join("maelstrom/mesh.key"))
}

/// The key and the nodes to join.
fn key_and_targets(choice: &MeshChoice) -> Result<(MeshKey, Vec<String>)> {
    let mut key: Option<MeshKey> = None;
    let mut targets = Vec::new();
    for target in &choice.join {
        if !Ticket::looks_like(target) {
            targets.push(target.clone());
            continue;
        }
        let ticket: Ticket = target
            .parse()
            .with_context(|| format!("reading the ticket {target}"))?;
        if key.as_ref().is_some_and(|key| key != ticket.mesh_key()) {
            bail!("the tickets after --join are of different meshes; use those of one");
        }
        key = Some(ticket.mesh_key().clone());
        targets.extend(ticket.addresses().iter().map(SocketAddr::to_string));
    }
    if let Some(key) = key {
        return Ok((key, targets));
    }
    let path = match &choice.key_file {
        Some(path) => path.clone(),
        None => usual_key_file()?,
    };
    if !path.exists() {
        bail!(
            "there is no mesh key at {}. Type `maelstrom-node invite` on a machine of the mesh and \
             use what it prints with --join here, or copy its key file there",
            path.display()
        );
    }
    Ok((MeshKey::load(&path)?, targets))
}

/// What runs the jobs of a client, and the store that its layers are built in.
pub(crate) struct Started {
    pub(crate) store: Store,
    pub(crate) service: Arc<dyn JobService>,
}

/// Uses the daemon of this machine, if one runs and no other mesh was asked for, else starts a
/// node in this process.
pub(crate) fn start(
    launcher: Launcher,
    config: &ClientConfig,
    choice: &MeshChoice,
) -> Result<Started> {
    let slots = config.slots;
    if choice.join.is_empty() && choice.key_file.is_none() {
        let socket = socket_path();
        let session = Session::connect(&socket)
            .with_context(|| format!("asking the daemon at {}", socket.display()))?;
        if let Some(session) = session {
            let welcome = session.welcome();
            let store = open_store(&welcome.store, welcome.cache_size_bytes)?;
            let (again, choice, in_store) = (launcher.clone(), choice.clone(), store.clone());
            let fallback: Fallback = Box::new(move |why| {
                tracing::warn!("the daemon of this machine is gone ({why}); going on without it");
                go_on_alone(again, in_store, slots, &choice).map_err(|error| format!("{error:#}"))
            });
            let service = session
                .into_service(launcher, store.clone(), fallback)
                .context("starting the session with the daemon of this machine")?;
            return Ok(Started {
                store,
                service: Arc::new(service),
            });
        }
    }
    let store = open_store(&config.cache_dir, config.cache_size_bytes)?;
    let service = node(launcher, store.clone(), slots, choice)?;
    Ok(Started { store, service })
}

fn open_store(dir: &Path, cache_size_bytes: u64) -> Result<Store> {
    Ok(Store::open(dir, StoreOptions { cache_size_bytes })?)
}

/// A node in this process, of the mesh if that is possible.
fn go_on_alone(
    launcher: Launcher,
    store: Store,
    slots: usize,
    choice: &MeshChoice,
) -> Result<Arc<dyn JobService>> {
    match node(launcher.clone(), store.clone(), slots, choice) {
        Ok(node) => Ok(node),
        Err(error) => {
            tracing::warn!("running on this machine only: {error:#}");
            Ok(Arc::new(Node::start(launcher, store, slots)?))
        }
    }
}

/// Starts a node in this process that uses the slots of this machine and those of the mesh, and
/// lends none.
fn node(
    launcher: Launcher,
    store: Store,
    slots: usize,
    choice: &MeshChoice,
) -> Result<Arc<dyn JobService>> {
    let (mesh_key, join) = key_and_targets(choice)?;
    let node = MeshNode::start(
        launcher,
        MeshConfig {
            node_key: NodeKey::generate(),
            mesh_key,
            listen: vec![SocketAddr::from(([0, 0, 0, 0], 0))],
            join,
            mdns: true,
            name: host_name(),
            labels: Vec::new(),
            slots: u16::try_from(slots).unwrap_or(u16::MAX),
            lending: Lending::Never,
            may_coordinate: false,
            state_dir: None,
            store,
            results: None,
        },
    )
    .context("starting a node of the mesh")?;
    Ok(Arc::new(node))
}

/// What people call this machine.
pub fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}
