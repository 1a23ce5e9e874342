//! libp2p, put together: TCP, inside it the mesh key, then noise, then yamux.

use std::sync::Arc;

use libp2p::core::Transport;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, timeout::TransportTimeout};
use libp2p::core::upgrade::Version;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{PeerId, Swarm, identify, mdns, noise, swarm, tcp, yamux};

use crate::admission::Admission;
use crate::behaviour::{Behaviour, Links};
use crate::state::Shared;
use crate::{NetConfig, NetError};

/// The most streams of a connection: one a channel and direction, control, and identify's.
const MAX_STREAMS: usize = 48;
/// The most streams at once that a peer has opened without having said what for.
const MAX_NEGOTIATING_STREAMS: usize = 16;

/// Connections that are admitted, authenticated and carry streams.
pub(crate) fn transport(
    config: &NetConfig,
    shared: &Arc<Shared>,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, NetError> {
    let keys = config.node_key.keypair();
    let admission = Admission::new(config, shared.clone());
    // The protector (pnet) encrypts and does not authenticate; with the mesh key in noise's
    // prologue a handshake fails unless both sides have the same one.
    let noise = noise::Config::new(&keys)
        .map_err(|error| NetError::Encryption(error.to_string()))?
        .with_prologue(config.mesh_key.of_connections().to_vec());
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(MAX_STREAMS);
    let secured = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
        .and_then(move |socket, point| admission.clone().admit(socket, point))
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    Ok(TransportTimeout::new(secured, shared.timing.handshake * 2).boxed())
}

pub(crate) fn build(
    config: &NetConfig,
    shared: &Arc<Shared>,
) -> Result<Swarm<Behaviour>, NetError> {
    let keys = config.node_key.keypair();
    let id = keys.public().to_peer_id();
    let transport = transport(config, shared)?;
    let agent = concat!("maelstrom/", env!("CARGO_PKG_VERSION"));
    let identify = identify::Config::new("/maelstrom/1".into(), keys.public())
        .with_agent_version(agent.into())
        .with_cache_size(0)
        .with_push_listen_addr_updates(true);
    let mdns = config.mdns.then(|| {
        let config = mdns::Config {
            query_interval: std::time::Duration::from_secs(60),
            ..mdns::Config::default()
        };
        mdns::tokio::Behaviour::new(config, id)
    });
    let mdns = match mdns.transpose() {
        Ok(mdns) => mdns,
        Err(error) => {
            tracing::warn!(
                "nodes on the local network are not found by themselves, as multicast DNS \
                 cannot be set up: {error}; use --join"
            );
            shared.lock().mdns_error = Some(error.to_string());
            None
        }
    };
    let behaviour = Behaviour {
        links: Links::new(shared.clone()),
        identify: identify::Behaviour::new(identify),
        mdns: Toggle::from(mdns),
    };
    let config = swarm::Config::with_tokio_executor()
        .with_max_negotiating_inbound_streams(MAX_NEGOTIATING_STREAMS)
        .with_idle_connection_timeout(shared.timing.idle);
    Ok(Swarm::new(transport, behaviour, id, config))
}
