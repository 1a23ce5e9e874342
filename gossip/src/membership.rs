//! Who is there and what they offer.

mod inside;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

use crate::{
    advert::{AdvertError, Claim, Load, Profile, Version},
    config::Config,
    exchange::RosterPull,
    id::{NodeId, Peer, Tag},
    pool::ProfilePool,
    swim::{Foca, Wishes},
    view::{VersionedProfile, View},
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
        // A few more will come.
        self.view.reserve(others.len() + others.len() / 16);
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

    /// Makes this node known to `node` at once, where gossip would take about a second: for a
    /// node that has something to say to it now. Repeats nothing, as gossip does that.
    pub fn greet(&mut self, now: Instant, node: NodeId) {
        if node == self.node || self.left {
            return;
        }
        self.remember_contact(node);
        self.announce_advert(now, node);
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
}
