//! Where an image's segments go in guest memory.

use core::ops::Range;

use super::header::{PT_LOAD, ProgramHeader};
use super::{ElfError, FileRange, Header, LayoutFault};
use crate::boot::{GUEST_MEM_MAX, GUEST_MIN_BASE};

/// Most loadable segments of an image; Solo5's own linker script makes three.
pub const MAX_SEGMENTS: usize = 16;

const PAGE_SIZE: u64 = 4096;

/// What may be done with a segment's memory. Never both written and executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// May be executed.
    pub execute: bool,
}

/// One loadable segment, checked: page aligned, within the file and below 4 GiB, apart from the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// First address of its pages.
    pub start: u64,
    /// First address after its pages.
    pub end: u64,
    /// Where the file's bytes go: `start` or above.
    pub load_at: u64,
    /// The bytes to load. Memory from their end to `end` is zero.
    pub file: FileRange,
    /// What may be done with its pages.
    pub permissions: Permissions,
}

impl Segment {
    fn check(header: &ProgramHeader, floor: u64, file_len: u64) -> Result<Self, LayoutFault> {
        let permissions = Permissions {
            execute: header.flags & 1 != 0,
            write: header.flags & 2 != 0,
            read: header.flags & 4 != 0,
        };
        if permissions.write && permissions.execute {
            return Err(LayoutFault::WriteAndExecute);
        }
        if header.mem_len < header.file.len {
            return Err(LayoutFault::MemorySmallerThanFile);
        }
        if !header.align.is_power_of_two() {
            return Err(LayoutFault::Alignment);
        }
        let start = header.vaddr & !(header.align - 1);
        let end = header.vaddr.checked_add(header.mem_len);
        let end = end.and_then(|end| end.checked_next_multiple_of(header.align));
        let end = end.ok_or(LayoutFault::TooHigh)?;
        if start < GUEST_MIN_BASE {
            return Err(LayoutFault::TooLow);
        }
        if start < floor {
            return Err(LayoutFault::Overlap);
        }
        if end > GUEST_MEM_MAX {
            return Err(LayoutFault::TooHigh);
        }
        if !start.is_multiple_of(PAGE_SIZE) || !end.is_multiple_of(PAGE_SIZE) {
            return Err(LayoutFault::Alignment);
        }
        if header.file.end().is_none_or(|end| end > file_len) {
            return Err(LayoutFault::OutsideFile);
        }
        Ok(Self { start, end, load_at: header.vaddr, file: header.file, permissions })
    }
}

/// An image's entry point and loadable segments, in ascending order of address.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Address of the first instruction; lies in an executable segment.
    pub entry: u64,
    count: usize,
    segments: [Segment; MAX_SEGMENTS],
}

impl Layout {
    /// The segments.
    pub fn segments(&self) -> &[Segment] {
        self.segments.get(..self.count).unwrap_or(&[])
    }

    /// Where the file has the bytes of these addresses, if all of them are loaded from it by one segment.
    pub fn file_range(&self, addresses: &Range<u64>) -> Option<FileRange> {
        self.segments().iter().find_map(|segment| {
            let within = FileRange {
                offset: addresses.start.checked_sub(segment.load_at)?,
                len: addresses.end.checked_sub(addresses.start)?,
            };
            let fits = within.end()? <= segment.file.len;
            fits.then_some(FileRange { offset: segment.file.offset + within.offset, ..within })
        })
    }

    /// First address after the last segment: the guest's memory must reach beyond it.
    pub fn end(&self) -> u64 {
        self.segments().last().map_or(GUEST_MIN_BASE, |segment| segment.end)
    }

    /// The least memory that such a guest can be given, in MiB. It reaches beyond the last segment: there would be no
    /// stack otherwise.
    pub fn memory_min_mib(&self) -> u32 {
        u32::try_from(self.end() / (1024 * 1024) + 1).unwrap_or(u32::MAX)
    }
}

impl Header {
    /// Checks the loadable segments and the entry point.
    pub fn layout(&self) -> Result<Layout, ElfError> {
        let mut layout = Layout { entry: self.entry, count: 0, segments: [Segment::default(); MAX_SEGMENTS] };
        for (index, header) in self.of_kind(PT_LOAD) {
            if header.mem_len == 0 {
                continue;
            }
            let bad = |fault| ElfError::BadSegment(index, fault);
            let floor = layout.end();
            let slot = layout.segments.get_mut(layout.count);
            let slot = slot.ok_or(bad(LayoutFault::TooMany))?;
            *slot = Segment::check(header, floor, self.file_len).map_err(bad)?;
            layout.count += 1;
        }
        let holds_entry = |s: &Segment| s.permissions.execute && (s.start..s.end).contains(&layout.entry);
        if layout.segments().iter().any(holds_entry) { Ok(layout) } else { Err(ElfError::BadEntry) }
    }
}
