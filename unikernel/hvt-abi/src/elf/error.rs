//! What can be wrong with an image.

use core::fmt;

use crate::boot::{GUEST_MIN_BASE, HVT_ABI_VERSION, HVT_ABI_VERSION_MIN};
use crate::note::Target;

/// Why bytes are not an image that can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElfError {
    /// The file does not start as an ELF file does.
    NotElf,
    /// An ELF file, but not a static little-endian 64-bit x86_64 executable.
    WrongMachine,
    /// The file ends before something that its headers speak of, or the caller gave fewer bytes than asked for.
    Truncated,
    /// The ELF header contradicts itself or the ELF specification.
    BadHeader,
    /// More program headers than a reader of the first 4 KiB can see.
    TooManyProgramHeaders,
    /// The program header with this index names a note segment that is too short or too far from the others, or whose
    /// note is too short or too long for its type.
    BadNoteSegment(u16),
    /// No Solo5 ABI note: not a Solo5 executable at all.
    NoAbiNote,
    /// The ABI note has the wrong length.
    BadAbiNote,
    /// No Solo5 manifest note.
    NoManifest,
    /// The manifest is not valid.
    BadManifest(ManifestFault),
    /// Made for another Solo5 target.
    WrongTarget(Target),
    /// Made for another version of its target's ABI.
    WrongAbiVersion(u32),
    /// The segment of the program header with this index cannot be loaded.
    BadSegment(u16, LayoutFault),
    /// Nothing to load, or an entry point outside the executable segments.
    BadEntry,
}

/// What is wrong with a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestFault {
    /// The note's length does not fit the number of entries.
    Size,
    /// Not manifest version 1.
    Version,
    /// No entries, or more than 64.
    EntryCount,
    /// The first entry is not the reserved one.
    FirstEntry,
    /// The entry with this index has a name that is not 1 to 67 ASCII letters and digits.
    Name(u8),
    /// The entry with this index has the name of an earlier one.
    DuplicateName(u8),
    /// The entry with this index is neither a block nor a net device.
    Kind(u8),
    /// The entry with this index claims to be attached already.
    Attached(u8),
}

/// Why a segment cannot be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutFault {
    /// More loadable segments than [`super::MAX_SEGMENTS`].
    TooMany,
    /// It starts below the lowest address of a guest.
    TooLow,
    /// It overlaps the segment before it, or comes before it.
    Overlap,
    /// Its alignment is no power of two, or its ends are not page aligned.
    Alignment,
    /// It ends above 4 GiB.
    TooHigh,
    /// It is smaller in memory than in the file.
    MemorySmallerThanFile,
    /// The file ends before it does.
    OutsideFile,
    /// It would be both writable and executable.
    WriteAndExecute,
}

impl fmt::Display for ElfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotElf => f.write_str("not an ELF file"),
            Self::WrongMachine => {
                f.write_str("not a static executable for x86_64 (64-bit, little-endian ELF)")
            }
            Self::Truncated => f.write_str("the file ends too early"),
            Self::BadHeader => f.write_str("the ELF header is invalid"),
            Self::TooManyProgramHeaders => write!(
                f,
                "more than {} program headers, or headers beyond the first 4 KiB",
                super::MAX_PROGRAM_HEADERS
            ),
            Self::BadNoteSegment(index) => {
                write!(f, "program header {index}: the note does not fall within valid size")
            }
            Self::NoAbiNote => f.write_str("no Solo5 ABI information found in executable"),
            Self::BadAbiNote => f.write_str("the Solo5 ABI note is invalid"),
            Self::NoManifest => f.write_str("no Solo5 manifest found in executable"),
            Self::BadManifest(fault) => write!(f, "Solo5 manifest is invalid: {fault}"),
            Self::WrongTarget(target) => write!(
                f,
                "the executable is for Solo5's target {} ({}), not for hvt",
                target.name(),
                target.raw()
            ),
            Self::WrongAbiVersion(version) => write!(
                f,
                "the executable requests ABI version {version}, only {HVT_ABI_VERSION_MIN} to {HVT_ABI_VERSION} are supported"
            ),
            Self::BadSegment(index, fault) => write!(f, "program header {index}: {fault}"),
            Self::BadEntry => f.write_str("the entry point is not in an executable segment"),
        }
    }
}

impl fmt::Display for ManifestFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Size => f.write_str("its size does not fit its number of entries"),
            Self::Version => f.write_str("its version is not 1"),
            Self::EntryCount => f.write_str("it must have 1 to 64 entries"),
            Self::FirstEntry => f.write_str("its first entry is not the reserved one"),
            Self::Name(index) => {
                write!(f, "entry {index}: a name is 1 to 67 ASCII letters and digits")
            }
            Self::DuplicateName(index) => write!(f, "entry {index}: the name is taken"),
            Self::Kind(index) => write!(f, "entry {index}: neither a block nor a net device"),
            Self::Attached(index) => write!(f, "entry {index}: marked as attached"),
        }
    }
}

impl fmt::Display for LayoutFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(f, "more than {} loadable segments", super::MAX_SEGMENTS),
            Self::TooLow => write!(f, "the segment starts below 0x{GUEST_MIN_BASE:x}"),
            Self::Overlap => f.write_str("the segment overlaps the one before it"),
            Self::Alignment => f.write_str("the segment is not aligned to pages of 4096 bytes"),
            Self::TooHigh => f.write_str("the segment ends above 4 GiB"),
            Self::MemorySmallerThanFile => f.write_str("the segment is larger in the file than in memory"),
            Self::OutsideFile => f.write_str("the segment lies outside the file"),
            Self::WriteAndExecute => f.write_str("the segment requests WRITE and EXEC permissions"),
        }
    }
}

impl core::error::Error for ElfError {}
