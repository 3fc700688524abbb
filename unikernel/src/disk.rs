//! What the engine's state is kept on.

use alloc::string::String;

/// A block device. Offsets and lengths are whole blocks, in bytes.
pub trait Disk {
    /// Its size.
    fn bytes(&self) -> u64;

    /// The size of a block.
    fn block_bytes(&self) -> usize;

    /// Fills `data` from what is at `offset`.
    ///
    /// # Errors
    /// What the device says.
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), String>;

    /// Writes `data` at `offset`. When it returns, that is there to stay: the interface has no flush, so whoever
    /// attached the device has seen to it that each write is synchronous.
    ///
    /// # Errors
    /// What the device says. A part of it may have been written.
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), String>;
}
