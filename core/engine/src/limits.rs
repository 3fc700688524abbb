//! Bounds that only the engine knows; those of the protocol are in [`petrel_wire::limits`].

/// How long the shim may be silent while a request to it is unanswered, in nanoseconds.
pub(crate) const SHIM_SILENCE_NS: u64 = 30_000_000_000;
/// How long an open session may go without a look at the wall clock, in nanoseconds.
pub(crate) const CLOCK_CHECK_NS: u64 = 60_000_000_000;
/// Creates that wait until their image has been looked into.
pub(crate) const CREATES_WAITING_MAX: usize = 128;
/// The parts of one console that are told apart: by the second of their arrival, by lost bytes between them.
pub(crate) const CONSOLE_ENTRIES_MAX: usize = 256;
/// Writes of one session's pushes that the shim has not answered before its session is not read any more.
pub(crate) const PUSH_WRITES_MAX: usize = 16;
/// What is written to a volume before it is made durable, in bytes: the shim waits for the disk that long.
pub(crate) const SYNC_BYTES: u64 = 8 * 1024 * 1024;
/// How long after the shim could not list the volumes it is asked again, in nanoseconds.
pub(crate) const SURVEY_RETRY_NS: u64 = 1_000_000_000;
/// Pieces of a download that have been asked for and not been taken by the client.
pub(crate) const DOWNLOAD_PIECES_MAX: usize = 4;
/// Images that no unikernel is made of which stay when a create comes to nothing.
pub(crate) const IMAGES_SPARE_MAX: usize = 64;

/// How long a unikernel is left alone after it has ended soon for the first time, in nanoseconds. Doubled each time.
pub(crate) const BACK_OFF_MIN_NS: u64 = 200_000_000;
/// The longest that it is left alone, in nanoseconds.
pub(crate) const BACK_OFF_MAX_NS: u64 = 60_000_000_000;
/// Quick ends in a row that make a crash loop.
pub(crate) const QUICK_ENDS_MAX: u32 = 6;
/// With this, a unikernel has lived long enough for its quick ends to be forgotten, in nanoseconds.
pub(crate) const LONG_LIFE_NS: u64 = 60_000_000_000;
/// How long a killed monitor has to end before that is reported, in nanoseconds.
pub(crate) const KILL_DEADLINE_NS: u64 = 10_000_000_000;
/// After what the shim could not do, or had no room for, it is not asked again for so long, in nanoseconds.
pub(crate) const RETRY_NS: u64 = 1_000_000_000;

/// Probes under way at once.
pub(crate) const PROBES_MAX: usize = 16;
/// How long a probe that finds no place waits for one, in nanoseconds.
pub(crate) const PROBE_POSTPONED_NS: u64 = 100_000_000;
/// The time between two tries whether a unikernel is ready, in nanoseconds.
pub(crate) const READY_INTERVAL_NS: u64 = 250_000_000;
/// How long a probe may take, in milliseconds.
pub(crate) const PROBE_TIMEOUT_MS: u32 = 2_000;

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
