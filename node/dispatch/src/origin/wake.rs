//! Whom an origin tells that it has work.
//!
//! First the nodes that asked in vain and wait to be told. Then, in one walk through the members,
//! those with free slots. Then, again and again while the queue isn't empty, a few at random
//! whether busy or not, so that a small origin finds its share in a mesh that a large one fills.

use super::{Origin, Peer, Timer};
use crate::{Body, NodeId, context::Context};
use rand::RngExt;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How many members one step of the walk looks at.
const WALK_STEP: usize = 64;
/// The time between two steps where nobody answers.
const WALK_INTERVAL: Duration = Duration::from_millis(1);
/// How many members are woken at random in the first round, at most.
const FIRST_ROUND: usize = 16;
/// How many members are woken at random for a job that is added to a queue, at most.
const WOKEN_FOR_EACH: usize = 2;
/// How many members are woken at random in one round, at most.
const MAX_ROUND: usize = 64;

/// Whom to wake next.
#[derive(Debug, Default)]
pub(crate) struct Waker {
    /// How many jobs were ever put into the queue. A node that asked in vain is woken only if
    /// there is more since.
    pub(crate) queued_ever: u64,
    /// Nodes that wait to be told, the longest waiting first. Some no longer wait.
    hungry: VecDeque<NodeId>,
    /// Slots of nodes that were woken and have not answered.
    expected: u64,
    /// Those nodes, in the order of waking. Some have answered.
    woken: VecDeque<(Instant, NodeId)>,
    /// The walk: where it stands, and how many members are left.
    cursor: usize,
    left: usize,
    /// When the next round at random is due; `None` while the queue is empty.
    next_round: Option<Instant>,
    /// How many nodes the last round woke.
    round: usize,
    /// How many jobs had ever been queued when some were last woken at random.
    queued_at_round: u64,
}

impl Waker {
    pub(super) fn add_hungry(&mut self, node: NodeId, peer: &mut Peer) {
        if peer.hungry.replace(self.queued_ever).is_none() {
            self.hungry.push_back(node);
        }
    }

    pub(super) fn any_hungry(&self) -> bool {
        !self.hungry.is_empty()
    }

    /// A node asked for work.
    pub(super) fn answered(&mut self, peer: &mut Peer) {
        if let Some((_, slots)) = peer.woken.take() {
            self.expected -= u64::from(slots);
        }
    }

    pub(super) fn forget(&mut self, peer: Option<&Peer>) {
        if let Some((_, slots)) = peer.and_then(|peer| peer.woken) {
            self.expected -= u64::from(slots);
        }
    }

    /// A node that waits to be told and fits, among the first few, which are moved to the back.
    pub(super) fn find_hungry(
        &mut self,
        cx: &Context<'_>,
        fits: impl Fn(&Context<'_>, NodeId) -> bool,
        look_at: usize,
    ) -> Option<NodeId> {
        for _ in 0..look_at.min(self.hungry.len()) {
            let node = self.hungry.pop_front()?;
            self.hungry.push_back(node);
            if fits(cx, node) {
                return Some(node);
            }
        }
        None
    }
}

impl Origin {
    /// Wakes whom the queue can feed. Called after every event.
    pub(super) fn pump(&mut self, cx: &mut Context<'_>) {
        self.watch_stragglers(cx.now);
        if self.backlog.is_empty() {
            self.waker.left = 0;
            self.waker.next_round = None;
            self.waker.round = 0;
            self.deadlines.set(Timer::Wake, None);
            return;
        }
        self.expire_wakes(cx);
        self.wake_me(cx, false);
        let mut budget = cx.shared.config.wake_burst;
        self.wake_hungry(cx, &mut budget);
        if self.waker.next_round.is_none() && cx.view.slots().free > 0 {
            self.waker.left = cx.view.len();
            self.waker.cursor = cx.shared.rng.random_range(0..self.waker.left.max(1));
        }
        self.walk(cx, &mut budget);
        let round = self.round(cx);
        // Answers move the walk on; the timer is for when none come.
        let walking = self.waker.left > 0 && self.wants_more();
        let again = if walking {
            cx.now + WALK_INTERVAL
        } else {
            round
        };
        self.deadlines.set(Timer::Wake, Some(again));
    }

    fn wants_more(&self) -> bool {
        self.waker.expected < self.backlog.slots()
    }

    /// Sends the wake itself.
    pub(super) fn wake(&mut self, cx: &mut Context<'_>, node: NodeId, slots: u32) {
        let peer = self.peers.entry(node).or_insert_with(|| Peer::new(cx.now));
        self.waker.answered(peer);
        peer.woken = Some((cx.now, slots));
        self.waker.expected += u64::from(slots);
        self.waker.woken.push_back((cx.now, node));
        let load = self.load();
        cx.send(node, Body::Wake(load));
    }

    fn expire_wakes(&mut self, cx: &Context<'_>) {
        while let Some(&(at, node)) = self.waker.woken.front() {
            let Some(peer) = self
                .peers
                .get_mut(&node)
                .filter(|peer| peer.woken.is_some_and(|(woken, _)| woken == at))
            else {
                self.waker.woken.pop_front();
                continue;
            };
            if at + cx.shared.config.wake_interval > cx.now {
                break;
            }
            self.waker.answered(peer);
            self.waker.woken.pop_front();
        }
    }

    /// This node itself is told first, and without a message; again only if there is more.
    fn wake_me(&mut self, cx: &mut Context<'_>, again: bool) {
        let me = cx.me();
        let queued_ever = self.waker.queued_ever;
        let peer = self.peers.entry(me).or_insert_with(|| Peer::new(cx.now));
        let news = peer.hungry.is_none_or(|seen| seen < queued_ever);
        if !peer.told_of_work && (news || again) {
            peer.told_of_work = true;
            peer.hungry = Some(queued_ever);
            let load = self.load();
            cx.send(me, Body::Wake(load));
        }
    }

    fn wake_hungry(&mut self, cx: &mut Context<'_>, budget: &mut usize) {
        let mut left = self.waker.hungry.len().min(WALK_STEP);
        while left > 0 && *budget > 0 && self.wants_more() {
            left -= 1;
            let Some(node) = self.waker.hungry.pop_front() else {
                break;
            };
            let queued_ever = self.waker.queued_ever;
            let Some(seen) = self.peers.get(&node).and_then(|peer| peer.hungry) else {
                continue;
            };
            if node == cx.me() {
                // Told by `wake_me`; listed for stragglers only.
                self.waker.hungry.push_back(node);
                continue;
            }
            if seen >= queued_ever || !self.can_feed(cx, node) {
                self.waker.hungry.push_back(node);
                continue;
            }
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.hungry = None;
            }
            *budget -= 1;
            self.wake_member(cx, node);
        }
    }

    fn walk(&mut self, cx: &mut Context<'_>, budget: &mut usize) {
        for _ in 0..WALK_STEP.min(self.waker.left) {
            if *budget == 0 || !self.wants_more() {
                return;
            }
            self.waker.left -= 1;
            self.waker.cursor += 1;
            if self.waker.cursor >= cx.view.len() {
                self.waker.cursor = 0;
            }
            let Some(node) = cx.view.nth(self.waker.cursor) else {
                continue;
            };
            let idle = cx
                .view
                .member(node)
                .is_some_and(|member| member.slots_free > 0);
            if idle && self.may_wake(cx, node, false) {
                *budget -= 1;
                self.wake_member(cx, node);
            }
        }
    }

    /// Wakes some at random: two whenever the queue has grown, and in rounds twice as many each
    /// time until the queue is empty. Returns when the next round is due.
    fn round(&mut self, cx: &mut Context<'_>) -> Instant {
        let next = match self.waker.next_round {
            Some(at) if at > cx.now => {
                if self.waker.queued_at_round < self.waker.queued_ever {
                    self.wake_at_random(cx, WOKEN_FOR_EACH);
                }
                at
            }
            _ => {
                self.wake_me(cx, true);
                self.waker.round = (self.waker.round * 2).clamp(FIRST_ROUND, MAX_ROUND);
                self.wake_at_random(cx, self.waker.round);
                cx.now + cx.shared.config.wake_interval
            }
        };
        self.waker.queued_at_round = self.waker.queued_ever;
        self.waker.next_round = Some(next);
        next
    }

    fn wake_at_random(&mut self, cx: &mut Context<'_>, tries: usize) {
        let members = cx.view.len();
        for _ in 0..tries {
            // Two for each slot: whichever has one free first gets the job.
            if members == 0 || self.waker.expected >= 2 * self.backlog.slots() {
                break;
            }
            let index = cx.shared.rng.random_range(0..members);
            if let Some(node) = cx.view.nth(index)
                && self.may_wake(cx, node, true)
            {
                self.wake_member(cx, node);
            }
        }
    }

    fn wake_member(&mut self, cx: &mut Context<'_>, node: NodeId) {
        let slots = cx
            .view
            .member(node)
            .map_or(1, |member| u32::from(member.slots_free).max(1));
        self.wake(cx, node, slots);
    }

    /// Whether a member is worth a message, though it may have asked in vain before.
    fn may_wake(&self, cx: &Context<'_>, node: NodeId, again: bool) -> bool {
        let knows = |peer: &Peer| {
            peer.told_of_work || peer.woken.is_some() || (peer.hungry.is_some() && !again)
        };
        node != cx.shared.me
            && cx.view.member(node).is_some_and(|member| member.lends)
            && !self.peers.get(&node).is_some_and(knows)
            && self.can_feed(cx, node)
    }

    /// Whether some queued job can run there.
    fn can_feed(&self, cx: &Context<'_>, node: NodeId) -> bool {
        cx.capabilities(node).is_some_and(|offered| {
            self.backlog
                .classes()
                .any(|needs| !needs.local && offered.satisfy(needs))
        })
    }
}
