//! The engine alone, with many unikernels: whether what is done to one takes longer because of the others, what each
//! takes of memory, and how long a journal of them all takes to be read.
//!
//! The host and the operators are those of the tests; only what the engine does is timed. It is built with larger bounds
//! than a host has (feature `large`). Nothing here passes or fails.
#![expect(clippy::cast_possible_truncation, reason = "the numbers of a benchmark are small")]

#[allow(dead_code, reason = "the tests need more of it")]
#[path = "../tests/engine/chain.rs"]
mod chain;
#[path = "../tests/engine/disk.rs"]
mod disk;
#[allow(dead_code, reason = "the tests need more of it")]
#[path = "../tests/engine/host.rs"]
mod host;
#[allow(dead_code, reason = "the tests need more of it")]
#[path = "../tests/engine/image.rs"]
mod image;
#[allow(dead_code, reason = "the tests need more of it")]
#[path = "../tests/engine/world.rs"]
mod world;

use std::{
    collections::BTreeMap,
    env, fs,
    hint::black_box,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use petrel_engine::{Config, Engine, Output, SessionId, StateDevice};
use petrel_wire::{
    Digest, ExitStatus,
    operator::{Change, Create, Request, Response, RestartWhen},
};

use disk::Disk;
use image::{NET, Recipe};
use world::{World, destroy, info, name, networked};

const CROWDS: [usize; 3] = [100, 1_000, 10_000];
const ROUNDS: usize = 2_000;
const DISK_BYTES: usize = 128 << 20;
/// What there is of a unikernel in the engine's memory.
const RECORD_BYTES: usize = 1536;
/// The row beside "info of any other": what that takes at least.
const FLOOR: &str = "floor: a record of a map";

fn main() {
    let arguments: Vec<_> = env::args().collect();
    if let [_, verb, file] = &arguments[..]
        && verb == "recover"
    {
        return recover(Path::new(file));
    }
    // To look closer: one number of unikernels alone.
    if let Some(unikernels) = arguments.get(1).and_then(|argument| argument.parse().ok()) {
        return drop(measure(unikernels));
    }
    println!("\nthe engine alone, by the number of unikernels");
    let medians = CROWDS.map(measure);
    for (verb, of_few) in &medians[0] {
        let of_many =
            medians[2].iter().find(|(other, _)| other == verb).map_or(Duration::ZERO, |(_, time)| *time);
        let ratio = of_many.as_secs_f64() / of_few.as_secs_f64();
        let aim = if *verb == FLOOR { "" } else { "  < 1.5x" };
        let what = format!("{verb}: with 10,000, against with 100");
        println!("{what:<60} {ratio:>9.2}x {:>14} {aim}", "");
    }
    for crowd in CROWDS {
        let file = env::temp_dir().join(format!("petrel-many-{}-{crowd}", std::process::id()));
        fs::write(&file, &crowded(crowd).0.disk.expect("it has one").bytes).expect("room for a journal");
        // In a process of its own, whose memory is nobody else's.
        let it = Command::new(env::current_exe().expect("this program")).arg("recover").arg(&file).status();
        assert!(it.is_ok_and(|status| status.success()));
        fs::remove_file(file).expect("it was there");
    }
}

/// A host with so many unikernels that run, and an operator.
fn crowded(unikernels: usize) -> (World, SessionId, Digest) {
    let mut world = World::unlinked();
    world.host.facts.memory_mib = u64::MAX;
    world.disk = Some(Disk::new(DISK_BYTES));
    world.restart();
    world.run();
    let image = world.host.store(image::build(&Recipe { devices: &[("service", NET)], ..Recipe::default() }));
    let session = world.client();
    for number in 0..unikernels {
        world.create(session, 1, one(number, image));
    }
    (world, session, image)
}

/// A unikernel as there are many.
fn one(number: usize, image: Digest) -> Create {
    let mut create = networked(&called(number), image, &["service"]);
    create.supervision.restart.when = RestartWhen::OnFailure;
    create.args =
        vec![b"--ipv4=192.0.2.10/24".to_vec().try_into().expect("it is short")].try_into().expect("one");
    create
}

fn called(number: usize) -> String {
    format!("acme:team-{}:web-{number}", number % 50)
}

/// What the engine takes for one of each, from the question to the end of all that follows from it.
fn measure(unikernels: usize) -> Vec<(&'static str, Duration)> {
    let (mut world, session, image) = crowded(unikernels);
    println!("\n{:<52} {:>10} {:>10} {:>10}", format!("with {unikernels}"), "median", "p90", "longest");
    let verbs = ["create", "info", "info of any other", "update", "crash and restart", "destroy"];
    let mut times = verbs.map(|_| Vec::with_capacity(ROUNDS));
    for round in 0..ROUNDS {
        let (new, other) = (unikernels + round, called(round * 7919 % unikernels));
        let change = Change { memory_mib: Some(48), ..Change::default() };
        let update = Request::Update { name: name(&called(new)), change: change.into(), window_s: 1 };
        times[0].push(timed(&mut world, |world| drop(world.create(session, 1, one(new, image)))));
        times[1].push(timed(&mut world, |world| drop(world.ask(session, 1, info(&called(new))))));
        times[2].push(timed(&mut world, |world| drop(world.ask(session, 1, info(&other)))));
        times[3].push(timed(&mut world, |world| {
            world.send(session, 1, update);
            world.sleep_ms(1_500);
            world.expect(session, 1, |response| matches!(response, Response::Updated(_)));
        }));
        times[4].push(timed(&mut world, |world| {
            let instance = world.host.spawned.last().expect("it was started last").instance;
            world.host.end(instance, ExitStatus::Code(255));
            world.sleep_ms(500);
        }));
        times[5].push(timed(&mut world, |world| drop(world.ask(session, 1, destroy(&called(new))))));
    }
    let mut all: Vec<_> = verbs.into_iter().zip(times).collect();
    all.insert(3, (FLOOR, copies(unikernels)));
    all.iter_mut().map(|(verb, times)| (*verb, printed(verb, times))).collect()
}

/// How long it takes to find one of so many records by its name, and to copy it: memory that no cache holds.
fn copies(records: usize) -> Vec<Duration> {
    let all: BTreeMap<_, _> = (0..records).map(|number| (called(number), vec![1_u8; RECORD_BYTES])).collect();
    let copy = |round: usize| {
        let name = called(round * 7919 % records);
        let start = Instant::now();
        black_box(all.get(&name).cloned());
        start.elapsed()
    };
    (0..ROUNDS).map(copy).collect()
}

/// How long the engine was at it.
fn timed(world: &mut World, action: impl FnOnce(&mut World)) -> Duration {
    let before = world.in_engine;
    action(world);
    world.in_engine - before
}

fn printed(what: &str, times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    let us = |time: Duration| format!("{:.1} us", time.as_secs_f64() * 1e6);
    let median = times[times.len() / 2];
    let (p90, longest) = (times[times.len() * 9 / 10], times[times.len() - 1]);
    println!("{what:<52} {:>10} {:>10} {:>10}", us(median), us(p90), us(longest));
    median
}

/// Reads a journal; says how long that takes, and what the engine that knows it takes of memory.
fn recover(file: &Path) {
    let device = fs::read(file).expect("a journal");
    let shape = StateDevice { bytes: device.len() as u64, block_bytes: 512, seed: 1 };
    let config = Config { host: "alpha".parse().expect("a label"), release: [0, 1, 0] };
    let (start, before) = (Instant::now(), resident_bytes());
    let mut engine = Engine::recover(config, &shape, |offset, data| -> Result<(), &str> {
        data.copy_from_slice(&device[offset as usize..][..data.len()]);
        Ok(())
    });
    let (time, grown) = (start.elapsed(), resident_bytes() - before);
    let said = std::iter::from_fn(|| engine.poll_output()).find_map(|output| match output {
        Output::Log { line, .. } => Some(line),
        _ => None,
    });
    let unikernels = engine.known().count();
    println!("\n{}", said.expect("it says what it found"));
    println!("{:<52} {:>7.1} ms", format!("recovery of {unikernels} unikernels"), time.as_secs_f64() * 1e3);
    println!(
        "{:<52} {:>8} B {:>22}   < 2048 B",
        "memory for each, without console",
        grown / unikernels.max(1),
        ""
    );
}

/// The memory of this process that is its own.
fn resident_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells it");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("Linux tells it");
    1024 * line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("a number")
}
