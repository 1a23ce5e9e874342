//! The daemon's end.

use crate::{
    Socket,
    frame::{self, MAX_EVENT_BYTES, MAX_REQUEST_BYTES},
    hello,
    message::{Event, MAX_CONTAINERS, Question, Request, WINDOW, Welcome},
    outgoing::Outgoing,
    results::Finder,
};
use maelstrom_dispatch::Rank;
use maelstrom_node::{Container, Hold, Job, JobEvent, JobId, JobService, SharedResults};
use maelstrom_runtime::{JobNetwork, Privileges, Root};
use maelstrom_spec::JobError;
use std::{
    borrow::Cow,
    collections::HashMap,
    fmt, io,
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How many clients can have a session at a time.
pub const MAX_SESSIONS: usize = 256;

/// How many bytes of events may wait for a client that doesn't read. A client that passes this is
/// cut off, and goes on without the daemon.
const MAX_UNSENT_BYTES: usize = 256 << 20;

/// How long the end of a session waits for its last words to be sent.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Answers what clients ask; the error is for people.
pub type Answer = Box<dyn Fn(Question) -> Result<String, String> + Send + Sync>;

/// Offers a service to the clients of this machine.
pub struct Server {
    shared: Arc<Shared>,
    listener: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    socket: Socket,
    welcome: Welcome,
    jobs: Arc<dyn JobService>,
    answer: Answer,
    sessions: Mutex<Sessions>,
    /// A session has ended.
    ended: Condvar,
    next: AtomicU64,
}

#[derive(Default)]
struct Sessions {
    /// By number; what ends them.
    open: HashMap<u64, Open>,
    closing: bool,
}

/// A session as the server sees it.
struct Open {
    /// A second handle of its stream, for ending it while it is still greeting.
    stream: UnixStream,
    /// Once it has greeted.
    out: Option<Outgoing>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("socket", &self.shared.socket)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Starts to serve whoever connects.
    ///
    /// # Errors
    ///
    /// If a thread cannot be started.
    pub fn start(
        socket: Socket,
        welcome: Welcome,
        jobs: Arc<dyn JobService>,
        answer: Answer,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            socket,
            welcome,
            jobs,
            answer,
            sessions: Mutex::default(),
            ended: Condvar::new(),
            next: AtomicU64::new(0),
        });
        let accepting = shared.clone();
        let listener = std::thread::Builder::new()
            .name("sessions".to_owned())
            .spawn(move || accept(&accepting))?;
        Ok(Self {
            shared,
            listener: Mutex::new(Some(listener)),
        })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        self.shared.socket.path()
    }

    /// How many clients have a session.
    pub fn sessions(&self) -> usize {
        self.shared.lock().open.len()
    }

    /// Tells all clients why, ends their sessions, and takes no others. What has not ended of
    /// their jobs is cancelled here; they go on with it by themselves.
    pub fn close(&self, why: &str) {
        let mut sessions = self.shared.lock();
        sessions.closing = true;
        for open in sessions.open.values() {
            match &open.out {
                Some(out) => {
                    send(out, &Event::Goodbye(why.to_owned()));
                    out.close();
                }
                None => {
                    let _ = open.stream.shutdown(Shutdown::Both);
                }
            }
        }
        let deadline = Instant::now() + LAST_WORDS;
        while !sessions.open.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.shared.ended.wait_timeout(sessions, left);
            sessions = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        for open in sessions.open.values() {
            let _ = open.stream.shutdown(Shutdown::Both);
        }
        drop(sessions);
        let listener = &self.shared.socket.listener;
        // Wakes the thread that accepts: it sees that there is no more to do.
        let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
        let thread = self
            .listener
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close("the daemon has stopped");
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept(shared: &Arc<Shared>) {
    loop {
        let stream = match shared.socket.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                if shared.lock().closing {
                    return;
                }
                tracing::warn!("accepting a client: {error}");
                // Too few descriptors, say: those who wait are served when others end.
                std::thread::sleep(Duration::from_millis(200));
                continue;
            }
        };
        if let Err(error) = open(shared, stream) {
            tracing::warn!("serving a client: {error}");
        }
    }
}

/// Gives a client that has connected a thread.
fn open(shared: &Arc<Shared>, mut stream: UnixStream) -> io::Result<()> {
    let number = shared.next.fetch_add(1, Ordering::Relaxed);
    let mut sessions = shared.lock();
    if sessions.closing {
        return Ok(());
    }
    let full = sessions.open.len() >= MAX_SESSIONS;
    let handle = stream.try_clone()?;
    sessions.open.insert(
        number,
        Open {
            stream: handle,
            out: None,
        },
    );
    drop(sessions);
    let serving = shared.clone();
    let thread = std::thread::Builder::new()
        .name("session".to_owned())
        .stack_size(512 << 10)
        .spawn(move || {
            let welcome = if full {
                Err(format!("it has {MAX_SESSIONS} clients already"))
            } else {
                Ok(serving.welcome.clone())
            };
            match hello::greet(&mut stream, &welcome) {
                Ok(()) if full => {}
                Ok(()) => serve(&serving, number, stream),
                Err(why) => tracing::info!("a client was turned away: {why}"),
            }
            serving.lock().open.remove(&number);
            serving.ended.notify_all();
        });
    if thread.is_err() {
        shared.lock().open.remove(&number);
    }
    thread.map(|_| ())
}

/// One client's session.
struct Client {
    jobs: Arc<dyn JobService>,
    unfinished: Arc<Mutex<HashMap<u64, Unfinished>>>,
    containers: HashMap<u32, Arc<Container>>,
    results: Option<Arc<dyn SharedResults>>,
    finder: Finder,
    out: Outgoing,
}

/// A job of the client that has not ended.
struct Unfinished {
    id: JobId,
    hold: Option<Hold>,
}

/// Hears a client until it goes away, and then ends its jobs.
fn serve(shared: &Arc<Shared>, number: u64, mut stream: UnixStream) {
    let started = stream
        .try_clone()
        .and_then(|stream| Outgoing::start(stream, MAX_UNSENT_BYTES));
    let (out, sender) = match started {
        Ok(started) => started,
        Err(error) => {
            tracing::warn!("serving a client: {error}");
            return;
        }
    };
    {
        let mut sessions = shared.lock();
        if sessions.closing {
            out.close_now();
        }
        if let Some(open) = sessions.open.get_mut(&number) {
            open.out = Some(out.clone());
        }
    }
    let mut client = Client {
        jobs: shared.jobs.clone(),
        unfinished: Arc::default(),
        containers: HashMap::new(),
        results: shared.jobs.results(),
        finder: Finder::default(),
        out,
    };
    let end = loop {
        match frame::read::<Request<'_>>(&mut stream, MAX_REQUEST_BYTES) {
            Ok(Some(request)) => {
                if let Err(why) = client.handle(shared, request) {
                    break Some(why);
                }
            }
            Ok(None) => break None,
            Err(error) => break Some(hello::explained(error)),
        }
    };
    client.cancel_all();
    if let Some(why) = end {
        if !shared.lock().closing {
            tracing::info!("the session with a client ends: {why}");
        }
        send(&client.out, &Event::Goodbye(why));
    }
    client.out.close();
    let _ = sender.join();
}

impl Client {
    /// The error is for the client, and ends the session.
    fn handle(&mut self, shared: &Shared, request: Request<'_>) -> Result<(), String> {
        match request {
            Request::Container { number, container } => {
                if number as usize >= MAX_CONTAINERS {
                    return Err(format!(
                        "container {number}, where there are {MAX_CONTAINERS} at most"
                    ));
                }
                let container = Arc::new(container.into_owned());
                self.containers.insert(number, container);
            }
            Request::Submit {
                number,
                rank,
                container,
                job,
            } => {
                let container = self
                    .containers
                    .get(&container)
                    .cloned()
                    .ok_or("a job in a container that was never sent")?;
                self.submit(number, job.into_job(container, rank))?;
            }
            Request::Hold { number, rank } => self.submit(number, holding(rank))?,
            Request::Release { number } => {
                if let Some(job) = self.lock().get(&number)
                    && let Some(hold) = &job.hold
                {
                    hold.release();
                }
            }
            Request::Cancel { number } => {
                let id = self.lock().get(&number).map(|job| job.id);
                if let Some(id) = id {
                    self.jobs.cancel(id);
                }
            }
            Request::CancelAll => self.cancel_all(),
            Request::Ask(question) => {
                send(&self.out, &Event::Answer((shared.answer)(question)));
            }
            Request::FindResults { number, keys } => {
                let keys = keys.into_owned();
                self.finder
                    .find(self.results.as_ref(), number, keys, &self.out);
            }
            Request::OfferResult { key, result } => {
                if let Some(results) = &self.results {
                    results.offer(key, result.into_owned());
                }
            }
        }
        Ok(())
    }

    fn submit(&self, number: u64, job: Job) -> Result<(), String> {
        let id = self.jobs.reserve();
        {
            let mut unfinished = self.lock();
            if unfinished.len() >= WINDOW {
                return Err(format!("more than {WINDOW} unfinished jobs at a time"));
            }
            let hold = job.hold.clone();
            if unfinished.insert(number, Unfinished { id, hold }).is_some() {
                return Err(format!("job {number} twice"));
            }
        }
        let (unfinished, out) = (self.unfinished.clone(), self.out.clone());
        let report = move |_, event| match event {
            JobEvent::Running { on } => {
                let on = on.as_deref().map(Cow::Borrowed);
                send(&out, &Event::Running { number, on });
            }
            JobEvent::Completed(result) => {
                lock(&unfinished).remove(&number);
                completed(&out, number, result);
            }
        };
        self.jobs.submit_reserved(id, job, Box::new(report));
        Ok(())
    }

    fn cancel_all(&self) {
        let ids: Vec<JobId> = self.lock().values().map(|job| job.id).collect();
        for id in ids {
            self.jobs.cancel(id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Unfinished>> {
        lock(&self.unfinished)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn completed(out: &Outgoing, number: u64, result: Result<maelstrom_spec::JobOutcome, JobError>) {
    let result = Cow::Owned(result);
    match frame::encode(&Event::Completed { number, result }, MAX_EVENT_BYTES) {
        Ok(frame) => {
            out.push(frame);
        }
        Err(bytes) => {
            let why = format!(
                "the job ended, but its outcome takes {bytes} bytes, more than {MAX_EVENT_BYTES}: lower its inline limit, or bring back fewer files"
            );
            let result = Cow::Owned(Err(JobError::Execution(why)));
            send(out, &Event::Completed { number, result });
        }
    }
}

/// Sends what is always short.
fn send(out: &Outgoing, event: &Event<'_>) {
    if let Ok(frame) = frame::encode(event, MAX_EVENT_BYTES) {
        out.push(frame);
    }
}

/// A job that only keeps a slot.
fn holding(rank: Rank) -> Job {
    Job {
        container: Arc::new(Container {
            layers: Vec::new(),
            environment: Vec::new(),
            working_directory: "/".into(),
            root: Root::ReadOnly,
            mounts: Vec::new(),
            network: JobNetwork::Disabled,
            user: 0,
            group: 0,
            privileges: Privileges::None,
            leads_session: true,
        }),
        program: "a job that its client runs".to_owned(),
        arguments: Vec::new(),
        timeout: None,
        inline_limit_bytes: 0,
        rank,
        outputs: Arc::new([]),
        trace_missing: false,
        template: None,
        background: false,
        terminal: None,
        hold: Some(Hold::default()),
    }
}
