//! Bounds that only the engine knows; those of the protocol are in [`petrel_wire::limits`].

/// How long the shim may be silent while a request to it is unanswered, in nanoseconds.
pub(crate) const SHIM_SILENCE_NS: u64 = 30_000_000_000;
/// Creates that wait until their image has been looked into.
pub(crate) const CREATES_WAITING_MAX: usize = 128;
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
/// Places in the kept part of a console where bytes were lost.
pub(crate) const CONSOLE_GAPS_MAX: usize = 16;

/// A batch of the journal with its header, in bytes. No record is longer; it fits an area of the smallest device.
pub(crate) const BATCH_BYTES_MAX: usize = 32 * 1024;
/// A journal's log may always grow to this before the state is written anew, in bytes.
pub(crate) const LOG_BYTES_MIN: u64 = 1024 * 1024;
/// … and to so many times what the state took when it was written.
pub(crate) const LOG_PER_SNAPSHOT: u64 = 4;
/// How long a record that need not be durable at once waits for another that does, in nanoseconds.
pub(crate) const RECORD_WAIT_NS: u64 = 1_000_000_000;
/// … and how many may wait.
pub(crate) const RECORDS_WAITING_MAX: usize = 256;
/// What is read of the journal at once, in bytes. A batch fits.
pub(crate) const RECOVERY_BYTES: usize = 64 * 1024;
