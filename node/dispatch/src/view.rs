//! What dispatch asks of membership.

use crate::{Capabilities, LayerId, NodeId};

/// The members of the mesh as this node knows them at this moment. May be stale: dispatch takes
/// it as a hint of whom to ask, never as the truth of who holds what.
///
/// A simulator may share one for thousands of nodes; each method takes constant or logarithmic
/// time.
pub trait View {
    /// What is known of another live member; `None` for any other node.
    fn member(&self, node: NodeId) -> Option<Member<'_>>;

    /// How many other members are live.
    fn len(&self) -> usize;

    /// Whether there is no other member.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The members in any order that seldom changes: `Some` for each index below [`len`](Self::len).
    fn nth(&self, index: usize) -> Option<NodeId>;

    /// How many members say that their queue is not empty.
    fn loaded_len(&self) -> usize;

    /// The members that say so, in any order.
    fn nth_loaded(&self, index: usize) -> Option<NodeId>;

    /// Slots over all other members that lend.
    fn slots(&self) -> MeshSlots;

    /// Whether a member says that it has a layer. May wrongly say yes, as digests do.
    fn holds_layer(&self, node: NodeId, layer: &LayerId) -> bool;
}

/// One member.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// What it can run.
    pub capabilities: Capabilities<'a>,
    /// How many of its slots are free.
    pub slots_free: u16,
    /// Whether it runs jobs of other nodes at this moment.
    pub lends: bool,
}

/// Slots of the whole mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeshSlots {
    /// All.
    pub total: u64,
    /// Those that run nothing.
    pub free: u64,
}

/// The view of a node that knows no other: standalone.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl View for Alone {
    fn member(&self, _node: NodeId) -> Option<Member<'_>> {
        None
    }

    fn len(&self) -> usize {
        0
    }

    fn nth(&self, _index: usize) -> Option<NodeId> {
        None
    }

    fn loaded_len(&self) -> usize {
        0
    }

    fn nth_loaded(&self, _index: usize) -> Option<NodeId> {
        None
    }

    fn slots(&self) -> MeshSlots {
        MeshSlots::default()
    }

    fn holds_layer(&self, _node: NodeId, _layer: &LayerId) -> bool {
        false
    }
}
