//! Block devices: files, or block devices of the host.

use std::os::fd::{AsRawFd, OwnedFd};

use hvt_abi::hypercall::ret;
use hvt_abi::manifest::Properties;
use rustix::fs::{Mode, OFlags, SeekFrom, fcntl_getfl, fcntl_setfl, open, seek};
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
    block_size: u16,
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
        let flags = fcntl_getfl(&fd).map_err(|error| format!("{name}: {path}: {error}"))?;
        // Who reads from a disk is nobody's business, and noting it down is a good part of a read's cost. Only the file's
        // owner may say so.
        let _ = fcntl_setfl(&fd, flags | OFlags::NOATIME);
        let writable = flags & OFlags::RWMODE == OFlags::RDWR;
        Ok(Self { fd, capacity, block_size: DEFAULT_BLOCK_SIZE, writable })
    }

    pub(super) fn complete(&mut self, name: &str, block_size: Option<u16>) -> Result<(), String> {
        self.block_size = block_size.unwrap_or(DEFAULT_BLOCK_SIZE);
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
        // Block sizes are powers of two, and a division would take as long as all the rest.
        inside && offset < self.capacity && len & (u64::from(self.block_size) - 1) == 0
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_told_that_the_disk_is_full() {
        let fd = open("/dev/full", OFlags::RDWR, Mode::empty()).unwrap();
        let full = Block { fd, capacity: 2048, block_size: 512, writable: true };
        assert_eq!(full.write(512, &[1; 1024]), ret::EUNSPEC);
        assert_eq!(full.read(512, &mut [1; 1024]), ret::OK, "what is there can be read");
    }

    #[test]
    fn a_guest_is_told_that_the_file_has_become_shorter() {
        let path = std::env::temp_dir().join(format!("petrel-block-{}", std::process::id()));
        std::fs::write(&path, [7; 2048]).unwrap();
        let block = Block::attach("disk", path.to_str().unwrap()).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_len(512).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((block.read(0, &mut [0; 512]), block.read(512, &mut [0; 512])), (ret::OK, ret::EUNSPEC));
    }
}
