//! One bundle: what this node has of it, and who else has what.

use crate::{
    Nearness, Pieces,
    layout::Layout,
    link::{Link, Stage},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// The most nodes that are known by name for one bundle.
pub(crate) const MAX_KNOWN: usize = 1024;

/// A request to one provider, from asking to having.
#[derive(Clone, Debug)]
pub(crate) struct Request<N> {
    pub(crate) to: N,
    pub(crate) stage: Asked,
}

/// How far a request is.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// The provider owes a choice among the pieces.
    Waiting {
        /// What would help.
        pieces: Vec<u32>,
        /// When it was first asked.
        since: Instant,
        /// When it is asked again.
        again: Instant,
        /// How often it was.
        repeats: u32,
    },
    /// The driver owes the piece.
    Fetching {
        /// Which.
        piece: u32,
        /// Since when.
        since: Instant,
        /// When it counts as slow, again and again.
        slow_at: Instant,
    },
}

/// Everything about one bundle.
#[derive(Debug)]
pub(crate) struct Swarm<N> {
    pub(crate) layout: Layout,
    pub(crate) mine: Pieces,
    pub(crate) have: usize,
    /// Missing pieces that no request names.
    pub(crate) free: Pieces,
    pub(crate) links: BTreeMap<N, Link>,
    /// Those that are linked or have been asked to be.
    pub(crate) active: BTreeSet<N>,
    linked: usize,
    /// Those that have sent bad data.
    pub(crate) banned: BTreeSet<N>,
    /// For each piece, how many linked nodes have it, origins left out.
    pub(crate) copies: Vec<u16>,
    /// For each piece, how often this node has served it.
    pub(crate) served: Vec<u16>,
    /// For each piece, how many requests name it.
    pub(crate) named: Vec<u8>,
    pub(crate) requests: BTreeMap<u64, Request<N>>,
    /// How long a piece takes: an average that forgets.
    pub(crate) usual: Option<Duration>,
    /// When a piece last arrived.
    pub(crate) progress: Instant,
    /// Whether the driver has been told that nobody is left.
    pub(crate) told_stuck: bool,
    /// When more nodes are next looked for.
    pub(crate) look_at: Instant,
}

impl<N: Copy + Ord> Swarm<N> {
    pub(crate) fn new(now: Instant, layout: Layout, mut mine: Pieces) -> Self {
        let pieces = layout.pieces();
        mine.cut(pieces);
        let mut free = Pieces::new();
        (0..pieces)
            .filter(|&piece| !mine.contains(piece))
            .for_each(|piece| {
                free.insert(piece);
            });
        Swarm {
            have: mine.len(),
            mine,
            free,
            links: BTreeMap::new(),
            active: BTreeSet::new(),
            linked: 0,
            banned: BTreeSet::new(),
            copies: vec![0; pieces],
            served: vec![0; pieces],
            named: vec![0; pieces],
            requests: BTreeMap::new(),
            usual: None,
            progress: now,
            told_stuck: false,
            look_at: now,
            layout,
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.have == self.layout.pieces()
    }

    /// Takes a node in by name, if there is room; whether it is new.
    pub(crate) fn know(&mut self, now: Instant, node: N, nearness: Nearness) -> bool {
        if self.banned.contains(&node) {
            return false;
        }
        match self
            .links
            .get(&node)
            .map(|link| (link.nearness, link.stage))
        {
            Some((known, stage)) => {
                // That a node has some of it is no news of one that stands for more.
                if known != nearness && nearness != Nearness::Neighbour {
                    self.set_stage(node, Stage::Known { at: now });
                    if let Some(link) = self.links.get_mut(&node) {
                        link.nearness = nearness;
                    }
                    self.set_stage(node, stage);
                }
                false
            }
            None if self.links.len() < MAX_KNOWN => {
                self.links.insert(node, Link::new(now, nearness));
                true
            }
            None => false,
        }
    }

    pub(crate) fn linked(&self) -> usize {
        self.linked
    }

    /// The other node tells what it has. Pieces are only ever added.
    pub(crate) fn learn(&mut self, now: Instant, node: N, mut have: Pieces) {
        have.cut(self.layout.pieces());
        let Some(link) = self.links.get_mut(&node) else {
            return;
        };
        link.heard = now;
        let counts = link.is_linked() && link.nearness != Nearness::Origin;
        let new: Vec<usize> = have.without(&link.theirs).collect();
        for piece in new {
            link.theirs.insert(piece);
            if counts {
                self.copies[piece] += 1;
            }
        }
    }

    /// Moves a link to a stage, and keeps the count of copies in step.
    pub(crate) fn set_stage(&mut self, node: N, stage: Stage) {
        let Some(link) = self.links.get_mut(&node) else {
            return;
        };
        let was = link.is_linked();
        link.stage = stage;
        let is = link.is_linked();
        if matches!(stage, Stage::Known { .. }) {
            self.active.remove(&node);
        } else {
            self.active.insert(node);
        }
        self.linked = self.linked + usize::from(is) - usize::from(was);
        if link.nearness != Nearness::Origin && was != is {
            for piece in link.theirs.iter() {
                let copies = &mut self.copies[piece];
                *copies = if is {
                    *copies + 1
                } else {
                    copies.saturating_sub(1)
                };
            }
        }
    }

    /// The other node turns out not to have a piece.
    pub(crate) fn lacks(&mut self, node: N, piece: usize) {
        if let Some(link) = self.links.get_mut(&node)
            && link.theirs.remove(piece)
            && link.is_linked()
            && link.nearness != Nearness::Origin
        {
            self.copies[piece] = self.copies[piece].saturating_sub(1);
        }
    }

    /// Starts a request.
    pub(crate) fn open(&mut self, number: u64, request: Request<N>) {
        if let Some(link) = self.links.get_mut(&request.to) {
            link.in_flight += 1;
        }
        self.name(&request, true);
        self.requests.insert(number, request);
    }

    /// Ends a request, whatever its stage.
    pub(crate) fn close(&mut self, number: u64) -> Option<Request<N>> {
        let request = self.requests.remove(&number)?;
        if let Some(link) = self.links.get_mut(&request.to) {
            link.in_flight -= 1;
        }
        self.name(&request, false);
        Some(request)
    }

    /// A provider has chosen: the other pieces are free for others.
    pub(crate) fn choose(&mut self, number: u64, piece: u32, now: Instant, slow_at: Instant) {
        let Some(mut request) = self.requests.remove(&number) else {
            return;
        };
        self.name(&request, false);
        request.stage = Asked::Fetching {
            piece,
            since: now,
            slow_at,
        };
        self.name(&request, true);
        self.requests.insert(number, request);
    }

    fn name(&mut self, request: &Request<N>, more: bool) {
        let one;
        let pieces = match &request.stage {
            Asked::Waiting { pieces, .. } => pieces.as_slice(),
            Asked::Fetching { piece, .. } => {
                one = [*piece];
                &one
            }
        };
        for &piece in pieces {
            let named = &mut self.named[piece as usize];
            if more {
                *named += 1;
                self.free.remove(piece as usize);
            } else {
                *named -= 1;
                if *named == 0 && !self.mine.contains(piece as usize) {
                    self.free.insert(piece as usize);
                }
            }
        }
    }

    /// A piece is here now; whether that is news.
    pub(crate) fn gain(&mut self, piece: u32) -> bool {
        let new = self.mine.insert(piece as usize);
        if new {
            self.have += 1;
            self.free.remove(piece as usize);
        }
        new
    }

    /// Forgets a node that is not linked.
    pub(crate) fn drop_link(&mut self, now: Instant, node: N) {
        self.set_stage(node, Stage::Known { at: now });
        self.links.remove(&node);
    }

    /// Whether any linked node but this one has a piece that is missing here.
    pub(crate) fn others_help(&self, except: N) -> bool {
        self.active
            .iter()
            .filter(|&&node| node != except)
            .any(|node| {
                let helps = |link: &Link| link.is_linked() && link.theirs.exceeds(&self.mine);
                self.links.get(node).is_some_and(helps)
            })
    }

    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.have, self.mine.len());
        let mut copies = vec![0; self.layout.pieces()];
        for link in self.links.values() {
            if link.is_linked() && link.nearness != Nearness::Origin {
                link.theirs.iter().for_each(|piece| copies[piece] += 1);
            }
        }
        assert_eq!(copies, self.copies, "copies are counted over all links");
        let mut named = vec![0; self.layout.pieces()];
        let mut in_flight: BTreeMap<N, usize> = BTreeMap::new();
        for request in self.requests.values() {
            *in_flight.entry(request.to).or_default() += 1;
            match &request.stage {
                Asked::Waiting { pieces, .. } => {
                    pieces.iter().for_each(|&piece| named[piece as usize] += 1);
                }
                Asked::Fetching { piece, .. } => named[*piece as usize] += 1,
            }
        }
        assert_eq!(
            named, self.named,
            "named pieces are counted over all requests"
        );
        for (piece, &named) in named.iter().enumerate() {
            let free = named == 0 && !self.mine.contains(piece);
            assert_eq!(
                self.free.contains(piece),
                free,
                "free pieces are missing and not named"
            );
        }
        let active = |link: &Link| !matches!(link.stage, Stage::Known { .. });
        let expected: BTreeSet<N> = self
            .links
            .iter()
            .filter(|(_, link)| active(link))
            .map(|(&node, _)| node)
            .collect();
        assert!(expected == self.active, "active nodes are listed");
        assert_eq!(
            self.linked,
            self.links.values().filter(|link| link.is_linked()).count()
        );
        for (node, link) in &self.links {
            let expected = in_flight.get(node).copied().unwrap_or(0);
            assert_eq!(link.in_flight, expected, "requests in flight to a node");
            assert!(!self.banned.contains(node), "no banned node is known");
        }
    }
}
