//! The members that a node knows, with their adverts.

use std::sync::Arc;

use hashbrown::HashTable;
use rand::{Rng, RngExt};

use crate::{
    advert::{Lending, Load, Profile, Version},
    id::{NodeId, Peer, Tag},
    wire::Summary,
};

/// The number of groups that members fall into when two nodes compare what they know.
pub(crate) const BUCKETS: usize = 128;

/// Everybody a node knows. What it shows are the members that are up and whose profile has
/// arrived; lookups and random picks take constant time.
#[derive(Debug)]
pub struct View {
    /// The first [`Self::shown`] entries are the ones to show, and of these the first
    /// [`Self::queueing`] have jobs that wait.
    entries: Vec<Entry>,
    queueing: usize,
    shown: usize,
    /// Over all that are shown and lend.
    slots: Slots,
    /// How many entries are up, shown or not.
    up: usize,
    /// The node whose view this is: held like all others, but not shown.
    own: Tag,
    index: HashTable<u32>,
    /// For each bucket, a hash over the entries that are up, whatever their order.
    hashes: [u32; BUCKETS],
}

/// What is known of one node.
#[derive(Debug)]
struct Entry {
    tag: Tag,
    profile: Option<Arc<VersionedProfile>>,
    load_version: Version,
    generation: u32,
    jobs_queued: u32,
    /// When the node went down, in seconds of the membership's own count.
    down_since_s: u32,
    slots_free: u16,
    up: bool,
}

/// In which part of the list an entry stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Queueing,
    Shown,
    Hidden,
}

/// A profile with its version and its encoded form.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct VersionedProfile {
    pub(crate) version: Version,
    pub(crate) profile: Profile,
    pub(crate) encoded: Box<[u8]>,
}

/// A member as the view shows it.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// What it is.
    pub profile: &'a Profile,
    /// How busy it was when it last told.
    pub load: Load,
}

impl Member<'_> {
    /// Which node this is.
    pub fn node(&self) -> NodeId {
        self.profile.node
    }
}

/// Slots of several nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Slots {
    /// All of them.
    pub total: u64,
    /// Those that ran nothing when their node last told.
    pub free: u64,
}

/// What a piece of news changed about a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    Nothing,
    /// It is news, but of a node that isn't shown.
    Hidden,
    Appeared(NodeId),
    Changed(NodeId),
    Disappeared(NodeId),
}

impl View {
    pub(crate) fn new(own: Tag) -> Self {
        Self {
            own,
            entries: Vec::new(),
            queueing: 0,
            shown: 0,
            slots: Slots::default(),
            up: 0,
            index: HashTable::new(),
            hashes: [0; BUCKETS],
        }
    }

    /// How many members are up and have told their profile, this node not counted.
    pub fn len(&self) -> usize {
        self.shown
    }

    /// Whether no other member is known to be up.
    pub fn is_empty(&self) -> bool {
        self.shown == 0
    }

    /// The members, in no particular order; those with jobs that wait come first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Member<'_>> {
        self.entries[..self.shown]
            .iter()
            .map(|entry| entry.member().expect("the first entries are shown"))
    }

    /// The member at this place of [`iter`](Self::iter); the order seldom changes.
    pub fn nth(&self, index: usize) -> Option<Member<'_>> {
        self.entries[..self.shown].get(index)?.member()
    }

    /// How many members have jobs that wait for a slot: the first so many of
    /// [`iter`](Self::iter).
    pub fn queueing(&self) -> usize {
        self.queueing
    }

    /// The slots of all members that don't refuse to lend.
    pub fn slots(&self) -> Slots {
        self.slots
    }

    /// A member that is up, by its id.
    pub fn get(&self, node: &NodeId) -> Option<Member<'_>> {
        let position = self.position(node.tag())?;
        if position >= self.shown {
            return None;
        }
        self.entries[position]
            .member()
            .filter(|member| member.profile.node == *node)
    }

    /// A member picked at random.
    pub fn choose(&self, rng: &mut impl Rng) -> Option<Member<'_>> {
        if self.shown == 0 {
            return None;
        }
        self.entries[rng.random_range(0..self.shown)].member()
    }

    /// A number that is equal in two nodes exactly if they know the same of all members that
    /// are up, themselves included (unless two hashes happen to collide).
    pub fn fingerprint(&self) -> u64 {
        let mut state = 0;
        for (index, hash) in self.hashes.iter().enumerate() {
            state = mix(state ^ u64::from(*hash) ^ ((index as u64) << 32));
        }
        state
    }

    pub(crate) fn hashes(&self) -> &[u32; BUCKETS] {
        &self.hashes
    }

    /// How many nodes are up, this one counted, whether or not their profile has arrived.
    pub(crate) fn up(&self) -> usize {
        self.up
    }

    /// Makes room for so many more nodes, and no more than that.
    pub(crate) fn reserve(&mut self, additional: usize) {
        self.entries.reserve_exact(additional);
        let entries = &self.entries;
        self.index
            .reserve(additional, |index| mix(entries[*index as usize].tag));
    }

    /// How many nodes are held, up and down.
    pub(crate) fn known(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn knows(&self, tag: Tag) -> bool {
        self.position(tag).is_some()
    }

    pub(crate) fn generation(&self, tag: Tag) -> Option<u32> {
        Some(self.entries[self.position(tag)?].generation)
    }

    pub(crate) fn profile(&self, tag: Tag) -> Option<&Arc<VersionedProfile>> {
        self.entries[self.position(tag)?].profile.as_ref()
    }

    pub(crate) fn load(&self, tag: Tag) -> Option<(Version, Load)> {
        let entry = &self.entries[self.position(tag)?];
        Some((entry.load_version, entry.load()))
    }

    pub(crate) fn summary(&self, tag: Tag) -> Option<Summary> {
        Some(self.entries[self.position(tag)?].summary())
    }

    /// What is known of every node of a bucket, in no particular order.
    pub(crate) fn bucket(&self, bucket: usize) -> impl Iterator<Item = Summary> {
        self.entries
            .iter()
            .filter(move |entry| bucket_of(entry.tag) == bucket)
            .map(Entry::summary)
    }

    /// The `count` lowest tags at or above `from`, in order.
    pub(crate) fn tags_from(&self, from: Tag, count: usize) -> Vec<Tag> {
        let mut tags: Vec<Tag> = self
            .entries
            .iter()
            .map(|entry| entry.tag)
            .filter(|tag| *tag >= from)
            .collect();
        if tags.len() > count {
            tags.select_nth_unstable(count);
            tags.truncate(count);
        }
        tags.sort_unstable();
        tags
    }

    /// Nodes that are up and whose profile is missing, at most `count`.
    pub(crate) fn without_profile(&self, count: usize) -> Vec<Tag> {
        self.entries[self.shown..]
            .iter()
            .filter(|entry| entry.up && entry.tag != self.own)
            .map(|entry| entry.tag)
            .take(count)
            .collect()
    }

    /// The node is up, in this generation.
    pub(crate) fn set_up(&mut self, peer: Peer) -> Change {
        self.update(peer.tag, true, |entry| {
            let news = !entry.up || entry.generation != peer.generation;
            entry.up = true;
            entry.generation = peer.generation;
            news
        })
    }

    /// The node is down, in this generation, since this second.
    pub(crate) fn set_down(&mut self, peer: Peer, second: u32) -> Change {
        self.update(peer.tag, true, |entry| {
            let news = entry.up || entry.generation != peer.generation;
            entry.up = false;
            entry.down_since_s = second;
            entry.generation = peer.generation;
            news
        })
    }

    /// The node told its profile: kept if the node is known and the version newer.
    pub(crate) fn set_profile(&mut self, tag: Tag, profile: Arc<VersionedProfile>) -> Change {
        self.update(tag, false, |entry| {
            let news = profile.version > entry.profile_version();
            if news {
                entry.profile = Some(profile);
            }
            news
        })
    }

    /// The node told its load: kept if the node is known and the version newer.
    pub(crate) fn set_load(&mut self, tag: Tag, version: Version, load: Load) -> Change {
        self.update(tag, false, |entry| {
            let news = version > entry.load_version;
            if news {
                entry.load_version = version;
                entry.slots_free = load.slots_free;
                entry.jobs_queued = load.jobs_queued;
            }
            news
        })
    }

    /// The nodes that are down since this second or longer.
    pub(crate) fn down_since(&self, second: u32) -> Vec<Peer> {
        self.entries[self.shown..]
            .iter()
            .filter(|entry| !entry.up && entry.down_since_s <= second)
            .map(|entry| entry.summary().peer)
            .collect()
    }

    /// Forgets a node that is down.
    pub(crate) fn forget(&mut self, tag: Tag) {
        let Some(position) = self.position(tag) else {
            return;
        };
        debug_assert!(!self.entries[position].up, "only nodes that are down");
        if position < self.shown || self.entries[position].up {
            return;
        }
        self.remove_from_index(tag);
        self.entries.swap_remove(position);
        if let Some(moved) = self.entries.get(position) {
            self.set_index(moved.tag, self.entries.len(), position);
        }
    }

    /// Applies a change to one entry, and keeps hashes, counts and order in step.
    fn update(&mut self, tag: Tag, add: bool, change: impl FnOnce(&mut Entry) -> bool) -> Change {
        let position = match self.position(tag) {
            Some(position) => position,
            None if add => self.add(tag),
            None => return Change::Nothing,
        };
        let before = self.place(position);
        let was_up = self.entries[position].up;
        let hash_before = self.entries[position].hash();
        let slots_before = self.lent(position);
        if !change(&mut self.entries[position]) {
            return Change::Nothing;
        }
        let entry = &self.entries[position];
        self.hashes[bucket_of(tag)] ^= hash_before ^ entry.hash();
        self.up = self.up + usize::from(entry.up) - usize::from(was_up);
        let node = entry.profile.as_ref().map(|profile| profile.profile.node);
        let after = match node {
            Some(_) if !entry.up || tag == self.own => Place::Hidden,
            Some(_) if entry.jobs_queued > 0 => Place::Queueing,
            Some(_) => Place::Shown,
            None => Place::Hidden,
        };
        let position = self.move_to(position, before, after);
        let slots_after = self.lent(position);
        self.slots.total = self.slots.total + slots_after.total - slots_before.total;
        self.slots.free = self.slots.free + slots_after.free - slots_before.free;
        match (before, after, node) {
            (Place::Hidden, Place::Hidden, _) | (_, _, None) => Change::Hidden,
            (Place::Hidden, _, Some(node)) => Change::Appeared(node),
            (_, Place::Hidden, Some(node)) => Change::Disappeared(node),
            (_, _, Some(node)) => Change::Changed(node),
        }
    }

    fn place(&self, position: usize) -> Place {
        if position < self.queueing {
            Place::Queueing
        } else if position < self.shown {
            Place::Shown
        } else {
            Place::Hidden
        }
    }

    /// What an entry adds to [`Self::slots`].
    fn lent(&self, position: usize) -> Slots {
        let entry = &self.entries[position];
        match &entry.profile {
            Some(profile) if position < self.shown && profile.profile.lending != Lending::Never => {
                Slots {
                    total: profile.profile.slots_total.into(),
                    free: entry.slots_free.into(),
                }
            }
            _ => Slots::default(),
        }
    }

    /// Moves an entry from one part of the list to another, a step at a time; returns where it
    /// is then.
    fn move_to(&mut self, mut position: usize, from: Place, to: Place) -> usize {
        if from == Place::Hidden && to != Place::Hidden {
            self.swap(position, self.shown);
            position = self.shown;
            self.shown += 1;
        }
        if from != Place::Queueing && to == Place::Queueing {
            self.swap(position, self.queueing);
            position = self.queueing;
            self.queueing += 1;
        }
        if from == Place::Queueing && to != Place::Queueing {
            self.queueing -= 1;
            self.swap(position, self.queueing);
            position = self.queueing;
        }
        if from != Place::Hidden && to == Place::Hidden {
            self.shown -= 1;
            self.swap(position, self.shown);
            position = self.shown;
        }
        position
    }

    fn add(&mut self, tag: Tag) -> usize {
        let position = self.entries.len();
        self.entries.push(Entry {
            tag,
            profile: None,
            load_version: Version::default(),
            generation: 0,
            jobs_queued: 0,
            down_since_s: 0,
            slots_free: 0,
            up: false,
        });
        let entries = &self.entries;
        self.index
            .insert_unique(mix(tag), position as u32, |index| {
                mix(entries[*index as usize].tag)
            });
        position
    }

    fn position(&self, tag: Tag) -> Option<usize> {
        self.index
            .find(mix(tag), |index| self.entries[*index as usize].tag == tag)
            .map(|index| *index as usize)
    }

    fn swap(&mut self, a: usize, b: usize) {
        if a == b {
            return;
        }
        let (tag_a, tag_b) = (self.entries[a].tag, self.entries[b].tag);
        // The index is searched by position, so mark one of the two while they cross.
        self.set_index(tag_a, a, usize::from(u16::MAX) << 16);
        self.set_index(tag_b, b, a);
        self.set_index(tag_a, usize::from(u16::MAX) << 16, b);
        self.entries.swap(a, b);
    }

    fn set_index(&mut self, tag: Tag, from: usize, to: usize) {
        let index = self
            .index
            .find_mut(mix(tag), |index| *index as usize == from)
            .expect("every entry is in the index");
        *index = to as u32;
    }

    fn remove_from_index(&mut self, tag: Tag) {
        let entries = &self.entries;
        if let Ok(found) = self
            .index
            .find_entry(mix(tag), |index| entries[*index as usize].tag == tag)
        {
            found.remove();
        }
    }
}

impl Entry {
    fn profile_version(&self) -> Version {
        self.profile
            .as_ref()
            .map_or(Version::default(), |profile| profile.version)
    }

    fn load(&self) -> Load {
        Load {
            slots_free: self.slots_free,
            jobs_queued: self.jobs_queued,
        }
    }

    fn member(&self) -> Option<Member<'_>> {
        Some(Member {
            profile: &self.profile.as_ref()?.profile,
            load: self.load(),
        })
    }

    fn summary(&self) -> Summary {
        Summary {
            peer: Peer {
                tag: self.tag,
                generation: self.generation,
            },
            active: self.up,
            profile: self.profile_version(),
            load: self.load_version,
        }
    }

    /// Nodes that are down count for nothing: some forget them sooner.
    fn hash(&self) -> u32 {
        if !self.up {
            return 0;
        }
        let profile = self.profile_version();
        let parts = [
            u64::from(self.generation),
            u64::from(profile.boot) << 32 | u64::from(profile.sequence),
            u64::from(self.load_version.boot) << 32 | u64::from(self.load_version.sequence),
        ];
        let hash = parts
            .iter()
            .fold(self.tag, |state, part| mix(state ^ part).rotate_left(17));
        (hash >> 32) as u32
    }
}

pub(crate) fn bucket_of(tag: Tag) -> usize {
    (mix(tag) >> 57) as usize
}

/// Spreads the bits of a word over the whole word (the last step of SplitMix64).
fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests;
