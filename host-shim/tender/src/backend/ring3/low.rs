//! What ring 3 keeps in the tender's own area of guest memory, below the guest's base: near enough to the guest's code
//! for short jumps, at addresses that machine code can name directly.

use std::ptr;

/// From here on: one stub for each hypercall site.
pub const STUBS: u64 = 0x8_0000;
/// Up to here.
pub const STUBS_END: u64 = 0xf_f000;
/// The [`Context`], in the page after. Not at that page's start: each hypercall writes to it, Linux on its way into a
/// system call reads what lies at the start of pages of its own, and CPUs that tell addresses apart by the offset in a
/// page, at first, let it wait for us. On one of AMD's that takes a tenth of a whole system call.
pub const CONTEXT: u64 = STUBS_END + 64;
/// What machine code on the way between guest and tender needs to find. The guest can overwrite it, as it can the
/// rest of the tender's memory: the boundary around both is the system-call filter.
#[repr(C)]
pub struct Context {
    /// The guest's stack pointer, while the tender works for it.
    pub guest_rsp: u64,
    /// The base of the guest's thread-local storage.
    pub guest_fs: u64,
    /// The tender's stack and thread-local storage.
    pub host_rsp: u64,
    pub host_fs: u64,
    /// Where stubs go: `switch::from_stub`.
    pub from_stub: u64,
    /// Sets the FS base to its argument.
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
