//! The first process of an appliance. It makes the machine ready for petrel-shim, once, and then keeps it running: what
//! on an ordinary host an init system, udev and a person with a shell do. It listens to nobody on the network.
//!
//! * `machine`: file systems, kernel settings
//! * `modules`: those of the kernel that are always needed, and the drivers of the devices that there are
//! * `disks`: which disk or partition is what; `partition`: makes the one for the state
//! * `identity`: the sealed host, verified
//! * `state`: what outlives a boot, made at the first one
//! * `network`: bridges and their uplinks (with `state`'s resizing, the only unsafe code)
//! * `shim`: the files that it wants, its process, and those of its guests when all ends
//! * `slots`: the systems to boot; a new one is kept or not
//! * `watchdog`: the machine's own, which ends what hangs
//! * `log`: what is said, on the console and for operators
//!
//! A step that fails is told on the console, with what to do; the machine then waits for a person with whom it is.
#![deny(unsafe_code)]

mod disks;
mod identity;
mod kernel;
mod limits;
mod log;
mod machine;
mod modules;
mod network;
mod partition;
mod shim;
mod slots;
mod state;
mod watchdog;

use std::fmt::Display;
use std::thread::sleep;

use rustix::system::{RebootCommand, reboot};

use crate::log::log;
use crate::modules::Modules;
use crate::shim::End;
use crate::watchdog::Watchdog;

fn main() {
    if std::process::id() != 1 {
        log(format_args!("this is the first process of an appliance, and of no use elsewhere"));
        std::process::exit(1);
    }
    let mut watchdog = Watchdog::default();
    let end = match run(&mut watchdog) {
        Ok(end) => end,
        // The system before it may do better.
        Err(error) if slots::booted().is_trial => {
            log(format_args!("STOPPED: {error}"));
            End::NotKept
        }
        Err(error) => stay(&error, &mut watchdog),
    };
    log(format_args!("{end}"));
    rustix::fs::sync();
    let command = match end {
        End::Reboot | End::NotKept => RebootCommand::Restart,
        End::PowerOff => RebootCommand::PowerOff,
    };
    let Err(error) = reboot(command) else { return };
    stay(&format!("the machine does not obey: {error}"), &mut watchdog);
}

/// Everything, until somebody who may wants it to end.
fn run(watchdog: &mut Watchdog) -> Result<End, String> {
    machine::mount_all()?;
    log(format_args!("petrel-init {}", env!("CARGO_PKG_VERSION")));
    if let Err(error) = log::keep_kernels() {
        log(format_args!("the kernel's warnings are not kept: {error}"));
    }
    let mut modules = Modules::read()?;
    modules.load();
    *watchdog = Watchdog::open();
    let (disk, image) = disks::sealed_host(watchdog, &mut modules)?;
    let identity = identity::verify(&image).map_err(about(format_args!("sealed host on {disk}")))?;
    log(format_args!("this is {}, sealed on {disk}", identity.host));
    machine::set_name(&identity.host)?;
    state::open(&identity, &mut modules)?;
    network::up(&identity.bridges, &mut modules)?;
    shim::write_files(&identity)?;
    shim::require_kvm()?;
    machine::harden()?;
    shim::keep_running(&identity, watchdog)
}

/// Nothing can be done but by somebody who looks at the machine.
fn stay(error: &str, watchdog: &mut Watchdog) -> ! {
    loop {
        log(format_args!("STOPPED: {error}"));
        for _ in 0..limits::REMINDER_S {
            watchdog.feed();
            sleep(limits::TICK);
        }
    }
}

/// Says what an error is about.
fn about<E: Display>(what: impl Display) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {error}")
}
