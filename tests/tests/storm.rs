//! Crashes of the trusted parts at random moments, under a load of creates and destroys: what was acknowledged holds,
//! nothing runs twice, nothing is left over, and what nobody touched is never restarted.
//!
//! `PETREL_STORM_CRASHES` says how many crashes there are, `PETREL_STORM_SEED` which. The moments are the machine's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use petrel_tests::{Devhost, image, is_alive, kill_9};

const CRASHES: u64 = 200;
const SEED: u64 = 0x5eed;
/// Clients at once, each with names of its own.
const WORKERS: usize = 3;
const NAMES: usize = 4;
/// A crash comes so long after the host is whole again, at most.
const CALM_MS_MAX: u64 = 150;

/// The client's exit code when the host refused.
const REFUSED: i32 = 1;
/// … when the connection was lost, or there was none.
const NO_CONNECTION: i32 = 3;

/// Tells the clients to stop, whatever ends the load.
struct AtTheEnd<'a>(&'a AtomicBool);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn setting(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// SplitMix64: its numbers only have to be different ones.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What a client knows of a unikernel from what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    There,
    Absent,
    /// The answer to its last request was lost.
    Either,
}

struct Worker<'a> {
    host: &'a Devhost,
    names: BTreeMap<String, Known>,
    random: Random,
    acknowledged: usize,
}

impl<'a> Worker<'a> {
    fn new(host: &'a Devhost, number: usize, seed: u64) -> Self {
        let names = (0..NAMES).map(|name| (format!("w{number}-{name}"), Known::Absent)).collect();
        Self { host, names, random: Random(seed ^ number as u64), acknowledged: 0 }
    }

    /// One request about one name, after what was acknowledged about it has been seen to hold.
    fn step(&mut self) {
        let index = usize::try_from(self.random.below(NAMES as u64)).expect("it is small");
        let (name, known) =
            self.names.iter().nth(index).map(|(name, known)| (name.clone(), *known)).expect("in range");
        let now = match (self.look(&name), known) {
            (None, _) => return,
            (Some(seen), Known::Either) => seen,
            (Some(seen), known) => {
                assert_eq!(seen, known, "{name} is not as it was acknowledged");
                known
            }
        };
        let next = if now == Known::Absent { self.create(&name) } else { self.destroy(&name) };
        self.acknowledged += usize::from(next != Known::Either);
        self.names.insert(name, next);
    }

    /// Whether it is there, if anybody can tell now.
    fn look(&self, name: &str) -> Option<Known> {
        let told = self.host.petrel(&["info", name]);
        match told.code {
            0 => Some(Known::There),
            REFUSED if told.stderr.contains("there is no unikernel") => Some(Known::Absent),
            REFUSED | NO_CONNECTION => None,
            _ => panic!("{told:?}"),
        }
    }

    fn create(&self, name: &str) -> Known {
        let created = self.host.petrel(&["create", name, &image("crash.hvt"), "--arg=--after=3600"]);
        match created.code {
            0 => Known::There,
            // What is refused leaves nothing behind.
            REFUSED => Known::Absent,
            NO_CONNECTION => Known::Either,
            _ => panic!("{created:?}"),
        }
    }

    fn destroy(&self, name: &str) -> Known {
        let destroyed = self.host.petrel(&["destroy", name]);
        match destroyed.code {
            0 => Known::Absent,
            // It was under way: it may have been done all the same.
            REFUSED | NO_CONNECTION => Known::Either,
            _ => panic!("{destroyed:?}"),
        }
    }
}

/// Ends one trusted part or both, and starts what no other part starts.
fn crash(host: &Devhost, kind: u64) {
    let shim = host.shim_pid();
    if kind != 0 {
        kill_9(shim);
    }
    if kind != 1
        && let Some(pid) = host.control_plane_pid()
    {
        kill_9(pid);
    }
    if kind != 0 {
        host.restart_shim();
    }
}

fn bystanders(host: &Devhost) -> Vec<u64> {
    ["bystander-1", "bystander-2"].map(|name| host.json(&["info", name])["pid"].as_u64().unwrap_or(0)).into()
}

#[test]
fn what_was_acknowledged_holds_through_crashes_of_all_trusted_parts() {
    let (crashes, seed) = (setting("PETREL_STORM_CRASHES", CRASHES), setting("PETREL_STORM_SEED", SEED));
    println!("{crashes} crashes, seed {seed}");
    let host = Devhost::up();
    for name in ["bystander-1", "bystander-2"] {
        let ipv4 = format!("--arg=--ipv4=10.99.0.{}/24", if name.ends_with('1') { 10 } else { 11 });
        let _ = host.petrel(&["create", name, &image("web.hvt"), "--net", "service=service", &ipv4]).ok();
    }
    let untouched = bystanders(&host);

    let over = AtomicBool::new(false);
    let workers: Vec<Worker<'_>> = thread::scope(|scope| {
        let work = |number| {
            let (host, over) = (&host, &over);
            scope.spawn(move || {
                let mut worker = Worker::new(host, number, seed);
                while !over.load(Ordering::Relaxed) {
                    worker.step();
                }
                worker
            })
        };
        // Also when this thread fails: the scope waits for all others.
        let _stop = AtTheEnd(&over);
        let running: Vec<_> = (0..WORKERS).map(work).collect();
        let mut random = Random(seed);
        for _ in 0..crashes {
            host.until_whole();
            thread::sleep(Duration::from_millis(random.below(CALM_MS_MAX)));
            crash(&host, random.below(3));
            assert!(!running.iter().any(thread::ScopedJoinHandle::is_finished), "a client has found a fault");
        }
        over.store(true, Ordering::Relaxed);
        running.into_iter().map(|worker| worker.join().expect("a client has found a fault")).collect()
    });

    host.until_whole();
    assert!(workers.iter().map(|worker| worker.acknowledged).sum::<usize>() > WORKERS, "there was a load");
    let mut there = 0;
    for worker in &workers {
        for (name, known) in &worker.names {
            let seen = host.eventually("somebody can tell", || worker.look(name));
            assert!(
                *known == Known::Either || *known == seen,
                "{name} is not as it was acknowledged: {known:?}"
            );
            there += usize::from(seen == Known::There);
        }
    }
    assert_eq!(bystanders(&host), untouched, "what nobody touched was never restarted");
    // Refused creates whose monitors already ran are ended in the background.
    host.eventually("nothing runs but what is listed, and that once", || {
        let pids: Vec<_> = host.monitors().into_iter().map(|(_, pid)| pid).collect();
        (pids.len() == 1 + untouched.len() + there && pids.iter().all(|pid| is_alive(*pid))).then_some(())
    });
    assert_eq!(host.leavings().iter().filter(|what| what.starts_with("tap")).count(), untouched.len());
}
