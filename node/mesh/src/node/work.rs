//! What dispatch wants done about jobs: layers fetched, jobs started and ended, ends reported.

use super::{Here, Order, Report, Shared, State};
use crate::{
    NodeId, decode_job, encode_job, encode_result,
    own::{self, OwnJob},
};
use bytes::Bytes;
use maelstrom_content::LayerId;
use maelstrom_cores::{dispatch_id, gossip_id};
use maelstrom_dispatch::{self as dispatch, Action, Held, JobFailed, Requirements};
use maelstrom_node::{Handler, Job, JobEvent, JobId};
use maelstrom_spec::{JobError, JobOutcome};
use std::{
    sync::{Arc, PoisonError},
    time::Instant,
};

impl Shared {
    pub(super) fn do_action(self: &Arc<Self>, state: &mut State, now: Instant, action: Action) {
        match action {
            Action::FetchLayers { held, layers } => self.fetch(state, now, held, layers),
            Action::Forget { held } => {
                if let Some(fetching) = state.fetching.remove(&held) {
                    fetching.abort();
                }
                state.pinned.release(held);
            }
            Action::Start { held, job, lent } => self.start_job(state, now, held, &job, lent),
            Action::Kill { held } => match state.here.get(&held) {
                Some(here) => self.orders.push(Order::Cancel(here.id)),
                None => state.cores.dispatch(now, |dispatcher, view| {
                    dispatcher.job_ended(now, view, held, Err("it did not run".to_owned()));
                }),
            },
            Action::Started { job, node } => {
                let on = (node != dispatch_id(self.id)).then(|| name_of(state, gossip_id(node)));
                if let Some(own) = state.own.get(job) {
                    self.reports.push(Report {
                        id: own.id,
                        event: JobEvent::Running { on },
                        handler: own.handler.clone(),
                    });
                }
            }
            Action::Completed { job, result } => {
                let Some(mut own) = state.own.remove(job) else {
                    return;
                };
                let result = match result {
                    Ok(outcome) => own.outcome(&outcome),
                    Err(JobFailed::Cancelled) => Err(JobError::Cancelled),
                    Err(JobFailed::Attempts(attempts)) => {
                        Err(JobError::System(given_up(state, &attempts)))
                    }
                };
                self.reports.push(Report {
                    id: own.id,
                    event: JobEvent::Completed(result),
                    handler: own.handler,
                });
            }
        }
    }

    fn fetch(
        self: &Arc<Self>,
        state: &mut State,
        now: Instant,
        held: Held,
        layers: Arc<[dispatch::Layer]>,
    ) {
        if held.origin == dispatch_id(self.id) || state.pinned.hold(now, held, &layers) {
            state.cores.dispatch(now, |dispatcher, view| {
                dispatcher.layers_ready(now, view, held);
            });
            return;
        }
        let shared = self.clone();
        let task = self.threads.spawn(async move {
            let result = shared.fetch_all(held, &layers).await;
            shared.act(|state, now| {
                if state.fetching.remove(&held).is_none() {
                    return;
                }
                state.cores.dispatch(now, |dispatcher, view| match result {
                    Ok(()) => dispatcher.layers_ready(now, view, held),
                    Err(reason) => dispatcher.layers_failed(now, view, held, &reason),
                });
            });
        });
        state.fetching.insert(held, task.abort_handle());
    }

    /// Makes all layers of a lease available and keeps them so.
    async fn fetch_all(&self, held: Held, layers: &[dispatch::Layer]) -> Result<(), String> {
        for layer in layers {
            let id = LayerId::from_bytes(layer.id.0);
            let holders: Vec<NodeId> = {
                let state = self.lock();
                let holds = |member: &maelstrom_gossip::Member<'_>| {
                    member.profile.layers.may_hold(&layer.id.0)
                };
                let members = state.cores.view().iter().filter(holds);
                members.map(|member| member.node()).take(32).collect()
            };
            let pin = self
                .layers
                .fetch(id, gossip_id(held.origin), &holders)
                .await
                .map_err(|error| error.to_string())?;
            self.lock().pinned.add(self.clock.now(), pin);
        }
        if !self.lock().pinned.hold(self.clock.now(), held, layers) {
            return Err("a layer went away again while others were pulled".to_owned());
        }
        Ok(())
    }

    fn start_job(
        self: &Arc<Self>,
        state: &mut State,
        now: Instant,
        held: Held,
        job: &dispatch::Job,
        lent: bool,
    ) {
        let next = state.cores.dispatcher().peek_next(held.origin);
        let runnable = if lent {
            let decoded = decode_job(&job.payload, &mut state.lent_container);
            let like = |next: &dispatch::Job| {
                let known = state.lent_container.as_ref();
                known.is_some_and(|known| known.is_of(&next.payload))
            };
            let more_like_it = next.is_some_and(|(_, next)| like(next));
            let decoded = decoded.map_err(|refused| {
                let origin = gossip_id(held.origin);
                tracing::warn!(node = %origin, "sent an impossible job: {refused}");
                self.net.ban(origin, &refused.to_string());
                refused.to_string()
            });
            decoded.map(|job| (job, more_like_it))
        } else {
            match state.own.get(held.lease.job) {
                Some(own) => {
                    let next = next.and_then(|(id, _)| state.own.get(id));
                    let same = |next: &OwnJob| Arc::ptr_eq(&next.job.container, &own.job.container);
                    let more_like_it = next.is_some_and(same);
                    own::copy(&own.job)
                        .map(|job| (job, more_like_it))
                        .map_err(|error| format!("duplicating the terminal of the job: {error}"))
                }
                None => Err("the job has ended".to_owned()),
            }
        };
        match runnable {
            Ok((runnable, more_like_it)) => {
                let id = self.slots.reserve();
                let here = Here {
                    id,
                    program: runnable.program.clone(),
                    since: now,
                };
                state.here.insert(held, here);
                state.lent_jobs += u64::from(lent);
                let order = Order::Start {
                    id,
                    held,
                    job: Box::new(runnable),
                    more_like_it,
                };
                self.orders.push(order);
            }
            Err(reason) => state.cores.dispatch(now, |dispatcher, view| {
                dispatcher.job_ended(now, view, held, Err(reason));
            }),
        }
    }

    pub(super) fn obey(self: &Arc<Self>, order: Order) {
        match order {
            Order::Start {
                id,
                held,
                job,
                more_like_it,
            } => {
                let shared = self.clone();
                let told = move |_, event| {
                    if let JobEvent::Completed(result) = event {
                        shared.job_ended(held, result);
                    }
                };
                self.slots.submit_followed(id, *job, more_like_it, told);
            }
            Order::Cancel(id) => self.slots.cancel(id),
        }
    }

    /// A job on a slot of this node is over.
    fn job_ended(self: &Arc<Self>, held: Held, result: Result<JobOutcome, JobError>) {
        let own = held.origin == dispatch_id(self.id);
        // Outside the lock, as it may be long.
        let lent = (!own).then(|| encode_result(&result));
        self.act(|state, now| {
            state.here.remove(&held);
            if matches!(result, Err(JobError::System(_))) {
                state.pinned.doubt(held);
            }
            state.pinned.release(held);
            let result = match (lent, result) {
                (Some(encoded), _) => encoded.map(Bytes::from),
                (None, Err(JobError::System(message))) => Err(message),
                (None, result) => Ok(state.own.keep_outcome(held.lease, result)),
            };
            state.cores.dispatch(now, |dispatcher, view| {
                dispatcher.job_ended(now, view, held, result);
            });
        });
        self.ended.notify_all();
    }

    pub(super) fn submit(self: &Arc<Self>, id: JobId, job: Job, mut handler: Handler) {
        let local = job.needs_this_machine().is_some();
        let (layers, new) = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.list(&self.store, &job.container.layers)
        };
        if new && !local {
            for layer in &job.container.layers {
                self.layers.keep_offering(*layer);
            }
        }
        let needs = Requirements {
            architecture: Some(std::env::consts::ARCH.into()),
            local,
            ..Requirements::default()
        };
        let described = dispatch::Job {
            rank: job.rank,
            needs: Arc::new(needs),
            layers,
            payload: if local {
                Bytes::new()
            } else {
                encode_job(&job).into()
            },
        };
        let refused = self.act(|state, now| {
            if state.stopping {
                return Some((handler, JobError::Cancelled));
            }
            let submitted = state.cores.dispatch(now, |dispatcher, view| {
                dispatcher.submit(now, view, described)
            });
            match submitted {
                Ok(number) => {
                    state.own.insert(number, id, job, handler);
                    None
                }
                Err(refused) => Some((handler, JobError::System(refused.to_string()))),
            }
        });
        if let Some((refused, error)) = refused {
            handler = refused;
            handler(id, JobEvent::Completed(Err(error)));
        }
    }
}

/// What people call a node: its name, or the first digits of its id.
fn name_of(state: &State, node: NodeId) -> Arc<str> {
    let short = || format!("{node:?}").into();
    match state.cores.view().get(&node) {
        Some(member) if !member.profile.name.is_empty() => (*member.profile.name).into(),
        _ => short(),
    }
}

fn given_up(state: &State, attempts: &[dispatch::Attempt]) -> String {
    let tries: Vec<String> = attempts
        .iter()
        .map(|attempt| {
            let name = name_of(state, gossip_id(attempt.node));
            match &attempt.failure {
                dispatch::Failure::Lost => format!("node {name} was lost while it ran the job"),
                dispatch::Failure::Unable(reason) => {
                    format!("node {name} could not run the job: {reason}")
                }
            }
        })
        .collect();
    // A node that could not run a job says the same each time.
    let mut different = tries.clone();
    different.dedup();
    match (different.as_slice(), tries.len()) {
        ([one], _) => one.clone(),
        (several, tries) => format!("given up after {tries} tries: {}", several.join("; ")),
    }
}
