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
        // Stubs come back on what is left of this stack, aligned as for a call; and in a page's middle, whatever the
        // kernel made of the stack's address, to be as fast each time: see `low::CONTEXT`.
        "and rsp, -4096",
        "sub rsp, 1024",
        "mov ds:[{host_rsp}], rsp",
        "mov r12, rdi",
        "mov rbx, rsi",
        "mov rsp, rdx",
        "mov rdi, ds:[{guest_fs}]",
        // Below the guest's stack pointer is nothing of its own yet, so this call may use its stack.
        "call ds:[{set_fs}]",
        // The entry goes through the word below the guest's stack, where nothing of its own is yet.
        "push r12",
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
        "ret",
        host_rsp = const field!(host_rsp),
        guest_fs = const field!(guest_fs),
        set_fs = const field!(set_fs),
    )
}

/// Where stubs call, on the tender's stack: `edx` is the port, `eax` the argument. To the guest all this is an `out`, so
/// every register, flag and vector comes back as it was.
///
/// Of the vectors it is enough to save SSE's 16: nothing that is called from here uses others. The compiler knows of no
/// more for any x86_64, and what picks its instructions at run time, the C library's copying of memory, is replaced
/// below. (To save all state takes ten times as long as all the rest.) Nor is the FS base changed, as nothing uses
/// thread-local storage; what would, says so.
///
/// # Safety
/// Only for stubs.
#[unsafe(naked)]
pub unsafe extern "C" fn from_stub() {
    naked_asm!(
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
        // The stack is aligned to 16 bytes when a stub calls, so it is off by 8 now, with the return address and ten words.
        "sub rsp, 264",
        "movaps [rsp], xmm0",
        "movaps [rsp + 16], xmm1",
        "movaps [rsp + 32], xmm2",
        "movaps [rsp + 48], xmm3",
        "movaps [rsp + 64], xmm4",
        "movaps [rsp + 80], xmm5",
        "movaps [rsp + 96], xmm6",
        "movaps [rsp + 112], xmm7",
        "movaps [rsp + 128], xmm8",
        "movaps [rsp + 144], xmm9",
        "movaps [rsp + 160], xmm10",
        "movaps [rsp + 176], xmm11",
        "movaps [rsp + 192], xmm12",
        "movaps [rsp + 208], xmm13",
        "movaps [rsp + 224], xmm14",
        "movaps [rsp + 240], xmm15",
        "mov edi, edx",
        "mov esi, eax",
        "call {hypercall}",
        "movaps xmm0, [rsp]",
        "movaps xmm1, [rsp + 16]",
        "movaps xmm2, [rsp + 32]",
        "movaps xmm3, [rsp + 48]",
        "movaps xmm4, [rsp + 64]",
        "movaps xmm5, [rsp + 80]",
        "movaps xmm6, [rsp + 96]",
        "movaps xmm7, [rsp + 112]",
        "movaps xmm8, [rsp + 128]",
        "movaps xmm9, [rsp + 144]",
        "movaps xmm10, [rsp + 160]",
        "movaps xmm11, [rsp + 176]",
        "movaps xmm12, [rsp + 192]",
        "movaps xmm13, [rsp + 208]",
        "movaps xmm14, [rsp + 224]",
        "movaps xmm15, [rsp + 240]",
        "add rsp, 264",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        // The flags, without `popfq`, which takes as long as half of the rest: all but the direction (if it is one that no
        // compiler leaves behind) by `sahf`, and the overflow by an addition that makes it.
        "mov rcx, [rsp + 16]",
        "test ecx, 0x400",
        "jnz 2f",
        "mov ah, cl",
        "bt ecx, 11",
        "setc al",
        "add al, 0x7f",
        "sahf",
        "pop rcx",
        "pop rax",
        "lea rsp, [rsp + 8]",
        "ret",
        "2:",
        "pop rcx",
        "pop rax",
        "popfq",
        "ret",
        hypercall = sym hypercall_from_stub,
    )
}

/// The C library's functions for memory, without vectors, for all of this program: see [`from_stub`]. On CPUs of this
/// century `rep movsb` and `rep stosb` are as fast.
mod without_vectors {
    use std::arch::naked_asm;
    use std::ffi::{c_int, c_void};

    /// # Safety
    /// As in C.
    #[unsafe(naked)]
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void {
        naked_asm!("mov rax, rdi", "mov rcx, rdx", "rep movsb", "ret")
    }

    /// # Safety
    /// As in C.
    #[unsafe(naked)]
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memmove(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void {
        naked_asm!(
            "mov rax, rdi",
            "mov rcx, rdx",
            // Backwards only where the end of one overlaps the start of the other.
            "sub rdi, rsi",
            "cmp rdi, rdx",
            "lea rdi, [rax]",
            "jb 2f",
            "rep movsb",
            "ret",
            "2:",
            "lea rdi, [rdi + rdx - 1]",
            "lea rsi, [rsi + rdx - 1]",
            "std",
            "rep movsb",
            "cld",
            "ret",
        )
    }

    /// # Safety
    /// As in C.
    #[unsafe(naked)]
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut c_void, byte: c_int, len: usize) -> *mut c_void {
        naked_asm!("mov r8, rdi", "mov eax, esi", "mov rcx, rdx", "rep stosb", "mov rax, r8", "ret")
    }

    /// # Safety
    /// As in C.
    #[unsafe(naked)]
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(one: *const c_void, other: *const c_void, len: usize) -> c_int {
        naked_asm!(
            "mov rcx, rdx",
            // Without a byte to compare, the flags are those of equal ones.
            "xor eax, eax",
            "repe cmpsb",
            "je 2f",
            "movzx eax, byte ptr [rdi - 1]",
            "movzx ecx, byte ptr [rsi - 1]",
            "sub eax, ecx",
            "2: ret",
        )
    }

    /// # Safety
    /// As in C.
    #[unsafe(naked)]
    #[unsafe(no_mangle)]
    unsafe extern "C" fn bcmp(one: *const c_void, other: *const c_void, len: usize) -> c_int {
        naked_asm!("jmp {memcmp}", memcmp = sym memcmp)
    }
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
