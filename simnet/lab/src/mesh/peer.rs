//! Maelstrom 0.14's broker and workers on the hosts of a lab, to measure beside.

use super::{BOUND, Mesh};
use crate::{Command, LabError, Process};
use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process,
    time::{Duration, Instant},
};

const VERSION: &str = "0.14";
const PORT: u16 = 9000;

/// Where its programs are.
#[derive(Debug)]
pub struct Programs {
    broker: PathBuf,
    worker: PathBuf,
    run: PathBuf,
}

impl Programs {
    /// Looks in the directory that `MAELSTROM_BENCH_PEERS` names, then in the search path.
    ///
    /// # Errors
    ///
    /// A sentence that says which program is missing and how to install it.
    pub fn find() -> Result<Self, String> {
        let find = |name: &str| {
            let found = directories().into_iter().map(|d| d.join(name));
            found.into_iter().find(|file| is_it(file)).ok_or_else(|| {
                format!(
                    "{name} {VERSION} was not found, and is left out: \
                     cargo install --locked --root PEERS {name}@{VERSION}.0, \
                     and MAELSTROM_BENCH_PEERS=PEERS/bin"
                )
            })
        };
        Ok(Self {
            broker: find("maelstrom-broker")?,
            worker: find("maelstrom-worker")?,
            run: find("maelstrom-run")?,
        })
    }
}

fn directories() -> Vec<PathBuf> {
    let peers = env::var_os("MAELSTROM_BENCH_PEERS").map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    peers.into_iter().chain(env::split_paths(&path)).collect()
}

/// Whether this is the program of that version: this project's have the same names.
fn is_it(file: &Path) -> bool {
    let asked = process::Command::new(file).arg("--version").output();
    asked.is_ok_and(|told| String::from_utf8_lossy(&told.stdout).contains(VERSION))
}

/// A broker on host 1, where its clients are too.
#[derive(Debug)]
pub struct Cluster<'a> {
    mesh: &'a Mesh,
    programs: Programs,
    _broker: Process,
}

impl<'a> Cluster<'a> {
    /// Starts the broker.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn start(mesh: &'a Mesh, programs: Programs) -> Result<Self, LabError> {
        let broker = quiet(mesh.lab().host(1)?.command(&programs.broker))
            .args(["--port", &PORT.to_string(), "--cache-size", "20 GB"])
            .spawn()?;
        let cluster = Self {
            mesh,
            programs,
            _broker: broker,
        };
        cluster.wait(|| cluster.listens())?;
        Ok(cluster)
    }

    fn listens(&self) -> bool {
        let table = "cat /proc/net/tcp /proc/net/tcp6";
        let shell = self.mesh.lab().on(1, "sh").args(["-c", table]);
        let wanted = format!(":{PORT:04X} ");
        shell.run(BOUND).is_ok_and(|f| f.stdout.contains(&wanted))
    }

    /// Starts a worker on a host. Its cache is empty.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn worker(&self, host: u8, slots: u16) -> Result<Process, LabError> {
        let host = self.mesh.lab().host(host)?;
        let cache = host.home().join("worker-cache");
        let _ = fs::remove_dir_all(&cache);
        let worker = quiet(host.command(&self.programs.worker))
            .args(["--broker", &format!("10.77.0.1:{PORT}")])
            .args(["--slots", &slots.to_string(), "--cache-size", "20 GB"])
            .args(["--cache-root".into(), cache.clone().into_os_string()])
            .spawn()?;
        // It locks its cache before it connects.
        self.wait(|| cache.join("artifacts/lock").exists() || worker.try_wait().is_some())?;
        if worker.try_wait().is_some() {
            let words = io::Error::other(worker.stderr());
            return Err(LabError::step("starting a worker")(words));
        }
        Ok(worker)
    }

    fn wait(&self, done: impl Fn() -> bool) -> Result<(), LabError> {
        let deadline = Instant::now() + BOUND;
        while !done() {
            if Instant::now() > deadline {
                let error = io::Error::from(io::ErrorKind::TimedOut);
                return Err(LabError::step("starting the broker and its workers")(error));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// `maelstrom-run` on host 1 with these jobs, through the broker.
    ///
    /// # Errors
    ///
    /// The jobs cannot be written.
    pub fn client(&self, jobs: &str) -> Result<Command, LabError> {
        let host = self.mesh.lab().host(1)?;
        let input = host.next_log("jobs").with_extension("json");
        let failed = LabError::step(format!("writing {}", input.display()));
        fs::write(&input, jobs).map_err(failed)?;
        Ok(quiet(host.command(&self.programs.run))
            .stdin(input)
            .args(["--broker", &format!("10.77.0.1:{PORT}")]))
    }
}

fn quiet(command: Command) -> Command {
    command.args(["--config-file", "-", "--log-level", "error"])
}
