//! `lab soak` and `lab bench`.

use crate::{
    LabError,
    mesh::{
        bench::{self, Figure},
        soak::{self, Scenario},
    },
};
use clap::{Args, Subcommand};
use std::time::{Duration, Instant};

#[derive(Debug, Args)]
pub(super) struct Soak {
    /// How many runs, each of a seed of its own.
    #[arg(long, default_value_t = 200)]
    runs: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Show every fault.
    #[arg(long, short)]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Bench {
    /// Sleeping jobs against the ideal time. The client's host is one of the hosts.
    Sleep {
        #[arg(long, default_value_t = 10)]
        nodes: u8,
        #[arg(long, default_value_t = 4)]
        slots: u16,
        #[arg(long, default_value_t = 400)]
        jobs: usize,
        /// Milliseconds of each job.
        #[arg(long, default_value_t = 500)]
        ms: u64,
    },
    /// Empty jobs through nodes, by the client alone, and by Maelstrom 0.14 if it is installed.
    Empty {
        /// Runs of each, in turns, besides the first.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        #[arg(long, default_value_t = 4)]
        nodes: u8,
        #[arg(long, default_value_t = 2)]
        slots: u16,
        #[arg(long, default_value_t = 10_000)]
        jobs: usize,
    },
    /// One layer from the client's host to all others.
    Layer {
        #[arg(long, default_value_t = 8)]
        nodes: u8,
        /// Its size in MiB.
        #[arg(long, default_value_t = 1024)]
        size: u64,
        /// With one node: how often it is sent besides the first time, in turns with Maelstrom
        /// 0.14 if it is installed.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// One end of a connection, which `layer` starts on two hosts.
    #[command(hide = true)]
    Tcp {
        #[arg(long, conflicts_with = "connect")]
        listen: Option<String>,
        #[arg(long)]
        connect: Option<String>,
        #[arg(long, default_value_t = 1024)]
        size: u64,
    },
}

pub(super) fn soak(options: &Soak) -> Result<u8, LabError> {
    let start = Instant::now();
    let mut failed = Vec::new();
    for seed in options.seed..options.seed + options.runs {
        let scenario = Scenario::of_seed(seed);
        let mut told = Vec::new();
        let verbose = options.verbose;
        let outcome = soak::run(&scenario, &mut |text| {
            if verbose {
                println!("{text}");
            }
            told.push(text.to_owned());
        })?;
        println!(
            "seed {seed}: {} hosts of {} slots, {} jobs, {} faults, {:.1} s: {}",
            scenario.hosts,
            scenario.slots,
            scenario.jobs.len(),
            scenario.faults.len(),
            outcome.duration.as_secs_f64(),
            if outcome.wrong.is_empty() {
                "right"
            } else {
                "WRONG"
            },
        );
        if !outcome.wrong.is_empty() {
            failed.push(seed);
            for line in told.iter().chain(&outcome.wrong) {
                println!("    {line}");
            }
            println!(
                "    outputs are in {}; again: lab soak --runs 1 --seed {seed} --verbose",
                outcome.directory.display()
            );
        }
    }
    println!(
        "{} runs in {:.0} s, {} wrong{}",
        options.runs,
        start.elapsed().as_secs_f64(),
        failed.len(),
        if failed.is_empty() {
            String::new()
        } else {
            format!(": seeds {failed:?}")
        },
    );
    Ok(u8::from(!failed.is_empty()))
}

pub(super) fn bench(what: Bench) -> Result<u8, LabError> {
    let figures = match what {
        Bench::Sleep {
            nodes,
            slots,
            jobs,
            ms,
        } => bench::sleep(nodes, slots, jobs, Duration::from_millis(ms))?,
        Bench::Empty {
            rounds,
            nodes,
            slots,
            jobs,
        } => bench::empty(nodes, slots, jobs, rounds)?,
        Bench::Layer {
            nodes,
            size,
            rounds,
        } => bench::layer(nodes, size << 20, rounds)?,
        Bench::Tcp {
            listen,
            connect,
            size,
        } => return tcp(listen, connect, size << 20),
    };
    for Figure { name, value, unit } in figures {
        println!("{name:<28} {value:>9.3} {unit}");
    }
    Ok(0)
}

fn tcp(listen: Option<String>, connect: Option<String>, bytes: u64) -> Result<u8, LabError> {
    let failed = LabError::step("measuring a connection");
    if let Some(address) = listen {
        bench::tcp_sink(&address).map_err(failed)?;
    } else if let Some(address) = connect {
        let time = bench::tcp_source(&address, bytes).map_err(failed)?;
        println!("{}", time.as_secs_f64());
    }
    Ok(0)
}
