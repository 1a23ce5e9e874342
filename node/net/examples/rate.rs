//! What messages cost: `cargo run --release -p maelstrom-net --example rate`.
//!
//! Two nodes in one process over loopback: the time for a small message to go and come back, one
//! at a time; how many small messages pass in a second, with the processor time for each, both
//! ends together; and the throughput of messages of 1 MB.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use maelstrom_net::{Channel, Events, MeshKey, Net, NetConfig, NetEvent, NodeKey};

#[tokio::main(worker_threads = 2)]
async fn main() {
    let mesh_key = MeshKey::generate();
    let start = async || {
        let config = NetConfig {
            node_key: NodeKey::generate(),
            mesh_key: mesh_key.clone(),
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            mdns: false,
            bulk: None,
        };
        Net::start(config)
            .await
            .expect("loopback can be listened on")
    };
    let (a, mut at_a) = start().await;
    let (b, mut at_b) = start().await;
    a.learn(b.id(), &b.addresses());

    let began = Instant::now();
    a.send(b.id(), Channel::Dispatch, Bytes::from_static(b"first"));
    receive(&mut at_b).await;
    println!("first message, with its connection: {:?}", began.elapsed());
    b.send(a.id(), Channel::Dispatch, Bytes::from_static(b"answer"));
    receive(&mut at_a).await;

    round_trips(&a, &mut at_a, &b, &mut at_b).await;
    small(&a, &b, &mut at_b).await;
    large(&a, &b, &mut at_b).await;
}

async fn receive(events: &mut Events) -> Bytes {
    loop {
        match events.recv().await {
            Some(NetEvent::Message { bytes, .. }) => return bytes,
            Some(_) => {}
            None => panic!("the node has stopped"),
        }
    }
}

async fn round_trips(a: &Net, at_a: &mut Events, b: &Net, at_b: &mut Events) {
    const COUNT: usize = 5_000;
    let message = Bytes::from(vec![1; 200]);
    let (to_a, answer) = (a.id(), message.clone());
    let replies = async {
        for _ in 0..COUNT {
            receive(at_b).await;
            b.send(to_a, Channel::Pull, answer.clone());
        }
    };
    let mut times = Vec::with_capacity(COUNT);
    let cpu = cpu_time();
    let asks = async {
        for _ in 0..COUNT {
            let began = Instant::now();
            a.send(b.id(), Channel::Dispatch, message.clone());
            receive(at_a).await;
            times.push(began.elapsed());
        }
    };
    tokio::join!(replies, asks);
    let cpu = (cpu_time() - cpu) / (2 * COUNT as u32);
    times.sort();
    println!(
        "200 bytes there and back: median {:?}, 99th percentile {:?}; {cpu:?} of processor time \
         a message",
        times[COUNT / 2],
        times[COUNT * 99 / 100],
    );
}

async fn small(a: &Net, b: &Net, at_b: &mut Events) {
    const COUNT: usize = 300_000;
    let message = Bytes::from(vec![1; 200]);
    let (cpu, began) = (cpu_time(), Instant::now());
    let sends = async {
        for n in 0..COUNT {
            a.send(b.id(), Channel::Dispatch, message.clone());
            if n % 1_000 == 999 {
                // The queue takes 64 MiB.
                while queued(a) > (8 << 20) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
    };
    let receives = async {
        for _ in 0..COUNT {
            receive(at_b).await;
        }
    };
    tokio::join!(sends, receives);
    let (elapsed, cpu) = (began.elapsed(), cpu_time() - cpu);
    println!(
        "200 bytes one way: {:.0} messages a second, {:?} of processor time a message",
        COUNT as f64 / elapsed.as_secs_f64(),
        cpu / COUNT as u32,
    );
}

async fn large(a: &Net, b: &Net, at_b: &mut Events) {
    const COUNT: usize = 512;
    let message = Bytes::from(vec![1; 1_000_000]);
    let (cpu, began) = (cpu_time(), Instant::now());
    let sends = async {
        for _ in 0..COUNT {
            // The queue takes 64 MiB.
            while queued(a) > (32 << 20) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            a.send(b.id(), Channel::Dispatch, message.clone());
        }
    };
    let receives = async {
        for _ in 0..COUNT {
            receive(at_b).await;
        }
    };
    tokio::join!(sends, receives);
    let (elapsed, cpu) = (began.elapsed(), cpu_time() - cpu);
    println!(
        "messages of 1 MB: {:.0} MB/s, {:?} of processor time each",
        COUNT as f64 / elapsed.as_secs_f64(),
        cpu / COUNT as u32,
    );
}

fn queued(net: &Net) -> usize {
    let stats = net.stats();
    let channels = stats.peers.iter().flat_map(|peer| &peer.channels);
    channels.map(|channel| channel.queued_bytes).sum()
}

/// The processor time of this process so far.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
