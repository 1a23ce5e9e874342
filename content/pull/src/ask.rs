//! What is asked of whom, and what falls due.

use crate::{
    Action, Body, BundleId, Nearness, Puller,
    link::{Link, Stage},
    message::MAX_ASKED,
    swarm::{Asked, Request, Swarm},
};
use rand::RngExt;
use std::time::{Duration, Instant};

/// How often an unanswered join is repeated.
const JOIN_TRIES: u32 = 4;
/// How long until more nodes are looked for where there are too few.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// An ask that waits for longer than this is withdrawn.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Without a piece for so long, the origin is asked for what others have too.
const STARVING: Duration = Duration::from_secs(1);

impl<N: Copy + Ord> Puller<N> {
    /// Something is due. Early calls do no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.uploads.expire(now);
        self.serve_next(now);
        let bundles: Vec<BundleId> = self.swarms.keys().copied().collect();
        for bundle in bundles {
            self.check_links(now, bundle);
            self.check_requests(now, bundle);
            self.settle(now, bundle);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let swarms = self.swarms.values().filter_map(|swarm| self.due(swarm));
        swarms.chain(self.uploads.next_expiry()).min()
    }

    /// When something is due for a bundle.
    fn due(&self, swarm: &Swarm<N>) -> Option<Instant> {
        let config = &self.config;
        let pulling = !swarm.is_complete();
        let links = swarm.active.iter().filter_map(|node| swarm.links.get(node));
        let links = links.map(|link| match link.stage {
            Stage::Joining { again, .. } => again,
            Stage::Linked | Stage::Known { .. } => {
                let interval = if link.told < swarm.have && !self.is_full(swarm, link) {
                    config.have_interval
                } else {
                    config.alive_interval
                };
                let silent = link.heard + config.silence;
                let rested = link.rests_until.into_iter();
                rested
                    .chain([link.told_at + interval])
                    .fold(silent, Instant::min)
            }
        });
        let requests = swarm.requests.values().map(|request| match &request.stage {
            Asked::Waiting { again, .. } => *again,
            Asked::Fetching { slow_at, .. } => *slow_at,
        });
        let look = pulling && !(swarm.links.is_empty() && swarm.told_stuck);
        let look = look.then_some(swarm.look_at);
        links.chain(requests).chain(look).min()
    }

    fn is_full(&self, swarm: &Swarm<N>, link: &Link) -> bool {
        link.theirs.len() == swarm.layout.pieces()
    }

    /// Ends every event about a bundle: links, asks, and tells.
    pub(crate) fn settle(&mut self, now: Instant, bundle: BundleId) {
        self.join_more(now, bundle);
        self.ask_more(now, bundle);
        self.tell(now, bundle);
    }

    /// Joins nodes until there are enough links.
    fn join_more(&mut self, now: Instant, bundle: BundleId) {
        let Some(swarm) = self.swarms.get_mut(&bundle) else {
            return;
        };
        if swarm.is_complete() || swarm.look_at > now {
            return;
        }
        swarm.look_at = now + LOOK_EVERY;
        let mut ready: Vec<(N, Nearness)> = swarm
            .links
            .iter()
            .filter(|(_, link)| matches!(link.stage, Stage::Known { at } if at <= now))
            .map(|(&node, link)| (node, link.nearness))
            .collect();
        // The nearest and the origins, whatever there is; of the others as many as are wanted.
        let mut joins: Vec<N> = Vec::new();
        ready.retain(|&(node, nearness)| {
            let other = nearness == Nearness::Neighbour;
            if !other {
                joins.push(node);
            }
            other
        });
        let wanted = self.config.links_wanted.saturating_sub(swarm.active.len());
        while joins.len() < wanted && !ready.is_empty() {
            let index = self.rng.random_range(0..ready.len());
            joins.push(ready.swap_remove(index).0);
        }
        if joins.is_empty() && wanted > 0 && swarm.linked() > 0 {
            // Someone may know others by now.
            let index = self.rng.random_range(0..swarm.active.len());
            joins.extend(swarm.active.iter().nth(index));
        }
        if joins.is_empty() && swarm.active.is_empty() && !swarm.told_stuck {
            let hopeful = |link: &Link| link.strikes == 0;
            if !swarm.links.values().any(hopeful) {
                swarm.told_stuck = true;
                self.actions.push_back(Action::NoProvider { bundle });
            }
        }
        for node in joins {
            self.join(now, bundle, node, 0);
        }
    }

    fn join(&mut self, now: Instant, bundle: BundleId, node: N, tries: u32) {
        let again = now + self.config.retry * (1 << tries.min(JOIN_TRIES));
        let Some(swarm) = self.swarms.get_mut(&bundle) else {
            return;
        };
        if !swarm.links.get(&node).is_some_and(Link::is_linked) {
            swarm.set_stage(node, Stage::Joining { again, tries });
        }
        let have = swarm.mine.clone();
        self.send(node, bundle, Body::Join { have });
    }

    /// Repeats joins, gives silent links up, and leaves where neither side needs the other.
    fn check_links(&mut self, now: Instant, bundle: BundleId) {
        let Some(swarm) = self.swarms.get(&bundle) else {
            return;
        };
        let active: Vec<N> = swarm.active.iter().copied().collect();
        let mut rested = Vec::new();
        for node in active {
            let Some(link) = self
                .swarms
                .get(&bundle)
                .and_then(|swarm| swarm.links.get(&node))
            else {
                continue;
            };
            match link.stage {
                Stage::Linked if link.rests_until.is_some_and(|until| until <= now) => {
                    rested.push(node);
                }
                Stage::Joining { again, tries } if again <= now => {
                    if tries < JOIN_TRIES {
                        self.join(now, bundle, node, tries + 1);
                    } else {
                        self.give_up(now, bundle, node);
                    }
                }
                Stage::Linked if link.heard + self.config.silence <= now => {
                    self.give_up(now, bundle, node);
                    self.uploads.drop_node(node, Some(bundle));
                }
                _ => {}
            }
        }
        for node in rested {
            if let Some(link) = self
                .swarms
                .get_mut(&bundle)
                .and_then(|swarm| swarm.links.get_mut(&node))
            {
                link.rests_until = None;
            }
        }
    }

    /// A node does not answer.
    fn give_up(&mut self, now: Instant, bundle: BundleId, node: N) {
        self.unlink(bundle, node);
        let at = now + self.config.rest;
        if let Some(swarm) = self.swarms.get_mut(&bundle) {
            swarm.set_stage(node, Stage::Known { at });
            if let Some(link) = swarm.links.get_mut(&node) {
                link.strikes += 1;
            }
        }
    }

    /// Repeats and withdraws asks, and takes slow fetches from their providers.
    fn check_requests(&mut self, now: Instant, bundle: BundleId) {
        let Some(swarm) = self.swarms.get(&bundle) else {
            return;
        };
        let slow_after = self.slow_after(swarm);
        let mut again = Vec::new();
        let mut withdrawn = Vec::new();
        let mut slow = Vec::new();
        for (&number, request) in &swarm.requests {
            match &request.stage {
                Asked::Waiting { since, .. } if *since + LONGEST_WAIT <= now => {
                    withdrawn.push(number);
                }
                Asked::Waiting { again: at, .. } if *at <= now => again.push(number),
                Asked::Fetching { piece, slow_at, .. } if *slow_at <= now => {
                    let has =
                        |link: &Link| link.is_linked() && link.theirs.contains(*piece as usize);
                    let elsewhere = swarm
                        .active
                        .iter()
                        .any(|node| *node != request.to && swarm.links.get(node).is_some_and(has));
                    slow.push((number, elsewhere));
                }
                _ => {}
            }
        }
        for number in again {
            let Some(swarm) = self.swarms.get_mut(&bundle) else {
                return;
            };
            let Some(request) = swarm.requests.get_mut(&number) else {
                continue;
            };
            let to = request.to;
            if let Asked::Waiting {
                pieces,
                again,
                repeats,
                ..
            } = &mut request.stage
            {
                *repeats += 1;
                *again = now + self.config.retry * (1 << (*repeats).min(3));
                let pieces = pieces.clone();
                self.send(to, bundle, Body::Ask { number, pieces });
            }
        }
        for number in withdrawn {
            let Some(request) = self
                .swarms
                .get_mut(&bundle)
                .and_then(|swarm| swarm.close(number))
            else {
                continue;
            };
            self.send(request.to, bundle, Body::Done { number });
        }
        for (number, elsewhere) in slow {
            if !elsewhere {
                // Better slowly than not at all.
                let requests = self
                    .swarms
                    .get_mut(&bundle)
                    .map(|swarm| &mut swarm.requests);
                if let Some(Request {
                    stage: Asked::Fetching { slow_at, .. },
                    ..
                }) = requests.and_then(|requests| requests.get_mut(&number))
                {
                    *slow_at = now + slow_after;
                }
                continue;
            }
            let Some(request) = self
                .swarms
                .get_mut(&bundle)
                .and_then(|swarm| swarm.close(number))
            else {
                continue;
            };
            self.actions.push_back(Action::Abort { ticket: number });
            self.send(request.to, bundle, Body::Done { number });
            self.strike(now, bundle, request.to);
        }
    }

    /// Asks as many providers for as many pieces as may be in flight.
    fn ask_more(&mut self, now: Instant, bundle: BundleId) {
        while let Some((to, pieces)) = self.next_ask(now, bundle) {
            self.numbers += 1;
            let number = self.numbers;
            let stage = Asked::Waiting {
                pieces: pieces.clone(),
                since: now,
                again: now + self.config.retry,
                repeats: 0,
            };
            if let Some(swarm) = self.swarms.get_mut(&bundle) {
                swarm.open(number, Request { to, stage });
            }
            self.send(to, bundle, Body::Ask { number, pieces });
        }
    }

    fn next_ask(&mut self, now: Instant, bundle: BundleId) -> Option<(N, Vec<u32>)> {
        let swarm = self.swarms.get(&bundle)?;
        if swarm.is_complete() || swarm.requests.len() >= self.config.in_flight {
            return None;
        }
        // Where few can help, each is asked for more.
        let helpful = swarm.linked().max(1);
        let most_each = (self.config.in_flight / helpful).max(self.config.in_flight_each);
        let mut providers: Vec<(Nearness, usize, u32, N)> = swarm
            .active
            .iter()
            .filter_map(|&node| Some((node, swarm.links.get(&node)?)))
            .filter(|(_, link)| {
                link.is_linked()
                    && link.in_flight < most_each
                    && link.rests_until.is_none_or(|until| until <= now)
                    && link.theirs.exceeds(&swarm.mine)
            })
            .map(|(node, link)| (link.nearness, link.in_flight, self.rng.random(), node))
            .collect();
        providers.sort_unstable();
        for &(nearness, _, _, node) in &providers {
            let Some(link) = swarm.links.get(&node) else {
                continue;
            };
            if !link.theirs.meets(&swarm.free) {
                continue;
            }
            // What the origin alone has, unless nothing else comes.
            let spare = nearness == Nearness::Origin && swarm.progress + STARVING > now;
            let mut pieces: Vec<(u16, u16, u32)> = link
                .theirs
                .both(&swarm.free)
                .filter(|&piece| !spare || swarm.copies[piece] == 0)
                .map(|piece| (swarm.copies[piece], self.rng.random(), piece as u32))
                .collect();
            if pieces.is_empty() {
                continue;
            }
            let most = (swarm.free.len() / self.config.in_flight).clamp(1, MAX_ASKED);
            if pieces.len() > most {
                pieces.select_nth_unstable(most);
                pieces.truncate(most);
            }
            pieces.sort_unstable();
            return Some((
                node,
                pieces.into_iter().map(|(_, _, piece)| piece).collect(),
            ));
        }
        self.next_double(now, bundle, &providers)
    }

    /// When every missing piece is asked for: one that is late, of another provider as well.
    fn next_double(
        &self,
        now: Instant,
        bundle: BundleId,
        providers: &[(Nearness, usize, u32, N)],
    ) -> Option<(N, Vec<u32>)> {
        let swarm = self.swarms.get(&bundle)?;
        if !swarm.free.is_empty() {
            return None;
        }
        let twice = swarm.named.iter().filter(|&&named| named > 1).count();
        if twice >= self.config.doubled {
            return None;
        }
        let late = swarm.usual? * 2;
        swarm.requests.values().find_map(|request| {
            let piece = match &request.stage {
                Asked::Fetching { piece, since, .. } if *since + late <= now => *piece,
                Asked::Waiting { pieces, since, .. } if *since + late <= now => *pieces.first()?,
                _ => return None,
            };
            if swarm.named[piece as usize] > 1 || swarm.mine.contains(piece as usize) {
                return None;
            }
            let (.., node) = providers.iter().find(|&&(.., node)| {
                let has = |link: &Link| link.theirs.contains(piece as usize);
                node != request.to && swarm.links.get(&node).is_some_and(has)
            })?;
            Some((*node, vec![piece]))
        })
    }

    /// A provider has chosen a piece: it is fetched, if it still helps.
    pub(crate) fn handle_serve(
        &mut self,
        now: Instant,
        bundle: BundleId,
        from: N,
        number: u64,
        piece: u32,
    ) {
        let Some(swarm) = self.swarms.get_mut(&bundle) else {
            return;
        };
        let request = swarm
            .requests
            .get(&number)
            .filter(|request| request.to == from);
        match request.map(|request| &request.stage) {
            Some(Asked::Waiting { pieces, .. }) if pieces.contains(&piece) => {}
            Some(Asked::Fetching { piece: known, .. }) if *known == piece => return,
            Some(_) => {
                self.ignored.unasked += 1;
                return;
            }
            None => {
                self.ignored.unasked += 1;
                self.send(from, bundle, Body::Done { number });
                return;
            }
        }
        let helps = !swarm.mine.contains(piece as usize);
        if !helps {
            swarm.close(number);
            self.send(from, bundle, Body::Done { number });
            return;
        }
        let ranges = swarm.layout.ranges(piece as usize);
        let slow_at = now + self.slow_after_of(bundle);
        if let Some(swarm) = self.swarms.get_mut(&bundle) {
            swarm.choose(number, piece, now, slow_at);
        }
        let piece = piece as usize;
        self.actions.push_back(Action::Fetch {
            ticket: number,
            from,
            bundle,
            piece,
            ranges,
        });
    }

    pub(crate) fn handle_refuse(&mut self, now: Instant, bundle: BundleId, from: N, number: u64) {
        let Some(swarm) = self.swarms.get_mut(&bundle) else {
            return;
        };
        let waiting = swarm.requests.get(&number).is_some_and(|request| {
            request.to == from && matches!(request.stage, Asked::Waiting { .. })
        });
        if !waiting {
            self.ignored.unasked += 1;
            return;
        }
        swarm.close(number);
        if let Some(link) = swarm.links.get_mut(&from) {
            link.rests_until = Some(now + self.config.have_interval * 2);
        }
    }

    /// Tells links what is new, and leaves those that neither need nor help.
    fn tell(&mut self, now: Instant, bundle: BundleId) {
        let Some(swarm) = self.swarms.get_mut(&bundle) else {
            return;
        };
        let pieces = swarm.layout.pieces();
        let complete = swarm.is_complete();
        let mut useless = Vec::new();
        let mut told = Vec::new();
        for &node in &swarm.active {
            let Some(link) = swarm.links.get_mut(&node).filter(|link| link.is_linked()) else {
                continue;
            };
            let full = link.theirs.len() == pieces;
            if full && complete {
                useless.push(node);
                continue;
            }
            let news = link.told < swarm.have && !full;
            // The last piece is told at once: whoever has all of them needs no more.
            let interval = if news {
                self.config.have_interval
            } else {
                self.config.alive_interval
            };
            if link.told_at + interval <= now || (news && complete) {
                link.told = swarm.have;
                link.told_at = now;
                told.push(node);
            }
        }
        for &node in &told {
            let Some(swarm) = self.swarms.get(&bundle) else {
                return;
            };
            let have = swarm.mine.clone();
            self.send(node, bundle, Body::Have { have });
        }
        for node in useless {
            self.unlink(bundle, node);
            self.uploads.drop_node(node, Some(bundle));
            self.send(node, bundle, Body::Leave);
        }
    }
}
