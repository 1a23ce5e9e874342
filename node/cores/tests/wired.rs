//! A few nodes whose messages are carried by hand, in virtual time.

use bytes::Bytes;
use maelstrom_cores::{Cores, Event, Protocol, Rubbish, Setup};
use maelstrom_dispatch::{Action, Held, Incarnation, Job, Rank, Requirements};
use maelstrom_gossip::{Lending, NodeId, Profile};
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

struct Mesh {
    now: Instant,
    nodes: Vec<Cores>,
    carried: VecDeque<(usize, usize, Protocol, Vec<u8>)>,
    started: Vec<(usize, Held)>,
    completed: Vec<(usize, Bytes)>,
    news: Vec<(usize, Event)>,
}

fn id(number: usize) -> NodeId {
    NodeId::from_bytes([number as u8 + 1; 32])
}

impl Mesh {
    fn new(slots: &[u16]) -> Self {
        let now = Instant::now();
        let node = |(number, slots): (usize, &u16)| {
            let profile = Profile {
                lending: Lending::Always,
                may_coordinate: true,
                ..Profile::new(id(number), *slots)
            };
            let setup = Setup {
                profile,
                generation: 1,
                incarnation: Incarnation(1),
                last_term: 0,
                dispatch: maelstrom_dispatch::Config::default(),
                seed: number as u64,
            };
            Cores::new(now, setup).expect("a small profile")
        };
        Mesh {
            now,
            nodes: slots.iter().enumerate().map(node).collect(),
            carried: VecDeque::new(),
            started: Vec::new(),
            completed: Vec::new(),
            news: Vec::new(),
        }
    }

    fn collect(&mut self, number: usize) {
        while let Some(event) = self.nodes[number].poll_event() {
            match event {
                Event::Send {
                    to,
                    protocol,
                    message,
                } => {
                    let to = usize::from(to.as_bytes()[0]) - 1;
                    self.carried.push_back((number, to, protocol, message));
                }
                Event::Act(Action::Start { held, .. }) => self.started.push((number, held)),
                Event::Act(Action::Completed { result, .. }) => {
                    let outcome = result.expect("the job has an outcome");
                    self.completed.push((number, outcome));
                }
                other => self.news.push((number, other)),
            }
        }
    }

    /// Carries every message there is, and those that come of them.
    fn carry(&mut self) {
        for number in 0..self.nodes.len() {
            self.collect(number);
        }
        while let Some((from, to, protocol, message)) = self.carried.pop_front() {
            self.nodes[to]
                .handle_message(self.now, id(from), protocol, &message)
                .expect("nodes understand each other");
            self.collect(to);
        }
    }

    /// Lets virtual time pass until `done`, for a minute at most.
    fn run_until(&mut self, done: impl Fn(&Mesh) -> bool) {
        let end = self.now + Duration::from_secs(60);
        loop {
            self.carry();
            if done(self) {
                return;
            }
            let next = self.nodes.iter().filter_map(Cores::poll_timeout).min();
            self.now = next.expect("somebody waits for something").max(self.now);
            assert!(self.now < end, "it never comes to pass");
            for node in &mut self.nodes {
                node.handle_timeout(self.now);
            }
        }
    }

    fn submit(&mut self, number: usize) {
        let job = Job {
            rank: Rank::default(),
            needs: Arc::new(Requirements::default()),
            layers: Arc::new([]),
            payload: Bytes::from_static(b"a job"),
        };
        let now = self.now;
        self.nodes[number]
            .dispatch(now, |dispatcher, view| dispatcher.submit(now, view, job))
            .expect("there is room");
    }

    fn finish(&mut self) {
        for (number, held) in std::mem::take(&mut self.started) {
            let now = self.now;
            let outcome = Bytes::from(format!("ran on {number}"));
            self.nodes[number].dispatch(now, |dispatcher, view| {
                dispatcher.job_ended(now, view, held, Ok(outcome));
            });
        }
    }
}

#[test]
fn a_job_runs_on_the_node_that_has_a_slot() {
    let mut mesh = Mesh::new(&[0, 1, 0]);
    mesh.nodes[0].join(mesh.now, id(1));
    mesh.nodes[2].join(mesh.now, id(1));
    mesh.run_until(|mesh| mesh.nodes.iter().all(|node| node.view().len() == 2));
    mesh.submit(0);
    mesh.run_until(|mesh| mesh.started.len() == 1);
    mesh.finish();
    mesh.run_until(|mesh| !mesh.completed.is_empty());
    assert_eq!(mesh.completed, [(0, Bytes::from_static(b"ran on 1"))]);
}

#[test]
fn a_newcomer_is_served_within_half_a_second() {
    let mut mesh = Mesh::new(&[0, 1, 1, 1, 1, 1, 1, 1, 1]);
    for number in 2..9 {
        mesh.nodes[number].join(mesh.now, id(1));
    }
    mesh.run_until(|mesh| mesh.nodes[1..].iter().all(|node| node.view().len() == 7));
    let start = mesh.now;
    mesh.nodes[0].join(mesh.now, id(1));
    for _ in 0..8 {
        mesh.submit(0);
    }
    mesh.run_until(|mesh| mesh.started.len() == 8);
    assert!(
        mesh.now - start <= Duration::from_millis(500),
        "{:?}",
        mesh.now - start
    );
}

#[test]
fn one_of_them_is_elected_and_all_know() {
    let mut mesh = Mesh::new(&[1, 1, 1]);
    for number in 1..3 {
        mesh.nodes[number].join(mesh.now, id(0));
    }
    let agreed = |mesh: &Mesh| {
        let claims: Vec<_> = mesh.nodes.iter().map(Cores::coordinator).collect();
        claims[0].is_some() && claims.iter().all(|claim| *claim == claims[0])
    };
    mesh.run_until(agreed);
}

#[test]
fn whoever_leaves_is_gone_at_once() {
    let mut mesh = Mesh::new(&[1, 1]);
    mesh.nodes[1].join(mesh.now, id(0));
    mesh.run_until(|mesh| mesh.nodes.iter().all(|node| node.view().len() == 1));
    let now = mesh.now;
    mesh.nodes[1].leave(now);
    mesh.carry();
    assert_eq!(mesh.nodes[0].view().len(), 0);
    assert!(mesh.news.contains(&(0, Event::Down(id(1)))));
    assert_eq!(mesh.now, now);
}

#[test]
fn rubbish_is_told_apart() {
    let mut mesh = Mesh::new(&[1]);
    let now = mesh.now;
    let mut say =
        |protocol, bytes: &[u8]| mesh.nodes[0].handle_message(now, id(7), protocol, bytes);
    assert!(matches!(
        say(Protocol::Gossip, &[250, 1, 2]),
        Err(Rubbish::Gossip(_))
    ));
    assert_eq!(say(Protocol::Election, &[99]), Err(Rubbish::Election));
    assert!(matches!(
        say(Protocol::Dispatch, &[255; 40]),
        Err(Rubbish::Dispatch(_))
    ));
}
