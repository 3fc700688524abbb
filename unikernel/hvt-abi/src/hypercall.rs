//! The hypercalls: numbers, ports and argument blocks.
//!
//! A guest asks for hypercall `n` with a 32-bit `out` to port `0x500 + n`; `eax` holds the guest-physical
//! address of the argument block. Fields are marked `in`, `out` or `in/out` as the tender sees them.

use crate::{GuestAddr, assert_layout};

/// Port of hypercall number 0 (which does not exist).
pub const PORT_BASE: u16 = 0x500;

/// Port on which guests kick ring I/O where a tender offers it (Solo5 v0.11 and later).
pub const RING_KICK_PORT: u16 = 0x600;

/// Bytes that a tender may read at a halt cookie.
pub const HALT_COOKIE_MAX: u64 = 512;

/// A hypercall's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Hypercall {
    /// The wall clock: [`Walltime`].
    Walltime = 1,
    /// Console output: [`Puts`].
    Puts,
    /// Sleep until a net device is readable or time is up: [`Poll`].
    Poll,
    /// Write to a block device: [`BlockWrite`].
    BlockWrite,
    /// Read from a block device: [`BlockRead`].
    BlockRead,
    /// Send a frame: [`NetWrite`].
    NetWrite,
    /// Receive a frame: [`NetRead`].
    NetRead,
    /// End the guest: [`Halt`].
    Halt,
}

impl Hypercall {
    /// The I/O port that asks for this hypercall.
    pub const fn port(self) -> u16 {
        PORT_BASE + self as u16
    }

    /// The hypercall behind an I/O port, if there is one.
    pub const fn from_port(port: u16) -> Option<Self> {
        Some(match port.wrapping_sub(PORT_BASE) {
            1 => Self::Walltime,
            2 => Self::Puts,
            3 => Self::Poll,
            4 => Self::BlockWrite,
            5 => Self::BlockRead,
            6 => Self::NetWrite,
            7 => Self::NetRead,
            8 => Self::Halt,
            _ => return None,
        })
    }
}

/// Results that hypercalls put in their `ret` field (`solo5_result_t`).
pub mod ret {
    /// Done.
    pub const OK: i32 = 0;
    /// Nothing to do now, try again later.
    pub const AGAIN: i32 = 1;
    /// An argument is invalid.
    pub const EINVAL: i32 = 2;
    /// Any other failure.
    pub const EUNSPEC: i32 = 3;
}

/// Argument of [`Hypercall::Walltime`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Walltime {
    /// Out: nanoseconds since 1970-01-01 00:00 UTC.
    pub nsecs: u64,
}

/// Argument of [`Hypercall::Puts`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Puts {
    /// In: the text.
    pub data: GuestAddr,
    /// In: its length in bytes.
    pub len: u64,
}

/// Argument of [`Hypercall::Poll`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Poll {
    /// In: how long to sleep at most, in nanoseconds.
    pub timeout_nsecs: u64,
    /// Out: bit `h` is set when the net device with handle `h` can be read.
    pub ready_set: u64,
    /// Out: number of devices that can be read.
    pub ret: i32,
}

/// Argument of [`Hypercall::BlockWrite`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct BlockWrite {
    /// In: the device's index in the manifest.
    pub handle: u64,
    /// In: bytes from the start of the device.
    pub offset: u64,
    /// In: what to write.
    pub data: GuestAddr,
    /// In: its length in bytes.
    pub len: u64,
    /// Out: one of [`ret`].
    pub ret: i32,
}

/// Argument of [`Hypercall::BlockRead`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct BlockRead {
    /// In: the device's index in the manifest.
    pub handle: u64,
    /// In: bytes from the start of the device.
    pub offset: u64,
    /// In: where to put what is read.
    pub data: GuestAddr,
    /// In/out: bytes wanted, then bytes read.
    pub len: u64,
    /// Out: one of [`ret`].
    pub ret: i32,
}

/// Argument of [`Hypercall::NetWrite`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct NetWrite {
    /// In: the device's index in the manifest.
    pub handle: u64,
    /// In: the frame.
    pub data: GuestAddr,
    /// In: its length in bytes.
    pub len: u64,
    /// Out: one of [`ret`].
    pub ret: i32,
}

/// Argument of [`Hypercall::NetRead`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct NetRead {
    /// In: the device's index in the manifest.
    pub handle: u64,
    /// In: where to put the frame.
    pub data: GuestAddr,
    /// In/out: room in bytes, then the frame's length.
    pub len: u64,
    /// Out: one of [`ret`].
    pub ret: i32,
}

/// Argument of [`Hypercall::Halt`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Halt {
    /// In: null, or [`HALT_COOKIE_MAX`] bytes that help a debugger (a trap frame).
    pub cookie: GuestAddr,
    /// In: the exit status, of which the host sees the low eight bits.
    pub exit_status: i32,
}

assert_layout!(Walltime, size 8, align 8, nsecs @ 0);
assert_layout!(Puts, size 16, align 8, data @ 0, len @ 8);
assert_layout!(Poll, size 24, align 8, timeout_nsecs @ 0, ready_set @ 8, ret @ 16);
assert_layout!(BlockWrite, size 40, align 8, handle @ 0, offset @ 8, data @ 16, len @ 24, ret @ 32);
assert_layout!(BlockRead, size 40, align 8, handle @ 0, offset @ 8, data @ 16, len @ 24, ret @ 32);
assert_layout!(NetWrite, size 32, align 8, handle @ 0, data @ 8, len @ 16, ret @ 24);
assert_layout!(NetRead, size 32, align 8, handle @ 0, data @ 8, len @ 16, ret @ 24);
assert_layout!(Halt, size 16, align 8, cookie @ 0, exit_status @ 8);
