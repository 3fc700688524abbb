//! Guests on KVM: one virtual CPU in 64-bit mode, hypercalls by port I/O.

mod cpu;
mod probe;
mod ring;

use std::{ops::Range, os::fd::AsRawFd, os::fd::RawFd};

use hvt_abi::boot::GUEST_MEM_MAX;
use hvt_abi::{GuestAddr, elf::Layout};
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_regs, kvm_userspace_memory_region};
use kvm_ioctls::{VcpuExit, VcpuFd};
use rustix::io::Errno;

pub use probe::probe;
use ring::Kick;

use super::{Backend, Start};
use crate::boot::{self, Told};
use crate::confine::{Rule, arg};
use crate::hypercalls::{self, Fault, Outcome, Vm};
use crate::{core_dump, devices::Attached, memory::GuestMemory, report::warn, sys};

/// `_IO(KVMIO, 0x80)` and `_IOR(KVMIO, 0x81, struct kvm_regs)` of linux/kvm.h.
const KVM_RUN: u64 = 0xae80;
const KVM_GET_REGS: u64 = 0x8090_ae81;

/// A virtual machine that is ready to run, held by its only CPU: KVM keeps the machine as long as that is open.
pub struct Kvm {
    vcpu: VcpuFd,
    /// For guests that have a net: beyond their memory is a ring.
    kick: Option<Kick>,
}

impl Backend for Kvm {
    fn create(memory_bytes: u64, devices: &Attached) -> Result<(Kvm, GuestMemory), String> {
        Self::machine(memory_bytes, devices.nets().next().is_some())
    }

    fn tell(&mut self, memory: &mut GuestMemory, told: &Told) -> Result<GuestAddr, String> {
        let ring = self.kick.as_ref().map(|_| GuestAddr::new(memory.size()));
        boot::write_info(memory, told, ring)
    }

    fn prepare(&mut self, memory: &mut GuestMemory, layout: &Layout, start: &Start) -> Result<(), String> {
        let executable = layout.segments().iter().filter(|segment| segment.permissions.execute);
        let code: Vec<_> = executable.map(|segment| segment.start..segment.end).collect();
        self.boot(memory, &code, start)
    }

    fn descriptors(&self) -> Vec<RawFd> {
        let kick = self.kick.as_ref().map(Kick::descriptor);
        std::iter::once(self.vcpu.as_raw_fd()).chain(kick).collect()
    }

    fn rules(&self, devices: &Attached) -> Vec<Rule> {
        let vcpu = self.vcpu.as_raw_fd();
        let ioctl = |request, why| {
            let when = vec![arg(0).eq(vcpu), arg(1).eq(request)];
            Rule { call: libc::SYS_ioctl, when, why }
        };
        let mut rules = vec![ioctl(KVM_RUN, "runs the guest")];
        rules.extend(hypercalls::rules(devices));
        rules.extend(self.kick.as_ref().map(Kick::rule));
        rules.push(ioctl(KVM_GET_REGS, "finds where a guest stood that broke down"));
        rules
    }

    fn start_helper(&self, memory: &GuestMemory, devices: &Attached) -> Result<(), String> {
        self.kick.as_ref().map_or(Ok(()), |kick| kick.serve(memory, devices))
    }

    fn run(mut self, mut vm: Vm, _: &Start) -> ! {
        let status = self.run_to_end(&mut vm).unwrap_or_else(|fault| {
            warn(&fault);
            1
        });
        // Returning would close and unmap, here and in the runtime, which the filter does not allow.
        sys::exit(status)
    }
}

impl Kvm {
    /// A machine with so much memory, and beyond it a ring for the network where that is wanted and can be had.
    fn machine(memory_bytes: u64, with_ring: bool) -> Result<(Kvm, GuestMemory), String> {
        let more = if with_ring { ring::RING_BYTES } else { 0 };
        let memory = GuestMemory::with_more(memory_bytes.min(GUEST_MEM_MAX - more), more)?;
        let kvm = kvm_ioctls::Kvm::new().map_err(|error| failed("open /dev/kvm", error))?;
        let vm = kvm.create_vm().map_err(|error| failed("KVM_CREATE_VM", error))?;
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: memory.mapped_bytes(),
            userspace_addr: memory.host_address() as u64,
        };
        // SAFETY: the region is exactly the mapping that `memory` owns. The guest touches it only within `run`,
        // whose caller hands over that same memory for as long.
        unsafe { vm.set_user_memory_region(region) }
            .map_err(|error| failed("KVM_SET_USER_MEMORY_REGION", error))?;
        let vcpu = vm.create_vcpu(0).map_err(|error| failed("KVM_CREATE_VCPU", error))?;
        let mut features = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(|error| failed("KVM_GET_SUPPORTED_CPUID", error))?;
        features.as_mut_slice().iter_mut().for_each(cpu::hide_virtualisation);
        vcpu.set_cpuid2(&features).map_err(|error| failed("KVM_SET_CPUID2", error))?;
        let kick = if with_ring { Kick::new(&vm) } else { None };
        Ok((Kvm { vcpu, kick }, memory))
    }

    /// Puts the CPU at the guest's entry, in memory of which `code` can be executed.
    fn boot(&mut self, memory: &mut GuestMemory, code: &[Range<u64>], start: &Start) -> Result<(), String> {
        let memory_bytes = memory.mapped_bytes();
        let tables =
            memory.private_mut(cpu::TABLES, cpu::TABLES_LEN).map_err(|_| "KVM: no room for page tables")?;
        cpu::write_tables(tables, memory_bytes, code);
        self.vcpu.set_sregs(&cpu::special_registers()).map_err(|error| failed("KVM_SET_SREGS", error))?;
        let registers = kvm_regs {
            rip: start.entry,
            rsp: start.stack,
            rdi: start.boot_info.raw(),
            rflags: cpu::RFLAGS_RESERVED,
            ..Default::default()
        };
        self.vcpu.set_regs(&registers).map_err(|error| failed("KVM_SET_REGS", error))
    }

    fn run_to_end(&mut self, vm: &mut Vm) -> Result<i32, Fault> {
        loop {
            let (port, argument) = self.next_hypercall()?;
            if let Outcome::Halt { status, cookie } = vm.hypercall(port, argument)? {
                vm.dump_core(status, cookie, || self.core_registers());
                return Ok(status);
            }
        }
    }

    /// Runs the guest up to its next hypercall: its port and argument.
    fn next_hypercall(&mut self) -> Result<(u16, GuestAddr), Fault> {
        loop {
            match self.vcpu.run() {
                Ok(VcpuExit::IoOut(port, data)) => {
                    let Ok(argument) = data.try_into().map(u32::from_le_bytes) else {
                        return Err(Fault::Port(port));
                    };
                    return Ok((port, GuestAddr::new(argument.into())));
                }
                Ok(VcpuExit::IoIn(port, _)) => return Err(Fault::Port(port)),
                // A write to code: the host's page is read-only. KVM reports that as EFAULT, or as device
                // access where it emulates the instruction.
                Ok(VcpuExit::MmioRead(..) | VcpuExit::MmioWrite(..)) => return Err(self.translation_fault()),
                Ok(_) => return Err(self.unexpected_exit()),
                Err(error) if error.errno() == libc::EINTR => {}
                Err(error) if error.errno() == libc::EFAULT => return Err(self.translation_fault()),
                Err(error) => return Err(Fault::Kvm(Errno::from_raw_os_error(error.errno()))),
            }
        }
    }

    fn translation_fault(&self) -> Fault {
        Fault::Translation { rip: self.rip() }
    }

    /// Any exit that is no hypercall ends the guest, with the words of upstream's tender.
    fn unexpected_exit(&mut self) -> Fault {
        let rip = self.rip();
        let run = self.vcpu.get_kvm_run();
        match run.exit_reason {
            kvm_bindings::KVM_EXIT_FAIL_ENTRY => {
                // SAFETY: the exit reason says that this is the member of the union that KVM filled in.
                let reason = unsafe { run.__bindgen_anon_1.fail_entry.hardware_entry_failure_reason };
                Fault::Entry { reason }
            }
            kvm_bindings::KVM_EXIT_INTERNAL_ERROR => {
                // SAFETY: as above.
                let suberror = unsafe { run.__bindgen_anon_1.internal.suberror };
                Fault::Internal { suberror, rip }
            }
            reason => Fault::Exit { reason, rip },
        }
    }

    /// A debugger's order of registers.
    fn core_registers(&self) -> core_dump::Registers {
        let r = self.vcpu.get_regs().unwrap_or_default();
        let general = [
            r.r15, r.r14, r.r13, r.r12, r.rbp, r.rbx, r.r11, r.r10, r.r9, r.r8, r.rax, r.rcx, r.rdx, r.rsi,
            r.rdi,
        ];
        let mut registers = [0; 27];
        for (to, register) in registers.iter_mut().zip(general) {
            *to = register;
        }
        registers[core_dump::RIP] = r.rip;
        registers[core_dump::CS] = cpu::CODE_SELECTOR.into();
        registers[core_dump::EFLAGS] = r.rflags;
        registers[core_dump::RSP] = r.rsp;
        registers[core_dump::SS] = cpu::DATA_SELECTOR.into();
        registers
    }

    /// Where the guest stands; 0 when KVM does not even tell that.
    fn rip(&self) -> u64 {
        self.vcpu.get_regs().map_or(0, |registers| registers.rip)
    }
}

fn failed(what: &str, error: vmm_sys_util::errno::Error) -> String {
    format!("KVM: {what}: {error}")
}
