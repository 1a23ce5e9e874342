//! What a membership does within its calls.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use foca::OwnedNotification;

use super::{
    Event, MAX_CONTACTS, MAX_EVENTS, MAX_TRANSMITS, Membership, MessageError, REPAIR_PERIOD,
    SLEPT_AFTER, Timers, Transmit, arm, due,
};
use crate::{
    advert::{AdvertError, Claim, Item, Profile, Version},
    id::{NodeId, Peer, Tag},
    view::{Change, VersionedProfile},
    wire::{self, MAX_MESSAGE_BYTES, Malformed, Reader},
};

impl Membership {
    pub(crate) fn send(&mut self, to: NodeId, message: Vec<u8>) {
        debug_assert!(message.len() <= MAX_MESSAGE_BYTES);
        if self.transmits.len() >= MAX_TRANSMITS {
            self.stats.transmits_dropped += 1;
            return;
        }
        self.transmits.push_back(Transmit { to, message });
    }

    pub(crate) fn event(&mut self, event: Event) {
        if self.events.len() >= MAX_EVENTS {
            self.missed_events = true;
            return;
        }
        self.events.push_back(event);
    }

    pub(crate) fn timers_mut(&mut self) -> &mut Timers {
        &mut self.timers
    }

    pub(crate) fn count_difference(&mut self) {
        self.stats.differences += 1;
    }

    /// After a sleep, everybody else gets the time that this node missed: without it, those
    /// it suspected before would seem not to have objected.
    pub(super) fn wake(&mut self, now: Instant) {
        let slept = self
            .wishes
            .next_due()
            .map_or(Duration::ZERO, |due| now.saturating_duration_since(due));
        if slept > SLEPT_AFTER {
            self.wishes.postpone(slept);
        }
    }

    pub(super) fn second(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.start)
            .as_secs()
            .try_into()
            .unwrap_or(u32::MAX)
    }

    pub(super) fn remember_seed(&mut self, seed: NodeId) {
        const MAX_SEEDS: usize = 16;
        self.remember_contact(seed);
        if !self.seeds.contains(&seed) {
            if self.seeds.len() == MAX_SEEDS {
                self.seeds.remove(0);
            }
            self.seeds.push(seed);
        }
    }

    pub(crate) fn remember_contact(&mut self, node: NodeId) {
        let tag = node.tag();
        if self.view.profile(tag).is_some() || self.contacts.insert(tag, node).is_some() {
            return;
        }
        self.contact_order.push_back(tag);
        if self.contact_order.len() > MAX_CONTACTS
            && let Some(oldest) = self.contact_order.pop_front()
        {
            self.contacts.remove(&oldest);
        }
    }

    pub(crate) fn resolve(&self, tag: Tag) -> Option<NodeId> {
        match self.view.profile(tag) {
            Some(known) => Some(known.profile.node),
            None => self.contacts.get(&tag).copied(),
        }
    }

    pub(super) fn handle_swim(
        &mut self,
        now: Instant,
        sender: Tag,
        packet: &[u8],
    ) -> Result<(), MessageError> {
        let parts = wire::split_swim(packet)?;
        if parts.source.tag != sender {
            return Err(MessageError::WrongSender);
        }
        let known = self.foca.iter_membership_state().len();
        if known + parts.updated.len() + 1 > self.config.max_members {
            let unknown = std::iter::once(&parts.source)
                .chain(&parts.updated)
                .filter(|peer| !self.view.knows(peer.tag))
                .count();
            if known + unknown > self.config.max_members {
                return Err(MessageError::TooManyMembers);
            }
        }
        // What foca has against a packet that can be decoded is its being late.
        let _late = self.foca.handle_data(parts.packet, self.wishes.at(now));
        self.take_notifications(now);
        for peer in parts.updated {
            self.learn_unnoticed(now, peer);
        }
        let mut items = parts.items;
        while !items.is_empty() {
            let (length, rest) = items.split_first_chunk().ok_or(Malformed)?;
            let (item, rest) = rest
                .split_at_checked(u16::from_be_bytes(*length).into())
                .ok_or(Malformed)?;
            items = rest;
            if self.learn(Reader(item).item()?) {
                self.pass_on(item);
            }
        }
        Ok(())
    }

    /// Foca says nothing about a node that it gets to know as down; it is held all the same.
    pub(crate) fn learn_unnoticed(&mut self, now: Instant, peer: Peer) {
        if !self.view.knows(peer.tag) {
            let change = self.view.set_down(peer, self.second(now));
            self.report(change);
        }
    }

    /// Takes in one part of an advert or a claim; returns whether it was news.
    pub(crate) fn learn(&mut self, item: Item<'_>) -> bool {
        match item {
            Item::Profile {
                tag,
                version,
                encoded,
            } => {
                let known = self.view.summary(tag);
                if tag == self.own || known.is_none_or(|known| version <= known.profile) {
                    return false;
                }
                let Some(profile) = self.read_profile(tag, version, encoded) else {
                    return false;
                };
                let change = self.view.set_profile(tag, profile);
                self.contacts.remove(&tag);
                self.contact_order.retain(|contact| *contact != tag);
                self.report(change)
            }
            Item::Load { tag, version, load } => {
                tag != self.own && {
                    let change = self.view.set_load(tag, version, load);
                    self.report(change)
                }
            }
            Item::Claim(claim) => self.learn_claim(claim, false),
        }
    }

    pub(super) fn read_profile(
        &self,
        tag: Tag,
        version: Version,
        encoded: &[u8],
    ) -> Option<Arc<VersionedProfile>> {
        let read = || {
            let profile = Profile::decode(encoded)?;
            (profile.node.tag() == tag).then(|| VersionedProfile {
                version,
                profile,
                encoded: encoded.into(),
            })
        };
        match &self.pool {
            Some(pool) => pool.get(tag, version, encoded, read),
            None => read().map(Arc::new),
        }
    }

    pub(crate) fn learn_claim(&mut self, claim: Claim, tell: bool) -> bool {
        if self.claim.is_some_and(|known| claim <= known) {
            return false;
        }
        self.claim = Some(claim);
        self.event(Event::Claim(claim));
        if tell {
            self.pass_on(&Item::Claim(claim).to_vec());
        }
        true
    }

    pub(crate) fn pass_on(&mut self, item: &[u8]) {
        let added = self.foca.add_broadcast(item);
        debug_assert!(added.is_ok(), "items are decoded before they are passed on");
    }

    pub(super) fn report(&mut self, change: Change) -> bool {
        match change {
            Change::Nothing => return false,
            Change::Hidden => {}
            Change::Appeared(node) => self.event(Event::Up(node)),
            Change::Changed(node) => self.event(Event::Changed(node)),
            Change::Disappeared(node) => self.event(Event::Down(node)),
        }
        true
    }

    pub(super) fn check_profile(&self, profile: &Profile) -> Result<(), AdvertError> {
        if profile.node != self.node {
            return Err(AdvertError::OtherNode {
                profile: profile.node,
                this: self.node,
            });
        }
        profile.encode().map(drop)
    }

    pub(super) fn tell_when_due(&mut self, now: Instant) {
        if due(&mut self.timers.tell_profile, now) {
            self.tell_profile(now);
        }
        if due(&mut self.timers.tell_load, now) && self.load != self.told_load {
            self.tell_load(now);
        }
    }

    pub(super) fn tell_profile(&mut self, now: Instant) {
        self.profile_version = self.profile_version.next();
        self.told_profile_at = now;
        self.told_profile = self.profile.clone();
        let encoded = self.profile.encode().expect("checked when it was set");
        let item = Item::Profile {
            tag: self.own,
            version: self.profile_version,
            encoded: &encoded,
        };
        self.pass_on(&item.to_vec());
        let version = self.profile_version;
        let read = || {
            Some(VersionedProfile {
                version,
                profile: self.profile.clone(),
                encoded: encoded.as_slice().into(),
            })
        };
        let profile = match &self.pool {
            Some(pool) => pool.get(self.own, version, &encoded, read),
            None => read().map(Arc::new),
        };
        if let Some(profile) = profile {
            self.view.set_profile(self.own, profile);
        }
    }

    pub(super) fn tell_load(&mut self, now: Instant) {
        self.load_version = self.load_version.next();
        self.told_load_at = now;
        self.told_load = self.load;
        let item = Item::Load {
            tag: self.own,
            version: self.load_version,
            load: self.load,
        };
        self.pass_on(&item.to_vec());
        self.view.set_load(self.own, self.load_version, self.load);
    }

    /// Somebody holds an advert of this node that is newer than its own: it has started again
    /// with a clock set back. What it tells from now on has to be newer still.
    pub(crate) fn outdo(&mut self, now: Instant, known: Version) {
        if known > self.profile_version.max(self.load_version) {
            let version = Version {
                boot: known.boot.saturating_add(1),
                sequence: 0,
            };
            self.profile_version = version;
            self.load_version = version;
            self.tell_profile(now);
            self.tell_load(now);
        }
    }

    /// Becomes a member in a generation above `known`, which somebody takes this node to be in.
    pub(crate) fn outlive(&mut self, now: Instant, known: u32) {
        if known <= self.generation() {
            return;
        }
        let peer = Peer {
            tag: self.own,
            generation: known.saturating_add(1),
        };
        if self.foca.change_identity(peer, self.wishes.at(now)).is_ok() {
            self.view.set_up(peer);
        }
    }

    /// Brings everything in step after whatever happened.
    pub(super) fn settle(&mut self, now: Instant) {
        self.take_notifications(now);
        while let Some((to, packet)) = self.wishes.packets.pop_front() {
            match self.resolve(to.tag) {
                // Foca counts this node's own past lives among those to call back.
                _ if to.tag == self.own => {}
                Some(node) => self.send(node, packet),
                None => self.stats.unroutable += 1,
            }
        }
        if self.left {
            return;
        }
        let up = self.view.up();
        if up * 10 > self.configured_for * 11 || up * 11 < self.configured_for * 10 {
            self.configured_for = up;
            let configured = self.foca.set_config(self.config.foca(up));
            debug_assert!(configured.is_ok(), "nothing that foca keeps has changed");
        }
        if up - 1 > self.view.len() {
            arm(&mut self.timers.repair, now + REPAIR_PERIOD);
        }
        if self.timers.alone.is_none()
            && ((up == 1 && self.view.known() > 1) || self.missing_seeds().next().is_some())
        {
            self.timers.alone = Some(now + self.config.retry_down_period);
        }
    }

    pub(crate) fn take_notifications(&mut self, now: Instant) {
        while let Some(notification) = self.wishes.notifications.pop_front() {
            let change = match notification {
                // Old generations of this node itself are foca's own affair.
                OwnedNotification::MemberUp(peer)
                | OwnedNotification::MemberDown(peer)
                | OwnedNotification::Rename(_, peer)
                    if peer.tag == self.own =>
                {
                    Change::Nothing
                }
                OwnedNotification::MemberUp(peer) => self.view.set_up(peer),
                OwnedNotification::MemberDown(peer) => self.view.set_down(peer, self.second(now)),
                OwnedNotification::Rename(_, peer) => {
                    match self
                        .view
                        .summary(peer.tag)
                        .is_some_and(|known| known.active)
                    {
                        true => self.view.set_up(peer),
                        false => self.view.set_down(peer, self.second(now)),
                    }
                }
                OwnedNotification::Rejoin(peer) => {
                    self.event(Event::Rejoined);
                    self.view.set_up(peer)
                }
                _ => Change::Nothing,
            };
            self.report(change);
        }
    }

    pub(super) fn forget_down(&mut self, now: Instant) {
        let age_s = u32::try_from(self.config.forget_down_after.as_secs()).unwrap_or(u32::MAX);
        let Some(since) = self.second(now).checked_sub(age_s) else {
            return;
        };
        for peer in self.view.down_since(since) {
            let timer = foca::Timer::RemoveDown(peer);
            let removed = self.foca.handle_timer(timer, self.wishes.at(now));
            debug_assert!(removed.is_ok(), "removal cannot fail");
            self.view.forget(peer.tag);
        }
    }
}
