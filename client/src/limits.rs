//! The client's own bounds; those of the protocol are in [`petrel_wire::limits`].

use std::time::Duration;

/// How long an appliance may take to come back from an upgrade: it may go back to the system before.
pub const UPGRADE_TIMEOUT: Duration = Duration::from_secs(900);
/// How often it is asked meanwhile.
pub const UPGRADE_POLL: Duration = Duration::from_secs(1);
/// How long a TCP connection may take to come about.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long after each refusal of a connection it is tried again: a control plane that is just starting, or all of
/// whose listening sockets are in their handshake, refuses for a moment.
pub const REFUSED_AGAIN: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
];
/// How long the host may keep silent before it has greeted.
pub const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the host may keep silent while an answer is awaited, or take to accept what is sent.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a followed console may be quiet before TCP asks whether the host is still there.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
/// How long TCP waits between such questions.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How many such questions stay unanswered before the connection counts as lost.
pub const KEEPALIVE_TRIES: u32 = 3;
/// Answers to requests that nobody has asked for yet, in messages.
pub const BACKLOG_MAX: usize = 4096;
/// The files of a profile, each, in bytes.
pub const PROFILE_FILE_BYTES_MAX: u64 = 64 * 1024;
/// Volumes of one manifest: no host has more.
pub const MANIFEST_VOLUMES_MAX: usize = petrel_wire::limits::VOLUMES_MAX;
/// A manifest, in bytes.
pub const MANIFEST_BYTES_MAX: u64 = 4 * 1024 * 1024;
