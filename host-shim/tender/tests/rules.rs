//! Each rule of the system-call filter is needed: take any one away, and something that guests do ends in the filter.
//!
//! This program is a tender as well (`--as-tender RULE ARGUMENTS`): the real one, but for the rule of that number, and on
//! a host that is made harder in two ways. Its clock cannot be read without a system call, as on machines where the
//! time-stamp counter is of no use; and whoever allocates memory after confinement ends in the filter too.

#[allow(dead_code)]
#[path = "conformance/hostile/code.rs"]
mod code;
#[path = "conformance/support/mod.rs"]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use hvt_abi::manifest::DeviceKind;
use hvt_abi::note::Target;
use rustix::process::Signal;

use support::image::Image;
use support::ping::Flood;
use support::run::{Outcome, Running, backend};
use support::{Scratch, netns, solo5};

const AS_TENDER: &str = "--as-tender";
/// In place of a rule's number: says what the rules are, and ends.
const LIST: &str = "list";
/// In place of a rule's number: all of them.
const ALL: &str = "all";
/// In place of a rule's number: all of them, and the right to open files.
const AND_OPEN: &str = "and-open";

struct Calling;

// SAFETY: hands everything to the system's allocator, with a call before that has no effect.
unsafe impl GlobalAlloc for Calling {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: takes no arguments.
        unsafe { libc::syscall(libc::SYS_getppid) };
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Calling = Calling;

/// In place of the C library's, which would ask the vDSO first.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    // SAFETY: the caller's promises are the same.
    match unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) } {
        0 => 0,
        _ => -1,
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let _name = arguments.next();
    if arguments.next().is_some_and(|first| first == AS_TENDER) {
        return tender_without(arguments);
    }
    let _ = netns::inside("rules", || {
        netns::tap("tap100", "10.0.0.1/24");
        each_rule_is_needed();
        files_are_denied_without_the_filter_too();
        println!("1 passed");
    });
    ExitCode::SUCCESS
}

/// The tender; the first argument says which rule to leave out.
fn tender_without(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let which = arguments.next().unwrap_or_default().into_string().expect("a number, or a word");
    let arguments = std::iter::once("petrel-tender".into()).chain(arguments);
    let status = petrel_tender::main(arguments, |rules| {
        if which == LIST {
            for rule in rules.iter() {
                println!("system call {:3}: {}", rule.call, rule.why);
            }
            std::process::exit(0);
        } else if which == AND_OPEN {
            rules.push(petrel_tender::Rule { call: libc::SYS_openat, when: Vec::new(), why: "opens files" });
        } else if which != ALL {
            rules.remove(which.parse().expect("a rule's number"));
        }
    });
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}

/// Something that a guest does, and that only works when the tender can make the system calls it takes.
struct Scenario {
    arguments: Vec<String>,
    /// What to do while it runs; afterwards, whether it went as it should.
    watch: Watch,
}

type Watch = fn(Running) -> (bool, Outcome);

impl Scenario {
    fn new(backend: &str, options: &[&str], image: &Path, watch: Watch) -> Scenario {
        let image = image.to_str().expect("the target directory's path is UTF-8");
        let backend = format!("--backend={backend}");
        let words =
            [&backend, "--mem=2"].into_iter().chain(options.iter().copied()).chain(["--", image, "limit"]);
        Scenario { arguments: words.map(str::to_owned).collect(), watch }
    }

    fn hvt(options: &[&str], image: &Path, watch: Watch) -> Scenario {
        Scenario::new(&backend(), options, image, watch)
    }

    fn spt(options: &[&str], image: &Path, watch: Watch) -> Scenario {
        Scenario::new("auto", options, image, watch)
    }

    fn command(&self, without: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("/proc is mounted"));
        command.args([AS_TENDER, without]).args(&self.arguments);
        command
    }

    fn run(&self, without: &str) -> (bool, Outcome) {
        (self.watch)(Running::start(self.command(without)))
    }

    fn rules(&self) -> Vec<String> {
        let listed = Running::start(self.command(LIST)).outcome();
        assert_eq!(listed.code(), Some(0), "{listed}");
        listed.output.lines().filter(|line| line.starts_with("system call ")).map(str::to_owned).collect()
    }
}

fn each_rule_is_needed() {
    let scratch = Scratch::new("rules");
    let mut needed: BTreeMap<String, bool> = BTreeMap::new();
    for scenario in scenarios(&scratch) {
        let (passes, outcome) = scenario.run(ALL);
        assert!(passes, "with all rules, {:?}: {outcome}", scenario.arguments);
        for (number, rule) in scenario.rules().into_iter().enumerate() {
            let known = needed.entry(rule).or_default();
            *known = *known || {
                let (passes, outcome) = scenario.run(&number.to_string());
                // It must be the filter that ends it, and the tender that made the call.
                assert!(passes || outcome.code().is_none() || outcome.code() == Some(1), "{outcome}");
                !passes
            };
        }
    }
    for (rule, needed) in &needed {
        println!("{} {rule}", if *needed { "needed" } else { "NEEDLESS" });
    }
    assert!(needed.values().all(|needed| *needed), "a rule that nothing needs");
}

/// Had the filter a hole, Landlock would be behind it.
fn files_are_denied_without_the_filter_too() {
    let version = 1;
    // SAFETY: asks for Landlock's version, which takes no pointer.
    let landlock = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, version) };
    if landlock < 1 {
        println!("this kernel has no Landlock");
        return;
    }
    let scratch = Scratch::new("landlock");
    let image = Image::new(Target::Spt, code::guest!(opens_a_file)).bytes();
    let scenario = Scenario::spt(&[], &scratch.file("opens.spt", &image), to_its_end);
    let outcome = Running::start(scenario.command(AND_OPEN)).outcome();
    assert_eq!(outcome.code(), Some(libc::EACCES), "{outcome}");
}

fn scenarios(scratch: &Scratch) -> Vec<Scenario> {
    let disk = scratch.file("disk.img", &[0; 4096 * 4]);
    let disk = format!("--block:storage={}", disk.display());
    let dump = format!("--dumpcore={}", scratch.path().display());
    let net = "--net:service0=tap100";
    let guest = |name: &str, target, code: &[u8]| scratch.file(name, &Image::new(target, code).bytes());
    let hvt_guest = |name, code| guest(name, Target::Hvt, code);
    let ring = Image::new(Target::Hvt, code::guest!(echoes_by_ring)).device("service", DeviceKind::Net);
    let ring = scratch.file("ring.hvt", &ring.bytes());
    vec![
        // Its boot takes traps, the clock and the console; then one block after the other.
        Scenario::hvt(&[&disk], &solo5::guest("blk", "hvt"), to_its_end),
        Scenario::hvt(&[net], &solo5::guest("net", "hvt"), flooded),
        Scenario::hvt(&[], &hvt_guest("faults.hvt", code::guest!(writes_to_its_code)), fails_with_a_word),
        Scenario::hvt(&[], &hvt_guest("unhandled.hvt", code::guest!(faults)), fails_with_a_word),
        Scenario::hvt(&[], &hvt_guest("naps.hvt", code::guest!(naps)), stopped_and_continued),
        // Where there is a ring, which is on KVM; else it says so and ends.
        Scenario::hvt(&["--net:service=tap100"], &ring, echoed),
        Scenario::hvt(&[&dump], &hvt_guest("aborts.hvt", code::guest!(aborts)), leaves_a_core),
        Scenario::spt(&[&disk], &solo5::guest("blk", "spt"), to_its_end),
        Scenario::spt(&[net], &solo5::guest("net", "spt"), flooded),
        Scenario::spt(&[], &solo5::guest("tls", "spt"), to_its_end),
        Scenario::spt(&[], &guest("clocks.spt", Target::Spt, code::guest!(tells_both_times)), with_status_0),
    ]
}

fn to_its_end(running: Running) -> (bool, Outcome) {
    let outcome = running.outcome();
    (outcome.code() == Some(0) && outcome.output.contains("SUCCESS"), outcome)
}

fn leaves_a_core(running: Running) -> (bool, Outcome) {
    let outcome = running.outcome();
    let core = outcome.output.lines().find_map(|line| line.split_once("dumping guest core to: "));
    let core = core.is_some_and(|(_, path)| std::fs::metadata(path).is_ok_and(|file| file.blocks() > 0));
    (outcome.code() == Some(255) && core, outcome)
}

fn with_status_0(running: Running) -> (bool, Outcome) {
    let outcome = running.outcome();
    (outcome.code() == Some(0), outcome)
}

/// The guest would take 100,000 pings to its end; it need not get there.
fn flooded(running: Running) -> (bool, Outcome) {
    const PINGS: u64 = 100;
    let flood = Flood::start(Ipv4Addr::new(10, 0, 0, 2), PINGS);
    while !flood.is_done() && !running.has_ended() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let answered = flood.stop() >= PINGS;
    running.kill();
    (answered, running.outcome())
}

/// The guest sends back what comes, 1000 times.
fn echoed(running: Running) -> (bool, Outcome) {
    const NO_RING: i32 = 3;
    let outcome = netns::broadcast_to(running);
    (matches!(outcome.code(), Some(0 | NO_RING)), outcome)
}

fn fails_with_a_word(running: Running) -> (bool, Outcome) {
    let outcome = running.outcome();
    let word = ["fault", "exception", "exit"].iter().any(|word| outcome.output.contains(word));
    (outcome.code() == Some(1) && word, outcome)
}

/// What was stopped in the middle of a system call goes on with it; for some calls that takes another, not for ours.
fn stopped_and_continued(running: Running) -> (bool, Outcome) {
    let running = running.until_confined();
    running.until('S').signal(Signal::STOP);
    running.until('T').signal(Signal::CONT);
    with_status_0(running)
}
