//! Runs with random faults: each job must be reported exactly once, and nothing stay behind.

use super::{BOUND, Mesh, jobs};
use crate::{Direction, Exit, LabConfig, LabError, Process, Shape, Signal};
use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::IndexedRandom};
use std::{
    fmt,
    path::PathBuf,
    time::{Duration, Instant},
};

/// One run: what is started, what is asked of it, and what goes wrong meanwhile. All of it follows
/// from a seed.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// Hosts. The client is on host 1, nodes are on all others.
    pub hosts: u8,
    /// Slots of each node, and of the client.
    pub slots: u16,
    /// Whether a node runs beside the client.
    pub local_daemon: bool,
    /// How long each job sleeps.
    pub jobs: Vec<Duration>,
    /// Faults, each with its time from the client's start, earliest first.
    pub faults: Vec<(Duration, Fault)>,
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// A host dies. It comes back after the time, with a new node.
    Kill(u8, Option<Duration>),
    /// Only the node dies, and is started again after the time.
    KillNode(u8, Option<Duration>),
    /// The node is asked to end, and drains.
    StopNode(u8),
    /// A host stands still.
    Pause(u8, Duration),
    /// A host's cable is pulled.
    Cut(u8, Duration),
    /// Packets from one host to another are lost.
    Block(u8, u8, Duration),
    /// A link is slow, late and lossy.
    Spoil(u8, Duration),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(host, None) => write!(f, "kill {host}"),
            Self::Kill(host, Some(time)) => write!(f, "kill {host}, boot after {time:?}"),
            Self::KillNode(host, None) => write!(f, "kill the node of {host}"),
            Self::KillNode(host, Some(time)) => {
                write!(f, "kill the node of {host}, restart after {time:?}")
            }
            Self::StopNode(host) => write!(f, "stop the node of {host}"),
            Self::Pause(host, time) => write!(f, "pause {host} for {time:?}"),
            Self::Cut(host, time) => write!(f, "cut {host} for {time:?}"),
            Self::Block(from, to, time) => write!(f, "block {from} to {to} for {time:?}"),
            Self::Spoil(host, time) => write!(f, "spoil the link of {host} for {time:?}"),
        }
    }
}

impl Scenario {
    /// The scenario of a seed.
    pub fn of_seed(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let hosts = random.random_range(3..=6);
        let slots = random.random_range(1..=3);
        let local_daemon = random.random_bool(0.4);
        let count = random.random_range(30..=120);
        let jobs: Vec<_> = (0..count)
            .map(|_| Duration::from_millis(random.random_range(10..400)))
            .collect();
        let all_slots = u32::from(hosts) * u32::from(slots);
        let expected = jobs.iter().sum::<Duration>() / all_slots;
        let mut faults: Vec<_> = (0..random.random_range(1..=4))
            .map(|_| {
                let at = expected.mul_f64(random.random_range(0.0..1.2));
                (at, Fault::draw(&mut random, hosts, local_daemon))
            })
            .collect();
        faults.sort_by_key(|(at, _)| *at);
        Self {
            seed,
            hosts,
            slots,
            local_daemon,
            jobs,
            faults,
        }
    }
}

impl Fault {
    fn draw(random: &mut SmallRng, hosts: u8, local_daemon: bool) -> Self {
        let other = random.random_range(2..=hosts);
        let any = random.random_range(1..=hosts);
        let with_node = if local_daemon { any } else { other };
        let back = random
            .random_bool(0.5)
            .then(|| Duration::from_millis(random.random_range(100..4000)));
        // Mostly short; now and then longer than it takes to be given up.
        let times_ms = [200, 500, 1000, 1000, 3000, 10_000, 20_000, 60_000];
        let time = Duration::from_millis(*times_ms.choose(random).unwrap_or(&1000));
        match random.random_range(0..8) {
            0 | 1 => Self::Kill(other, back),
            2 => Self::KillNode(with_node, back),
            3 => Self::StopNode(other),
            4 => Self::Pause(other, time),
            5 => Self::Cut(any, time),
            6 => Self::Block(any, if any == other { 1 } else { other }, time),
            _ => Self::Spoil(any, time),
        }
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// From the client's start to its end.
    pub duration: Duration,
    /// What is wrong. Empty: nothing.
    pub wrong: Vec<String>,
    /// The lab's directory, which is kept if something is wrong.
    pub directory: PathBuf,
}

/// How long a run may take when nothing but faults happens.
const RUN_BOUND: Duration = Duration::from_secs(240);

/// Runs a scenario. Progress and faults are told to `say`.
///
/// # Errors
///
/// The lab or a program could not be started; what goes wrong later is in the outcome.
pub fn run(scenario: &Scenario, say: &mut dyn FnMut(&str)) -> Result<Outcome, LabError> {
    let mesh = Mesh::start(&LabConfig {
        keep: true,
        ..LabConfig::new(scenario.hosts)
    })?;
    let mut outcome = Outcome {
        duration: Duration::ZERO,
        wrong: Vec::new(),
        directory: mesh.lab().directory().to_owned(),
    };
    let first = if scenario.local_daemon { 1 } else { 2 };
    let hosts: Vec<u8> = (first..=scenario.hosts).collect();
    for host in &hosts {
        mesh.start_node(*host, scenario.slots, &[])?;
    }
    mesh.wait_members(&hosts, hosts.len() - 1, BOUND)?;
    let input = jobs::sleeping(scenario.jobs.iter().copied());
    let client = mesh.client(1, scenario.slots, &input)?.spawn()?;
    let mut plan = Plan::new(scenario);
    let ended = plan.carry_out(&mesh, &client, say)?;
    outcome.duration = client.started().elapsed();
    match ended {
        Some(Exit::Code(0)) => {}
        Some(exit) => outcome
            .wrong
            .push(format!("the client ended with {exit:?}")),
        None => outcome
            .wrong
            .push(format!("the client has not ended after {RUN_BOUND:?}")),
    }
    let count = scenario.jobs.len();
    let wrong = jobs::check(count, &client.stdout(), &client.stderr());
    outcome.wrong.extend(wrong);
    if let Err(left) = mesh.wait_idle(BOUND) {
        outcome.wrong.push(left);
    }
    drop(mesh);
    if outcome.wrong.is_empty() {
        let _ = std::fs::remove_dir_all(&outcome.directory);
    }
    Ok(outcome)
}

/// What is still to happen, with its time from the client's start.
struct Plan {
    steps: Vec<(Duration, Step)>,
    slots: u16,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Begin(Fault),
    End(Fault),
}

impl Plan {
    fn new(scenario: &Scenario) -> Self {
        let mut steps = Vec::new();
        for (at, fault) in &scenario.faults {
            steps.push((*at, Step::Begin(*fault)));
            let lasts = match fault {
                Fault::Kill(_, back) | Fault::KillNode(_, back) => *back,
                Fault::StopNode(_) => None,
                Fault::Pause(_, time)
                | Fault::Cut(_, time)
                | Fault::Block(_, _, time)
                | Fault::Spoil(_, time) => Some(*time),
            };
            if let Some(time) = lasts {
                steps.push((*at + time, Step::End(*fault)));
            }
        }
        steps.sort_by_key(|(at, _)| *at);
        Self {
            steps,
            slots: scenario.slots,
        }
    }

    /// Carries out all steps while the client runs; what has begun is ended even if it has ended.
    fn carry_out(
        &mut self,
        mesh: &Mesh,
        client: &Process,
        say: &mut dyn FnMut(&str),
    ) -> Result<Option<Exit>, LabError> {
        let start = Instant::now();
        let mut ended = None;
        for (at, step) in std::mem::take(&mut self.steps) {
            let left = at.saturating_sub(start.elapsed());
            if ended.is_none() {
                ended = client.wait(left).ok();
            }
            if ended.is_some() && matches!(step, Step::Begin(_)) {
                continue;
            }
            self.carry_out_step(mesh, step, &mut |text| {
                say(&format!("{:>8.2} s  {text}", start.elapsed().as_secs_f64()));
            })?;
        }
        Ok(ended.or_else(|| client.wait(RUN_BOUND).ok()))
    }

    fn carry_out_step(
        &self,
        mesh: &Mesh,
        step: Step,
        say: &mut dyn FnMut(&str),
    ) -> Result<(), LabError> {
        let lab = mesh.lab();
        let result = match step {
            Step::Begin(fault) => {
                say(&fault.to_string());
                match fault {
                    Fault::Kill(host, _) => {
                        mesh.take_node(host);
                        lab.kill(host)
                    }
                    Fault::KillNode(host, _) => signal_node(mesh, host, Signal::KILL),
                    Fault::StopNode(host) => signal_node(mesh, host, Signal::TERM),
                    Fault::Pause(host, _) => lab.pause(host),
                    Fault::Cut(host, _) => lab.cut(host),
                    Fault::Block(from, to, _) => lab.block(from, to),
                    Fault::Spoil(host, _) => {
                        let shape = Shape {
                            loss: 0.02,
                            ..Shape::slow(20, 20)
                        };
                        lab.shape(host, Direction::Both, shape)
                    }
                }
            }
            Step::End(fault) => {
                say(&format!("end of: {fault}"));
                match fault {
                    Fault::Kill(host, _) => {
                        lab.boot(host).and_then(|()| self.restart_node(mesh, host))
                    }
                    Fault::KillNode(host, _) => self.restart_node(mesh, host),
                    Fault::StopNode(_) => Ok(()),
                    Fault::Pause(host, _) => lab.resume(host),
                    Fault::Cut(host, _) => lab.heal(host),
                    Fault::Block(from, to, _) => lab.unblock(from, to),
                    Fault::Spoil(host, _) => lab.shape(host, Direction::Both, Shape::default()),
                }
            }
        };
        match result {
            // Two faults may meet at one host.
            Err(LabError::Down(_) | LabError::Up(_)) => Ok(()),
            result => result,
        }
    }
}

impl Plan {
    /// Starts the node of a host, unless another fault has done so or the host is down.
    fn restart_node(&self, mesh: &Mesh, host: u8) -> Result<(), LabError> {
        if mesh.has_node(host) {
            return Ok(());
        }
        mesh.start_node(host, self.slots, &[])
    }
}

fn signal_node(mesh: &Mesh, host: u8, signal: Signal) -> Result<(), LabError> {
    match mesh.take_node(host) {
        Some(process) => process.signal(signal),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_everything() {
        for seed in 0..200 {
            let scenario = Scenario::of_seed(seed);
            let again = Scenario::of_seed(seed);
            assert_eq!(format!("{scenario:?}"), format!("{again:?}"));
            assert!(scenario.jobs.len() >= 30 && !scenario.faults.is_empty());
            for (_, fault) in &scenario.faults {
                if let Fault::Kill(host, _) | Fault::StopNode(host) = fault {
                    assert!((2..=scenario.hosts).contains(host), "{fault}");
                }
                if let Fault::Block(from, to, _) = fault {
                    assert_ne!(from, to);
                }
            }
        }
    }
}
