//! Block devices: files, or block devices of the host.

use std::os::fd::{AsRawFd, OwnedFd};

use hvt_abi::hypercall::ret;
use hvt_abi::manifest::Properties;
use rustix::fs::{Mode, OFlags, SeekFrom, fcntl_getfl, open, seek};
use rustix::io::{Errno, pread, pwrite};

use super::inherited;
use crate::confine::{Rule, arg};

/// Block size in bytes where the user gives none.
const DEFAULT_BLOCK_SIZE: u16 = 512;

/// An attached block device.
#[derive(Debug)]
pub struct Block {
    pub(super) fd: OwnedFd,
    /// Size in bytes; a multiple of the block size once [`Block::complete`] has checked.
    capacity: u64,
    pub(super) block_size: u16,
    writable: bool,
}

impl Block {
    pub(super) fn attach(name: &str, path: &str) -> Result<Self, String> {
        let fd = match inherited::take(path) {
            Some(fd) => fd.map_err(|error| format!("Could not open block device: {name}: {error}"))?,
            None => {
                open_path(path).map_err(|error| format!("Could not open block device: {path}: {error}"))?
            }
        };
        let capacity = seek(&fd, SeekFrom::End(0))
            .map_err(|error| format!("{name}: {path}: Could not determine capacity: {error}"))?;
        if capacity < u64::from(DEFAULT_BLOCK_SIZE) {
            return Err(format!(
                "{path}: Backing storage must be at least 1 block ({DEFAULT_BLOCK_SIZE} bytes) in size"
            ));
        }
        let mode = fcntl_getfl(&fd).map_err(|error| format!("{name}: {path}: {error}"))? & OFlags::RWMODE;
        Ok(Self { fd, capacity, block_size: DEFAULT_BLOCK_SIZE, writable: mode == OFlags::RDWR })
    }

    pub(super) fn complete(&self, name: &str) -> Result<(), String> {
        let size = u64::from(self.block_size);
        if !self.capacity.is_multiple_of(size) {
            return Err(format!("{name}: Backing storage size must be block aligned ({size} bytes)"));
        }
        if self.capacity < size {
            return Err(format!("{name}: Backing storage must be at least 1 block ({size} bytes) in size"));
        }
        Ok(())
    }

    pub(super) fn properties(&self) -> Properties {
        Properties::block(self.capacity, self.block_size)
    }

    /// One rule for a transfer in each direction: exactly one block, within the device. So not even a guest that
    /// makes system calls of its own can grow the file.
    pub(super) fn rules(&self) -> Vec<Rule> {
        let transfer = |call, why| {
            let last = self.capacity - u64::from(self.block_size);
            let when =
                vec![arg(0).eq(self.fd.as_raw_fd()), arg(2).eq(u64::from(self.block_size)), arg(3).le(last)];
            Rule { call, when, why }
        };
        let read = transfer(libc::SYS_pread64, "reads a block");
        let write = self.writable.then(|| transfer(libc::SYS_pwrite64, "writes a block"));
        std::iter::once(read).chain(write).collect()
    }

    /// Whether a transfer is in whole blocks and within the device.
    pub fn admits(&self, offset: u64, len: u64) -> bool {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.capacity);
        inside && offset < self.capacity && len.is_multiple_of(u64::from(self.block_size))
    }

    /// Reads whole blocks; the caller has checked that the device admits it. Returns what the guest is told.
    pub fn read(&self, mut offset: u64, data: &mut [u8]) -> i32 {
        for block in data.chunks_mut(usize::from(self.block_size)) {
            if retry(|| pread(&self.fd, &mut *block, offset)) != Ok(block.len()) {
                return ret::EUNSPEC;
            }
            offset += block.len() as u64;
        }
        ret::OK
    }

    /// Writes whole blocks; the caller has checked that the device admits it. Returns what the guest is told: what a
    /// disk that is full or broken means is the guest's to say, as it is on any machine.
    pub fn write(&self, mut offset: u64, data: &[u8]) -> i32 {
        for block in data.chunks(usize::from(self.block_size)) {
            if !self.writable || retry(|| pwrite(&self.fd, block, offset)) != Ok(block.len()) {
                return ret::EUNSPEC;
            }
            offset += block.len() as u64;
        }
        ret::OK
    }
}

fn open_path(path: &str) -> Result<OwnedFd, Errno> {
    match open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
            open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        }
        result => result,
    }
}

fn retry(mut call: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
