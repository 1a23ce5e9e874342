//! What the mesh is measured by. Hosts share the processors of one machine, so what is shown is
//! what the mesh itself costs: sleeping jobs, empty jobs, bytes.

use super::{BOUND, Mesh, jobs};
use crate::{LabConfig, LabError, Process};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::Path,
    time::Duration,
};

/// How long a measured run may take.
const RUN_BOUND: Duration = Duration::from_secs(600);

/// A figure with its name.
#[derive(Debug, Clone)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
}

fn figure(name: impl Into<String>, value: f64, unit: &'static str) -> Figure {
    Figure {
        name: name.into(),
        value,
        unit,
    }
}

fn seconds(name: impl Into<String>, duration: Duration) -> Figure {
    figure(name, duration.as_secs_f64(), "s")
}

/// Sleeping jobs on hosts of a few slots each. The client is on the first host, which has no node
/// of its own; its slots count.
///
/// # Errors
///
/// The lab, a program, or a job fails.
pub fn sleep(
    hosts: u8,
    slots: u16,
    count: usize,
    duration: Duration,
) -> Result<Vec<Figure>, LabError> {
    let mesh = Mesh::start(&LabConfig::new(hosts))?;
    let nodes: Vec<u8> = (2..=hosts).collect();
    for host in &nodes {
        mesh.start_node(*host, slots, &[])?;
    }
    mesh.wait_members(&nodes, nodes.len() - 1, BOUND)?;
    let job = format!(
        r#"{{"parent": "base", "program": "sleep", "arguments": ["{}"]}}"#,
        duration.as_secs_f64()
    );
    let input = same_jobs("sleep", &job, count);
    // Twice: the first makes the layers, and shows what that costs.
    let first = expect_exit(&mesh.client(1, slots, &input)?.spawn()?)?;
    let second = expect_exit(&mesh.client(1, slots, &input)?.spawn()?)?;
    let all_slots = u32::from(hosts) * u32::from(slots);
    let ideal = duration * (count as u32).div_ceil(all_slots);
    Ok(vec![
        seconds("ideal", ideal),
        seconds("cold", first),
        seconds("warm", second),
        figure(
            "warm / ideal",
            second.as_secs_f64() / ideal.as_secs_f64(),
            "×",
        ),
    ])
}

/// Jobs that do nothing, through the nodes of a mesh and by the client alone.
///
/// # Errors
///
/// The lab, a program, or a job fails.
pub fn empty(hosts: u8, slots: u16, count: usize) -> Result<Vec<Figure>, LabError> {
    let mesh = Mesh::start(&LabConfig::new(hosts + 1))?;
    let nodes: Vec<u8> = (2..=hosts + 1).collect();
    for host in &nodes {
        mesh.start_node(*host, slots, &[])?;
    }
    mesh.wait_members(&nodes, nodes.len() - 1, BOUND)?;
    let input = same_jobs("true", r#"{"parent": "base", "program": "true"}"#, count);
    let through = |mesh: &Mesh| expect_exit(&mesh.client(1, slots, &input)?.spawn()?);
    through(&mesh)?;
    let meshed = through(&mesh)?;
    let alone = |mesh: &Mesh| {
        let client = mesh.local_client(1, slots, &input)?.spawn()?;
        expect_exit(&client)
    };
    alone(&mesh)?;
    let standalone = alone(&mesh)?;
    Ok(vec![
        seconds("mesh", meshed),
        seconds("standalone", standalone),
        figure(
            "mesh / standalone",
            meshed.as_secs_f64() / standalone.as_secs_f64(),
            "×",
        ),
    ])
}

fn expect_exit(client: &Process) -> Result<Duration, LabError> {
    let exit = client.wait(RUN_BOUND)?;
    let duration = client.started().elapsed();
    if exit.success() {
        return Ok(duration);
    }
    let words = format!("{exit:?}\n{}", client.stderr());
    Err(LabError::step("running the measured jobs")(
        io::Error::other(words),
    ))
}

/// The same job many times, in a container with one program.
fn same_jobs(program: &str, job: &str, count: usize) -> String {
    let mut input = format!(
        r#"{{"containers": {{"base": {{"layers": [{{"programs": ["{program}"]}}],
            "environment": {{"PATH": "$env{{PATH}}"}}}}}}}}"#
    );
    input.push('\n');
    for _ in 0..count {
        input.push_str(job);
        input.push('\n');
    }
    input
}

/// One large layer from the client's host to all others.
///
/// # Errors
///
/// The lab, a program, or a job fails.
pub fn layer(hosts: u8, bytes: u64) -> Result<Vec<Figure>, LabError> {
    let mesh = Mesh::start(&LabConfig::new(hosts + 1))?;
    let nodes: Vec<u8> = (2..=hosts + 1).collect();
    let large = ["--cache-size", "20 GB"];
    for host in &nodes {
        mesh.start_node(*host, 1, &large)?;
    }
    mesh.wait_members(&nodes, nodes.len() - 1, BOUND)?;
    let directory = mesh.lab().directory().join("layer");
    make_random_file(&directory.join("random"), bytes)?;
    // Longer than any transfer: so each host gets one.
    let count = usize::from(hosts) + 1;
    let input = layer_jobs(count);
    let before = sent_bytes(&mesh, 1);
    let client = mesh.client(1, 1, &input)?.args(large);
    let client = client.current_dir(directory).spawn()?;
    let mut arrived = Vec::new();
    while arrived.len() < nodes.len() {
        for host in &nodes {
            if !arrived.iter().any(|(known, _)| known == host)
                && mesh.processes(*host, jobs::MARK)? > 0
            {
                arrived.push((*host, client.started().elapsed()));
            }
        }
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
    let sent = sent_bytes(&mesh, 1).saturating_sub(before);
    client.signal(crate::Signal::INT)?;
    let last = arrived.last().map_or(Duration::ZERO, |(_, time)| *time);
    let first = arrived.first().map_or(Duration::ZERO, |(_, time)| *time);
    let rate = |duration: Duration, copies: usize| {
        bytes as f64 * copies as f64 / duration.as_secs_f64() / 1e6
    };
    Ok(vec![
        seconds("first host has it", first),
        seconds("all hosts have it", last),
        figure("the origin sends", sent as f64 / bytes as f64, "copies"),
        figure("all together", rate(last, nodes.len()), "MB/s"),
    ])
}

fn layer_jobs(count: usize) -> String {
    let mut input = String::from(
        r#"{"containers": {"base": {
            "layers": [{"programs": ["sh", "sleep"]}, {"paths": ["random"]}],
            "environment": {"PATH": "$env{PATH}"}}}}"#,
    );
    input.push('\n');
    for _ in 0..count {
        let _ = writeln!(
            input,
            r#"{{"parent": "base", "program": "sh", "arguments": ["-c", "sleep 600; :", "{}"]}}"#,
            jobs::MARK
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
