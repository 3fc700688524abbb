//! Bounds of this program.

use std::time::Duration;

/// How often the loop looks round.
pub const TICK: Duration = Duration::from_secs(1);
/// How long a disk may take to appear, in looks of [`DISK_LOOK`].
pub const DISK_LOOKS: u32 = 300;
/// The time between two looks for a disk.
pub const DISK_LOOK: Duration = Duration::from_millis(100);
/// What a message that somebody has to see waits for its repetition, in seconds.
pub const REMINDER_S: u32 = 60;
/// How long a system that was booted once waits to be kept.
pub const TRIAL: Duration = Duration::from_secs(120);
/// How much of a line of another program is taken for one, in bytes.
pub const LOG_LINE_BYTES_MAX: u64 = 2048;
/// A record of the kernel's log, in bytes: its own bound on what it gives to a reader.
pub const KERNEL_RECORD_BYTES_MAX: usize = 8192;
/// How long a killed process may take to end, in looks of [`DISK_LOOK`].
pub const END_LOOKS: u32 = 50;
