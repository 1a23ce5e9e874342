//! The few requests of rtnetlink(7) that the lab makes.
//!
//! Interfaces get indices chosen here, so nothing ever has to be looked up.

use crate::LabError;
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink,
    },
};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Mutex,
};

/// The loopback interface of every network namespace.
pub(crate) const LOOPBACK: u32 = 1;

// Values that linux/if_link.h, linux/if_bridge.h and linux/veth.h define and `libc` lacks.
const VETH_INFO_PEER: u16 = 1;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_BRPORT_MCAST_FLOOD: u16 = 27;

/// An rtnetlink socket, bound to the network namespace it was opened in.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Mutex<OwnedFd>,
}

/// Opens a socket in the network namespace of the caller.
pub(crate) fn open() -> Result<OwnedFd, Errno> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // protocol 0 is rtnetlink
    )?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}

impl Netlink {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self {
            socket: Mutex::new(socket),
        }
    }

    /// A bridge that forwards at once and floods all multicast.
    pub(crate) fn add_bridge(&self, index: u32, name: &str) -> Result<(), LabError> {
        let mut request = Request::link(libc::RTM_NEWLINK, index, CREATE);
        request.text(libc::IFLA_IFNAME, name);
        request.nested(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "bridge");
            info.nested(libc::IFLA_INFO_DATA, |data| {
                data.number(IFLA_BR_STP_STATE, 0);
                data.bytes(IFLA_BR_MCAST_SNOOPING, &[0]);
            });
        });
        self.send(request, || format!("making the bridge {name}"))
    }

    /// A pair of connected interfaces, the second of which may be in another namespace.
    pub(crate) fn add_pair(
        &self,
        near: &Interface<'_>,
        far: &Interface<'_>,
        far_namespace: Option<BorrowedFd<'_>>,
    ) -> Result<(), LabError> {
        let mut request = Request::link(libc::RTM_NEWLINK, near.index, CREATE);
        request.interface(near);
        request.nested(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "veth");
            info.nested(libc::IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |peer| {
                    peer.raw(&link_header(libc::AF_UNSPEC, far.index, 0, 0));
                    peer.interface(far);
                    if let Some(namespace) = far_namespace {
                        let descriptor = rustix::fd::AsRawFd::as_raw_fd(&namespace);
                        peer.number(libc::IFLA_NET_NS_FD, descriptor as u32);
                    }
                });
            });
        });
        self.send(request, || {
            format!("making the interfaces {} and {}", near.name, far.name)
        })
    }

    /// Removes an interface, and its peer if it has one.
    pub(crate) fn remove(&self, index: u32) -> Result<(), LabError> {
        self.send(Request::link(libc::RTM_DELLINK, index, 0), || {
            format!("removing interface {index}")
        })
    }

    /// Brings an interface up or down.
    pub(crate) fn set_up(&self, index: u32, up: bool) -> Result<(), LabError> {
        let flags = if up { libc::IFF_UP as u32 } else { 0 };
        let header = link_header(libc::AF_UNSPEC, index, flags, libc::IFF_UP as u32);
        let request = Request::new(libc::RTM_NEWLINK, 0, &header);
        self.send(request, || {
            let direction = if up { "up" } else { "down" };
            format!("bringing interface {index} {direction}")
        })
    }

    /// Plugs an interface into a bridge, or out of the one that it is in.
    pub(crate) fn set_bridge(&self, index: u32, bridge: Option<u32>) -> Result<(), LabError> {
        let mut request = Request::link(libc::RTM_NEWLINK, index, 0);
        request.number(libc::IFLA_MASTER, bridge.unwrap_or(0));
        self.send(request, || format!("plugging interface {index} over"))
    }

    /// Whether a bridge sends multicast out of this port.
    pub(crate) fn set_multicast(&self, port: u32, flood: bool) -> Result<(), LabError> {
        let header = link_header(libc::AF_BRIDGE, port, 0, 0);
        let mut request = Request::new(libc::RTM_SETLINK, 0, &header);
        request.nested(libc::IFLA_PROTINFO | libc::NLA_F_NESTED as u16, |info| {
            info.bytes(IFLA_BRPORT_MCAST_FLOOD, &[u8::from(flood)]);
        });
        self.send(request, || {
            format!("setting the multicast of interface {port}")
        })
    }

    /// Gives an interface an address.
    pub(crate) fn add_ipv4(&self, index: u32, address: Ipv4Addr) -> Result<(), LabError> {
        self.add_address(libc::AF_INET, index, 24, &address.octets())
    }

    /// Gives an interface an address, which is usable at once.
    pub(crate) fn add_ipv6(&self, index: u32, address: Ipv6Addr) -> Result<(), LabError> {
        self.add_address(libc::AF_INET6, index, 64, &address.octets())
    }

    fn add_address(
        &self,
        family: libc::c_int,
        index: u32,
        prefix: u8,
        address: &[u8],
    ) -> Result<(), LabError> {
        let flags = if family == libc::AF_INET6 {
            libc::IFA_F_NODAD as u8
        } else {
            0
        };
        let mut header = vec![family as u8, prefix, flags, libc::RT_SCOPE_UNIVERSE];
        header.extend(index.to_ne_bytes());
        let mut request = Request::new(libc::RTM_NEWADDR, CREATE, &header);
        request.bytes(libc::IFA_LOCAL, address);
        request.bytes(libc::IFA_ADDRESS, address);
        self.send(request, || "giving the host its address".to_owned())
    }

    /// A route of IPv4, by a gateway or on the link itself.
    pub(crate) fn add_route(
        &self,
        index: u32,
        destination: Ipv4Addr,
        prefix: u8,
        gateway: Option<Ipv4Addr>,
    ) -> Result<(), LabError> {
        let scope = if gateway.is_some() {
            libc::RT_SCOPE_UNIVERSE
        } else {
            libc::RT_SCOPE_LINK
        };
        let mut header = vec![libc::AF_INET as u8, prefix, 0, 0];
        header.extend([
            libc::RT_TABLE_MAIN,
            libc::RTPROT_STATIC,
            scope,
            libc::RTN_UNICAST,
        ]);
        header.extend(0u32.to_ne_bytes());
        let mut request = Request::new(libc::RTM_NEWROUTE, CREATE, &header);
        request.bytes(libc::RTA_DST, &destination.octets());
        if let Some(gateway) = gateway {
            request.bytes(libc::RTA_GATEWAY, &gateway.octets());
        }
        request.number(libc::RTA_OIF, index);
        self.send(request, || {
            format!("adding a route to {destination}/{prefix}")
        })
    }

    /// Says which hardware address a neighbour has, so that nobody needs to answer for it.
    pub(crate) fn add_neighbour(
        &self,
        index: u32,
        address: Ipv4Addr,
        hardware: [u8; 6],
    ) -> Result<(), LabError> {
        const NDA_DST: u16 = 1;
        const NDA_LLADDR: u16 = 2;
        const NUD_PERMANENT: u16 = 0x80;
        let mut header = vec![libc::AF_INET as u8, 0, 0, 0];
        header.extend(index.to_ne_bytes());
        header.extend(NUD_PERMANENT.to_ne_bytes());
        header.extend([0, 0]);
        let mut request = Request::new(libc::RTM_NEWNEIGH, CREATE, &header);
        request.bytes(NDA_DST, &address.octets());
        request.bytes(NDA_LLADDR, &hardware);
        self.send(request, || format!("adding the neighbour {address}"))
    }

    fn send(&self, request: Request, doing: impl Fn() -> String) -> Result<(), LabError> {
        let socket = self.socket.lock().unwrap_or_else(|e| e.into_inner());
        exchange(socket.as_fd(), request).map_err(|errno| LabError::Step {
            doing: doing(),
            error: io::Error::from(errno),
        })
    }
}

/// Sends a request and waits for the kernel's answer.
fn exchange(socket: BorrowedFd<'_>, request: Request) -> Result<(), Errno> {
    rustix::net::send(socket, &request.finish(), SendFlags::empty())?;
    let mut answer = [0; 8192];
    loop {
        let (count, _) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(socket, &mut answer, RecvFlags::empty())
        })?;
        let kind = answer.get(4..6).map(|b| u16::from_ne_bytes([b[0], b[1]]));
        if count < 20 || kind != Some(libc::NLMSG_ERROR as u16) {
            continue;
        }
        let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
        return match code {
            0 => Ok(()),
            code => Err(Errno::from_raw_os_error(-code)),
        };
    }
}

/// An interface to be made.
pub(crate) struct Interface<'a> {
    pub(crate) index: u32,
    pub(crate) name: &'a str,
    pub(crate) hardware: Option<[u8; 6]>,
}

/// Flags of a request that makes something.
const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;

/// A message under construction: header, then attributes, each aligned to four bytes.
struct Request {
    bytes: Vec<u8>,
}

impl Request {
    fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let flags = flags | (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]); // sequence number and port: one request at a time needs neither
        bytes.extend(header);
        Self { bytes }
    }

    fn link(kind: u16, index: u32, flags: u16) -> Self {
        Self::new(kind, flags, &link_header(libc::AF_UNSPEC, index, 0, 0))
    }

    fn interface(&mut self, interface: &Interface<'_>) {
        self.text(libc::IFLA_IFNAME, interface.name);
        if let Some(hardware) = interface.hardware {
            self.bytes(libc::IFLA_ADDRESS, &hardware);
        }
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |attribute| attribute.raw(value));
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat());
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    fn nested(&mut self, kind: u16, content: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        content(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}

/// `struct ifinfomsg`.
fn link_header(family: libc::c_int, index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut header = vec![family as u8, 0, 0, 0];
    header.extend(index.to_ne_bytes());
    header.extend(flags.to_ne_bytes());
    header.extend(change.to_ne_bytes());
    header
}
