//! Whether the KVM of this machine is of use.
//!
//! That /dev/kvm opens says little: there are hypervisors below which it interprets guests, thousands of times slower
//! than the CPU and without SSE. So a scratch guest has to run some of what every guest runs, in time.

use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use hvt_abi::GuestAddr;
use hvt_abi::boot::{BOOT_INFO_BASE, GUEST_MIN_BASE, GUEST_PAGE_SIZE};
use kvm_ioctls::VcpuExit;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use super::{Kvm, failed};
use crate::backend::Start;
use crate::memory::GuestMemory;

/// Squares 3.0 with SSE, counts 200,000 down (about 0.1 ms on a CPU) and reports the square at port 0x500.
const TRIAL: &[u8] = &[
    0x0f, 0x28, 0x05, 0x19, 0x00, 0x00, 0x00, //  0: movaps 0x20(%rip), %xmm0
    0x0f, 0x59, 0xc0, //                          7: mulps %xmm0, %xmm0
    0xb9, 0x40, 0x0d, 0x03, 0x00, //             10: mov $200000, %ecx
    0xff, 0xc9, //                               15: dec %ecx
    0x75, 0xfc, //                               17: jnz 15
    0xf3, 0x0f, 0x2c, 0xc0, //                   19: cvttss2si %xmm0, %eax
    0xba, 0x00, 0x05, 0x00, 0x00, //             23: mov $0x500, %edx
    0xef, //                                     28: out %eax, (%dx)
    0xf4, 0xf4, 0xf4, //                         29: hlt
    0x00, 0x00, 0x40, 0x40, 0x00, 0x00, 0x40, 0x40, // 32: 3.0, four times
    0x00, 0x00, 0x40, 0x40, 0x00, 0x00, 0x40, 0x40,
];
const ANSWER: [u8; 4] = 9_u32.to_le_bytes();

/// How long to wait between signals to a trial that is over its time.
const KICK_EVERY: Duration = Duration::from_millis(1);
/// After so many signals a thread that does not come back is left alone.
const KICKS: usize = 1000;

/// Tries KVM, with a guest that may run for `limit`. The error is the reason why it is not usable, one line.
pub fn probe(limit: Duration) -> Result<(), String> {
    run_in_time(TRIAL, limit)
}

fn run_in_time(code: &[u8], limit: Duration) -> Result<(), String> {
    extern "C" fn nothing(_: c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    // A signal with a handler makes KVM_RUN return; without one it would end the process.
    register_signal_handler(SIGRTMIN(), nothing).map_err(|error| format!("signal handler: {error}"))?;
    let machine = machine_with(code)?;

    let (sender, outcome) = mpsc::channel();
    let late = Arc::new(AtomicBool::new(false));
    let told_late = late.clone();
    let thread = thread::Builder::new()
        .spawn(move || sender.send(run(machine, &told_late)))
        .map_err(|error| format!("no thread for a guest: {error}"))?;
    let mut result = outcome.recv_timeout(limit);
    if result == Err(RecvTimeoutError::Timeout) {
        late.store(true, Ordering::Relaxed);
        // Again and again: a signal that arrives just before KVM_RUN begins does not stop it.
        for _ in 0..KICKS {
            let _ = thread.kill(SIGRTMIN());
            result = outcome.recv_timeout(KICK_EVERY);
            if result != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
    }
    match result {
        Ok(outcome) => {
            let _ = thread.join();
            outcome
        }
        Err(_) => Err("it does not come back from a guest".to_owned()),
    }
}

/// A machine that is about to run `code`.
fn machine_with(code: &[u8]) -> Result<(Kvm, GuestMemory), String> {
    let (mut kvm, mut memory) = Kvm::machine(GUEST_PAGE_SIZE, false)?;
    let base = GuestAddr::new(GUEST_MIN_BASE);
    memory.bytes_mut(base, code.len() as u64).map_err(|_| "no memory for a guest")?.copy_from_slice(code);
    let start = Start {
        entry: GUEST_MIN_BASE,
        boot_info: GuestAddr::new(BOOT_INFO_BASE),
        stack: GUEST_PAGE_SIZE - 8,
    };
    let anywhere = GUEST_MIN_BASE..GUEST_PAGE_SIZE;
    kvm.boot(&mut memory, std::slice::from_ref(&anywhere), &start)?;
    Ok((kvm, memory))
}

/// Runs the machine to its answer, or until `late` is set and a signal comes.
fn run((mut kvm, _memory): (Kvm, GuestMemory), late: &AtomicBool) -> Result<(), String> {
    loop {
        match kvm.vcpu.run() {
            Ok(VcpuExit::IoOut(_, answer)) if answer == ANSWER => return Ok(()),
            Ok(VcpuExit::IoOut(..)) => return Err("a guest computes wrong results".to_owned()),
            Ok(_) => return Err(format!("a guest that uses SSE fails ({})", kvm.unexpected_exit())),
            Err(error) if error.errno() == libc::EINTR && late.load(Ordering::Relaxed) => {
                return Err("a guest runs far too slowly".to_owned());
            }
            Err(error) if error.errno() == libc::EINTR => {}
            Err(error) => return Err(failed("KVM_RUN", error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, run_in_time};

    /// Holds on every machine: with KVM the limit ends the guest, without there is none.
    #[test]
    fn given_a_guest_that_never_ends_when_its_time_is_over_then_the_probe_fails() {
        const JUMP_TO_ITSELF: &[u8] = &[0xeb, 0xfe];
        assert!(run_in_time(JUMP_TO_ITSELF, Duration::from_millis(10)).is_err());
    }

    #[test]
    fn given_a_guest_that_ends_otherwise_when_probed_then_the_probe_fails() {
        const HALT: &[u8] = &[0xf4];
        assert!(run_in_time(HALT, Duration::from_millis(100)).is_err());
    }
}
