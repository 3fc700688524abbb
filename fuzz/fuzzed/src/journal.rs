//! A block device "state": whatever is on it, there is an engine, which works.
//!
//! The first byte says whether the device is taken as it is, or what looks like the journal's is made whole first.

use petrel_engine::{Config, Engine, Input, Now, Output, StateDevice, reseal};
use petrel_wire::limits::STATE_DEVICE_BYTES_MIN;

const BLOCK_BYTES: usize = 512;
/// Worlds whose disks the fuzzers begin with, and the steps that are taken in them.
const WORLDS: std::ops::Range<u64> = 0..12;
const STEPS: u64 = 400;

pub fn feed(bytes: &[u8]) {
    let Some((how, content)) = bytes.split_first() else { return };
    let least = usize::try_from(STATE_DEVICE_BYTES_MIN).expect("it is small");
    let mut device = content.to_vec();
    device.resize(content.len().max(least).next_multiple_of(BLOCK_BYTES), 0);
    if how % 2 == 1 {
        reseal(&mut device);
    }
    let mut engine = recover(&device);
    live(&mut engine, &mut device);
    // What it has written since is found again.
    let mut again = recover(&device);
    assert_eq!(again.known().count(), engine.known().count());
    live(&mut again, &mut device);
}

fn recover(device: &[u8]) -> Engine {
    let config = Config { host: "alpha".parse().expect("a label"), release: [0, 1, 0] };
    let shape = StateDevice { bytes: device.len() as u64, block_bytes: BLOCK_BYTES, seed: 7 };
    Engine::recover(config, &shape, |offset, data| -> Result<(), &str> {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = device.get(at..at.saturating_add(data.len())).ok_or("out of the device")?;
        data.copy_from_slice(found);
        Ok(())
    })
}

/// A while without anybody: the link opens and closes, and time passes.
fn live(engine: &mut Engine, device: &mut [u8]) {
    let mut now = Now { monotonic_ns: 1, wall_ms: 1_700_000_000_000 };
    for input in [Input::LinkOpened, Input::LinkClosed] {
        engine.handle(now, input);
        take_outputs(engine, device);
        now.monotonic_ns = now.monotonic_ns.max(engine.poll_at().unwrap_or(0)) + 1;
        engine.handle_timeout(now);
        take_outputs(engine, device);
    }
    assert_eq!(engine.audit(), Ok(()));
    let full = engine.tables().find(|table| table.entries > table.max);
    assert!(full.is_none(), "a table is over its bound: {full:?}");
}

fn take_outputs(engine: &mut Engine, device: &mut [u8]) {
    while let Some(output) = engine.poll_output() {
        if let Output::Persist { offset, data } = output {
            let at = usize::try_from(offset).expect("it is within the device");
            device[at..at + data.len()].copy_from_slice(&data);
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let disks = WORLDS.filter_map(|seed| petrel_sim::state_after(seed, STEPS).ok().flatten());
    let disks: Vec<_> = disks.map(|disk| [vec![1], disk].concat()).collect();
    let known: usize = disks.iter().map(|disk| recover(&disk[1..]).known().count()).sum();
    assert!(known > disks.len(), "there is something on them: {known} unikernels on {} disks", disks.len());
    disks
}
