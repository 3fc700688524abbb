//! What lies where on the device, and how a header and a batch look.

use alloc::vec::Vec;

use crc32fast::Hasher;
use petrel_wire::{
    frame,
    limits::{JOURNAL_VERSION, STATE_DEVICE_BYTES_MIN},
    operator::ReadOnly,
};
use serde::{Deserialize, Serialize};

use crate::{StateDevice, limits::BATCH_BYTES_MAX};

/// The least that is written at once.
pub(super) const SECTOR_BYTES: usize = 512;
/// Magic, length and CRC.
const ENVELOPE_BYTES: usize = 12;
/// Before a batch's records: the envelope, epoch and sequence.
pub(super) const BATCH_HEADER_BYTES: usize = ENVELOPE_BYTES + 16;
/// A header with its envelope takes no more. What is torn by a power cut is torn within these bytes.
const HEADER_BYTES_MAX: usize = 96;
const HEADER_MAGIC: [u8; 4] = *b"PJhd";
const BATCH_MAGIC: [u8; 4] = *b"PJba";

/// The device, cut into two areas: a block with the header, the batches, a block with the header's copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub block_bytes: usize,
    pub area_bytes: u64,
}

impl Geometry {
    pub fn new(device: &StateDevice) -> Result<Self, ReadOnly> {
        let too_small = ReadOnly::TooSmall { bytes: device.bytes, min: STATE_DEVICE_BYTES_MIN };
        if device.block_bytes == 0 {
            return Err(too_small);
        }
        let block_bytes = SECTOR_BYTES.next_multiple_of(device.block_bytes);
        let area_bytes = device.bytes / 2 / block_bytes as u64 * block_bytes as u64;
        let room = 2 * area_bytes >= STATE_DEVICE_BYTES_MIN && block_bytes <= BATCH_BYTES_MAX;
        room.then_some(Self { block_bytes, area_bytes }).ok_or(too_small)
    }

    /// The geometry of the device on which a journal with this header was begun, if that fits into this one.
    pub fn began_as(&self, header: &Header) -> Option<Self> {
        let block_bytes = self.block_bytes as u64;
        let same_blocks = u64::from(header.block_bytes) == block_bytes;
        let whole = header.area_bytes.is_multiple_of(block_bytes);
        let fits = (STATE_DEVICE_BYTES_MIN / 2..=self.area_bytes).contains(&header.area_bytes);
        (same_blocks && whole && fits).then_some(Self { area_bytes: header.area_bytes, ..*self })
    }

    /// Where an area begins on the device.
    pub fn area(&self, index: usize) -> u64 {
        index as u64 * self.area_bytes
    }

    /// Where the first batch begins in an area.
    pub fn first_batch(&self) -> u64 {
        self.block_bytes as u64
    }

    /// Where the header's copy begins in an area, behind all batches.
    pub fn copy(&self) -> u64 {
        self.area_bytes - self.block_bytes as u64
    }

    /// What the batches of an area can take.
    pub fn room(&self) -> u64 {
        self.copy() - self.first_batch()
    }

    /// `bytes`, made whole blocks.
    pub fn padded(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.resize(bytes.len().next_multiple_of(self.block_bytes), 0);
        bytes
    }
}

/// What an area begins with, and ends with once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    version: u16,
    pub block_bytes: u32,
    pub area_bytes: u64,
    /// Higher than that of any header that was written before.
    pub epoch: u64,
    /// Goes into the CRC of each batch of the epoch. Records hold what operators choose, and what was written
    /// once is still there when an area is used again: nobody who does not know this number can choose bytes that
    /// pass for a batch.
    pub salt: u64,
    /// The batches that hold the snapshot, the first ones of the area.
    pub snapshot_batches: u64,
    /// What they take.
    pub snapshot_bytes: u64,
}

impl Header {
    pub fn new(geometry: &Geometry, epoch: u64, salt: u64, snapshot: (u64, u64)) -> Self {
        Self {
            version: JOURNAL_VERSION,
            block_bytes: u32::try_from(geometry.block_bytes).unwrap_or(u32::MAX),
            area_bytes: geometry.area_bytes,
            epoch,
            salt,
            snapshot_batches: snapshot.0,
            snapshot_bytes: snapshot.1,
        }
    }

    /// As it is written.
    pub fn encode(&self, geometry: &Geometry) -> Vec<u8> {
        let body = postcard::to_allocvec(self).unwrap_or_default();
        let mut bytes = Vec::with_capacity(geometry.block_bytes);
        seal(&mut bytes, HEADER_MAGIC, 0, &[&body]);
        debug_assert!(bytes.len() <= HEADER_BYTES_MAX);
        geometry.padded(bytes)
    }
}

/// What is in the place of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing was written there yet.
    Blank,
    Header(Header),
    /// A header of another version of the layout.
    Other(u16),
    /// A header that a power cut may have torn.
    Torn,
    /// Anything else.
    Garbage,
}

impl Place {
    pub fn read(block: &[u8]) -> Self {
        let (start, rest) = block.split_at(HEADER_BYTES_MAX.min(block.len()));
        let blank = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
        match open(start, HEADER_MAGIC, 0) {
            // The envelope and the version in front of the rest are the same in every version.
            Some(body) => match (postcard::take_from_bytes::<u16>(body), frame::decode(body)) {
                (Ok((JOURNAL_VERSION, _)), Ok(header)) => Self::Header(header),
                (Ok((JOURNAL_VERSION, _)), Err(_)) | (Err(_), _) => Self::Garbage,
                (Ok((version, _)), _) => Self::Other(version),
            },
            None if !blank(rest) => Self::Garbage,
            None if blank(start) => Self::Blank,
            None => Self::Torn,
        }
    }
}

/// What a batch is recognised by, before it is known to be whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHead {
    /// With its header, without the padding.
    pub bytes: usize,
    pub epoch: u64,
    pub sequence: u64,
}

impl BatchHead {
    /// What stands at the start of a block, if it looks like a batch.
    pub fn read(block: &[u8]) -> Option<Self> {
        let rest = block.strip_prefix(&BATCH_MAGIC)?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (_crc, rest) = rest.split_first_chunk::<4>()?;
        let (epoch, rest) = rest.split_first_chunk::<8>()?;
        let (sequence, _) = rest.split_first_chunk::<8>()?;
        let bytes = ENVELOPE_BYTES + usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let head = Self { bytes, epoch: u64::from_le_bytes(*epoch), sequence: u64::from_le_bytes(*sequence) };
        (BATCH_HEADER_BYTES..=BATCH_BYTES_MAX).contains(&bytes).then_some(head)
    }
}

/// A batch as it is written, but for the padding.
pub(super) fn encode_batch(salt: u64, epoch: u64, sequence: u64, records: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BATCH_HEADER_BYTES + records.len());
    seal(&mut bytes, BATCH_MAGIC, salt, &[&epoch.to_le_bytes(), &sequence.to_le_bytes(), records]);
    bytes
}

/// The records of a batch that is whole.
pub(super) fn open_batch(bytes: &[u8], salt: u64) -> Option<&[u8]> {
    open(bytes, BATCH_MAGIC, salt)?.get(BATCH_HEADER_BYTES - ENVELOPE_BYTES..)
}

/// Appends magic, length, CRC and `body`.
fn seal(out: &mut Vec<u8>, magic: [u8; 4], salt: u64, body: &[&[u8]]) {
    // Both kinds of body are far below 4 GiB.
    let length = u32::try_from(body.iter().map(|part| part.len()).sum::<usize>()).unwrap_or(u32::MAX);
    let crc = crc(salt, length, body);
    out.extend_from_slice(&magic);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc.to_le_bytes());
    body.iter().for_each(|part| out.extend_from_slice(part));
}

/// The body behind a magic, length and CRC that fit.
fn open(bytes: &[u8], magic: [u8; 4], salt: u64) -> Option<&[u8]> {
    let rest = bytes.strip_prefix(&magic)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (stated, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length);
    let body = rest.get(..usize::try_from(length).ok()?)?;
    (crc(salt, length, &[body]) == u32::from_le_bytes(*stated)).then_some(body)
}

/// Gives whatever looks like a header or a batch the CRC that makes it whole. Fuzzers would not find many.
#[cfg(feature = "inspect")]
pub fn reseal(device: &mut [u8]) {
    let mut salt = 0;
    for at in (0..device.len()).step_by(SECTOR_BYTES) {
        let Some((envelope, rest)) = device[at..].split_first_chunk_mut::<ENVELOPE_BYTES>() else { return };
        let [magic, length, stated] = [0, 4, 8].map(|at| at..at + 4);
        let is_header = envelope[magic.clone()] == HEADER_MAGIC;
        if !is_header && envelope[magic] != BATCH_MAGIC {
            continue;
        }
        let length = envelope[length].try_into().map_or(0, u32::from_le_bytes);
        let Some(body) = rest.get(..usize::try_from(length).unwrap_or(usize::MAX)) else { continue };
        let crc = crc(if is_header { 0 } else { salt }, length, &[body]);
        envelope[stated].copy_from_slice(&crc.to_le_bytes());
        if is_header && let Ok(header) = frame::decode::<Header>(body) {
            salt = header.salt;
        }
    }
}

fn crc(salt: u64, length: u32, body: &[&[u8]]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&length.to_le_bytes());
    body.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GEOMETRY: Geometry = Geometry { block_bytes: 512, area_bytes: 64 * 1024 };

    #[test]
    fn the_longest_header_comes_back_and_its_cuts_are_torn() {
        let header = Header::new(&GEOMETRY, u64::MAX, u64::MAX, (u64::MAX, u64::MAX));
        let header = Header { area_bytes: u64::MAX, block_bytes: u32::MAX, ..header };
        let block = header.encode(&GEOMETRY);
        assert_eq!((block.len(), Place::read(&block)), (512, Place::Header(header)));
        let length = block.iter().rposition(|&byte| byte != 0).unwrap() + 1;
        assert!(length <= HEADER_BYTES_MAX);
        for cut in 1..length {
            let mut torn = block.clone();
            torn[cut..].fill(0);
            assert_eq!(Place::read(&torn), Place::Torn, "cut at {cut}");
        }
        assert_eq!(Place::read(&[0; 512]), Place::Blank);
        assert_eq!(Place::read(&[7; 512]), Place::Garbage);
    }

    #[test]
    fn a_header_of_another_version_is_known_as_one() {
        let header = Header::new(&GEOMETRY, 1, 2, (3, 4));
        let other = Header { version: 2, ..header }.encode(&GEOMETRY);
        assert_eq!(Place::read(&other), Place::Other(2));
    }

    #[test]
    fn a_batch_opens_only_with_its_own_salt_and_only_whole() {
        let batch = encode_batch(5, 6, 7, b"records");
        assert_eq!(BatchHead::read(&batch), Some(BatchHead { bytes: batch.len(), epoch: 6, sequence: 7 }));
        assert_eq!(open_batch(&batch, 5), Some(&b"records"[..]));
        assert_eq!(open_batch(&batch, 4), None);
        assert!((0..batch.len()).all(|cut| open_batch(&batch[..cut], 5).is_none()));
        for byte in 0..batch.len() {
            let mut bad = batch.clone();
            bad[byte] ^= 1;
            assert_eq!(open_batch(&bad, 5), None, "byte {byte}");
        }
    }

    #[test]
    fn a_device_is_cut_into_two_halves_of_whole_blocks() {
        let geometry = |bytes, block_bytes| Geometry::new(&StateDevice { bytes, block_bytes, seed: 0 });
        let min = STATE_DEVICE_BYTES_MIN;
        assert_eq!(geometry(min, 512), Ok(Geometry { block_bytes: 512, area_bytes: min / 2 }));
        assert_eq!(geometry(min + 1023, 512), Ok(Geometry { block_bytes: 512, area_bytes: min / 2 }));
        assert_eq!(geometry(1 << 20, 4096), Ok(Geometry { block_bytes: 4096, area_bytes: 1 << 19 }));
        assert_eq!(geometry(1 << 20, 520), Ok(Geometry { block_bytes: 520, area_bytes: 524_160 }));
        assert_eq!(geometry(min - 1, 512), Err(ReadOnly::TooSmall { bytes: min - 1, min }));
        assert_eq!(geometry(0, 0), Err(ReadOnly::TooSmall { bytes: 0, min }));
    }
}
