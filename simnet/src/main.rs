//! The simulator's command line.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode, time::Instant};

use anyhow::Context;
use clap::{Parser, ValueHint};
use simnet::scenarios::{ALL, Options, Scenario};

/// Simulates a mesh of thousands of nodes, with the very cores that the real nodes run.
///
/// Time is virtual and everything that is left to chance follows from the seed, so that a run
/// can be repeated exactly. A run in which a promise is broken prints the command that repeats
/// it and the last events before.
#[derive(Parser)]
#[command(name = "simnet", version, after_help = scenario_help())]
struct Arguments {
    /// What to simulate; see below.
    #[arg(value_parser = scenario_names())]
    scenario: String,

    /// The seed that everything follows from.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// How many seeds to run, counting up from the first (`faults`).
    #[arg(long)]
    seeds: Option<u64>,

    /// How many nodes there are; each scenario has a number of its own.
    #[arg(long)]
    nodes: Option<usize>,

    /// How many jobs there are; each scenario has a number of its own.
    #[arg(long)]
    jobs: Option<usize>,

    /// A file of recorded durations of jobs, in seconds, one a line; without it they are drawn
    /// from a distribution with a heavy tail and a median of 50 ms.
    #[arg(long, value_hint = ValueHint::FilePath)]
    durations: Option<PathBuf>,

    /// Which share of the jobs has never run before, so that nothing is known of how long they
    /// take.
    #[arg(long, default_value_t = 0.1, value_name = "SHARE", value_parser = share)]
    unknown: f64,

    /// What each node's link carries in each direction, in megabits a second.
    #[arg(long, default_value_t = 1_000, value_name = "MBITS")]
    link_mbits: u64,

    /// On how many threads to run seeds (`faults`); each run has a thread of its own.
    #[arg(long, default_value_t = 1)]
    threads: usize,

    /// Where to put plots as SVG.
    #[arg(long, value_hint = ValueHint::DirPath, value_name = "DIRECTORY")]
    plots: Option<PathBuf>,

    /// Don't show progress.
    #[arg(long)]
    quiet: bool,
}

fn scenario_names() -> Vec<&'static str> {
    ALL.iter().map(|scenario| scenario.name).collect()
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is a number from 0 to 1, say 0.1".to_owned()),
    }
}

fn scenario_help() -> String {
    let mut help = "Scenarios:\n".to_owned();
    for Scenario { name, about, .. } in ALL {
        help += &format!("  {name:<12} {about}\n");
    }
    help + "\nExamples:\n  \
        simnet faults --seeds 300\n  \
        simnet makespan --nodes 1000 --plots docs\n"
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("simnet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let scenario = ALL
        .iter()
        .find(|scenario| scenario.name == arguments.scenario)
        .context("the scenario was checked by the command line")?;
    let options = Options {
        seed: arguments.seed,
        seeds: arguments.seeds,
        nodes: arguments.nodes,
        jobs: arguments.jobs,
        durations: arguments.durations,
        unknown: arguments.unknown,
        link_bytes_per_second: arguments.link_mbits.max(1) * 125_000,
        threads: arguments.threads,
        progress: !arguments.quiet && std::io::stderr().is_terminal(),
    };
    let begun = Instant::now();
    let report = (scenario.run)(&options)?;
    println!("{report}");
    eprintln!("took {:.1} s", begun.elapsed().as_secs_f64());
    if let Some(directory) = arguments.plots {
        for (name, svg) in report.plots() {
            let path = directory.join(format!("sim-{name}.svg"));
            std::fs::write(&path, svg).with_context(|| format!("writing {}", path.display()))?;
            eprintln!("wrote {}", path.display());
        }
    }
    Ok(())
}
