//! What ring 3 keeps in the tender's own area of guest memory, below the guest's base: near enough to the guest's code
//! for short jumps, at addresses that machine code can name directly.

use std::ptr;

/// From here on: one stub for each hypercall site.
pub const STUBS: u64 = 0x8_0000;
/// Up to here.
pub const STUBS_END: u64 = CONTEXT;
/// The page with the [`Context`].
pub const CONTEXT: u64 = 0xf_f000;
/// One past that page.
pub const CONTEXT_END: u64 = 0x10_0000;

/// Where vector state is saved, in the context's page; aligned to 64 bytes.
pub const VECTORS: u64 = CONTEXT + 0x400;
/// Room there in bytes. XSAVE of the components in [`VECTORS_MASK`] needs 2,688 at most.
pub const VECTORS_SIZE: u64 = CONTEXT_END - VECTORS;
/// x87, SSE, AVX and AVX-512. All else (keys, tiles) is left alone by the tender's code.
pub const VECTORS_MASK: u32 = 0xe7;

/// What machine code on the way between guest and tender needs to find. The guest can overwrite it, as it can the
/// rest of the tender's memory: the boundary around both is the system-call filter.
#[repr(C)]
pub struct Context {
    /// The guest's stack pointer and next instruction, while the tender works for it.
    pub guest_rsp: u64,
    pub guest_rip: u64,
    /// The base of the guest's thread-local storage.
    pub guest_fs: u64,
    /// The tender's stack and thread-local storage.
    pub host_rsp: u64,
    pub host_fs: u64,
    /// Where stubs go: `switch::from_stub`.
    pub from_stub: u64,
    /// Sets the FS base to `rdi`; changes rax, rcx, rsi, rdi, r11 and flags only.
    pub set_fs: unsafe extern "C" fn(u64),
}

/// Address of a field of the [`Context`], for use in assembly.
macro_rules! field {
    ($name:ident) => {
        crate::memory::usize_from(low::CONTEXT) + std::mem::offset_of!(low::Context, $name)
    };
}
pub(super) use field;

/// The context, mapped once a guest's memory is.
pub fn context() -> *mut Context {
    ptr::with_exposed_provenance_mut(crate::memory::usize_from(CONTEXT))
}
