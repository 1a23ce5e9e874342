//! The mesh's control connections: who may connect, and messages in order between nodes.
//!
//! A [`Net`] listens on TCP, finds nodes of the local network by multicast DNS, joins those that
//! it is told of, and carries [messages](Channel) between nodes. A connection is TCP, inside it
//! everything encrypted with the mesh key (libp2p's pnet), inside that noise, which authenticates
//! both nodes' keys, and yamux, which carries a stream for each channel. Whoever lacks the mesh
//! key is refused before any of this speaks (`admission`).
//!
//! Connections are made when a message is sent to a peer of which an address is known, and closed
//! when they are idle. Two nodes use one connection, whoever dialled and however often
//! (`agreement`), and messages of one channel stay in order. They are lost only with a connection
//! that breaks, when the peer can't be reached, or when its queue is full.

mod address;
mod admission;
mod agreement;
mod behaviour;
mod channel;
mod control;
mod driver;
mod error;
mod file;
mod frames;
mod handler;
mod inbox;
mod join;
mod key;
mod lane;
mod net;
mod networks;
mod peer;
mod refusals;
mod state;
mod stats;
mod swarm;
#[cfg(test)]
mod tests;
mod text;
mod ticket;
mod timing;

pub use address::DEFAULT_PORT;
pub use channel::Channel;
pub use error::NetError;
pub use file::KeyFileError;
pub use inbox::{Events, NetEvent};
pub use key::{MeshKey, NodeKey};
pub use net::{Net, NetConfig};
pub use refusals::Refusal;
pub use stats::{Ban, ChannelStats, ConnectionStats, NetStats, PeerStats};
pub use text::TextError;
pub use ticket::{MAX_TICKET_ADDRESSES, Ticket};
