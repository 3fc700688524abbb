//! Solo5's hvt binary interface: what a guest and its tender have to agree on.
//!
//! | module | what it holds |
//! |---|---|
//! | [`addr`] | [`GuestAddr`], a pointer that only a tender's checked accessor can follow |
//! | [`hypercall`] | the hypercalls: numbers, ports, argument blocks |
//! | [`boot`] | what a guest finds at its entry point, and the memory map around it |
//! | [`manifest`] | the devices a guest declares, and what the tender fills in |
//! | [`note`] | the ELF notes that carry ABI and manifest, ready to be placed in a section |
//! | [`spt`] | what a guest of the sibling target spt finds at its entry point |
//! | `sites` | hypercalls in machine code (feature `sites`, for tenders) |
//! | [`elf`] | a reader of Solo5 ELF images that never panics, whatever the bytes |
//!
//! Layouts follow Solo5's `hvt_abi.h`, `mft_abi.h` and `elf_abi.h` (ABI version 2, of v0.8 to v0.12, and with it
//! version 1, of v0.7) and are asserted at compile time. Everything is little-endian x86_64.

#![no_std]
#![forbid(unsafe_code)]

pub mod addr;
pub mod boot;
pub mod elf;
pub mod hypercall;
pub mod manifest;
pub mod note;
#[cfg(feature = "sites")]
pub mod sites;
pub mod spt;

pub use addr::GuestAddr;

/// Asserts a structure's size, alignment and field offsets at compile time.
macro_rules! assert_layout {
    ($type:ty, size $size:expr, align $align:expr $(, $field:ident @ $offset:expr)* $(,)?) => {
        const _: () = {
            assert!(core::mem::size_of::<$type>() == $size);
            assert!(core::mem::align_of::<$type>() == $align);
            $(assert!(core::mem::offset_of!($type, $field) == $offset);)*
        };
    };
}
pub(crate) use assert_layout;
