//! A large layer on its way from the client's host to others.

use super::{Figure, RUN_BOUND, expect_exit, figure, find_in_path, measured, raw_tcp, seconds};
use crate::{
    LabConfig, LabError, Signal,
    mesh::{
        BOUND, Mesh, jobs,
        peer::{Cluster, Programs},
    },
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

/// What nodes and clients are started with, so that the layer has room.
const LARGE: [&str; 2] = ["--cache-size", "20 GB"];

/// How many jobs there are for each slot. A node lends a job where others would have to pull its
/// layers only if pulling, at 100 MB/s, is expected to take less time than the queue.
const JOBS_EACH: usize = 64;

/// One large layer from the client's host to all others: after the client has made it, from the
/// start of a client that finds it in its store until the others run a job with it. Beside it raw
/// TCP between two hosts.
///
/// With one other host it is sent so many times, in turns with Maelstrom 0.14's broker if that is
/// installed, besides once where nobody holds it; figures are medians. The receiving host begins
/// with an empty cache each time.
///
/// # Errors
///
/// The lab, a program, or a job fails.
pub fn layer(hosts: u8, bytes: u64, rounds: usize) -> Result<Vec<Figure>, LabError> {
    let mesh = Mesh::start(&LabConfig::new(hosts + 1))?;
    let run = Run {
        directory: mesh.lab().directory().join("layer"),
        nodes: (2..=hosts + 1).collect(),
        mesh,
        bytes,
    };
    make_random_file(&run.directory.join("random"), bytes)?;
    let mut figures = vec![seconds(
        "raw TCP, memory to memory",
        raw_tcp(&run.mesh, bytes)?,
    )];
    if hosts == 1 {
        run.in_turns(rounds, &mut figures)?;
    } else {
        figures.push(seconds("the client makes the layer", run.make()?));
        let sent = run.send()?;
        let rate = bytes as f64 * f64::from(hosts) / sent.last.as_secs_f64() / 1e6;
        figures.extend([
            seconds("first host has it", sent.first),
            seconds("all hosts have it", sent.last),
            figure("the origin sends", sent.copies, "copies"),
            figure("all together", rate, "MB/s"),
        ]);
    }
    Ok(figures)
}

/// What is the same for each time that the layer is sent.
struct Run {
    mesh: Mesh,
    directory: PathBuf,
    /// All hosts but the client's.
    nodes: Vec<u8>,
    bytes: u64,
}

/// How sending it went.
struct Sent {
    /// When the first host ran a job, since the client's start.
    first: Duration,
    /// When all did.
    last: Duration,
    /// What left the client's host, in lengths of the layer.
    copies: f64,
}

impl Run {
    fn in_turns(&self, rounds: usize, figures: &mut Vec<Figure>) -> Result<(), LabError> {
        let cluster = match Programs::find() {
            Ok(programs) => Some(Cluster::start(&self.mesh, programs)?),
            Err(missing) => {
                eprintln!("{missing}");
                None
            }
        };
        figures.push(seconds("nobody holds it", self.send()?.last));
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for round in 0..=rounds {
            if round > 0 {
                ours.push(self.send()?.last);
            }
            if let Some(cluster) = &cluster {
                let sent = self.send_by(cluster)?;
                match round {
                    0 => figures.push(seconds("0.14: nobody holds it", sent)),
                    _ => theirs.push(sent),
                }
            }
        }
        // The first of each counts here.
        ours.insert(0, Duration::ZERO);
        theirs.insert(0, Duration::ZERO);
        measured("the client holds it", &mut ours, figures);
        if cluster.is_some() {
            measured("0.14: its broker holds it", &mut theirs, figures);
        }
        Ok(())
    }

    /// Has the client make the layer. Returns how long that took.
    fn make(&self) -> Result<Duration, LabError> {
        let client = self.mesh.local_client(1, 1, &job_that_ends())?;
        let client = client.args(LARGE).current_dir(&self.directory);
        expect_exit(&client.spawn()?)
    }

    /// Has the client send the layer to all nodes, which are started for that and stopped.
    fn send(&self) -> Result<Sent, LabError> {
        let mesh = &self.mesh;
        for host in &self.nodes {
            mesh.start_node(*host, 1, &LARGE)?;
        }
        mesh.wait_members(&self.nodes, self.nodes.len() - 1, BOUND)?;
        self.warm()?;
        let before = sent_bytes(mesh, 1);
        // Longer than any transfer, so each host gets one; and so many that lending them is
        // worth the transfer.
        let client = mesh.client(1, 1, &long_jobs(JOBS_EACH * (self.nodes.len() + 1)))?;
        let client = client.args(LARGE).current_dir(&self.directory).spawn()?;
        let mut arrived = Vec::new();
        while arrived.len() < self.nodes.len() {
            // One of them runs on the client's own slot.
            let running = running_jobs().saturating_sub(1);
            arrived.resize(running.max(arrived.len()), client.started().elapsed());
            if client.started().elapsed() > RUN_BOUND || client.try_wait().is_some() {
                let words = format!(
                    "only {} hosts ran a job\n{}",
                    arrived.len(),
                    client.stderr()
                );
                return Err(LabError::step("sending a layer to all hosts")(
                    io::Error::other(words),
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let sent = sent_bytes(mesh, 1).saturating_sub(before);
        client.signal(Signal::INT)?;
        client.wait(BOUND)?;
        for host in &self.nodes {
            if let Some(node) = mesh.take_node(*host) {
                node.signal(Signal::TERM)?;
                node.wait(BOUND)?;
            }
            remove(&mesh.lab().host(*host)?.home().join(".cache"))?;
        }
        Ok(Sent {
            first: arrived.first().copied().unwrap_or_default(),
            last: arrived.last().copied().unwrap_or_default(),
            copies: sent as f64 / self.bytes as f64,
        })
    }

    /// Has Maelstrom 0.14's client run a job with the layer on a worker.
    fn send_by(&self, cluster: &Cluster<'_>) -> Result<Duration, LabError> {
        let program = find_in_path("true")?;
        let input = format!(
            r#"{{"containers": {{"base": {{"layers": [{{"paths": ["{program}", "random"]}},
                {{"shared_library_dependencies": ["{program}"]}}]}}}}}}
               {{"parent": "base", "program": "{program}"}}"#
        );
        let worker = cluster.worker(2, 1)?;
        self.warm()?;
        let client = cluster.client(&input)?.current_dir(&self.directory);
        let time = expect_exit(&client.spawn()?)?;
        worker.signal(Signal::TERM)?;
        worker.wait(BOUND)?;
        Ok(time)
    }

    /// Fills and frees as much memory as the layer will fill as files. On a virtual machine the
    /// first touch of a page can cost more than sending it, and whose turn follows one that freed
    /// some would not pay for it.
    fn warm(&self) -> Result<(), LabError> {
        let path = self.directory.join("warm");
        let bytes = (self.bytes * self.nodes.len() as u64).min(4 << 30);
        make_random_file(&path, bytes / 8 * 9)?;
        fs::remove_file(&path).map_err(LabError::step(format!("removing {}", path.display())))
    }
}

/// On the command line of each of [`long_jobs`], and of no job of another lab.
fn mark() -> String {
    format!("{}-{}", jobs::MARK, std::process::id())
}

/// How many of [`long_jobs`] run on this machine. Looking from outside of the hosts costs
/// a millisecond, programs started in them would take a good part of a processor.
fn running_jobs() -> usize {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let words = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    let mark = mark();
    let is_mark = |word: &[u8]| word == mark.as_bytes();
    let is_job = |words: &Vec<u8>| words.split(|byte| *byte == 0).any(is_mark);
    words.filter(is_job).count()
}

fn remove(directory: &Path) -> Result<(), LabError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let doing = format!("removing {}", directory.display());
            Err(LabError::step(doing)(error))
        }
        _ => Ok(()),
    }
}

const CONTAINER: &str = r#"{"containers": {"base": {
    "layers": [{"programs": ["sh", "sleep"]}, {"paths": ["random"]}],
    "environment": {"PATH": "$env{PATH}"}}}}"#;

fn job_that_ends() -> String {
    format!(r#"{CONTAINER} {{"parent": "base", "program": "sh", "arguments": ["-c", ":"]}}"#)
}

fn long_jobs(count: usize) -> String {
    let mut input = String::from(CONTAINER);
    input.push('\n');
    for _ in 0..count {
        let _ = writeln!(
            input,
            r#"{{"parent": "base", "program": "sh", "arguments": ["-c", "sleep 600; :", "{}"]}}"#,
            mark()
        );
    }
    input
}

/// Bytes that nothing compresses.
fn make_random_file(path: &Path, bytes: u64) -> Result<(), LabError> {
    let make = || -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = BufWriter::new(File::create(path)?);
        let mut random = SmallRng::seed_from_u64(bytes);
        let mut chunk = vec![0; 1 << 20];
        let mut left = bytes;
        while left > 0 {
            random.fill(&mut chunk[..]);
            let part = left.min(chunk.len() as u64);
            file.write_all(&chunk[..part as usize])?;
            left -= part;
        }
        file.flush()
    };
    make().map_err(LabError::step(format!("making {}", path.display())))
}

/// What a host's interface has sent, in bytes.
fn sent_bytes(mesh: &Mesh, host: u8) -> u64 {
    let read = || -> Option<u64> {
        let cat = mesh.lab().host(host).ok()?.command("cat");
        let table = cat.arg("/proc/net/dev").run(BOUND).ok()?.stdout;
        let line = table.lines().find_map(|l| l.trim().strip_prefix("eth0:"))?;
        line.split_whitespace().nth(8)?.parse().ok()
    };
    read().unwrap_or(0)
}
