//! A power cut at every byte of every write.

use alloc::{vec, vec::Vec};

use super::{Disk, Rig, SECTOR, SMALLEST, Write, creating, destroying, ended, removed};
use crate::{
    journal::{
        layout::{BATCH_HEADER_BYTES, encode_batch},
        mixed,
        recovery::{Found, Recovered},
    },
    record::Record,
};

/// All that a power cut can leave of a write: nothing or all of each block, in any order, and of one block a part.
fn remains(before: &Disk, write: &Write, each: &mut impl FnMut(&Disk)) {
    let blocks = write.data.len() / SECTOR;
    let subsets: Vec<u64> = match blocks {
        0..5 => (0..1 << blocks).collect(),
        // Too many to try them all.
        _ => (0..16).map(|i| mixed(i) & ((1 << blocks.min(63)) - 1)).chain([0, u64::MAX]).collect(),
    };
    for subset in subsets {
        let mut disk = before.clone();
        let block = |index: usize| index * SECTOR..(index + 1) * SECTOR;
        for index in (0..blocks).filter(|index| subset >> index & 1 == 1) {
            disk.0[write.offset..][block(index)].copy_from_slice(&write.data[block(index)]);
        }
        each(&disk);
        for index in (0..blocks).filter(|index| subset >> index & 1 == 0) {
            torn(&disk, write.offset + index * SECTOR, &write.data[block(index)], each);
        }
    }
}

/// A block of which only the first or only the last bytes were written, cut at every byte that makes a difference.
fn torn(disk: &Disk, offset: usize, data: &[u8], each: &mut impl FnMut(&Disk)) {
    let old = disk.0[offset..][..SECTOR].to_vec();
    let mut disk = disk.clone();
    for cut in (1..SECTOR).filter(|&cut| old[cut] != data[cut]) {
        disk.0[offset..][..cut].copy_from_slice(&data[..cut]);
        disk.0[offset + cut..][..SECTOR - cut].copy_from_slice(&old[cut..]);
        each(&disk);
        disk.0[offset..][..cut].copy_from_slice(&old[..cut]);
        disk.0[offset + cut..][..SECTOR - cut].copy_from_slice(&data[cut..]);
        each(&disk);
    }
}

/// A run that goes three times round the areas of the smallest device, with batches of one block and of several.
fn recorded_run() -> Rig {
    let mut rig = Rig::new(SMALLEST);
    for number in 0..230 {
        let bytes = if number % 40 == 7 { 1200 } else { 10 };
        rig.handle([creating(number, bytes)]).unwrap();
        if number >= 12 {
            rig.handle([ended(number - 12), destroying(number - 12, true)]).unwrap();
            rig.handle([removed(number - 12)]).unwrap();
        }
    }
    rig
}

#[test]
fn a_power_cut_at_every_byte_of_a_run_leaves_what_was_acknowledged() {
    let rig = recorded_run();
    let mut disk = Disk::new(SMALLEST);
    let (mut cases, mut cut_short) = (0, 0);
    for (write, &commit) in rig.writes.iter().zip(&rig.commit_of) {
        remains(&disk, write, &mut |disk| {
            let Recovered { journal, state, found, .. } = disk.recover(7);
            assert_eq!(journal.read_only(), None, "in commit {commit}");
            let records: Vec<_> = state.records(usize::MAX).collect();
            // That of this commit was not acknowledged yet; it may be there or not.
            assert!(
                records == rig.history[commit - 1] || records == rig.history[commit],
                "in commit {commit}"
            );
            cases += 1;
            cut_short += usize::from(matches!(found, Found::Records { torn: true, .. }));
        });
        disk.write(write);
    }
    assert_eq!(disk.records().as_ref(), Ok(rig.history.last().unwrap()));
    assert!(cases > 50_000 && cut_short > 10_000, "{cases} cases, {cut_short} of them cut short");
}

#[test]
fn after_a_power_cut_at_every_byte_the_journal_goes_on() {
    let rig = recorded_run();
    let mut disk = Disk::new(SMALLEST);
    for (index, write) in rig.writes.iter().enumerate() {
        // The second cut comes while what the first one left is written over.
        let mut case = 0_u64;
        remains(&disk, write, &mut |disk| {
            case += 1;
            if !mixed(case ^ index as u64).is_multiple_of(32) {
                return;
            }
            let mut again = Rig::on(disk.clone(), case);
            again.create(1000 + case).unwrap();
            again.handle([removed(1000 + case), creating(2000, 700)]).unwrap();
            let expected: Vec<_> = again.state.records(usize::MAX).collect();
            assert_eq!(again.disk.records(), Ok(expected), "write {index}");
            let mut disk = disk.clone();
            for (write, &commit) in again.writes.iter().zip(&again.commit_of) {
                let cut = mixed(case) as usize % write.data.len();
                let mut cut_off = disk.clone();
                cut_off.write(&Write { offset: write.offset, data: write.data[..cut].to_vec() });
                let records = cut_off.records().unwrap();
                let allowed = [commit.saturating_sub(1), commit].map(|commit| &again.history[commit]);
                assert!(allowed.contains(&&records), "write {index}, then commit {commit}");
                disk.write(write);
            }
        });
        disk.write(write);
    }
}

/// Records hold what operators choose. One who knows where on the disk an argument will lie, and the numbers of the
/// next batches, can write batches of his own into it; but for the salt, which nobody is told.
#[test]
fn bytes_that_an_operator_chose_never_pass_for_a_batch() {
    let mut rig = Rig::new(SMALLEST);
    rig.create(1).unwrap();
    let forged = |sequence| {
        let removal = postcard::to_allocvec(&removed(1)).unwrap();
        let mut block = encode_batch(0, 1, sequence, &removal);
        block.resize(SECTOR, 0);
        block
    };
    let with_argument = |argument: Vec<u8>| {
        let Record::Created { instance, mut generation } = creating(2, 0) else { panic!() };
        generation.spec.args = vec![argument.try_into().unwrap()].try_into().unwrap();
        Record::Created { instance, generation }
    };
    // The argument is filled up to where the second block of its batch begins.
    let plain = postcard::to_allocvec(&with_argument(vec![b'#'; 3000])).unwrap();
    let before = BATCH_HEADER_BYTES + plain.iter().position(|&byte| byte == b'#').unwrap();
    let mut argument = vec![b'#'; SECTOR - before];
    (2..6).for_each(|sequence| argument.extend(forged(sequence)));
    argument.resize(3000, b'#');
    rig.handle([with_argument(argument)]).unwrap();
    let write = rig.writes.pop().unwrap();
    assert_eq!(write.data[SECTOR..2 * SECTOR], forged(2)[..]);

    // The power goes when all but the first block is written. That is no damage, and nothing of it is ever read.
    rig.disk.0[write.offset..][..SECTOR].fill(0);
    let mut again = Rig::on(rig.disk, 2);
    assert_eq!(again.journal.read_only(), None);
    again.create(3).unwrap();
    assert_eq!(again.disk.records(), Ok(vec![creating(1, 0), creating(3, 0)]));
}
