//! Guest memory: the one place where a guest-physical address becomes bytes.

use std::ffi::c_void;
use std::ops::Range;
use std::ptr;

use hvt_abi::GuestAddr;
use hvt_abi::boot::{BOOT_INFO_BASE, BootInfo, GUEST_MIN_BASE};
use hvt_abi::elf::Permissions;
use hvt_abi::hypercall::{BlockRead, BlockWrite, Halt, NetRead, NetWrite, Poll, Puts, Walltime};
use hvt_abi::manifest::{Entry, ManifestHeader};
use hvt_abi::spt;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// Plain data that may be copied into and out of guest memory.
///
/// # Safety
/// Every bit pattern must be a valid value of the type.
pub unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($type:ty),* $(,)?) => {
        $(
            // SAFETY: made of integers and arrays of integers only.
            unsafe impl Plain for $type {}
        )*
    };
}
plain!(
    u8,
    u16,
    u32,
    u64,
    i32,
    BootInfo,
    spt::BootInfo,
    ManifestHeader,
    Entry,
    Walltime,
    Puts,
    Poll,
    BlockWrite,
    BlockRead,
    NetWrite,
    NetRead,
    Halt,
    [u8; 16],
    [u64; 7],
);

/// A guest address that the guest may not use so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadAccess {
    /// First address of the range.
    pub addr: GuestAddr,
    /// Its length in bytes.
    pub len: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// The memory of one guest.
#[derive(Debug)]
pub struct GuestMemory {
    /// Host address of guest-physical address 0 (which itself need not be mapped).
    base: usize,
    size: u64,
    /// First guest-physical address that is mapped.
    mapped_from: u64,
    /// The image's segments, and what the guest may do with them.
    segments: Vec<(Range<u64>, Permissions)>,
    /// From here on all is the guest's to read and write.
    free_from: u64,
}

impl GuestMemory {
    /// Maps `size` bytes of zeroed memory at a host address of the kernel's choice.
    pub fn anywhere(size: u64) -> Result<Self, String> {
        let base = map(0, size, MapFlags::PRIVATE | MapFlags::NORESERVE)?;
        Ok(Self::new(base, size, 0))
    }

    /// Maps `size` bytes of zeroed memory so that host and guest-physical addresses agree. What lies below
    /// [`BOOT_INFO_BASE`] stays unmapped, as it is for the guest.
    pub fn identity(size: u64) -> Result<Self, String> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
        let at = usize_from(BOOT_INFO_BASE);
        // A kernel that does not know FIXED_NOREPLACE takes the address for a hint.
        if map(at, size - BOOT_INFO_BASE, flags)? != at {
            return Err("guest memory: the host has something else at these addresses".into());
        }
        Ok(Self::new(0, size, BOOT_INFO_BASE))
    }

    fn new(base: usize, size: u64, mapped_from: u64) -> Self {
        let free_from = GUEST_MIN_BASE;
        Self { base, size, mapped_from, segments: Vec::new(), free_from }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where the host sees guest-physical address 0.
    pub fn host_address(&self) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.base)
    }

    /// Gives the pages of a segment their permissions, for the host (`host`) and in all later checks (`guest`).
    /// Segments come in ascending order.
    pub fn protect(
        &mut self,
        pages: Range<u64>,
        guest: Permissions,
        host: MprotectFlags,
    ) -> Result<(), String> {
        self.protect_host(pages.clone(), host)?;
        if !(guest.read && guest.write) {
            self.free_from = self.free_from.max(pages.end);
        }
        self.segments.push((pages, guest));
        Ok(())
    }

    /// Gives pages their permissions for the host only.
    pub fn protect_host(&self, pages: Range<u64>, host: MprotectFlags) -> Result<(), String> {
        if pages.start < self.mapped_from || pages.end > self.size || pages.start >= pages.end {
            return Err("guest memory is too small for the executable".into());
        }
        let start = self.pointer(pages.start).cast::<c_void>();
        // SAFETY: the range was just checked to lie within the mapping; no reference into it is held.
        unsafe { mprotect(start, usize_from(pages.end - pages.start), host) }
            .map_err(|error| format!("mprotect failed: {error}"))
    }

    /// Copies a value out of guest memory.
    #[inline]
    pub fn read<T: Plain>(&self, addr: GuestAddr) -> Result<T, BadAccess> {
        let from = self.check(addr, size_of::<T>() as u64, Access::Read)?;
        // SAFETY: `check` found size_of::<T> readable bytes there; any bits make a T; unaligned is allowed.
        Ok(unsafe { from.cast::<T>().read_unaligned() })
    }

    /// Copies a value into guest memory.
    #[inline]
    pub fn write<T: Plain>(&mut self, addr: GuestAddr, value: T) -> Result<(), BadAccess> {
        let to = self.check(addr, size_of::<T>() as u64, Access::Write)?;
        // SAFETY: `check` found size_of::<T> writable bytes there; unaligned is allowed.
        unsafe { to.cast::<T>().write_unaligned(value) };
        Ok(())
    }

    /// Bytes that the guest may read. The guest stands still while the slice lives.
    #[inline]
    pub fn bytes(&self, addr: GuestAddr, len: u64) -> Result<&[u8], BadAccess> {
        let from = self.check(addr, len, Access::Read)?;
        // SAFETY: `check` found `len` readable bytes; the guest has one virtual CPU, which waits for us.
        Ok(unsafe { std::slice::from_raw_parts(from, usize_from(len)) })
    }

    /// Bytes that the guest may write. The guest stands still while the slice lives.
    #[inline]
    pub fn bytes_mut(&mut self, addr: GuestAddr, len: u64) -> Result<&mut [u8], BadAccess> {
        let to = self.check(addr, len, Access::Write)?;
        // SAFETY: `check` found `len` writable bytes; the guest has one virtual CPU, which waits for us.
        Ok(unsafe { std::slice::from_raw_parts_mut(to, usize_from(len)) })
    }

    /// The tender's own area below [`GUEST_MIN_BASE`], for boot information, page tables and the like.
    pub fn private_mut(&mut self, addr: u64, len: u64) -> Result<&mut [u8], BadAccess> {
        let end = addr.checked_add(len);
        if addr < self.mapped_from || end.is_none_or(|end| end > GUEST_MIN_BASE.min(self.size)) {
            return Err(BadAccess { addr: GuestAddr::new(addr), len });
        }
        // SAFETY: just checked to be mapped; the loader has not protected this area yet or never does.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.pointer(addr), usize_from(len)) })
    }

    /// Copies a value into the tender's own area; see [`GuestMemory::private_mut`].
    pub fn write_private<T: Plain>(&mut self, addr: u64, value: T) -> Result<(), BadAccess> {
        let to = self.private_mut(addr, size_of::<T>() as u64)?.as_mut_ptr();
        // SAFETY: `private_mut` found size_of::<T> writable bytes there; unaligned is allowed.
        unsafe { to.cast::<T>().write_unaligned(value) };
        Ok(())
    }

    fn pointer(&self, addr: u64) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.base + usize_from(addr))
    }

    #[inline]
    fn check(&self, addr: GuestAddr, len: u64, access: Access) -> Result<*mut u8, BadAccess> {
        let start = addr.raw();
        match start.checked_add(len) {
            Some(end) if end <= self.size && (start >= self.free_from || self.may(start..end, access)) => {
                Ok(self.pointer(start))
            }
            _ => Err(BadAccess { addr, len }),
        }
    }

    /// The slow path: something below the end of the image's code and constants.
    #[cold]
    fn may(&self, range: Range<u64>, access: Access) -> bool {
        let lowest = match access {
            Access::Read => BOOT_INFO_BASE,
            Access::Write => GUEST_MIN_BASE,
        };
        range.start >= lowest
            && self.segments.iter().all(|(pages, permissions)| {
                let apart = range.end <= pages.start || range.start >= pages.end;
                apart
                    || match access {
                        Access::Read => permissions.read || permissions.execute,
                        Access::Write => permissions.write,
                    }
            })
    }
}

impl Drop for GuestMemory {
    fn drop(&mut self) {
        let start = self.pointer(self.mapped_from).cast::<c_void>();
        // SAFETY: exactly what was mapped, of which no reference outlives `self`.
        let _ = unsafe { munmap(start, usize_from(self.size - self.mapped_from)) };
    }
}

fn map(at: usize, len: u64, flags: MapFlags) -> Result<usize, String> {
    let at = ptr::without_provenance_mut::<c_void>(at);
    // SAFETY: without FIXED the kernel picks free addresses, and FIXED_NOREPLACE replaces nothing.
    let mapped = unsafe { mmap_anonymous(at, usize_from(len), ProtFlags::READ | ProtFlags::WRITE, flags) };
    mapped
        .map(|base| base.expose_provenance())
        .map_err(|error| format!("Error allocating guest memory: {error}"))
}

/// Guest addresses and lengths fit a host pointer: this crate is for x86_64 only.
#[expect(clippy::cast_possible_truncation, reason = "usize has 64 bits")]
pub const fn usize_from(value: u64) -> usize {
    const { assert!(size_of::<usize>() == size_of::<u64>()) };
    value as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const TEXT: Permissions = Permissions { read: true, write: false, execute: true };

    fn guest() -> GuestMemory {
        let mut memory = GuestMemory::anywhere(2 * MIB).unwrap();
        memory.protect(0x100000..0x101000, TEXT, MprotectFlags::READ).unwrap();
        memory
    }

    #[test]
    fn given_an_address_in_free_memory_when_written_then_it_reads_back() {
        let mut memory = guest();
        let addr = GuestAddr::new(2 * MIB - 8);
        memory.write(addr, 0x0123_4567_89ab_cdef_u64).unwrap();
        assert_eq!(memory.read::<u64>(addr), Ok(0x0123_4567_89ab_cdef));
    }

    #[test]
    fn given_a_range_beyond_the_end_when_accessed_then_it_is_refused() {
        let mut memory = guest();
        for (addr, len) in
            [(2 * MIB - 7, 8), (2 * MIB + 1, 0), (u64::MAX, 2), (u64::MAX - 7, 8), (4096, u64::MAX)]
        {
            let bad = BadAccess { addr: GuestAddr::new(addr), len };
            assert_eq!(memory.bytes(bad.addr, len), Err(bad));
            assert_eq!(memory.bytes_mut(bad.addr, len), Err(bad));
        }
    }

    #[test]
    fn given_read_only_pages_when_written_then_only_reading_is_allowed() {
        let mut memory = guest();
        for (addr, len) in [(0x100ff8, 8), (0x100fff, 2), (0xfffff, 1), (0x10000, 4)] {
            assert!(memory.bytes(GuestAddr::new(addr), len).is_ok());
            assert!(memory.bytes_mut(GuestAddr::new(addr), len).is_err());
        }
        assert!(memory.bytes_mut(GuestAddr::new(0x101000), 8).is_ok());
    }

    #[test]
    fn given_the_tenders_own_pages_when_the_guest_names_them_then_it_is_refused() {
        let memory = guest();
        for addr in [0, 8, 0x1000, 0xfff8] {
            assert!(memory.read::<u64>(GuestAddr::new(addr)).is_err());
        }
    }
}
