//! A link that loses, delays or blocks packets, in one thread between two packet sockets.
//!
//! Packets come and go as the kernel has them, with their offloads (up to 64 KiB handed on as
//! one, checksums not yet computed), so that a relay costs a copy in each direction and no more.

use crate::LabError;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec},
    fd::{AsFd, AsRawFd, OwnedFd},
    io::Errno,
    net::{RecvFlags, SendFlags},
};
use std::{
    collections::VecDeque,
    fmt,
    mem::size_of,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Which way packets go, as the host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// What the host sends.
    FromHost,
    /// What the host receives.
    ToHost,
    /// Both.
    Both,
}

/// How a link treats packets in one direction. The default changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Shape {
    /// Bits a second, of whole frames. `None`: no limit. Up to 100 ms of packets (64 KiB at
    /// least) wait their turn, more are lost.
    pub rate: Option<u64>,
    /// Added to each packet's way.
    pub latency: Duration,
    /// The share of packets that are lost, from 0 to 1. What a host hands to its interface as one
    /// packet, up to 64 KiB to be split by it, is kept or lost as one.
    pub loss: f64,
}

impl Shape {
    /// Loses everything, without a word to anybody.
    pub fn silent() -> Self {
        Self {
            loss: 1.0,
            ..Self::default()
        }
    }

    /// A link of so many megabits a second with a latency in milliseconds.
    pub fn slow(megabits_per_second: u64, latency_ms: u64) -> Self {
        Self {
            rate: Some(megabits_per_second * 1_000_000),
            latency: Duration::from_millis(latency_ms),
            loss: 0.0,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.loss >= 1.0 {
            return f.write_str("silent");
        }
        match self.rate {
            Some(rate) => write!(f, "{} kbit/s", rate / 1000)?,
            None => f.write_str("no limit")?,
        }
        if !self.latency.is_zero() {
            write!(f, ", {:?} late", self.latency)?;
        }
        if self.loss > 0.0 {
            write!(f, ", {} % lost", self.loss * 100.0)?;
        }
        Ok(())
    }
}

/// What a relay does.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Rules {
    pub(crate) outward: Shape,
    pub(crate) inward: Shape,
    /// Senders whose packets do not go in.
    pub(crate) blocked: Vec<[u8; 6]>,
}

/// A running relay. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    wake: OwnedFd,
    orders: Mutex<Orders>,
}

#[derive(Debug)]
struct Orders {
    rules: Rules,
    stop: bool,
}

impl Relay {
    /// Starts a relay between a host's port and the way to the bridge, which are bound here to
    /// these interfaces.
    pub(crate) fn start(
        sockets: [OwnedFd; 2],
        interfaces: [u32; 2],
        rules: Rules,
    ) -> Result<Self, LabError> {
        let failed = |errno: Errno| LabError::step("starting a relay")(errno.into());
        for (socket, interface) in sockets.iter().zip(interfaces) {
            set_option(socket, libc::PACKET_IGNORE_OUTGOING, 1).map_err(failed)?;
            set_option(socket, libc::PACKET_VNET_HDR, 1).map_err(failed)?;
            // As much as the machine allows: bursts must not be lost here.
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size(socket, 64 << 20);
            let _ = rustix::net::sockopt::set_socket_send_buffer_size(socket, 64 << 20);
            bind(socket, interface).map_err(failed)?;
        }
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let shared = Arc::new(Shared {
            wake: wake.map_err(failed)?,
            orders: Mutex::new(Orders { rules, stop: false }),
        });
        let seed = u64::from(interfaces[0]);
        let theirs = shared.clone();
        let thread = std::thread::Builder::new()
            .name("lab-relay".to_owned())
            .spawn(move || Loop::new(sockets, theirs, seed).run())
            .map_err(LabError::step("starting a relay"))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Changes what it does from now on.
    pub(crate) fn set_rules(&self, rules: Rules) {
        self.order(|orders| orders.rules = rules);
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut self.shared.orders.lock().unwrap_or_else(|e| e.into_inner()));
        let _ = rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes());
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.order(|orders| orders.stop = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sets an option of a packet socket.
pub(crate) fn set_option(
    socket: &OwnedFd,
    option: libc::c_int,
    value: libc::c_int,
) -> Result<(), Errno> {
    // SAFETY: the value lives through the call and has the length that is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(crate::process::last_errno()),
    }
}

/// Has a packet socket receive all packets of an interface; those of all interfaces for 0.
pub(crate) fn bind(socket: &OwnedFd, interface: u32) -> Result<(), Errno> {
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = interface as i32;
    // SAFETY: the address lives through the call and has the length that is given.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(crate::process::last_errno()),
    }
}

/// `struct virtio_net_hdr`, which comes before each frame.
const OFFLOADS: usize = 10;

/// A frame with all that may be handed on as one.
const LARGEST: usize = OFFLOADS + 14 + (64 << 10);

/// Frames taken from one side before the other has its turn.
const BATCH: usize = 64;

struct Loop {
    sockets: [OwnedFd; 2],
    shared: Arc<Shared>,
    rules: Rules,
    /// What comes from socket 0 (the host) and from socket 1.
    lanes: [Lane; 2],
    random: SmallRng,
    buffer: Vec<u8>,
}

/// Packets on their way in one direction.
#[derive(Default)]
struct Lane {
    waiting: VecDeque<(Instant, Vec<u8>)>,
    /// When the last bit of what has been taken has left, at the lane's rate.
    busy_until: Option<Instant>,
}

impl Loop {
    fn new(sockets: [OwnedFd; 2], shared: Arc<Shared>, seed: u64) -> Self {
        Self {
            sockets,
            shared,
            rules: Rules::default(),
            lanes: Default::default(),
            random: SmallRng::seed_from_u64(seed),
            buffer: vec![0; LARGEST],
        }
    }

    fn run(mut self) {
        loop {
            {
                let orders = self.shared.orders.lock().unwrap_or_else(|e| e.into_inner());
                if orders.stop {
                    return;
                }
                if self.rules != orders.rules {
                    self.rules = orders.rules.clone();
                }
            }
            let now = Instant::now();
            self.deliver(now);
            let next = self.lanes.iter().filter_map(|lane| lane.waiting.front());
            let wait = next
                .map(|(due, _)| due.saturating_duration_since(now))
                .min();
            let wait = wait.and_then(|wait| Timespec::try_from(wait).ok());
            let mut polled = [
                PollFd::new(&self.sockets[0], PollFlags::IN),
                PollFd::new(&self.sockets[1], PollFlags::IN),
                PollFd::from_borrowed_fd(self.shared.wake.as_fd(), PollFlags::IN),
            ];
            match rustix::event::poll(&mut polled, wait.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            let ready = polled.map(|p| !p.revents().is_empty());
            if ready[2] {
                let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
            }
            for side in [0, 1] {
                if ready[side] {
                    self.take(side);
                }
            }
        }
    }

    /// Takes what has come from one side.
    fn take(&mut self, side: usize) {
        for _ in 0..BATCH {
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            let length = match rustix::net::recv(&self.sockets[side], &mut self.buffer, flags) {
                Ok((_, length)) => length,
                Err(Errno::INTR) => continue,
                // Nothing left, or the interface went down: it may come up again.
                Err(_) => return,
            };
            if length > self.buffer.len() || length < OFFLOADS + 14 {
                continue;
            }
            let frame = &self.buffer[..length];
            let shape = if side == 0 {
                self.rules.outward
            } else {
                self.rules.inward
            };
            let sender = &frame[OFFLOADS + 6..OFFLOADS + 12];
            if side == 1 && self.rules.blocked.iter().any(|blocked| blocked == sender) {
                continue;
            }
            if shape.loss > 0.0 && self.random.random::<f64>() < shape.loss {
                continue;
            }
            let lane = &mut self.lanes[side];
            match lane.admit(shape, length - OFFLOADS, Instant::now()) {
                Fate::Now => send(&self.sockets[1 - side], frame),
                Fate::At(due) => lane.waiting.push_back((due, frame.to_vec())),
                Fate::Lost => {}
            }
        }
    }

    /// Sends on what is due.
    fn deliver(&mut self, now: Instant) {
        for (side, lane) in self.lanes.iter_mut().enumerate() {
            while lane.waiting.front().is_some_and(|(due, _)| *due <= now) {
                if let Some((_, frame)) = lane.waiting.pop_front() {
                    send(&self.sockets[1 - side], &frame);
                }
            }
        }
    }
}

/// What becomes of a packet.
#[derive(Debug, PartialEq)]
enum Fate {
    Now,
    At(Instant),
    Lost,
}

impl Lane {
    fn admit(&mut self, shape: Shape, bytes: usize, now: Instant) -> Fate {
        let Some(rate) = shape.rate.filter(|rate| *rate > 0) else {
            self.busy_until = None;
            return match (shape.latency.is_zero(), self.waiting.back()) {
                (true, None) => Fate::Now,
                // Order is kept when the shape changes.
                (_, last) => Fate::At(last.map_or(now, |l| l.0).max(now + shape.latency)),
            };
        };
        let time = |bytes: usize| Duration::from_secs_f64(bytes as f64 * 8.0 / rate as f64);
        let free = self.busy_until.unwrap_or(now).max(now);
        if free - now > Duration::from_millis(100).max(time(64 << 10)) {
            return Fate::Lost;
        }
        let sent = free + time(bytes);
        self.busy_until = Some(sent);
        let last = self.waiting.back().map_or(now, |l| l.0);
        Fate::At((sent + shape.latency).max(last))
    }
}

/// A frame that cannot be sent is lost, as on any link.
fn send(socket: &OwnedFd, frame: &[u8]) {
    let _ = rustix::io::retry_on_intr(|| rustix::net::send(socket, frame, SendFlags::empty()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_spaces_packets_and_loses_what_waits_too_long() {
        let now = Instant::now();
        let shape = Shape::slow(8, 5); // a megabyte a second
        let mut lane = Lane::default();
        let due = |fate: Fate| match fate {
            Fate::At(due) => (due - now).as_millis(),
            fate => panic!("{fate:?}"),
        };
        assert_eq!(due(lane.admit(shape, 1000, now)), 6);
        assert_eq!(due(lane.admit(shape, 9000, now)), 15);
        let fates: Vec<_> = (0..120).map(|_| lane.admit(shape, 1000, now)).collect();
        let lost = fates.iter().filter(|fate| **fate == Fate::Lost).count();
        assert_eq!(lost, 29); // 100 ms and the packet that passes them
    }

    #[test]
    fn packets_keep_their_order_when_a_latency_goes() {
        let now = Instant::now();
        let mut lane = Lane::default();
        let Fate::At(due) = lane.admit(Shape::slow(1000, 50), 100, now) else {
            panic!("it waits")
        };
        lane.waiting.push_back((due, Vec::new()));
        assert_eq!(lane.admit(Shape::default(), 100, now), Fate::At(due));
        lane.waiting.clear();
        assert_eq!(lane.admit(Shape::default(), 100, now), Fate::Now);
    }
}
