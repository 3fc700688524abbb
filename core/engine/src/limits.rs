//! Bounds that only the engine knows; those of the protocol are in [`petrel_wire::limits`].

/// How long the shim may be silent while a request to it is unanswered, in nanoseconds.
pub(crate) const SHIM_SILENCE_NS: u64 = 30_000_000_000;
/// Creates that wait until their image has been looked into.
pub(crate) const CREATES_WAITING_MAX: usize = 128;
/// The parts of one console that are told apart: by the second of their arrival, by lost bytes between them.
pub(crate) const CONSOLE_ENTRIES_MAX: usize = 256;

/// A batch of the journal with its header, in bytes. No record is longer; it fits an area of the smallest device.
pub(crate) const BATCH_BYTES_MAX: usize = 32 * 1024;
/// A journal's log may always grow to this before the state is written anew, in bytes.
pub(crate) const LOG_BYTES_MIN: u64 = 1024 * 1024;
/// … and to so many times what the state took when it was written.
pub(crate) const LOG_PER_SNAPSHOT: u64 = 4;
/// What has happened takes at most this part of the room for the state when that is written.
pub(crate) const HISTORY_PER_AREA: u64 = 8;
/// How long a record that need not be durable at once waits for another that does, in nanoseconds.
pub(crate) const RECORD_WAIT_NS: u64 = 1_000_000_000;
/// … and how many may wait.
pub(crate) const RECORDS_WAITING_MAX: usize = 256;
/// What is read of the journal at once, in bytes. A batch fits.
pub(crate) const RECOVERY_BYTES: usize = 64 * 1024;
