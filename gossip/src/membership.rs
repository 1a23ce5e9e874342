//! Who is there and what they offer.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use foca::OwnedNotification;
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

use crate::{
    advert::{AdvertError, Claim, Item, Load, Profile, Version},
    config::Config,
    exchange::RosterPull,
    id::{NodeId, Peer, Tag},
    pool::ProfilePool,
    swim::{Foca, Wishes},
    view::{Change, VersionedProfile, View},
    wire::{self, Broadcasts, Codec, MAX_MESSAGE_BYTES, Malformed, Reader},
};

/// How many messages wait to be sent at most; gossip bears the loss of more.
const MAX_TRANSMITS: usize = 4_096;

/// How many events wait to be taken at most; see [`Event::Missed`].
const MAX_EVENTS: usize = 16_384;

/// How many nodes whose profile is missing are remembered by their full id.
const MAX_CONTACTS: usize = 1_024;

/// How late a timer may be before the node counts as having slept.
const SLEPT_AFTER: Duration = Duration::from_millis(750);

/// How long the missing profile of a member that is up is waited for between two requests.
const REPAIR_PERIOD: Duration = Duration::from_secs(1);

/// How often nodes that are down are looked through for those to forget.
const FORGET_PERIOD: Duration = Duration::from_secs(60);

/// The shortest time between two tellings of the own advert.
const TELL_PERIOD_MIN: Duration = Duration::from_secs(1);

/// The membership of one node: finds out who is there, who has gone, and what everybody
/// offers, and tells the others the same of this node.
///
/// It does no I/O and reads no clock. Whoever drives it does this:
///
/// 1. Make one with [`new`](Self::new), and [`join`](Self::join) a node that is there already.
///    The first node of a mesh joins nobody.
/// 2. Hand over each message that arrives with [`handle_message`](Self::handle_message), and
///    call [`handle_timeout`](Self::handle_timeout) at the time that
///    [`poll_timeout`](Self::poll_timeout) names.
/// 3. After each call of a method that takes `&mut self`: send what
///    [`poll_transmit`](Self::poll_transmit) returns and act on what
///    [`poll_event`](Self::poll_event) returns until both return `None`, then ask
///    [`poll_timeout`](Self::poll_timeout) again.
///
/// Messages may be lost, repeated and reordered. `now` must never go back. A carrier must
/// authenticate the sender of each message and must keep messages from strangers: those who
/// hold the mesh's key are trusted not to lie about others.
///
/// The same calls with the same arguments have the same effects, on every machine.
pub struct Membership {
    pub(crate) config: Config,
    pub(crate) node: NodeId,
    pub(crate) own: Tag,
    pub(crate) foca: Foca,
    pub(crate) wishes: Wishes,
    pub(crate) rng: Xoshiro256PlusPlus,
    pub(crate) view: View,
    pub(crate) claim: Option<Claim>,
    pub(crate) pool: Option<Arc<ProfilePool>>,
    /// Full ids of nodes whose profile hasn't arrived, oldest first.
    contacts: HashMap<Tag, NodeId>,
    contact_order: VecDeque<Tag>,
    /// Nodes to ask when nobody else is there.
    pub(crate) seeds: Vec<NodeId>,
    pub(crate) roster: Option<RosterPull>,

    profile: Profile,
    load: Load,
    profile_version: Version,
    load_version: Version,
    told_profile: Profile,
    told_load: Load,
    told_profile_at: Instant,
    told_load_at: Instant,

    start: Instant,
    configured_for: usize,
    left: bool,
    timers: Timers,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    missed_events: bool,
    stats: Stats,
}

/// When which of the membership's own duties is due. Foca has timers of its own.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timers {
    /// Tell the own profile.
    tell_profile: Option<Instant>,
    /// Tell the own load.
    tell_load: Option<Instant>,
    /// Compare with a random member.
    pub(crate) sync: Option<Instant>,
    /// Ask for missing profiles.
    repair: Option<Instant>,
    /// Ask for the next piece of the roster once more.
    pub(crate) roster: Option<Instant>,
    /// Seeds are missing, or everybody: try them.
    alone: Option<Instant>,
    /// Forget who has long been down.
    forget: Option<Instant>,
}

impl Timers {
    fn all(&mut self) -> [&mut Option<Instant>; 7] {
        [
            &mut self.tell_profile,
            &mut self.tell_load,
            &mut self.sync,
            &mut self.repair,
            &mut self.roster,
            &mut self.alone,
            &mut self.forget,
        ]
    }

    fn next_due(mut self) -> Option<Instant> {
        self.all().into_iter().filter_map(|timer| *timer).min()
    }
}

/// Takes a timer out of its place if it is due.
fn due(timer: &mut Option<Instant>, now: Instant) -> bool {
    let due = timer.is_some_and(|timer| timer <= now);
    if due {
        *timer = None;
    }
    due
}

/// Puts a timer in its place unless an earlier one is there.
fn arm(timer: &mut Option<Instant>, at: Instant) {
    *timer = Some(timer.map_or(at, |timer| timer.min(at)));
}

/// All that is to be known of a member.
#[derive(Clone, Debug)]
pub struct Introduction {
    peer: Peer,
    profile: Arc<VersionedProfile>,
    load: (Version, Load),
}

/// A message to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// To whom.
    pub to: NodeId,
    /// At most [`MAX_MESSAGE_BYTES`] bytes.
    pub message: Vec<u8>,
}

/// What the driver should know. The view already shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A member is up and its profile is known.
    Up(NodeId),
    /// A member told a new profile or load, or came back in the same moment as it left.
    Changed(NodeId),
    /// A member has left or failed.
    Down(NodeId),
    /// The whole roster has arrived after a join.
    RosterComplete,
    /// The others took this node for dead (it slept or was cut off); it has joined again.
    Rejoined,
    /// Somebody else, or the same node in a new term, coordinates.
    Claim(Claim),
    /// More events came up than were taken: some are lost. Read the view anew.
    Missed,
}

/// Why a message was not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MessageError {
    /// It is longer than any message may be.
    #[error("a message of {0} bytes, where at most {MAX_MESSAGE_BYTES} are allowed")]
    TooLong(usize),
    /// It cannot be decoded.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Its sender claims to be another node.
    #[error("the sender speaks for another node")]
    WrongSender,
    /// It tells of more members than are to be held.
    #[error("it tells of more nodes than this one is set to hold")]
    TooManyMembers,
}

/// What a membership counted since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Messages that were not sent because too many waited.
    pub transmits_dropped: u64,
    /// Messages to nodes whose full id isn't known yet.
    pub unroutable: u64,
    /// Comparisons in which the two nodes differed.
    pub differences: u64,
}

impl Membership {
    /// A membership of one node that knows nobody yet.
    ///
    /// `generation` must grow with every start of the node: seconds since 1970 do, and a clock
    /// that was set back is healed as soon as somebody answers. `seed` should differ from node
    /// to node.
    ///
    /// # Errors
    /// If the profile is too large, or names another node.
    pub fn new(
        now: Instant,
        node: NodeId,
        generation: u32,
        profile: Profile,
        config: Config,
        seed: u64,
    ) -> Result<Self, AdvertError> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let own = node.tag();
        let peer = Peer {
            tag: own,
            generation,
        };
        let foca_rng = Xoshiro256PlusPlus::seed_from_u64(rng.random());
        let foca = Foca::with_custom_broadcast(peer, config.foca(1), foca_rng, Codec, Broadcasts);
        let mut view = View::new(own);
        view.set_up(peer);
        let version = Version {
            boot: generation,
            sequence: 0,
        };
        let first_sync = now + config.sync_period.mul_f64(rng.random_range(0.1..1.0));
        let mut membership = Self {
            config,
            node,
            own,
            foca,
            wishes: Wishes::default(),
            rng,
            view,
            claim: None,
            pool: None,
            contacts: HashMap::new(),
            contact_order: VecDeque::new(),
            seeds: Vec::new(),
            roster: None,
            told_profile: profile.clone(),
            profile: profile.clone(),
            load: Load::default(),
            profile_version: version,
            load_version: version,
            told_load: Load::default(),
            told_profile_at: now,
            told_load_at: now,
            start: now,
            configured_for: 1,
            left: false,
            timers: Timers {
                sync: Some(first_sync),
                forget: Some(now + FORGET_PERIOD),
                ..Timers::default()
            },
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            missed_events: false,
            stats: Stats::default(),
        };
        membership.check_profile(&profile)?;
        membership.tell_profile(now);
        membership.tell_load(now);
        Ok(membership)
    }

    /// Shares profiles that are equal with other memberships in the same process.
    pub fn share_profiles(&mut self, pool: Arc<ProfilePool>) {
        self.pool = Some(pool);
    }

    /// Takes all these for members that are up, without a message being sent: a roster that
    /// was saved before a restart, or the beginning of a simulation. Introductions beyond
    /// [`Config::max_members`] are left out.
    pub fn introduce(&mut self, now: Instant, others: &[Introduction]) {
        let room = self.config.max_members.saturating_sub(self.view.known());
        let others: Vec<&Introduction> = others
            .iter()
            .filter(|other| other.peer.tag != self.own)
            .take(room)
            .collect();
        let members = others.iter().map(|other| foca::Member::alive(other.peer));
        let applied = self.foca.apply_many(members, false, self.wishes.at(now));
        debug_assert!(applied.is_ok(), "nothing is encoded");
        self.take_notifications(now);
        for other in others {
            self.view.set_profile(other.peer.tag, other.profile.clone());
            let (version, load) = other.load;
            let change = self.view.set_load(other.peer.tag, version, load);
            self.report(change);
        }
        self.settle(now);
    }

    // Getters.

    /// What [`introduce`](Self::introduce) needs to make this node known elsewhere.
    pub fn introduction(&self) -> Introduction {
        let profile = self.view.profile(self.own).expect("told in `new`").clone();
        Introduction {
            peer: *self.foca.identity(),
            profile,
            load: (self.load_version, self.told_load),
        }
    }

    /// The node that this is the membership of.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Who is there, without this node.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Who coordinates as far as this node has heard.
    pub fn claim(&self) -> Option<Claim> {
        self.claim
    }

    /// The generation in which this node is a member; grows when it has to join again.
    pub fn generation(&self) -> u32 {
        self.foca.identity().generation
    }

    /// Whether the roster of the mesh that was joined is still on its way.
    pub fn is_joining(&self) -> bool {
        self.roster.is_some()
    }

    /// What was counted so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// How many pieces of news wait to be passed on: updates and adverts.
    pub fn backlog(&self) -> (usize, usize) {
        (
            self.foca.updates_backlog(),
            self.foca.custom_broadcast_backlog(),
        )
    }

    // Commands.

    /// Joins the mesh that `seed` is a member of, and goes on trying until somebody answers.
    /// Up to 16 seeds are kept: this node looks for them whenever they aren't among the members.
    pub fn join(&mut self, now: Instant, seed: NodeId) {
        if seed == self.node || self.left {
            return;
        }
        self.remember_seed(seed);
        self.start_joining(now, seed);
        self.settle(now);
    }

    /// Leaves for good: the others hear of it at once instead of having to find out.
    pub fn leave(&mut self, now: Instant) {
        if self.left {
            return;
        }
        self.left = true;
        // Nothing repeats this message, so more than the usual three should get it.
        let mut config = self.config.foca(self.configured_for);
        config.num_indirect_probes = 8.try_into().expect("not zero");
        let configured = self.foca.set_config(config);
        debug_assert!(configured.is_ok(), "only the number of probes changes");
        let left = self.foca.leave_cluster(self.wishes.at(now));
        debug_assert!(left.is_ok(), "there is room for one update in a packet");
        self.timers = Timers::default();
        self.settle(now);
    }

    /// Changes this node's profile. The others hear of it within seconds; if nothing but its
    /// layers changed, as soon as the traffic allows.
    ///
    /// # Errors
    /// If it is too large, or names another node; the old one stays.
    pub fn set_profile(&mut self, now: Instant, profile: Profile) -> Result<(), AdvertError> {
        self.check_profile(&profile)?;
        if profile == self.profile {
            return Ok(());
        }
        self.profile = profile;
        let only_layers = Profile {
            layers: self.told_profile.layers,
            ..self.profile.clone()
        } == self.told_profile;
        let wait = if only_layers {
            // A profile takes about eight times as much as a load.
            self.config.load_period(self.view.up()) * 8
        } else {
            TELL_PERIOD_MIN
        };
        arm(&mut self.timers.tell_profile, self.told_profile_at + wait);
        self.tell_when_due(now);
        self.settle(now);
        Ok(())
    }

    /// Changes this node's load. That jobs began or ceased to wait is told within a second;
    /// other changes as soon as the traffic allows, which in a mesh of 10,000 nodes takes
    /// minutes.
    pub fn set_load(&mut self, now: Instant, load: Load) {
        if load == self.load {
            return;
        }
        self.load = load;
        let urgent = (load.jobs_queued == 0) != (self.told_load.jobs_queued == 0);
        let wait = if urgent {
            TELL_PERIOD_MIN
        } else {
            self.config.load_period(self.view.up())
        };
        arm(&mut self.timers.tell_load, self.told_load_at + wait);
        self.tell_when_due(now);
        self.settle(now);
    }

    /// Tells everybody who coordinates; a claim older than the known one is ignored.
    pub fn set_claim(&mut self, now: Instant, claim: Claim) {
        self.learn_claim(claim, true);
        self.settle(now);
    }

    // Handlers.

    /// Handles a message that arrived from `from`, whom the carrier has authenticated.
    ///
    /// # Errors
    /// If the message isn't one. Nothing of it has been applied then, but for pieces that
    /// were whole.
    pub fn handle_message(
        &mut self,
        now: Instant,
        from: NodeId,
        message: &[u8],
    ) -> Result<(), MessageError> {
        if self.left {
            return Ok(());
        }
        if message.len() > MAX_MESSAGE_BYTES {
            return Err(MessageError::TooLong(message.len()));
        }
        let tag = from.tag();
        let taken = self
            .view
            .profile(tag)
            .is_some_and(|known| known.profile.node != from);
        if from == self.node || tag == self.own || taken {
            return Err(MessageError::WrongSender);
        }
        self.wake(now);
        self.remember_contact(from);
        let mut reader = Reader(message);
        let result = match reader.u8()? {
            wire::SWIM => self.handle_swim(now, tag, reader.0),
            wire::ROSTER_REQUEST => self.handle_roster_request(from, reader),
            wire::ROSTER => self.handle_roster(now, from, reader),
            wire::SYNC => self.handle_sync(from, reader),
            wire::SUMMARY => self.handle_summary(now, from, reader),
            wire::ITEM_REQUEST => self.handle_item_request(from, reader),
            wire::ITEMS => self.handle_items(from, reader),
            _ => Err(Malformed.into()),
        };
        self.settle(now);
        result
    }

    /// Does what is due. Calling it early does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.left {
            return;
        }
        self.wake(now);
        while let Some(timer) = self.wishes.pop_due(now) {
            // The only errors are timers from before a reconnection; they want nothing.
            let _stale = self.foca.handle_timer(timer, self.wishes.at(now));
        }
        self.tell_when_due(now);
        if due(&mut self.timers.sync, now) {
            self.start_sync(now);
        }
        if due(&mut self.timers.repair, now) {
            self.request_missing();
        }
        if due(&mut self.timers.roster, now) {
            self.retry_roster(now);
        }
        if due(&mut self.timers.alone, now) {
            self.try_seeds(now);
        }
        if due(&mut self.timers.forget, now) {
            self.forget_down(now);
            self.timers.forget = Some(now + FORGET_PERIOD);
        }
        self.settle(now);
    }

    // Polls.

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.left {
            return None;
        }
        [self.timers.next_due(), self.wishes.next_due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        if self.missed_events {
            self.missed_events = false;
            self.events.clear();
            return Some(Event::Missed);
        }
        self.events.pop_front()
    }

    // Inside.

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
    fn wake(&mut self, now: Instant) {
        let slept = self
            .wishes
            .next_due()
            .map_or(Duration::ZERO, |due| now.saturating_duration_since(due));
        if slept > SLEPT_AFTER {
            self.wishes.postpone(slept);
        }
    }

    fn second(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.start)
            .as_secs()
            .try_into()
            .unwrap_or(u32::MAX)
    }

    fn remember_seed(&mut self, seed: NodeId) {
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

    fn handle_swim(
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

    fn read_profile(
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

    fn report(&mut self, change: Change) -> bool {
        match change {
            Change::Nothing => return false,
            Change::Hidden => {}
            Change::Appeared(node) => self.event(Event::Up(node)),
            Change::Changed(node) => self.event(Event::Changed(node)),
            Change::Disappeared(node) => self.event(Event::Down(node)),
        }
        true
    }

    fn check_profile(&self, profile: &Profile) -> Result<(), AdvertError> {
        if profile.node != self.node {
            return Err(AdvertError::OtherNode {
                profile: profile.node,
                this: self.node,
            });
        }
        profile.encode().map(drop)
    }

    fn tell_when_due(&mut self, now: Instant) {
        if due(&mut self.timers.tell_profile, now) {
            self.tell_profile(now);
        }
        if due(&mut self.timers.tell_load, now) && self.load != self.told_load {
            self.tell_load(now);
        }
    }

    fn tell_profile(&mut self, now: Instant) {
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

    fn tell_load(&mut self, now: Instant) {
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
    fn settle(&mut self, now: Instant) {
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

    fn forget_down(&mut self, now: Instant) {
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
