//! Real programs on hosts of their own, on one machine and without root.
//!
//! A [`Lab`] is a few network namespaces joined by a bridge, inside one user namespace. Each
//! [`Host`] has an address (`10.77.0.N`, `fd77::N`), a name, its own processes, home and runtime
//! directory, and no way out. Programs on it may themselves make user namespaces, mounts and
//! containers. Hosts can be killed whole, paused and booted again; links cut, blocked in one
//! direction, partitioned, slowed down; packets captured and searched.
//!
//! ```no_run
//! use maelstrom_lab::{Lab, LabConfig};
//! use std::time::Duration;
//!
//! let lab = Lab::start(&LabConfig::new(3))?;
//! let node = lab.on(2, "maelstrom-node").arg("--slots").arg("2").spawn()?;
//! lab.cut(2)?;
//! lab.heal(2)?;
//! let run = lab.on(1, "sh").args(["-c", "echo $HOSTNAME"]).run(Duration::from_secs(10))?;
//! assert_eq!(run.stdout, "host1\n");
//! lab.kill(2)?;
//! # let _ = node;
//! # Ok::<(), maelstrom_lab::LabError>(())
//! ```
//!
//! Whatever happens to the process that started a lab, nothing of it stays: see `keeper.rs`.

mod capture;
pub mod cli;
mod command;
mod error;
mod groups;
mod host;
mod host_init;
mod keeper;
mod lab;
pub mod mesh;
mod netlink;
mod network;
mod process;
mod programs;
mod relay;
mod wire;

pub use capture::{Capture, Captured};
pub use command::{Command, Exit, Finished, Process, Signal};
pub use error::LabError;
pub use host::Host;
pub use lab::{Lab, LabConfig};
pub use network::MOST_HOSTS;
pub use programs::program;
pub use relay::{Direction, Shape};
