//! Results over a session: a client asks its daemon, which asks the mesh.

use crate::{
    client::Shared,
    frame::{self, MAX_EVENT_BYTES},
    message::{Event, Request},
    outgoing::Outgoing,
};
use maelstrom_node::{MAX_SHARED_KEYS, ResultKey, SharedResults};
use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, SyncSender, TrySendError},
    },
    time::Duration,
};

/// How long a client waits for its daemon, which itself does not wait so long.
const PATIENCE: Duration = Duration::from_millis(500);

/// How many questions of one client may wait. More are answered with nothing.
const MAX_QUESTIONS: usize = 64;

/// How many bytes of results answer one question: a client can run what does not fit.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// The results of some jobs, each in its place.
pub(crate) type Found = Vec<Option<Vec<u8>>>;

/// Questions of a client that its daemon has not answered.
#[derive(Default)]
pub(crate) struct Questions {
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    senders: HashMap<u64, mpsc::Sender<Found>>,
}

impl Questions {
    fn open(&self) -> (u64, mpsc::Receiver<Found>) {
        let (sender, receiver) = mpsc::channel();
        let mut open = lock(&self.open);
        let number = open.next;
        open.next += 1;
        open.senders.insert(number, sender);
        (number, receiver)
    }

    fn close(&self, number: u64) {
        lock(&self.open).senders.remove(&number);
    }

    /// The daemon has answered.
    pub(crate) fn answer(&self, number: u64, found: Found) {
        let sender = lock(&self.open).senders.remove(&number);
        if let Some(sender) = sender {
            // Whoever asked may have given up.
            let _ = sender.send(found);
        }
    }

    /// The daemon is gone, and answers nothing more.
    pub(crate) fn end(&self) {
        lock(&self.open).senders.clear();
    }
}

/// The results that the mesh of a daemon knows, for its client.
pub(crate) struct DaemonResults(pub(crate) Arc<Shared>);

impl SharedResults for DaemonResults {
    fn find(&self, keys: &[ResultKey]) -> Found {
        let keys_asked = &keys[..keys.len().min(MAX_SHARED_KEYS)];
        let (number, answer) = self.0.questions.open();
        self.0.send(&Request::FindResults {
            number,
            keys: Cow::Borrowed(keys_asked),
        });
        let mut found = answer.recv_timeout(PATIENCE).unwrap_or_default();
        self.0.questions.close(number);
        found.resize(keys.len(), None);
        found
    }

    fn offer(&self, key: ResultKey, result: Vec<u8>) {
        self.0.send(&Request::OfferResult {
            key,
            result: Cow::Owned(result),
        });
    }
}

/// Looks for the results that one client asks for, in a thread of its own: its jobs do not wait
/// for that.
#[derive(Default)]
pub(crate) struct Finder {
    questions: Option<SyncSender<(u64, Vec<ResultKey>)>>,
}

impl Finder {
    /// Answers a question, in a while.
    pub(crate) fn find(
        &mut self,
        results: Option<&Arc<dyn SharedResults>>,
        number: u64,
        keys: Vec<ResultKey>,
        out: &Outgoing,
    ) {
        let nothing = |out: &Outgoing| {
            let event = Event::FoundResults {
                number,
                found: Cow::Owned(Vec::new()),
            };
            send(out, &event);
        };
        let Some(results) = results.filter(|_| keys.len() <= MAX_SHARED_KEYS) else {
            return nothing(out);
        };
        if self.questions.is_none() {
            self.questions = start(results.clone(), out.clone());
        }
        let Some(questions) = &self.questions else {
            return nothing(out);
        };
        match questions.try_send((number, keys)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => nothing(out),
        }
    }
}

fn start(
    results: Arc<dyn SharedResults>,
    out: Outgoing,
) -> Option<SyncSender<(u64, Vec<ResultKey>)>> {
    let (sender, receiver) = mpsc::sync_channel::<(u64, Vec<ResultKey>)>(MAX_QUESTIONS);
    let thread = std::thread::Builder::new()
        .name("results of a client".to_owned())
        .stack_size(512 << 10)
        .spawn(move || {
            for (number, keys) in receiver {
                let mut left = MAX_ANSWER_BYTES;
                let mut found = results.find(&keys);
                for result in &mut found {
                    let length = result.as_ref().map_or(0, Vec::len);
                    match left.checked_sub(length) {
                        Some(less) => left = less,
                        None => *result = None,
                    }
                }
                let found = Cow::Owned(found);
                send(&out, &Event::FoundResults { number, found });
            }
        });
    thread.ok().map(|_| sender)
}

fn send(out: &Outgoing, event: &Event<'_>) {
    if let Ok(frame) = frame::encode(event, MAX_EVENT_BYTES) {
        out.push(frame);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
