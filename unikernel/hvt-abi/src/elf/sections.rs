//! Section headers: optional in an image, but the only ones who tell code from constants.

use core::ops::Range;

use super::{FileRange, Header, Layout, u32_at, u64_at};

/// Most section headers that are looked at.
pub const MAX_SECTIONS: u16 = 256;

pub(super) const SHDR_SIZE: usize = 64;
const SHT_NOTE: u32 = 7;
const SHF_EXECINSTR: u64 = 4;

/// Type of the note with which GNU's linker tells one build from another.
const NT_GNU_BUILD_ID: u32 = 3;
const GNU: &[u8] = b"GNU\0";
/// `Elf64_Nhdr`: the lengths of name and descriptor, and the type.
const NHDR_SIZE: usize = 12;

impl Header {
    /// Where the image's section headers are, if it has any: at most [`MAX_SECTIONS`] of them, within the file.
    pub fn section_table(&self) -> Option<FileRange> {
        self.sections
    }

    /// The image's build id, where its linker has given it one and no section header was stripped. `file` is all of it.
    pub fn build_id<'a>(&self, file: &'a [u8]) -> Option<&'a [u8]> {
        let table = self.section_table()?.of(file)?;
        let notes = table.chunks_exact(SHDR_SIZE).filter(|section| u32_at(section, 4) == Some(SHT_NOTE));
        let of_section =
            |section| FileRange { offset: u64_at(section, 24)?, len: u64_at(section, 32)? }.of(file);
        notes.filter_map(of_section).find_map(build_id)
    }
}

/// The addresses of machine code: the sections that hold it, from the bytes of [`Header::section_table`], or the segments
/// where there are no sections. (Segments are coarse: constants may share one with the code.) Nothing in a section's
/// header is checked against the segments.
pub fn code<'a>(table: &'a [u8], layout: &'a Layout) -> impl Iterator<Item = Range<u64>> {
    let sections = table.chunks_exact(SHDR_SIZE).filter_map(|section| {
        let (flags, start) = (u64_at(section, 8)?, u64_at(section, 16)?);
        let end = start.checked_add(u64_at(section, 32)?)?;
        (flags & SHF_EXECINSTR != 0).then_some(start..end)
    });
    let executable = layout.segments().iter().filter(|segment| segment.permissions.execute);
    let segments = executable.map(|segment| segment.load_at..segment.load_at + segment.file.len);
    sections.chain(segments.filter(|_| table.is_empty()))
}

/// The first build id among these notes.
fn build_id(mut notes: &[u8]) -> Option<&[u8]> {
    loop {
        let len = |at| u32_at(notes, at).and_then(|len| usize::try_from(len).ok());
        let (name_len, len) = (len(0)?, len(4)?);
        let kind = u32_at(notes, 8)?;
        let name_end = NHDR_SIZE.checked_add(name_len.checked_next_multiple_of(4)?)?;
        let descriptor = notes.get(name_end..)?.get(..len)?;
        if kind == NT_GNU_BUILD_ID && notes.get(NHDR_SIZE..)?.get(..name_len)? == GNU {
            return Some(descriptor);
        }
        notes = notes.get(name_end.checked_add(len.checked_next_multiple_of(4)?)?..)?;
    }
}
