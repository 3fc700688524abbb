//! What stops the guest: signals for privileged instructions and exceptions, and stubs for hypercalls.

use std::sync::atomic::{AtomicPtr, Ordering};
use std::{ffi::c_int, ffi::c_void, ptr};

use hvt_abi::GuestAddr;
use hvt_abi::boot::{BOOT_INFO_BASE, GUEST_MIN_BASE};
use hvt_abi::hypercall::Hypercall;

use super::cpu::{CODE_SELECTOR, Cpu, DATA_SELECTOR, Exception, GENERAL_PROTECTION, PAGE_FAULT, USER_LIMIT};
use super::decode::{Privileged, RAX, RCX, RDX, RSP, Registers, decode};
use super::low::context;
use crate::hypercalls::{Fault, Outcome, Vm};
use crate::{core_dump, report::warn, sys};

/// The MSR with the FS base: the only one that guests write.
const MSR_FS_BASE: u64 = 0xc000_0100;

/// The longest instruction in bytes.
const INSTRUCTION_MAX: u64 = 15;

/// Room for a signal frame with all vector state, and for the tender's own work on top of it.
const SIGNAL_STACK: usize = 256 * 1024;

/// The guest, for the handlers. They never run at the same time: each is entered from the guest's code only.
static GUEST: AtomicPtr<Guest> = AtomicPtr::new(ptr::null_mut());

/// A guest and the state it believes its CPU to have.
#[derive(Debug)]
pub struct Guest {
    vm: Vm,
    cpu: Cpu,
}

impl Guest {
    /// A guest that has not run yet.
    pub fn new(vm: Vm) -> Self {
        Self { vm, cpu: Cpu::default() }
    }

    /// Hands the guest to the handlers.
    ///
    /// # Safety
    /// It must stay where it is, and nobody else may use it, until the process ends.
    pub unsafe fn install(&mut self) {
        GUEST.store(self, Ordering::Relaxed);
    }
}

/// Where [`super::switch::from_stub`] comes to, on the tender's stack, but with the guest's thread-local storage.
pub extern "C" fn hypercall_from_stub(port: u16, argument: u32) {
    // The C library's clock is the only thing on the way of a hypercall that may want its own.
    if port == Hypercall::Walltime.port() {
        with_own_fs(|| hypercall(port, argument));
    } else {
        hypercall(port, argument);
    }
}

/// Does something that needs the tender's thread-local storage.
fn with_own_fs(what: impl FnOnce()) {
    // SAFETY: the context was filled in before the handlers were installed and the guest started, and holds FS bases that
    // are valid for each side. (A guest that overwrites it harms itself: see `low::Context`.)
    unsafe { ((*context()).set_fs)((*context()).host_fs) };
    what();
    // SAFETY: as above.
    unsafe { ((*context()).set_fs)((*context()).guest_fs) };
}

fn hypercall(port: u16, argument: u32) {
    // SAFETY: a guest was installed before the first stub could run, and is there until the process ends; the guest
    // waits, and nobody else holds a reference.
    let guest = unsafe { &mut *GUEST.load(Ordering::Relaxed) };
    finish(guest.vm.hypercall(port, GuestAddr::new(argument.into())));
}

/// Returns if the guest goes on.
fn finish(result: Result<Outcome, Fault>) {
    let status = match result {
        Ok(Outcome::Continue) => return,
        Ok(Outcome::Halt { status, .. }) => status,
        Err(fault) => {
            warn(&fault);
            1
        }
    };
    sys::exit(status)
}

/// Takes over the signals that the guest's instructions raise.
pub fn install_handlers() -> Result<(), String> {
    let failed = || format!("Could not install signal handler: {}", std::io::Error::last_os_error());
    let stack = Box::leak(vec![0u8; SIGNAL_STACK].into_boxed_slice());
    let stack = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: SIGNAL_STACK };
    // SAFETY: the stack is leaked, so it is there for good, and nothing else uses it.
    if unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) } != 0 {
        return Err(failed());
    }
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP] {
        // SAFETY: all-zero is a valid sigaction: no flags, nothing blocked.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction =
            on_signal as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: `action` is valid; `on_signal` says what makes it safe.
        if unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } != 0 {
            return Err(failed());
        }
    }
    Ok(())
}

/// Entered with the guest's FS base live, so nothing may touch thread-local storage outside of the two switches.
extern "C" fn on_signal(_: c_int, _: *mut libc::siginfo_t, state: *mut c_void) {
    // SAFETY: the kernel passes the interrupted state, which is ours until we return.
    let state = unsafe { &mut (*state.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    // SAFETY: as in `hypercall`; that nothing else was interrupted is checked first thing in `handle`.
    with_own_fs(|| match unsafe { GUEST.load(Ordering::Relaxed).as_mut() } {
        Some(guest) => finish(handle(guest, state)),
        None => finish(Err(internal(rip_of(state)))),
    });
}

/// The kernel's order of registers, indexed by their numbers in machine code.
const NUMBERED: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

type Saved = [i64; 23];

fn saved(state: &Saved, register: c_int) -> u64 {
    state[register.cast_unsigned() as usize].cast_unsigned()
}

fn set(state: &mut Saved, register: c_int, value: u64) {
    state[register.cast_unsigned() as usize] = value.cast_signed();
}

fn rip_of(state: &Saved) -> u64 {
    saved(state, libc::REG_RIP)
}

fn internal(rip: u64) -> Fault {
    Fault::Tender { rip }
}

fn handle(guest: &mut Guest, state: &mut Saved) -> Result<Outcome, Fault> {
    let registers: Registers = NUMBERED.map(|register| saved(state, register));
    let rip = rip_of(state);
    let own = BOOT_INFO_BASE..guest.vm.memory.size();
    // A guest that jumped anywhere still has its stack.
    if !own.contains(&rip) && !own.contains(&registers[RSP]) {
        return Err(internal(rip));
    }
    let [vector, ..] = saved(state, libc::REG_TRAPNO).to_le_bytes();
    let address = saved(state, libc::REG_CR2);
    let exception = Exception {
        vector,
        error_code: saved(state, libc::REG_ERR),
        rip,
        flags: saved(state, libc::REG_EFL),
    };
    match vector {
        GENERAL_PROTECTION => {
            let code = instruction(guest, rip);
            match code.and_then(|code| decode(code, rip, &registers)) {
                Some((what, len)) => return guest.emulate(what, rip + len, &registers, state),
                None => guest.deliver(exception, &registers, state)?,
            }
        }
        // The guest's page tables allow everything there: it is the host that does not.
        PAGE_FAULT if (GUEST_MIN_BASE..own.end).contains(&address) => {
            return Err(Fault::Translation { rip });
        }
        PAGE_FAULT => {
            guest.cpu.cr2 = address;
            guest.deliver(exception, &registers, state)?;
        }
        _ => guest.deliver(exception, &registers, state)?,
    }
    Ok(Outcome::Continue)
}

/// The bytes of the instruction at `rip`, and some more where there are any.
fn instruction(guest: &Guest, rip: u64) -> Option<&[u8]> {
    let left = guest.vm.memory.size().checked_sub(rip)?;
    guest.vm.memory.bytes(GuestAddr::new(rip), left.min(INSTRUCTION_MAX)).ok()
}

impl Guest {
    fn deliver(
        &mut self,
        exception: Exception,
        registers: &Registers,
        state: &mut Saved,
    ) -> Result<(), Fault> {
        let handler = self.cpu.deliver(&mut self.vm.memory, registers, exception)?;
        set(state, libc::REG_RIP, handler.rip);
        set(state, libc::REG_RSP, handler.rsp);
        set(state, libc::REG_EFL, handler.flags);
        Ok(())
    }

    /// Does what a privileged instruction would do.
    fn emulate(
        &mut self,
        what: Privileged,
        next: u64,
        registers: &Registers,
        state: &mut Saved,
    ) -> Result<Outcome, Fault> {
        let [rdx_low, rdx_high, ..] = registers[RDX].to_le_bytes();
        let port = u16::from_le_bytes([rdx_low, rdx_high]);
        let mut go_on_at = next;
        match what {
            Privileged::Out => {
                let outcome = self.vm.hypercall(port, GuestAddr::new(registers[RAX] & 0xffff_ffff))?;
                if let Outcome::Halt { status, cookie } = outcome {
                    self.vm.dump_core(status, cookie, || core_registers(state));
                    return Ok(outcome);
                }
            }
            Privileged::OtherPort => return Err(Fault::Port(port)),
            Privileged::LoadGdt(at) => self.cpu.load_gdt(&self.vm.memory, at)?,
            Privileged::LoadIdt(at) => self.cpu.load_idt(&self.vm.memory, at)?,
            Privileged::LoadTask(selector) => self.cpu.load_task(&self.vm.memory, selector)?,
            Privileged::LoadTaskAt(at) => {
                let selector = self.vm.memory.read(GuestAddr::new(at))?;
                self.cpu.load_task(&self.vm.memory, selector)?;
            }
            // Segments are flat before and after, interrupts never come.
            Privileged::LoadSegment | Privileged::InterruptFlag => {}
            Privileged::FarReturn => {
                go_on_at = self.vm.memory.read(GuestAddr::new(registers[RSP]))?;
                set(state, libc::REG_RSP, registers[RSP].wrapping_add(16));
            }
            Privileged::WriteMsr => write_msr(registers, next)?,
            Privileged::ReadCr2(to) => set(state, NUMBERED[to], self.cpu.cr2),
            Privileged::Halt => {
                return Err(Fault::Stopped { rip: next });
            }
        }
        set(state, libc::REG_RIP, go_on_at);
        Ok(Outcome::Continue)
    }
}

/// A debugger's order of registers. Those of segments are what the guest believes them to be.
fn core_registers(state: &Saved) -> core_dump::Registers {
    const ORDER: [c_int; 15] = [
        libc::REG_R15,
        libc::REG_R14,
        libc::REG_R13,
        libc::REG_R12,
        libc::REG_RBP,
        libc::REG_RBX,
        libc::REG_R11,
        libc::REG_R10,
        libc::REG_R9,
        libc::REG_R8,
        libc::REG_RAX,
        libc::REG_RCX,
        libc::REG_RDX,
        libc::REG_RSI,
        libc::REG_RDI,
    ];
    let mut registers = [0; 27];
    for (to, register) in registers.iter_mut().zip(ORDER) {
        *to = saved(state, register);
    }
    registers[core_dump::RIP] = rip_of(state);
    registers[core_dump::CS] = CODE_SELECTOR;
    registers[core_dump::EFLAGS] = saved(state, libc::REG_EFL);
    registers[core_dump::RSP] = saved(state, libc::REG_RSP);
    registers[core_dump::SS] = DATA_SELECTOR;
    registers
}

fn write_msr(registers: &Registers, next: u64) -> Result<(), Fault> {
    let [msr, low, high] = [RCX, RAX, RDX].map(|register| registers[register] & 0xffff_ffff);
    let value = high << 32 | low;
    if msr != MSR_FS_BASE || value >= USER_LIMIT {
        return Err(Fault::Msr { msr, value, rip: next });
    }
    // SAFETY: the context is mapped, and nothing else runs. The value is an address that a guest may use.
    unsafe { (*context()).guest_fs = value };
    Ok(())
}
