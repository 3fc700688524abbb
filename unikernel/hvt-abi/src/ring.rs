//! The shared ring for network I/O (Solo5 v0.11 and later), where a tender offers it: `hvt_ring.h`.
//!
//! The guest puts requests into [`Entry`] slots and counts them in `ent_tail`; the tender takes them, counts them in
//! `ent_head`, and answers reads in [`Commit`] slots, counted in `com_tail`, which the guest takes and counts in `com_head`.
//! Counters run freely; a slot's number is its count modulo [`SLOTS`]. A tender that is about to sleep sets `needs_kick`; the
//! guest then writes to [`crate::hypercall::RING_KICK_PORT`].

use crate::{GuestAddr, assert_layout};

/// Number of slots of either kind.
pub const SLOTS: u32 = 1024;

/// How often a tender looks for work before it sleeps.
pub const POLLS: u32 = 4096;

/// Sends a frame; there is no answer.
pub const NET_WRITE: u32 = 1;
/// Receives a frame, if there is one; the answer comes at once.
pub const NET_READ: u32 = 2;

/// A request.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Entry {
    /// [`NET_WRITE`] or [`NET_READ`]; all else is ignored.
    pub operation: u32,
    /// The device's index in the manifest.
    pub handle: u32,
    /// The frame, or where to put it.
    pub data: GuestAddr,
    /// Its length in bytes, or the room there.
    pub len: u32,
    /// The guest's own.
    pub id: u32,
    /// Zero.
    pub reserved: u64,
}

/// The answer to a read.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Commit {
    /// That of the request.
    pub id: u32,
    /// One of [`crate::hypercall::ret`].
    pub ret: i32,
    /// The frame's length in bytes.
    pub len: u32,
    /// Zero.
    pub reserved: u32,
}

/// The ring. Guest and tender write at the same time, so this type is for its layout only.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    /// Written by the guest: requests made.
    pub ent_tail: u32,
    /// Written by the guest: answers taken.
    pub com_head: u32,
    /// Keeps the two sides' counters in cache lines of their own.
    pub guest_padding: [u8; 56],
    /// Written by the tender: requests taken.
    pub ent_head: u32,
    /// Written by the tender: answers given.
    pub com_tail: u32,
    /// Written by the tender: 1 when it is about to sleep.
    pub needs_kick: u32,
    /// As above.
    pub host_padding: [u8; 52],
    /// The requests.
    pub entries: [Entry; SLOTS as usize],
    /// The answers.
    pub commits: [Commit; SLOTS as usize],
}

assert_layout!(Entry, size 32, align 8, operation @ 0, handle @ 4, data @ 8, len @ 16, id @ 20, reserved @ 24);
assert_layout!(Commit, size 16, align 4, id @ 0, ret @ 4, len @ 8, reserved @ 12);
assert_layout!(
    Ring, size 128 + 1024 * 48, align 8,
    ent_tail @ 0, com_head @ 4, ent_head @ 64, com_tail @ 68, needs_kick @ 72, entries @ 128, commits @ 128 + 1024 * 32,
);
