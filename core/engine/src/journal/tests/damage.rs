//! Damage, and what is of another make.

use alloc::{collections::BTreeSet, format, vec, vec::Vec};

use petrel_wire::operator::ReadOnly;

use super::{Rig, SECTOR, SMALLEST, Write, creating, removed};
use crate::{
    StateDevice,
    journal::{
        mixed,
        recovery::{Found, Recovered, recover},
    },
};

/// A journal of thirty unikernels, in its third epoch, and where on the disk its log begins and ends.
fn third_epoch() -> (Rig, usize, usize) {
    let mut rig = Rig::new(SMALLEST);
    let mut number = 0;
    while rig.writes.len() < 240 || !matches!(rig.disk.recover(7).found, Found::Records { epoch: 3, .. }) {
        rig.create(number).unwrap();
        if number >= 30 {
            rig.handle([removed(number - 30)]).unwrap();
        }
        number += 1;
    }
    for more in 0..10 {
        rig.create(number + more).unwrap();
    }
    let last = rig.writes.last().unwrap();
    let (begin, end) = (SECTOR, last.offset + last.data.len());
    assert!(end < SMALLEST / 2, "in the first area");
    (rig, begin, end)
}

#[test]
fn a_bit_that_rots_is_found_unless_it_holds_nothing() {
    let (rig, begin, end) = third_epoch();
    let good: Vec<_> = rig.state.records(usize::MAX).collect();
    let last = rig.writes.last().unwrap().offset;
    let before_last = &rig.history[rig.history.len() - 2];
    let mut found = BTreeSet::new();
    for byte in 0..end {
        let mut disk = rig.disk.clone();
        disk.0[byte] ^= 1;
        let records = disk.records();
        match records {
            // Padding; or a header, which has a copy.
            Ok(records) if records == good => assert!(byte < begin || rig.disk.0[byte] == 0, "{byte}"),
            // Nothing tells the last write from one that was cut short.
            Ok(records) => assert!(&records == before_last && byte >= last, "{byte}"),
            Err(reason) => {
                assert!((begin..last).contains(&byte), "{byte}");
                found.insert(format!("{reason:?}"));
            }
        }
    }
    assert_eq!(found, BTreeSet::from(["Damaged".into()]));
}

#[test]
fn a_block_that_was_lost_or_overwritten_is_found() {
    let (rig, begin, end) = third_epoch();
    let last = rig.writes.last().unwrap().offset;
    let old: Vec<u8> = (0..SECTOR).map(|i| mixed(i as u64).to_le_bytes()[0]).collect();
    for (offset, content) in
        (begin..end).step_by(SECTOR).flat_map(|at| [(at, vec![0; SECTOR]), (at, old.clone())])
    {
        let mut disk = rig.disk.clone();
        disk.write(&Write { offset, data: content });
        let expected = if offset < last { Err(ReadOnly::Damaged) } else { disk.records() };
        assert_eq!(disk.records(), expected, "at {offset}");
    }
}

#[test]
fn a_header_is_healed_from_its_copy_and_the_copy_from_it() {
    let (rig, _, _) = third_epoch();
    let good: Vec<_> = rig.state.records(usize::MAX).collect();
    let half = SMALLEST / 2;
    for offset in [0, half - SECTOR] {
        let mut disk = rig.disk.clone();
        disk.0[offset..][..SECTOR].fill(0xa5);
        let healed = Rig::on(disk, 9);
        assert_eq!((healed.writes.len(), healed.disk.records().as_ref()), (1, Ok(&good)));
        assert!(healed.disk.0 == rig.disk.0);
    }
    // Both of them cannot be.
    let mut disk = rig.disk.clone();
    disk.0[..SECTOR].fill(0xa5);
    disk.0[half - SECTOR..half].fill(0xa5);
    assert_eq!(disk.records(), Err(ReadOnly::Damaged));
}

#[test]
fn an_area_that_was_wiped_is_missed() {
    let (rig, _, _) = third_epoch();
    let half = SMALLEST / 2;
    for wiped in [0..half, half..SMALLEST] {
        for byte in [0, 0x5a] {
            let mut disk = rig.disk.clone();
            disk.0[wiped.clone()].fill(byte);
            assert_eq!(disk.records(), Err(ReadOnly::Damaged), "{wiped:?} filled with {byte}");
        }
    }
    let mut disk = rig.disk.clone();
    disk.0.fill(0x5a);
    assert_eq!(disk.records(), Err(ReadOnly::NotAJournal));
    disk.0.fill(0);
    assert!(matches!(disk.recover(7).found, Found::Fresh));
}

#[test]
fn what_can_be_read_of_a_damaged_journal_is_shown() {
    let (mut rig, _, end) = third_epoch();
    rig.disk.0[end - 5 * SECTOR] ^= 1;
    let Recovered { journal, state, found, .. } = rig.disk.recover(7);
    assert_eq!(journal.read_only(), Some(ReadOnly::Damaged));
    assert!(matches!(found, Found::ReadOnly { reason: ReadOnly::Damaged, count: 30.. }), "{found}");
    assert!(state.len() >= 30);
}

#[test]
fn another_version_or_a_newer_record_is_left_alone() {
    let mut rig = Rig::new(SMALLEST);
    rig.create(1).unwrap();
    let header = rig.writes[rig.writes.len() - 1].clone();
    let mut disk = rig.disk.clone();
    // The version is the first byte behind magic, length and CRC.
    let mut block = header.data.clone();
    block[12] = 9;
    let length = u32::from_le_bytes(*block[4..].first_chunk().unwrap()) as usize;
    let crc = crc32fast::hash(&[&[0; 8][..], &block[4..8], &block[12..12 + length]].concat());
    block[8..12].copy_from_slice(&crc.to_le_bytes());
    disk.write(&Write { offset: 0, data: block });
    assert_eq!(disk.records(), Err(ReadOnly::Version(9)));

    rig.journal.begin();
    rig.journal.pending.push(vec![250]);
    rig.journal.urgent = true;
    let outputs = rig.journal.commit(1, &rig.state).unwrap();
    rig.carry_out(outputs);
    assert_eq!(rig.disk.records(), Err(ReadOnly::Newer));
}

#[test]
fn a_device_may_grow_but_not_shrink() {
    let mut rig = Rig::new(1 << 20);
    for number in 0..50 {
        rig.create(number).unwrap();
    }
    let good = rig.disk.records();
    let mut disk = rig.disk.clone();
    disk.0.resize(2 << 20, 0);
    assert_eq!(disk.records(), good);
    let mut grown = Rig::on(disk, 3);
    for number in 50..4000 {
        grown.handle([creating(number, 0), removed(number - 10)]).unwrap();
    }
    assert_eq!(grown.disk.records(), Ok(grown.state.records(usize::MAX).collect()));
    let mut disk = rig.disk.clone();
    disk.0.truncate(1 << 19);
    assert_eq!(disk.records(), Err(ReadOnly::Geometry));
    disk.0.truncate(SMALLEST - SECTOR);
    let (bytes, min) = ((SMALLEST - SECTOR) as u64, SMALLEST as u64);
    assert_eq!(disk.records(), Err(ReadOnly::TooSmall { bytes, min }));
}

#[test]
fn a_device_that_cannot_be_read_is_no_reason_to_give_up() {
    let device = StateDevice { bytes: SMALLEST as u64, block_bytes: SECTOR, seed: 1 };
    let (rig, ..) = third_epoch();
    for reads in 0..6 {
        let mut left = reads;
        let recovered = recover(&device, &mut |offset, bytes| {
            left = usize::checked_sub(left, 1).ok_or(())?;
            bytes.copy_from_slice(&rig.disk.0[usize::try_from(offset).unwrap()..][..bytes.len()]);
            Ok(())
        });
        let whole = recovered.journal.read_only().is_none();
        assert!(whole || recovered.journal.read_only() == Some(ReadOnly::Unreadable), "{reads} reads");
    }
}

/// Bytes that mean nothing, and good journals with some of their bytes changed: never a panic, and what is taken for
/// sound can be gone on with.
#[test]
fn no_bytes_on_the_disk_hurt_anybody() {
    let (rig, _, end) = third_epoch();
    for seed in 0..3000 {
        let mut disk = rig.disk.clone();
        let mut number = seed << 20;
        let mut below = |bound: usize| {
            number += 1;
            mixed(number) as usize % bound
        };
        for _ in 0..=below(4) {
            let at = if below(2) == 0 { below(end) } else { below(SMALLEST) };
            let bytes = below(2000).min(SMALLEST - at);
            match below(4) {
                0 => disk.0[at..at + bytes].fill(0),
                1 => disk.0[at] ^= 1 << below(8),
                2 => disk.0[at..at + bytes].iter_mut().for_each(|byte| *byte = below(256) as u8),
                _ => {
                    let (from, to) = (below(SMALLEST / SECTOR), below(SMALLEST / SECTOR));
                    disk.0.copy_within(from * SECTOR..(from + 1) * SECTOR, to * SECTOR);
                }
            }
        }
        let mut again = Rig::on(disk, seed);
        if again.journal.read_only().is_none() {
            again.create(1 << 40).unwrap();
            assert_eq!(again.disk.records(), Ok(again.state.records(usize::MAX).collect()), "seed {seed}");
        }
    }
}
