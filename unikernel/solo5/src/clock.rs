//! Time.

use crate::hypercall;
use hvt_abi::hypercall::Walltime;

/// Nanoseconds since the CPU's time-stamp counter was zero. It never goes back, and costs no hypercall.
#[cfg(target_os = "solo5")]
pub fn monotonic_ns() -> u64 {
    // SAFETY: rdtsc has no precondition; tenders leave it unprivileged.
    let ticks = unsafe { core::arch::x86_64::_rdtsc() };
    crate::boot::info().tick_rate.nanoseconds(ticks)
}

/// Nanoseconds since the host program first asked.
#[cfg(not(target_os = "solo5"))]
pub fn monotonic_ns() -> u64 {
    static START: spin::Once<std::time::Instant> = spin::Once::new();
    let elapsed = START.call_once(std::time::Instant::now).elapsed();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds since 1970-01-01 00:00 UTC. The host's clock, asked each time, so its corrections show.
pub fn wall_ns() -> u64 {
    let mut walltime = Walltime::default();
    // SAFETY: the block holds no address.
    unsafe { hypercall::call(&mut walltime) };
    walltime.nsecs
}
