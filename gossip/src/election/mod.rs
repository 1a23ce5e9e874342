//! Who coordinates: an election by term and lease.
//!
//! A coordinator's lease is granted by a majority of the *council*: the [`COUNCIL`] eligible
//! members with the lowest ids, in everybody's own view. So a council of five serves ten
//! thousand nodes, and each side of a network partition has a council of its own.
//!
//! ```text
//! A ->[Request(term 3)]           B, C, D, E   A stands
//! B, C, D ->[Grant(term 3)]       A            A has 4 of 5 with its own: it coordinates
//! A ->[Request(term 3, elected)]  B, C, D, E   every third of a lease
//! E ->[Request(term 4)]           A, B, C, D   E has heard nothing of A
//! B ->[Refuse(A, term 3)]         E            B granted A a lease that still runs
//! ```
//!
//! # What holds
//! - **Terms never go back** in a node, and each term has at most one coordinator. A node that starts again passes the last term it knew to [`Election::new`].
//! - **One at a time**: while all nodes agree who the council is, at most one node at a time
//!   believes itself coordinator. A member of the council that has granted a lease grants no
//!   other until that lease has run out by its own clock, and none at all for one lease after
//!   its start, as it has forgotten what it granted. The coordinator counts its lease from
//!   before it asked, and gives up early by [`ElectionConfig::clock_skew`]: clocks that run
//!   that much too fast or too slow change nothing. No clock is ever compared with another.
//! - **Settling**: where views differed (a partition that ended), two coordinators may meet.
//!   The one of the lower term, or of the lower id in one term, gives up at the first message
//!   about the other. Until then both work, which is harmless, since leases and outcomes of
//!   jobs are keyed by job.
//! - **Failover**: after a coordinator's death the next one is there as soon as its lease has
//!   run out and one round of messages has gone through, so within two leases; if that death
//!   takes the majority of the council away, once membership has noticed.
//!
//! A laptop that sleeps may stop its monotonic clock. A coordinator that wakes up then
//! believes in its lease for at most the rest of it; drive this with a clock that counts
//! sleep (`CLOCK_BOOTTIME`) to avoid even that.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

use crate::{advert::Claim, id::NodeId};

mod message;

pub use message::ElectionMessage;

/// How many members grant leases.
pub const COUNCIL: usize = 5;

/// How long leases are, and how much clocks may err.
#[derive(Clone, Copy, Debug)]
pub struct ElectionConfig {
    /// How long a lease is.
    pub lease: Duration,
    /// By which part of itself a clock's second may be too long or too short: 0.05 means that
    /// a clock may gain or lose three seconds a minute.
    pub clock_skew: f64,
}

impl Default for ElectionConfig {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(5),
            clock_skew: 0.05,
        }
    }
}

impl ElectionConfig {
    /// How long a coordinator trusts a lease of its own, counted from before it asked.
    fn trusted(&self) -> Duration {
        self.lease
            .mul_f64((1.0 - self.clock_skew) / (1.0 + self.clock_skew))
    }
}

/// A message to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ElectionTransmit {
    /// To whom.
    pub to: NodeId,
    /// What.
    pub message: ElectionMessage,
}

/// What the driver should know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ElectionEvent {
    /// This node coordinates from now on: tell everybody, say with
    /// [`Membership::set_claim`](crate::Membership::set_claim).
    Elected(Claim),
    /// This node doesn't coordinate any longer.
    Deposed(Claim),
    /// The highest term known has grown: keep it over a restart.
    Term(u64),
}

/// One node's part in electing a coordinator. Driven like a
/// [`Membership`](crate::Membership), whose view it needs to be told.
#[derive(Debug)]
pub struct Election {
    config: ElectionConfig,
    node: NodeId,
    rng: Xoshiro256PlusPlus,
    /// Eligible members that are up; this node too if it is eligible.
    eligible: BTreeSet<NodeId>,
    /// The highest claim heard of, whether or not its lease still runs.
    claim: Option<Claim>,
    /// The highest term heard of: whoever stands, stands for a higher one.
    term: u64,
    granted: Option<Granted>,
    /// The highest term in which this node granted a lease, and to whom: in one term it grants
    /// to one node only. After a start that is forgotten, and nobody is granted that term.
    voted: (u64, Option<NodeId>),
    /// The last leases that were given back: a question that arrives after that is void.
    released: VecDeque<Claim>,
    /// Before this nothing is granted: what was granted before the start is forgotten.
    silent_until: Instant,
    /// How many questions this node has asked.
    rounds: u32,
    role: Role,
    transmits: VecDeque<ElectionTransmit>,
    events: VecDeque<ElectionEvent>,
}

/// A lease that this node has granted, perhaps to itself.
#[derive(Clone, Copy, Debug)]
struct Granted {
    claim: Claim,
    until: Instant,
}

#[derive(Debug)]
enum Role {
    /// Grants leases to others; stands itself when the time has come.
    Follower { stand_at: Instant },
    /// Waits for grants.
    Candidate(Round),
    /// Coordinates until the lease runs out, and asks for a longer one in time.
    Coordinator {
        claim: Claim,
        until: Instant,
        round: Round,
        ask_at: Instant,
    },
}

/// One question to the council and its answers.
#[derive(Debug)]
struct Round {
    number: u32,
    term: u64,
    asked_at: Instant,
    granted_by: BTreeSet<NodeId>,
    refused_by: BTreeSet<NodeId>,
    over_at: Instant,
}

/// How many messages and events wait at most. A council of five never comes near it.
const MAX_WAITING: usize = 256;

impl Election {
    /// An election in which nobody is known yet. `last_term` is the highest term that this
    /// node knew before it started, or 0.
    pub fn new(
        now: Instant,
        node: NodeId,
        last_term: u64,
        config: ElectionConfig,
        seed: u64,
    ) -> Self {
        Self {
            node,
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            eligible: BTreeSet::new(),
            claim: None,
            term: last_term,
            granted: None,
            voted: (last_term, None),
            released: VecDeque::new(),
            silent_until: now + config.lease,
            rounds: 0,
            role: Role::Follower {
                stand_at: now + config.lease,
            },
            config,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Whether this node coordinates at this moment.
    pub fn is_coordinator(&self, now: Instant) -> bool {
        matches!(self.role, Role::Coordinator { until, .. } if now < until)
    }

    /// The term in which this node coordinates at this moment.
    pub fn coordinates_in(&self, now: Instant) -> Option<u64> {
        match self.role {
            Role::Coordinator { claim, until, .. } if now < until => Some(claim.term),
            _ => None,
        }
    }

    /// The highest claim heard of, if its holder is up and eligible.
    pub fn coordinator(&self) -> Option<Claim> {
        self.claim.filter(|claim| match self.role {
            Role::Coordinator { claim: own, .. } => own == *claim,
            _ => claim.coordinator != self.node && self.eligible.contains(&claim.coordinator),
        })
    }

    /// The highest term heard of.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Who grants leases, as far as this node knows.
    pub fn council(&self) -> impl Iterator<Item = NodeId> {
        self.eligible.iter().copied().take(COUNCIL)
    }

    /// An eligible member has come up: a view's [`Event::Up`](crate::Event::Up), or this node
    /// itself.
    pub fn add_eligible(&mut self, now: Instant, node: NodeId) {
        if self.eligible.insert(node) {
            self.council_changed(now);
        }
    }

    /// A member has gone down or isn't eligible any longer.
    pub fn remove_eligible(&mut self, now: Instant, node: NodeId) {
        if self.eligible.remove(&node) {
            self.council_changed(now);
        }
    }

    /// A claim has been heard of, say by [`Event::Claim`](crate::Event::Claim).
    pub fn handle_claim(&mut self, now: Instant, claim: Claim) {
        self.note(now, claim);
    }

    /// Handles a message that arrived from `from`, whom the carrier has authenticated.
    pub fn handle_message(&mut self, now: Instant, from: NodeId, message: ElectionMessage) {
        self.expire(now);
        match message {
            ElectionMessage::Request {
                term,
                round,
                elected,
            } => self.answer(now, from, term, round, elected),
            ElectionMessage::Grant { term, round } => self.count_grant(now, from, term, round),
            ElectionMessage::Refuse { term, known } => {
                self.raise_term(term);
                if let Some(known) = known {
                    self.note(now, known);
                }
                self.count_refusal(now, from, term);
            }
            ElectionMessage::Release { term } => self.take_back(from, term),
        }
    }

    /// Does what is due. Calling it early does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire(now);
        match &self.role {
            Role::Follower { stand_at } if *stand_at <= now => self.stand(now),
            Role::Candidate(round) if round.over_at <= now => self.withdraw(now),
            Role::Coordinator { ask_at, .. } if *ask_at <= now => self.ask_again(now),
            _ => {}
        }
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<ElectionTransmit> {
        self.transmits.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.role {
            Role::Follower { stand_at } => self.sits().then_some(*stand_at),
            Role::Candidate(round) => Some(round.over_at),
            Role::Coordinator { until, ask_at, .. } => Some((*until).min(*ask_at)),
        }
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<ElectionEvent> {
        self.events.pop_front()
    }

    /// Whether this node is in the council.
    fn sits(&self) -> bool {
        self.council().any(|member| member == self.node)
    }

    fn send(&mut self, to: NodeId, message: ElectionMessage) {
        if self.transmits.len() < MAX_WAITING {
            self.transmits.push_back(ElectionTransmit { to, message });
        }
    }

    fn event(&mut self, event: ElectionEvent) {
        if self.events.len() == MAX_WAITING {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn raise_term(&mut self, term: u64) {
        if term > self.term {
            self.term = term;
            self.event(ElectionEvent::Term(term));
        }
    }

    /// Takes note of a claim; one above this node's own ends that.
    fn note(&mut self, now: Instant, claim: Claim) {
        if claim.coordinator == self.node {
            // An echo of this node's own claim, perhaps from before a restart.
            self.raise_term(claim.term);
            return;
        }
        self.raise_term(claim.term);
        if self.claim.is_none_or(|known| claim > known) {
            self.claim = Some(claim);
        }
        if let Role::Coordinator { claim: own, .. } = self.role
            && claim > own
        {
            self.give_up(now);
        }
    }

    /// Lets go of a lease that has run out.
    fn expire(&mut self, now: Instant) {
        if let Role::Coordinator { until, .. } = self.role
            && until <= now
        {
            self.give_up(now);
        }
        if self.granted.is_some_and(|granted| granted.until <= now) {
            self.granted = None;
        }
    }

    fn give_up(&mut self, now: Instant) {
        let Role::Coordinator { claim, .. } = self.role else {
            return;
        };
        self.release(claim.term);
        self.event(ElectionEvent::Deposed(claim));
        self.follow(now);
    }

    /// Gives back what the council, this node included, granted this node. From here on it
    /// counts no grant of that term any longer.
    fn release(&mut self, term: u64) {
        let council: Vec<NodeId> = self.council().collect();
        for member in council {
            if member != self.node {
                self.send(member, ElectionMessage::Release { term });
            }
        }
        if self
            .granted
            .is_some_and(|granted| granted.claim.coordinator == self.node)
        {
            self.granted = None;
        }
    }

    /// Becomes a follower that stands when no lease runs any longer, the lower its id the
    /// sooner, so that usually one stands alone.
    fn follow(&mut self, now: Instant) {
        let runs_until = self.granted.map_or(now, |granted| granted.until);
        let free_from = runs_until.max(self.silent_until).max(now);
        let place = self.council().position(|member| member == self.node);
        let slot = self.config.lease / 16;
        let wait = slot.mul_f64(place.unwrap_or(COUNCIL) as f64 + self.rng.random_range(0.0..1.0));
        self.role = Role::Follower {
            stand_at: free_from + wait,
        };
    }

    fn council_changed(&mut self, now: Instant) {
        match self.role {
            Role::Follower { stand_at } if stand_at < now => self.follow(now),
            Role::Coordinator { .. } if !self.eligible.contains(&self.node) => self.give_up(now),
            _ => {}
        }
    }

    fn stand(&mut self, now: Instant) {
        if !self.sits() || self.granted.is_some() || now < self.silent_until {
            return self.follow(now);
        }
        let term = self.term.saturating_add(1);
        self.raise_term(term);
        self.voted = (term, Some(self.node));
        let round = self.ask(now, term, false);
        let number = round.number;
        self.role = Role::Candidate(round);
        // Alone in its council it is elected at once.
        self.count_grant(now, self.node, term, number);
    }

    fn ask_again(&mut self, now: Instant) {
        let Role::Coordinator { claim, until, .. } = self.role else {
            return;
        };
        let round = self.ask(now, claim.term, true);
        let number = round.number;
        self.role = Role::Coordinator {
            claim,
            until,
            round,
            ask_at: now + self.config.lease / 3,
        };
        if self.sits() {
            self.count_grant(now, self.node, claim.term, number);
        }
    }

    /// Asks the council for a lease, and grants its own.
    fn ask(&mut self, now: Instant, term: u64, elected: bool) -> Round {
        self.rounds = self.rounds.wrapping_add(1);
        let round = self.rounds;
        let council: Vec<NodeId> = self.council().collect();
        for member in council {
            if member == self.node {
                self.granted = Some(Granted {
                    claim: Claim {
                        term,
                        coordinator: self.node,
                    },
                    until: now + self.config.lease,
                });
            } else {
                let request = ElectionMessage::Request {
                    term,
                    round,
                    elected,
                };
                self.send(member, request);
            }
        }
        Round {
            number: round,
            term,
            asked_at: now,
            granted_by: BTreeSet::new(),
            refused_by: BTreeSet::new(),
            over_at: now + self.config.lease / 4,
        }
    }

    /// Somebody asks for a lease.
    fn answer(&mut self, now: Instant, from: NodeId, term: u64, round: u32, elected: bool) {
        let asked = Claim {
            term,
            coordinator: from,
        };
        if elected {
            self.note(now, asked);
        }
        // Of two candidates the one of the lower term makes room.
        if matches!(&self.role, Role::Candidate(round) if round.term < term) {
            self.withdraw(now);
        }
        let held_by_other = matches!(self.role, Role::Coordinator { .. })
            || self
                .granted
                .is_some_and(|granted| granted.claim.coordinator != from);
        let outdone = self.claim.is_some_and(|known| known > asked);
        // A coordinator may go on in its term even though somebody stood in a higher one.
        let (voted_term, voted_for) = self.voted;
        let taken = term == voted_term && voted_for != Some(from);
        let stale = (term < self.term || taken) && self.claim != Some(asked);
        let void = self.released.contains(&asked);
        if held_by_other || outdone || stale || void || now < self.silent_until {
            let (term, known) = (self.term, self.claim);
            self.send(from, ElectionMessage::Refuse { term, known });
            return;
        }
        self.raise_term(term);
        if term > voted_term {
            self.voted = (term, Some(from));
        }
        self.granted = Some(Granted {
            claim: asked,
            until: now + self.config.lease,
        });
        self.follow(now);
        self.send(from, ElectionMessage::Grant { term, round });
    }

    /// A candidate that can't win any longer makes room at once.
    fn count_refusal(&mut self, now: Instant, from: NodeId, term: u64) {
        let council: BTreeSet<NodeId> = self.council().collect();
        let Role::Candidate(round) = &mut self.role else {
            return;
        };
        round.refused_by.insert(from);
        let refused = round.refused_by.intersection(&council).count();
        if refused * 2 >= council.len() || term > round.term {
            self.withdraw(now);
        }
    }

    /// Ends a candidacy: gives back what it was granted so far, and waits for its next turn.
    fn withdraw(&mut self, now: Instant) {
        if let Role::Candidate(round) = &self.role {
            let term = round.term;
            self.release(term);
            self.follow(now);
        }
    }

    /// Somebody gives back what it was granted, or will be.
    fn take_back(&mut self, from: NodeId, term: u64) {
        let claim = Claim {
            term,
            coordinator: from,
        };
        if self.granted.is_some_and(|granted| granted.claim == claim) {
            self.granted = None;
        }
        if self.released.len() == 4 * COUNCIL {
            self.released.pop_front();
        }
        self.released.push_back(claim);
    }

    fn count_grant(&mut self, now: Instant, from: NodeId, term: u64, number: u32) {
        let council: BTreeSet<NodeId> = self.council().collect();
        let round = match &mut self.role {
            Role::Candidate(round) | Role::Coordinator { round, .. } => round,
            Role::Follower { .. } => return,
        };
        if round.number != number || round.term != term || !council.contains(&from) {
            return;
        }
        round.granted_by.insert(from);
        let granted = round.granted_by.intersection(&council).count();
        if granted * 2 <= council.len() {
            return;
        }
        let until = round.asked_at + self.config.trusted();
        let ask_at = round.asked_at + self.config.lease / 3;
        if until <= now {
            return;
        }
        let claim = Claim {
            term,
            coordinator: self.node,
        };
        let role = std::mem::replace(&mut self.role, Role::Follower { stand_at: now });
        self.role = match role {
            Role::Candidate(round) => {
                self.claim = Some(claim);
                self.event(ElectionEvent::Elected(claim));
                Role::Coordinator {
                    claim,
                    until,
                    round,
                    ask_at,
                }
            }
            Role::Coordinator {
                claim,
                round,
                ask_at,
                until: before,
            } => Role::Coordinator {
                claim,
                until: until.max(before),
                round,
                ask_at,
            },
            Role::Follower { .. } => unreachable!("returned above"),
        };
    }
}
