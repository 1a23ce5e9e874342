//! A node that pulls and serves bundles.

use crate::{
    Body, BundleId, Config, Ignored, Layout, Message, Nearness, Pieces,
    layout::BlobRange,
    link::{Link, Stage},
    message::MAX_PEERS,
    swarm::{Asked, Swarm},
    uploads::Uploads,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// A node that has left is joined again after this, where it would help.
const REJOIN_AFTER: Duration = Duration::from_secs(1);

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<N> {
    /// Fetch a piece, verify it, and call [`fetched`](Puller::fetched) or
    /// [`fetch_failed`](Puller::fetch_failed).
    Fetch {
        /// Names the fetch.
        ticket: u64,
        /// From whom.
        from: N,
        /// Of which bundle.
        bundle: BundleId,
        /// Which piece.
        piece: usize,
        /// What it consists of.
        ranges: Vec<BlobRange>,
    },
    /// Stop a fetch: its piece comes from elsewhere, or is no longer wanted. What arrives
    /// nevertheless may be reported or not.
    Abort {
        /// Which fetch.
        ticket: u64,
    },
    /// All pieces are here and verified. Given once.
    Complete {
        /// Of which bundle.
        bundle: BundleId,
    },
    /// No provider is known any more: the pull rests until
    /// [`add_provider`](Puller::add_provider) brings one.
    NoProvider {
        /// Of which bundle.
        bundle: BundleId,
    },
}

/// Why a fetch gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchError {
    /// The data does not match its hash: the provider is not asked for this bundle again.
    BadData,
    /// The provider no longer has it.
    NotThere,
    /// The connection failed, or took too long for the driver.
    Lost,
}

/// Decides which pieces of which bundles this node asks of whom, and whom it serves what. Never
/// blocks, reads no clock, does no I/O.
///
/// `N` names a node.
///
/// # Driving it
///
/// 1. Call one method that takes `now`. `now` never goes back.
/// 2. Send every message of [`poll_transmit`](Self::poll_transmit); messages may be lost, doubled,
///    delayed and reordered.
/// 3. Do every action of [`poll_action`](Self::poll_action).
/// 4. Call [`handle_timeout`](Self::handle_timeout) when [`poll_timeout`](Self::poll_timeout) says.
///
/// When another node asks the transport for a piece, [`may_serve`](Self::may_serve) says whether
/// that was agreed on.
#[derive(Debug)]
pub struct Puller<N> {
    pub(crate) me: N,
    pub(crate) config: Config,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) swarms: BTreeMap<BundleId, Swarm<N>>,
    pub(crate) uploads: Uploads<N>,
    pub(crate) numbers: u64,
    pub(crate) transmits: VecDeque<(N, Message<N>)>,
    pub(crate) actions: VecDeque<Action<N>>,
    pub(crate) ignored: Ignored,
}

impl<N: Copy + Ord> Puller<N> {
    /// A node that knows no bundle. Two with the same seed and the same calls do the same.
    pub fn new(me: N, config: Config, seed: u64) -> Self {
        Puller {
            me,
            config,
            rng: ChaCha8Rng::seed_from_u64(seed),
            swarms: BTreeMap::new(),
            uploads: Uploads::default(),
            numbers: 0,
            transmits: VecDeque::new(),
            actions: VecDeque::new(),
            ignored: Ignored::default(),
        }
    }

    /// Pulls a bundle, of which some pieces may be here already, and serves it from now on. A
    /// bundle that is known already only gains providers.
    pub fn pull(
        &mut self,
        now: Instant,
        bundle: BundleId,
        layout: Layout,
        have: Pieces,
        providers: &[(N, Nearness)],
    ) {
        if !self.swarms.contains_key(&bundle) {
            let swarm = Swarm::new(now, layout, have);
            if swarm.is_complete() {
                self.actions.push_back(Action::Complete { bundle });
            }
            self.swarms.insert(bundle, swarm);
        }
        for &(node, nearness) in providers {
            self.know(now, bundle, node, nearness);
        }
        self.settle(now, bundle);
    }

    /// Serves a bundle that is here whole.
    pub fn serve(&mut self, now: Instant, bundle: BundleId, layout: Layout) {
        let have = Pieces::all(layout.pieces());
        self.swarms
            .entry(bundle)
            .or_insert_with(|| Swarm::new(now, layout, have));
    }

    /// Another node that has the bundle, or some of it.
    pub fn add_provider(&mut self, now: Instant, bundle: BundleId, node: N, nearness: Nearness) {
        self.know(now, bundle, node, nearness);
        self.settle(now, bundle);
    }

    /// The bundle is no longer here, and no longer wanted.
    pub fn forget(&mut self, bundle: BundleId) {
        let Some(swarm) = self.swarms.remove(&bundle) else {
            return;
        };
        for (&node, link) in &swarm.links {
            if link.is_linked() {
                self.send(node, bundle, Body::Leave);
            }
        }
        for (&ticket, request) in &swarm.requests {
            if matches!(request.stage, Asked::Fetching { .. }) {
                self.actions.push_back(Action::Abort { ticket });
            }
        }
        self.uploads.drop_bundle(bundle);
    }

    /// A member is gone.
    pub fn peer_lost(&mut self, now: Instant, node: N) {
        let bundles: Vec<BundleId> = self.swarms.keys().copied().collect();
        for bundle in bundles {
            self.unlink(bundle, node);
            if let Some(swarm) = self.swarms.get_mut(&bundle) {
                swarm.drop_link(now, node);
            }
            self.settle(now, bundle);
        }
        self.uploads.drop_node(node, None);
        self.serve_next(now);
    }

    /// A piece has arrived and is verified: answers [`Action::Fetch`].
    pub fn fetched(&mut self, now: Instant, bundle: BundleId, ticket: u64) {
        let Some(swarm) = self.swarms.get_mut(&bundle) else {
            return;
        };
        let Some(request) = swarm.close(ticket) else {
            return;
        };
        let Asked::Fetching { piece, since, .. } = request.stage else {
            return;
        };
        let took = now.saturating_duration_since(since);
        swarm.usual = Some(
            swarm
                .usual
                .map_or(took, |usual| usual - usual / 8 + took / 8),
        );
        swarm.progress = now;
        if let Some(link) = swarm.links.get_mut(&request.to) {
            link.strikes = 0;
        }
        self.send(request.to, bundle, Body::Done { number: ticket });
        self.gained(bundle, piece);
        self.settle(now, bundle);
    }

    /// A piece did not arrive: answers [`Action::Fetch`].
    pub fn fetch_failed(&mut self, now: Instant, bundle: BundleId, ticket: u64, why: FetchError) {
        let Some(swarm) = self.swarms.get_mut(&bundle) else {
            return;
        };
        let Some(request) = swarm.close(ticket) else {
            return;
        };
        let Asked::Fetching { piece, .. } = request.stage else {
            return;
        };
        self.send(request.to, bundle, Body::Done { number: ticket });
        match why {
            FetchError::BadData => self.ban(now, bundle, request.to),
            FetchError::NotThere => {
                if let Some(swarm) = self.swarms.get_mut(&bundle) {
                    swarm.lacks(request.to, piece as usize);
                }
            }
            FetchError::Lost => self.strike(now, bundle, request.to),
        }
        self.settle(now, bundle);
    }

    /// A message arrived. `from` is whom the transport has authenticated.
    pub fn handle_message(&mut self, now: Instant, from: N, message: Message<N>) {
        let Message { bundle, body } = message;
        if !body.is_bounded() || from == self.me {
            self.ignored.too_large += 1;
            return;
        }
        let Some(swarm) = self.swarms.get_mut(&bundle) else {
            self.ignored.unknown_bundle += 1;
            if !matches!(body, Body::Leave | Body::Done { .. } | Body::Refuse { .. }) {
                self.send(from, bundle, Body::Leave);
            }
            return;
        };
        if swarm.banned.contains(&from) {
            self.ignored.banned += 1;
            return;
        }
        if let Some(link) = swarm.links.get_mut(&from) {
            link.heard = now;
        }
        match body {
            Body::Join { have } => self.handle_join(now, bundle, from, have),
            Body::Hello {
                have,
                linked,
                peers,
            } => {
                self.handle_hello(now, bundle, from, have, linked, peers);
            }
            Body::Have { have } => {
                if swarm.links.get(&from).is_some_and(Link::is_linked) {
                    swarm.learn(now, from, have);
                } else {
                    self.ignored.not_linked += 1;
                    self.send(from, bundle, Body::Leave);
                }
            }
            Body::Ask { number, pieces } => self.handle_ask(now, bundle, from, number, pieces),
            Body::Serve { number, piece } => self.handle_serve(now, bundle, from, number, piece),
            Body::Done { number } => {
                self.uploads.end(from, number);
                self.serve_next(now);
            }
            Body::Refuse { number } => self.handle_refuse(now, bundle, from, number),
            Body::Leave => {
                self.unlink(bundle, from);
                self.uploads.drop_node(from, Some(bundle));
                if let Some(swarm) = self.swarms.get_mut(&bundle) {
                    // It may come back, but is not pressed.
                    let at = now + REJOIN_AFTER;
                    swarm.set_stage(from, Stage::Known { at });
                }
                self.serve_next(now);
            }
        }
        self.settle(now, bundle);
    }

    fn handle_join(&mut self, now: Instant, bundle: BundleId, from: N, have: Pieces) {
        let Some(swarm) = self.swarms.get_mut(&bundle) else {
            return;
        };
        swarm.know(now, from, Nearness::Neighbour);
        let linked = swarm.links.get(&from).is_some_and(Link::is_linked);
        let room = swarm.linked() < self.config.links_most;
        let link = linked || room;
        if link {
            swarm.set_stage(from, Stage::Linked);
            swarm.learn(now, from, have);
        }
        let mine = swarm.mine.clone();
        if let Some(known) = swarm.links.get_mut(&from)
            && link
        {
            (known.told, known.told_at, known.heard) = (swarm.have, now, now);
        }
        let peers = self.some_peers(bundle, from);
        self.send(
            from,
            bundle,
            Body::Hello {
                have: mine,
                linked: link,
                peers,
            },
        );
    }

    /// Some of the nodes that want the bundle too, at random.
    fn some_peers(&mut self, bundle: BundleId, except: N) -> Vec<N> {
        let Some(swarm) = self.swarms.get(&bundle) else {
            return Vec::new();
        };
        let mut peers: Vec<N> = swarm
            .links
            .keys()
            .copied()
            .filter(|&node| node != except)
            .collect();
        let count = MAX_PEERS.min(peers.len());
        for index in 0..count {
            let other = self.rng.random_range(index..peers.len());
            peers.swap(index, other);
        }
        peers.truncate(count);
        peers
    }

    fn handle_hello(
        &mut self,
        now: Instant,
        bundle: BundleId,
        from: N,
        have: Pieces,
        linked: bool,
        peers: Vec<N>,
    ) {
        let rest = now + self.config.rest;
        let Some(swarm) = self.swarms.get_mut(&bundle) else {
            return;
        };
        let Some(link) = swarm.links.get(&from) else {
            self.ignored.unasked += 1;
            return;
        };
        match (link.stage, linked) {
            (Stage::Known { .. }, true) if swarm.linked() >= self.config.links_most => {
                self.ignored.unasked += 1;
                self.send(from, bundle, Body::Leave);
                return;
            }
            (Stage::Joining { .. }, false) => swarm.set_stage(from, Stage::Known { at: rest }),
            (Stage::Joining { .. } | Stage::Known { .. }, true) => {
                swarm.set_stage(from, Stage::Linked);
                if let Some(link) = swarm.links.get_mut(&from) {
                    link.told = 0;
                }
            }
            (Stage::Linked, _) | (Stage::Known { .. }, false) => {}
        }
        if linked {
            swarm.learn(now, from, have);
        }
        if !swarm.is_complete() {
            for peer in peers.into_iter().filter(|&peer| peer != self.me) {
                if swarm.know(now, peer, Nearness::Neighbour) {
                    swarm.look_at = now;
                }
            }
        }
    }

    /// Takes note of a piece that is here now.
    fn gained(&mut self, bundle: BundleId, piece: u32) {
        let Some(swarm) = self.swarms.get_mut(&bundle) else {
            return;
        };
        if !swarm.gain(piece) {
            return;
        }
        // Others that fetch it too are stopped.
        let also: Vec<u64> = swarm
            .requests
            .iter()
            .filter(|(_, request)| {
                matches!(request.stage, Asked::Fetching { piece: other, .. } if other == piece)
            })
            .map(|(&number, _)| number)
            .collect();
        for ticket in also {
            if let Some(request) = swarm.close(ticket) {
                self.actions.push_back(Action::Abort { ticket });
                let body = Body::Done { number: ticket };
                self.transmits
                    .push_back((request.to, Message { bundle, body }));
            }
        }
        if swarm.is_complete() {
            self.actions.push_back(Action::Complete { bundle });
            // Whoever waits to serve this node need not.
            let open: Vec<u64> = swarm.requests.keys().copied().collect();
            for number in open {
                if let Some(request) = swarm.close(number) {
                    let body = Body::Done { number };
                    self.transmits
                        .push_back((request.to, Message { bundle, body }));
                }
            }
        }
    }

    /// The node has sent bad data: never again.
    fn ban(&mut self, now: Instant, bundle: BundleId, node: N) {
        self.unlink(bundle, node);
        self.uploads.drop_node(node, Some(bundle));
        self.send(node, bundle, Body::Leave);
        if let Some(swarm) = self.swarms.get_mut(&bundle) {
            swarm.drop_link(now, node);
            swarm.banned.insert(node);
        }
        self.serve_next(now);
    }

    /// The node was slow or broke off. After a few times in a row it is left alone for a while,
    /// unless there is no other.
    pub(crate) fn strike(&mut self, now: Instant, bundle: BundleId, node: N) {
        let Some(swarm) = self.swarms.get_mut(&bundle) else {
            return;
        };
        let needed = !swarm.others_help(node);
        let Some(link) = swarm.links.get_mut(&node) else {
            return;
        };
        link.strikes += 1;
        if link.strikes >= self.config.strikes && !needed {
            self.unlink(bundle, node);
            self.send(node, bundle, Body::Leave);
            let at = now + self.config.rest;
            if let Some(swarm) = self.swarms.get_mut(&bundle) {
                swarm.set_stage(node, Stage::Known { at });
                if let Some(link) = swarm.links.get_mut(&node) {
                    // Also where it comes back by itself.
                    link.rests_until = Some(at);
                }
            }
        }
    }

    /// Ends the link and all requests to a node; it stays known.
    pub(crate) fn unlink(&mut self, bundle: BundleId, node: N) {
        let Some(swarm) = self.swarms.get_mut(&bundle) else {
            return;
        };
        let open: Vec<u64> = swarm
            .requests
            .iter()
            .filter(|(_, request)| request.to == node)
            .map(|(&number, _)| number)
            .collect();
        for number in open {
            if let Some(request) = swarm.close(number)
                && matches!(request.stage, Asked::Fetching { .. })
            {
                self.actions.push_back(Action::Abort { ticket: number });
            }
        }
        if let Some(link) = swarm.links.get_mut(&node) {
            let at = link.heard;
            link.strikes = 0;
            swarm.set_stage(node, Stage::Known { at });
        }
    }

    pub(crate) fn know(&mut self, now: Instant, bundle: BundleId, node: N, nearness: Nearness) {
        if node != self.me
            && let Some(swarm) = self.swarms.get_mut(&bundle)
        {
            if swarm.know(now, node, nearness) {
                swarm.look_at = now;
            }
            swarm.told_stuck = false;
        }
    }

    pub(crate) fn send(&mut self, to: N, bundle: BundleId, body: Body<N>) {
        debug_assert!(body.is_bounded(), "{} too large", body.name());
        self.transmits.push_back((to, Message { bundle, body }));
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<(N, Message<N>)> {
        self.transmits.pop_front()
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action<N>> {
        self.actions.pop_front()
    }

    /// The pieces of a bundle that are here.
    pub fn have(&self, bundle: BundleId) -> Option<&Pieces> {
        self.swarms.get(&bundle).map(|swarm| &swarm.mine)
    }

    /// How many pieces are being served.
    pub fn uploads(&self) -> usize {
        self.uploads.len()
    }

    /// How many nodes are linked, for one bundle.
    pub fn links(&self, bundle: BundleId) -> usize {
        self.swarms.get(&bundle).map_or(0, Swarm::linked)
    }

    /// Messages that were ignored.
    pub fn ignored(&self) -> Ignored {
        self.ignored
    }

    /// Panics where any two parts of the state contradict each other. Takes time linear in links
    /// and pieces.
    pub fn check_invariants(&self) {
        self.uploads.check_invariants();
        assert!(self.uploads.len() <= self.config.uploads);
        for swarm in self.swarms.values() {
            swarm.check_invariants();
            assert!(swarm.requests.len() <= self.config.in_flight + self.config.doubled);
            let most = self.config.links_most + self.config.links_wanted;
            assert!(swarm.linked() <= most, "{} links", swarm.linked());
        }
    }

    /// A fetch longer than this is slow.
    pub(crate) fn slow_after(&self, swarm: &Swarm<N>) -> Duration {
        let usual = swarm.usual.unwrap_or_default() * self.config.slow_factor;
        usual.max(self.config.slow_least)
    }

    pub(crate) fn slow_after_of(&self, bundle: BundleId) -> Duration {
        self.swarms
            .get(&bundle)
            .map_or(self.config.slow_least, |swarm| self.slow_after(swarm))
    }
}
