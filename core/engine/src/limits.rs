//! Bounds that only the engine knows; those of the protocol are in [`petrel_wire::limits`].

/// How long the shim may be silent while a request to it is unanswered, in nanoseconds.
pub(crate) const SHIM_SILENCE_NS: u64 = 30_000_000_000;
/// How long an open session may go without a look at the wall clock, in nanoseconds.
pub(crate) const CLOCK_CHECK_NS: u64 = 60_000_000_000;
/// Creates that wait until their image has been looked into.
pub(crate) const CREATES_WAITING_MAX: usize = 128;
/// Places in the kept part of a console where bytes were lost.
pub(crate) const CONSOLE_GAPS_MAX: usize = 16;
