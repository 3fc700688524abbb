//! `petrel-tender`: runs one Solo5 unikernel.
//!
//! A drop-in for upstream's `solo5-hvt`: same options, console output, messages and exit status. The path of a guest:
//! command line ([`cli`]) → image ([`loader`]) → devices ([`devices`]) → memory ([`memory`]) → boot information
//! ([`boot`]) → confinement ([`confine`]) → run ([`backend`]), asking for things by [`hypercalls`].
//!
//! Unsafe code is in three rooms: [`memory`], the backends, and [`sys`].

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod backend;
mod boot;
mod cli;
mod clock;
mod confine;
mod console;
mod core_dump;
mod devices;
mod hypercalls;
mod loader;
#[allow(unsafe_code)]
mod memory;
mod report;
mod signals;
#[allow(unsafe_code)]
mod sys;

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

use hvt_abi::note::Target;
use rustix::stdio::stdout;

use backend::{Backend, Start, kvm, ring3, spt};
use boot::Told;
use cli::{Choice, Command, Invocation, Settings};
use core_dump::CoreDump;
use devices::Attached;
use hypercalls::Vm;
use loader::Image;
use memory::GuestMemory;
use report::warn;
use sys::Action;

pub use confine::{Condition, Rule};
pub use report::Failure;

/// How long KVM may take to prove itself.
const PROBE_LIMIT: Duration = Duration::from_millis(100);

/// Exit status of a tender that could not run its guest, or not to the guest's own end.
const FAILED: i32 = 1;

/// The whole program. `arguments` begin with its own name.
///
/// `last_look` gets the system-call filter's rules, the last thing before they are put in force. The program leaves them
/// as they are; a test may take one away, to see that a guest cannot do without it.
///
/// Returns the status to end with, where there was no guest to end with its own.
pub fn main(arguments: impl IntoIterator<Item = OsString>, last_look: impl FnOnce(&mut Vec<Rule>)) -> i32 {
    let ready = sys::standard_descriptors().and_then(|()| sys::on_signal(libc::SIGPIPE, Action::Ignore));
    let ready = ready.map_err(|error| Failure::from(format!("Could not start: {error}")));
    let command = ready.and_then(|()| cli::parse(arguments.into_iter().skip(1)));
    let outcome = command.and_then(|command| match command {
        Command::Help => Err(Failure::with_usage("")),
        Command::Version => {
            report::print(cli::version());
            Ok(())
        }
        Command::Probe => probe(),
        Command::Run(invocation) => run(&invocation, last_look).map(|never| match never {}),
    });
    match outcome {
        Ok(()) => 0,
        Err(failure) => {
            failure.print();
            FAILED
        }
    }
}

/// Takes an image as far as it gets before it would run: what fuzzers feed with anything.
pub fn load(image: &OsStr, memory_bytes: u64) -> Result<(), Failure> {
    let image = Image::open(image)?;
    let mut memory = GuestMemory::anywhere(memory_bytes)?;
    image.load(&mut memory)?;
    ring3::patch(&mut memory, &image.code());
    image.protect(&mut memory, true)?;
    Ok(())
}

fn probe() -> Result<(), Failure> {
    let tsc_khz = clock::tsc_khz()?;
    let verdict = match kvm::probe(PROBE_LIMIT) {
        Ok(()) => format!("backend=kvm tsc_khz={tsc_khz}\n"),
        Err(reason) => format!("backend=ring3 tsc_khz={tsc_khz} reason={reason}\n"),
    };
    console::write(stdout(), verdict.as_bytes()).map_err(|error| format!("Could not write: {error}"))?;
    Ok(())
}

fn run(invocation: &Invocation, last_look: impl FnOnce(&mut Vec<Rule>)) -> Result<Infallible, Failure> {
    let image = Image::open(&invocation.image)?;
    let mut devices = Attached::new(image.devices);
    let settings = invocation.settings(image.target, &mut devices)?;
    devices.complete().map_err(|mut faults| {
        faults.push("All declared devices must be attached. See --help for syntax.".into());
        faults
    })?;
    let guest = Guest { image, devices, settings, command_line: boot::command_line(&invocation.arguments)? };
    if guest.image.target == Target::Spt {
        return match guest.settings {
            Settings { backend: Choice::Kvm, .. } => {
                Err("An spt guest is no guest of KVM: leave --backend=kvm out".into())
            }
            Settings { dump_core: Some(_), .. } => {
                Err("dumpcore: not implemented for spt guests: leave --dumpcore out".into())
            }
            _ => guest.run_on::<spt::Spt>(last_look),
        };
    }
    signals::exit_on_termination()?;
    if kvm_is_wanted(guest.settings.backend) {
        guest.run_on::<kvm::Kvm>(last_look)
    } else {
        guest.run_on::<ring3::Ring3>(last_look)
    }
}

fn kvm_is_wanted(choice: Choice) -> bool {
    match choice {
        Choice::Kvm => true,
        Choice::Ring3 => false,
        Choice::Auto => kvm::probe(PROBE_LIMIT)
            .inspect_err(|reason| {
                warn(format_args!("KVM is not usable here ({reason}): running the guest in ring 3"));
            })
            .is_ok(),
    }
}

/// A guest that only needs something to run on.
struct Guest {
    image: Image,
    devices: Attached,
    settings: Settings,
    command_line: Vec<u8>,
}

impl Guest {
    fn run_on<B: Backend>(self, last_look: impl FnOnce(&mut Vec<Rule>)) -> Result<Infallible, Failure> {
        let Self { image, devices, settings, command_line } = self;
        let (mut backend, mut memory) = B::create(settings.memory_bytes)?;
        image.load(&mut memory)?;
        let core = settings.dump_core.map(|folder| CoreDump::prepare(&folder, memory.size())).transpose()?;
        // For a core file the guest's registers must be known at its last hypercall, which they are when it traps.
        if B::GUEST_RUNS_HERE && core.is_none() {
            backend.speed_up(&mut memory, &image.code())?;
        }
        image.protect(&mut memory, B::GUEST_RUNS_HERE)?;
        let told = Told {
            devices: &devices,
            command_line: &command_line,
            kernel_end: image.layout.end(),
            tsc_khz: settings.tsc_khz,
        };
        let boot_info = backend.tell(&mut memory, &told)?;
        let stack = memory.size() - 8;
        let start = Start { entry: image.layout.entry, boot_info, stack };
        backend.prepare(&mut memory, &image.layout, &start)?;
        let mut descriptors = [backend.descriptors(), devices.descriptors()].concat();
        let mut rules = backend.rules(&devices);
        if let Some(core) = &core {
            descriptors.extend(core.descriptors());
            rules.extend(core.rules());
        }
        // The image's file and all else that is of no use any more.
        drop(image);
        last_look(&mut rules);
        confine::confine(descriptors, &rules, core.as_ref().map(CoreDump::folder))?;
        backend.run(Vm { memory, devices, console: stdout(), core }, &start)
    }
}
