//! Any sequence of changes, crashes and starts, against a simple model.

use alloc::{collections::BTreeSet, format, vec::Vec};
use core::cell::Cell;

use petrel_wire::{operator::ReadOnly, shim::InstanceId};

use super::{Disk, Rig, SECTOR, SMALLEST, Write, creating, destroying, ended, removed};
use crate::{journal::mixed, record::Record, state::State};

/// The simplest model of a journal: what it was told, and how much of that it has acknowledged.
#[derive(Default)]
struct Model {
    told: Vec<Record>,
    acknowledged: usize,
}

impl Model {
    /// After a crash the disk must hold what was told up to some point, and that is all there is from here on.
    fn crashed(&mut self, disk: &Disk, context: &str) {
        let found = disk.records().unwrap();
        let state_at = |told: &[Record]| {
            let mut state = State::default();
            told.iter().for_each(|record| state.apply(record.clone()));
            state.records(usize::MAX).collect::<Vec<_>>()
        };
        let point =
            (self.acknowledged..=self.told.len()).find(|&point| state_at(&self.told[..point]) == found);
        let point = point.unwrap_or_else(|| panic!("{context}: no point of what was told: {found:?}"));
        self.told.truncate(point);
        self.acknowledged = point;
    }
}

/// What one handle may change: unikernels come and go, with and without an end.
fn any_change(state: &State, below: &mut impl FnMut(usize) -> usize) -> Vec<Record> {
    let mut made = BTreeSet::new();
    let any = |_| {
        let one = below(40) as u64;
        match below(8) {
            0..4 if state.by_id(InstanceId(one)).is_none() && made.insert(one) => {
                creating(one, below(900) * below(9))
            }
            4 => ended(one),
            5 => destroying(one, false),
            6 => destroying(one, true),
            _ => removed(one),
        }
    };
    (0..3).map(any).collect()
}

#[test]
fn whatever_happens_what_is_found_is_what_was_told_up_to_some_point() {
    let (mut crashes, mut refusals) = (0, 0);
    for seed in 0..60_u64 {
        let number = Cell::new(seed << 32);
        let mut below = |bound: usize| {
            number.set(number.get() + 1);
            usize::try_from(mixed(number.get()) % bound as u64).unwrap()
        };
        let mut rig = Rig::new([SMALLEST, SMALLEST + 3 * SECTOR, 4 * SMALLEST][below(3)]);
        let mut model = Model::default();
        for step in 0..600 {
            let context = format!("seed {seed}, step {step}");
            let (mut disk, writes) = (rig.disk.clone(), rig.writes.len());
            let change = any_change(&rig.state, &mut below);
            model.told.extend(change.iter().cloned());
            match rig.handle(change.iter().cloned()) {
                Ok(0) if below(20) > 0 => continue,
                Ok(0) => {}
                Ok(_) if below(20) > 0 => {
                    model.acknowledged = model.told.len();
                    continue;
                }
                Ok(_) => {
                    // The power goes during one of the writes.
                    let cut = writes + below(rig.writes.len() - writes);
                    rig.writes[writes..cut].iter().for_each(|write| disk.write(write));
                    let Write { offset, data } = rig.writes[cut].clone();
                    let bytes = below(data.len());
                    disk.write(&Write { offset, data: data[..bytes].to_vec() });
                }
                Err(ReadOnly::Full) => {
                    refusals += 1;
                    model.told.truncate(model.told.len() - change.len());
                }
                Err(reason) => panic!("{context}: {reason:?}"),
            }
            crashes += 1;
            model.crashed(&disk, &context);
            rig = Rig::on(disk, number.get());
        }
        let context = format!("seed {seed}, in the end");
        model.crashed(&rig.disk, &context);
    }
    assert!(crashes > 500 && refusals > 0, "{crashes} crashes, {refusals} refusals");
}
