//! The machine code between guest and tender.

use std::arch::{asm, naked_asm};

use super::low::{self, field};
use super::traps::hypercall_from_stub;

/// Starts the guest: all registers zero but its stack pointer and its argument.
///
/// # Safety
/// The context must be filled in, and `entry` and `stack` must be the guest's own.
#[unsafe(naked)]
pub unsafe extern "C" fn enter_guest(entry: u64, boot_info: u64, stack: u64) -> ! {
    naked_asm!(
        // Stubs come back on what is left of this stack, aligned as for a call.
        "and rsp, -16",
        "mov ds:[{host_rsp}], rsp",
        "mov ds:[{guest_rip}], rdi",
        "mov rbx, rsi",
        "mov rsp, rdx",
        "mov rdi, ds:[{guest_fs}]",
        // Below the guest's stack pointer is nothing of its own yet, so this call may use its stack.
        "call ds:[{set_fs}]",
        "mov rdi, rbx",
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
        "jmp ds:[{guest_rip}]",
        host_rsp = const field!(host_rsp),
        guest_rip = const field!(guest_rip),
        guest_fs = const field!(guest_fs),
        set_fs = const field!(set_fs),
    )
}

/// Where stubs jump: `edx` is the port, `eax` the argument, the guest's stack pointer and next instruction are in the
/// context. To the guest all this is an `out`, so every register, flag and vector comes back as it was.
///
/// # Safety
/// Only for stubs.
#[unsafe(naked)]
pub unsafe extern "C" fn from_stub() {
    naked_asm!(
        "mov rsp, ds:[{host_rsp}]",
        "pushfq",
        "push rax",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "cld",
        "mov rdi, ds:[{host_fs}]",
        "call ds:[{set_fs}]",
        // The tender's code may use vector registers, in copies above all.
        "mov eax, {vectors_mask}",
        "xor edx, edx",
        "xsavec64 ds:[{vectors}]",
        "mov edi, [rsp + 48]",
        "mov esi, [rsp + 64]",
        "call {hypercall}",
        "mov eax, {vectors_mask}",
        "xor edx, edx",
        "xrstor64 ds:[{vectors}]",
        "mov rdi, ds:[{guest_fs}]",
        "call ds:[{set_fs}]",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "popfq",
        "mov rsp, ds:[{guest_rsp}]",
        "jmp ds:[{guest_rip}]",
        host_rsp = const field!(host_rsp),
        host_fs = const field!(host_fs),
        guest_rsp = const field!(guest_rsp),
        guest_rip = const field!(guest_rip),
        guest_fs = const field!(guest_fs),
        set_fs = const field!(set_fs),
        vectors = const low::VECTORS,
        vectors_mask = const low::VECTORS_MASK,
        hypercall = sym hypercall_from_stub,
    )
}

/// The current FS base: its first word holds its own address, by the x86_64 ABI for thread-local storage.
pub fn own_fs_base() -> u64 {
    let base;
    // SAFETY: reads the word that the ABI defines, in a thread that the C library has set up.
    unsafe { asm!("mov {}, fs:[0]", out(reg) base, options(nostack, readonly, preserves_flags)) };
    base
}

/// Sets the FS base where the kernel lets user code do so.
///
/// # Safety
/// `base` must be canonical. What follows must fit it: code that uses thread-local storage needs the tender's own.
#[unsafe(naked)]
pub unsafe extern "C" fn set_fs_directly(base: u64) {
    naked_asm!("wrfsbase rdi", "ret")
}

/// Sets the FS base by a system call.
///
/// # Safety
/// As [`set_fs_directly`].
#[unsafe(naked)]
pub unsafe extern "C" fn set_fs_by_kernel(base: u64) {
    naked_asm!(
        "mov rsi, rdi",
        "mov edi, {arch_set_fs}",
        "mov eax, {arch_prctl}",
        "syscall",
        "ret",
        arch_set_fs = const super::ARCH_SET_FS,
        arch_prctl = const libc::SYS_arch_prctl,
    )
}
