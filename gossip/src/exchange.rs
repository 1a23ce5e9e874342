//! What members tell each other beside foca's packets.
//!
//! A newcomer asks for the roster piece by piece, in the order of tags, so that the member
//! that answers keeps no state and a lost piece is simply asked for again:
//!
//! ```text
//! A ->[RosterRequest(from: 0, A's advert)]  B
//! B ->[Roster(80 nodes, more)]              A
//! A ->[RosterRequest(from: x)]              B
//! ```
//!
//! Now and then each member compares what it knows with a random other, in case both missed
//! different news:
//!
//! ```text
//! A ->[Sync(hash of each bucket)]             B
//! B ->[Summary(what B knows of 4 of them)]    A
//! A ->[Summary(what A knows better)]          B
//! A ->[ItemRequest(whose adverts are newer)]  B
//! B ->[Items(adverts)]                        A
//! ```

use std::time::{Duration, Instant};

use bytes::BufMut;
use rand::{RngExt, seq::index};

use crate::{
    Event, MessageError,
    advert::Item,
    id::{NodeId, Tag},
    membership::Membership,
    view::BUCKETS,
    wire::{
        self, ITEM_REQUEST, ITEMS, MAX_MESSAGE_BYTES, Malformed, ROSTER, ROSTER_REQUEST, Reader,
        SUMMARY, SUMMARY_BYTES, SYNC, Summary,
    },
};

/// How many differing buckets are summarised at a time.
const BUCKETS_PER_SYNC: usize = 4;

/// How many members a summary tells of at most.
const MAX_SUMMARIES: usize = (MAX_MESSAGE_BYTES - 64) / SUMMARY_BYTES;

/// How many adverts are asked for at a time.
const MAX_REQUESTED: usize = 128;

/// How many members a piece of the roster tells of at most.
const MAX_ROSTER_ENTRIES: usize = 256;

/// How long a piece of the roster is waited for before it is asked for again.
const ROSTER_ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// How far the roster has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RosterPull {
    /// Who is asked.
    server: NodeId,
    /// The lowest tag that hasn't been told.
    next: Tag,
}

impl Membership {
    /// Announces this node to `seed` and asks for the roster.
    pub(crate) fn start_joining(&mut self, now: Instant, seed: NodeId) {
        let peer = crate::id::Peer {
            tag: seed.tag(),
            generation: self.view.generation(seed.tag()).unwrap_or(0),
        };
        let announced = self.foca.announce(peer, self.wishes.at(now));
        debug_assert!(announced.is_ok(), "an announcement always fits");
        // A seed that doesn't answer is no reason to ask for the roster that is there.
        if self.roster.is_none() && self.view.up() == 1 {
            self.roster = Some(RosterPull {
                server: seed,
                next: 0,
            });
            self.request_roster(now);
        }
    }

    /// Tells `node` that this node is there, and its whole advert.
    pub(crate) fn announce_advert(&mut self, now: Instant, node: NodeId) {
        let peer = crate::id::Peer {
            tag: node.tag(),
            generation: self.view.generation(node.tag()).unwrap_or(0),
        };
        let announced = self.foca.announce(peer, self.wishes.at(now));
        debug_assert!(announced.is_ok(), "an announcement always fits");
        let mut message = vec![ITEMS];
        self.put_advert(self.own, &mut message);
        self.send(node, message);
    }

    fn request_roster(&mut self, now: Instant) {
        let Some(pull) = self.roster else {
            return;
        };
        let mut message = vec![ROSTER_REQUEST];
        message.put_u64_le(pull.next);
        if pull.next == 0 {
            self.put_advert(self.own, &mut message);
        }
        self.send(pull.server, message);
        self.timers_mut().roster = Some(now + ROSTER_ANSWER_WITHIN);
    }

    /// Nobody answered: ask somebody else, and announce this node anew.
    pub(crate) fn retry_roster(&mut self, now: Instant) {
        let Some(pull) = self.roster else {
            return;
        };
        let server = match self.view.choose(&mut self.rng) {
            Some(member) => member.node(),
            None if self.seeds.is_empty() => pull.server,
            None => self.seeds[self.rng.random_range(0..self.seeds.len())],
        };
        self.roster = Some(RosterPull {
            server,
            next: pull.next,
        });
        self.start_joining(now, server);
        self.request_roster(now);
    }

    /// Announces this node to a seed that isn't up as far as it knows. Without it, nodes that
    /// found each other while nobody else could be reached would stay among themselves. Where
    /// nobody at all is up, those that were are tried as well.
    pub(crate) fn try_seeds(&mut self, now: Instant) {
        if self.view.up() == 1 {
            let down = self.view.down_since(u32::MAX);
            let tried = 2.min(down.len());
            for position in index::sample(&mut self.rng, down.len(), tried) {
                let announced = self.foca.announce(down[position], self.wishes.at(now));
                debug_assert!(announced.is_ok(), "an announcement always fits");
            }
        }
        let missing: Vec<NodeId> = self.missing_seeds().collect();
        if !missing.is_empty() {
            let seed = missing[self.rng.random_range(0..missing.len())];
            self.remember_contact(seed);
            self.start_joining(now, seed);
        }
    }

    /// The seeds that aren't up as far as this node knows.
    pub(crate) fn missing_seeds(&self) -> impl Iterator<Item = NodeId> {
        self.seeds
            .iter()
            .copied()
            .filter(|seed| self.view.get(seed).is_none())
    }

    pub(crate) fn handle_roster_request(
        &mut self,
        from: NodeId,
        mut reader: Reader<'_>,
    ) -> Result<(), MessageError> {
        let next = reader.u64()?;
        while !reader.is_empty() {
            let item = reader.sized()?;
            if !item.is_empty() && self.learn(Reader(item).item()?) {
                self.pass_on(item);
            }
        }
        let mut message = vec![ROSTER];
        let asker = self.view.summary(from.tag());
        match asker {
            Some(asker) => {
                message.put_u8(1);
                asker.put(&mut message);
            }
            None => message.put_u8(0),
        }
        let more_at = message.len();
        message.put_u8(0);
        let tags = self.view.tags_from(next, MAX_ROSTER_ENTRIES + 1);
        for (count, tag) in tags.into_iter().enumerate() {
            let start = message.len();
            if let Some(summary) = self.view.summary(tag) {
                summary.put(&mut message);
                self.put_advert(tag, &mut message);
            }
            if message.len() > MAX_MESSAGE_BYTES || count == MAX_ROSTER_ENTRIES {
                message.truncate(start);
                message[more_at] = 1;
                break;
            }
        }
        self.send(from, message);
        Ok(())
    }

    /// Appends both parts of a member's advert, each behind its length; missing ones are empty.
    fn put_advert(&self, tag: Tag, message: &mut Vec<u8>) {
        match self.view.profile(tag) {
            Some(profile) => {
                let version = profile.version;
                let encoded = &profile.encoded;
                Item::Profile {
                    tag,
                    version,
                    encoded,
                }
                .put_sized(message);
            }
            None => message.put_u16_le(0),
        }
        match self.view.load(tag) {
            Some((version, load)) if version.sequence > 0 => {
                Item::Load { tag, version, load }.put_sized(message);
            }
            _ => message.put_u16_le(0),
        }
    }

    pub(crate) fn handle_roster(
        &mut self,
        now: Instant,
        from: NodeId,
        mut reader: Reader<'_>,
    ) -> Result<(), MessageError> {
        let asked = self.roster.filter(|pull| pull.server == from);
        let Some(mut pull) = asked else {
            return Ok(());
        };
        let myself = match reader.u8()? {
            0 => None,
            _ => Some(reader.summary()?),
        };
        let more = reader.u8()? != 0;
        let mut members = Vec::new();
        let mut items = Vec::new();
        while !reader.is_empty() {
            let summary = reader.summary()?;
            members.push(summary);
            for _part in 0..2 {
                let item = reader.sized()?;
                if !item.is_empty() {
                    items.push(Reader(item).item()?);
                }
            }
        }
        if let Some(myself) = myself.filter(|myself| myself.peer.tag == self.own) {
            self.learn_about_myself(now, myself);
        }
        let highest = members.iter().map(|summary| summary.peer.tag).max();
        self.apply_members(now, members, false)?;
        for item in items {
            self.learn(item);
        }
        let next = highest.unwrap_or(pull.next).checked_add(1);
        match next {
            Some(next) if more && next > pull.next => {
                pull.next = next;
                self.roster = Some(pull);
                self.request_roster(now);
            }
            _ => {
                self.roster = None;
                self.timers_mut().roster = None;
                self.event(Event::RosterComplete);
            }
        }
        Ok(())
    }

    /// Lets foca know of members that others know better; returns how many those were.
    fn apply_members(
        &mut self,
        now: Instant,
        members: Vec<Summary>,
        tell: bool,
    ) -> Result<usize, MessageError> {
        let news: Vec<Summary> = members
            .into_iter()
            .filter(|theirs| {
                let mine = self.view.summary(theirs.peer.tag);
                theirs.peer.tag != self.own
                    && mine
                        .is_none_or(|mine| mine.peer != theirs.peer || mine.active != theirs.active)
            })
            .collect();
        let known = self.foca.iter_membership_state().len();
        let unknown = news
            .iter()
            .filter(|summary| !self.view.knows(summary.peer.tag))
            .count();
        if known + unknown > self.config.max_members {
            return Err(MessageError::TooManyMembers);
        }
        let updates = news.iter().map(Summary::member);
        let applied = self.foca.apply_many(updates, tell, self.wishes.at(now));
        debug_assert!(applied.is_ok(), "an update always fits");
        self.take_notifications(now);
        for summary in &news {
            self.learn_unnoticed(now, summary.peer);
        }
        Ok(news.len())
    }

    /// Somebody told what it knows of this node.
    fn learn_about_myself(&mut self, now: Instant, myself: Summary) {
        self.outlive(now, myself.peer.generation);
        self.outdo(now, myself.profile.max(myself.load));
        if !myself.active && myself.peer.generation == self.generation() {
            let update = std::iter::once(myself.member());
            let applied = self.foca.apply_many(update, false, self.wishes.at(now));
            debug_assert!(applied.is_ok(), "an update always fits");
        }
    }

    pub(crate) fn start_sync(&mut self, now: Instant) {
        self.sync_after(now, 1.0);
        let Some(member) = self.view.choose(&mut self.rng) else {
            return;
        };
        let node = member.node();
        let mut message = vec![SYNC];
        for hash in self.view.hashes() {
            message.put_u32_le(*hash);
        }
        if let Some(claim) = self.claim {
            wire::put_claim(&mut message, claim);
        }
        self.send(node, message);
    }

    /// Plans the next comparison after about this share of the usual period.
    fn sync_after(&mut self, now: Instant, share: f64) {
        let factor = share * self.rng.random_range(0.75..1.25);
        let at = now + self.config.sync_period.mul_f64(factor);
        let timer = &mut self.timers_mut().sync;
        *timer = Some(timer.map_or(at, |timer| timer.min(at)));
    }

    pub(crate) fn handle_sync(
        &mut self,
        from: NodeId,
        mut reader: Reader<'_>,
    ) -> Result<(), MessageError> {
        let mut differing = Vec::new();
        for bucket in 0..BUCKETS {
            if reader.u32()? != self.view.hashes()[bucket] {
                differing.push(bucket);
            }
        }
        let theirs = if reader.is_empty() {
            None
        } else {
            Some(reader.claim()?)
        };
        reader.end()?;
        if let Some(claim) = theirs {
            self.learn_claim(claim, true);
        }
        if self.claim > theirs
            && let Some(claim) = self.claim
        {
            let mut message = vec![ITEMS];
            Item::Claim(claim).put_sized(&mut message);
            self.send(from, message);
        }
        if differing.is_empty() {
            return Ok(());
        }
        self.count_difference();
        let chosen = index::sample(
            &mut self.rng,
            differing.len(),
            BUCKETS_PER_SYNC.min(differing.len()),
        );
        let buckets: Vec<usize> = chosen.into_iter().map(|at| differing[at]).collect();
        let summaries = buckets
            .iter()
            .flat_map(|bucket| self.view.bucket(*bucket))
            .take(MAX_SUMMARIES)
            .collect();
        self.send_summaries(from, &buckets, summaries);
        Ok(())
    }

    /// An answer to a comparison names the buckets that it covers; an answer to that answer
    /// names none, and ends the matter.
    fn send_summaries(&mut self, to: NodeId, buckets: &[usize], summaries: Vec<Summary>) {
        let mut message = vec![SUMMARY];
        message.put_u8(buckets.len() as u8);
        for bucket in buckets {
            message.put_u8(*bucket as u8);
        }
        for summary in summaries {
            summary.put(&mut message);
        }
        self.send(to, message);
    }

    pub(crate) fn handle_summary(
        &mut self,
        now: Instant,
        from: NodeId,
        mut reader: Reader<'_>,
    ) -> Result<(), MessageError> {
        let mut buckets = Vec::new();
        for _ in 0..reader.u8()? {
            let bucket = usize::from(reader.u8()?);
            if bucket >= BUCKETS || buckets.len() == BUCKETS_PER_SYNC {
                return Err(Malformed.into());
            }
            buckets.push(bucket);
        }
        let mut theirs = Vec::new();
        while !reader.is_empty() {
            theirs.push(reader.summary()?);
        }
        theirs.sort_unstable_by_key(|summary| summary.peer.tag);
        theirs.dedup_by_key(|summary| summary.peer.tag);
        // Who is down and was forgotten here need not be remembered again.
        theirs.retain(|summary| summary.active || self.view.knows(summary.peer.tag));
        if !buckets.is_empty() {
            self.answer_summary(from, &buckets, &theirs);
        }
        for summary in &theirs {
            if summary.peer.tag == self.own {
                self.learn_about_myself(now, *summary);
            }
        }
        let news = self.apply_members(now, theirs.clone(), true)?;
        let wanted: Vec<Tag> = theirs
            .iter()
            .filter(|theirs| {
                self.view
                    .summary(theirs.peer.tag)
                    .is_some_and(|mine| theirs.profile > mine.profile || theirs.load > mine.load)
            })
            .map(|theirs| theirs.peer.tag)
            .filter(|tag| *tag != self.own)
            .take(MAX_REQUESTED)
            .collect();
        self.request_items(from, &wanted);
        if news > 0 || !wanted.is_empty() {
            // Where something was missed, more may have been.
            self.sync_after(now, 0.1);
        }
        Ok(())
    }

    /// Tells what this node knows better of the buckets in question.
    fn answer_summary(&mut self, from: NodeId, buckets: &[usize], theirs: &[Summary]) {
        let better: Vec<Summary> = buckets
            .iter()
            .flat_map(|bucket| self.view.bucket(*bucket))
            .filter(|mine| {
                let tag = mine.peer.tag;
                let told = theirs.binary_search_by_key(&tag, |theirs| theirs.peer.tag);
                (told.is_err() && mine.active)
                    || told.is_ok_and(|at| {
                        let theirs = &theirs[at];
                        mine.peer.generation > theirs.peer.generation
                            || (mine.peer == theirs.peer && !mine.active && theirs.active)
                            || mine.profile > theirs.profile
                            || mine.load > theirs.load
                    })
            })
            .take(MAX_SUMMARIES)
            .collect();
        if !better.is_empty() {
            self.send_summaries(from, &[], better);
        }
    }

    /// Asks for profiles that are missing: the node itself where its full id is known, as
    /// perhaps nobody else has it; a random member for the others.
    pub(crate) fn request_missing(&mut self) {
        const ASKED_DIRECTLY: usize = 16;
        let mut missing = self.view.without_profile(MAX_REQUESTED);
        let known: Vec<NodeId> = missing
            .iter()
            .filter_map(|tag| self.resolve(*tag))
            .take(ASKED_DIRECTLY)
            .collect();
        for node in known {
            missing.retain(|tag| *tag != node.tag());
            self.request_items(node, &[node.tag()]);
        }
        if let Some(member) = self.view.choose(&mut self.rng) {
            let node = member.node();
            self.request_items(node, &missing);
        }
    }

    fn request_items(&mut self, from: NodeId, tags: &[Tag]) {
        if tags.is_empty() {
            return;
        }
        let mut message = vec![ITEM_REQUEST];
        for tag in tags {
            message.put_u64_le(*tag);
        }
        self.send(from, message);
    }

    pub(crate) fn handle_item_request(
        &mut self,
        from: NodeId,
        mut reader: Reader<'_>,
    ) -> Result<(), MessageError> {
        if reader.0.len() > MAX_REQUESTED * 8 {
            return Err(Malformed.into());
        }
        let mut message = vec![ITEMS];
        while !reader.is_empty() {
            let tag = reader.u64()?;
            let start = message.len();
            self.put_advert(tag, &mut message);
            if message.len() > MAX_MESSAGE_BYTES {
                message.truncate(start);
                break;
            }
        }
        if message.len() > 1 {
            self.send(from, message);
        }
        Ok(())
    }

    pub(crate) fn handle_items(
        &mut self,
        from: NodeId,
        mut reader: Reader<'_>,
    ) -> Result<(), MessageError> {
        while !reader.is_empty() {
            let bytes = reader.sized()?;
            if bytes.is_empty() {
                continue;
            }
            let item = Reader(bytes).item()?;
            let first_hand = item.is_about(from.tag());
            // What comes from the node itself is perhaps known to nobody else.
            if self.learn(item) && first_hand {
                self.pass_on(bytes);
            }
        }
        Ok(())
    }
}
