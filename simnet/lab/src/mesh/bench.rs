//! What the mesh is measured by. Hosts share the processors of one machine, so what is shown is
//! what the mesh itself costs: sleeping jobs, empty jobs, bytes.

mod layer;

use super::{
    BOUND, Mesh,
    peer::{Cluster, Programs},
};
use crate::{LabConfig, LabError, Process};
pub use layer::layer;
use std::{
    io::{self, Read as _, Write as _},
    time::{Duration, Instant},
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
    let input = same_jobs(r#"{"programs": ["sleep"]}"#, &job, count);
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

/// Jobs that do nothing: through the nodes of a mesh, by the client alone, and, where its programs
/// are installed, through the broker of Maelstrom 0.14 with a worker on every host. After one run
/// each that is not measured they take turns; figures are medians.
///
/// # Errors
///
/// The lab, a program, or a job fails.
pub fn empty(hosts: u8, slots: u16, count: usize, rounds: usize) -> Result<Vec<Figure>, LabError> {
    let mesh = Mesh::start(&LabConfig::new(hosts + 1))?;
    let nodes: Vec<u8> = (2..=hosts + 1).collect();
    for host in &nodes {
        mesh.start_node(*host, slots, &[])?;
    }
    mesh.wait_members(&nodes, nodes.len() - 1, BOUND)?;
    let program = find_in_path("true")?;
    let input = same_jobs(
        &format!(r#"{{"paths": ["{program}"]}}, {{"shared_library_dependencies": ["{program}"]}}"#),
        &format!(r#"{{"parent": "base", "program": "{program}"}}"#),
        count,
    );
    let cluster = match Programs::find() {
        Ok(programs) => Some(Cluster::start(&mesh, programs)?),
        Err(missing) => {
            eprintln!("{missing}");
            None
        }
    };
    let workers = |host| cluster.as_ref().map(|c| c.worker(host, slots)).transpose();
    let _workers = (1..=hosts + 1)
        .map(workers)
        .collect::<Result<Vec<_>, _>>()?;

    let (mut meshed, mut alone, mut brokered) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..=rounds {
        meshed.push(expect_exit(&mesh.client(1, slots, &input)?.spawn()?)?);
        alone.push(expect_exit(&mesh.local_client(1, slots, &input)?.spawn()?)?);
        if let Some(cluster) = &cluster {
            brokered.push(expect_exit(&cluster.client(&input)?.spawn()?)?);
        }
    }
    let mut figures = Vec::new();
    let mesh = measured("mesh", &mut meshed, &mut figures);
    let alone = measured("standalone", &mut alone, &mut figures);
    figures.push(figure("mesh / standalone", mesh / alone, "×"));
    if !brokered.is_empty() {
        let broker = measured("Maelstrom 0.14's broker", &mut brokered, &mut figures);
        figures.push(figure("mesh / broker", mesh / broker, "×"));
    }
    Ok(figures)
}

/// The median in seconds of all but the first, which is added to the figures with its range.
fn measured(name: &str, durations: &mut Vec<Duration>, figures: &mut Vec<Figure>) -> f64 {
    durations.remove(0);
    durations.sort();
    let Some((first, last)) = durations.first().zip(durations.last()) else {
        return f64::NAN;
    };
    let median = durations[durations.len() / 2];
    figures.push(seconds(name, median));
    figures.push(seconds("    fastest", *first));
    figures.push(seconds("    slowest", *last));
    median.as_secs_f64()
}

fn find_in_path(name: &str) -> Result<String, LabError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|directory| directory.join(name));
    let file = found.into_iter().find(|file| file.is_file());
    let file = file.and_then(|file| Some(file.to_str()?.to_owned()));
    file.ok_or_else(|| {
        let failed = LabError::step(format!("looking for the program {name}"));
        failed(io::ErrorKind::NotFound.into())
    })
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

/// The same job many times, in a container of these layers.
fn same_jobs(layers: &str, job: &str, count: usize) -> String {
    let mut input = format!(
        r#"{{"containers": {{"base": {{"layers": [{layers}],
            "environment": {{"PATH": "$env{{PATH}}"}}}}}}}}"#
    );
    input.push('\n');
    for _ in 0..count {
        input.push_str(job);
        input.push('\n');
    }
    input
}

/// So many bytes over one connection from host 1 to host 2.
fn raw_tcp(mesh: &Mesh, bytes: u64) -> Result<Duration, LabError> {
    let lab = crate::program("simnet", "lab")?;
    let to = |host| -> Result<_, LabError> { Ok(mesh.lab().host(host)?.command(&lab)) };
    let sink = to(2)?
        .args(["bench", "tcp", "--listen", "10.77.0.2:9100"])
        .spawn()?;
    let size = (bytes >> 20).to_string();
    let source = to(1)?.args([
        "bench",
        "tcp",
        "--connect",
        "10.77.0.2:9100",
        "--size",
        &size,
    ]);
    let source = source.spawn()?;
    expect_exit(&source)?;
    expect_exit(&sink)?;
    let told = source.stdout();
    let time = told.split_whitespace().find_map(|word| word.parse().ok());
    time.map(Duration::from_secs_f64).ok_or_else(|| {
        let failed = LabError::step("measuring raw TCP");
        failed(io::Error::other(told))
    })
}

/// Takes all that is sent over one connection.
///
/// # Errors
///
/// The address cannot be listened on, or the connection breaks.
pub fn tcp_sink(listen: &str) -> io::Result<()> {
    let (mut stream, _) = std::net::TcpListener::bind(listen)?.accept()?;
    let mut buffer = vec![0; 1 << 20];
    while stream.read(&mut buffer)? > 0 {}
    // The other side waits for this: all has arrived.
    stream.write_all(&[1])
}

/// Sends so many bytes over one connection. Returns how long it took until all had arrived.
///
/// # Errors
///
/// Nobody listens there within [`BOUND`], or the connection breaks.
pub fn tcp_source(connect: &str, bytes: u64) -> io::Result<Duration> {
    let deadline = Instant::now() + BOUND;
    let mut stream = loop {
        match std::net::TcpStream::connect(connect) {
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
            Ok(stream) => break stream,
        }
    };
    let buffer = vec![7; 1 << 20];
    let start = Instant::now();
    for _ in 0..bytes >> 20 {
        stream.write_all(&buffer)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_exact(&mut [0])?;
    Ok(start.elapsed())
}
