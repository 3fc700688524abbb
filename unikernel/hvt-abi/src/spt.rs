//! The sibling target, spt: what such a guest finds at its entry point. It makes system calls instead of hypercalls.
//!
//! Such a guest starts at its ELF entry with `rdi` = address of [`BootInfo`] and `rsp` = end of memory - 8, in an
//! ordinary process whose memory is its own from [`MEMORY_BASE`] on. Each device's descriptor is in its manifest entry.

use crate::{GuestAddr, assert_layout};

/// The version of the spt ABI that this crate describes.
pub const SPT_ABI_VERSION: u32 = 2;

/// The oldest version that guests may be made for: it differs as little as that of hvt.
pub const SPT_ABI_VERSION_MIN: u32 = 1;

/// First address of a guest's memory.
pub const MEMORY_BASE: u64 = 0x1_0000;

/// Where tenders put [`BootInfo`].
pub const BOOT_INFO_BASE: u64 = MEMORY_BASE + 0x1000;

/// What the timer is known as in the set of [`BootInfo::epollfd`]; a device is known by its handle.
pub const TIMER: u64 = 0xffff_fffe;

/// The guest's only argument.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct BootInfo {
    /// Memory size in bytes.
    pub mem_size: u64,
    /// First address after the loaded image, page aligned.
    pub kernel_end: u64,
    /// The command line, with a NUL.
    pub cmdline: GuestAddr,
    /// The manifest, filled in by the tender.
    pub mft: GuestAddr,
    /// An epoll set of all net devices and the timer.
    pub epollfd: i32,
    /// A timer of the monotonic clock.
    pub timerfd: i32,
}

assert_layout!(
    BootInfo, size 40, align 8,
    mem_size @ 0, kernel_end @ 8, cmdline @ 16, mft @ 24, epollfd @ 32, timerfd @ 36,
);
