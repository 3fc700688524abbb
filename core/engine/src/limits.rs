//! Bounds that only the engine knows; those of the protocol are in [`petrel_wire::limits`].

/// How long the shim may be silent while a request to it is unanswered, in nanoseconds.
pub(crate) const SHIM_SILENCE_NS: u64 = 30_000_000_000;
/// Creates that wait until their image has been looked into.
pub(crate) const CREATES_WAITING_MAX: usize = 128;
/// The parts of one console that are told apart: by the second of their arrival, by lost bytes between them.
pub(crate) const CONSOLE_ENTRIES_MAX: usize = 256;
