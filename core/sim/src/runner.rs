//! Runs seeds: one, or many at once; makes a failure smaller.

use std::{
    cell::RefCell,
    ops::Range,
    panic::{self, AssertUnwindSafe},
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use crate::{
    model::Violation,
    plan::Event,
    trace::{Trace, shortened},
    world::{Counts, World},
};

/// What is run of each seed.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many steps.
    pub steps: u64,
    /// The kinds of events that do not happen.
    pub without: Vec<Event>,
}

/// A checker found something.
#[derive(Clone, Debug)]
pub struct Failure {
    /// In which world.
    pub seed: u64,
    /// In which step.
    pub step: u64,
    /// What.
    pub what: String,
    /// What happened before, the oldest first, if it was asked for.
    pub trace: Vec<String>,
}

/// What there was in a world that held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// How often each kind of thing happened.
    pub counts: Counts,
    /// What happened lately, the oldest first, if it was asked for.
    pub trace: Vec<String>,
}

/// What there was in many worlds that held.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How many seeds were run.
    pub seeds: u64,
    /// How often each kind of thing happened.
    pub counts: Counts,
}

/// Runs a seed.
///
/// # Errors
/// The first thing that a checker found.
pub fn run(seed: u64, options: &Options, trace: bool) -> Result<History, Box<Failure>> {
    let mut world = World::new(seed, &options.without, Trace::new(trace));
    let mut step = 0;
    let mut history = || {
        while step < options.steps {
            step += 1;
            world.step(step)?;
        }
        world.rest()
    };
    let outcome = match panic::catch_unwind(AssertUnwindSafe(&mut history)) {
        Ok(outcome) => outcome,
        Err(_) => Err(Violation(format!("panicked: {}", PANIC.take()))),
    };
    let trace = world.trace.into_lines();
    match outcome {
        Ok(()) => Ok(History { counts: world.counts, trace }),
        Err(Violation(what)) => Err(Box::new(Failure { seed, step, what: shortened(&what), trace })),
    }
}

/// What is on the block device "state" of a seed's world after so many steps, if it has one: for fuzzers to begin with.
///
/// # Errors
/// The first thing that a checker found.
pub fn state_after(seed: u64, steps: u64) -> Result<Option<Vec<u8>>, Box<Failure>> {
    let mut world = World::new(seed, &[], Trace::new(false));
    for step in 1..=steps {
        world.step(step).map_err(|Violation(what)| Failure { seed, step, what, trace: Vec::new() })?;
    }
    Ok(world.state().map(<[u8]>::to_vec))
}

/// Runs many seeds, on all CPUs.
///
/// # Errors
/// The failure of the least seed that failed, of those that were run.
pub fn run_many(seeds: Range<u64>, options: &Options) -> Result<Summary, Box<Failure>> {
    quiet_panics();
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicBool::new(false);
    let first: Mutex<Option<Box<Failure>>> = Mutex::new(None);
    let summary = Mutex::new(Summary::default());
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            match run(seed, options, false) {
                Ok(history) => lock(&summary).add(history.counts),
                Err(failure) => {
                    failed.store(true, Ordering::Relaxed);
                    let mut first = lock(&first);
                    if first.as_ref().is_none_or(|other| failure.seed < other.seed) {
                        *first = Some(failure);
                    }
                }
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    match first.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(failure) => Err(failure),
        None => Ok(summary.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// Makes a failure smaller: leaves out each kind of event without which something still fails, and no later.
/// Returns what is left.
pub fn shrink(failure: &Failure, options: &Options) -> (Failure, Options) {
    quiet_panics();
    let (mut failure, mut options) = (failure.clone(), options.clone());
    options.steps = failure.step;
    for &event in Event::ALL.iter().filter(|event| !event.is_essential()) {
        let mut fewer = options.clone();
        if options.without.contains(&event) {
            continue;
        }
        fewer.without.push(event);
        if let Err(smaller) = run(failure.seed, &fewer, false) {
            fewer.steps = smaller.step;
            (failure, options) = (*smaller, fewer);
        }
    }
    (failure, options)
}

impl Summary {
    fn add(&mut self, counts: Counts) {
        self.seeds += 1;
        for (what, count) in counts {
            *self.counts.entry(what).or_default() += count;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// The latest panic's message and place.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A panic in a world is a failure like any other: it is told once, with its seed.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| panic::set_hook(Box::new(|info| PANIC.set(info.to_string()))));
}
