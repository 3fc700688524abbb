//! `petrel-sim`: runs worlds until one breaks. `make sim` calls it.
#![forbid(unsafe_code)]

use std::{
    process::{Command, ExitCode},
    time::Instant,
};

use clap::Parser;
use petrel_sim::{Event, Failure, Options, run, run_many, shrink};

/// Tries to break the control plane.
#[derive(Parser)]
#[command(name = "petrel-sim")]
struct Args {
    /// How many seeds to run, counted from --first.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Run this seed alone, and show what happened before a failure.
    #[arg(long)]
    seed: Option<u64>,
    /// The steps of each seed.
    #[arg(long, default_value_t = 10_000)]
    steps: u64,
    /// Kinds of events to leave out, separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = event)]
    without: Vec<Event>,
    /// How many of the last events before a failure to show.
    #[arg(long, default_value_t = 60)]
    trace: usize,
    /// Show how often everything happened.
    #[arg(long)]
    counts: bool,
}

fn event(name: &str) -> Result<Event, String> {
    let all = || Event::ALL.iter().map(|event| event.name()).collect::<Vec<_>>().join(", ");
    Event::named(name).ok_or_else(|| format!("no such kind of event; there are: {}", all()))
}

fn main() -> ExitCode {
    let Args { seeds, first, seed, steps, without, trace, counts } = Args::parse();
    let options = Options { steps, without };
    let range = seed.map_or(first..first + seeds, |seed| seed..seed + 1);
    let began = Instant::now();
    match run_many(range, &options) {
        Ok(summary) => {
            let seconds = began.elapsed().as_secs_f64();
            let rate = (summary.seeds * steps) as f64 / seconds;
            println!("{} seeds of {steps} steps: all is well ({rate:.0} steps/s)", summary.seeds);
            if counts {
                summary.counts.iter().for_each(|(what, count)| println!("{count:>12} {what}"));
            }
            ExitCode::SUCCESS
        }
        Err(failure) if seed.is_some() => {
            show(&failure, &options, trace);
            ExitCode::FAILURE
        }
        Err(failure) => {
            println!("seed {}, step {}: {}\nmaking it smaller …", failure.seed, failure.step, failure.what);
            let (failure, options) = shrink(&failure, &options);
            show(&failure, &options, trace);
            ExitCode::FAILURE
        }
    }
}

/// Shows a failure, with what happened before it, and how to run it again.
fn show(failure: &Failure, options: &Options, lines: usize) {
    let traced = run(failure.seed, options, true).err();
    let trace = traced.map(|failure| failure.trace).unwrap_or_default();
    println!("\nthe last events:");
    trace.iter().skip(trace.len().saturating_sub(lines)).for_each(|line| println!("  {line}"));
    println!("\nFAILED: {}", failure.what);
    println!("  seed {}, step {}, commit {}", failure.seed, failure.step, commit());
    let without: Vec<_> = options.without.iter().map(|event| event.name()).collect();
    let without = if without.is_empty() { String::new() } else { format!(" WITHOUT={}", without.join(",")) };
    println!("  to run it again: make sim SEED={} STEPS={}{without}", failure.seed, options.steps);
}

fn commit() -> String {
    let git = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let text = git.ok().and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    if text.trim().is_empty() { "unknown".into() } else { text.trim().into() }
}
