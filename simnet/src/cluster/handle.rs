//! How events reach a node's machines, and what the machines ask for reaches others.

use std::time::Duration;

use maelstrom_cores::MeshView;
use maelstrom_dispatch::{self as dispatch, Action, Body, Progress};
use maelstrom_gossip as gossip;

use super::{
    Cluster, Event, Invariant, Message, Sabotage, Shows, dispatch_id, gossip_id,
    node::{Machines, Node},
    node_number,
    views::{SharedFor, SharedView},
};
use crate::kernel::Time;

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
        Some(membership) => act(dispatcher, local, &MeshView(membership.view())),
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
    pub(super) fn dispatch<T>(
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
    pub(super) fn awake(&self, number: usize) -> bool {
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

    pub(super) fn settle_membership(&mut self, number: usize) -> bool {
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
                let eligible = self.membership(number).is_some_and(|membership| {
                    let member = membership.view().get(&id);
                    member.is_some_and(|member| member.profile.may_coordinate)
                });
                if !eligible {
                    return;
                }
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

pub(super) fn machine<T>(
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
