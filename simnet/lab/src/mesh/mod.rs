//! A mesh of real nodes on the hosts of a lab, and what is asked of it.

pub mod bench;
pub mod fault;
pub mod jobs;
mod left;
pub mod peer;
pub mod soak;

use crate::{Command, Finished, Host, Lab, LabConfig, LabError, Process, program};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// How long a program of the mesh may take for what takes milliseconds on an idle machine.
pub const BOUND: Duration = Duration::from_secs(60);

/// A lab with the programs of this project and a mesh key on all of its hosts.
#[derive(Debug)]
pub struct Mesh {
    lab: Lab,
    daemons: Mutex<BTreeMap<u8, Process>>,
    /// What is on a host on which nothing has been started.
    bare: left::Seen,
}

impl Mesh {
    /// Starts a lab. No node runs on it yet.
    ///
    /// # Errors
    ///
    /// As [`Lab::start`].
    pub fn start(config: &LabConfig) -> Result<Self, LabError> {
        let lab = Lab::start(config)?;
        Ok(Self {
            bare: left::Seen::on(lab.host(1)?, BOUND)?,
            lab,
            daemons: Mutex::default(),
        })
    }

    /// The lab.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Where programs on a host look for the mesh key. The first node makes it.
    pub fn key_file(&self, host: &Host) -> PathBuf {
        host.home().join(".config/maelstrom/mesh.key")
    }

    /// Gives all hosts the mesh key of this one, as a person would copy it.
    fn share_key(&self, from: &Host) -> Result<(), LabError> {
        let own = self.key_file(from);
        for host in self.lab.hosts() {
            let theirs = self.key_file(host);
            if !theirs.exists() {
                let directory = theirs.parent().unwrap_or(Path::new("/"));
                fs::create_dir_all(directory)
                    .and_then(|()| fs::copy(&own, &theirs))
                    .map_err(LabError::step(format!("copying {}", own.display())))?;
            }
        }
        Ok(())
    }

    /// `maelstrom-node` on a host, not yet started.
    ///
    /// # Errors
    ///
    /// The program is not built, or there is no such host.
    pub fn node_command(&self, host: u8) -> Result<Command, LabError> {
        let program = program("maelstrom-daemon", "maelstrom-node")?;
        Ok(self.lab.host(host)?.command(program))
    }

    /// Starts a node on a host with so many slots, and waits until it answers.
    ///
    /// # Errors
    ///
    /// It does not start, or not in a minute.
    pub fn start_node(&self, host: u8, slots: u16, more: &[&str]) -> Result<(), LabError> {
        let slots = slots.to_string();
        let command = self.node_command(host)?.args(["--slots", &slots]);
        let process = command.args(more).spawn()?;
        let deadline = Instant::now() + BOUND;
        while self.status(host).is_none() {
            if process.try_wait().is_some() || Instant::now() > deadline {
                let words = process.stderr();
                let doing = format!("starting maelstrom-node on host {host}");
                return Err(LabError::step(doing)(io::Error::other(words)));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.daemons().insert(host, process);
        self.share_key(self.lab.host(host)?)
    }

    /// The node's process that [`Self::start_node`] started last on a host, taken out of here.
    pub fn take_node(&self, host: u8) -> Option<Process> {
        self.daemons().remove(&host)
    }

    /// Whether a node that was started on a host has not been taken out of here.
    pub fn has_node(&self, host: u8) -> bool {
        self.daemons().contains_key(&host)
    }

    fn daemons(&self) -> MutexGuard<'_, BTreeMap<u8, Process>> {
        self.daemons.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// What the node on a host says of the mesh: `mesh` of `maelstrom-node status --json`. `None`: none answers.
    pub fn status(&self, host: u8) -> Option<serde_json::Value> {
        let program = program("maelstrom-daemon", "maelstrom-node").ok()?;
        let command = self.lab.host(host).ok()?.command(program);
        let finished = command.args(["status", "--json"]).run(BOUND).ok()?;
        let mut report: serde_json::Value = serde_json::from_str(&finished.stdout).ok()?;
        Some(report["mesh"].take()).filter(|mesh| mesh.is_object())
    }

    /// How many other members the node on a host sees.
    pub fn members(&self, host: u8) -> usize {
        let status = self.status(host);
        let members = status.as_ref().and_then(|s| s["members"].as_array());
        members.map_or(0, Vec::len)
    }

    /// Waits until the nodes on these hosts see as many other members each. Returns how long that
    /// took.
    ///
    /// # Errors
    ///
    /// They do not after `bound`.
    pub fn wait_members(
        &self,
        hosts: &[u8],
        others: usize,
        bound: Duration,
    ) -> Result<Duration, LabError> {
        let start = Instant::now();
        let mut waiting: Vec<u8> = hosts.to_vec();
        loop {
            waiting.retain(|host| self.members(*host) != others);
            if waiting.is_empty() {
                return Ok(start.elapsed());
            }
            if start.elapsed() > bound {
                let doing = format!("waiting for {others} members as seen by {waiting:?}");
                let error = io::Error::new(io::ErrorKind::TimedOut, format!("not in {bound:?}"));
                return Err(LabError::step(doing)(error));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `maelstrom-run --mesh` on a host, with these jobs as its input.
    ///
    /// # Errors
    ///
    /// The program is not built, the jobs cannot be written, or there is no such host.
    pub fn client(&self, host: u8, slots: u16, jobs: &str) -> Result<Command, LabError> {
        Ok(self.local_client(host, slots, jobs)?.arg("--mesh"))
    }

    /// `maelstrom-run` on a host without the mesh.
    ///
    /// # Errors
    ///
    /// As [`Self::client`].
    pub fn local_client(&self, host: u8, slots: u16, jobs: &str) -> Result<Command, LabError> {
        let program = program("maelstrom-run", "maelstrom-run")?;
        let host = self.lab.host(host)?;
        let input = host.next_log("jobs").with_extension("json");
        let failed = LabError::step(format!("writing {}", input.display()));
        fs::write(&input, jobs).map_err(failed)?;
        let command = host.command(program).stdin(input);
        Ok(command.args(["--slots", &slots.to_string()]))
    }

    /// Processes of a host with this word on their command line.
    ///
    /// # Errors
    ///
    /// The host is down.
    pub fn processes(&self, host: u8, word: &str) -> Result<usize, LabError> {
        let script = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done 2>/dev/null";
        let shell = self.lab.host(host)?.command("sh");
        let Finished { stdout, .. } = shell.args(["-c", script]).run(BOUND)?;
        Ok(stdout.lines().filter(|line| line.contains(word)).count())
    }

    /// Waits until every host that is up runs no job and its node, if it has one, says that all
    /// its slots are free.
    ///
    /// # Errors
    ///
    /// Words for what is left after `bound`.
    pub fn wait_idle(&self, bound: Duration) -> Result<Duration, String> {
        Self::wait_for_none(bound, || self.busy())
    }

    /// Waits until every host that is up is idle, and holds nothing but what its node needs: no
    /// container, no process that is not the node's, no mount, no control group.
    ///
    /// # Errors
    ///
    /// Words for what is left after `bound`.
    pub fn wait_nothing_left(&self, bound: Duration) -> Result<Duration, String> {
        Self::wait_for_none(bound, || {
            let mut found = self.busy();
            for host in self.lab.hosts().iter().filter(|host| host.is_up()) {
                let number = host.number();
                match left::Seen::on(host, BOUND) {
                    Ok(seen) => {
                        let node = self.daemons().get(&number).map(Process::pid);
                        let left = seen.left(&self.bare, node);
                        found.extend(left.iter().map(|left| format!("host {number} has {left}")));
                    }
                    Err(error) => found.push(error.to_string()),
                }
            }
            found
        })
    }

    /// Waits until none is found. Returns how long that took, or what is found after `bound`.
    fn wait_for_none(bound: Duration, find: impl Fn() -> Vec<String>) -> Result<Duration, String> {
        let start = Instant::now();
        loop {
            let busy = find();
            if busy.is_empty() {
                return Ok(start.elapsed());
            }
            if start.elapsed() > bound {
                return Err(busy.join("; "));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What is busy, all hosts asked at a time: how long they take to be idle is measured so.
    fn busy(&self) -> Vec<String> {
        let up = self.lab.hosts().iter().filter(|host| host.is_up());
        std::thread::scope(|scope| {
            let asked: Vec<_> = up
                .map(|host| scope.spawn(|| self.busy_on(host.number())))
                .collect();
            let answers = asked.into_iter().map(|thread| thread.join());
            answers
                .flat_map(|answer| answer.unwrap_or_else(|_| vec!["asking panicked".to_owned()]))
                .collect()
        })
    }

    fn busy_on(&self, host: u8) -> Vec<String> {
        let mut busy = Vec::new();
        match self.processes(host, jobs::MARK) {
            Ok(0) => {}
            Ok(count) => busy.push(format!("host {host} has {count} processes of jobs")),
            Err(error) => busy.push(error.to_string()),
        }
        let Some(status) = self.has_node(host).then(|| self.status(host)).flatten() else {
            return busy;
        };
        let running = status["running"].as_array().map_or(0, Vec::len);
        let (free, slots) = (&status["this"]["slots_free"], &status["this"]["slots"]);
        if running > 0 || free != slots {
            busy.push(format!(
                "the node on host {host} runs {running} jobs, {free} of {slots} slots free"
            ));
        }
        busy
    }
}
