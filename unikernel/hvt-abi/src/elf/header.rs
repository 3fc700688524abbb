//! The ELF header and the program headers.

use super::sections::{MAX_SECTIONS, SHDR_SIZE};
use super::{ElfError, u16_at, u32_at, u64_at};

/// How many bytes from the start of a file [`Header::parse`] may need.
pub const HEADER_BYTES: usize = 4096;

/// Most program headers of an image: what fits behind the ELF header into [`HEADER_BYTES`].
pub const MAX_PROGRAM_HEADERS: usize = (HEADER_BYTES - EHDR_SIZE) / PHDR_SIZE;

/// Largest range that [`Header::notes_range`] returns, in bytes: room for the largest manifest (6,680 bytes), the
/// other notes and the padding between them.
pub const NOTES_BYTES_MAX: u64 = 16 * 1024;

const EHDR_SIZE: usize = 64;
const PHDR_SIZE: usize = 56;
const NOTE_HEADER_MIN: u64 = 12;
const ET_EXEC: u16 = 2;
const EM_X86_64: u16 = 62;
pub(super) const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;

/// A range of bytes in an image's file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileRange {
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

impl FileRange {
    /// The first byte after the range, if it can be counted.
    pub const fn end(self) -> Option<u64> {
        self.offset.checked_add(self.len)
    }

    /// The range's bytes in the start of a file, where `bytes` covers it.
    pub fn of(self, bytes: &[u8]) -> Option<&[u8]> {
        let start = usize::try_from(self.offset).ok()?;
        let end = usize::try_from(self.end()?).ok()?;
        bytes.get(start..end)
    }
}

/// One program header, as it is in the file: nothing in it is checked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ProgramHeader {
    pub kind: u32,
    pub flags: u32,
    pub file: FileRange,
    pub vaddr: u64,
    pub mem_len: u64,
    pub align: u64,
}

impl ProgramHeader {
    fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            kind: u32_at(bytes, 0)?,
            flags: u32_at(bytes, 4)?,
            file: FileRange { offset: u64_at(bytes, 8)?, len: u64_at(bytes, 32)? },
            vaddr: u64_at(bytes, 16)?,
            mem_len: u64_at(bytes, 40)?,
            align: u64_at(bytes, 48)?,
        })
    }
}

/// An image's ELF header and program headers.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    pub(super) entry: u64,
    pub(super) file_len: u64,
    pub(super) sections: Option<FileRange>,
    notes: FileRange,
    count: usize,
    table: [ProgramHeader; MAX_PROGRAM_HEADERS],
}

impl Header {
    /// Reads the headers of a file of `file_len` bytes from its first [`HEADER_BYTES`] bytes (all of them where
    /// the file is shorter; more does no harm).
    pub fn parse(first_bytes: &[u8], file_len: u64) -> Result<Self, ElfError> {
        let (table_offset, count) = parse_elf_header(first_bytes)?;
        if count > MAX_PROGRAM_HEADERS {
            return Err(ElfError::TooManyProgramHeaders);
        }
        let range = FileRange { offset: table_offset, len: (count * PHDR_SIZE) as u64 };
        let end = range.end().ok_or(ElfError::BadHeader)?;
        if end > file_len {
            return Err(ElfError::Truncated);
        }
        if end > HEADER_BYTES as u64 {
            return Err(ElfError::TooManyProgramHeaders);
        }
        let bytes = range.of(first_bytes).ok_or(ElfError::Truncated)?;
        let mut table = [ProgramHeader::default(); MAX_PROGRAM_HEADERS];
        for (slot, bytes) in table.iter_mut().zip(bytes.chunks_exact(PHDR_SIZE)) {
            *slot = ProgramHeader::parse(bytes).ok_or(ElfError::Truncated)?;
        }
        let mut header = Self {
            entry: u64_at(first_bytes, 24).ok_or(ElfError::Truncated)?,
            file_len,
            sections: find_sections(first_bytes, file_len),
            notes: FileRange::default(),
            count,
            table,
        };
        header.notes = header.find_notes()?;
        Ok(header)
    }

    /// Where to find the image's notes: one range over all of its note segments, at most [`NOTES_BYTES_MAX`] long
    /// and within the file; empty where there are none. Its bytes are what [`super::Notes::parse`] takes.
    pub fn notes_range(&self) -> FileRange {
        self.notes
    }

    /// Where the interpreter's path (`PT_INTERP`) lies, if the image has one.
    pub fn interp(&self) -> Option<FileRange> {
        self.of_kind(PT_INTERP).map(|(_, header)| header.file).next()
    }

    /// The note segments, as ranges of the file.
    pub(super) fn note_segments(&self) -> impl Iterator<Item = (u16, FileRange)> {
        self.of_kind(PT_NOTE).map(|(index, header)| (index, header.file))
    }

    /// The program headers of one kind with their indices.
    pub(super) fn of_kind(&self, kind: u32) -> impl Iterator<Item = (u16, &ProgramHeader)> {
        (0u16..).zip(self.table.iter().take(self.count)).filter(move |(_, header)| header.kind == kind)
    }

    fn find_notes(&self) -> Result<FileRange, ElfError> {
        let mut span: Option<(u64, u64)> = None;
        for (index, range) in self.note_segments() {
            let bad = ElfError::BadNoteSegment(index);
            let end = range.end().ok_or(bad)?;
            if range.len < NOTE_HEADER_MIN || end > self.file_len {
                return Err(bad);
            }
            let (low, high) = span.unwrap_or((range.offset, end));
            let (low, high) = (low.min(range.offset), high.max(end));
            if high - low > NOTES_BYTES_MAX {
                return Err(bad);
            }
            span = Some((low, high));
        }
        let (low, high) = span.unwrap_or_default();
        Ok(FileRange { offset: low, len: high - low })
    }
}

/// The section headers, which an image need not have: what is wrong with them is no error.
fn find_sections(elf_header: &[u8], file_len: u64) -> Option<FileRange> {
    let count = u16_at(elf_header, 60)?;
    let range = FileRange { offset: u64_at(elf_header, 40)?, len: u64::from(count) * SHDR_SIZE as u64 };
    let usable = (1..=MAX_SECTIONS).contains(&count)
        && usize::from(u16_at(elf_header, 58)?) == SHDR_SIZE
        && range.end()? <= file_len;
    usable.then_some(range)
}

/// Checks the ELF header; returns offset and number of the program headers.
fn parse_elf_header(bytes: &[u8]) -> Result<(u64, usize), ElfError> {
    if !bytes.starts_with(b"\x7fELF") {
        return Err(ElfError::NotElf);
    }
    let header = bytes.get(..EHDR_SIZE).ok_or(ElfError::Truncated)?;
    let u16_in = |offset| u16_at(header, offset).ok_or(ElfError::Truncated);
    // EI_OSABI and EI_ABIVERSION are left alone: toolchains do not let one choose them.
    let class_64_little_endian = header.get(4..6) == Some(&[2, 1]);
    if !class_64_little_endian || u16_in(16)? != ET_EXEC || u16_in(18)? != EM_X86_64 {
        return Err(ElfError::WrongMachine);
    }
    let version = u32_at(header, 20).ok_or(ElfError::Truncated)?;
    let count = usize::from(u16_in(56)?);
    let sizes = (usize::from(u16_in(52)?), usize::from(u16_in(54)?));
    if version != 1 || sizes != (EHDR_SIZE, PHDR_SIZE) || count == 0 {
        return Err(ElfError::BadHeader);
    }
    let table_offset = u64_at(header, 32).ok_or(ElfError::Truncated)?;
    Ok((table_offset, count))
}
