//! What goes wrong with hosts, nodes and links.

use super::Mesh;
use crate::{Direction, LabError, Shape, Signal};
use rand::{RngExt, rngs::SmallRng, seq::IndexedRandom};
use std::{fmt, time::Duration};

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// A host dies. It comes back after the time, with a new node.
    Kill(u8, Option<Duration>),
    /// Only the node dies, and is started again after the time.
    KillNode(u8, Option<Duration>),
    /// The node is asked to end, and drains.
    StopNode(u8),
    /// A host stands still.
    Pause(u8, Duration),
    /// A host's cable is pulled.
    Cut(u8, Duration),
    /// Packets from one host to another are lost.
    Block(u8, u8, Duration),
    /// A link is slow, late and lossy.
    Spoil(u8, Duration),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(host, None) => write!(f, "kill {host}"),
            Self::Kill(host, Some(time)) => write!(f, "kill {host}, boot after {time:?}"),
            Self::KillNode(host, None) => write!(f, "kill the node of {host}"),
            Self::KillNode(host, Some(time)) => {
                write!(f, "kill the node of {host}, restart after {time:?}")
            }
            Self::StopNode(host) => write!(f, "stop the node of {host}"),
            Self::Pause(host, time) => write!(f, "pause {host} for {time:?}"),
            Self::Cut(host, time) => write!(f, "cut {host} for {time:?}"),
            Self::Block(from, to, time) => write!(f, "block {from} to {to} for {time:?}"),
            Self::Spoil(host, time) => write!(f, "spoil the link of {host} for {time:?}"),
        }
    }
}

impl Fault {
    /// A random one for a mesh of so many hosts.
    pub(super) fn draw(random: &mut SmallRng, hosts: u8, local_daemon: bool) -> Self {
        let other = random.random_range(2..=hosts);
        let any = random.random_range(1..=hosts);
        let with_node = if local_daemon { any } else { other };
        let back = random
            .random_bool(0.5)
            .then(|| Duration::from_millis(random.random_range(100..4000)));
        // Mostly short; now and then longer than it takes to be given up.
        let times_ms = [200, 500, 1000, 1000, 3000, 10_000, 20_000, 60_000];
        let time = Duration::from_millis(*times_ms.choose(random).unwrap_or(&1000));
        match random.random_range(0..8) {
            0 | 1 => Self::Kill(other, back),
            2 => Self::KillNode(with_node, back),
            3 => Self::StopNode(other),
            4 => Self::Pause(other, time),
            5 => Self::Cut(any, time),
            6 => Self::Block(any, if any == other { 1 } else { other }, time),
            _ => Self::Spoil(any, time),
        }
    }

    /// How long it lasts. `None`: it is not undone.
    pub fn lasts(&self) -> Option<Duration> {
        match self {
            Self::Kill(_, back) | Self::KillNode(_, back) => *back,
            Self::StopNode(_) => None,
            Self::Pause(_, time)
            | Self::Cut(_, time)
            | Self::Block(_, _, time)
            | Self::Spoil(_, time) => Some(*time),
        }
    }

    /// Lets it happen.
    ///
    /// # Errors
    ///
    /// The lab cannot do it; that the host is down already is none.
    pub fn begin(&self, mesh: &Mesh) -> Result<(), LabError> {
        let lab = mesh.lab();
        unless_it_met_another(match *self {
            Self::Kill(host, _) => {
                mesh.take_node(host);
                lab.kill(host)
            }
            Self::KillNode(host, _) => signal_node(mesh, host, Signal::KILL),
            Self::StopNode(host) => signal_node(mesh, host, Signal::TERM),
            Self::Pause(host, _) => lab.pause(host),
            Self::Cut(host, _) => lab.cut(host),
            Self::Block(from, to, _) => lab.block(from, to),
            Self::Spoil(host, _) => {
                let shape = Shape {
                    loss: 0.02,
                    ..Shape::slow(20, 20)
                };
                lab.shape(host, Direction::Both, shape)
            }
        })
    }

    /// Undoes it. Nodes that are started again have so many slots.
    ///
    /// # Errors
    ///
    /// The lab cannot do it, or a node does not start.
    pub fn end(&self, mesh: &Mesh, slots: u16) -> Result<(), LabError> {
        let lab = mesh.lab();
        let restart_node = |host| match mesh.has_node(host) {
            // Another fault has done so.
            true => Ok(()),
            false => mesh.start_node(host, slots, &[]),
        };
        unless_it_met_another(match *self {
            Self::Kill(host, _) => lab.boot(host).and_then(|()| restart_node(host)),
            Self::KillNode(host, _) => restart_node(host),
            Self::StopNode(_) => Ok(()),
            Self::Pause(host, _) => lab.resume(host),
            Self::Cut(host, _) => lab.heal(host),
            Self::Block(from, to, _) => lab.unblock(from, to),
            Self::Spoil(host, _) => lab.shape(host, Direction::Both, Shape::default()),
        })
    }
}

/// Two faults may meet at one host.
fn unless_it_met_another(result: Result<(), LabError>) -> Result<(), LabError> {
    match result {
        Err(LabError::Down(_) | LabError::Up(_)) => Ok(()),
        result => result,
    }
}

fn signal_node(mesh: &Mesh, host: u8, signal: Signal) -> Result<(), LabError> {
    match mesh.take_node(host) {
        Some(process) => process.signal(signal),
        None => Ok(()),
    }
}
