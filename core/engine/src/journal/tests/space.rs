//! Room: going round the areas, filling them up, waiting for company.

use alloc::vec;

use petrel_wire::{
    operator::ReadOnly,
    shim::{InstanceId, TapId},
};

use super::{Rig, SMALLEST, creating, destroying, ended, name, removed};
use crate::{journal::recovery::Found, limits::RECORD_WAIT_NS, record::Record};

#[test]
fn thousands_of_records_go_round_the_two_areas() {
    let mut rig = Rig::new(SMALLEST);
    let mut longest = 0;
    for number in 0..5000 {
        longest = longest.max(rig.create(number).unwrap());
        if number >= 20 {
            longest = longest.max(rig.handle([removed(number - 20)]).unwrap());
        }
    }
    assert_eq!(rig.disk.records(), Ok(rig.state.records(usize::MAX).collect()));
    let Found::Records { epoch, torn, .. } = rig.disk.recover(7).found else { panic!() };
    assert!(epoch > 50 && !torn, "epoch {epoch}");
    assert_eq!(longest, 3, "a snapshot of twenty unikernels is one batch, a header and its copy");
}

#[test]
fn a_large_device_is_not_filled_before_the_state_is_written_anew() {
    let mut rig = Rig::new(64 << 20);
    for number in 0..3000 {
        rig.create(number).unwrap();
        rig.handle([removed(number)]).unwrap();
    }
    let highest = rig.writes.iter().map(|write| write.offset % (32 << 20)).filter(|at| *at < 31 << 20).max();
    assert!(highest.unwrap() < 2 << 20, "recovery reads no further than the log may go");
}

#[test]
fn history_waits_for_company_but_not_for_ever() {
    let mut rig = Rig::new(SMALLEST);
    rig.create(1).unwrap();
    assert_eq!(rig.handle([Record::Started { instance: InstanceId(1), pid: 5 }]), Ok(0));
    assert_eq!((rig.handle([ended(1)]), rig.journal.deadline()), (Ok(0), Some(1 + RECORD_WAIT_NS)));
    assert_eq!(rig.create(2), Ok(1), "both in one batch");
    assert_eq!(rig.journal.deadline(), None);
    assert_eq!(rig.disk.records(), Ok(rig.state.records(usize::MAX).collect()));

    assert_eq!(rig.handle([ended(2)]), Ok(0));
    rig.now_ns = rig.journal.deadline().unwrap();
    assert_eq!((rig.handle([]), rig.journal.deadline()), (Ok(1), None));
    assert_eq!(rig.disk.records(), Ok(rig.state.records(usize::MAX).collect()));
}

#[test]
fn a_full_device_refuses_what_grows_and_takes_what_frees() {
    let mut rig = Rig::new(SMALLEST);
    let mut number = 0;
    let reason = loop {
        number += 1;
        match rig.handle([creating(number, 3000)]) {
            Ok(_) => {}
            Err(reason) => break reason,
        }
    };
    assert_eq!(reason, ReadOnly::Full);
    assert!(number > 12, "three quarters of an area were used: {number}");
    // The engine takes it back; see its own tests.
    rig.state.apply(removed(number));
    rig.journal.forget(0);
    assert_eq!(rig.disk.records(), Ok(rig.state.records(usize::MAX).collect()));
    // Everything can be removed, one by one, with the room that is left.
    for number in 1..number {
        rig.handle([destroying(number, true)]).unwrap();
        rig.handle([removed(number)]).unwrap();
    }
    assert_eq!(rig.disk.records(), Ok(vec![]));
    rig.handle([creating(7, 3000)]).unwrap();
}

#[test]
fn a_record_longer_than_a_batch_is_refused() {
    let mut rig = Rig::new(1 << 20);
    rig.create(1).unwrap();
    let writes = rig.writes.len();
    let (instance, taps) = (InstanceId(1), vec![TapId(u32::MAX); 7000]);
    assert_eq!(rig.handle([Record::Starting { name: name(1), instance, taps }]), Err(ReadOnly::Full));
    assert_eq!(rig.writes.len(), writes);
}
