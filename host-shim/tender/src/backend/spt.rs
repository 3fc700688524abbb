//! Guests of the target spt: ordinary code in this process, which makes the system calls itself.
//!
//! There is nothing to do for such a guest but to put it in its place. What it may do is in the system-call filter, and
//! an exception ends the process as it would any other.

use std::arch::naked_asm;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use hvt_abi::GuestAddr;
use hvt_abi::boot::GUEST_MIN_BASE;
use hvt_abi::elf::Layout;
use hvt_abi::spt::{MEMORY_BASE, TIMER};
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::mm::MprotectFlags;
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

use super::ring3::ARCH_SET_FS;
use super::{Backend, Start};
use crate::boot::{self, Told};
use crate::confine::{Rule, arg};
use crate::devices::Attached;
use crate::hypercalls::Vm;
use crate::memory::GuestMemory;
use crate::sys::{Action, on_signal};

/// `timerfd_settime`'s flag for a time since the clock's start.
const TFD_TIMER_ABSTIME: u64 = 1;

/// A guest that is about to become this process.
#[derive(Debug)]
pub struct Spt {
    /// Where it waits: for its net devices, and its timer.
    epoll: OwnedFd,
    timer: OwnedFd,
}

impl Backend for Spt {
    const GUEST_RUNS_HERE: bool = true;

    fn create(memory_bytes: u64) -> Result<(Self, GuestMemory), String> {
        let failed = |error: Errno| format!("Could not create wait set: {error}");
        let memory = GuestMemory::identity(memory_bytes)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).map_err(failed)?;
        Ok((Self { epoll, timer }, memory))
    }

    fn tell(&mut self, memory: &mut GuestMemory, told: &Told) -> Result<GuestAddr, String> {
        let timer = (TIMER, self.timer.as_fd());
        for (data, fd) in told.devices.nets().chain([timer]) {
            let data = epoll::EventData::new_u64(data);
            epoll::add(&self.epoll, fd, data, epoll::EventFlags::IN)
                .map_err(|error| format!("Could not wait for a device: {error}"))?;
        }
        boot::write_spt_info(memory, told, self.epoll.as_raw_fd(), self.timer.as_raw_fd())
    }

    fn prepare(&mut self, memory: &mut GuestMemory, _: &Layout, _: &Start) -> Result<(), String> {
        memory.protect_host(MEMORY_BASE..GUEST_MIN_BASE, MprotectFlags::READ)?;
        // The runtime has handlers for these two, to tell an overflow of its own stacks; they would not find what they
        // need. All other signals are as the kernel has them, so that an exception, or a wish to end, ends the guest.
        for signal in [libc::SIGSEGV, libc::SIGBUS] {
            on_signal(signal, Action::Default).map_err(|error| format!("signal {signal}: {error}"))?;
        }
        Ok(())
    }

    fn descriptors(&self) -> Vec<RawFd> {
        vec![self.epoll.as_raw_fd(), self.timer.as_raw_fd()]
    }

    fn rules(&self, devices: &Attached) -> Vec<Rule> {
        let rule = |call, when, why| Rule { call, when, why };
        let clock = |clock, why| rule(libc::SYS_clock_gettime, vec![arg(0).eq(clock)], why);
        let wait = vec![
            arg(0).eq(self.epoll.as_raw_fd()),
            arg(2).le(devices.nets().count() as u64 + 1),
            // Forever, as the timer is in the set; and with the signals that there are.
            arg(3).eq(u64::MAX),
            arg(4).eq(0u64),
        ];
        let timer = vec![arg(0).eq(self.timer.as_raw_fd()), arg(1).eq(TFD_TIMER_ABSTIME), arg(3).eq(0u64)];
        let mut rules: Vec<Rule> = devices.transfers().collect();
        rules.extend([
            rule(libc::SYS_epoll_pwait, wait, "waits for net devices or the timer"),
            rule(libc::SYS_timerfd_settime, timer, "sets the timer"),
            clock(libc::CLOCK_MONOTONIC, "tells the time since the host's start"),
            clock(libc::CLOCK_REALTIME, "tells the time"),
            rule(libc::SYS_write, vec![arg(0).eq(1)], "writes to the console"),
            rule(libc::SYS_arch_prctl, vec![arg(0).eq(ARCH_SET_FS)], "has thread-local storage"),
            rule(libc::SYS_exit_group, vec![], "ends"),
        ]);
        rules
    }

    fn run(self, _vm: Vm, start: &Start) -> ! {
        // SAFETY: the loader checked entry and stack to be in the guest's memory. The guest ends the process, so nothing
        // of ours is needed after this.
        unsafe { become_guest(start.entry, start.boot_info.raw(), start.stack) }
    }
}

/// Goes to the guest: all registers zero but its stack pointer and its argument, and no thread-local storage.
///
/// # Safety
/// `entry` and `stack` must be the guest's own.
#[unsafe(naked)]
unsafe extern "C" fn become_guest(entry: u64, boot_info: u64, stack: u64) -> ! {
    naked_asm!(
        "mov rsp, rdx",
        "mov rbx, rdi",
        "mov rbp, rsi",
        "mov edi, {arch_set_fs}",
        "xor esi, esi",
        "mov eax, {arch_prctl}",
        "syscall",
        // The entry goes through the word below the guest's stack, where nothing of its own is yet.
        "push rbx",
        "mov rdi, rbp",
        "xor eax, eax",
        "xor ebx, ebx",
        "xor ecx, ecx",
        "xor edx, edx",
        "xor esi, esi",
        "xor ebp, ebp",
        "xor r8d, r8d",
        "xor r9d, r9d",
        "xor r10d, r10d",
        "xor r11d, r11d",
        "xor r12d, r12d",
        "xor r13d, r13d",
        "xor r14d, r14d",
        "xor r15d, r15d",
        "cld",
        "ret",
        arch_set_fs = const ARCH_SET_FS,
        arch_prctl = const libc::SYS_arch_prctl,
    )
}
