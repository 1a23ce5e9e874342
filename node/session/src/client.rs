//! A client's end: jobs go to the daemon as long as there is one.

use crate::{
    Session, Welcome,
    frame::{self, MAX_EVENT_BYTES, MAX_REQUEST_BYTES},
    message::{Event, MAX_CONTAINERS, Request, WINDOW, WireJob},
    outgoing::Outgoing,
    results::{DaemonResults, Questions},
};
use maelstrom_content::Store;
use maelstrom_dispatch::Queue;
use maelstrom_node::{Container, Handler, Job, JobEvent, JobId, JobService, Node, SharedResults};
use maelstrom_runtime::Launcher;
use maelstrom_spec::{JobError, JobOutcome};
use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    os::unix::net::UnixStream,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Requests that wait to be sent: the daemon reads all the time, and there is a window.
const MAX_UNSENT_BYTES: usize = 1 << 30;

/// How long stopping waits for the daemon to say that the jobs have ended.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// How long stopping waits for the last words to be sent: the daemon reads all the time.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Makes what a client uses when the daemon has gone away; told why it has. The error becomes
/// that of every job.
pub type Fallback = Box<dyn FnOnce(&str) -> Result<Arc<dyn JobService>, String> + Send>;

/// Runs jobs by the daemon of this machine, and by something else once the daemon is gone.
///
/// A job that had not ended when the daemon went away is run again, and reported once all the
/// same.
pub struct SessionClient {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

pub(crate) struct Shared {
    welcome: Welcome,
    out: Outgoing,
    launcher: Launcher,
    store: Store,
    next_id: AtomicU64,
    state: Mutex<State>,
    pub(crate) questions: Questions,
    /// Some job has ended.
    ended: Condvar,
}

struct State {
    jobs: HashMap<JobId, Waiting>,
    /// Those that don't fit into the daemon's window yet.
    queue: Queue<JobId>,
    /// How many the daemon has.
    sent: usize,
    containers: Containers,
    /// Jobs that run in this process, on slots that the daemon keeps free.
    here: HashMap<JobId, ()>,
    /// What they run on.
    own: Option<Arc<Node>>,
    mode: Mode,
    fallback: Option<Fallback>,
    /// What was cancelled while jobs were on their way to the stand-in.
    late: Cancels,
    stopping: bool,
}

#[derive(Default)]
struct Cancels {
    all: bool,
    jobs: Vec<JobId>,
}

/// A job that has not ended.
struct Waiting {
    job: Job,
    /// Taken out while it is called.
    handler: Option<Handler>,
    /// Whether the daemon has it.
    sent: bool,
}

enum Mode {
    /// The daemon takes jobs.
    Daemon,
    /// It has gone, and its stand-in is being made.
    Changing,
    /// Its stand-in takes jobs.
    Without(Result<Arc<dyn JobService>, String>),
}

/// Which containers the daemon knows. It is told of each once.
#[derive(Default)]
struct Containers {
    /// By address. As the container itself is kept too, its address is nobody else's.
    known: HashMap<usize, (u32, Arc<Container>)>,
}

impl Containers {
    /// The number of a container. `true`: it is new.
    fn number(&mut self, container: &Arc<Container>) -> (u32, bool) {
        let address = Arc::as_ptr(container) as usize;
        if let Some((number, _)) = self.known.get(&address) {
            return (*number, false);
        }
        if self.known.len() >= MAX_CONTAINERS {
            // From the start: a number then means what was last sent under it.
            self.known.clear();
        }
        let number = self.known.len() as u32;
        self.known.insert(address, (number, container.clone()));
        (number, true)
    }
}

impl fmt::Debug for SessionClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionClient")
            .field("daemon", &self.shared.welcome)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Gives jobs to the daemon from now on. `launcher` and `store`, which is the daemon's own,
    /// are for jobs that need this process. `fallback` is for when the daemon goes away.
    ///
    /// # Errors
    ///
    /// If a thread cannot be started.
    pub fn into_service(
        self,
        launcher: Launcher,
        store: Store,
        fallback: Fallback,
    ) -> std::io::Result<SessionClient> {
        let (out, sender) = Outgoing::start(self.stream.try_clone()?, MAX_UNSENT_BYTES)?;
        let shared = Arc::new(Shared {
            welcome: self.welcome,
            out,
            launcher,
            store,
            next_id: AtomicU64::new(0),
            state: Mutex::new(State {
                jobs: HashMap::new(),
                queue: Queue::new(),
                sent: 0,
                containers: Containers::default(),
                here: HashMap::new(),
                own: None,
                mode: Mode::Daemon,
                fallback: Some(fallback),
                late: Cancels::default(),
                stopping: false,
            }),
            questions: Questions::default(),
            ended: Condvar::new(),
        });
        let (hearing, stream) = (shared.clone(), self.stream);
        let reader = std::thread::Builder::new()
            .name("session".to_owned())
            .spawn(move || hear(&hearing, stream))?;
        Ok(SessionClient {
            shared,
            threads: Mutex::new(vec![sender, reader]),
        })
    }
}

impl SessionClient {
    /// What the daemon said of itself.
    pub fn welcome(&self) -> &Welcome {
        &self.shared.welcome
    }

    /// Whether the daemon is still there.
    pub fn has_daemon(&self) -> bool {
        matches!(self.shared.lock().mode, Mode::Daemon)
    }
}

impl JobService for SessionClient {
    fn reserve(&self) -> JobId {
        JobId(self.shared.next_id.fetch_add(1, Ordering::Relaxed))
    }

    fn submit_reserved(&self, id: JobId, job: Job, handler: Handler) {
        self.shared.submit(id, job, handler);
    }

    fn cancel(&self, id: JobId) {
        let mut state = self.shared.lock();
        if state.here.contains_key(&id) {
            let own = state.own.clone();
            drop(state);
            if let Some(own) = own {
                own.cancel(id);
            }
            return;
        }
        if let Mode::Without(Ok(service)) = &state.mode {
            let service = service.clone();
            drop(state);
            service.cancel(id);
            return;
        }
        let number = id.0;
        match state.jobs.get(&id) {
            Some(job) if job.sent && matches!(state.mode, Mode::Daemon) => {
                self.shared.send(&Request::Cancel { number });
            }
            Some(_) => {
                let handler = state.remove(id);
                drop(state);
                self.shared.end(id, handler, Err(JobError::Cancelled));
            }
            None if matches!(state.mode, Mode::Changing) => state.late.jobs.push(id),
            None => {}
        }
    }

    fn cancel_all(&self) {
        self.shared.cancel_all();
    }

    fn results(&self) -> Option<Arc<dyn SharedResults>> {
        match &self.shared.lock().mode {
            Mode::Daemon => Some(Arc::new(DaemonResults(self.shared.clone()))),
            Mode::Without(Ok(service)) => service.results(),
            Mode::Changing | Mode::Without(Err(_)) => None,
        }
    }

    fn stop(&self) {
        self.shared.lock().stopping = true;
        self.shared.cancel_all();
        let deadline = Instant::now() + STOP_WITHIN;
        let mut state = self.shared.lock();
        while !state.jobs.is_empty() || !state.here.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.shared.ended.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let own = state.own.take();
        state.fallback = None;
        drop(state);
        if let Some(own) = own {
            own.stop();
        }
        // Results that are offered, say.
        self.shared.out.drain(LAST_WORDS);
        self.shared.out.close_now();
        let threads = std::mem::take(&mut *lock(&self.threads));
        let this = std::thread::current().id();
        for thread in threads {
            // A handler may have dropped the last client: it runs in one of them.
            if thread.thread().id() != this {
                let _ = thread.join();
            }
        }
        let without = match &self.shared.lock().mode {
            Mode::Without(Ok(service)) => Some(service.clone()),
            _ => None,
        };
        if let Some(service) = without {
            service.stop();
        }
    }
}

impl Drop for SessionClient {
    fn drop(&mut self) {
        self.stop();
    }
}

impl State {
    /// Forgets a job. Returns whom to tell.
    fn remove(&mut self, id: JobId) -> Option<Handler> {
        let job = self.jobs.remove(&id)?;
        if job.sent {
            self.sent -= 1;
        } else {
            self.queue.remove(&id);
        }
        job.handler
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn submit(self: &Arc<Self>, id: JobId, job: Job, mut handler: Handler) {
        let mut state = self.lock();
        if state.stopping {
            drop(state);
            handler(id, JobEvent::Completed(Err(JobError::Cancelled)));
            return;
        }
        if let Mode::Without(service) = &state.mode {
            let service = service.clone();
            drop(state);
            give(&service, id, job, handler);
            return;
        }
        let rank = job.rank;
        let waiting = Waiting {
            job,
            handler: Some(handler),
            sent: false,
        };
        state.jobs.insert(id, waiting);
        state.queue.push(id, rank);
        self.fill_window(state);
    }

    /// Gives the daemon as many jobs as it takes, those that should run first before others.
    fn fill_window(&self, mut guard: MutexGuard<'_, State>) {
        let state = &mut *guard;
        let mut refused = Vec::new();
        while matches!(state.mode, Mode::Daemon) && state.sent < WINDOW {
            let Some((id, rank)) = state.queue.pop() else {
                break;
            };
            let Some(waiting) = state.jobs.get_mut(&id) else {
                continue;
            };
            let number = id.0;
            if waiting.job.needs_this_machine().is_some() {
                waiting.sent = true;
                state.sent += 1;
                self.send(&Request::Hold { number, rank });
                continue;
            }
            let (container, is_new) = state.containers.number(&waiting.job.container);
            let encoded = encode_job(number, container, is_new, &waiting.job);
            match encoded {
                Ok(frames) => {
                    waiting.sent = true;
                    state.sent += 1;
                    for frame in frames {
                        self.out.push(frame);
                    }
                }
                Err(bytes) => {
                    // The daemon may not know the container that was numbered for it.
                    state.containers = Containers::default();
                    refused.push((id, bytes, state.remove(id)));
                }
            }
        }
        drop(guard);
        for (id, bytes, handler) in refused {
            let why = format!(
                "the job's specification takes {bytes} bytes, more than the {MAX_REQUEST_BYTES} that a daemon takes; it may have too large an environment or too long a list of arguments"
            );
            self.end(id, handler, Err(JobError::Remote(why)));
        }
    }

    pub(crate) fn send(&self, request: &Request<'_>) {
        if let Ok(frame) = frame::encode(request, MAX_REQUEST_BYTES) {
            self.out.push(frame);
        }
    }

    /// Says how a job ended that is no longer in the state.
    fn end(&self, id: JobId, handler: Option<Handler>, result: Result<JobOutcome, JobError>) {
        if let Some(mut handler) = handler {
            handler(id, JobEvent::Completed(result));
        }
        self.ended.notify_all();
    }

    fn cancel_all(&self) {
        let mut state = self.lock();
        let own = (!state.here.is_empty())
            .then(|| state.own.clone())
            .flatten();
        let without = match &state.mode {
            Mode::Without(Ok(service)) => Some(service.clone()),
            _ => None,
        };
        let with_daemon = matches!(state.mode, Mode::Daemon);
        state.late.all |= matches!(state.mode, Mode::Changing);
        let here: Vec<JobId> = state
            .jobs
            .iter()
            .filter(|(_, job)| !(job.sent && with_daemon))
            .map(|(id, _)| *id)
            .collect();
        let handlers: Vec<_> = here.into_iter().map(|id| (id, state.remove(id))).collect();
        drop(state);
        if with_daemon {
            self.send(&Request::CancelAll);
        }
        if let Some(own) = own {
            own.cancel_all();
        }
        if let Some(service) = without {
            service.cancel_all();
        }
        for (id, handler) in handlers {
            self.end(id, handler, Err(JobError::Cancelled));
        }
    }

    fn on_event(self: &Arc<Self>, event: Event<'_>) {
        match event {
            Event::Running { number, on } => {
                let id = JobId(number);
                let mut state = self.lock();
                let Some(waiting) = state.jobs.get_mut(&id) else {
                    return;
                };
                if waiting.job.needs_this_machine().is_some() {
                    self.run_here(state, id);
                    return;
                }
                let handler = waiting.handler.take();
                drop(state);
                if let Some(mut handler) = handler {
                    let on = on.map(|name| Arc::from(&*name));
                    handler(id, JobEvent::Running { on });
                    // Only this thread takes it out, so nothing else has happened to the job but
                    // that it was forgotten.
                    if let Some(waiting) = self.lock().jobs.get_mut(&id) {
                        waiting.handler = Some(handler);
                    }
                }
            }
            Event::Completed { number, result } => {
                let id = JobId(number);
                let mut state = self.lock();
                if state.here.contains_key(&id) {
                    // The daemon wants its slot back; the job tells of its end by itself.
                    let own = state.own.clone();
                    drop(state);
                    if let (Some(own), Err(_)) = (own, &*result) {
                        own.cancel(id);
                    }
                    return;
                }
                let handler = state.remove(id);
                self.fill_window(state);
                self.end(id, handler, result.into_owned());
            }
            Event::FoundResults { number, found } => {
                self.questions.answer(number, found.into_owned());
            }
            Event::Answer(_) | Event::Goodbye(_) => {}
        }
    }

    /// Runs a job in this process: the daemon keeps a slot free for it.
    fn run_here(self: &Arc<Self>, mut state: MutexGuard<'_, State>, id: JobId) {
        let node = match &state.own {
            Some(node) => Ok(node.clone()),
            None => Node::start(
                self.launcher.clone(),
                self.store.clone(),
                usize::from(self.welcome.slots),
            )
            .map(Arc::new),
        };
        let number = id.0;
        let node = match node {
            Ok(node) => node,
            Err(error) => {
                let handler = state.remove(id);
                drop(state);
                self.send(&Request::Release { number });
                self.end(id, handler, Err(JobError::System(error.to_string())));
                return;
            }
        };
        state.own = Some(node.clone());
        // It leaves the daemon's window only when it has ended.
        let Some(waiting) = state.jobs.remove(&id) else {
            return;
        };
        state.here.insert(id, ());
        drop(state);
        let Some(mut handler) = waiting.handler else {
            return;
        };
        let shared = Arc::downgrade(self);
        node.submit_reserved(id, waiting.job, move |id, event| {
            let ended = matches!(event, JobEvent::Completed(_));
            handler(id, event);
            if ended && let Some(shared) = Weak::upgrade(&shared) {
                shared.send(&Request::Release { number });
                let mut state = shared.lock();
                state.here.remove(&id);
                state.sent -= 1;
                shared.fill_window(state);
                shared.ended.notify_all();
            }
        });
    }

    /// The daemon is gone: everything that has not ended is given to its stand-in.
    fn go_on_without(self: &Arc<Self>, why: &str) {
        let fallback = {
            let mut state = self.lock();
            state.mode = Mode::Changing;
            for waiting in state.jobs.values_mut() {
                waiting.sent = false;
            }
            state.sent = state.here.len();
            state.queue = Queue::new();
            if state.stopping {
                None
            } else {
                state.fallback.take()
            }
        };
        let service = match fallback {
            Some(fallback) => fallback(why),
            None => Err("the client has stopped".to_owned()),
        };
        loop {
            let mut state = self.lock();
            if state.jobs.is_empty() {
                let late = std::mem::take(&mut state.late);
                state.mode = Mode::Without(service.clone());
                drop(state);
                if let Ok(service) = &service {
                    if late.all {
                        service.cancel_all();
                    }
                    for id in late.jobs {
                        service.cancel(id);
                    }
                }
                break;
            }
            let mut jobs: Vec<(JobId, Waiting)> = state.jobs.drain().collect();
            drop(state);
            jobs.sort_by_key(|(id, _)| *id);
            for (id, waiting) in jobs {
                if let Some(handler) = waiting.handler {
                    give(&service, id, waiting.job, handler);
                }
            }
        }
        self.ended.notify_all();
    }
}

fn give(service: &Result<Arc<dyn JobService>, String>, id: JobId, job: Job, mut handler: Handler) {
    match service {
        Ok(service) => service.submit_reserved(id, job, handler),
        Err(why) => {
            let error = JobError::System(why.clone());
            handler(id, JobEvent::Completed(Err(error)));
        }
    }
}

/// The frames for a job; the error is the length of one that is too long.
fn encode_job(number: u64, container: u32, is_new: bool, job: &Job) -> Result<Vec<Vec<u8>>, usize> {
    let mut frames = Vec::with_capacity(2);
    if is_new {
        let request = Request::Container {
            number: container,
            container: Cow::Borrowed(&job.container),
        };
        frames.push(frame::encode(&request, MAX_REQUEST_BYTES)?);
    }
    let request = Request::Submit {
        number,
        rank: job.rank,
        container,
        job: WireJob::new(job),
    };
    frames.push(frame::encode(&request, MAX_REQUEST_BYTES)?);
    Ok(frames)
}

/// Hears the daemon until it goes away.
fn hear(shared: &Arc<Shared>, mut stream: UnixStream) {
    let why = loop {
        match frame::read::<Event<'_>>(&mut stream, MAX_EVENT_BYTES) {
            Ok(Some(Event::Goodbye(why))) => break why,
            Ok(Some(event)) => shared.on_event(event),
            Ok(None) => break "it has gone away".to_owned(),
            Err(error) => break crate::hello::explained(error),
        }
    };
    shared.out.close_now();
    shared.questions.end();
    shared.go_on_without(&why);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
