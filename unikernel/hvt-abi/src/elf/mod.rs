//! A reader of Solo5 ELF images that never panics, whatever the bytes, and allocates nothing.
//!
//! It needs little of a file, so a reader far from it can ask for two ranges:
//!
//! 1. the first [`HEADER_BYTES`] bytes (or the whole file where it is shorter) → [`Header::parse`];
//! 2. the bytes of [`Header::notes_range`], at most [`NOTES_BYTES_MAX`] → [`Notes::parse`].
//!
//! [`Image::parse`] does both, and checks the segments, for a file that is in memory as a whole.

mod error;
mod header;
mod layout;
mod notes;
mod sections;

pub use error::{ElfError, LayoutFault, ManifestFault};
pub use header::{FileRange, HEADER_BYTES, Header, MAX_PROGRAM_HEADERS, NOTES_BYTES_MAX};
pub use layout::{Layout, MAX_SEGMENTS, Permissions, Segment};
pub use notes::{Abi, Device, Devices, Notes};
pub use sections::{MAX_SECTIONS, code};

/// All that a tender has to know of an hvt image.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// Who the image is built for: always this crate's hvt ABI.
    pub abi: Abi,
    /// The devices it declares.
    pub devices: Devices,
    /// Where its segments go.
    pub layout: Layout,
}

impl Image {
    /// Reads a whole file that is in memory. An image for another target or ABI version is refused.
    pub fn parse(file: &[u8]) -> Result<Self, ElfError> {
        let header = Header::parse(file, file.len() as u64)?;
        let range = header.notes_range();
        let notes = Notes::parse(&header, range.of(file).ok_or(ElfError::Truncated)?)?;
        notes.abi.require_hvt()?;
        Ok(Self { abi: notes.abi, devices: notes.devices, layout: header.layout()? })
    }
}

/// A little-endian number at `offset`, or nothing where `bytes` ends before its end.
fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().copied().map(u16::from_le_bytes)
}

/// As [`u16_at`].
fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_le_bytes)
}

/// As [`u16_at`].
fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().copied().map(u64::from_le_bytes)
}
