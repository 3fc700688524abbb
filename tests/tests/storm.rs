//! Crashes of the trusted parts at random moments, under a load of creates, updates and destroys: what was acknowledged
//! holds, nothing runs twice, nothing is left over, and what nobody touched is never restarted.
//!
//! `PETREL_STORM_CRASHES` says how many crashes there are, `PETREL_STORM_SEED` which. The moments are the machine's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use petrel_tests::{Devhost, Random, image, kill_9, out};
use serde_json::Value;

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

/// Each create and update has a number of its own, which is the argument of the unikernel and chooses its image.
type Version = u64;

/// The numbers begin with it: so many seconds no unikernel has to live.
const FIRST_VERSION: Version = 10_000;

/// What a unikernel is; `None` when it is not there.
type Seen = Option<Version>;

/// What a client knows of a unikernel from what it was told.
struct Known {
    /// What it may be: one thing if the last answer came, several when some were lost since.
    may_be: BTreeSet<Seen>,
    /// The generations of those versions of which the client was told.
    generations: BTreeMap<Version, u64>,
}

/// How a request came out.
enum Outcome {
    Done(Value),
    Refused,
    Lost,
}

struct Worker<'a> {
    host: &'a Devhost,
    images: &'a [Image; 2],
    names: BTreeMap<String, Known>,
    random: Random,
    next_version: Version,
    /// How many creates, updates and destroys were acknowledged.
    acknowledged: [usize; 3],
}

impl<'a> Worker<'a> {
    fn new(host: &'a Devhost, images: &'a [Image; 2], number: usize, seed: u64) -> Self {
        let absent = || Known { may_be: BTreeSet::from([None]), generations: BTreeMap::new() };
        let names = (0..NAMES).map(|name| (format!("w{number}-{name}"), absent())).collect();
        let random = Random(seed ^ number as u64);
        Self { host, images, names, random, next_version: FIRST_VERSION, acknowledged: [0; 3] }
    }

    /// One request about one name, after what was acknowledged about it has been seen to hold.
    fn step(&mut self) {
        let index = usize::try_from(self.random.below(NAMES as u64)).expect("it is small");
        let name = self.names.keys().nth(index).expect("in range").clone();
        match self.look(&name) {
            None => (),
            Some(None) => self.create(&name),
            Some(Some(_)) if self.random.below(2) == 0 => self.update(&name),
            Some(Some(_)) => self.destroy(&name),
        }
    }

    /// What it is, if anybody can tell now. It must be what was acknowledged.
    #[track_caller]
    fn look(&self, name: &str) -> Option<Seen> {
        let told = self.host.petrel(&["info", name, "--json"]);
        let known = &self.names[name];
        let seen = match told.code {
            0 => Some(self.version(&told.stdout, known)),
            REFUSED if told.stderr.contains("there is no unikernel") => None,
            REFUSED | NO_CONNECTION => return None,
            _ => panic!("{told:?}"),
        };
        assert!(
            known.may_be.contains(&seen),
            "{name} is {seen:?}, and {:?} was acknowledged: {told:?}",
            known.may_be
        );
        Some(seen)
    }

    /// The version of a unikernel that is there, which must be in all of it.
    #[track_caller]
    fn version(&self, info: &str, known: &Known) -> Version {
        let info: Value = serde_json::from_str(info).expect("JSON");
        let version = version_in(&info["args"]);
        assert_eq!(info["image"], *self.image(version).digest, "{info}");
        if let Some(generation) = known.generations.get(&version) {
            assert_eq!(info["generation"], *generation, "{info}");
        }
        version
    }

    fn image(&self, version: Version) -> &'a Image {
        &self.images[usize::from(!version.is_multiple_of(2))]
    }

    fn ask(&self, words: &[&str]) -> Outcome {
        let told = self.host.petrel(words);
        match told.code {
            0 => Outcome::Done(serde_json::from_str(&told.stdout).unwrap_or_default()),
            REFUSED => Outcome::Refused,
            NO_CONNECTION => Outcome::Lost,
            _ => panic!("{told:?}"),
        }
    }

    fn known(&mut self, name: &str) -> &mut Known {
        self.names.get_mut(name).expect("a name of ours")
    }

    fn create(&mut self, name: &str) {
        // Ready soon: an update waits for that.
        self.make(name, 0, &["create", "--ready", "console:going to crash"]);
    }

    fn update(&mut self, name: &str) {
        self.make(name, 1, &["update", "--window", "5"]);
    }

    fn make(&mut self, name: &str, verb: usize, words: &[&str]) {
        let version = self.next_version;
        self.next_version += 1;
        let (argument, image) = (format!("--arg=--after={version}"), &self.image(version).path);
        let answer = self.ask(&[words, &[name, image, &argument, "--json"]].concat());
        let known = self.known(name);
        match answer {
            Outcome::Done(made) => {
                known.may_be = BTreeSet::from([Some(version)]);
                known.generations.insert(version, made["generation"].as_u64().expect("a generation"));
                self.acknowledged[verb] += 1;
            }
            // What is refused leaves nothing behind.
            Outcome::Refused => (),
            Outcome::Lost => drop(known.may_be.insert(Some(version))),
        }
    }

    fn destroy(&mut self, name: &str) {
        let answer = self.ask(&["destroy", name]);
        let known = self.known(name);
        match answer {
            Outcome::Done(_) => {
                known.may_be = BTreeSet::from([None]);
                self.acknowledged[2] += 1;
            }
            // It was under way: it may have been done all the same.
            Outcome::Refused | Outcome::Lost => drop(known.may_be.insert(None)),
        }
    }

    /// A unikernel's generations tell of one at a time, each made after the one before.
    fn check_history(&self, name: &str) {
        let history = self.host.json(&["history", name]);
        let generations = history.as_array().expect("a list");
        let numbers: Vec<_> = generations.iter().map(|one| one["number"].as_u64()).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{history}");
        let current: Vec<_> = generations.iter().filter(|one| one["current"] == true).collect();
        assert_eq!(current.len(), 1, "{history}");
        assert!(self.names[name].may_be.contains(&Some(version_in(&current[0]["args"]))), "{history}");
    }
}

fn version_in(args: &Value) -> Version {
    let argument = args[0].as_str().and_then(|argument| argument.strip_prefix("--after="));
    argument.and_then(|version| version.parse().ok()).expect("an argument of ours")
}

struct Image {
    path: String,
    digest: String,
}

/// crash.hvt, and another that does the same.
fn two_images(host: &Devhost) -> [Image; 2] {
    let again = host.folder().join("crash-again.hvt");
    let mut bytes = std::fs::read(out("crash.hvt")).expect("an image");
    bytes.extend(b"again");
    std::fs::write(&again, bytes).expect("the devhost's folder");
    [out("crash.hvt"), again].map(|path| {
        let path = path.display().to_string();
        let digest = host.json(&["inspect", &path])["digest"].as_str().expect("a digest").to_string();
        Image { path, digest }
    })
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

/// The process of a unikernel, if it is there.
fn pid(host: &Devhost, name: &str) -> Option<u64> {
    let told = host.petrel(&["info", name, "--json"]);
    let info: Value = serde_json::from_str(&told.stdout).ok()?;
    info["pid"].as_u64()
}

fn bystanders(host: &Devhost) -> [u64; 2] {
    ["bystander-1", "bystander-2"].map(|name| pid(host, name).expect("it is there"))
}

/// The processes of all unikernels that are listed.
fn listed_pids(host: &Devhost) -> BTreeSet<u64> {
    let listed = host.json(&["ps"]);
    let names = listed.as_array().expect("a list").iter();
    names.filter_map(|one| pid(host, one["name"].as_str().expect("a name"))).collect()
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
    let images = two_images(&host);

    let over = AtomicBool::new(false);
    let workers: Vec<Worker<'_>> = thread::scope(|scope| {
        let work = |number| {
            let (host, images, over) = (&host, &images, &over);
            scope.spawn(move || {
                let mut worker = Worker::new(host, images, number, seed);
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
    for (verb, what) in ["creates", "updates", "destroys"].into_iter().enumerate() {
        let count: usize = workers.iter().map(|worker| worker.acknowledged[verb]).sum();
        println!("{count} {what} acknowledged");
        assert!(count > 0, "there were no {what}");
    }
    for worker in &workers {
        for name in worker.names.keys() {
            if host.eventually("somebody can tell", || worker.look(name)).is_some() {
                worker.check_history(name);
            }
        }
    }
    assert_eq!(bystanders(&host), untouched, "what nobody touched was never restarted");
    // What was refused while its monitor ran already, or was lost on its way, is ended in the background.
    host.eventually("nothing runs but what is listed, and that once", || {
        let running: Vec<_> = host.monitors().into_iter().filter(|(instance, _)| *instance != 0).collect();
        let pids: BTreeSet<_> = running.iter().map(|(_, pid)| u64::from(*pid)).collect();
        (pids == listed_pids(&host) && pids.len() == running.len()).then_some(())
    });
    assert_eq!(host.leavings().iter().filter(|what| what.starts_with("tap")).count(), untouched.len());
}
