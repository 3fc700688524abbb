//! Block devices.

use crate::device::{IoError, acquire, result};
use crate::hypercall;
use hvt_abi::hypercall::{BlockRead, BlockWrite};
use hvt_abi::manifest::DeviceKind;

/// A block device. Offsets are in bytes; offsets and lengths are multiples of the block size.
///
/// The interface has no flush: a write is as durable as the tender makes it.
#[derive(Debug)]
pub struct Block {
    handle: u64,
    capacity: u64,
    block_size: usize,
}

impl Block {
    /// Takes the block device that the manifest declares as `name`; nothing when it declares none, or when the
    /// device was taken before.
    pub fn acquire(name: &str) -> Option<Self> {
        let (handle, properties) = acquire(DeviceKind::Block, name)?;
        let block_size = usize::from(properties.block_size());
        // A tender that reports no block size could never be asked for anything.
        (block_size > 0).then(|| Self { handle, capacity: properties.capacity(), block_size })
    }

    /// Its size in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes in a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Fills `data` from what is at `offset`.
    ///
    /// # Errors
    /// [`IoError::OutOfBounds`] when the range is not made of whole blocks of the device; else what the tender
    /// says, with the blocks before the one that failed in place.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), IoError> {
        check_range(self.capacity, self.block_size, offset, data.len())?;
        // Tenders take one block a call.
        for (block, offset) in data.chunks_exact_mut(self.block_size).zip((offset..).step_by(self.block_size))
        {
            let mut read = BlockRead {
                handle: self.handle,
                offset,
                data: hypercall::address_of_mut(block),
                len: block.len() as u64,
                ..BlockRead::default()
            };
            // SAFETY: data and len are those of a slice borrowed mutably for the whole call.
            unsafe { hypercall::call(&mut read) };
            result(read.ret)?;
        }
        Ok(())
    }

    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// As [`read`](Self::read): the blocks before the one that failed are written.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), IoError> {
        check_range(self.capacity, self.block_size, offset, data.len())?;
        for (block, offset) in data.chunks_exact(self.block_size).zip((offset..).step_by(self.block_size)) {
            let mut write = BlockWrite {
                handle: self.handle,
                offset,
                data: hypercall::address_of(block),
                len: block.len() as u64,
                ..BlockWrite::default()
            };
            // SAFETY: data and len are those of a slice borrowed for the whole call; the tender only reads it.
            unsafe { hypercall::call(&mut write) };
            result(write.ret)?;
        }
        Ok(())
    }
}

/// Whether `len` bytes at `offset` are whole blocks within `capacity`.
fn check_range(capacity: u64, block_size: usize, offset: u64, len: usize) -> Result<(), IoError> {
    let whole_blocks = offset.is_multiple_of(block_size as u64) && len.is_multiple_of(block_size);
    let end = offset.checked_add(len as u64);
    if whole_blocks && end.is_some_and(|end| end <= capacity) { Ok(()) } else { Err(IoError::OutOfBounds) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_whole_blocks_within_the_device_is_taken() {
        for (offset, len) in [(0, 512), (0, 2048), (1536, 512), (2048, 0), (512, 1024)] {
            assert_eq!(check_range(2048, 512, offset, len), Ok(()), "{len} bytes at {offset}");
        }
    }

    #[test]
    fn a_range_that_is_not_of_the_device_is_refused() {
        for (offset, len) in [(0, 1), (1, 512), (0, 2560), (2048, 512), (u64::MAX - 511, 512), (0, 513)] {
            assert_eq!(
                check_range(2048, 512, offset, len),
                Err(IoError::OutOfBounds),
                "{len} bytes at {offset}"
            );
        }
    }
}
