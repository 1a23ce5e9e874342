//! Where nodes can be reached, as their profiles tell it.

use std::net::{IpAddr, SocketAddr};

/// The most addresses that a profile tells.
const MAX_ADDRESSES: usize = 8;

/// How one that connections reach begins.
const TCP: &str = "tcp/";

/// What a profile tells of where this node listens: addresses that others may reach first.
pub(crate) fn tell(listening: &[SocketAddr]) -> Vec<Box<str>> {
    let text = |address: SocketAddr| format!("{TCP}{address}").into();
    most_useful(listening).map(text).collect()
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
    addresses.into_iter().take(MAX_ADDRESSES)
}

/// Where a node listens, by its profile. What cannot be read is left out.
pub(crate) fn told(told: &[Box<str>]) -> Vec<SocketAddr> {
    told.iter()
        .filter_map(|text| text.strip_prefix(TCP)?.parse().ok())
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
        assert_eq!(
            told(&tell(&tcp)),
            addresses(&["10.0.0.1:1", "192.168.0.1:1", "[fe80::1]:1"])
        );
    }

    #[test]
    fn odd_addresses_are_left_out() {
        let odd: Vec<Box<str>> = [
            "tcp/nonsense",
            "tcp/0.0.0.0:5",
            "tcp/224.0.0.1:5",
            "tcp/1.2.3.4:0",
            "quic/1.2.3.4:5",
            "",
        ]
        .map(Into::into)
        .to_vec();
        assert!(told(&odd).is_empty());
    }
}
