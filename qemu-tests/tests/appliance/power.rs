//! A machine that is turned off, by its operator or by whoever pulls the plug.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use petrel_qemu_tests::{Host, Machine};
use petrel_tests::{Random, image};

const CUTS: u32 = 10;
/// The unikernels that there are at once: all fit into the machine's memory.
const ALIVE_MAX: usize = 6;

/// What the host has said that there is. What was under way when it lost power may be there or not.
#[derive(Default)]
struct Acknowledged {
    there: BTreeSet<String>,
    uncertain: Option<String>,
    next: u32,
}

impl Acknowledged {
    /// Creates and destroys until the power is gone.
    fn load(&mut self, machine: &Machine, is_on: &AtomicBool) {
        let crash = image("crash.hvt");
        while is_on.load(Ordering::Relaxed) {
            if self.there.len() < ALIVE_MAX {
                let name = format!("u{}", self.next);
                self.next += 1;
                self.uncertain = Some(name.clone());
                let create =
                    ["create", &name, &crash, "--mem", "8", "--arg=--after=86400", "--restart", "always"];
                if machine.petrel(&create).code != 0 {
                    return;
                }
                self.there.insert(name);
            } else if let Some(name) = self.there.pop_first() {
                self.uncertain = Some(name.clone());
                if machine.petrel(&["destroy", &name]).code != 0 {
                    return;
                }
            }
            self.uncertain = None;
        }
    }

    /// Waits until all of it runs, and nothing else is there.
    #[track_caller]
    fn holds(&mut self, machine: &Machine) {
        let all = machine.eventually("all that was acknowledged runs again", || {
            let all = machine.json(&["ps"]);
            let all = all.as_array().expect("a list").clone();
            let runs = |name: &String| {
                all.iter().any(|unikernel| unikernel["name"] == **name && unikernel["state"] == "running")
            };
            self.there.iter().all(runs).then_some(all)
        });
        for unikernel in all {
            let name = unikernel["name"].as_str().expect("a name").to_owned();
            let may_be = self.uncertain.as_ref() == Some(&name);
            assert!(may_be || self.there.contains(&name), "{name} was destroyed, or never created");
            self.there.insert(name);
        }
        self.uncertain = None;
    }
}

#[test]
fn a_machine_that_is_told_to_turn_off_ends_all_that_runs_in_order_and_starts_it_again() {
    let host = Host::new("alpha");
    let mut machine = Machine::boot(&host);
    machine.until_whole();
    let crash = image("crash.hvt");
    for name in ["first", "second"] {
        let create = ["create", name, &crash, "--mem", "8", "--arg=--after=86400", "--restart", "always"];
        let _ = machine.petrel(&create).ok();
    }
    let _ = machine.petrel(&["appliance", "poweroff"]).ok();
    assert!(machine.until_off().success());
    let ended = machine.console.after("ending instance ");
    assert_eq!(ended.len(), 3, "{ended:?}");
    assert!(ended[2].starts_with("0,"), "the control plane is the last: {ended:?}");
    assert!(machine.console.find("powering off").is_some());

    let mut machine = Machine::boot(&host);
    machine.until_whole();
    machine.eventually("both run again", || {
        let is_running = |name| machine.json(&["info", name])["state"] == "running";
        (is_running("first") && is_running("second")).then_some(())
    });
    let _ = machine.petrel(&["appliance", "reboot"]).ok();
    assert!(machine.until_off().success());
    assert!(machine.console.find("rebooting").is_some());
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_is_cut_at_any_moment() {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    println!("seed {seed}");
    let (host, mut random, mut acknowledged) = (Host::new("alpha"), Random(seed), Acknowledged::default());
    for cut in 1..=CUTS {
        let mut machine = Machine::boot(&host);
        machine.until_whole();
        acknowledged.holds(&machine);
        let (is_on, after) = (AtomicBool::new(true), Duration::from_millis(500 + random.below(5_000)));
        std::thread::scope(|scope| {
            let plug = machine.plug();
            scope.spawn(|| acknowledged.load(&machine, &is_on));
            std::thread::sleep(after);
            plug.pull();
            is_on.store(false, Ordering::Relaxed);
        });
        let _ = machine.until_off();
        println!("cut {cut} after {after:?}: {:?} are there", acknowledged.there);
    }
    let machine = Machine::boot(&host);
    machine.until_whole();
    acknowledged.holds(&machine);
    assert!(acknowledged.next > CUTS, "there was load");
}
