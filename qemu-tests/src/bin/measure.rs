//! What `make bench-appliance` runs: how long an appliance takes to its first session, with the bare kernel's boot as the
//! floor, and what it takes of memory at rest. Everything is emulated, so only the figures' relation means something.

use std::time::Duration;

use petrel_qemu_tests::{Host, Machine, Settings};
use petrel_tests::out;

const ROUNDS: usize = 3;

fn main() {
    println!("{:<64} {:>10} {:>10}", "the appliance, in an emulated machine of two CPUs", "median", "least");
    let host = Host::new("bench");
    let overlay = host.overlay(&[("witness", out("appliance/petrel-witness"))]);
    let settings = |append: &str| Settings {
        overlay: Some(overlay.clone()),
        append: format!("rdinit=/witness {append}"),
        ..Settings::of(&host)
    };
    measure("floor: power on to the kernel's first process", || {
        let machine = Machine::boot_with(&host, &settings("-- floor"));
        machine.console.until("witness: floor").0 - machine.start
    });
    let mut memory = String::new();
    measure("power on to the first session (after the first boot)", || {
        let machine = Machine::boot_with(&host, &settings(""));
        machine.until_whole();
        let time = machine.start.elapsed();
        let told = || machine.console.after("witness: memory ");
        let before = told().len();
        machine.eventually("the witness tells", || (told().len() >= before + 2).then_some(()));
        memory = told().pop().unwrap_or_default();
        time
    });
    println!("{:<64} {memory:>10}", "memory in use at rest, kernel and control plane included");
    let bytes = |file| out(file).metadata().map_or(0, |file| file.len());
    let size = bytes("appliance/petrel.img") as f64 / 1e6;
    println!("{:<64} {size:>7.1} MB   < 40 MB", "the bootable image, with room for two systems");
    println!("{:<64} {:>7.1} MB", "one system", bytes("appliance/petrel.efi") as f64 / 1e6);
}

fn measure(what: &str, mut round: impl FnMut() -> Duration) {
    let mut times: Vec<_> = (0..ROUNDS).map(|_| round()).collect();
    times.sort_unstable();
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    println!("{what:<64} {:>10} {:>10}", seconds(times[ROUNDS / 2]), seconds(times[0]));
}
