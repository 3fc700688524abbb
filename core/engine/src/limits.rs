//! Bounds that only the engine knows; those of the protocol are in [`petrel_wire::limits`].

/// How long the shim may be silent while a request to it is unanswered, in nanoseconds.
pub(crate) const SHIM_SILENCE_NS: u64 = 30_000_000_000;
/// Creates that wait until their image has been looked into.
pub(crate) const CREATES_WAITING_MAX: usize = 128;
/// Writes of one session's pushes that the shim has not answered before its session is not read any more.
pub(crate) const PUSH_WRITES_MAX: usize = 16;
/// What is written to a volume before it is made durable, in bytes: the shim waits for the disk that long.
pub(crate) const SYNC_BYTES: u64 = 8 * 1024 * 1024;
/// Pieces of a download that have been asked for and not been taken by the client.
pub(crate) const DOWNLOAD_PIECES_MAX: usize = 4;
/// Images that no unikernel is made of which stay when a create comes to nothing.
pub(crate) const IMAGES_SPARE_MAX: usize = 16;
/// Places in the kept part of a console where bytes were lost.
pub(crate) const CONSOLE_GAPS_MAX: usize = 16;
