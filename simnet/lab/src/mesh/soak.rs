//! Runs with random faults: each job must be reported exactly once, and nothing stay behind.

use super::{BOUND, Mesh, fault::Fault, jobs};
use crate::{Exit, LabConfig, LabError, Process};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::{
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
    if let Err(left) = mesh.wait_nothing_left(BOUND) {
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
            if let Some(time) = fault.lasts() {
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
            let mut say = |text: String| {
                say(&format!("{:>8.2} s  {text}", start.elapsed().as_secs_f64()));
            };
            match step {
                Step::Begin(fault) => {
                    say(fault.to_string());
                    fault.begin(mesh)?;
                }
                Step::End(fault) => {
                    say(format!("end of: {fault}"));
                    fault.end(mesh, self.slots)?;
                }
            }
        }
        Ok(ended.or_else(|| client.wait(RUN_BOUND).ok()))
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
