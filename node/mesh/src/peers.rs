//! Where nodes can be reached, as their profiles tell it.

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
};

/// A profile tells at most eight addresses, half of each kind.
const MAX_EACH: usize = 4;

/// A port for control.
const TCP: &str = "tcp/";
/// A port for layers.
const UDP: &str = "udp/";

/// What a profile tells of where this node listens: addresses that others may reach first.
pub(crate) fn tell(control: &[SocketAddr], layers: &[SocketAddr]) -> Vec<Box<str>> {
    let mut told = Vec::new();
    told.extend(most_useful(control).map(|address| text(TCP, address)));
    told.extend(most_useful(layers).map(|address| text(UDP, address)));
    told
}

fn text(kind: &str, address: impl Display) -> Box<str> {
    format!("{kind}{address}").into()
}

/// Addresses of networks before those of this machine alone.
fn most_useful(addresses: &[SocketAddr]) -> impl Iterator<Item = SocketAddr> {
    let mut addresses = addresses.to_vec();
    addresses.sort_by_key(|address| (address.ip().is_loopback(), address.is_ipv6(), *address));
    addresses.dedup();
    // A node that listens on several networks is reached on one of them; on loopback only if
    // there is nothing else, as everybody has a loopback.
    if addresses.iter().any(|address| !address.ip().is_loopback()) {
        addresses.retain(|address| !address.ip().is_loopback());
    }
    addresses.into_iter().take(MAX_EACH)
}

/// Where a node listens for control, by its profile. What cannot be read is left out.
pub(crate) fn control(told: &[Box<str>]) -> Vec<SocketAddr> {
    of_kind(told, TCP)
}

/// Where a node listens for layers, by its profile.
pub(crate) fn layers(told: &[Box<str>]) -> Vec<SocketAddr> {
    of_kind(told, UDP)
}

fn of_kind(told: &[Box<str>], kind: &str) -> Vec<SocketAddr> {
    told.iter()
        .filter_map(|text| text.strip_prefix(kind)?.parse().ok())
        .filter(|address: &SocketAddr| usable(address.ip()) && address.port() != 0)
        .collect()
}

/// Whether a single node can be there.
fn usable(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::from([255, 255, 255, 255])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().expect(text)).collect()
    }

    #[test]
    fn what_is_told_is_understood() {
        let tcp = addresses(&["127.0.0.1:1", "10.0.0.1:1", "[fe80::1]:1", "192.168.0.1:1"]);
        let udp = addresses(&["127.0.0.1:2"]);
        let told = tell(&tcp, &udp);
        assert_eq!(
            control(&told),
            addresses(&["10.0.0.1:1", "192.168.0.1:1", "[fe80::1]:1"])
        );
        assert_eq!(layers(&told), udp);
    }

    #[test]
    fn odd_addresses_are_left_out() {
        let told: Vec<Box<str>> = [
            "tcp/nonsense",
            "tcp/0.0.0.0:5",
            "tcp/224.0.0.1:5",
            "tcp/1.2.3.4:0",
            "quic/1.2.3.4:5",
            "",
        ]
        .map(Into::into)
        .to_vec();
        assert!(control(&told).is_empty());
        assert!(layers(&told).is_empty());
    }
}
