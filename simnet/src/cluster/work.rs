//! Jobs: submitted, started, ended, reported; and the layers that they need.

use std::time::Duration;

use maelstrom_dispatch as dispatch;
use rand::RngExt;

use super::{
    Cluster, Event, Fate, Invariant, JobState, Sabotage,
    node::{Pull, Running},
    payload, payload_job,
};
use crate::kernel::Transfer;

/// How many bytes a job's specification takes: its layers travel as hashes.
const SPEC_BYTES: usize = 240;

/// How many bytes a job's outcome takes: most tests say little.
const OUTCOME_BYTES: usize = 320;

impl Cluster {
    pub(super) fn start_job(&mut self, number: usize, held: dispatch::Held, job: &dispatch::Job) {
        let Some(index) = payload_job(&job.payload) else {
            return;
        };
        self.note("job starts", number as u32, None, index.into());
        self.tokens += 1;
        self.totals.starts += 1;
        let token = self.tokens;
        let node = &mut self.nodes[number];
        let slots = job.needs.slots;
        node.slots_running += u32::from(slots);
        node.running.insert(
            held,
            Running {
                job: index,
                slots,
                token,
                killed: false,
            },
        );
        let (busy, has) = (node.slots_running, u32::from(node.slots));
        let life = node.life;
        let duration = self.jobs[index as usize]
            .spec
            .duration
            .mul_f64(node.slowness);
        let now = self.now();
        let job_state = &mut self.jobs[index as usize];
        job_state.runs += 1;
        job_state.started = now;
        job_state.started_on = number as u32;
        if busy > has {
            let seen = format!("node {number} runs jobs on {busy} slots and has {has}");
            self.fail(Invariant::WithinSlots, seen);
        }
        self.queue.at(
            self.now() + duration,
            Event::JobEnds {
                node: number as u32,
                life,
                held,
                token,
            },
        );
    }

    pub(super) fn kill_job(&mut self, number: usize, held: dispatch::Held) {
        if self.setup.sabotage == Some(Sabotage::IgnoreKills) {
            return;
        }
        let now = self.now();
        self.tokens += 1;
        let token = self.tokens;
        let life = self.nodes[number].life;
        if let Some(running) = self.nodes[number].running.get_mut(&held) {
            running.token = token;
            running.killed = true;
            let event = Event::JobEnds {
                node: number as u32,
                life,
                held,
                token,
            };
            self.queue.at(now + Duration::from_millis(3), event);
        }
    }

    pub(super) fn job_ends(&mut self, number: usize, life: u32, held: dispatch::Held, token: u64) {
        let now = self.now();
        let node = &mut self.nodes[number];
        if node.life != life || node.running.get(&held).is_none_or(|r| r.token != token) {
            return;
        }
        if node.paused_until > now {
            let event = Event::JobEnds {
                node: number as u32,
                life,
                held,
                token,
            };
            self.queue.at(node.paused_until, event);
            return;
        }
        let Some(running) = node.running.remove(&held) else {
            return;
        };
        node.slots_running -= u32::from(running.slots);
        self.note("job ends", number as u32, None, running.job.into());
        let mut job = running.job;
        if !running.killed {
            self.totals.work += self.jobs[job as usize].spec.duration * u32::from(running.slots);
            if self.sabotaged(Sabotage::MixOutcomes, 50) {
                job ^= 1;
            }
        }
        let result = if running.killed {
            Err("killed".to_owned())
        } else {
            Ok(payload(job, OUTCOME_BYTES))
        };
        self.dispatch(number, |dispatcher, now, view| {
            dispatcher.job_ended(now, view, held, result);
        });
        self.settle(number);
    }

    pub(super) fn completed(
        &mut self,
        number: usize,
        id: dispatch::JobId,
        result: Result<bytes::Bytes, dispatch::JobFailed>,
    ) {
        let Some(index) = self.nodes[number].submitted.get(id.0 as usize).copied() else {
            let seen = format!(
                "node {number} reports a job {} that it was never given",
                id.0
            );
            return self.fail(Invariant::ReportedOnce, seen);
        };
        self.note("is reported", number as u32, None, index.into());
        self.report(number, index, &result);
        if self.sabotaged(Sabotage::ReportTwice, 50) {
            self.report(number, index, &result);
        }
    }

    pub(super) fn report(
        &mut self,
        number: usize,
        index: u32,
        result: &Result<bytes::Bytes, dispatch::JobFailed>,
    ) {
        let job = &self.jobs[index as usize];
        if job.fate != Fate::Open {
            let seen = format!(
                "job {index} of node {number} is reported again; it was {:?}",
                job.fate
            );
            return self.fail(Invariant::ReportedOnce, seen);
        }
        let fate = match result {
            Ok(outcome) if payload_job(outcome) == Some(index) => Fate::Done,
            Ok(outcome) => {
                let seen = format!(
                    "job {index} of node {number} is reported with the outcome of job {:?}",
                    payload_job(outcome)
                );
                return self.fail(Invariant::ReportedOnce, seen);
            }
            Err(dispatch::JobFailed::Cancelled) if job.cancelled => Fate::Cancelled,
            Err(dispatch::JobFailed::Attempts(attempts))
                if attempts.len() >= self.setup.dispatch.attempts =>
            {
                Fate::GivenUp
            }
            Err(error) => {
                let seen = format!("job {index} of node {number} fails without cause: {error}");
                return self.fail(Invariant::ReportedOnce, seen);
            }
        };
        self.jobs[index as usize].fate = fate;
        self.jobs[index as usize].reported = self.now();
        self.open -= 1;
        self.nodes[number].unreported -= 1;
        self.totals.reported += 1;
        self.totals.last_report = self.now();
    }

    pub(super) fn fetch(&mut self, number: usize, held: dispatch::Held, missing: Vec<u16>) {
        if missing.is_empty() {
            self.dispatch(number, |dispatcher, now, view| {
                dispatcher.layers_ready(now, view, held);
            });
            return;
        }
        for layer in &missing {
            if !self.start_pull(number, *layer) {
                let event = Event::LayersFail {
                    node: number as u32,
                    life: self.nodes[number].life,
                    held,
                };
                self.queue
                    .at(self.now() + Duration::from_millis(500), event);
                return;
            }
        }
        // The last one to arrive lets the job go on.
        for layer in missing.clone() {
            if let Some(pull) = self.nodes[number].pulling.get_mut(&layer) {
                pull.waiting.push((held, missing.clone()));
            }
        }
    }

    /// Pulls a layer from somebody who has it, unless it is on its way; `false` if nobody does.
    pub(super) fn start_pull(&mut self, number: usize, layer: u16) -> bool {
        if self.nodes[number].pulling.contains_key(&layer) {
            return true;
        }
        let holders: Vec<usize> = (0..self.nodes.len())
            .filter(|other| {
                self.awake(*other)
                    && *other != number
                    && self.nodes[*other].layers.contains(&layer)
                    && self.network.reaches(*other, number)
                    && self.network.reaches(number, *other)
            })
            .collect();
        if holders.is_empty() {
            return false;
        }
        let from = holders[self.rng.random_range(0..holders.len())];
        let size = self.setup.layers[usize::from(layer)];
        let transfer = Transfer { from, to: number };
        let flow = self.flows.start(self.queue.now(), transfer, size);
        self.nodes[number].pulling.insert(
            layer,
            Pull {
                flow,
                waiting: Vec::new(),
            },
        );
        self.plan_flows();
        true
    }

    pub(super) fn plan_flows(&mut self) {
        if let Some(time) = self.flows.next_time().map(|time| time.max(self.now()))
            && self.flows_move_at.is_none_or(|planned| time < planned)
        {
            self.flows_move_at = Some(time);
            self.queue.at(time, Event::FlowsMove);
        }
    }

    pub(super) fn flows_move(&mut self) {
        let now = self.now();
        if self.flows_move_at != Some(now) {
            return;
        }
        self.flows_move_at = None;
        for (flow, transfer) in self.flows.finished(now) {
            let number = transfer.to;
            let arrived = self.nodes[number]
                .pulling
                .iter()
                .find(|(_, pull)| pull.flow == flow)
                .map(|(layer, _)| *layer);
            let Some(layer) = arrived else {
                continue;
            };
            self.note(
                "layer arrives",
                number as u32,
                Some(transfer.from as u32),
                layer.into(),
            );
            let Some(pull) = self.nodes[number].pulling.remove(&layer) else {
                continue;
            };
            self.nodes[number].layers.insert(layer);
            for (held, layers) in pull.waiting {
                if layers
                    .iter()
                    .all(|layer| self.nodes[number].layers.contains(layer))
                {
                    self.dispatch(number, |dispatcher, now, view| {
                        dispatcher.layers_ready(now, view, held);
                    });
                }
            }
            self.settle(number);
        }
        self.plan_flows();
    }

    /// Ends the transfers from and to a node that has died.
    pub(super) fn drop_flows(&mut self, dead: usize) {
        let now = self.now();
        for (_, pull) in std::mem::take(&mut self.nodes[dead].pulling) {
            self.flows.cancel(now, pull.flow);
        }
        let broken = self.flows.from_node(dead);
        for (flow, number) in broken {
            self.flows.cancel(now, flow);
            let layer = self.nodes[number]
                .pulling
                .iter()
                .find(|(_, pull)| pull.flow == flow)
                .map(|(layer, _)| *layer);
            let Some(pull) = layer.and_then(|layer| self.nodes[number].pulling.remove(&layer))
            else {
                continue;
            };
            for (held, _) in pull.waiting {
                let life = self.nodes[number].life;
                let event = Event::LayersFail {
                    node: number as u32,
                    life,
                    held,
                };
                self.queue.at(now, event);
            }
        }
        self.plan_flows();
    }

    pub(super) fn submit_now(&mut self, origin: usize, jobs: Vec<u32>) {
        if !self.awake(origin) {
            // The client tries again when its node is back.
            let event = Event::Submit {
                origin: origin as u32,
                jobs,
            };
            self.queue.at(self.now() + Duration::from_secs(1), event);
            return;
        }
        self.note("is given jobs", origin as u32, None, jobs.len() as u64);
        for index in jobs {
            let JobState { spec, .. } = self.jobs[index as usize];
            let needs = dispatch::Requirements {
                slots: spec.slots,
                ..Default::default()
            };
            let layers: Vec<dispatch::Layer> = spec
                .layer
                .iter()
                .map(|layer| {
                    let mut id = [0x11; 32];
                    id[..2].copy_from_slice(&layer.to_le_bytes());
                    dispatch::Layer {
                        id: dispatch::LayerId(id),
                        size_bytes: self.setup.layers[usize::from(*layer)],
                    }
                })
                .collect();
            self.nodes[origin].layers.extend(spec.layer);
            let job = dispatch::Job {
                rank: dispatch::Rank {
                    priority: 0,
                    estimate: spec.estimate,
                },
                needs: needs.into(),
                layers: layers.into(),
                payload: payload(index, SPEC_BYTES),
            };
            self.open += 1;
            self.jobs[index as usize].fate = Fate::Open;
            self.nodes[origin].unreported += 1;
            if self.sabotaged(Sabotage::LoseJobs, 50) {
                continue;
            }
            let submitted = self.dispatch(origin, |dispatcher, now, view| {
                dispatcher.submit(now, view, job)
            });
            let Some(Ok(id)) = submitted else {
                let seen = format!("node {origin} refuses job {index}: {submitted:?}");
                return self.fail(Invariant::NoJobLost, seen);
            };
            assert_eq!(id.0, self.nodes[origin].submitted.len() as u64);
            self.nodes[origin].submitted.push(index);
            self.jobs[index as usize].id = Some(id);
        }
        self.settle(origin);
    }

    pub(super) fn cancel_now(&mut self, index: u32) {
        let job = &mut self.jobs[index as usize];
        let (Some(id), Fate::Open) = (job.id, job.fate) else {
            return;
        };
        job.cancelled = true;
        let origin = job.origin as usize;
        if !self.awake(origin) {
            return;
        }
        self.note("cancels", origin as u32, None, index.into());
        self.dispatch(origin, |dispatcher, now, view| {
            dispatcher.cancel(now, view, id)
        });
        let bound = self.setup.bounds.cancelled_stops;
        self.queue
            .at(self.now() + bound, Event::StillRuns { job: index });
        self.settle(origin);
    }

    pub(super) fn check_cancelled(&mut self, index: u32) {
        let now = self.now();
        let runs = self.nodes.iter().position(|node| {
            // A process that is stopped can't be told; its jobs stand still with it.
            node.alive
                && node.paused_until <= now
                && node.running.values().any(|running| running.job == index)
        });
        if let Some(node) = runs {
            if now.since(self.nodes[node].paused_until) < self.setup.bounds.cancelled_stops {
                let again = self.nodes[node].paused_until + self.setup.bounds.cancelled_stops;
                self.queue.at(again, Event::StillRuns { job: index });
                return;
            }
            let seen = format!(
                "job {index} runs on node {node} {:?} after it was cancelled",
                self.setup.bounds.cancelled_stops
            );
            self.fail(Invariant::CancelledStops, seen);
        }
    }
}
