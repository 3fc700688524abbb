//! petrel.hvt: the control plane on Solo5's devices.
//!
//! It ends with status 63 when asked for help, and with 64 when its arguments or its seal cannot be used: what
//! will be no better when it is started again.
#![cfg_attr(target_os = "solo5", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use core::convert::Infallible;
use core::fmt::Display;
use core::time::Duration;

use petrel_engine::Now;
use petrel_unikernel::boot::{self, Machine, Overrides};
use petrel_unikernel::disk::Disk;
use petrel_unikernel::log::Log;
use petrel_unikernel::options::{self, COMMAND};
use petrel_unikernel::plane::ControlPlane;
use solo5::args::Usage;
use solo5::{Block, Net, clock, entropy};

solo5::manifest! { net "service", net "shim", block "seal", block "state" }
solo5::main!(run);

fn run() -> Result<Infallible, Usage> {
    let options = COMMAND.parse()?;
    let (overrides, threshold) = options::read(&options)?;
    serve(control_plane(overrides, Log::new(threshold, solo5::console::write_line))?)
}

/// The control plane that the seal and the arguments describe.
fn control_plane(overrides: Overrides, log: Log) -> Result<ControlPlane<Net>, Usage> {
    let mut block = Block::acquire("seal").ok_or_else(|| missing("block device \"seal\""))?;
    let seal =
        boot::read_seal(block.capacity(), block.block_size(), |offset, bytes| block.read(offset, bytes));
    let machine = Machine {
        service: Net::acquire("service").ok_or_else(|| missing("network device \"service\""))?,
        shim: Net::acquire("shim").ok_or_else(|| missing("network device \"shim\""))?,
        state: Block::acquire("state").map(|block| Box::new(State(block)) as Box<dyn Disk>),
        clock: || Duration::from_nanos(clock::wall_ns()),
        log,
        seeds: [(); 4].map(|()| random()),
        now_ns: clock::monotonic_ns(),
    };
    seal.and_then(|seal| boot::control_plane(seal, overrides, machine)).map_err(|error| failure(&error))
}

/// The loop: a turn, then sleep until a device has a frame or the next turn is due.
fn serve(mut plane: ControlPlane<Net>) -> ! {
    loop {
        let due_ns = plane.turn(now());
        solo5::yield_until(due_ns);
    }
}

fn now() -> Now {
    Now { monotonic_ns: clock::monotonic_ns(), wall_ms: clock::wall_ns() / 1_000_000 }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    entropy::fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

/// A device or a seal that cannot be used: as final as a wrong argument, though no help on arguments helps.
fn failure(what: &dyn Display) -> Usage {
    Usage::Error(format!("{}: {what}", COMMAND.name))
}

fn missing(what: &str) -> Usage {
    failure(&format_args!("{what} is not attached"))
}

/// A block device of Solo5.
struct State(Block);

impl Disk for State {
    fn bytes(&self) -> u64 {
        self.0.capacity()
    }

    fn block_bytes(&self) -> usize {
        self.0.block_size()
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), String> {
        self.0.read(offset, data).map_err(|error| error.to_string())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), String> {
        self.0.write(offset, data).map_err(|error| error.to_string())
    }
}
