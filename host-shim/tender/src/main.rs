//! `petrel-tender`: runs one Solo5 hvt unikernel.
//!
//! A drop-in for upstream's `solo5-hvt`: same options, console output, messages and exit status. The path of a guest:
//! command line ([`cli`]) → image ([`loader`]) → devices ([`devices`]) → memory ([`memory`]) → boot information
//! ([`boot`]) → confinement ([`confine`]) → run ([`backend`]), asking for things by [`hypercalls`].

mod backend;
mod boot;
mod cli;
mod clock;
mod confine;
mod console;
mod devices;
mod hypercalls;
mod loader;
mod memory;
mod report;
mod seccomp;
mod signals;

use std::process::ExitCode;
use std::time::Duration;

use backend::{Backend, Start, kvm, ring3};
use cli::{Choice, Command, Invocation, Settings};
use devices::Attached;
use hypercalls::Vm;
use loader::Image;
use report::{Failure, warn};

/// How long KVM may take to prove itself.
const PROBE_LIMIT: Duration = Duration::from_millis(100);

/// Exit status of a tender that could not run its guest, or not to the guest's own end.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    let outcome = cli::parse(std::env::args_os().skip(1)).and_then(|command| match command {
        Command::Help => Err(Failure::with_usage("")),
        Command::Version => {
            eprint!("{}", cli::version());
            Ok(0)
        }
        Command::Probe => probe(),
        Command::Run(invocation) => run(&invocation),
    });
    match outcome {
        Ok(status) => exit_code(status),
        Err(failure) => {
            failure.print();
            ExitCode::from(FAILED)
        }
    }
}

/// The part of a guest's exit status that the host sees.
fn exit_code(status: i32) -> ExitCode {
    let [low, ..] = status.to_le_bytes();
    ExitCode::from(low)
}

fn probe() -> Result<i32, Failure> {
    let tsc_khz = clock::tsc_khz()?;
    match kvm::probe(PROBE_LIMIT) {
        Ok(()) => println!("backend=kvm tsc_khz={tsc_khz}"),
        Err(reason) => println!("backend=ring3 tsc_khz={tsc_khz} reason={reason}"),
    }
    Ok(0)
}

fn run(invocation: &Invocation) -> Result<i32, Failure> {
    let image = Image::open(&invocation.image)?;
    let mut devices = Attached::new(image.devices);
    let settings = invocation.settings(&mut devices)?;
    devices.complete().map_err(|mut faults| {
        faults.push("All declared devices must be attached. See --help for syntax.".into());
        faults
    })?;
    let command_line = boot::command_line(&invocation.arguments)?;
    signals::exit_on_termination()?;
    let use_kvm = match settings.backend {
        Choice::Kvm => true,
        Choice::Ring3 => false,
        Choice::Auto => match kvm::probe(PROBE_LIMIT) {
            Ok(()) => true,
            Err(reason) => {
                warn(&format!("KVM is not usable here ({reason}): running the guest in ring 3"));
                false
            }
        },
    };
    if use_kvm {
        run_on::<kvm::Kvm>(&image, &settings, devices, &command_line)
    } else {
        run_on::<ring3::Ring3>(&image, &settings, devices, &command_line)
    }
}

fn run_on<B: Backend>(
    image: &Image,
    settings: &Settings,
    devices: Attached,
    command_line: &[u8],
) -> Result<i32, Failure> {
    let tsc_khz = settings.tsc_khz.map_or_else(clock::tsc_khz, Ok)?;
    let (mut backend, mut memory) = B::create(settings.memory_bytes)?;
    image.load(&mut memory)?;
    if B::GUEST_RUNS_HERE {
        backend.speed_up(&mut memory, &image.code())?;
    }
    image.protect(&mut memory, B::GUEST_RUNS_HERE)?;
    let boot_info = boot::write_info(&mut memory, &devices, command_line, image.layout.end(), tsc_khz)?;
    let stack = memory.size() - 8;
    let start = Start { entry: image.layout.entry, boot_info, stack, tsc_khz };
    backend.prepare(&mut memory, &image.layout, &start)?;
    let descriptors = [backend.descriptors(), devices.descriptors()].concat();
    let rules = [devices.rules(), backend.rules()].concat();
    confine::confine(descriptors, rules)?;
    backend.run(Vm { memory, devices }).map_err(|fault| fault.to_string().into())
}
