//! The bounds that are this program's own; those of the protocol are in [`petrel_wire::limits`].

use petrel_wire::limits::SESSIONS_MAX;

/// Sockets that wait for operators at once. smoltcp has no backlog: a connection beyond these, while they are
/// all in their TCP handshake, is refused and the client tries again.
pub const LISTENING: usize = 8;
/// Places for operators: for all sessions, and for those who are on their way in or out.
pub const PLACES_MAX: usize = SESSIONS_MAX + LISTENING;
/// The buffer of an operator's socket, each way, in bytes.
pub const SESSION_BUFFER_BYTES: usize = 64 * 1024;
/// The buffer of the link's socket, each way, in bytes.
pub const LINK_BUFFER_BYTES: usize = 256 * 1024;
/// The buffer of a probe's socket, each way, in bytes. It holds the longest request.
pub const PROBE_BUFFER_BYTES: usize = 1024;
/// How long a probe waits for an answer before it asks itself who has the address, in nanoseconds: who is known answers
/// sooner, and each question wakes all of the bridge.
pub const PROBE_ASKS_AFTER_NS: u64 = 100_000_000;
/// The ports that we connect from: RFC 6335, section 6.
pub const EPHEMERAL_FIRST: u16 = 49_152;
/// While more bytes than this wait for the shim, no session that uploads is read.
pub const LINK_QUEUE_BYTES: usize = 256 * 1024;

/// The frames that are taken from a device before what they brought is worked on.
pub const BURST_FRAMES: usize = 64;
/// The rounds of one turn of the loop; what is left then waits for the next, after the clock was read.
pub const ROUNDS_MAX: usize = 16;

/// From an operator's first packet to the end of the TLS handshake, in nanoseconds.
pub const HANDSHAKE_NS: u64 = 10_000_000_000;
/// How long the end of a session may take: its last bytes and the peer's goodbye, in nanoseconds.
pub const FAREWELL_NS: u64 = 2_000_000_000;
/// From the first packet to the shim to the end of the TLS handshake, in nanoseconds.
pub const LINK_OPENING_NS: u64 = 5_000_000_000;
/// The first wait before the link is tried again; it doubles with each failure, in nanoseconds.
pub const LINK_RETRY_MIN_NS: u64 = 50_000_000;
/// The longest such wait, in nanoseconds.
pub const LINK_RETRY_MAX_NS: u64 = 1_000_000_000;
