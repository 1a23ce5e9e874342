//! Measures what pulling a layer costs:
//! `cargo run --release -p maelstrom-layers --example measure_layers [-- MIB [HOSTS]]`.
//!
//! All ends are in one process on loopback and share its machine's cores; files are in a
//! temporary directory below `TMPDIR`. Before each measurement as much memory as it will fill
//! with files is filled and freed again: on a virtual machine the first touch of a page can cost
//! more than everything that is measured here.

#[path = "../tests/mesh/host.rs"]
#[allow(dead_code)]
mod host;

use host::{Host, Post, acquaint};
use std::{
    env,
    io::Write as _,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const CACHE_BYTES: u64 = 100 << 30;

/// Wall-clock time and the processor time of the whole process, both since `start`.
struct Clock {
    start: Instant,
    cpu: Duration,
}

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("the process's times");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split(' ').collect();
    let ticks: u64 = fields[12..14]
        .iter()
        .flat_map(|field| field.parse::<u64>())
        .sum();
    Duration::from_millis(ticks * 10)
}

/// Fills and frees the page cache.
fn warm(directory: &std::path::Path, bytes: u64) {
    let path = directory.join("warm");
    let part = vec![0; 1 << 20];
    let mut file = std::fs::File::create(&path).expect("a file");
    for _ in 0..bytes.div_ceil(1 << 20) {
        file.write_all(&part).expect("room on the disk");
    }
    drop(file);
    std::fs::remove_file(&path).expect("it goes");
}

impl Clock {
    fn start() -> Clock {
        let start = Instant::now();
        Clock { start, cpu: cpu() }
    }

    fn report(&self, what: &str, bytes: u64, note: &str) {
        let seconds = self.start.elapsed().as_secs_f64();
        let rate = bytes as f64 / 1e6 / seconds;
        let cpu = (cpu() - self.cpu).as_secs_f64();
        println!("| {what} | {seconds:.2} | {rate:.0} | {cpu:.1} | {note} |");
    }
}

#[tokio::main]
async fn main() {
    let mut arguments = env::args()
        .skip(1)
        .filter_map(|argument| argument.parse().ok());
    let bytes = arguments.next().unwrap_or(1024) << 20;
    let hosts = arguments.next().unwrap_or(8) as u8;
    let only = env::var("ONLY").ok();
    let wanted = |what: &str| only.as_deref().is_none_or(|only| only == what);
    println!("| {} MiB | s | MB/s | CPU s, all ends | |", bytes >> 20);
    println!("|---|---|---|---|---|");
    if wanted("tcp") {
        tcp(bytes).await;
    }
    if wanted("pull") {
        pull(bytes).await;
    }
    if wanted("small") {
        small().await;
    }
    if wanted("swarm") {
        swarm(bytes, hosts).await;
    }
}

async fn tcp(bytes: u64) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = listener.local_addr().expect("its address");
    let clock = Clock::start();
    let sender = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let part = vec![7; 256 << 10];
        for _ in 0..bytes / part.len() as u64 {
            stream.write_all(&part).await.expect("it takes it");
        }
    });
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let mut buffer = vec![0; 256 << 10];
    while stream.read(&mut buffer).await.expect("it comes") > 0 {}
    sender.await.expect("it sends");
    clock.report(
        "raw TCP, memory to memory",
        bytes,
        "no encryption, no check",
    );
}

async fn hosts(root: &std::path::Path, count: u8) -> Vec<Host> {
    let post = Post::default();
    let mut hosts = Vec::new();
    for seed in 1..=count {
        hosts.push(Host::start(root, seed, &post, CACHE_BYTES).await);
    }
    acquaint(&hosts);
    hosts
}

async fn pull(bytes: u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let hosts = hosts(dir.path(), 3).await;
    let layer = hosts[0].layer(1, bytes as usize, 1);
    hosts[0].layers.keep_offering(layer);
    let origin = hosts[0].id();
    warm(dir.path(), bytes + bytes / 4);
    let clock = Clock::start();
    let pulled = hosts[1].layers.fetch(layer, origin, &[]).await;
    clock.report(
        "a layer of one file, store to store",
        bytes,
        "with the origin's first reading of it for its hash tree",
    );
    pulled.expect("the layer");
    warm(dir.path(), bytes + bytes / 4);
    let clock = Clock::start();
    let pulled = hosts[2].layers.fetch(layer, origin, &[]).await;
    clock.report("the same by another host, from the same origin", bytes, "");
    pulled.expect("the layer");
    for host in hosts {
        host.stop().await;
    }
}

async fn small() {
    let dir = tempfile::tempdir().expect("a directory");
    let hosts = hosts(dir.path(), 2).await;
    let layer = hosts[0].layer(10_000, 4096, 1);
    hosts[0].layers.keep_offering(layer);
    let origin = hosts[0].id();
    warm(dir.path(), 200 << 20);
    let clock = Clock::start();
    let pulled = hosts[1].layers.fetch(layer, origin, &[]).await;
    clock.report("10,000 files of 4 KB, store to store", 10_000 << 12, "");
    pulled.expect("the layer");
    for host in hosts {
        host.stop().await;
    }
}

async fn swarm(bytes: u64, count: u8) {
    let dir = tempfile::tempdir().expect("a directory");
    let hosts = hosts(dir.path(), count + 1).await;
    let layer = hosts[0].layer(1, bytes as usize, 1);
    hosts[0].layers.keep_offering(layer);
    let origin = hosts[0].id();
    warm(dir.path(), bytes * u64::from(count) * 9 / 8);
    let clock = Clock::start();
    let pulls = hosts[1..].iter().map(|host| {
        let layers = host.layers.clone();
        tokio::spawn(async move { layers.fetch(layer, origin, &[]).await.map(drop) })
    });
    let pulls: Vec<_> = pulls.collect();
    for pull in pulls {
        pull.await.expect("it runs").expect("the layer");
    }
    let copies = hosts[0].layers.stats().sent_bytes as f64 / bytes as f64;
    clock.report(
        &format!("the same layer to {count} hosts at once"),
        bytes * u64::from(count),
        &format!("the origin sent {copies:.2} copies"),
    );
    for host in hosts {
        host.stop().await;
    }
}
