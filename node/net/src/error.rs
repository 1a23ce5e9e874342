//! What can go wrong at the start.

use std::net::SocketAddr;

/// Why a node's connections can't be started.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// An address can't be listened on.
    #[error("cannot listen on {address} (TCP): {reason}{}", hint(*.address, .reason))]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// What the operating system said.
        reason: String,
    },
    /// The encryption can't be set up.
    #[error("cannot set up encrypted connections: {0}")]
    Encryption(String),
}

fn hint(address: SocketAddr, reason: &str) -> String {
    if reason.contains("in use") {
        format!(
            "; another node of this machine may have port {}: stop it, or listen on another port",
            address.port()
        )
    } else {
        String::new()
    }
}
