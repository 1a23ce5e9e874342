//! What dispatch sees of the mesh: each node's own membership, or one picture shared by all.

use std::sync::Arc;

use maelstrom_dispatch as dispatch;
use maelstrom_gossip as gossip;

/// The id of the node with this number, with bytes as evenly spread as a key's.
pub fn node_key(number: usize) -> [u8; 32] {
    let mut bytes = [0x5a; 32];
    let word = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bytes[..8].copy_from_slice(&word.to_be_bytes());
    bytes[24..].copy_from_slice(&(number as u64).to_be_bytes());
    bytes
}

/// The number of the node with this id.
pub fn node_number(key: &[u8; 32]) -> usize {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&key[24..]);
    u64::from_be_bytes(bytes) as usize
}

/// Membership's id of a node.
pub fn gossip_id(number: usize) -> gossip::NodeId {
    gossip::NodeId::from_bytes(node_key(number))
}

/// Dispatch's id of a node.
pub fn dispatch_id(number: usize) -> dispatch::NodeId {
    dispatch::NodeId::from_bytes(node_key(number))
}

/// One picture of the mesh that all nodes share. What happens shows in it only after the time
/// that news take to reach the nodes.
#[derive(Debug, Default)]
pub struct SharedView {
    members: Vec<Shown>,
    order: Vec<u32>,
    loaded: Vec<u32>,
    slots: dispatch::MeshSlots,
    architecture: Arc<str>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Shown {
    slots: u16,
    slots_free: u16,
    /// Place in [`SharedView::order`].
    place: Option<u32>,
    /// Place in [`SharedView::loaded`].
    loaded: Option<u32>,
}

impl SharedView {
    /// A picture in which everybody is up and idle.
    pub fn new(slots: &[u16], architecture: &str) -> Self {
        let mut view = Self {
            members: vec![Shown::default(); slots.len()],
            architecture: architecture.into(),
            ..Self::default()
        };
        for (node, slots) in slots.iter().enumerate() {
            view.members[node].slots = *slots;
            view.set_up(node, true);
        }
        view
    }

    /// Shows a node, with all its slots free, or shows it no longer.
    pub fn set_up(&mut self, node: usize, up: bool) {
        if self.members[node].place.is_some() == up {
            return;
        }
        let slots = self.members[node].slots;
        if up {
            self.members[node].place = Some(self.order.len() as u32);
            self.members[node].slots_free = slots;
            self.order.push(node as u32);
            self.slots.total += u64::from(slots);
            self.slots.free += u64::from(slots);
        } else {
            self.set_load(node, 0, 0);
            self.slots.total -= u64::from(slots);
            let place = self.members[node].place.take().expect("checked") as usize;
            self.order.swap_remove(place);
            if let Some(moved) = self.order.get(place) {
                self.members[*moved as usize].place = Some(place as u32);
            }
        }
    }

    /// Shows what a node told of its load.
    pub fn set_load(&mut self, node: usize, slots_free: u16, jobs_queued: u32) {
        if self.members[node].place.is_none() {
            return;
        }
        self.slots.free -= u64::from(self.members[node].slots_free);
        self.slots.free += u64::from(slots_free);
        self.members[node].slots_free = slots_free;
        match (self.members[node].loaded, jobs_queued > 0) {
            (None, true) => {
                self.members[node].loaded = Some(self.loaded.len() as u32);
                self.loaded.push(node as u32);
            }
            (Some(place), false) => {
                self.members[node].loaded = None;
                self.loaded.swap_remove(place as usize);
                if let Some(moved) = self.loaded.get(place as usize) {
                    self.members[*moved as usize].loaded = Some(place);
                }
            }
            _ => {}
        }
    }
}

/// The shared picture through the eyes of one node, which doesn't see itself.
pub(crate) struct SharedFor<'a> {
    pub(crate) view: &'a SharedView,
    pub(crate) me: usize,
}

impl SharedFor<'_> {
    /// The entry at `index` of a list without the node at `place`.
    fn skip(list: &[u32], place: Option<u32>, index: usize) -> Option<dispatch::NodeId> {
        let index = match place {
            Some(place) if index >= place as usize => index + 1,
            _ => index,
        };
        list.get(index).map(|node| dispatch_id(*node as usize))
    }
}

impl dispatch::View for SharedFor<'_> {
    fn member(&self, node: dispatch::NodeId) -> Option<dispatch::Member<'_>> {
        let number = node_number(node.as_bytes());
        let shown = self.view.members.get(number)?;
        shown.place?;
        (number != self.me).then_some(dispatch::Member {
            capabilities: dispatch::Capabilities {
                slots: shown.slots,
                architecture: &self.view.architecture,
                labels: &[],
            },
            slots_free: shown.slots_free,
            lends: true,
        })
    }

    fn len(&self) -> usize {
        let myself = usize::from(self.view.members[self.me].place.is_some());
        self.view.order.len() - myself
    }

    fn nth(&self, index: usize) -> Option<dispatch::NodeId> {
        Self::skip(&self.view.order, self.view.members[self.me].place, index)
    }

    fn loaded_len(&self) -> usize {
        let myself = usize::from(self.view.members[self.me].loaded.is_some());
        self.view.loaded.len() - myself
    }

    fn nth_loaded(&self, index: usize) -> Option<dispatch::NodeId> {
        Self::skip(&self.view.loaded, self.view.members[self.me].loaded, index)
    }

    fn slots(&self) -> dispatch::MeshSlots {
        let me = &self.view.members[self.me];
        let (total, free) = match me.place {
            Some(_) => (u64::from(me.slots), u64::from(me.slots_free)),
            None => (0, 0),
        };
        dispatch::MeshSlots {
            total: self.view.slots.total - total,
            free: self.view.slots.free - free,
        }
    }

    fn holds_layer(&self, _node: dispatch::NodeId, _layer: &dispatch::LayerId) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use maelstrom_dispatch::View;

    use super::*;

    #[test]
    fn keys_and_numbers_belong_together() {
        for number in [0, 1, 7, 9_999] {
            assert_eq!(node_number(&node_key(number)), number);
        }
    }

    #[test]
    fn a_shared_view_hides_the_dead_and_oneself() {
        let mut shared = SharedView::new(&[4, 2, 1, 1], "x86_64");
        shared.set_up(3, false);
        shared.set_load(1, 0, 9);
        shared.set_load(2, 1, 0);
        let view = SharedFor {
            view: &shared,
            me: 0,
        };
        assert_eq!(view.len(), 2);
        let listed: Vec<_> = (0..3).filter_map(|index| view.nth(index)).collect();
        assert_eq!(listed, [dispatch_id(1), dispatch_id(2)]);
        assert_eq!(
            (view.loaded_len(), view.nth_loaded(0)),
            (1, Some(dispatch_id(1)))
        );
        assert_eq!(view.slots(), dispatch::MeshSlots { total: 3, free: 1 });
        assert!(view.member(dispatch_id(3)).is_none());
        assert!(view.member(dispatch_id(0)).is_none());
        let view = SharedFor {
            view: &shared,
            me: 1,
        };
        assert_eq!(view.loaded_len(), 0);
        assert_eq!(view.nth_loaded(0), None);
    }
}
