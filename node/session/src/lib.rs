//! The session between the daemon of a machine and the clients on it.
//!
//! A client on a machine whose daemon runs doesn't lend the machine's slots a second time: it
//! gives its jobs to the daemon over a Unix socket, and builds layers in the daemon's store. This
//! crate has both ends: [`Server`] in the daemon, [`Session`] and [`SessionClient`] in clients.
//!
//! # Protocol
//!
//! Each end first sends a [greeting](hello) of fixed layout with its version; ends of different
//! versions say so and part. Then come frames: a little-endian `u32` length and a postcard
//! message. A client has at most [`WINDOW`] jobs with the daemon at a time and keeps the others,
//! so every queue has a bound. Only processes of the daemon's own user are heard.
//!
//! Jobs that may use the client's machine (bind mounts, a terminal, ...) need the client's own
//! process: for such a job the daemon keeps a slot free and says "go", and the client runs it.
//!
//! When the daemon goes away, the client goes on by itself: what had not ended is submitted to a
//! service that the client has made for that case. When the client goes away, the daemon cancels
//! its jobs.

mod client;
mod error;
mod frame;
mod hello;
mod message;
mod outgoing;
mod results;
mod server;
mod socket;

pub use client::{Fallback, SessionClient};
pub use error::SessionError;
pub use hello::Session;
pub use message::{Question, WINDOW, Welcome};
pub use server::{Answer, MAX_SESSIONS, Server};
pub use socket::{Socket, socket_path};
