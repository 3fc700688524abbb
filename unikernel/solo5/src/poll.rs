//! Sleeping until there is something to do.

use crate::{Net, clock, hypercall};
use hvt_abi::hypercall::Poll;

/// The network devices that had a frame to read when [`yield_until`] returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadySet(u64);

impl ReadySet {
    /// Whether `net` has a frame to read.
    pub fn contains(self, net: &Net) -> bool {
        self.0 & net.ready_bit() != 0
    }

    /// Whether no device has a frame to read: the deadline passed.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Sleeps until a network device has a frame to read, or `deadline_ns` on the [monotonic](clock::monotonic_ns)
/// clock has come.
///
/// A deadline in the past asks without sleeping; [`u64::MAX`] is as good as never.
pub fn yield_until(deadline_ns: u64) -> ReadySet {
    #[cfg(target_os = "solo5")]
    crate::memory::check_stack();
    let timeout_nsecs = deadline_ns.saturating_sub(clock::monotonic_ns());
    let mut poll = Poll { timeout_nsecs: timeout_nsecs.min(TIMEOUT_MAX_NS), ..Poll::default() };
    // SAFETY: the block holds no address.
    unsafe { hypercall::call(&mut poll) };
    ReadySet(poll.ready_set)
}

/// Tenders arm a timer with signed seconds or milliseconds; a year is within all of their ranges. Callers loop.
const TIMEOUT_MAX_NS: u64 = 365 * 86_400 * 1_000_000_000;
