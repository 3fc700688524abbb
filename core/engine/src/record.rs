//! What can change in the [`State`](crate::state::State): what the journal is made of.
//!
//! A record is applied before the effect that it explains is put out, and the journal makes it durable before it
//! lets that output go. Variants are only ever added at the end: their numbers are in the journals of all hosts.

use alloc::{boxed::Box, vec::Vec};

use petrel_wire::{
    Blob, Digest, ExitStatus, Label, List, Mac, Name, Path,
    limits::{ARGS_MAX, BLOCKS_MAX, CMDLINE_BYTES_MAX, CPUS_MAX, NETS_MAX, TAG_BYTES_MAX},
    operator::{Block, Event, Held, Net, Policy, Revocation, Supervision, Wish},
    shim::{InstanceId, TapId},
};
use serde::{Deserialize, Serialize};

use crate::volumes::VolumeRecord;

/// A change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Record {
    /// A unikernel is to be, and to run: its name, memory and volumes are taken from here on. `instance` is what it
    /// will be first at the shim.
    Created { instance: InstanceId, generation: Generation },
    /// It gets another generation, which is the current one from here on.
    Updated { name: Name, generation: Generation, trial: Option<Trial> },
    /// One of its generations becomes the current one.
    Switched { name: Name, number: u32, trial: Option<Trial> },
    /// The current generation has done well.
    Accepted(Name),
    /// The current generation is given up for the one before its trial.
    RolledBack { name: Name, faulty: bool },
    /// An operator wants it so.
    Wished { name: Name, wish: Wish },
    /// The shim is asked for a monitor of its current generation.
    Starting { name: Name, instance: InstanceId, taps: Vec<TapId> },
    /// Its monitor runs.
    Started { instance: InstanceId, pid: u32 },
    /// Its monitor has ended. `at_ms` is `None` if nobody saw it end.
    Ended { instance: InstanceId, status: ExitStatus, at_ms: Option<u64> },
    /// The shim has nothing of it.
    Absent(InstanceId),
    /// What it has been through, where the records of that are no longer kept.
    Past { name: Name, restarts: u32, last: Option<(ExitStatus, Option<u64>)> },
    /// Nothing of it is left, or what is left is nobody's.
    Removed(Name),
    /// All that is ours on the host is in the state. What the shim has besides, with a tag of ours, is nobody's.
    Complete,

    // Policies and certificates.
    /// An operator has set what all that lies below a path may have.
    PolicySet { path: Path, policy: Box<Policy> },
    /// An operator has taken that back.
    PolicyRemoved(Path),
    /// An operator has revoked certificates.
    Revoked(Revocation),
    /// Something about a volume.
    Volume(VolumeRecord),
    /// Something happened: history, which changes nothing else.
    Happened(Box<Event>),
}

/// When a record has to be on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Never: the shim tells it again.
    Never,
    /// Some day: it is history, or learned from what lasts, and goes with the next batch.
    Later,
    /// Before anything that follows from it leaves. One that `grows` the state is refused when there is little room
    /// left, and the rest is for those that free it.
    Before { grows: bool },
}

impl Record {
    /// When it has to be on the disk.
    pub fn durability(&self) -> Durability {
        match self {
            Self::Started { .. } => Durability::Never,
            Self::Ended { .. }
            | Self::Absent(_)
            | Self::Past { .. }
            | Self::Complete
            | Self::Happened(_) => Durability::Later,
            Self::Created { .. }
            | Self::Updated { .. }
            | Self::PolicySet { .. }
            | Self::Volume(VolumeRecord::Creating { .. }) => Durability::Before { grows: true },
            Self::Switched { .. }
            | Self::Accepted(_)
            | Self::RolledBack { .. }
            | Self::Wished { .. }
            | Self::Starting { .. }
            | Self::Removed(_)
            | Self::Volume(_)
            | Self::PolicyRemoved(_)
            // It grows the state, but must be possible in the last of the room.
            | Self::Revoked(_) => Durability::Before { grows: false },
        }
    }
}

/// All of a unikernel that a change makes anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Generation {
    pub number: u32,
    /// It was given up.
    pub faulty: bool,
    pub spec: Box<Spec>,
}

/// A generation that has to show that it does well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trial {
    /// The one that comes back otherwise.
    pub from: u32,
    /// How long it has; it is enough that its monitor runs if there is no window.
    pub window_s: Option<u32>,
}

/// All of a unikernel that does not change within a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub name: Name,
    pub image: Digest,
    pub memory_mib: u32,
    pub cpus: List<u16, CPUS_MAX>,
    pub nets: List<(Net, Mac), NETS_MAX>,
    pub blocks: List<Block, BLOCKS_MAX>,
    pub args: List<Blob<CMDLINE_BYTES_MAX>, ARGS_MAX>,
    pub supervision: Supervision,
    pub monitor: Label,
    /// When the unikernel was created.
    pub created_ms: u64,
    /// When this generation was made.
    pub made_ms: u64,
}

/// The layout of a tag.
const TAG_VERSION: u16 = 1;

/// What the shim keeps beside a monitor, for a control plane that has lost its memory.
pub(crate) type Tag = Blob<TAG_BYTES_MAX>;

impl Spec {
    /// What of it counts against policies, whether it runs or not.
    pub fn held(&self) -> Held {
        Held { unikernels: 1, memory_mib: self.memory_mib.into(), volume_mib: 0 }
    }
}

impl Generation {
    /// As a tag. `TAG_BYTES_MAX` is chosen so that every one fits; see the test.
    pub fn to_tag(&self) -> Option<Tag> {
        Tag::try_from(postcard::to_allocvec(&(TAG_VERSION, self)).ok()?).ok()
    }

    /// From a tag, unless it is damaged, of another version, or another's altogether.
    pub fn from_tag(tag: &[u8]) -> Option<Self> {
        match postcard::take_from_bytes::<u16>(tag).ok()? {
            (TAG_VERSION, generation) => petrel_wire::frame::decode(generation).ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::{format, vec};

    use petrel_wire::{
        Probe,
        limits::{AFTER_MAX, EXIT_CODES_MAX, PROBE_BYTES_MAX},
        operator::{Liveness, Restart, RestartWhen},
    };

    use super::*;

    /// The largest one that can be created: every list full, every name of full length.
    fn largest() -> Generation {
        let device = |kind: char, i: usize| format!("{}{i:066}", kind).parse().unwrap();
        let net = |i| {
            let bridge = "b".repeat(15).parse().unwrap();
            (Net { device: device('n', i), bridge }, Mac([0xff; 6]))
        };
        let block = |i| Block {
            device: device('b', i),
            volume: format!("{}:{}", "v".repeat(63), "v".repeat(63)).parse().unwrap(),
        };
        let after = |i| format!("{}:{}{i}", "n".repeat(63), "n".repeat(62)).parse().unwrap();
        let probe: Probe =
            format!("http:255.255.255.255:65535/{}", "p".repeat(PROBE_BYTES_MAX - 1)).parse().unwrap();
        let supervision = Supervision {
            restart: Restart {
                when: RestartWhen::Always,
                codes: vec![u8::MAX; EXIT_CODES_MAX].try_into().unwrap(),
            },
            after: (0..AFTER_MAX).map(after).collect::<Vec<_>>().try_into().unwrap(),
            ready: Some(probe.clone()),
            alive: Some(Liveness { probe, every_s: u16::MAX, failures: u8::MAX }),
        };
        let mut args = vec![Blob::try_from(&b"x"[..]).unwrap(); ARGS_MAX - 1];
        let rest = CMDLINE_BYTES_MAX - 1 - 2 * args.len();
        args.push(Blob::try_from(vec![b'x'; rest]).unwrap());
        let spec = Spec {
            name: format!("{}:{}", "n".repeat(63), "n".repeat(63)).parse().unwrap(),
            image: Digest([0xff; 32]),
            memory_mib: u32::MAX,
            cpus: vec![u16::MAX; CPUS_MAX].try_into().unwrap(),
            nets: (0..NETS_MAX).map(net).collect::<Vec<_>>().try_into().unwrap(),
            blocks: (0..BLOCKS_MAX).map(block).collect::<Vec<_>>().try_into().unwrap(),
            args: args.try_into().unwrap(),
            supervision,
            monitor: "m".repeat(63).parse().unwrap(),
            created_ms: u64::MAX,
            made_ms: u64::MAX,
        };
        Generation { number: u32::MAX, faulty: true, spec: spec.into() }
    }

    #[test]
    fn the_largest_generation_fits_a_tag_and_comes_back() {
        let generation = largest();
        let tag = generation.to_tag().unwrap();
        assert_eq!(Generation::from_tag(&tag), Some(generation));
    }

    #[test]
    fn a_tag_that_is_cut_longer_or_of_another_version_is_not_ours() {
        let tag = largest().to_tag().unwrap().into_vec();
        assert!((0..tag.len()).step_by(13).all(|cut| Generation::from_tag(&tag[..cut]).is_none()));
        let mut longer = tag.clone();
        longer.push(0);
        let mut other = tag;
        other[0] = 2;
        assert_eq!((Generation::from_tag(&longer), Generation::from_tag(&other)), (None, None));
    }
}
