//! Hypercalls: the only way out of a guest.

use hvt_abi::GuestAddr;
use hvt_abi::hypercall::Hypercall;

/// A hypercall's argument block.
///
/// # Safety
/// `NUMBER` must be the hypercall that takes this structure.
pub unsafe trait Argument {
    /// The hypercall that takes it.
    const NUMBER: Hypercall;
}

macro_rules! arguments {
    ($($name:ident),*) => {
        // SAFETY: hvt-abi names each structure after its hypercall.
        $(unsafe impl Argument for hvt_abi::hypercall::$name { const NUMBER: Hypercall = Hypercall::$name; })*
    };
}
arguments!(Walltime, Puts, Poll, BlockWrite, BlockRead, NetWrite, NetRead, Halt);

/// Makes the hypercall that `argument` belongs to.
///
/// # Safety
/// Every address in `argument` must be that of memory of the length beside it, which lives and is not otherwise
/// borrowed until the call returns; writable where the tender fills it.
#[cfg(target_os = "solo5")]
pub unsafe fn call<A: Argument>(argument: &mut A) {
    let address = GuestAddr::of(&raw const *argument).raw();
    // SAFETY: guest memory is identity-mapped below 4 GiB, so eax holds the whole address. The tender reads and
    // writes the block and what it points to, which the caller answers for; no other register or flag changes.
    // mov and out stay together, in this encoding: tenders patch the pair (ba NN 05 00 00 ef) at load time.
    // They take the byte before for a prefix if it looks like one; the nop sees to it that it does not.
    unsafe {
        core::arch::asm!(
            "nop",
            "mov edx, {port}",
            "out dx, eax",
            port = const A::NUMBER.port() as u32,
            in("eax") address as u32,
            out("edx") _,
            options(nostack, preserves_flags),
        );
    }
}

/// A host has no tender to call.
///
/// # Safety
/// None needed: it only panics. The signature is the guest's.
#[cfg(not(target_os = "solo5"))]
pub unsafe fn call<A: Argument>(_argument: &mut A) {
    panic!("hypercall {:?}: this program runs as a Solo5 hvt guest only", A::NUMBER);
}

/// The address of `bytes`, for the tender to read.
pub fn address_of(bytes: &[u8]) -> GuestAddr {
    GuestAddr::of(bytes.as_ptr())
}

/// The address of `bytes`, for the tender to fill.
pub fn address_of_mut(bytes: &mut [u8]) -> GuestAddr {
    GuestAddr::of(bytes.as_mut_ptr())
}
