//! What nodes say to each other about the bundles they pull and serve.

use crate::Pieces;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The most pieces in one [`Body::Ask`].
pub const MAX_ASKED: usize = 64;
/// The most nodes in one [`Body::Hello`].
pub const MAX_PEERS: usize = 16;

/// What a bundle is called: the hash that names the layer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BundleId(pub [u8; 32]);

impl fmt::Debug for BundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One message between two nodes about one bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message<N> {
    /// Which bundle.
    pub bundle: BundleId,
    /// What it says.
    pub body: Body<N>,
}

/// The protocol between a node P that lacks pieces and a node Q that has some; most nodes are
/// both. Control only: the bytes of a piece travel on the transport that drives this.
///
/// Two nodes that are linked tell each other which pieces they have:
///
/// ```text
/// P ->[Join(have: none)]                     Q      repeated until answered
/// Q ->[Hello(have: all, linked, peers: R S)] P      P may join R and S too
/// P ->[Have(0 7 12)]                         Q      whenever it has more, and as a sign of life
/// Q ->[Leave]                                P      nothing to give, nothing to want
/// ```
///
/// P says which pieces would help it, and Q chooses one of them when it is P's turn. Q takes the
/// one that it has given out the least: so the first copy of a bundle leaves its origin piece by
/// piece, each to another node.
///
/// ```text
/// P ->[Ask(5, pieces: 30 31 90)]             Q      repeated until answered
/// Q ->[Serve(5, piece: 31)]                  P      fetches the piece from Q now
/// P ->[Done(5)]                              Q      has it, or no longer wants it
/// Q ->[Refuse(6)]                            P      not linked, or none of these here
/// ```
///
/// Every message may be lost, doubled or late. A set of pieces only grows, so an old one does no
/// harm; what was asked and served is told apart by its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body<N> {
    /// Links the two nodes, if the other agrees.
    Join {
        /// What the sender has.
        have: Pieces,
    },
    /// The answer to [`Join`](Body::Join).
    Hello {
        /// What the sender has.
        have: Pieces,
        /// Whether the two are linked now.
        linked: bool,
        /// Others that have joined the sender. At most [`MAX_PEERS`].
        peers: Vec<N>,
    },
    /// What the sender has by now.
    Have {
        /// All of it.
        have: Pieces,
    },
    /// Any one of these, please; best first.
    Ask {
        /// Unique at the sender.
        number: u64,
        /// At most [`MAX_ASKED`].
        pieces: Vec<u32>,
    },
    /// Fetch this one now.
    Serve {
        /// Of the [`Ask`](Body::Ask).
        number: u64,
        /// One of those asked for.
        piece: u32,
    },
    /// The piece has arrived, or is no longer wanted.
    Done {
        /// Of the [`Ask`](Body::Ask).
        number: u64,
    },
    /// The answer to an [`Ask`](Body::Ask) that will not be served.
    Refuse {
        /// Of the [`Ask`](Body::Ask).
        number: u64,
    },
    /// The two are linked no more.
    Leave,
}

impl<N> Body<N> {
    /// The name of the message, for logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Body::Join { .. } => "Join",
            Body::Hello { .. } => "Hello",
            Body::Have { .. } => "Have",
            Body::Ask { .. } => "Ask",
            Body::Serve { .. } => "Serve",
            Body::Done { .. } => "Done",
            Body::Refuse { .. } => "Refuse",
            Body::Leave => "Leave",
        }
    }

    pub(crate) fn is_bounded(&self) -> bool {
        match self {
            Body::Join { have } | Body::Have { have } => have.is_bounded(),
            Body::Hello { have, peers, .. } => have.is_bounded() && peers.len() <= MAX_PEERS,
            Body::Ask { pieces, .. } => pieces.len() <= MAX_ASKED,
            Body::Serve { .. } | Body::Done { .. } | Body::Refuse { .. } | Body::Leave => true,
        }
    }
}
