//! What runs the guest's instructions.

pub mod kvm;
pub mod ring3;
pub mod spt;

use std::ops::Range;
use std::os::fd::RawFd;

use hvt_abi::GuestAddr;
use hvt_abi::elf::Layout;

use crate::boot::{self, Told};
use crate::confine::Rule;
use crate::devices::Attached;
use crate::hypercalls::Vm;
use crate::memory::GuestMemory;

/// The state in which a guest starts.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Address of its first instruction.
    pub entry: u64,
    /// Its argument.
    pub boot_info: GuestAddr,
    /// Its stack pointer.
    pub stack: u64,
}

/// A way to run guests. The methods are called in this order, each once.
pub trait Backend: Sized {
    /// Whether the guest's code runs in this process, and its pages must be executable here.
    const GUEST_RUNS_HERE: bool = false;

    /// Maps the guest's memory, and opens what the backend needs.
    fn create(memory_bytes: u64) -> Result<(Self, GuestMemory), String>;

    /// The image is in memory, all of which can still be written. `code` tells where its instructions are.
    fn speed_up(&mut self, _memory: &mut GuestMemory, _code: &[Range<u64>]) -> Result<(), String> {
        Ok(())
    }

    /// Writes what the guest is told, and returns the address of that.
    fn tell(&mut self, memory: &mut GuestMemory, told: &Told) -> Result<GuestAddr, String> {
        boot::write_info(memory, told)
    }

    /// Image and boot information are in memory, and segments are protected: makes the guest ready to run.
    fn prepare(&mut self, memory: &mut GuestMemory, layout: &Layout, start: &Start) -> Result<(), String>;

    /// Descriptors that must stay open while the guest runs, beside those of its devices; all others are closed.
    fn descriptors(&self) -> Vec<RawFd>;

    /// The system calls that a guest with these devices needs, the most frequent first.
    fn rules(&self, devices: &Attached) -> Vec<Rule>;

    /// Runs the guest to its end, which is the process's own. The tender is confined already.
    fn run(self, vm: Vm, start: &Start) -> !;
}
