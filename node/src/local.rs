use crate::{Handler, Hold, Job, JobEvent, JobId, JobService};
use maelstrom_content::Store;
use maelstrom_dispatch::Queue;
use maelstrom_runtime::{Canceller, ContainerJob, Launcher, RunError, Slot, StartError};
use maelstrom_spec::{JobEffects, JobError, JobOutcome, JobStatus};
use std::{
    collections::HashMap,
    os::fd::AsFd,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::JoinHandle,
};

/// A node that runs jobs on the slots of this machine.
///
/// Jobs wait in one queue: higher priority first, then longest expected first. Each slot has a
/// thread that takes the next one.
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    launcher: Launcher,
    store: Store,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    next_id: u64,
    queue: Queue<JobId>,
    waiting: HashMap<JobId, Waiting>,
    /// One entry for each slot that has a job, from the moment that the job leaves the queue.
    running: HashMap<usize, Running>,
    stopping: bool,
}

/// A job in the queue.
struct Waiting {
    job: Job,
    handler: Handler,
    /// Whether whoever submitted it knows that one with the same container comes after it.
    more_like_it: bool,
}

struct Running {
    job: JobId,
    cancelled: bool,
    /// Once there is something to cancel.
    canceller: Option<Canceller>,
    /// What keeps the slot, if nothing is run.
    hold: Option<Hold>,
}

impl Running {
    fn cancel(&mut self) {
        self.cancelled = true;
        if let Some(canceller) = &self.canceller {
            canceller.cancel();
        }
        if let Some(hold) = &self.hold {
            hold.release();
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("waiting", &self.waiting.len())
            .field("running", &self.running.len())
            .field("stopping", &self.stopping)
            .finish()
    }
}

impl Node {
    /// Starts a node with this many slots.
    ///
    /// # Errors
    ///
    /// If this machine cannot run containers; the error says why and what to do.
    pub fn start(launcher: Launcher, store: Store, slots: usize) -> Result<Self, StartError> {
        let first = launcher.slot(store.root().to_path_buf())?;
        let shared = Arc::new(Shared {
            launcher,
            store,
            state: Mutex::default(),
            work: Condvar::new(),
        });
        let mut first = Some(first);
        let threads = (0..slots.max(1))
            .map(|index| {
                let shared = shared.clone();
                let slot = first.take();
                std::thread::Builder::new()
                    .name(format!("slot {index}"))
                    .stack_size(256 << 10)
                    .spawn(move || Worker { shared, index }.work(slot))
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| StartError::Launcher(format!("starting a thread: {error}")))?;
        Ok(Self {
            shared,
            threads: Mutex::new(threads),
        })
    }

    /// Queues a job and returns at once. The handler is called from another thread for each
    /// event.
    pub fn submit(&self, job: Job, handler: impl FnMut(JobId, JobEvent) + Send + 'static) -> JobId {
        let id = self.reserve();
        self.submit_reserved(id, job, handler);
        id
    }

    /// Takes the number of a job that will be submitted later.
    pub fn reserve(&self) -> JobId {
        let mut state = self.shared.lock();
        let id = JobId(state.next_id);
        state.next_id += 1;
        id
    }

    /// Queues a job under a number that was reserved for it.
    pub fn submit_reserved(
        &self,
        id: JobId,
        job: Job,
        handler: impl FnMut(JobId, JobEvent) + Send + 'static,
    ) {
        self.submit_followed(id, job, false, handler);
    }

    /// As [`submit_reserved`](Self::submit_reserved), for whoever keeps a queue of their own and
    /// submits what a slot is free for: `more_like_it` says whether a job with the same container
    /// comes next. Its container is then made while this job runs. Only a hint.
    pub fn submit_followed(
        &self,
        id: JobId,
        job: Job,
        more_like_it: bool,
        mut handler: impl FnMut(JobId, JobEvent) + Send + 'static,
    ) {
        let mut state = self.shared.lock();
        if state.stopping {
            drop(state);
            handler(id, JobEvent::Completed(Err(JobError::Cancelled)));
            return;
        }
        state.queue.push(id, job.rank);
        let waiting = Waiting {
            job,
            handler: Box::new(handler),
            more_like_it,
        };
        state.waiting.insert(id, waiting);
        drop(state);
        self.shared.work.notify_one();
    }

    /// Ends one job: if it waits it completes at once, if it runs it is killed.
    pub fn cancel(&self, id: JobId) {
        let mut state = self.shared.lock();
        let waiting = state.waiting.remove(&id);
        for running in state.running.values_mut().filter(|r| r.job == id) {
            running.cancel();
        }
        drop(state);
        if let Some(mut waiting) = waiting {
            (waiting.handler)(id, JobEvent::Completed(Err(JobError::Cancelled)));
        }
    }

    /// Ends every job: those that wait complete at once, those that run are killed.
    pub fn cancel_all(&self) {
        let mut state = self.shared.lock();
        let waiting = std::mem::take(&mut state.waiting);
        state.queue = Queue::new();
        for running in state.running.values_mut() {
            running.cancel();
        }
        drop(state);
        for (id, mut waiting) in waiting {
            (waiting.handler)(id, JobEvent::Completed(Err(JobError::Cancelled)));
        }
    }

    /// Cancels everything and waits until nothing runs any more.
    pub fn stop(&self) {
        self.shared.lock().stopping = true;
        self.cancel_all();
        self.shared.work.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(|e| e.into_inner()));
        for thread in threads {
            // A handler that panicked has said so already.
            let _ = thread.join();
        }
    }
}

impl JobService for Node {
    fn reserve(&self) -> JobId {
        Node::reserve(self)
    }

    fn submit_reserved(&self, id: JobId, job: Job, handler: Handler) {
        Node::submit_reserved(self, id, job, handler);
    }

    fn cancel(&self, id: JobId) {
        Node::cancel(self, id);
    }

    fn cancel_all(&self) {
        Node::cancel_all(self);
    }

    fn stop(&self) {
        Node::stop(self);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl State {
    /// Whether the next job in the queue shares the container of this one.
    fn is_next_like(&self, job: &Job) -> bool {
        self.queue
            .peek()
            .and_then(|(id, _)| self.waiting.get(&id))
            .is_some_and(|next| Arc::ptr_eq(&next.job.container, &job.container))
    }
}

/// What a slot has to do.
struct Next {
    id: JobId,
    job: Job,
    handler: Handler,
    /// Whether the job behind it has the same container.
    more_like_it: bool,
}

/// The thread of one slot.
struct Worker {
    shared: Arc<Shared>,
    index: usize,
}

impl Worker {
    fn work(&self, mut slot: Option<Slot>) {
        while let Some(next) = self.next() {
            let Next {
                id, mut handler, ..
            } = next;
            handler(id, JobEvent::Running { on: None });
            let result = self.run(&mut slot, &next.job, next.more_like_it);
            self.shared.lock().running.remove(&self.index);
            handler(id, JobEvent::Completed(result));
        }
    }

    /// Lets somebody else use the slot.
    fn keep(&self, hold: &Hold) -> Result<JobOutcome, JobError> {
        hold.wait();
        let state = self.shared.lock();
        match state.running.get(&self.index) {
            Some(running) if running.cancelled => Err(JobError::Cancelled),
            _ => Ok(JobOutcome {
                status: JobStatus::Exited(0),
                effects: JobEffects::default(),
            }),
        }
    }

    /// Waits for the next job. `None`: the node stops.
    fn next(&self) -> Option<Next> {
        let mut state = self.shared.lock();
        loop {
            if state.stopping {
                return None;
            }
            // A job that was cancelled while it waited has left its place in the queue.
            while let Some((id, _)) = state.queue.pop() {
                let Some(Waiting {
                    job,
                    handler,
                    more_like_it,
                }) = state.waiting.remove(&id)
                else {
                    continue;
                };
                let running = Running {
                    job: id,
                    cancelled: false,
                    canceller: None,
                    hold: job.hold.clone(),
                };
                state.running.insert(self.index, running);
                let more_like_it = more_like_it || state.is_next_like(&job);
                return Some(Next {
                    id,
                    job,
                    handler,
                    more_like_it,
                });
            }
            state = self
                .shared
                .work
                .wait(state)
                .unwrap_or_else(|e| e.into_inner());
        }
    }

    fn run(
        &self,
        slot: &mut Option<Slot>,
        job: &Job,
        more_like_it: bool,
    ) -> Result<JobOutcome, JobError> {
        if let Some(hold) = &job.hold {
            return self.keep(hold);
        }
        let stack = self
            .shared
            .store
            .stack(&job.container.layers)
            .map_err(|error| JobError::System(error.to_string()))?;
        let mut ready = match slot.take() {
            Some(slot) => slot,
            None => self
                .shared
                .launcher
                .slot(self.shared.store.root().to_path_buf())
                .map_err(|error| JobError::System(error.to_string()))?,
        };
        {
            let mut state = self.shared.lock();
            if let Some(running) = state.running.get_mut(&self.index) {
                if running.cancelled {
                    *slot = Some(ready);
                    return Err(JobError::Cancelled);
                }
                ready.arm();
                running.canceller = Some(ready.canceller());
            }
        }
        let container = &job.container;
        let container_job = ContainerJob {
            program: job.program.clone(),
            arguments: job.arguments.clone(),
            environment: container.environment.clone(),
            working_directory: container.working_directory.clone(),
            layers: stack.directories().to_vec(),
            root: container.root.clone(),
            mounts: container.mounts.clone(),
            network: container.network,
            user: container.user,
            group: container.group,
            privileges: container.privileges,
            leads_session: container.leads_session,
            timeout: job.timeout,
            inline_limit_bytes: job.inline_limit_bytes,
            outputs: job.outputs.to_vec(),
            trace_missing: job.trace_missing,
            background: job.background,
            terminal: job.terminal.as_ref().map(|(_, size)| *size),
            more_like_it,
            template: job.template.clone(),
        };
        let terminal = job.terminal.as_ref().map(|(terminal, _)| terminal.as_fd());
        let result = ready.run_on_terminal(&container_job, terminal);
        let fatal = matches!(&result, Err(RunError { fatal: true, .. }));
        if !fatal {
            *slot = Some(ready);
        }
        result.map_err(|failed| failed.error)
    }
}
