//! A monitor's process: it runs until it ends, and its guest writes to a pipe that somebody reads, or nobody.

use petrel_wire::{ExitStatus, Name};

/// The bytes that the pipe of a console holds.
const PIPE_BYTES: u64 = 64 * 1024;

/// A monitor's process.
pub struct Process {
    /// Whose it is, if it is one of ours.
    pub name: Option<Name>,
    /// What its guest has, in MiB.
    pub memory_mib: u32,
    /// It was told to end.
    pub killed: bool,
    /// It will not end for a long time.
    pub stuck: bool,
    /// How it ended.
    pub ended: Option<ExitStatus>,
    /// The bytes that its guest has written.
    written: u64,
    /// How many of them were taken out of the pipe.
    read: u64,
}

impl Process {
    /// One that was just started.
    pub fn new(name: Option<Name>, memory_mib: u32) -> Self {
        Self { name, memory_mib, killed: false, stuck: false, ended: None, written: 0, read: 0 }
    }

    /// Whether it has not ended.
    pub fn is_running(&self) -> bool {
        self.ended.is_none()
    }

    /// The guest writes, as much as the pipe takes.
    pub fn write(&mut self, bytes: u64) {
        if self.is_running() {
            self.written = (self.written + bytes).min(self.read + PIPE_BYTES);
        }
    }

    /// Takes up to so many bytes out of the pipe.
    pub fn read(&mut self, most: usize) -> Vec<u8> {
        let from = self.read;
        self.read = self.written.min(from + most as u64);
        (from..self.read).map(console_byte).collect()
    }

    /// Whether there is something in the pipe.
    pub fn has_written(&self) -> bool {
        self.written > self.read
    }

    /// Drops the oldest bytes of a pipe that is nearly full; returns how many.
    pub fn shed(&mut self) -> u64 {
        let kept = PIPE_BYTES / 4 * 3;
        let surplus = (self.written - self.read).saturating_sub(kept);
        self.read += surplus;
        surplus
    }
}

/// What a guest writes at a position of its console: told from the bytes, a reader knows where it is.
pub fn console_byte(position: u64) -> u8 {
    u8::try_from(position % 251).unwrap_or(0)
}

/// Whose unikernel a tag is of. A tag begins with its version, the number of a generation, whether that was given up,
/// and the name.
pub fn name_of(tag: &[u8]) -> Option<Name> {
    let ((_, _, _, name), _) = postcard::take_from_bytes::<(u16, u32, bool, Name)>(tag).ok()?;
    Some(name)
}
