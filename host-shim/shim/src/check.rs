//! What the control plane may ask: no I/O, no clock.

use std::{collections::BTreeSet, io};

use petrel_wire::shim::{Fault, Host, InstanceId, Op, Spawn, TapId, VolumeOp};
use petrel_wire::{Digest, limits};
use rustix::io::Errno;

use self::Refusal::Violation;
use crate::ledger::Ledger;

/// An operation that may be carried out. Only [`check`] makes one.
pub struct Checked(Op);

impl Checked {
    /// The operation.
    pub fn into_op(self) -> Op {
        self.0
    }
}

/// Why an operation is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No honest control plane sends this: it is logged, and the link ends.
    Violation(&'static str),
    /// An honest one may meet this: it is the answer.
    Fault(Fault),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Fault(Fault::Os { errno: error.raw_os_error().unwrap_or(Errno::IO.raw_os_error()) })
    }
}

/// Holds `op` against what the host is and what the ledger holds.
pub fn check(op: Op, host: &Host, ledger: &Ledger) -> Result<Checked, Refusal> {
    let is_hello = matches!(op, Op::Hello { version: limits::SHIM_VERSION });
    ensure(is_hello != ledger.greeted, Violation("a request before hello, or a second hello"))?;
    match &op {
        Op::Hello { .. } => ensure(is_hello, Violation("a hello of another version"))?,
        Op::Host | Op::List { .. } | Op::ImageList { .. } | Op::Stats(_) | Op::Appliance(_) => {}
        Op::Volume(op) => check_volume(op, host, ledger)?,
        Op::ImageBegin { digest, bytes } => image_begin(digest, *bytes, ledger)?,
        // Chunks that follow a refused begin are on their way before its answer is read: they are dropped.
        Op::ImageChunk { digest, data } => {
            let fits = ledger.uploads.get(digest).is_none_or(|left| data.len() as u64 <= *left);
            ensure(fits, Violation("more bytes of an image than announced"))?;
        }
        Op::ImageCommit(digest) => {
            let left = ledger.uploads.get(digest).ok_or(Fault::NotFound)?;
            ensure(*left == 0, Violation("fewer bytes of an image than announced"))?;
        }
        Op::ImageAbort(digest) => ensure(ledger.uploads.contains_key(digest), Fault::NotFound)?,
        Op::ImageRead { digest, bytes, .. } => {
            ensure(*bytes as usize <= limits::IMAGE_READ_BYTES_MAX, Violation("a read of too many bytes"))?;
            ensure(ledger.images.contains(digest), Fault::NotFound)?;
        }
        Op::ImageRemove(digest) => ensure(ledger.images.contains(digest), Fault::NotFound)?,
        Op::TapCreate { tap, bridge } => {
            ensure(host.bridges.contains(bridge), Violation("a bridge that is not configured"))?;
            ensure(!ledger.taps.contains_key(tap), Fault::Exists)?;
            ensure(ledger.taps.len() < limits::TAPS_MAX, Fault::Full)?;
        }
        Op::TapDestroy(tap) => tap_free(*tap, ledger)?,
        Op::Spawn(spawn) => check_spawn(spawn, host, ledger)?,
        Op::Kill(instance) => ensure(ledger.monitor(*instance).is_some(), Fault::NotFound)?,
        Op::Forget(instance) => {
            let record = ledger.monitor(*instance).ok_or(Fault::NotFound)?;
            ensure(record.listed.exited.is_some(), Fault::InUse)?;
        }
    }
    Ok(Checked(op))
}

fn ensure(holds: bool, otherwise: impl Into<Refusal>) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

fn tap_free(tap: TapId, ledger: &Ledger) -> Result<(), Refusal> {
    let taker = ledger.taps.get(&tap).ok_or(Fault::NotFound)?;
    ensure(taker.is_none(), Fault::InUse)
}

fn image_begin(digest: &Digest, bytes: u64, ledger: &Ledger) -> Result<(), Refusal> {
    ensure((1..=limits::IMAGE_BYTES_MAX).contains(&bytes), Violation("an image of an impossible size"))?;
    if ledger.images.contains(digest) {
        return Ok(());
    }
    ensure(!ledger.uploads.contains_key(digest), Fault::Exists)?;
    // An upload holds the place of its image, so that no commit finds the store full.
    let places = ledger.images.len() + ledger.uploads.len();
    ensure(ledger.uploads.len() < limits::UPLOADS_MAX && places < limits::IMAGES_MAX, Fault::Full)
}

fn check_volume(op: &VolumeOp, host: &Host, ledger: &Ledger) -> Result<(), Refusal> {
    let volumes = &ledger.volume_bytes;
    let size = |volume| volumes.get(volume).copied().ok_or(Refusal::Fault(Fault::NoVolume));
    let free = |volume| ensure(!ledger.volumes.contains(volume), Fault::InUse);
    let sum = |more: u64| volumes.values().fold(more, |sum, bytes| sum.saturating_add(*bytes));
    let fits = |more| host.volumes_mib.is_none_or(|max| sum(more).div_ceil(1 << 20) <= max);
    let room = |more| ensure(fits(more), Fault::Full);
    match op {
        VolumeOp::Create { volume, bytes } => {
            ensure(!volumes.contains_key(volume), Fault::Exists)?;
            ensure(volumes.len() < limits::VOLUMES_MAX, Fault::Full).and(room(*bytes))
        }
        VolumeOp::Resize { volume, bytes } => bytes.checked_sub(size(volume)?).map_or(free(volume), room),
        VolumeOp::Remove(volume) => size(volume).and(free(volume)),
        VolumeOp::Rename { from, to } => size(from).and(free(from)).and(free(to)),
        VolumeOp::Clone { from, to } => ensure(size(from)? == size(to)?, Fault::NoVolume).and(free(to)),
        VolumeOp::Write { volume, offset, data } => {
            let fits = offset.saturating_add(data.len() as u64) <= size(volume)?;
            ensure(fits, Violation("a write beyond the end of a volume")).and(free(volume))
        }
        VolumeOp::Read { volume, .. } | VolumeOp::Sync(volume) => size(volume).map(drop),
        VolumeOp::List { .. } => Ok(()),
    }
}

fn check_spawn(spawn: &Spawn, host: &Host, ledger: &Ledger) -> Result<(), Refusal> {
    // Whether an honest control plane may ask for it, whatever the ledger holds.
    ensure(spawn.instance != InstanceId::CONTROL_PLANE, Violation("the control plane's own instance"))?;
    let is_known = host.monitors.iter().any(|monitor| monitor.name == spawn.monitor);
    ensure(is_known, Violation("a monitor that is not configured"))?;
    let is_there = u64::from(spawn.memory_mib) <= host.memory_mib;
    let is_addressable = (limits::MEMORY_MIB_MIN..=limits::MEMORY_MIB_MAX).contains(&spawn.memory_mib);
    ensure(is_there && is_addressable, Violation("memory that no guest can have here"))?;
    let are_usable = spawn.cpus.iter().all(|cpu| host.cpus.contains(cpu));
    ensure(are_usable, Violation("a CPU that workloads may not run on"))?;
    ensure(are_distinct(spawn.nets.iter().map(|net| net.tap)), Violation("one tap for two devices"))?;
    let nets = spawn.nets.iter().map(|net| &net.device);
    let devices = nets.chain(spawn.blocks.iter().map(|block| &block.device));
    ensure(are_distinct(devices), Violation("two devices of one name"))?;
    // Joined by spaces and ended by a NUL, each argument takes one byte more than it has.
    let bytes: usize = spawn.args.iter().map(|arg| arg.len() + 1).sum();
    let fit = bytes <= limits::CMDLINE_BYTES_MAX && !spawn.args.iter().any(|arg| arg.contains(&0));
    ensure(fit, Violation("arguments that no guest can be given"))?;
    // Whether all that it takes is there and free.
    ensure(!ledger.monitors.contains_key(&spawn.instance), Fault::Exists)?;
    ensure(ledger.monitors.len() <= limits::UNIKERNELS_MAX, Fault::Full)?; // the control plane's is one more
    ensure(ledger.images.contains(&spawn.image), Fault::NotFound)?;
    spawn.nets.iter().try_for_each(|net| tap_free(net.tap, ledger))?;
    let mut volumes = spawn.blocks.iter().map(|block| &block.volume);
    ensure(are_distinct(volumes.clone()), Fault::InUse)?;
    ensure(!volumes.clone().any(|volume| ledger.volumes.contains(volume)), Fault::InUse)?;
    ensure(volumes.all(|volume| ledger.volume_bytes.contains_key(volume)), Fault::NoVolume)
}

fn are_distinct<T: Ord>(mut items: impl Iterator<Item = T>) -> bool {
    let mut seen = BTreeSet::new();
    items.all(|item| seen.insert(item))
}
