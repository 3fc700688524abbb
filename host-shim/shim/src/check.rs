//! What the control plane may ask: no I/O, no clock.

use petrel_wire::frame::FrameError;
use petrel_wire::limits::{
    CMDLINE_BYTES_MAX, IMAGE_BYTES_MAX, IMAGE_READ_BYTES_MAX, IMAGES_MAX, MEMORY_MIB_MAX, MEMORY_MIB_MIN,
    SHIM_VERSION, TAPS_MAX, UNIKERNELS_MAX, UPLOADS_MAX,
};
use petrel_wire::shim::{Fault, Host, InstanceId, Op, Spawn, TapId};
use petrel_wire::{BridgeName, DeviceName, Digest, Label};

use crate::ledger::{Ledger, State, Tap};

/// An operation that may be carried out. Only [`check`] makes one.
pub struct Checked(Op);

impl Checked {
    /// The operation.
    pub fn into_op(self) -> Op {
        self.0
    }
}

/// Why an operation is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No honest control plane sends this: the link ends.
    Violation(Violation),
    /// An honest one may meet this: it is the answer.
    Fault(Fault),
}

impl From<Violation> for Refusal {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// What no honest control plane sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A frame that is none, or no request.
    Frame(FrameError),
    /// Something before hello, a second hello, or one of another version.
    Hello,
    /// An image without bytes, or with more than [`IMAGE_BYTES_MAX`].
    ImageSize(u64),
    /// Other bytes of an image than were announced: more, fewer, or of another digest.
    ImageBytes(Digest),
    /// A read of more than [`IMAGE_READ_BYTES_MAX`] bytes.
    ReadSize(u32),
    /// A bridge that is not in the configuration.
    Bridge(BridgeName),
    /// The control plane's own instance.
    InstanceZero,
    /// A monitor that is not in the configuration.
    Monitor(Label),
    /// Memory, in MiB, that no guest can have, or more than the host has.
    Memory(u32),
    /// A CPU that workloads may not run on.
    Cpu(u16),
    /// One tap for two devices.
    TapTwice(TapId),
    /// Two devices of one name.
    DeviceTwice(DeviceName),
    /// Arguments with a NUL, or over [`CMDLINE_BYTES_MAX`].
    Arguments,
}

/// Holds `op` against what the host is and what the ledger holds.
pub fn check<P, T, U>(op: Op, host: &Host, ledger: &Ledger<P, T, U>) -> Result<Checked, Refusal> {
    let is_hello = matches!(op, Op::Hello { version: SHIM_VERSION });
    ensure(is_hello != ledger.greeted, Violation::Hello)?;
    match &op {
        Op::Hello { .. } => ensure(is_hello, Violation::Hello)?,
        Op::Host | Op::List { .. } | Op::Stats(_) => {}
        Op::ImageBegin { digest, bytes } => image_begin(digest, *bytes, ledger)?,
        // Chunks that follow a refused begin are on their way before its answer is read: they are dropped.
        Op::ImageChunk { digest, data } => ensure(
            ledger
                .uploads
                .get(digest)
                .is_none_or(|upload| data.len() as u64 <= upload.bytes - upload.received),
            Violation::ImageBytes(*digest),
        )?,
        Op::ImageCommit(digest) => {
            let upload = ledger.uploads.get(digest).ok_or(Fault::NotFound)?;
            ensure(upload.received == upload.bytes, Violation::ImageBytes(*digest))?;
        }
        Op::ImageAbort(digest) => ensure(ledger.uploads.contains_key(digest), Fault::NotFound)?,
        Op::ImageRead { digest, bytes, .. } => {
            ensure(*bytes as usize <= IMAGE_READ_BYTES_MAX, Violation::ReadSize(*bytes))?;
            ensure(ledger.images.contains(digest), Fault::NotFound)?;
        }
        Op::ImageRemove(digest) => ensure(ledger.images.contains(digest), Fault::NotFound)?,
        Op::TapCreate { tap, bridge } => {
            ensure(host.bridges.contains(bridge), Violation::Bridge(bridge.clone()))?;
            ensure(!ledger.taps.contains_key(tap), Fault::Exists)?;
            ensure(ledger.taps.len() < TAPS_MAX, Fault::Full)?;
        }
        Op::TapDestroy(tap) => tap_free(*tap, ledger)?,
        Op::Spawn(spawn) => {
            spawn_honest(spawn, host)?;
            spawn_possible(spawn, ledger)?;
        }
        Op::Kill(instance) => ensure(ledger.monitors.contains_key(instance), Fault::NotFound)?,
        Op::Forget(instance) => {
            let monitor = ledger.monitors.get(instance).ok_or(Fault::NotFound)?;
            ensure(matches!(monitor.state, State::Ended(_)), Fault::InUse)?;
        }
    }
    Ok(Checked(op))
}

fn ensure(holds: bool, otherwise: impl Into<Refusal>) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

fn tap_free<P, T, U>(tap: TapId, ledger: &Ledger<P, T, U>) -> Result<(), Refusal> {
    let tap = ledger.taps.get(&tap).ok_or(Fault::NotFound)?;
    ensure(matches!(tap, Tap::Free(_)), Fault::InUse)
}

fn image_begin<P, T, U>(digest: &Digest, bytes: u64, ledger: &Ledger<P, T, U>) -> Result<(), Refusal> {
    ensure(bytes > 0 && bytes <= IMAGE_BYTES_MAX, Violation::ImageSize(bytes))?;
    if ledger.images.contains(digest) {
        return Ok(());
    }
    ensure(!ledger.uploads.contains_key(digest), Fault::Exists)?;
    // An upload holds the place of its image, so that no commit finds the store full.
    let places = ledger.images.len() + ledger.uploads.len();
    ensure(ledger.uploads.len() < UPLOADS_MAX && places < IMAGES_MAX, Fault::Full)
}

/// Whether an honest control plane may ask for it, whatever the ledger holds.
fn spawn_honest(spawn: &Spawn, host: &Host) -> Result<(), Refusal> {
    ensure(spawn.instance != InstanceId(0), Violation::InstanceZero)?;
    let mut monitors = host.monitors.iter();
    ensure(monitors.any(|monitor| monitor.name == spawn.monitor), Violation::Monitor(spawn.monitor.clone()))?;
    let addressable = (MEMORY_MIB_MIN..=MEMORY_MIB_MAX).contains(&spawn.memory_mib);
    ensure(
        addressable && u64::from(spawn.memory_mib) <= host.memory_mib,
        Violation::Memory(spawn.memory_mib),
    )?;
    for cpu in &spawn.cpus {
        ensure(host.cpus.contains(cpu), Violation::Cpu(*cpu))?;
    }
    for (index, net) in spawn.nets.iter().enumerate() {
        ensure(!spawn.nets[..index].iter().any(|other| other.tap == net.tap), Violation::TapTwice(net.tap))?;
    }
    let nets = spawn.nets.iter().map(|net| &net.device);
    let mut devices: Vec<_> = nets.chain(spawn.blocks.iter().map(|block| &block.device)).collect();
    devices.sort_unstable();
    for pair in devices.windows(2) {
        ensure(pair[0] != pair[1], Violation::DeviceTwice(pair[0].clone()))?;
    }
    // Joined by spaces and ended by a NUL, each argument takes one byte more than it has.
    let bytes: usize = spawn.args.iter().map(|arg| arg.len() + 1).sum();
    ensure(bytes <= CMDLINE_BYTES_MAX && !spawn.args.iter().any(|arg| arg.contains(&0)), Violation::Arguments)
}

/// Whether all that it takes is there and free.
fn spawn_possible<P, T, U>(spawn: &Spawn, ledger: &Ledger<P, T, U>) -> Result<(), Refusal> {
    ensure(!ledger.monitors.contains_key(&spawn.instance), Fault::Exists)?;
    ensure(ledger.monitors.len() < UNIKERNELS_MAX, Fault::Full)?;
    ensure(ledger.images.contains(&spawn.image), Fault::NotFound)?;
    spawn.nets.iter().try_for_each(|net| tap_free(net.tap, ledger))?;
    for (index, block) in spawn.blocks.iter().enumerate() {
        let twice = spawn.blocks[..index].iter().any(|other| other.volume == block.volume);
        ensure(!twice && !ledger.volumes.contains(&block.volume), Fault::InUse)?;
    }
    Ok(())
}
