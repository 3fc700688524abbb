//! What is on the device when the control plane starts.

use alloc::{vec, vec::Vec};
use core::fmt;

use petrel_wire::operator::ReadOnly;

use super::{
    Journal, Log, Mode,
    layout::{BatchHead, Geometry, Header, Place, open_batch},
    log_end,
};
use crate::{Output, StateDevice, limits::RECOVERY_BYTES, record::Record, state::State};

/// Reads blocks of the device at an offset. The error has been kept elsewhere.
type Read<'a> = &'a mut dyn FnMut(u64, &mut [u8]) -> Result<(), ()>;

/// What was found, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing: the device is new.
    Fresh,
    /// A journal.
    Records {
        count: u64,
        epoch: u64,
        /// Behind them was a write that a crash cut short.
        torn: bool,
    },
    /// Something that cannot be gone on with, though so many records were read.
    ReadOnly { reason: ReadOnly, count: u64 },
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fresh => f.write_str("the journal is new"),
            Self::Records { count, epoch, torn } => {
                let torn = if *torn { ", and one write that was cut short and is dropped" } else { "" };
                write!(f, "the journal is in epoch {epoch}, with {count} records{torn}")
            }
            Self::ReadOnly { reason, count } => {
                write!(f, "changes are refused: {reason:?}; {count} records were read")
            }
        }
    }
}

/// What recovery leaves.
pub(crate) struct Recovered {
    pub journal: Journal,
    pub state: State,
    pub found: Found,
    /// Makes a header and its copy one again.
    pub repair: Option<Output>,
}

/// Reads what is on the device.
pub(crate) fn recover(device: &StateDevice, read: Read<'_>) -> Recovered {
    let mut recovery = Recovery { state: State::default(), count: 0, torn: false, repair: None };
    let (mode, found) = match recovery.run(device, read) {
        Ok(log) if log.epoch == 0 => (Mode::Writable(log), Found::Fresh),
        Ok(log) => {
            let found = Found::Records { count: recovery.count, epoch: log.epoch, torn: recovery.torn };
            (Mode::Writable(log), found)
        }
        Err(reason) => (Mode::ReadOnly(reason), Found::ReadOnly { reason, count: recovery.count }),
    };
    Recovered { journal: Journal::new(mode), state: recovery.state, found, repair: recovery.repair }
}

/// What has been found so far. It is of use even if it cannot be gone on with.
struct Recovery {
    state: State,
    count: u64,
    torn: bool,
    repair: Option<Output>,
}

/// What an area's header and its copy tell together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Area {
    /// It was never the active one.
    Unused,
    Begun(Header),
    Damaged,
}

impl Area {
    /// The copy is written when the header is on the disk: so a power cut leaves one of them whole, or this was the
    /// first that was ever written here.
    fn new(header: Place, copy: Place) -> Self {
        match (header, copy) {
            (Place::Header(header), Place::Header(copy)) if copy.epoch > header.epoch => Self::Begun(copy),
            (Place::Header(header), _) | (_, Place::Header(header)) => Self::Begun(header),
            (Place::Blank | Place::Torn, Place::Blank) => Self::Unused,
            _ => Self::Damaged,
        }
    }
}

impl Recovery {
    fn run(&mut self, device: &StateDevice, read: Read<'_>) -> Result<Log, ReadOnly> {
        let mut reader = Reader::new(Geometry::new(device)?, read);
        let places = reader.places()?;
        let areas = [Area::new(places[0], places[1]), Area::new(places[2], places[3])];
        let (active, header, sound) = match areas {
            [Area::Unused, Area::Unused] => return Ok(Log::fresh(reader.geometry, device.seed)),
            [Area::Begun(first), Area::Begun(second)] if first.epoch > second.epoch => {
                (0, first, first.epoch - second.epoch == 1)
            }
            [Area::Begun(first), Area::Begun(second)] => (1, second, second.epoch - first.epoch == 1),
            // The second area is used from the second epoch on.
            [Area::Begun(first), other] => (0, first, other == Area::Unused && first.epoch == 1),
            [_, Area::Begun(second)] => (1, second, false),
            _ => return Err(ReadOnly::NotAJournal),
        };
        let log = self.replay(&mut reader, device.seed, active, &header)?;
        if !sound {
            return Err(ReadOnly::Damaged);
        }
        let block = header.encode(&reader.geometry);
        let offsets = [0, reader.geometry.copy()];
        let bad = (0..2).find(|&i| places[2 * active + i] != Place::Header(header));
        self.repair =
            bad.map(|i| Output::Persist { offset: reader.geometry.area(active) + offsets[i], data: block });
        Ok(log)
    }

    /// Applies the records of an area, and sees to it that they are all that were written.
    fn replay(
        &mut self,
        reader: &mut Reader<'_>,
        seed: u64,
        active: usize,
        header: &Header,
    ) -> Result<Log, ReadOnly> {
        let geometry = reader.geometry;
        let end = log_end(&geometry, header);
        let (mut head, mut sequence) = (geometry.first_batch(), 0);
        while let Some((batch, bytes)) = reader.batch(active, head, header)?
            && batch.sequence == sequence
        {
            self.apply(&bytes)?;
            head += batch.bytes.next_multiple_of(geometry.block_bytes) as u64;
            sequence += 1;
        }
        if sequence < header.snapshot_batches || reader.has_batch(active, head..end, header)? {
            return Err(ReadOnly::Damaged);
        }
        let behind = reader.head(active, head)?;
        self.torn = behind.is_some_and(|batch| (batch.epoch, batch.sequence) == (header.epoch, sequence));
        let Header { epoch, salt, .. } = *header;
        Ok(Log { geometry, seed, active, epoch, salt, sequence, head, end })
    }

    /// Applies the records of a batch.
    fn apply(&mut self, mut records: &[u8]) -> Result<(), ReadOnly> {
        while !records.is_empty() {
            // The CRC is right, so this is what was written; but not by this release.
            let (record, rest) = postcard::take_from_bytes::<Record>(records).map_err(|_| ReadOnly::Newer)?;
            self.state.apply(record);
            self.count += 1;
            records = rest;
        }
        Ok(())
    }
}

/// Reads an area from its beginning to its end, and only now and then goes to the device for it.
struct Reader<'a> {
    geometry: Geometry,
    read: Read<'a>,
    window: Vec<u8>,
    /// Where on the device the window is.
    window_at: u64,
}

impl<'a> Reader<'a> {
    fn new(geometry: Geometry, read: Read<'a>) -> Self {
        Self { geometry, read, window: Vec::new(), window_at: 0 }
    }

    /// What is in the places of the four headers: each area's, and its copy's. The first one found tells the
    /// geometry, which stays that of the device on which the journal was begun.
    fn places(&mut self) -> Result<[Place; 4], ReadOnly> {
        let first = self.place(0)?;
        if let Place::Header(header) = first {
            self.geometry = self.geometry.began_as(&header).ok_or(ReadOnly::Geometry)?;
        }
        let Geometry { area_bytes, .. } = self.geometry;
        let copy = self.geometry.copy();
        let places = [first, self.place(copy)?, self.place(area_bytes)?, self.place(area_bytes + copy)?];
        for place in places {
            match place {
                Place::Other(version) => return Err(ReadOnly::Version(version)),
                Place::Header(header) if header.area_bytes != area_bytes => return Err(ReadOnly::Geometry),
                _ => {}
            }
        }
        Ok(places)
    }

    fn place(&mut self, offset: u64) -> Result<Place, ReadOnly> {
        let mut block = vec![0; self.geometry.block_bytes];
        (self.read)(offset, &mut block).map_err(|()| ReadOnly::Unreadable)?;
        Ok(Place::read(&block))
    }

    /// The bytes at `offset` of an area, fewer where its batches end.
    fn bytes(&mut self, area: usize, offset: u64, bytes: usize) -> Result<&[u8], ReadOnly> {
        let left = usize::try_from(self.geometry.copy().saturating_sub(offset)).unwrap_or(usize::MAX);
        let bytes = bytes.min(left);
        let at = self.geometry.area(area) + offset;
        let inside = at >= self.window_at && at + bytes as u64 <= self.window_at + self.window.len() as u64;
        if !inside {
            let fill = RECOVERY_BYTES.next_multiple_of(self.geometry.block_bytes).min(left);
            self.window.resize(fill, 0);
            self.window_at = at;
            let read = (self.read)(at, &mut self.window);
            if read.is_err() {
                self.window.clear();
                return Err(ReadOnly::Unreadable);
            }
        }
        let from = usize::try_from(at - self.window_at).unwrap_or(usize::MAX);
        Ok(self.window.get(from..from + bytes).unwrap_or_default())
    }

    /// What looks like the start of a batch there.
    fn head(&mut self, area: usize, offset: u64) -> Result<Option<BatchHead>, ReadOnly> {
        let block_bytes = self.geometry.block_bytes;
        self.bytes(area, offset, block_bytes).map(BatchHead::read)
    }

    /// The batch of the epoch that begins there, if it is whole: its head and its records.
    fn batch(
        &mut self,
        area: usize,
        offset: u64,
        header: &Header,
    ) -> Result<Option<(BatchHead, Vec<u8>)>, ReadOnly> {
        let head = self.head(area, offset)?.filter(|head| head.epoch == header.epoch);
        let Some(head) = head else { return Ok(None) };
        let padded = head.bytes.next_multiple_of(self.geometry.block_bytes);
        let whole = self.bytes(area, offset, padded)?;
        let records = whole.get(..head.bytes).and_then(|batch| open_batch(batch, header.salt));
        Ok(records.map(|records| (head, records.to_vec())))
    }

    /// Whether a whole batch of the epoch begins anywhere in this range of an area.
    fn has_batch(
        &mut self,
        area: usize,
        range: core::ops::Range<u64>,
        header: &Header,
    ) -> Result<bool, ReadOnly> {
        for offset in range.step_by(self.geometry.block_bytes) {
            if self.batch(area, offset, header)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
