//! How one job runs here: launcher, slots, containers, outcomes.
//!
//! Four processes stand between a client and a program:
//!
//! ```text
//! client ── launcher ── slot ── init ── program
//!           one, small  one a   process 1 of the container's
//!                       slot    namespaces; one a job
//! ```
//!
//! The client forks the [`Launcher`] before it has threads. The launcher enters a user namespace
//! and forks a process for each [`Slot`]. A slot keeps what jobs can share (a tiny mount tree to
//! copy, network namespaces) and forks an init into new namespaces for each job. Init stacks the
//! layers, mounts what the job asks for, drops what it does not need, and runs the program as its
//! child. When any of the four ends, everything to its right is killed by the kernel.

mod base;
mod cgroup;
mod check;
mod container;
mod exec;
mod init;
mod job;
mod kept;
mod last_words;
mod launcher;
mod network;
mod order;
mod outputs;
mod prepared;
mod rewind;
mod seccomp;
mod settings;
mod slot;
mod slot_process;
mod sys;
mod template;
mod template_init;
mod template_message;
mod trace;
mod watch;
mod wire;
mod writable;

pub use check::{Finding, FindingResult, check};
pub use job::{
    ContainerJob, ContainerMount, JobNetwork, Privileges, Root, Template, TemplateProgram,
    TerminalSize,
};
pub use launcher::{Launcher, StartError};
pub use outputs::is_output;
pub use slot::{Canceller, RunError, Slot};
