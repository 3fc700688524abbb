//! Guests in ring 3: the guest runs natively inside this process, for machines without a usable KVM.
//!
//! Guest memory is mapped at its guest-physical addresses, with the permissions of the image's segments. What only ring 0
//! may do raises a signal, and is done for the guest ([`traps`], [`decode`], [`cpu`]); most hypercalls are patched to jump
//! instead ([`patch`], [`switch`]). The guest shares our address space and could make system calls itself, so the
//! boundary is the system-call filter: all that a guest gains by breaking out of its memory is what the filter allows
//! anyway.

mod cpu;
mod decode;
mod low;
mod patch;
mod switch;
mod traps;

use std::{ops::Range, os::fd::RawFd};

use hvt_abi::boot::BOOT_INFO_BASE;
use hvt_abi::elf::Layout;
use rustix::mm::MprotectFlags;

pub use patch::patch;

use super::{Backend, Start};
use crate::confine::{Rule, arg};
use crate::devices::Attached;
use crate::hypercalls::{self, Vm};
use crate::memory::GuestMemory;

/// `arch_prctl`'s code to set the FS base.
pub const ARCH_SET_FS: u64 = 0x1002;

/// A guest that runs in this process. There can be one only.
#[derive(Debug)]
pub struct Ring3 {
    /// Whether the kernel lets user code set the FS base.
    fsgsbase: bool,
    stubs_end: u64,
}

impl Backend for Ring3 {
    const GUEST_RUNS_HERE: bool = true;

    fn create(memory_bytes: u64, _: &Attached) -> Result<(Self, GuestMemory), String> {
        /// Bit of AT_HWCAP2.
        const HWCAP2_FSGSBASE: usize = 1 << 1;
        let fsgsbase = rustix::param::linux_hwcap().1 & HWCAP2_FSGSBASE != 0;
        let memory = GuestMemory::identity(memory_bytes)?;
        Ok((Self { fsgsbase, stubs_end: low::STUBS }, memory))
    }

    fn speed_up(&mut self, memory: &mut GuestMemory, code: &[Range<u64>]) -> Result<(), String> {
        self.stubs_end = patch(memory, code);
        Ok(())
    }

    fn prepare(&mut self, memory: &mut GuestMemory, _: &Layout, _: &Start) -> Result<(), String> {
        let context = low::Context {
            guest_rsp: 0,
            guest_fs: 0,
            host_rsp: 0,
            host_fs: switch::own_fs_base(),
            from_stub: switch::from_stub as *const () as u64,
            set_fs: if self.fsgsbase { switch::set_fs_directly } else { switch::set_fs_by_kernel },
        };
        // SAFETY: `create` mapped this page, which is writable, aligned, and used for nothing else.
        unsafe { low::context().write(context) };
        let stubs_end = self.stubs_end.next_multiple_of(4096);
        memory.protect_host(BOOT_INFO_BASE..low::STUBS, MprotectFlags::READ)?;
        if stubs_end > low::STUBS {
            memory.protect_host(low::STUBS..stubs_end, MprotectFlags::READ | MprotectFlags::EXEC)?;
        }
        if stubs_end < low::STUBS_END {
            memory.protect_host(stubs_end..low::STUBS_END, MprotectFlags::READ)?;
        }
        traps::install_handlers()
    }

    fn descriptors(&self) -> Vec<RawFd> {
        Vec::new()
    }

    fn rules(&self, devices: &Attached) -> Vec<Rule> {
        let mut rules = hypercalls::rules(devices);
        rules.push(Rule {
            call: libc::SYS_rt_sigreturn,
            when: vec![],
            why: "goes back to the guest after a trap",
        });
        if !self.fsgsbase {
            rules.push(Rule {
                call: libc::SYS_arch_prctl,
                when: vec![arg(0).eq(ARCH_SET_FS)],
                why: "switches thread-local storage between guest and tender",
            });
        }
        rules
    }

    fn run(self, vm: Vm, start: &Start) -> ! {
        let mut guest = traps::Guest::new(vm);
        // SAFETY: this function does not return, so the guest stays in its place; it is not named again below.
        unsafe { guest.install() };
        // SAFETY: `prepare` filled in the context and installed the handlers; the loader checked entry and stack to
        // be in the guest's memory. The guest ends the process, so nothing of ours is needed after this.
        unsafe { switch::enter_guest(start.entry, start.boot_info.raw(), start.stack) }
    }
}
