//! The journal: what the control plane keeps on its block device "state", and finds there after any crash.
//!
//! The device has two areas. Each begins with a header, whose copy ends it; between them are batches of records, each
//! with a CRC, its epoch and its number. The first batches of an area are a snapshot, all of the state as records;
//! those behind are the log. When the log is full, or much longer than the state is worth, the state is written
//! into the other area under the next epoch, its header last: that is the moment from which on the other area counts.
//! `layout` has the bytes.
//!
//! Each write ends before the next begins. Whatever part of one is on the disk after a power cut, `recovery` finds the
//! records of all writes before it, and maybe those of this one. It tells that from damage: behind a write that was
//! cut short there is nothing that was written later.
//!
//! What the [`Engine`](crate::Engine) does with it is in `ahead`: no output leaves before the records of its handle.

use alloc::{boxed::Box, vec::Vec};

use petrel_wire::operator::{self, ReadOnly};

use crate::{
    Output,
    limits::{
        BATCH_BYTES_MAX, HISTORY_PER_AREA, LOG_BYTES_MIN, LOG_PER_SNAPSHOT, RECORD_WAIT_NS,
        RECORDS_WAITING_MAX,
    },
    record::{Durability, Record},
    state::{Before, State},
};
use layout::{BATCH_HEADER_BYTES, Geometry, Header, encode_batch};

mod ahead;
mod file;
mod layout;
mod possible;
mod recovery;
#[cfg(test)]
mod tests;
mod transfer;

#[cfg(feature = "inspect")]
pub use layout::reseal;
use recovery::recover;
pub(crate) use transfer::{Export, Transfer};

/// What the control plane remembers by.
#[derive(Debug)]
pub(crate) struct Journal {
    mode: Mode,
    /// Records that are not on the disk, encoded, the oldest first.
    pending: Vec<Vec<u8>>,
    /// How many of them are of earlier handles.
    waiting: usize,
    /// They have to be on the disk before any output of this handle leaves.
    urgent: bool,
    /// … and there has to be room for more than they free.
    grows: bool,
    /// All of the state has changed: only a snapshot tells.
    replaced: bool,
    /// When those that are not urgent go to the disk, in monotonic nanoseconds.
    due_ns: Option<u64>,
    /// What takes the last handle's records back, should they not get to the disk.
    undo: Vec<Undo>,
}

/// Takes something back.
#[derive(Debug)]
enum Undo {
    Change(Before),
    State(Box<State>),
}

#[derive(Debug)]
enum Mode {
    /// There is no device.
    InMemory,
    Writable(Log),
    ReadOnly(ReadOnly),
}

impl Journal {
    /// None: there is no device.
    pub fn in_memory() -> Self {
        Self::new(Mode::InMemory)
    }

    fn new(mode: Mode) -> Self {
        Self {
            mode,
            pending: Vec::new(),
            waiting: 0,
            urgent: false,
            grows: false,
            replaced: false,
            due_ns: None,
            undo: Vec::new(),
        }
    }

    /// Whether it holds all records, or will.
    pub fn is_sound(&self) -> bool {
        matches!(self.mode, Mode::Writable(_))
    }

    /// How many records are not on the disk.
    #[cfg(feature = "inspect")]
    pub fn waiting_len(&self) -> usize {
        self.pending.len()
    }

    /// Why nothing can be kept, if so.
    pub fn read_only(&self) -> Option<ReadOnly> {
        match self.mode {
            Mode::ReadOnly(reason) => Some(reason),
            Mode::InMemory | Mode::Writable(_) => None,
        }
    }

    /// How it is doing.
    pub fn told(&self) -> operator::Journal {
        match &self.mode {
            Mode::InMemory => operator::Journal::InMemory,
            Mode::Writable(log) => log.told(),
            Mode::ReadOnly(reason) => operator::Journal::ReadOnly(*reason),
        }
    }

    /// When [`Self::commit`] has something to write, in monotonic nanoseconds.
    pub fn deadline(&self) -> Option<u64> {
        self.due_ns
    }

    /// A handle begins: what was written by the last one is on the disk.
    fn begin(&mut self) {
        self.undo.clear();
        self.waiting = self.pending.len();
    }

    /// Takes in a record that is about to be applied to `state`.
    fn gather(&mut self, record: &Record, durability: Durability, state: &State) {
        if matches!(self.mode, Mode::InMemory) {
            return;
        }
        match durability {
            Durability::Never => return,
            Durability::Later if self.read_only().is_some() => return,
            Durability::Later => {}
            Durability::Before { grows } => {
                self.urgent = true;
                self.grows |= grows;
                self.undo.extend(state.before(record).map(Undo::Change));
            }
        }
        // Nothing that can be serialised fails to be.
        self.pending.push(postcard::to_allocvec(record).unwrap_or_default());
    }

    /// The state is another one now; this was it before.
    fn replace(&mut self, before: State) {
        if !matches!(self.mode, Mode::InMemory) {
            (self.urgent, self.grows, self.replaced) = (true, true, true);
            self.undo.push(Undo::State(Box::new(before)));
        }
    }

    /// What has to be written before the outputs of this handle leave; the error says why they must not.
    fn commit(&mut self, now_ns: u64, state: &State) -> Result<Vec<Output>, ReadOnly> {
        if self.pending.is_empty() && !self.urgent {
            return Ok(Vec::new());
        }
        let wait_over = self.due_ns.is_some_and(|due_ns| now_ns >= due_ns);
        if !self.urgent && !wait_over && self.pending.len() < RECORDS_WAITING_MAX {
            self.due_ns.get_or_insert(now_ns.saturating_add(RECORD_WAIT_NS));
            return Ok(Vec::new());
        }
        let written = match &mut self.mode {
            Mode::InMemory => Ok(Vec::new()),
            Mode::ReadOnly(reason) if self.urgent => Err(*reason),
            Mode::ReadOnly(_) => Ok(Vec::new()),
            Mode::Writable(log) if self.replaced => log.begin_anew(state, self.grows),
            Mode::Writable(log) => log.write(&self.pending, state, self.grows),
        };
        match written {
            Ok(outputs) => {
                self.forget(0);
                Ok(outputs)
            }
            // Nobody waits for history; and the next snapshot has it.
            Err(_) if !self.urgent => {
                self.forget(0);
                Ok(Vec::new())
            }
            Err(reason) => Err(reason),
        }
    }

    /// Forgets the pending records but the first `keep`.
    fn forget(&mut self, keep: usize) {
        self.pending.truncate(keep);
        (self.urgent, self.grows, self.replaced) = (false, false, false);
        if self.pending.is_empty() {
            self.due_ns = None;
        }
    }

    /// Nothing can be written from here on.
    fn fail(&mut self, reason: ReadOnly) {
        self.mode = Mode::ReadOnly(reason);
        self.pending.clear();
        (self.waiting, self.due_ns) = (0, None);
    }
}

/// The active area, and where in it the next batch goes.
#[derive(Debug)]
struct Log {
    geometry: Geometry,
    /// What salts are made from, and nobody can guess.
    seed: u64,
    active: usize,
    epoch: u64,
    salt: u64,
    /// The number of the next batch.
    sequence: u64,
    /// Where it goes, from the area's beginning.
    head: u64,
    /// Where the log ends at the latest.
    end: u64,
}

impl Log {
    /// Nothing is on the device yet: the first record begins epoch 1, in the first area.
    fn fresh(geometry: Geometry, seed: u64) -> Self {
        Self { geometry, seed, active: 1, epoch: 0, salt: 0, sequence: 0, head: 0, end: 0 }
    }

    fn told(&self) -> operator::Journal {
        operator::Journal::Kept {
            epoch: self.epoch,
            used_bytes: self.head.saturating_sub(self.geometry.first_batch()),
            area_bytes: self.geometry.room(),
        }
    }

    /// Writes records behind those that are there, or, when there is no room for them or no sense in it, all of the
    /// state, which they are in.
    fn write(&mut self, records: &[Vec<u8>], state: &State, grows: bool) -> Result<Vec<Output>, ReadOnly> {
        let batches = pack(records.iter().cloned())?;
        let padded = |records: &Vec<u8>| {
            (BATCH_HEADER_BYTES + records.len()).next_multiple_of(self.geometry.block_bytes) as u64
        };
        let bytes: u64 = batches.iter().map(padded).sum();
        // An eighth of the area is for what frees room.
        let reserve = if grows { self.geometry.room() / 8 } else { 0 };
        if self.head + bytes > self.end.min(self.geometry.copy() - reserve) {
            return self.begin_anew(state, grows);
        }
        Ok(batches.iter().map(|records| self.append(records)).collect())
    }

    /// Writes all of the state into the other area, which is the active one from here on.
    fn begin_anew(&mut self, state: &State, grows: bool) -> Result<Vec<Output>, ReadOnly> {
        let (geometry, epoch) = (self.geometry, self.epoch.saturating_add(1));
        let salt = mixed(self.seed ^ epoch);
        let (active, head) = (1 - self.active, geometry.first_batch());
        let mut next = Self { active, epoch, salt, sequence: 0, head, ..*self };
        let history_bytes = usize::try_from(geometry.room() / HISTORY_PER_AREA).unwrap_or(usize::MAX);
        let records =
            state.records(history_bytes).map(|record| postcard::to_allocvec(&record).unwrap_or_default());
        let mut outputs: Vec<_> = pack(records)?.iter().map(|records| next.append(records)).collect();
        let snapshot_bytes = next.head - geometry.first_batch();
        // With a quarter left to the log, the state is not written anew at every change.
        let room = if grows { geometry.room() / 4 * 3 } else { geometry.room() };
        if snapshot_bytes > room {
            return Err(ReadOnly::Full);
        }
        let header = Header::new(&geometry, epoch, salt, (next.sequence, snapshot_bytes));
        next.end = log_end(&geometry, &header);
        let block = header.encode(&geometry);
        for place in [0, geometry.copy()] {
            outputs.push(Output::Persist { offset: geometry.area(active) + place, data: block.clone() });
        }
        *self = next;
        Ok(outputs)
    }

    fn append(&mut self, records: &[u8]) -> Output {
        let batch = encode_batch(self.salt, self.epoch, self.sequence, records);
        let data = self.geometry.padded(batch);
        let offset = self.geometry.area(self.active) + self.head;
        self.sequence += 1;
        self.head += data.len() as u64;
        Output::Persist { offset, data }
    }
}

/// Where the log of an epoch ends at the latest, from the area's beginning.
fn log_end(geometry: &Geometry, header: &Header) -> u64 {
    let log_bytes = header.snapshot_bytes.saturating_mul(LOG_PER_SNAPSHOT).max(LOG_BYTES_MIN);
    let end = geometry.first_batch().saturating_add(header.snapshot_bytes).saturating_add(log_bytes);
    end.min(geometry.copy())
}

/// Records in as few batches as hold them.
fn pack(records: impl Iterator<Item = Vec<u8>>) -> Result<Vec<Vec<u8>>, ReadOnly> {
    let mut batches: Vec<Vec<u8>> = Vec::new();
    for record in records {
        let bytes = BATCH_HEADER_BYTES + record.len();
        match batches.last_mut() {
            Some(last) if bytes + last.len() <= BATCH_BYTES_MAX => last.extend_from_slice(&record),
            _ if bytes <= BATCH_BYTES_MAX => batches.push(record),
            _ => return Err(ReadOnly::Full),
        }
    }
    Ok(batches)
}

/// Another number for each, far from those of its neighbours: SplitMix64's output function.
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
