//! What a state file may tell: nothing but what a control plane writes of a state that it could have come to. Whoever
//! made the file otherwise gets no further than this.

use alloc::collections::BTreeSet;

use petrel_wire::{
    Path,
    limits::{GENERATIONS_MAX, MEMORY_MIB_MAX, MEMORY_MIB_MIN, TAPS_MAX, UNIKERNELS_MAX, VOLUMES_MAX},
    shim::TapId,
};

use crate::{
    create::{check_arguments, check_supervision, mac_address},
    record::{Generation, Record, Spec, Trial},
    state::State,
    unikernel::Unikernel,
    volumes::VolumeRecord,
};

/// Numbers that are given in turn do not get as far as this; from a greater one there would be no going on.
const NUMBER_MAX: u64 = u64::MAX / 2;
const GENERATION_MAX: u32 = u32::MAX / 2;

/// Whether a record can follow what is in `state`.
///
/// # Errors
/// Why not.
pub(super) fn check(state: &State, record: &Record) -> Result<(), &'static str> {
    match record {
        Record::Created { instance, generation } => {
            ensure(state.len() < UNIKERNELS_MAX, "more unikernels than a host can have")?;
            ensure(state.get(&generation.spec.name).is_none(), "a name twice")?;
            ensure(instance.0 <= NUMBER_MAX, "a number that is never reached")?;
            ensure(state.by_id(*instance).is_none(), "an instance twice")?;
            check_generation(generation)
        }
        Record::Updated { name, generation, trial } => {
            let unikernel = state.get(name).ok_or("a generation of no unikernel")?;
            ensure(generation.spec.name == *name, "a generation of another unikernel")?;
            ensure(generation.number >= unikernel.next_number(), "generations out of order")?;
            ensure(unikernel.generations().count() < GENERATIONS_MAX, "more generations than are kept")?;
            check_trial(unikernel, *trial)?;
            check_generation(generation)
        }
        Record::Switched { name, number, trial } => {
            let unikernel = state.get(name).ok_or("a generation of no unikernel")?;
            ensure(unikernel.generation(*number).is_some(), "a generation that is not there")?;
            check_trial(unikernel, *trial)
        }
        Record::Starting { name, instance, taps } => {
            let unikernel = state.get(name).ok_or("the start of no unikernel")?;
            ensure(unikernel.instance == *instance, "the start of another instance")?;
            check_taps(state, unikernel, taps)
        }
        Record::Ended { instance, .. } | Record::Absent(instance) => is_there(state.by_id(*instance)),
        Record::Wished { name, .. } | Record::Past { name, .. } => is_there(state.get(name)),
        Record::Happened(event) => {
            ensure(event.sequence <= NUMBER_MAX, "a number that is never reached")?;
            ensure(event.sequence >= state.events.next(), "events out of order")
        }
        Record::PolicySet { path, .. } => {
            ensure(state.settings.has_room_for_policy(&Path::ROOT), "more policies than there can be")?;
            ensure(state.settings.policy(path.labels()).is_none(), "two policies for a path")
        }
        Record::Revoked(revocation) => {
            ensure(state.settings.has_room_for_revocation(&Path::ROOT), "more is revoked than can be")?;
            let known = state.settings.has_revocation(&revocation.path, &revocation.what);
            ensure(!known, "the same is revoked twice")
        }
        Record::Volume(VolumeRecord::Creating { name, bytes }) => {
            ensure(state.volumes.len() < VOLUMES_MAX, "more volumes than a host can have")?;
            ensure(state.volumes.get(name).is_none(), "a volume twice")?;
            let sum = state.volumes.bytes().checked_add(*bytes);
            ensure(sum.is_some_and(|sum| sum <= NUMBER_MAX), "more volume space than can be counted")
        }
        Record::Volume(VolumeRecord::Kept(name) | VolumeRecord::Removing(name)) => {
            ensure(state.volumes.get(name).is_some(), "something of no volume")
        }
        Record::Complete => Ok(()),
        // What such a record changes is written as it is since.
        Record::Accepted(_)
        | Record::RolledBack { .. }
        | Record::Started { .. }
        | Record::Removed(_)
        | Record::PolicyRemoved(_)
        | Record::Volume(VolumeRecord::Resized { .. } | VolumeRecord::Removed(_)) => {
            Err("a change, and no state")
        }
    }
}

fn is_there(unikernel: Option<&Unikernel>) -> Result<(), &'static str> {
    ensure(unikernel.is_some(), "something of no unikernel")
}

/// The generation that would come back must be kept.
fn check_trial(unikernel: &Unikernel, trial: Option<Trial>) -> Result<(), &'static str> {
    let returns = trial.is_none_or(|trial| unikernel.generation(trial.from).is_some());
    ensure(returns, "a trial with no way back")
}

fn check_taps(state: &State, unikernel: &Unikernel, taps: &[TapId]) -> Result<(), &'static str> {
    // One whose tap was given to another while nothing could be kept has fewer.
    ensure(taps.len() <= unikernel.spec().nets.len(), "more taps than network devices")?;
    let free = |tap: &TapId| !state.tap_taken(*tap);
    let different: BTreeSet<_> = taps.iter().collect();
    ensure(different.len() == taps.len() && taps.iter().all(free), "a tap twice")?;
    ensure(state.taps_len() + taps.len() <= TAPS_MAX, "more taps than a host can have")
}

/// What was checked before a generation was made holds of it for ever.
fn check_generation(generation: &Generation) -> Result<(), &'static str> {
    let Generation { number, spec, .. } = generation;
    let Spec { name, memory_mib, nets, blocks, args, supervision, .. } = &**spec;
    ensure((1..=GENERATION_MAX).contains(number), "a number that is never reached")?;
    ensure((MEMORY_MIB_MIN..=MEMORY_MIB_MAX).contains(memory_mib), "memory that no unikernel can have")?;
    ensure(check_arguments(args).is_ok(), "arguments that no unikernel can have")?;
    ensure(check_supervision(supervision).is_ok(), "a probe that is never made")?;
    let own = nets.iter().all(|(net, mac)| *mac == mac_address(&net.device, name));
    ensure(own, "a hardware address that is another's")?;
    let devices = nets.iter().map(|(net, _)| &net.device).chain(blocks.iter().map(|block| &block.device));
    let different: BTreeSet<_> = devices.collect();
    ensure(different.len() == nets.len() + blocks.len(), "a device twice")?;
    let volumes: BTreeSet<_> = blocks.iter().map(|block| &block.volume).collect();
    ensure(volumes.len() == blocks.len(), "a volume twice in one unikernel")
}

fn ensure(holds: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(otherwise) }
}

#[cfg(test)]
mod tests {
    use alloc::{boxed::Box, format, vec, vec::Vec};

    use petrel_wire::{
        Blob, Digest, ExitStatus, List, Name,
        limits::{CMDLINE_BYTES_MAX, POLICIES_MAX, REVOCATIONS_MAX},
        operator::{Block, Event, Liveness, Net, Policy, Revocable, Revocation, What, Who, Wish},
        shim::InstanceId,
    };

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    /// A generation of a unikernel with a network device and a volume.
    fn generation(of: &str, number: u32) -> Generation {
        let device = "net0".parse().unwrap();
        let mac = mac_address(&device, of);
        let net = Net { device, bridge: "service".parse().unwrap() };
        let block = Block { device: "disk".parse().unwrap(), volume: name("data") };
        let spec = Spec {
            name: name(of),
            image: Digest([1; 32]),
            memory_mib: 32,
            cpus: List::new(),
            nets: vec![(net, mac)].try_into().unwrap(),
            blocks: vec![block].try_into().unwrap(),
            args: List::new(),
            supervision: Default::default(),
            monitor: "petrel-tender".parse().unwrap(),
            created_ms: 1,
            made_ms: 1,
        };
        Generation { number, faulty: false, spec: spec.into() }
    }

    fn changed(change: impl FnOnce(&mut Spec)) -> Record {
        let mut generation = generation("b", 1);
        change(&mut generation.spec);
        Record::Created { instance: InstanceId(2), generation }
    }

    fn created(of: &str, instance: u64) -> Record {
        Record::Created { instance: InstanceId(instance), generation: generation(of, 1) }
    }

    fn updated(of: &str, number: u32, trial: Option<Trial>) -> Record {
        Record::Updated { name: name("a"), generation: generation(of, number), trial }
    }

    fn starting(of: &str, instance: u64, taps: &[u32]) -> Record {
        let taps = taps.iter().copied().map(TapId).collect();
        Record::Starting { name: name(of), instance: InstanceId(instance), taps }
    }

    fn creating(of: &str, bytes: u64) -> Record {
        Record::Volume(VolumeRecord::Creating { name: name(of), bytes })
    }

    fn policy(path: &str) -> Record {
        Record::PolicySet { path: path.parse().unwrap(), policy: Box::new(Policy::default()) }
    }

    fn revoked(number: usize) -> Record {
        let serial = number.to_be_bytes().to_vec().try_into().unwrap();
        Record::Revoked(Revocation { path: Path::ROOT, what: Revocable::Serial(serial), at_ms: 1 })
    }

    fn happened(sequence: u64) -> Record {
        let (who, what) = (Who::ControlPlane, What::ShimLost);
        Record::Happened(Box::new(Event { sequence, wall_ms: 1, who, what, about: Path::ROOT }))
    }

    /// What is wrong with the first of these records that cannot be.
    fn wrong(records: impl IntoIterator<Item = Record>) -> Option<&'static str> {
        let mut state = State::default();
        records.into_iter().find_map(|record| {
            let wrong = check(&state, &record).err();
            state.apply(record);
            wrong
        })
    }

    /// A host with a unikernel that runs and has a past, volumes, policies, revocations and events.
    fn honest() -> Vec<Record> {
        let mut state = State::default();
        for record in [
            creating("data", 4096),
            Record::Volume(VolumeRecord::Kept(name("data"))),
            created("a", 1),
            starting("a", 1, &[7]),
            updated("a", 2, Some(Trial { from: 1, window_s: Some(5) })),
            Record::Ended { instance: InstanceId(1), status: ExitStatus::Code(1), at_ms: Some(1) },
            starting("a", 3, &[7]),
            created("c", 4),
            Record::Wished { name: name("c"), wish: Wish::Stopped },
            policy("acme"),
            revoked(1),
            happened(0),
            happened(1),
            Record::Complete,
        ] {
            state.apply(record);
        }
        state.records(usize::MAX).collect()
    }

    #[test]
    fn what_was_written_of_a_state_can_be() {
        assert_eq!(wrong(honest()), None);
    }

    /// Each of these follows what is honest.
    #[test]
    fn what_no_control_plane_would_have_written_is_found() {
        let loud = vec![Blob::try_from(vec![b'x'; CMDLINE_BYTES_MAX]).unwrap()];
        let alive = Liveness { probe: "tcp:10.0.0.9:80".parse().unwrap(), every_s: 0, failures: 1 };
        let wished = Record::Wished { name: name("x"), wish: Wish::Stopped };
        let cases = [
            (created("a", 9), "a name twice"),
            (created("b", 3), "an instance twice"),
            (created("b", u64::MAX), "a number that is never reached"),
            (changed(|spec| spec.memory_mib = MEMORY_MIB_MAX + 1), "memory that no unikernel can have"),
            (changed(|spec| spec.memory_mib = 0), "memory that no unikernel can have"),
            (changed(|spec| spec.args = loud.try_into().unwrap()), "arguments that no unikernel can have"),
            (changed(|spec| spec.supervision.alive = Some(alive)), "a probe that is never made"),
            (
                changed(|spec| spec.nets = generation("a", 1).spec.nets),
                "a hardware address that is another's",
            ),
            (
                changed(|spec| {
                    let block = Block { device: "net0".parse().unwrap(), volume: name("data") };
                    spec.blocks = vec![block].try_into().unwrap();
                }),
                "a device twice",
            ),
            (updated("b", 3, None), "a generation of another unikernel"),
            (updated("a", 2, None), "generations out of order"),
            (updated("a", u32::MAX, None), "a number that is never reached"),
            (updated("a", 3, Some(Trial { from: 9, window_s: None })), "a trial with no way back"),
            (Record::Switched { name: name("a"), number: 9, trial: None }, "a generation that is not there"),
            (starting("x", 9, &[]), "the start of no unikernel"),
            (starting("c", 3, &[]), "the start of another instance"),
            (starting("c", 4, &[7]), "a tap twice"),
            (starting("c", 4, &[8, 9]), "more taps than network devices"),
            (Record::Absent(InstanceId(9)), "something of no unikernel"),
            (wished, "something of no unikernel"),
            (creating("data", 1), "a volume twice"),
            (creating("more", u64::MAX), "more volume space than can be counted"),
            (Record::Volume(VolumeRecord::Kept(name("more"))), "something of no volume"),
            (policy("acme"), "two policies for a path"),
            (revoked(1), "the same is revoked twice"),
            (happened(1), "events out of order"),
            (happened(u64::MAX), "a number that is never reached"),
            (Record::Removed(name("a")), "a change, and no state"),
        ];
        for (record, reason) in cases {
            let text = format!("{record:?}");
            assert_eq!(wrong(honest().into_iter().chain([record])), Some(reason), "{text}");
        }
    }

    #[test]
    fn more_than_a_table_holds_is_found() {
        let unikernel = |i| created(&format!("u{i}"), i as u64);
        let volume = |i| creating(&format!("v{i}"), 512);
        let generation = |i| match u32::try_from(i).unwrap() {
            0 => created("a", 1),
            earlier => updated("a", earlier + 1, None),
        };
        let path = |i| policy(&format!("p{i}"));
        let most: [(&dyn Fn(usize) -> Record, usize); 5] = [
            (&unikernel, UNIKERNELS_MAX),
            (&volume, VOLUMES_MAX),
            (&generation, GENERATIONS_MAX),
            (&path, POLICIES_MAX),
            (&revoked, REVOCATIONS_MAX),
        ];
        for (record, max) in most {
            assert_eq!(wrong((0..max).map(record)), None);
            assert!(wrong((0..=max).map(record)).is_some_and(|reason| reason.starts_with("more ")));
        }
    }
}
