//! What misbehaving guests cost: one that crashes again and again, one that writes as fast as it can.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use petrel_tests::image;

use crate::{ROUNDS, heading, json, measure, memory_kib, monitor_pids, petrel, run, timed};

const WATCHED: Duration = Duration::from_secs(30);
const FLOODED: Duration = Duration::from_secs(10);
/// USER_HZ, which is the same on every Linux of this architecture.
const TICKS_PER_S: f64 = 100.0;

pub fn crash_loop(folder: &Path) {
    println!("\n{:<52} {:>10}", "a guest that crashes as soon as it starts", "of a core");
    let pids = monitor_pids(folder);
    let idle = share(WATCHED / 3, || pids.iter().map(|pid| ticks(*pid)).sum());
    println!("{:<52} {:>8.2} %", "shim and control plane, at rest", idle);
    run(&mut petrel(&["create", "loop", &image("crash.hvt"), "--arg=--after=0", "--restart", "always"]));
    let busy = share(WATCHED, || pids.iter().map(|pid| ticks(*pid)).sum());
    println!("{:<52} {:>8.2} %   < 1 %", "shim, control plane and the guest, first 30 s", busy);
    let restarts = json(&["info", "loop"])["restarts"].clone();
    println!("{:<52} {restarts:>10}", "starts in that time");
    run(&mut petrel(&["destroy", "loop"]));
}

pub fn flood(folder: &Path) {
    let [shim, control_plane] = monitor_pids(folder);
    run(&mut petrel(&["create", "quiet", &image("crash.hvt"), "--arg=--after=3600"]));
    heading("others, with nothing else there");
    others();
    run(&mut petrel(&["create", "flood", &image("crash.hvt"), "--arg=--lines=4000000000"]));
    let guest =
        json(&["info", "flood"])["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a pid");
    sleep(Duration::from_secs(1));
    let (before, start, memory) = (written(), Instant::now(), memory_kib(control_plane).0);
    let used = [shim, control_plane, guest].map(|pid| (pid, ticks(pid)));
    sleep(FLOODED);
    let seconds = start.elapsed().as_secs_f64();
    let shares = used.map(|(pid, before)| 100.0 * (ticks(pid) - before) / TICKS_PER_S / seconds);
    let rate = (written() - before) / 1e6 / seconds;
    let grown = memory_kib(control_plane).0.saturating_sub(memory);

    println!("\n{:<52} {:>10}", "a guest that writes as fast as it can", "of a core");
    println!("{:<52} {:>5.1} MB/s   up to 100 MB/s", "it writes", rate);
    println!("{:<52} {:>8.1} %   < 10 %", "the control plane", shares[1]);
    println!("{:<52} {:>8.1} %", "the shim", shares[0]);
    println!("{:<52} {:>8.1} %", "the guest itself", shares[2]);
    println!("{:<52} {grown:>6} KiB   0", "the control plane has grown by");
    heading("others, meanwhile");
    others();
    ["flood", "quiet"].iter().for_each(|name| run(&mut petrel(&["destroy", name])));
}

/// What an operator of another unikernel waits for.
fn others() {
    measure("petrel console quiet", ROUNDS, "", |_| timed(|| run(&mut petrel(&["console", "quiet"]))));
    measure("petrel create --wait, to its end", ROUNDS, "", |_| {
        let time = timed(|| run(&mut petrel(&["create", "brief", &image("hello.hvt"), "--wait"])));
        run(&mut petrel(&["destroy", "brief"]));
        time
    });
}

/// How much the flood has written so far, in bytes: each of its lines tells its number.
fn written() -> f64 {
    let output = petrel(&["console", "flood", "--tail", "2"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().expect("a line");
    let number = line.split("(line").nth(1).and_then(|rest| rest.split(" of").next()).expect("its number");
    number.trim().parse::<f64>().expect("a number") * (line.len() as f64 + 1.0)
}

/// The CPU time of a process and of those that it has awaited, in ticks.
fn ticks(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let fields = stat.rsplit(") ").next().expect("fields").split_whitespace();
    fields.skip(11).take(4).map(|field| field.parse::<f64>().expect("a number")).sum()
}

/// What share of a core is used over this time, in percent.
fn share(time: Duration, used: impl Fn() -> f64) -> f64 {
    let (before, start) = (used(), Instant::now());
    sleep(time);
    100.0 * (used() - before) / TICKS_PER_S / start.elapsed().as_secs_f64()
}
