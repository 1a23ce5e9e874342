//! What dispatch sees of the mesh: this node's membership.

use maelstrom_dispatch as dispatch;
use maelstrom_gossip as gossip;

/// Membership's id of a node that dispatch names.
pub const fn gossip_id(node: dispatch::NodeId) -> gossip::NodeId {
    gossip::NodeId::from_bytes(*node.as_bytes())
}

/// Dispatch's id of a node that membership names.
pub const fn dispatch_id(node: gossip::NodeId) -> dispatch::NodeId {
    dispatch::NodeId::from_bytes(*node.as_bytes())
}

/// A node's own membership, as dispatch wants to see it.
#[derive(Debug)]
pub struct MeshView<'a>(pub &'a gossip::View);

impl MeshView<'_> {
    fn id(member: gossip::Member<'_>) -> dispatch::NodeId {
        dispatch_id(member.node())
    }
}

impl dispatch::View for MeshView<'_> {
    fn member(&self, node: dispatch::NodeId) -> Option<dispatch::Member<'_>> {
        let member = self.0.get(&gossip_id(node))?;
        Some(dispatch::Member {
            capabilities: dispatch::Capabilities {
                slots: member.profile.slots_total,
                architecture: &member.profile.architecture,
                labels: &member.profile.labels,
            },
            slots_free: member.load.slots_free,
            lends: member.profile.lending != gossip::Lending::Never,
        })
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn nth(&self, index: usize) -> Option<dispatch::NodeId> {
        self.0.nth(index).map(Self::id)
    }

    fn loaded_len(&self) -> usize {
        self.0.queueing()
    }

    fn nth_loaded(&self, index: usize) -> Option<dispatch::NodeId> {
        (index < self.0.queueing()).then(|| self.0.nth(index).map(Self::id))?
    }

    fn slots(&self) -> dispatch::MeshSlots {
        let slots = self.0.slots();
        dispatch::MeshSlots {
            total: slots.total,
            free: slots.free,
        }
    }

    fn holds_layer(&self, node: dispatch::NodeId, layer: &dispatch::LayerId) -> bool {
        self.0
            .get(&gossip_id(node))
            .is_some_and(|member| member.profile.layers.may_hold(&layer.0))
    }
}
