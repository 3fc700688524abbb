//! A state file: all that a control plane keeps, to be carried elsewhere.
//!
//! The magic, a little-endian `u16` version, each record as a frame of the wire, and behind an empty frame the number
//! of records and the CRC-32 of all that comes before it, each a little-endian `u32`.

use alloc::vec::Vec;

use crc32fast::Hasher;
use petrel_wire::{frame, limits::STATE_FILE_VERSION, operator::StateFault};

use crate::record::Record;

const MAGIC: [u8; 8] = *b"PETRSTAT";
const START_BYTES: usize = MAGIC.len() + 2;
/// Behind the records: an empty frame, their number, the CRC.
const END_BYTES: usize = 12;

/// The file that holds these records, and how many they are.
pub(super) fn write(records: impl Iterator<Item = Record>) -> (Vec<u8>, u32) {
    let mut file = MAGIC.to_vec();
    file.extend_from_slice(&STATE_FILE_VERSION.to_le_bytes());
    let mut count = 0_u32;
    for record in records {
        // No record is longer than a batch, so each fits a frame.
        count += u32::from(frame::encode(&record, &mut file).is_ok());
    }
    file.extend_from_slice(&[0; frame::HEADER_BYTES]);
    file.extend_from_slice(&count.to_le_bytes());
    let crc = crc32fast::hash(&file);
    file.extend_from_slice(&crc.to_le_bytes());
    (file, count)
}

/// Reads a file that comes in pieces. What it gives is to be trusted when the file has come to its good end.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// What has come and is not read yet: less than a frame.
    rest: Vec<u8>,
    hasher: Hasher,
    phase: Phase,
    count: u32,
    /// A record that this release does not know.
    newer: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Start,
    Records,
    End,
}

impl Reader {
    /// Takes in the next bytes and gives the records that are complete to `take`.
    pub fn push(&mut self, bytes: &[u8], mut take: impl FnMut(Record)) -> Result<(), StateFault> {
        self.rest.extend_from_slice(bytes);
        let mut read = 0;
        while let Some(bytes) = self.step(read, &mut take)? {
            read += bytes;
        }
        self.hasher.update(&self.rest[..read]);
        self.rest.drain(..read);
        Ok(())
    }

    /// Reads what comes next, from `at` on: how many bytes that were; nothing if there are too few.
    fn step(&mut self, at: usize, take: &mut impl FnMut(Record)) -> Result<Option<usize>, StateFault> {
        let rest = &self.rest[at..];
        match self.phase {
            Phase::Start if rest.len() < START_BYTES => Ok(None),
            Phase::Start => {
                let version = rest.strip_prefix(&MAGIC).and_then(|rest| rest.first_chunk());
                let version = version.map(|version| u16::from_le_bytes(*version));
                self.phase = Phase::Records;
                match version {
                    Some(STATE_FILE_VERSION) => Ok(Some(START_BYTES)),
                    Some(other) => Err(StateFault::Version(other)),
                    None => Err(StateFault::NotAStateFile),
                }
            }
            Phase::Records => {
                let Some((payload, bytes)) = frame::split(rest).map_err(|_| StateFault::Damaged)? else {
                    return Ok(None);
                };
                if payload.is_empty() {
                    // It is read as a whole, when all has come.
                    self.phase = Phase::End;
                    return Ok(None);
                }
                match frame::decode(payload) {
                    Ok(record) => take(record),
                    Err(_) => self.newer = true,
                }
                self.count = self.count.saturating_add(1);
                Ok(Some(bytes))
            }
            Phase::End if rest.len() > END_BYTES => Err(StateFault::Damaged),
            Phase::End => Ok(None),
        }
    }

    /// All bytes have come: how many records they were.
    pub fn finish(mut self) -> Result<u32, StateFault> {
        let damaged = StateFault::Damaged;
        if self.phase == Phase::Start {
            return Err(StateFault::NotAStateFile);
        }
        let (crc, before) =
            self.rest.split_last_chunk::<4>().map(|(before, crc)| (crc, before)).ok_or(damaged)?;
        self.hasher.update(before);
        let count = before.strip_prefix(&[0; frame::HEADER_BYTES]).and_then(|rest| rest.try_into().ok());
        let whole = self.phase == Phase::End
            && u32::from_le_bytes(*crc) == self.hasher.finalize()
            && count.map(u32::from_le_bytes) == Some(self.count);
        match (whole, self.newer) {
            (true, false) => Ok(self.count),
            (true, true) => Err(StateFault::Newer),
            (false, _) => Err(damaged),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use petrel_wire::shim::InstanceId;

    use super::*;

    fn records() -> Vec<Record> {
        (0..200).map(|i| Record::Absent(InstanceId(i * i * i))).collect()
    }

    /// What comes of a file that arrives in pieces of this size.
    fn read(file: &[u8], piece: usize) -> Result<(Vec<Record>, u32), StateFault> {
        let (mut reader, mut records) = (Reader::default(), vec![]);
        for piece in file.chunks(piece) {
            reader.push(piece, |record| records.push(record))?;
        }
        reader.finish().map(|count| (records, count))
    }

    #[test]
    fn a_file_comes_back_in_pieces_of_any_size() {
        let (file, count) = write(records().into_iter());
        for piece in [1, 2, 7, 64, 100_000] {
            assert_eq!(read(&file, piece), Ok((records(), count)));
        }
        let (empty, count) = write(core::iter::empty());
        assert_eq!(read(&empty, 5), Ok((vec![], count)));
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_found() {
        let (file, _) = write(records().into_iter().take(20));
        for cut in 0..file.len() {
            assert!(read(&file[..cut], 16).is_err(), "cut at {cut}");
            let mut changed = file.clone();
            changed[cut] ^= 0x10;
            assert!(read(&changed, 16).is_err(), "changed at {cut}");
        }
        let longer = [file.as_slice(), b"x"].concat();
        assert_eq!(read(&longer, 16), Err(StateFault::Damaged));
        assert_eq!(read(b"#!/bin/sh\necho no state\n", 16), Err(StateFault::NotAStateFile));
        let mut other = file;
        other[8] = 2;
        assert_eq!(read(&other, 16), Err(StateFault::Version(2)));
    }

    #[test]
    fn a_record_of_a_newer_release_is_no_damage() {
        let mut file = MAGIC.to_vec();
        file.extend_from_slice(&STATE_FILE_VERSION.to_le_bytes());
        frame::encode(&(250_u8, 1_u8), &mut file).unwrap();
        file.extend_from_slice(&[0; 4]);
        file.extend_from_slice(&1_u32.to_le_bytes());
        let crc = crc32fast::hash(&file);
        file.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(read(&file, 16), Err(StateFault::Newer));
    }
}
