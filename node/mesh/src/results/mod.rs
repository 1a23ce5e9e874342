//! Results that members of the mesh know: asked for before a test is run, offered after it passed.
//!
//! A daemon keeps what its clients found out and what is offered to it. Whoever asks, asks a few
//! members that are chosen by the key, the same for everybody who sees the same members; so what
//! is offered to the first of them is found there. Nobody waits for a member that doesn't answer
//! in time, and nobody asks it again for a while.

mod open;
mod rate;
mod wire;

use crate::node::Shared;
use maelstrom_gossip::{Lending, NodeId};
use maelstrom_net::Channel;
use maelstrom_node::{
    MAX_SHARED_KEYS, MAX_SHARED_RESULT_BYTES, ResultKey, ResultStore, SharedResults,
};
use open::Questions;
use rate::Rate;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
pub(crate) use wire::Rubbish;
use wire::{Message, answers, batches};

/// How many members are asked for a result.
const ASKED: usize = 8;

/// How many members a result is offered to.
const OFFERED_TO: usize = 2;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(300);

/// How long a node that has just started waits to meet others before it asks nobody.
const MEETING: Duration = Duration::from_millis(250);

/// How long results are gathered before they are kept and offered together.
const GATHERED: Duration = Duration::from_millis(50);

/// How long a node that stops waits until what it offered is on its way.
const LAST_OFFERS: Duration = Duration::from_secs(1);

/// How many bytes of results are gathered at most.
const GATHERED_BYTES: usize = 1 << 20;

/// How many bytes may wait to be kept, offered or looked up: of this node's clients, and as many of
/// others. What doesn't fit is dropped.
const MAX_WAITING_BYTES: usize = 16 << 20;

/// What a task counts beyond its bytes.
const OVERHEAD_BYTES: usize = 256;

/// Questions of one peer, each counted once for every so many keys.
const KEYS_A_QUESTION: usize = 256;

/// What a node knows of results, and what it has to do about them.
pub(crate) struct Results {
    store: Option<Arc<dyn ResultStore>>,
    started: Instant,
    questions: Mutex<Questions>,
    /// An answer has come.
    answered: Condvar,
    tasks: Mutex<Tasks>,
    /// There is something to do.
    more: Condvar,
}

struct Tasks {
    queue: VecDeque<Task>,
    /// Bytes of others in the queue.
    bytes: usize,
    /// Found out here, since then.
    gathered: Vec<(ResultKey, Vec<u8>)>,
    gathered_bytes: usize,
    gathering_since: Option<Instant>,
    /// Questions of peers.
    questions: Rate,
    /// Bytes that peers offer.
    offers: Rate,
    closed: bool,
}

/// Something that takes time: the store is on a disk.
#[derive(Debug)]
enum Task {
    /// Look for results and answer.
    Answer {
        to: NodeId,
        number: u64,
        keys: Vec<ResultKey>,
    },
    /// Keep what came from a peer.
    Keep {
        from: NodeId,
        results: Vec<(ResultKey, Vec<u8>)>,
    },
    /// Keep what was found out here, and offer it.
    Offer(Vec<(ResultKey, Vec<u8>)>),
}

impl Results {
    pub(crate) fn new(store: Option<Arc<dyn ResultStore>>) -> Self {
        Self {
            store,
            started: Instant::now(),
            questions: Mutex::new(Questions::new(rand::random())),
            answered: Condvar::new(),
            tasks: Mutex::new(Tasks {
                queue: VecDeque::new(),
                bytes: 0,
                gathered: Vec::new(),
                gathered_bytes: 0,
                gathering_since: None,
                questions: Rate::new(4096, 256),
                offers: Rate::new(32 << 20, 4 << 20),
                closed: false,
            }),
            more: Condvar::new(),
        }
    }

    /// A peer has sent a message. It has the mesh key; whether membership knows it does not matter,
    /// since a client offers its last results as it leaves.
    pub(crate) fn hear(&self, from: NodeId, bytes: &[u8]) -> Result<(), Rubbish> {
        let now = Instant::now();
        match Message::decode(bytes)? {
            Message::Question { number, keys } => {
                let mut tasks = lock(&self.tasks);
                let amount = 1 + keys.len() / KEYS_A_QUESTION;
                if tasks.questions.take(now, from, amount) {
                    let bytes = keys.len() * size_of::<ResultKey>();
                    let to = from;
                    tasks.push(Task::Answer { to, number, keys }, bytes);
                }
            }
            Message::Answer {
                number,
                results,
                last,
            } => {
                lock(&self.questions).answer(from, number, results, last)?;
                self.answered.notify_all();
            }
            Message::Offer { results } => {
                let mut tasks = lock(&self.tasks);
                let amount = results.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
                if self.store.is_some() && tasks.offers.take(now, from, amount) {
                    tasks.push(Task::Keep { from, results }, amount);
                }
            }
        }
        self.more.notify_one();
        Ok(())
    }

    /// Something was found out here.
    fn gather(&self, key: ResultKey, result: Vec<u8>) {
        let mut tasks = lock(&self.tasks);
        if tasks.closed || tasks.gathered_bytes + result.len() > MAX_WAITING_BYTES {
            return;
        }
        tasks.gathered_bytes += result.len() + OVERHEAD_BYTES;
        tasks.gathered.push((key, result));
        let is_first = tasks.gathering_since.is_none();
        tasks.gathering_since.get_or_insert_with(Instant::now);
        let is_enough = tasks.gathered_bytes >= GATHERED_BYTES;
        drop(tasks);
        if is_first || is_enough {
            self.more.notify_one();
        }
    }

    /// The next thing to do. `None`: there will be nothing more.
    fn next(&self) -> Option<Task> {
        let mut tasks = lock(&self.tasks);
        loop {
            if let Some(task) = tasks.queue.pop_front() {
                tasks.bytes -= task.bytes();
                return Some(task);
            }
            let since = tasks.gathering_since.map(|since| since.elapsed());
            let left = since.map(|since| GATHERED.saturating_sub(since));
            let is_due = tasks.closed || tasks.gathered_bytes >= GATHERED_BYTES;
            tasks = match left {
                Some(left) if is_due || left.is_zero() => {
                    tasks.gathering_since = None;
                    tasks.gathered_bytes = 0;
                    return Some(Task::Offer(std::mem::take(&mut tasks.gathered)));
                }
                None if tasks.closed => return None,
                Some(left) => {
                    let waited = self.more.wait_timeout(tasks, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.more.wait(tasks);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    /// Does what is to be done, and no more after that.
    pub(crate) fn close(&self) {
        let mut tasks = lock(&self.tasks);
        tasks.closed = true;
        // Nobody waits for what others wanted.
        tasks.queue.clear();
        tasks.bytes = 0;
        drop(tasks);
        self.more.notify_one();
    }
}

impl Tasks {
    fn push(&mut self, task: Task, bytes: usize) {
        debug_assert_eq!(task.bytes(), bytes + OVERHEAD_BYTES);
        let bytes = bytes + OVERHEAD_BYTES;
        if !self.closed && self.bytes + bytes <= MAX_WAITING_BYTES {
            self.bytes += bytes;
            self.queue.push_back(task);
        }
    }
}

impl Task {
    fn bytes(&self) -> usize {
        let bytes = match self {
            Task::Answer { keys, .. } => keys.len() * size_of::<ResultKey>(),
            Task::Keep { results, .. } => results.iter().map(|(_, bytes)| bytes.len()).sum(),
            Task::Offer(_) => 0,
        };
        bytes + OVERHEAD_BYTES
    }
}

/// Does what is to be done about results, until the node stops. For a thread of its own.
pub(crate) fn work(shared: &Arc<Shared>) {
    let results = &shared.results;
    while let Some(task) = results.next() {
        match task {
            Task::Answer { to, number, keys } => {
                let found = match &results.store {
                    Some(store) => store.get(&keys),
                    None => Vec::new(),
                };
                for message in answers(number, found) {
                    shared.net.send(to, Channel::Results, message.encode());
                }
            }
            Task::Keep { from, results: new } => {
                let good = results.store.as_ref().is_none_or(|store| store.put(&new));
                if !good {
                    shared.net.ban(from, &Rubbish::Result.to_string());
                }
            }
            Task::Offer(new) => {
                let good = results.store.as_ref().is_none_or(|store| store.put(&new));
                // Others would turn away whoever offers them what is no result.
                if good {
                    offer(shared, new);
                }
            }
        }
    }
}

/// Waits until what was offered is on its way: there may be no connection yet with those it is
/// offered to, and a node that shuts down makes no new ones.
pub(crate) fn wait_until_sent(shared: &Shared) {
    let is_waiting = || {
        let peers = shared.net.stats().peers;
        let mut channels = peers.iter().flat_map(|peer| &peer.channels);
        channels.any(|channel| channel.channel == Channel::Results && channel.queued > 0)
    };
    let deadline = Instant::now() + LAST_OFFERS;
    while is_waiting() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends results to the members that others will ask for them first.
fn offer(shared: &Shared, results: Vec<(ResultKey, Vec<u8>)>) {
    let mut by_container: BTreeMap<[u8; 16], Vec<(ResultKey, Vec<u8>)>> = BTreeMap::new();
    for (key, result) in results {
        let those = by_container.entry(key.container()).or_default();
        those.push((key, result));
    }
    for (container, results) in by_container {
        let keepers = members_for(shared, container)
            .into_iter()
            .filter(|(_, keeps)| *keeps)
            .take(OFFERED_TO)
            .map(|(node, _)| node)
            .collect::<Vec<_>>();
        for batch in batches(results) {
            let message = Message::Offer { results: batch }.encode();
            for keeper in &keepers {
                shared.net.send(*keeper, Channel::Results, message.clone());
            }
        }
    }
}

/// The members in the order in which they are asked for results of a container, and whether they
/// are there to stay. Whoever never lends may be a client that is gone in a moment; those come
/// last.
fn members_for(shared: &Shared, container: [u8; 16]) -> Vec<(NodeId, bool)> {
    let state = shared.lock();
    let mut members: Vec<_> = state
        .cores
        .view()
        .iter()
        .map(|member| {
            let node = member.node();
            let stays = member.profile.lending != Lending::Never;
            let score = blake3::hash(&[&container[..], node.as_bytes()].concat());
            (!stays, *score.as_bytes(), node)
        })
        .collect();
    drop(state);
    members.sort_unstable();
    let members = members.into_iter();
    members.map(|(passes, _, node)| (node, !passes)).collect()
}

/// The results of a mesh, for the clients of one of its nodes.
pub(crate) struct Desk(pub(crate) Arc<Shared>);

impl SharedResults for Desk {
    fn find(&self, keys: &[ResultKey]) -> Vec<Option<Vec<u8>>> {
        let shared = &self.0;
        let results = &shared.results;
        let mut found = match &results.store {
            Some(store) => store.get(keys),
            None => vec![None; keys.len()],
        };
        let missing: Vec<usize> = (0..keys.len())
            .filter(|&place| found[place].is_none())
            .take(MAX_SHARED_KEYS)
            .collect();
        let Some(&first) = missing.first() else {
            return found;
        };
        if results.store.is_none() {
            meet(shared);
        }
        let now = Instant::now();
        let members = members_for(shared, keys[first].container());
        let asked: Vec<ResultKey> = missing.iter().map(|&place| keys[place]).collect();
        let mut questions = lock(&results.questions);
        let members: Vec<NodeId> = members
            .into_iter()
            .map(|(node, _)| node)
            .filter(|node| !questions.is_slow(now, *node))
            .take(ASKED)
            .collect();
        let number = questions.ask(&members, asked.len());
        drop(questions);
        let question = Message::Question {
            number,
            keys: asked,
        };
        let question = question.encode();
        for member in &members {
            shared.net.send(*member, Channel::Results, question.clone());
        }
        let mut questions = lock(&results.questions);
        loop {
            let left = PATIENCE.saturating_sub(now.elapsed());
            if questions.is_done(number) || left.is_zero() {
                break;
            }
            let waited = results.answered.wait_timeout(questions, left);
            questions = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let answers = questions.close(Instant::now(), number);
        drop(questions);
        for (place, (from, result)) in missing.into_iter().zip(answers).filter_map(some_answer) {
            if results.store.is_some() {
                let kept = vec![(keys[place], result.clone())];
                let bytes = result.len();
                let task = Task::Keep {
                    from,
                    results: kept,
                };
                lock(&results.tasks).push(task, bytes);
                results.more.notify_one();
            }
            found[place] = Some(result);
        }
        found
    }

    fn offer(&self, key: ResultKey, result: Vec<u8>) {
        // What is too long to be sent is of use to the clients of this machine.
        let is_of_use = result.len() <= MAX_SHARED_RESULT_BYTES || self.0.results.store.is_some();
        if is_of_use {
            self.0.results.gather(key, result);
        }
    }
}

fn some_answer<T>((place, answer): (usize, Option<T>)) -> Option<(usize, T)> {
    Some((place, answer?))
}

/// Gives a node that has just started the time to hear of others.
fn meet(shared: &Shared) {
    let results = &shared.results;
    while results.started.elapsed() < MEETING && !shared.lock().met {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
