//! Packets written to a pcap file, and questions about them.

use crate::{
    LabError,
    network::{self, host_of_port},
    relay::{bind, set_option},
};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags},
    fd::{AsRawFd, OwnedFd},
    io::Errno,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::File,
    io::{self, BufWriter, Write},
    mem::size_of,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

/// Packets being written to a file. Finish it to ask about them; dropping it ends it too.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<io::Result<u32>>>,
    file: PathBuf,
}

impl Capture {
    pub(crate) fn start(socket: OwnedFd, path: &Path, host: Option<u8>) -> Result<Self, LabError> {
        let doing = || format!("capturing packets to {}", path.display());
        let failed = |errno: Errno| LabError::step(doing())(errno.into());
        let file = File::create(path).map_err(LabError::step(doing()))?;
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 64 << 20);
        if host.is_none() {
            // Each packet goes in at one port and out of others: the first time is enough.
            set_option(&socket, libc::PACKET_IGNORE_OUTGOING, 1).map_err(failed)?;
        }
        bind(&socket, host.map_or(0, network::port_index)).map_err(failed)?;
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).map_err(failed)?;
        let stop = Arc::new(stop);
        let theirs = stop.clone();
        let thread = std::thread::Builder::new()
            .name("lab-capture".to_owned())
            .spawn(move || write_packets(&socket, &theirs, file))
            .map_err(LabError::step(doing()))?;
        Ok(Self {
            stop,
            thread: Some(thread),
            file: path.to_owned(),
        })
    }

    /// Ends the capture and reads it. Packets that were sent before are in it.
    ///
    /// # Errors
    ///
    /// The file could not be written or read.
    pub fn finish(mut self) -> Result<Captured, LabError> {
        let doing = format!("capturing packets to {}", self.file.display());
        let lost = self.stop().map_err(LabError::step(doing))?;
        let mut captured = Captured::read(&self.file)?;
        captured.lost = lost;
        Ok(captured)
    }

    fn stop(&mut self) -> io::Result<u32> {
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            _ => Err(io::Error::other("the thread that writes them has ended")),
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _ = self.stop();
        }
    }
}

/// The largest packet that is written whole, in bytes.
const LONGEST: usize = 256 << 10;

/// Writes packets until told to stop. Returns how many the kernel lost because this was too slow.
fn write_packets(socket: &OwnedFd, stop: &OwnedFd, file: File) -> io::Result<u32> {
    let mut file = BufWriter::with_capacity(1 << 20, file);
    file.write_all(&file_header())?;
    let mut buffer = vec![0; LONGEST];
    loop {
        let mut polled = [
            PollFd::new(socket, PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, None))?;
        let stopped = !polled[1].revents().is_empty();
        while let Some((interface, length)) = receive(socket, &mut buffer) {
            if host_of_port(interface).is_none() {
                continue;
            }
            let captured = length.min(buffer.len());
            file.write_all(&packet_header(captured, length))?;
            file.write_all(&buffer[..captured])?;
        }
        if stopped {
            file.flush()?;
            return Ok(lost(socket));
        }
    }
}

/// Takes a packet. Returns its interface and length. `None`: none is waiting.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Option<(u32, usize)> {
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut address_length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: buffer, address and its length live through the call and are as long as is said.
    let length = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_DONTWAIT | libc::MSG_TRUNC,
            (&raw mut address).cast(),
            &raw mut address_length,
        )
    };
    Some((address.sll_ifindex as u32, usize::try_from(length).ok()?))
}

fn lost(socket: &OwnedFd) -> u32 {
    let mut statistics = [0u32; 2]; // struct tpacket_stats: packets, drops
    let mut length = size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: the array lives through the call and is as long as is said.
    unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            statistics.as_mut_ptr().cast(),
            &raw mut length,
        );
    }
    statistics[1]
}

/// The format of libpcap with nanoseconds, of Ethernet frames.
const MAGIC: u32 = 0xa1b2_3c4d;

fn file_header() -> Vec<u8> {
    let mut header = MAGIC.to_le_bytes().to_vec();
    header.extend([2, 0, 4, 0]); // version 2.4
    header.extend([0; 8]); // time zone and accuracy, which nobody uses
    header.extend((LONGEST as u32).to_le_bytes());
    header.extend(1u32.to_le_bytes());
    header
}

fn packet_header(captured: usize, length: usize) -> [u8; 16] {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let mut header = [0; 16];
    header[..4].copy_from_slice(&(now.as_secs() as u32).to_le_bytes());
    header[4..8].copy_from_slice(&now.subsec_nanos().to_le_bytes());
    header[8..12].copy_from_slice(&(captured as u32).to_le_bytes());
    header[12..].copy_from_slice(&(length as u32).to_le_bytes());
    header
}

/// Packets that were captured.
#[derive(Debug)]
pub struct Captured {
    packets: Vec<Packet>,
    lost: u32,
}

#[derive(Debug)]
struct Packet {
    time: Duration,
    frame: Vec<u8>,
}

impl Captured {
    /// Reads a file that a [`Capture`] wrote.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is of another format.
    pub fn read(path: &Path) -> Result<Self, LabError> {
        let failed = || LabError::step(format!("reading the packets in {}", path.display()));
        let bytes = std::fs::read(path).map_err(failed())?;
        let packets = parse(&bytes)
            .ok_or_else(|| failed()(io::Error::other("it is not as a capture writes it")))?;
        Ok(Self { packets, lost: 0 })
    }

    /// How many packets there are.
    pub fn count(&self) -> usize {
        self.packets.len()
    }

    /// Bytes of all packets together.
    pub fn bytes(&self) -> u64 {
        self.packets.iter().map(|p| p.frame.len() as u64).sum()
    }

    /// Packets that are missing because the capture could not keep up.
    pub fn lost(&self) -> u32 {
        self.lost
    }

    /// Packets from or to an address that is none of the lab's, and requests for the hardware
    /// address of such a one. In words, each pair of addresses once.
    pub fn outsiders(&self) -> BTreeSet<String> {
        let endpoints = self.packets.iter().filter_map(|p| endpoints(&p.frame));
        endpoints
            .filter(|e| !of_lab(e.source) || !of_lab(e.destination))
            .map(|e| e.to_string())
            .collect()
    }

    /// Whether these bytes appear in a packet, or in what a TCP connection carried in one
    /// direction, where they may be split over packets.
    pub fn contains(&self, bytes: &[u8]) -> bool {
        let finder = memchr::memmem::Finder::new(bytes);
        self.packets
            .iter()
            .any(|packet| finder.find(&packet.frame).is_some())
            || self
                .streams()
                .values()
                .any(|stream| finder.find(stream).is_some())
    }

    /// When the first packet was seen that a host sent by TCP to this port, since the Unix epoch.
    pub fn first_tcp_to(&self, port: u16) -> Option<Duration> {
        let to_port = |packet: &&Packet| tcp(&packet.frame).is_some_and(|s| s.flow.1.1 == port);
        self.packets.iter().find(to_port).map(|packet| packet.time)
    }

    /// What TCP connections carried, by sender and receiver.
    fn streams(&self) -> BTreeMap<Flow, Vec<u8>> {
        let mut segments: BTreeMap<Flow, (u32, BTreeMap<u32, &[u8]>)> = BTreeMap::new();
        for packet in &self.packets {
            if let Some(segment) = tcp(&packet.frame) {
                let (first, flow) = segments
                    .entry(segment.flow)
                    .or_insert_with(|| (segment.sequence, BTreeMap::new()));
                // Counted from a megabyte before the first, which may have overtaken others.
                let offset = segment.sequence.wrapping_sub(first.wrapping_sub(1 << 20));
                let longest = flow.entry(offset).or_insert(segment.payload);
                if longest.len() < segment.payload.len() {
                    *longest = segment.payload;
                }
            }
        }
        let join = |flow: BTreeMap<u32, &[u8]>| {
            let mut stream: Vec<u8> = Vec::new();
            let mut end = None::<u32>;
            for (offset, payload) in flow {
                let known = end.map_or(0, |end| end.saturating_sub(offset)) as usize;
                if let Some(new) = payload.get(known..) {
                    stream.extend(new);
                    end = Some(offset.saturating_add(payload.len() as u32));
                }
            }
            stream
        };
        let streams = segments.into_iter();
        streams
            .map(|(flow, (_, segments))| (flow, join(segments)))
            .collect()
    }
}

fn parse(bytes: &[u8]) -> Option<Vec<Packet>> {
    let number = |bytes: &[u8], at: usize| {
        let four = bytes.get(at..at + 4)?;
        Some(u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
    };
    if number(bytes, 0)? != MAGIC {
        return None;
    }
    let mut rest = bytes.get(24..)?;
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let length = number(rest, 8)? as usize;
        packets.push(Packet {
            time: Duration::new(u64::from(number(rest, 0)?), number(rest, 4)?),
            frame: rest.get(16..16 + length)?.to_vec(),
        });
        rest = &rest[16 + length..];
    }
    Some(packets)
}

/// Who a packet is from and to.
struct Endpoints {
    source: IpAddr,
    destination: IpAddr,
    protocol: &'static str,
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} → {}",
            self.protocol, self.source, self.destination
        )
    }
}

const ETHERNET: usize = 14;

fn endpoints(frame: &[u8]) -> Option<Endpoints> {
    let kind = [*frame.get(12)?, *frame.get(13)?];
    let body = frame.get(ETHERNET..)?;
    let v4 = |at: usize| {
        let octets: [u8; 4] = body.get(at..at + 4)?.try_into().ok()?;
        Some(IpAddr::from(Ipv4Addr::from(octets)))
    };
    let v6 = |at: usize| {
        let octets: [u8; 16] = body.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::from(Ipv6Addr::from(octets)))
    };
    let protocol = |number: u8| match number {
        1 | 58 => "ICMP",
        2 => "IGMP",
        6 => "TCP",
        17 => "UDP",
        _ => "IP",
    };
    Some(match kind {
        [0x08, 0x00] => Endpoints {
            source: v4(12)?,
            destination: v4(16)?,
            protocol: protocol(*body.get(9)?),
        },
        [0x08, 0x06] => Endpoints {
            source: v4(14)?,
            destination: v4(24)?,
            protocol: "ARP",
        },
        [0x86, 0xdd] => Endpoints {
            source: v6(8)?,
            destination: v6(24)?,
            protocol: protocol(*body.get(6)?),
        },
        _ => return None,
    })
}

/// Whether an address is a host's, or one that stays on the link by its nature.
fn of_lab(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.octets()[..3] == network::ipv4(0).octets()[..3]
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.is_unspecified()
        }
        IpAddr::V6(v6) => {
            v6.segments()[..4] == network::ipv6(0).segments()[..4]
                || v6.is_unicast_link_local()
                || v6.is_multicast()
                || v6.is_unspecified()
        }
    }
}

/// Sender and receiver, with their ports.
type Flow = ((IpAddr, u16), (IpAddr, u16));

struct Segment<'a> {
    flow: Flow,
    sequence: u32,
    payload: &'a [u8],
}

fn tcp(frame: &[u8]) -> Option<Segment<'_>> {
    let endpoints = endpoints(frame).filter(|e| e.protocol == "TCP")?;
    let body = &frame[ETHERNET..];
    let (header, end) = match endpoints.source {
        IpAddr::V4(_) => {
            let total = usize::from(u16::from_be_bytes([body[2], body[3]]));
            // Very large packets handed on as one say 0.
            (
                usize::from(body[0] & 15) * 4,
                if total == 0 { body.len() } else { total },
            )
        }
        IpAddr::V6(_) => (40, body.len()),
    };
    let segment = body.get(header..end.min(body.len()))?;
    let port = |at: usize| {
        Some(u16::from_be_bytes([
            *segment.get(at)?,
            *segment.get(at + 1)?,
        ]))
    };
    let sequence: [u8; 4] = segment.get(4..8)?.try_into().ok()?;
    let data = usize::from(*segment.get(12)? >> 4) * 4;
    Some(Segment {
        flow: (
            (endpoints.source, port(0)?),
            (endpoints.destination, port(2)?),
        ),
        sequence: u32::from_be_bytes(sequence),
        payload: segment.get(data..)?,
    })
}
