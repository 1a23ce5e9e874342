//! A service that runs nothing: a test says what becomes of its jobs.

use maelstrom_node::{Handler, Job, JobEvent, JobId, JobService, ResultKey, SharedResults};
use maelstrom_spec::{JobEffects, JobError, JobOutcome, JobStatus};
use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// What happened to the service.
#[derive(Debug)]
pub(crate) enum Said {
    Submitted(JobId, Arc<Job>),
    Cancelled(JobId),
}

#[derive(Default)]
pub(crate) struct Fake {
    next_id: AtomicU64,
    said: Mutex<VecDeque<Said>>,
    more: Condvar,
    handlers: Mutex<HashMap<JobId, Handler>>,
    pub(crate) results: Arc<FakeResults>,
}

/// Knows what it was offered, and is slow where the key says so.
#[derive(Default)]
pub(crate) struct FakeResults(pub(crate) Mutex<HashMap<ResultKey, Vec<u8>>>);

/// The job of a key that nobody answers.
pub(crate) const SLOW: [u8; 16] = [255; 16];

impl SharedResults for FakeResults {
    fn find(&self, keys: &[ResultKey]) -> Vec<Option<Vec<u8>>> {
        if keys.iter().any(|key| key.job() == SLOW) {
            std::thread::sleep(Duration::from_secs(3));
        }
        let known = self.0.lock().unwrap();
        keys.iter().map(|key| known.get(key).cloned()).collect()
    }

    fn offer(&self, key: ResultKey, result: Vec<u8>) {
        self.0.lock().unwrap().insert(key, result);
    }
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

impl Fake {
    /// The next thing that happened to it.
    pub(crate) fn next(&self) -> Said {
        let said = self.said.lock().unwrap();
        let (mut said, waited) = self
            .more
            .wait_timeout_while(said, Duration::from_secs(120), |said| said.is_empty())
            .unwrap();
        assert!(!waited.timed_out(), "nothing was submitted");
        said.pop_front().unwrap()
    }

    pub(crate) fn run(&self, id: JobId, on: Option<&str>) {
        let mut handlers = self.handlers.lock().unwrap();
        let on = on.map(Arc::from);
        handlers.get_mut(&id).unwrap()(id, JobEvent::Running { on });
    }

    pub(crate) fn end(&self, id: JobId, result: Result<u8, JobError>) {
        let handler = self.handlers.lock().unwrap().remove(&id);
        if let Some(mut handler) = handler {
            let result = result.map(|code| JobOutcome {
                status: JobStatus::Exited(code),
                effects: JobEffects::default(),
            });
            handler(id, JobEvent::Completed(result));
        }
    }

    fn say(&self, said: Said) {
        self.said.lock().unwrap().push_back(said);
        self.more.notify_all();
    }
}

impl JobService for Fake {
    fn reserve(&self) -> JobId {
        JobId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    fn submit_reserved(&self, id: JobId, job: Job, handler: Handler) {
        self.handlers.lock().unwrap().insert(id, handler);
        self.say(Said::Submitted(id, Arc::new(job)));
    }

    fn cancel(&self, id: JobId) {
        if self.handlers.lock().unwrap().contains_key(&id) {
            self.say(Said::Cancelled(id));
            self.end(id, Err(JobError::Cancelled));
        }
    }

    fn cancel_all(&self) {
        let ids: Vec<JobId> = self.handlers.lock().unwrap().keys().copied().collect();
        for id in ids {
            self.cancel(id);
        }
    }

    fn results(&self) -> Option<Arc<dyn SharedResults>> {
        Some(self.results.clone())
    }

    fn stop(&self) {
        self.cancel_all();
    }
}
