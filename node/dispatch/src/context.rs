//! What both roles of a dispatcher share while they handle one event.

use crate::{
    Action, Body, Capabilities, Config, Incarnation, Message, NodeId, Offer, View,
    ignored::{Ignored, IgnoredCounts},
};
use rand_chacha::ChaCha8Rng;
use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

/// What outlives an event.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) me: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) offer: Offer,
    pub(crate) config: Config,
    pub(crate) rng: ChaCha8Rng,
    /// The newest life of each member that has sent a message.
    pub(crate) lives: BTreeMap<NodeId, Incarnation>,
    pub(crate) transmits: VecDeque<(NodeId, Message)>,
    /// Messages to this node itself, handled before the event ends.
    pub(crate) loopback: VecDeque<Body>,
    pub(crate) actions: VecDeque<Action>,
    pub(crate) ignored: IgnoredCounts,
}

/// What one event is handled with.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) view: &'a dyn View,
    pub(crate) shared: &'a mut Shared,
}

impl<'a> Context<'a> {
    pub(crate) fn me(&self) -> NodeId {
        self.shared.me
    }

    pub(crate) fn send(&mut self, to: NodeId, body: Body) {
        debug_assert!(
            to == self.shared.me || body.is_bounded(),
            "{} too large",
            body.name()
        );
        if to == self.shared.me {
            self.shared.loopback.push_back(body);
            return;
        }
        let message = Message {
            from: self.shared.incarnation,
            to: self.shared.lives.get(&to).copied(),
            body,
        };
        self.shared.transmits.push_back((to, message));
    }

    pub(crate) fn act(&mut self, action: Action) {
        self.shared.actions.push_back(action);
    }

    pub(crate) fn ignore(&mut self, reason: Ignored) {
        self.shared.ignored.count(reason);
    }

    /// What a member or this node offers.
    pub(crate) fn capabilities(&self, node: NodeId) -> Option<Capabilities<'_>> {
        if node == self.shared.me {
            Some(self.shared.offer.capabilities())
        } else {
            self.view.member(node).map(|member| member.capabilities)
        }
    }
}
