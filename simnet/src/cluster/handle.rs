//! What each event does.

use std::time::Duration;

use maelstrom_dispatch::{self as dispatch, Action, Body, Progress};
use maelstrom_gossip as gossip;
use rand::RngExt;

use super::{
    Cluster, Event, Fate, Fault, Invariant, JobState, Message, Sabotage, Shows, dispatch_id,
    gossip_id,
    node::{Machines, Node, Pull, Running},
    node_number, payload, payload_job,
    views::{OwnView, SharedFor, SharedView},
};
use crate::kernel::{Network, Time, Transfer};

/// How many bytes a job's specification takes: its layers travel as hashes.
const SPEC_BYTES: usize = 240;

/// How many bytes a job's outcome takes: most tests say little.
const OUTCOME_BYTES: usize = 320;

/// Messages for a node that sleeps longer than this are lost with its connections.
const CONNECTION_LASTS: Duration = Duration::from_secs(10);

/// Lets `act` use the dispatcher of a node together with the node's view of the mesh.
fn with_dispatcher<T>(
    nodes: &mut [Node],
    shared: &SharedView,
    now: Time,
    number: usize,
    act: impl FnOnce(&mut dispatch::Dispatcher, std::time::Instant, &dyn dispatch::View) -> T,
) -> Option<T> {
    let node = &mut nodes[number];
    let local = node.clock.at(now);
    let machines = node.machines.as_mut()?;
    let dispatcher = machines.dispatcher.as_mut()?;
    Some(match &machines.membership {
        Some(membership) => act(dispatcher, local, &OwnView(membership.view())),
        None => {
            let view = SharedFor {
                view: shared,
                me: number,
            };
            act(dispatcher, local, &view)
        }
    })
}

impl Cluster {
    fn dispatch<T>(
        &mut self,
        number: usize,
        act: impl FnOnce(&mut dispatch::Dispatcher, std::time::Instant, &dyn dispatch::View) -> T,
    ) -> Option<T> {
        let now = self.queue.now();
        with_dispatcher(&mut self.nodes, &self.shared, now, number, act)
    }

    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver { to, from, message } => self.deliver(to, from, message),
            Event::Wake(node) => self.wake(node as usize),
            Event::JobEnds {
                node,
                life,
                held,
                token,
            } => self.job_ends(node as usize, life, held, token),
            Event::FlowsMove => self.flows_move(),
            Event::LayersFail { node, life, held } => {
                if self.nodes[node as usize].life == life {
                    self.note("layers fail", node, None, held.lease.job.0);
                    self.dispatch(node as usize, |dispatcher, now, view| {
                        dispatcher.layers_failed(now, view, held, "nobody has them");
                    });
                    self.settle(node as usize);
                }
            }
            Event::Fault(fault) => self.fault(fault),
            Event::Submit { origin, jobs } => self.submit_now(origin as usize, jobs),
            Event::Cancel { job } => self.cancel_now(job),
            Event::StillRuns { job } => self.check_cancelled(job),
            Event::Shows(news) => self.shows(news),
            Event::Tell(node) => self.tell_again(node as usize),
            Event::Sample => self.sample(),
        }
    }

    /// Whether a node hears and runs at this moment.
    fn awake(&self, number: usize) -> bool {
        self.nodes[number].alive && self.nodes[number].paused_until <= self.now()
    }

    fn deliver(&mut self, to: u32, from: u32, message: Box<Message>) {
        let number = to as usize;
        if !self.nodes[number].alive {
            return;
        }
        let paused_until = self.nodes[number].paused_until;
        if paused_until > self.now() {
            if paused_until.since(self.now()) < CONNECTION_LASTS {
                self.queue
                    .at(paused_until, Event::Deliver { to, from, message });
            }
            return;
        }
        let (name, detail) = describe(&message);
        self.note(name, to, Some(from), detail);
        match *message {
            Message::Gossip(bytes) => {
                let node = &mut self.nodes[number];
                let local = node.clock.at(self.queue.now());
                if let Some(membership) = node.machines.as_mut().and_then(|m| m.membership.as_mut())
                {
                    let handled =
                        membership.handle_message(local, gossip_id(from as usize), &bytes);
                    assert!(handled.is_ok(), "nodes understand each other: {handled:?}");
                }
            }
            Message::Election(message) => {
                let message = match (self.setup.sabotage, message) {
                    // Whoever asks is told yes by everybody, as if nobody kept account.
                    (Some(Sabotage::GrantAll), gossip::ElectionMessage::Refuse { .. }) => return,
                    (_, message) => message,
                };
                let node = &mut self.nodes[number];
                let local = node.clock.at(self.queue.now());
                if let Some(election) = node.machines.as_mut().and_then(|m| m.election.as_mut()) {
                    election.handle_message(local, gossip_id(from as usize), message);
                }
            }
            Message::Dispatch(message) => {
                if self.swallows(number, &message) {
                    return;
                }
                self.dispatch(number, |dispatcher, now, view| {
                    dispatcher.handle_message(now, view, dispatch_id(from as usize), message);
                });
            }
        }
        self.settle(number);
    }

    /// Whether a broken core doesn't take note of a message.
    fn swallows(&mut self, number: usize, message: &dispatch::Message) -> bool {
        match &message.body {
            Body::Request { .. } => self.setup.sabotage == Some(Sabotage::StarveOne) && number == 1,
            Body::Report(progress) => {
                let ends = progress
                    .iter()
                    .any(|(_, progress)| matches!(progress, Progress::Finished(_)));
                // Decided by the job, so that a repetition is swallowed too.
                self.setup.sabotage == Some(Sabotage::KeepOutcomes)
                    && ends
                    && progress.iter().any(|(lease, _)| lease.job.0 % 7 == 3)
            }
            _ => false,
        }
    }

    fn wake(&mut self, number: usize) {
        let now = self.now();
        if self.nodes[number].wakes_at != Some(now) {
            return;
        }
        self.nodes[number].wakes_at = None;
        if !self.nodes[number].alive {
            return;
        }
        if self.nodes[number].paused_until > now {
            let until = self.nodes[number].paused_until;
            self.nodes[number].wakes_at = Some(until);
            self.queue.at(until, Event::Wake(number as u32));
            return;
        }
        self.note("timeout", number as u32, None, 0);
        let node = &mut self.nodes[number];
        let local = node.clock.at(now);
        if let Some(machines) = &mut node.machines {
            if let Some(membership) = &mut machines.membership
                && membership.poll_timeout().is_some_and(|due| due <= local)
            {
                membership.handle_timeout(local);
            }
            if let Some(election) = &mut machines.election
                && election.poll_timeout().is_some_and(|due| due <= local)
            {
                election.handle_timeout(local);
            }
        }
        self.dispatch(number, |dispatcher, local, view| {
            if dispatcher.poll_timeout().is_some_and(|due| due <= local) {
                dispatcher.handle_timeout(local, view);
            }
        });
        self.settle(number);
    }

    /// Sends, does and passes on whatever a node's machines ask for, and plans its next wake-up.
    pub(super) fn settle(&mut self, number: usize) {
        loop {
            let busy = self.settle_membership(number)
                | self.settle_election(number)
                | self.settle_dispatch(number);
            if !busy {
                break;
            }
        }
        self.check_node(number);
        self.tell_load(number);
        self.plan_wake(number);
    }

    fn settle_membership(&mut self, number: usize) -> bool {
        let mut busy = false;
        loop {
            let Some(membership) = machine(&mut self.nodes, number, |m| m.membership.as_mut())
            else {
                return busy;
            };
            if let Some(transmit) = membership.poll_transmit() {
                let to = node_number(transmit.to.as_bytes());
                self.send(number, to, Message::Gossip(transmit.message));
            } else if let Some(event) = membership.poll_event() {
                self.member_event(number, event);
            } else {
                return busy;
            }
            busy = true;
        }
    }

    fn member_event(&mut self, number: usize, event: gossip::Event) {
        let now = self.now();
        let local = self.nodes[number].clock.at(now);
        match event {
            gossip::Event::Up(id) => {
                if let Some(election) = machine(&mut self.nodes, number, |m| m.election.as_mut()) {
                    election.add_eligible(local, id);
                }
            }
            gossip::Event::Down(id) => {
                let other = node_number(id.as_bytes());
                self.note("sees down", number as u32, Some(other as u32), 0);
                self.deaths_seen.push((now, number as u32, other as u32));
                if self.nodes[other].alive
                    && self.nodes[other].paused_until <= now
                    && self.network.reaches(number, other)
                    && self.network.reaches(other, number)
                {
                    self.totals.false_deaths += 1;
                }
                if let Some(election) = machine(&mut self.nodes, number, |m| m.election.as_mut()) {
                    election.remove_eligible(local, id);
                }
                self.dispatch(number, |dispatcher, now, view| {
                    dispatcher.peer_lost(now, view, dispatch_id(other));
                });
            }
            gossip::Event::Claim(claim) => {
                if let Some(election) = machine(&mut self.nodes, number, |m| m.election.as_mut()) {
                    election.handle_claim(local, claim);
                }
            }
            gossip::Event::Changed(_)
            | gossip::Event::RosterComplete
            | gossip::Event::Rejoined
            | gossip::Event::Missed => {}
        }
    }

    fn settle_election(&mut self, number: usize) -> bool {
        let mut busy = false;
        loop {
            let Some(election) = machine(&mut self.nodes, number, |m| m.election.as_mut()) else {
                return busy;
            };
            if let Some(transmit) = election.poll_transmit() {
                let to = node_number(transmit.to.as_bytes());
                let mut message = transmit.message;
                if self.setup.sabotage == Some(Sabotage::GrantAll)
                    && let gossip::ElectionMessage::Request { term, round, .. } = message
                {
                    // The council's grants, made up.
                    let grant = gossip::ElectionMessage::Grant { term, round };
                    self.send(to, number, Message::Election(grant));
                    message = gossip::ElectionMessage::Release { term: 0 };
                }
                self.send(number, to, Message::Election(message));
            } else if let Some(event) = election.poll_event() {
                self.election_event(number, event);
            } else {
                return busy;
            }
            busy = true;
        }
    }

    fn election_event(&mut self, number: usize, event: gossip::ElectionEvent) {
        let now = self.now();
        match event {
            gossip::ElectionEvent::Term(term) => {
                if self.setup.sabotage != Some(Sabotage::ForgetTerms) {
                    self.nodes[number].term = self.nodes[number].term.max(term);
                }
            }
            gossip::ElectionEvent::Elected(claim) => {
                self.note("is elected", number as u32, None, claim.term);
                self.totals.elections += 1;
                self.elected_at.push((now, number as u32));
                if claim.term <= self.nodes[number].held_term {
                    let seen = format!(
                        "node {number} is elected in term {} and was before in term {}",
                        claim.term, self.nodes[number].held_term
                    );
                    self.fail(Invariant::TermsGrow, seen);
                }
                self.nodes[number].held_term = claim.term;
                let local = self.nodes[number].clock.at(now);
                if self.setup.sabotage == Some(Sabotage::GrantAll) {
                    return;
                }
                if let Some(membership) =
                    machine(&mut self.nodes, number, |m| m.membership.as_mut())
                {
                    membership.set_claim(local, claim);
                }
            }
            gossip::ElectionEvent::Deposed(claim) => {
                self.note("is deposed", number as u32, None, claim.term);
            }
        }
    }

    fn settle_dispatch(&mut self, number: usize) -> bool {
        let mut busy = false;
        loop {
            let Some(dispatcher) = machine(&mut self.nodes, number, |m| m.dispatcher.as_mut())
            else {
                return busy;
            };
            if let Some((to, message)) = dispatcher.poll_transmit() {
                let to = node_number(to.as_bytes());
                self.send(number, to, Message::Dispatch(message));
            } else if let Some(action) = dispatcher.poll_action() {
                self.act(number, action);
            } else {
                return busy;
            }
            busy = true;
        }
    }

    fn act(&mut self, number: usize, action: Action) {
        match action {
            Action::FetchLayers { held, layers } => {
                let missing: Vec<u16> = layers
                    .iter()
                    .map(|layer| u16::from_le_bytes([layer.id.0[0], layer.id.0[1]]))
                    .filter(|layer| !self.nodes[number].layers.contains(layer))
                    .collect();
                self.fetch(number, held, missing);
            }
            Action::Forget { held } => {
                for pull in self.nodes[number].pulling.values_mut() {
                    pull.waiting.retain(|(waiting, _)| *waiting != held);
                }
            }
            Action::Start { held, job, .. } => self.start_job(number, held, &job),
            Action::Kill { held } => self.kill_job(number, held),
            Action::Started { .. } => {}
            Action::Completed { job, result } => self.completed(number, job, result),
        }
    }

    fn start_job(&mut self, number: usize, held: dispatch::Held, job: &dispatch::Job) {
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

    fn kill_job(&mut self, number: usize, held: dispatch::Held) {
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

    fn job_ends(&mut self, number: usize, life: u32, held: dispatch::Held, token: u64) {
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

    fn completed(
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

    fn report(
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

    fn fetch(&mut self, number: usize, held: dispatch::Held, missing: Vec<u16>) {
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
    fn start_pull(&mut self, number: usize, layer: u16) -> bool {
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

    fn plan_flows(&mut self) {
        if let Some(time) = self.flows.next_time().map(|time| time.max(self.now()))
            && self.flows_move_at.is_none_or(|planned| time < planned)
        {
            self.flows_move_at = Some(time);
            self.queue.at(time, Event::FlowsMove);
        }
    }

    fn flows_move(&mut self) {
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
    fn drop_flows(&mut self, dead: usize) {
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

    fn submit_now(&mut self, origin: usize, jobs: Vec<u32>) {
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

    fn cancel_now(&mut self, index: u32) {
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

    fn check_cancelled(&mut self, index: u32) {
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

    fn fault(&mut self, fault: Fault) {
        self.calm_since = self.now();
        match fault {
            Fault::Kill(number) => self.kill(number),
            Fault::Start(number) => {
                let awake: Vec<usize> = (0..self.nodes.len())
                    .filter(|other| self.awake(*other))
                    .collect();
                let seed = if awake.is_empty() {
                    None
                } else {
                    Some(awake[self.rng.random_range(0..awake.len())])
                };
                self.start(number, seed);
                self.settle(number);
            }
            Fault::Leave(number) => {
                if self.awake(number) {
                    self.note("leaves", number as u32, None, 0);
                    let now = self.now();
                    let local = self.nodes[number].clock.at(now);
                    if let Some(membership) =
                        machine(&mut self.nodes, number, |m| m.membership.as_mut())
                    {
                        membership.leave(local);
                    }
                    self.settle_membership(number);
                    self.kill(number);
                }
            }
            Fault::Pause(number, time) => {
                if self.nodes[number].alive {
                    self.note("sleeps", number as u32, None, time.as_millis() as u64);
                    let until = self.now() + time;
                    self.nodes[number].paused_until = until.max(self.nodes[number].paused_until);
                    // Nothing has to happen at the end but that time goes on.
                    self.queue.at(until, Event::Fault(Fault::Mend(u32::MAX)));
                }
            }
            Fault::Slow(number, factor) => self.nodes[number].slowness = factor,
            Fault::Cut(id, cut) => {
                self.note("partition", id, None, 0);
                self.network.cuts.push((id, cut));
            }
            Fault::Mend(id) => {
                self.note("mended", id, None, 0);
                self.network.cuts.retain(|(cut, _)| *cut != id);
            }
            Fault::Weather { loss, late, twice } => {
                let network: &mut Network = &mut self.network;
                (network.loss, network.late, network.twice) = (loss, late, twice);
            }
            Fault::Owner(number, active) => {
                self.note("owner", number as u32, None, active.into());
                if self.awake(number) {
                    self.dispatch(number, |dispatcher, now, view| {
                        dispatcher.set_owner_active(now, view, active);
                    });
                    self.settle(number);
                }
            }
            Fault::KillCoordinator(back) => {
                if let Some((number, _)) = self.coordinators().first().copied() {
                    self.kill(number);
                    self.queue
                        .at(self.now() + back, Event::Fault(Fault::Start(number)));
                }
            }
        }
    }

    fn kill(&mut self, number: usize) {
        let now = self.now();
        let node = &mut self.nodes[number];
        if !node.alive {
            return;
        }
        node.alive = false;
        node.paused_until = now;
        node.machines = None;
        node.running.clear();
        node.slots_running = 0;
        node.unreported = 0;
        node.wakes_at = None;
        let life = node.life;
        for index in std::mem::take(&mut node.submitted) {
            let job = &mut self.jobs[index as usize];
            if job.fate == Fate::Open {
                job.fate = Fate::Orphaned;
                self.open -= 1;
            }
        }
        self.note("dies", number as u32, None, life.into());
        self.drop_flows(number);
        self.show(Shows::Down(number as u32, life));
    }

    fn shows(&mut self, news: Shows) {
        match news {
            Shows::Up(number, life) => {
                let node = &self.nodes[number as usize];
                if node.alive && node.life == life {
                    self.shared.set_up(number as usize, true);
                }
            }
            Shows::Down(number, life) => {
                if self.nodes[number as usize].life != life || self.nodes[number as usize].alive {
                    return;
                }
                self.note("shows down", number, None, life.into());
                self.shared.set_up(number as usize, false);
                for other in 0..self.nodes.len() {
                    if self.nodes[other].alive {
                        self.dispatch(other, |dispatcher, now, view| {
                            dispatcher.peer_lost(now, view, dispatch_id(number as usize));
                        });
                        self.settle(other);
                    }
                }
            }
            Shows::Load(number, slots_free, queued) => {
                if self.nodes[number as usize].alive {
                    self.shared.set_load(number as usize, slots_free, queued);
                }
            }
        }
    }

    /// Lets membership, or the shared picture, know of a changed load.
    fn tell_load(&mut self, number: usize) {
        let now = self.now();
        let own_views = self.setup.own_views;
        let node = &mut self.nodes[number];
        let Some(machines) = &mut node.machines else {
            return;
        };
        let Some(dispatcher) = &machines.dispatcher else {
            return;
        };
        let counts = dispatcher.counts();
        let load = gossip::Load {
            slots_free: counts.slots_free,
            jobs_queued: u32::try_from(counts.queued).unwrap_or(u32::MAX),
        };
        if let Some(membership) = &mut machines.membership {
            if machines.told != load {
                machines.told = load;
                membership.set_load(node.clock.at(now), load);
                self.settle_membership(number);
            }
        } else if !own_views && (machines.told.jobs_queued == 0) != (load.jobs_queued == 0) {
            // As membership does: told at once, but not more often than once a second.
            if machines.tells_at.is_none_or(|at| at <= now) {
                machines.tells_at = Some(now + Duration::from_secs(1));
                machines.told = load;
                self.show(Shows::Load(
                    number as u32,
                    load.slots_free,
                    load.jobs_queued,
                ));
                let event = Event::Tell(number as u32);
                self.queue.at(now + Duration::from_secs(1), event);
            }
        }
    }

    fn tell_again(&mut self, number: usize) {
        if self.nodes[number].alive {
            self.tell_load(number);
        }
    }

    /// What must hold for a node after every event.
    fn check_node(&mut self, number: usize) {
        if !self.setup.checks {
            return;
        }
        let node = &self.nodes[number];
        let Some(dispatcher) = node.machines.as_ref().and_then(|m| m.dispatcher.as_ref()) else {
            return;
        };
        let counts = dispatcher.counts();
        if counts.unfinished != node.unreported {
            let seen = format!(
                "node {number} owes its client {} jobs and knows of {}",
                node.unreported, counts.unfinished
            );
            self.fail(Invariant::NoJobLost, seen);
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        self.totals.messages += 1;
        let size = match &message {
            Message::Gossip(bytes) => {
                self.totals.gossip_bytes += bytes.len() as u64;
                bytes.len()
            }
            Message::Election(message) => {
                let size = message.encode().len();
                self.totals.gossip_bytes += size as u64;
                size
            }
            Message::Dispatch(message) => {
                let size = dispatch_bytes(message);
                self.totals.dispatch_bytes += size as u64;
                size
            }
        };
        let now = self.now();
        let [once, again] = self.network.deliveries(now, from, to, size);
        let deliver = |message| Event::Deliver {
            to: to as u32,
            from: from as u32,
            message: Box::new(message),
        };
        if let Some(time) = again {
            self.queue.at(time, deliver(message.clone()));
        }
        if let Some(time) = once {
            self.queue.at(time, deliver(message));
        }
    }

    fn plan_wake(&mut self, number: usize) {
        let now = self.now();
        let node = &mut self.nodes[number];
        let Some(machines) = &node.machines else {
            return;
        };
        let due = [
            machines.membership.as_ref().and_then(|m| m.poll_timeout()),
            machines.election.as_ref().and_then(|e| e.poll_timeout()),
            machines.dispatcher.as_ref().and_then(|d| d.poll_timeout()),
        ];
        let Some(due) = due.into_iter().flatten().min() else {
            return;
        };
        let time = node.clock.when(due).max(now);
        if node
            .wakes_at
            .is_none_or(|planned| time < planned || planned < now)
        {
            node.wakes_at = Some(time);
            self.queue.at(time, Event::Wake(number as u32));
        }
    }
}

fn machine<T>(
    nodes: &mut [Node],
    number: usize,
    choose: impl FnOnce(&mut Machines) -> Option<&mut T>,
) -> Option<&mut T> {
    choose(nodes[number].machines.as_mut()?)
}

fn describe(message: &Message) -> (&'static str, u64) {
    match message {
        Message::Gossip(bytes) => ("gossip", bytes.len() as u64),
        Message::Election(message) => match message {
            gossip::ElectionMessage::Request { term, .. } => ("asks for lease", *term),
            gossip::ElectionMessage::Grant { term, .. } => ("grants lease", *term),
            gossip::ElectionMessage::Refuse { term, .. } => ("refuses lease", *term),
            gossip::ElectionMessage::Release { term } => ("releases lease", *term),
        },
        Message::Dispatch(message) => (message.body.name(), dispatch_bytes(message) as u64),
    }
}

/// About how many bytes a message of dispatch takes.
fn dispatch_bytes(message: &dispatch::Message) -> usize {
    const HEADER: usize = 24;
    const LEASE: usize = 8;
    HEADER
        + match &message.body {
            Body::Grant { leases, .. } => {
                let jobs = leases
                    .iter()
                    .map(|(_, job)| LEASE + 16 + job.payload.len() + job.layers.len() * 40);
                48 + jobs.sum::<usize>()
            }
            Body::Report(progress) => progress
                .iter()
                .map(|(_, progress)| match progress {
                    Progress::Finished(outcome) => LEASE + 4 + outcome.len(),
                    Progress::Failed(reason) => LEASE + 2 + reason.len(),
                    Progress::Started | Progress::Returned => LEASE + 1,
                })
                .sum(),
            Body::Ack { ended, .. } => 48 + ended.len() * LEASE,
            Body::Cancel { leases } => leases.len() * LEASE,
            Body::Holding { leases, .. } => 8 + leases.len() * (LEASE + 1),
            Body::Wake(_) => 48,
            Body::Request { .. } | Body::Revoke { .. } | Body::Restarted => 12,
        }
}
