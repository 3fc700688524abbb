//! Section headers: optional in an image, but the only ones who tell code from constants.

use core::ops::Range;

use super::{FileRange, Header, u64_at};

/// Most section headers that are looked at.
pub const MAX_SECTIONS: u16 = 256;

pub(super) const SHDR_SIZE: usize = 64;
const SHF_EXECINSTR: u64 = 4;

impl Header {
    /// Where the image's section headers are, if it has any: at most [`MAX_SECTIONS`] of them, within the file.
    pub fn section_table(&self) -> Option<FileRange> {
        self.sections
    }
}

/// The addresses of the sections that hold machine code, from the bytes of [`Header::section_table`]. Nothing in
/// them is checked against the segments.
pub fn executable_sections(table: &[u8]) -> impl Iterator<Item = Range<u64>> {
    table.chunks_exact(SHDR_SIZE).filter_map(|section| {
        let (flags, start) = (u64_at(section, 8)?, u64_at(section, 16)?);
        let end = start.checked_add(u64_at(section, 32)?)?;
        (flags & SHF_EXECINSTR != 0).then_some(start..end)
    })
}
