//! Addresses as sockets and as libp2p have them.

use std::net::{IpAddr, SocketAddr};

use libp2p::identity::PublicKey;
use libp2p::multiaddr::{Multiaddr, Protocol};
use libp2p::{PeerId, identity};
use maelstrom_gossip::NodeId;

/// The TCP port where nothing else is said.
pub const DEFAULT_PORT: u16 = 7357;

pub(crate) fn to_multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}

/// The socket address at the front; what follows (a peer's id) is left out.
pub(crate) fn to_socket(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

pub(crate) fn to_peer(node: NodeId) -> Option<PeerId> {
    let key = identity::ed25519::PublicKey::try_from_bytes(node.as_bytes()).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

/// The node that a peer id names; none where its key is of another kind, or only a hash of it.
pub(crate) fn to_node(peer: &PeerId) -> Option<NodeId> {
    let hash = peer.as_ref();
    const IDENTITY: u64 = 0;
    if hash.code() != IDENTITY {
        return None;
    }
    let key = PublicKey::try_decode_protobuf(hash.digest()).ok()?;
    let key = key.try_into_ed25519().ok()?;
    Some(NodeId::from_bytes(key.to_bytes()))
}

/// Whether it makes sense for another machine to dial this address.
pub(crate) fn is_reachable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast(),
        IpAddr::V6(ip) => {
            // An address of one link means nothing without the link.
            !ip.is_unspecified()
                && !ip.is_loopback()
                && !ip.is_multicast()
                && !ip.is_unicast_link_local()
        }
    }
}

/// Splits `HOST[:PORT]`, `[V6][:PORT]` or a bare IPv6 address.
///
/// # Errors
///
/// What is wrong with the text, for people.
pub(crate) fn parse_target(target: &str) -> Result<(String, u16), String> {
    let target = target.trim();
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(format!("{text:?} is not a port: a number from 1 to 65535")),
    };
    if let Some(rest) = target.strip_prefix('[') {
        let Some((host, rest)) = rest.split_once(']') else {
            return Err(format!("{target:?} has a '[' without a ']'"));
        };
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(format!("{host:?} in brackets is not an IPv6 address"));
        }
        return match rest.strip_prefix(':') {
            Some(text) => Ok((host.to_owned(), port(text)?)),
            None if rest.is_empty() => Ok((host.to_owned(), DEFAULT_PORT)),
            None => Err(format!("{rest:?} after the ']' is not a ':' and a port")),
        };
    }
    if target.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok((target.to_owned(), DEFAULT_PORT));
    }
    let (host, port) = match target.split_once(':') {
        Some((host, text)) => (host, port(text)?),
        None => (target, DEFAULT_PORT),
    };
    let good = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.is_empty() || host.len() > 255 || !host.chars().all(good) {
        return Err(format!(
            "{target:?} is not HOST or HOST:PORT, such as build-3:7357 or 10.0.0.3"
        ));
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn targets() {
        let good = [
            ("host", "host", DEFAULT_PORT),
            (" host.example:80 ", "host.example", 80),
            ("10.0.0.3", "10.0.0.3", DEFAULT_PORT),
            ("10.0.0.3:1", "10.0.0.3", 1),
            ("::1", "::1", DEFAULT_PORT),
            ("[::1]", "::1", DEFAULT_PORT),
            ("[fd00::1]:9", "fd00::1", 9),
            ("b\u{fc}ro:9", "b\u{fc}ro", 9),
        ];
        for (text, host, port) in good {
            assert_eq!(parse_target(text), Ok((host.to_owned(), port)), "{text}");
        }
        let bad = [
            ("", "is not HOST"),
            (":80", "is not HOST"),
            ("a b", "is not HOST"),
            ("host:", "is not a port"),
            ("host:0", "is not a port"),
            ("host:65536", "is not a port"),
            ("host:http", "is not a port"),
            ("[::1", "without a ']'"),
            ("[::1]80", "after the ']'"),
            ("[host]:80", "is not an IPv6 address"),
            ("tcp/10.0.0.1:7357", "is not HOST"),
        ];
        for (text, reason) in bad {
            let error = parse_target(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_target_panics(text in "\\PC*") {
            let _ = parse_target(&text);
        }

        #[test]
        fn sockets_and_multiaddrs_convert(address: SocketAddr) {
            let plain = SocketAddr::new(address.ip(), address.port());
            prop_assert_eq!(to_socket(&to_multiaddr(address)), Some(plain));
        }
    }

    #[test]
    fn nodes_and_peers_convert() {
        let key = crate::NodeKey::generate();
        let peer = key.keypair().public().to_peer_id();
        assert_eq!(to_peer(key.id()), Some(peer));
        assert_eq!(to_node(&peer), Some(key.id()));
        assert_eq!(to_node(&PeerId::random()), None, "a hash of no key");
    }
}
