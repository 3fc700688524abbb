//! What a guest finds at its entry point, and the memory map around it.
//!
//! A guest starts in long mode at its ELF entry with `rdi` = address of [`BootInfo`] and `rsp` = end of
//! memory - 8. Pages below [`BOOT_INFO_BASE`] are not mapped; the tender's data lie, read-only for the guest,
//! from there to [`GUEST_MIN_BASE`]; all above up to `mem_size` is the guest's.

use crate::{GuestAddr, assert_layout};

/// The version of the hvt ABI that this crate describes.
pub const HVT_ABI_VERSION: u32 = 2;

/// The oldest version that guests may be made for: version 1 (up to Solo5 v0.7) differs only in what tenders had to
/// know about segments for thread-local storage, which version 2 lets them ignore.
pub const HVT_ABI_VERSION_MIN: u32 = 1;

/// Lowest address at which a guest may be loaded.
pub const GUEST_MIN_BASE: u64 = 0x10_0000;

/// Where tenders put [`BootInfo`]; the first byte that a guest can read.
pub const BOOT_INFO_BASE: u64 = 0x1_0000;

/// Guest memory comes in units of this many bytes.
pub const GUEST_PAGE_SIZE: u64 = 0x20_0000;

/// Largest guest memory in bytes: hypercall arguments are 32-bit addresses.
pub const GUEST_MEM_MAX: u64 = 1 << 32;

/// Size of the command line's buffer in bytes, with its terminating NUL.
pub const CMDLINE_SIZE: usize = 8192;

/// Bit in [`BootInfo::host_features`]: the tender offers ring I/O.
pub const FEATURE_RING_IO: u32 = 1 << 0;

/// The guest's only argument.
///
/// The last three fields came with Solo5 v0.11. Older guests never read them; guests on an older tender find
/// zeros there, as guest memory starts out zeroed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct BootInfo {
    /// Memory size in bytes.
    pub mem_size: u64,
    /// First address after the loaded image, page aligned.
    pub kernel_end: u64,
    /// Frequency of the time-stamp counter in Hz.
    pub cpu_cycle_freq: u64,
    /// The command line: at most [`CMDLINE_SIZE`] bytes with the NUL.
    pub cmdline: GuestAddr,
    /// The manifest, filled in by the tender.
    pub mft: GuestAddr,
    /// Features that the tender offers.
    pub host_features: u32,
    /// Features that the guest accepts.
    pub guest_features: u32,
    /// Network ring, null where there is none.
    pub net_ring: GuestAddr,
}

assert_layout!(
    BootInfo, size 56, align 8,
    mem_size @ 0, kernel_end @ 8, cpu_cycle_freq @ 16, cmdline @ 24, mft @ 32,
    host_features @ 40, guest_features @ 44, net_ring @ 48,
);
