//! The journal on a disk that can be cut off at any byte, lose the order within a write, rot, and fill up.

#![expect(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

use alloc::{boxed::Box, format, vec, vec::Vec};

use petrel_wire::{
    Digest, ExitStatus, List, Name,
    limits::STATE_DEVICE_BYTES_MIN,
    operator::{ReadOnly, Wish},
    shim::InstanceId,
};

use super::{
    Journal,
    recovery::{Recovered, recover},
};
use crate::{
    Output, StateDevice,
    record::{Generation, Record, Spec},
    state::State,
};

mod damage;
mod model;
mod power_cut;
mod space;

const SECTOR: usize = 512;
const SMALLEST: usize = STATE_DEVICE_BYTES_MIN as usize;

/// One write, as the device is asked for it.
#[derive(Clone)]
struct Write {
    offset: usize,
    data: Vec<u8>,
}

/// What a crash leaves: the bytes of the device.
#[derive(Clone)]
struct Disk(Vec<u8>);

impl Disk {
    fn new(bytes: usize) -> Self {
        Self(vec![0; bytes])
    }

    fn write(&mut self, write: &Write) {
        self.0[write.offset..][..write.data.len()].copy_from_slice(&write.data);
    }

    fn recover(&self, seed: u64) -> Recovered {
        let device = StateDevice { bytes: self.0.len() as u64, block_bytes: SECTOR, seed };
        recover(&device, &mut |offset, bytes| {
            assert_eq!((offset % SECTOR as u64, bytes.len() % SECTOR), (0, 0), "whole blocks");
            let from = usize::try_from(offset).unwrap();
            bytes.copy_from_slice(self.0.get(from..from + bytes.len()).ok_or(())?);
            Ok(())
        })
    }

    /// What it holds, if it can be gone on with.
    fn records(&self) -> Result<Vec<Record>, ReadOnly> {
        let Recovered { journal, state, .. } = self.recover(7);
        journal.read_only().map_or(Ok(state.records(usize::MAX).collect()), Err)
    }
}

/// A journal, its state and its disk, and what was asked of the disk.
struct Rig {
    disk: Disk,
    journal: Journal,
    state: State,
    now_ns: u64,
    writes: Vec<Write>,
    /// For each write, how many commits were over when it was asked for; and the state after each commit.
    commit_of: Vec<usize>,
    history: Vec<Vec<Record>>,
}

impl Rig {
    fn new(bytes: usize) -> Self {
        Self::on(Disk::new(bytes), 1)
    }

    /// A start with this disk.
    fn on(disk: Disk, seed: u64) -> Self {
        let Recovered { journal, state, repair, .. } = disk.recover(seed);
        let history = vec![state.records(usize::MAX).collect()];
        let (writes, commit_of) = (Vec::new(), Vec::new());
        let mut rig = Self { disk, journal, state, now_ns: 1, writes, commit_of, history };
        rig.carry_out(repair.into_iter().collect());
        rig
    }

    /// What one handle changes.
    fn handle(&mut self, records: impl IntoIterator<Item = Record>) -> Result<usize, ReadOnly> {
        self.journal.begin();
        for record in records {
            self.journal.gather(&record, record.durability(), &self.state);
            self.state.apply(record);
        }
        let outputs = self.journal.commit(self.now_ns, &self.state)?;
        let count = outputs.len();
        self.history.push(self.state.records(usize::MAX).collect());
        self.carry_out(outputs);
        Ok(count)
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            let Output::Persist { offset, data } = output else { panic!("{output:?}") };
            let write = Write { offset: usize::try_from(offset).unwrap(), data };
            assert_eq!((write.offset % SECTOR, write.data.len() % SECTOR), (0, 0), "whole blocks");
            self.disk.write(&write);
            self.writes.push(write);
            self.commit_of.push(self.history.len() - 1);
        }
    }

    fn create(&mut self, number: u64) -> Result<usize, ReadOnly> {
        self.handle([creating(number, 0)])
    }
}

fn name(number: u64) -> Name {
    format!("u{number}").parse().unwrap()
}

/// A unikernel with this number; its arguments take about so many bytes.
fn creating(number: u64, bytes: usize) -> Record {
    let spec = Spec {
        name: name(number),
        image: Digest([number.to_le_bytes()[0]; 32]),
        memory_mib: 32,
        cpus: List::new(),
        nets: List::new(),
        blocks: List::new(),
        args: vec![vec![b'x'; bytes].try_into().unwrap()].try_into().unwrap(),
        supervision: Default::default(),
        monitor: "petrel-tender".parse().unwrap(),
        created_ms: 1_700_000_000_000 + number,
        made_ms: 1_700_000_000_000 + number,
    };
    let generation = Generation { number: 1, faulty: false, spec: Box::new(spec) };
    Record::Created { instance: InstanceId(number), generation }
}

fn ended(number: u64) -> Record {
    Record::Ended { instance: InstanceId(number), status: ExitStatus::Code(3), at_ms: Some(number) }
}

/// The wish that it be gone, or that it be there after all.
fn destroying(number: u64, gone: bool) -> Record {
    let wish = if gone { Wish::Destroyed } else { Wish::Running };
    Record::Wished { name: name(number), wish }
}

fn removed(number: u64) -> Record {
    Record::Removed(name(number))
}
