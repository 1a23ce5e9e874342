//! The switch: a bridge, a port for each host, and what is done to each port.
//!
//! A port is plugged straight into the bridge, so that an unspoilt link costs no more than the
//! kernel's own forwarding. A link that loses, delays or blocks packets is led through a
//! [`Relay`] instead:
//!
//! ```text
//! host ── eth0 ═ p3 ── bridge                          plain
//! host ── eth0 ═ p3 ── relay ── i3 ═ o3 ── bridge      relayed
//! ```
//!
//! A partition is several bridges.

use crate::{
    Direction, LabError, Shape,
    keeper::Keeper,
    netlink::{Interface, Netlink},
    relay::{Relay, Rules},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

/// The index of a host's interface to the lab.
pub(crate) const INTERFACE: u32 = 77;

/// Ports of hosts are this plus the host's number; the two ends by which a relay reaches the
/// bridge come behind them.
const PORTS: u32 = 1000;
const RELAY_INNER: u32 = 2000;
const RELAY_OUTER: u32 = 3000;
const BRIDGES: u32 = 4000;

/// Hosts that a lab has, at most.
pub const MOST_HOSTS: u8 = 200;

/// A gateway that a host may be told of, which nobody is.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);

pub(crate) fn ipv4(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, host)
}

pub(crate) fn ipv6(host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(host))
}

/// A locally administered address that shows the host's number.
pub(crate) fn hardware(host: u8) -> [u8; 6] {
    [0x02, 0x4d, 0, 0, 0, host]
}

/// The index of a host's port at the switch.
pub(crate) fn port_index(host: u8) -> u32 {
    PORTS + u32::from(host)
}

/// The host whose port has this index.
pub(crate) fn host_of_port(index: u32) -> Option<u8> {
    let number = index.checked_sub(PORTS)?;
    u8::try_from(number)
        .ok()
        .filter(|n| (1..=MOST_HOSTS).contains(n))
}

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) netlink: Netlink,
    ports: BTreeMap<u8, Port>,
    /// How many exist. Number 0 joins all that are in no partition.
    bridges: u32,
    multicast: bool,
}

/// What a port should be like, and the relay if it has one.
#[derive(Debug, Default)]
struct Port {
    /// Whether its host is up.
    present: bool,
    cut: bool,
    bridge: u32,
    outward: Shape,
    inward: Shape,
    /// Hosts whose packets do not arrive.
    blocked: BTreeSet<u8>,
    relay: Option<Relay>,
}

impl Port {
    fn rules(&self) -> Rules {
        Rules {
            outward: self.outward,
            inward: self.inward,
            blocked: self.blocked.iter().map(|host| hardware(*host)).collect(),
        }
    }
}

impl Network {
    pub(crate) fn new(netlink: Netlink) -> Result<Self, LabError> {
        let mut network = Self {
            netlink,
            ports: BTreeMap::new(),
            bridges: 0,
            multicast: true,
        };
        network.add_bridges(1)?;
        Ok(network)
    }

    fn add_bridges(&mut self, wanted: u32) -> Result<(), LabError> {
        while self.bridges < wanted {
            let index = BRIDGES + self.bridges;
            self.netlink
                .add_bridge(index, &format!("b{}", self.bridges))?;
            self.netlink.set_up(index, true)?;
            self.bridges += 1;
        }
        Ok(())
    }

    /// The port's end in the switch of a host that is about to boot.
    pub(crate) fn port_name(host: u8) -> String {
        format!("p{host}")
    }

    /// Connects a port that a host has just been given, as its link was before.
    pub(crate) fn host_up(&mut self, keeper: &Keeper, host: u8) -> Result<(), LabError> {
        self.port(host).present = true;
        self.connect(keeper, host)
    }

    /// Forgets the interfaces of a host that has gone.
    pub(crate) fn host_down(&mut self, host: u8) {
        let port = self.port(host);
        port.present = false;
        let relayed = port.relay.take().is_some();
        // The kernel removes it with the host's namespace, but later.
        let _ = self.netlink.remove(port_index(host));
        if relayed {
            let _ = self.netlink.remove(RELAY_INNER + u32::from(host));
        }
    }

    fn port(&mut self, host: u8) -> &mut Port {
        self.ports.entry(host).or_default()
    }

    /// Cuts or heals a link: the host's interface loses its carrier.
    pub(crate) fn set_cut(&mut self, host: u8, cut: bool) -> Result<(), LabError> {
        let port = self.port(host);
        port.cut = cut;
        if port.present {
            self.netlink.set_up(port_index(host), !cut)?;
        }
        Ok(())
    }

    /// Puts hosts in groups that do not hear of each other; others stay together.
    pub(crate) fn set_groups(
        &mut self,
        keeper: &Keeper,
        groups: &BTreeMap<u8, u32>,
    ) -> Result<(), LabError> {
        self.add_bridges(groups.values().max().unwrap_or(&0) + 1)?;
        for host in self.ports.keys().copied().collect::<Vec<_>>() {
            let bridge = groups.get(&host).copied().unwrap_or(0);
            if self.port(host).bridge != bridge {
                self.port(host).bridge = bridge;
                self.connect(keeper, host)?;
            }
        }
        Ok(())
    }

    pub(crate) fn set_blocked(
        &mut self,
        keeper: &Keeper,
        from: u8,
        to: u8,
        blocked: bool,
    ) -> Result<(), LabError> {
        let port = self.port(to);
        if blocked {
            port.blocked.insert(from);
        } else {
            port.blocked.remove(&from);
        }
        self.connect(keeper, to)
    }

    pub(crate) fn set_shape(
        &mut self,
        keeper: &Keeper,
        host: u8,
        direction: Direction,
        shape: Shape,
    ) -> Result<(), LabError> {
        let port = self.port(host);
        if direction != Direction::FromHost {
            port.inward = shape;
        }
        if direction != Direction::ToHost {
            port.outward = shape;
        }
        self.connect(keeper, host)
    }

    pub(crate) fn set_multicast(&mut self, keeper: &Keeper, on: bool) -> Result<(), LabError> {
        self.multicast = on;
        for host in self.ports.keys().copied().collect::<Vec<_>>() {
            self.connect(keeper, host)?;
        }
        Ok(())
    }

    /// What is done to a host's link, in words. `None`: nothing.
    pub(crate) fn describe(&self, host: u8) -> Option<String> {
        let port = self.ports.get(&host)?;
        let mut words = Vec::new();
        if port.cut {
            words.push("cut".to_owned());
        }
        if port.bridge > 0 {
            words.push(format!("partition {}", port.bridge));
        }
        for from in &port.blocked {
            words.push(format!("hears nothing of {from}"));
        }
        for (name, shape) in [("to it", port.inward), ("from it", port.outward)] {
            if shape != Shape::default() {
                words.push(format!("{name}: {shape}"));
            }
        }
        (!words.is_empty()).then(|| words.join(", "))
    }

    /// Makes the interfaces of a port as it should be.
    fn connect(&mut self, keeper: &Keeper, host: u8) -> Result<(), LabError> {
        let (index, multicast) = (port_index(host), self.multicast);
        let inner = RELAY_INNER + u32::from(host);
        let outer = RELAY_OUTER + u32::from(host);
        let port = self.ports.entry(host).or_default();
        if !port.present {
            return Ok(());
        }
        let netlink = &self.netlink;
        let bridge = Some(BRIDGES + port.bridge);
        let rules = port.rules();
        let upper = if rules == Rules::default() {
            if port.relay.take().is_some() {
                netlink.remove(inner)?;
            }
            index
        } else if let Some(relay) = &port.relay {
            relay.set_rules(rules);
            outer
        } else {
            netlink.set_bridge(index, None)?;
            let (near, far) = (format!("i{host}"), format!("o{host}"));
            let [near, far] = [(inner, &near), (outer, &far)].map(|(index, name)| Interface {
                index,
                name,
                hardware: None,
            });
            netlink.add_pair(&near, &far, None)?;
            netlink.set_up(inner, true)?;
            netlink.set_up(outer, true)?;
            let sockets = [keeper.packet_socket()?, keeper.packet_socket()?];
            port.relay = Some(Relay::start(sockets, [index, inner], rules)?);
            outer
        };
        netlink.set_bridge(upper, bridge)?;
        netlink.set_multicast(upper, multicast)?;
        netlink.set_up(index, !port.cut)
    }
}

/// Groups by host. Numbers start from 1: what is in no group stays in group 0.
pub(crate) fn groups(groups: &[&[u8]]) -> BTreeMap<u8, u32> {
    (1..)
        .zip(groups)
        .flat_map(|(number, group)| group.iter().map(move |host| (*host, number)))
        .collect()
}
