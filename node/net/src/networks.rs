//! Which addresses are on this machine's own networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is of this machine or of a network that it has an interface in.
///
/// Whoever may send multicast here can claim any address; with this check, the claim leads to no
/// packet to the world outside.
pub(crate) fn is_on_local_network(ip: IpAddr) -> bool {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return false;
    };
    interfaces.into_iter().any(|interface| {
        let address = interface.address.as_ref();
        let mask = interface.netmask.as_ref();
        let v4 = |of: Option<&nix::sys::socket::SockaddrStorage>| Some(of?.as_sockaddr_in()?.ip());
        let v6 = |of: Option<&nix::sys::socket::SockaddrStorage>| Some(of?.as_sockaddr_in6()?.ip());
        match ip {
            IpAddr::V4(ip) => match (v4(address), v4(mask)) {
                (Some(address), Some(mask)) => same_network_v4(ip, address, mask),
                _ => false,
            },
            IpAddr::V6(ip) => match (v6(address), v6(mask)) {
                (Some(address), Some(mask)) => same_network_v6(ip, address, mask),
                _ => false,
            },
        }
    })
}

/// The addresses of this machine's interfaces, but for those that mean something on one link only.
pub(crate) fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
        let v6 = || Some(address.as_sockaddr_in6()?.ip()).filter(|ip| !ip.is_unicast_link_local());
        v4.or_else(|| v6().map(IpAddr::V6))
    });
    addresses.collect()
}

/// Neither is a network of which everything is part.
fn same_network_v4(ip: Ipv4Addr, own: Ipv4Addr, mask: Ipv4Addr) -> bool {
    let mask = mask.to_bits();
    mask != 0 && ip.to_bits() & mask == own.to_bits() & mask
}

fn same_network_v6(ip: Ipv6Addr, own: Ipv6Addr, mask: Ipv6Addr) -> bool {
    let mask = mask.to_bits();
    mask != 0 && ip.to_bits() & mask == own.to_bits() & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_world_outside_is_not_local() {
        assert!(is_on_local_network("127.0.0.1".parse().unwrap()));
        for own in own_addresses() {
            assert!(is_on_local_network(own), "{own}");
        }
        // A multicast address: no interface has one.
        assert!(!is_on_local_network("239.1.2.3".parse().unwrap()));
        assert!(!is_on_local_network("ff0e::1".parse().unwrap()));
        let (own, mask) = ([10, 1, 2, 3].into(), [255, 255, 0, 0].into());
        assert!(same_network_v4([10, 1, 9, 9].into(), own, mask));
        assert!(!same_network_v4([10, 2, 2, 3].into(), own, mask));
        assert!(!same_network_v4([10, 2, 2, 3].into(), own, [0; 4].into()));
    }
}
