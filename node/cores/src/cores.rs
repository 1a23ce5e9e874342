//! The cores of one node, and what they tell each other.

use crate::{MeshView, dispatch_id, gossip_id};
use maelstrom_dispatch::{self as dispatch, Dispatcher, Incarnation, Offer};
use maelstrom_gossip::{
    AdvertError, Claim, Config, Election, ElectionConfig, ElectionEvent, ElectionMessage,
    Event as MemberEvent, Load, Membership, MessageError, NodeId, Profile,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

/// How many members this node makes itself known to before gossip does, at most.
const MAX_GREETED: usize = 64;

/// From how many nodes that are no members yet a message of dispatch is kept.
const MAX_STRANGERS: usize = 64;

/// Which core of another node a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Membership.
    Gossip,
    /// The election of a coordinator.
    Election,
    /// Dispatch.
    Dispatch,
}

/// Why a message makes no sense. Its sender is broken, or worse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rubbish {
    /// Of membership.
    #[error("a message of membership: {0}")]
    Gossip(MessageError),
    /// Of the election.
    #[error("a message of the election that cannot be read")]
    Election,
    /// Of dispatch.
    #[error("a message of dispatch that cannot be read: {0}")]
    Dispatch(postcard::Error),
}

/// What the driver has to do or may want to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Send this. It may be lost; messages to one node should stay in order.
    Send {
        /// To whom.
        to: NodeId,
        /// For which of its cores.
        protocol: Protocol,
        /// What.
        message: Vec<u8>,
    },
    /// What dispatch asks for.
    Act(dispatch::Action),
    /// A member is up, and the view shows its profile.
    Up(NodeId),
    /// A member told a new profile or load.
    Changed(NodeId),
    /// A member has left or failed.
    Down(NodeId),
    /// The highest term has grown: keep it over a restart.
    Term(u64),
    /// Another node, or this one, coordinates.
    Coordinator(Claim),
}

/// What the cores of a node start with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What this node tells the others of itself. Names the node.
    pub profile: Profile,
    /// Seconds since 1970, say: grows with each start of the node.
    pub generation: u32,
    /// Milliseconds since 1970, say: grows with each start of the process.
    pub incarnation: Incarnation,
    /// The highest term known before the start, or 0.
    pub last_term: u64,
    /// How dispatch behaves.
    pub dispatch: dispatch::Config,
    /// Differs from node to node.
    pub seed: u64,
}

/// Membership, election and dispatch of one node.
///
/// Call a method that takes `now`, then do what [`poll_event`](Self::poll_event) says until it
/// says nothing, and call [`handle_timeout`](Self::handle_timeout) at
/// [`poll_timeout`](Self::poll_timeout). `now` never goes back, and is best taken from a clock
/// that counts sleep.
pub struct Cores {
    membership: Membership,
    election: Election,
    dispatcher: Dispatcher,
    told: Load,
    up: BTreeSet<NodeId>,
    greeted: BTreeSet<NodeId>,
    /// The last message of each node that is not a member yet.
    strangers: BTreeMap<NodeId, dispatch::Message>,
    events: VecDeque<Event>,
}

impl std::fmt::Debug for Cores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cores")
            .field("node", &self.membership.node())
            .field("members", &self.membership.view().len())
            .field("counts", &self.dispatcher.counts())
            .finish_non_exhaustive()
    }
}

impl Cores {
    /// The cores of a node that knows nobody yet.
    ///
    /// # Errors
    ///
    /// If the profile is too large.
    pub fn new(now: Instant, setup: Setup) -> Result<Self, AdvertError> {
        let Setup {
            profile,
            generation,
            incarnation,
            last_term,
            dispatch,
            seed,
        } = setup;
        let node = profile.node;
        let offer = Offer {
            slots: profile.slots_total,
            architecture: profile.architecture.clone(),
            labels: profile.labels.clone(),
        };
        let lending = match profile.lending {
            maelstrom_gossip::Lending::Always => dispatch::Lending::Always,
            maelstrom_gossip::Lending::Idle => dispatch::Lending::Idle,
            maelstrom_gossip::Lending::Never => dispatch::Lending::Never,
        };
        let me = dispatch_id(node);
        let dispatcher = Dispatcher::new(me, incarnation, offer, lending, dispatch, seed);
        let mut election = Election::new(
            now,
            node,
            last_term,
            ElectionConfig::default(),
            seed ^ 0x5eed,
        );
        if profile.may_coordinate {
            election.add_eligible(now, node);
        }
        let membership = Membership::new(
            now,
            node,
            generation,
            profile,
            Config::default(),
            seed.rotate_left(32),
        )?;
        let mut cores = Cores {
            membership,
            election,
            dispatcher,
            told: Load::default(),
            up: BTreeSet::new(),
            greeted: BTreeSet::new(),
            strangers: BTreeMap::new(),
            events: VecDeque::new(),
        };
        cores.settle(now);
        Ok(cores)
    }

    /// Who is there, without this node.
    pub fn view(&self) -> &maelstrom_gossip::View {
        self.membership.view()
    }

    /// Dispatch, to look at.
    pub fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    /// Who coordinates, as far as this node knows.
    pub fn coordinator(&self) -> Option<Claim> {
        self.election.coordinator()
    }

    /// Joins the mesh that another node is a member of.
    pub fn join(&mut self, now: Instant, node: NodeId) {
        self.membership.join(now, node);
        self.membership.greet(now, node);
        self.settle(now);
    }

    /// Tells the others that this node goes.
    pub fn leave(&mut self, now: Instant) {
        self.membership.leave(now);
        self.settle(now);
    }

    /// Changes what this node tells the others of itself.
    ///
    /// # Errors
    ///
    /// If the profile is too large.
    pub fn set_profile(&mut self, now: Instant, profile: Profile) -> Result<(), AdvertError> {
        let changed = self.membership.set_profile(now, profile);
        self.settle(now);
        changed
    }

    /// Uses dispatch together with the view of the mesh.
    pub fn dispatch<T>(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut Dispatcher, &dyn dispatch::View) -> T,
    ) -> T {
        let result = act(&mut self.dispatcher, &MeshView(self.membership.view()));
        self.settle(now);
        result
    }

    /// Handles a message that arrived from a node that the carrier has authenticated.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn handle_message(
        &mut self,
        now: Instant,
        from: NodeId,
        protocol: Protocol,
        message: &[u8],
    ) -> Result<(), Rubbish> {
        let result = match protocol {
            Protocol::Gossip => match self.membership.handle_message(now, from, message) {
                // Its sender does nothing wrong.
                Err(MessageError::TooManyMembers) => Ok(()),
                other => other.map_err(Rubbish::Gossip),
            },
            Protocol::Election => ElectionMessage::decode(message)
                .map(|message| self.election.handle_message(now, from, message))
                .map_err(|_| Rubbish::Election),
            Protocol::Dispatch => postcard::from_bytes(message)
                .map(|message| self.handle_dispatch(now, from, message))
                .map_err(Rubbish::Dispatch),
        };
        self.settle(now);
        result
    }

    fn handle_dispatch(&mut self, now: Instant, from: NodeId, message: dispatch::Message) {
        if !self.up.contains(&from) {
            // Gossip has not told of it yet: get to know it, and hear it then. What it says
            // before its last word, it repeats.
            if self.strangers.len() < MAX_STRANGERS || self.strangers.contains_key(&from) {
                self.strangers.insert(from, message);
            }
            self.membership.greet(now, from);
            return;
        }
        let view = MeshView(self.membership.view());
        self.dispatcher
            .handle_message(now, &view, dispatch_id(from), message);
    }

    /// Does what is due. Early calls do no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.membership.poll_timeout().is_some_and(|due| due <= now) {
            self.membership.handle_timeout(now);
        }
        if self.election.poll_timeout().is_some_and(|due| due <= now) {
            self.election.handle_timeout(now);
        }
        if self.dispatcher.poll_timeout().is_some_and(|due| due <= now) {
            self.dispatcher
                .handle_timeout(now, &MeshView(self.membership.view()));
        }
        self.settle(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.membership.poll_timeout(),
            self.election.poll_timeout(),
            self.dispatcher.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next thing to do or to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Passes on what the cores have to say, to each other and to others, until they are silent.
    fn settle(&mut self, now: Instant) {
        loop {
            let busy =
                self.settle_membership(now) | self.settle_election(now) | self.settle_dispatch();
            if !busy && !self.tell_load(now) {
                return;
            }
        }
    }

    fn settle_membership(&mut self, now: Instant) -> bool {
        let mut busy = false;
        loop {
            if let Some(transmit) = self.membership.poll_transmit() {
                self.events.push_back(Event::Send {
                    to: transmit.to,
                    protocol: Protocol::Gossip,
                    message: transmit.message,
                });
            } else if let Some(event) = self.membership.poll_event() {
                self.member_event(now, event);
            } else {
                return busy;
            }
            busy = true;
        }
    }

    fn member_event(&mut self, now: Instant, event: MemberEvent) {
        match event {
            MemberEvent::Up(node) => self.member_up(now, node),
            MemberEvent::Changed(node) => {
                if self.up.contains(&node) {
                    self.events.push_back(Event::Changed(node));
                }
            }
            MemberEvent::Down(node) => self.member_down(now, node),
            MemberEvent::Claim(claim) => {
                self.election.handle_claim(now, claim);
                self.events.push_back(Event::Coordinator(claim));
            }
            MemberEvent::Missed => {
                let up: BTreeSet<NodeId> = self.view().iter().map(|member| member.node()).collect();
                for node in self.up.difference(&up).copied().collect::<Vec<_>>() {
                    self.member_down(now, node);
                }
                for node in up.difference(&self.up.clone()).copied() {
                    self.member_up(now, node);
                }
            }
            MemberEvent::RosterComplete | MemberEvent::Rejoined => {}
        }
    }

    fn member_up(&mut self, now: Instant, node: NodeId) {
        if !self.up.insert(node) {
            return;
        }
        let eligible = |member: maelstrom_gossip::Member<'_>| member.profile.may_coordinate;
        if self.view().get(&node).is_some_and(eligible) {
            self.election.add_eligible(now, node);
        }
        if self.greeted.len() < MAX_GREETED && self.greeted.insert(node) {
            self.membership.greet(now, node);
        }
        self.events.push_back(Event::Up(node));
        if let Some(message) = self.strangers.remove(&node) {
            self.handle_dispatch(now, node, message);
        }
    }

    fn member_down(&mut self, now: Instant, node: NodeId) {
        if !self.up.remove(&node) {
            return;
        }
        self.greeted.remove(&node);
        self.election.remove_eligible(now, node);
        let view = MeshView(self.membership.view());
        self.dispatcher.peer_lost(now, &view, dispatch_id(node));
        self.events.push_back(Event::Down(node));
    }

    fn settle_election(&mut self, now: Instant) -> bool {
        let mut busy = false;
        loop {
            if let Some(transmit) = self.election.poll_transmit() {
                self.events.push_back(Event::Send {
                    to: transmit.to,
                    protocol: Protocol::Election,
                    message: transmit.message.encode(),
                });
            } else if let Some(event) = self.election.poll_event() {
                match event {
                    ElectionEvent::Elected(claim) => {
                        self.membership.set_claim(now, claim);
                        self.events.push_back(Event::Coordinator(claim));
                    }
                    ElectionEvent::Deposed(_) => {}
                    ElectionEvent::Term(term) => self.events.push_back(Event::Term(term)),
                }
            } else {
                return busy;
            }
            busy = true;
        }
    }

    fn settle_dispatch(&mut self) -> bool {
        let mut busy = false;
        loop {
            if let Some((to, message)) = self.dispatcher.poll_transmit() {
                match postcard::to_stdvec(&message) {
                    Ok(message) => self.events.push_back(Event::Send {
                        to: gossip_id(to),
                        protocol: Protocol::Dispatch,
                        message,
                    }),
                    Err(error) => debug_assert!(false, "messages can be encoded: {error}"),
                }
            } else if let Some(action) = self.dispatcher.poll_action() {
                self.events.push_back(Event::Act(action));
            } else {
                return busy;
            }
            busy = true;
        }
    }

    /// Tells membership of a changed load. Whether it has changed.
    fn tell_load(&mut self, now: Instant) -> bool {
        let counts = self.dispatcher.counts();
        let load = Load {
            slots_free: if self.dispatcher.lends() {
                counts.slots_free
            } else {
                0
            },
            jobs_queued: u32::try_from(counts.queued).unwrap_or(u32::MAX),
        };
        if self.told == load {
            return false;
        }
        self.told = load;
        self.membership.set_load(now, load);
        true
    }
}
