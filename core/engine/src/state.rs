//! What there is: the unikernels of the host. Changes only through [`State::apply`].

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::ops::Bound;

use petrel_wire::{
    Digest, Name, Path,
    operator::Held,
    shim::{InstanceId, TapId},
};

use crate::{
    events::Events,
    planted::{self, Planted},
    policy::{Settings, Usage},
    record::Record,
    unikernel::{Needs, Run, Unikernel},
    volumes::{Book, VolumeRecord},
};

/// The unikernels of the host, and what they hold of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    unikernels: BTreeMap<Name, Unikernel>,
    /// The latest instance of each.
    instances: BTreeMap<InstanceId, Name>,
    /// What each holds, as far as it is counted below.
    held: BTreeMap<Name, Needs>,
    /// Who holds which volume.
    holders: BTreeMap<Name, Name>,
    /// The volumes, whether a unikernel has them or not.
    pub volumes: Book,
    /// What of each policies count, as far as it is in `usage`.
    counted: BTreeMap<Name, Held>,
    taps: BTreeSet<TapId>,
    nets: usize,
    memory_given_mib: u64,
    complete: bool,
    /// What policies count, below each path.
    pub usage: Usage,
    /// What operators have set and revoked.
    pub settings: Settings,
    pub events: Events,
}

/// What a record changes, as it was before.
#[derive(Debug)]
pub(crate) enum Before {
    /// A unikernel: nothing, if there was none.
    Unikernel { name: Name, unikernel: Option<Box<Unikernel>> },
    /// What was set for a path, or a volume: the record that makes it so again.
    Record(Record),
}

impl State {
    /// Makes a change. One about a unikernel that is not there changes nothing.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Created { instance, generation } => {
                let name = generation.spec.name.clone();
                self.instances.insert(instance, name.clone());
                self.unikernels.insert(name.clone(), Unikernel::new(instance, generation));
                self.count(&name);
            }
            Record::Updated { name, generation, trial } => {
                self.change(&name, |unikernel| unikernel.updated(generation, trial));
            }
            Record::Switched { name, number, trial } => {
                self.change(&name, |unikernel| {
                    unikernel.switched(number, trial);
                    unikernel.trial = trial;
                });
            }
            Record::Accepted(name) => self.change(&name, |unikernel| unikernel.trial = None),
            Record::RolledBack { name, faulty } => {
                self.change(&name, |unikernel| unikernel.rolled_back(faulty));
            }
            Record::Wished { name, wish } => self.change(&name, |unikernel| unikernel.wish = wish),
            Record::Starting { name, instance, taps } => self.starting(&name, instance, taps),
            Record::Started { instance, pid } => {
                self.change_instance(instance, |unikernel| unikernel.run = Run::Running { pid });
            }
            Record::Ended { instance, status, at_ms } => {
                self.free_taps(instance);
                self.change_instance(instance, |unikernel| unikernel.ended_with(status, at_ms));
            }
            Record::Absent(instance) => {
                self.free_taps(instance);
                self.change_instance(instance, |unikernel| unikernel.run = Run::Absent);
            }
            Record::Past { name, restarts, last } => self.change(&name, |unikernel| {
                unikernel.restarts = restarts;
                unikernel.last = last;
            }),
            Record::Removed(name) => self.remove(&name),
            Record::Complete => self.complete = true,
            Record::PolicySet { path, policy } => self.settings.set_policy(path, policy),
            Record::PolicyRemoved(path) => self.settings.remove_policy(&path),
            Record::Revoked(revocation) => self.settings.revoke(revocation),
            Record::Happened(event) => self.events.push(*event),
            Record::Volume(record) => self.change_volume(record),
        }
    }

    /// Records that make this state again, but for what is learned anew: the journal's snapshot. Of what has happened,
    /// the latest, up to `history_bytes`.
    pub fn records(&self, history_bytes: usize) -> impl Iterator<Item = Record> {
        let unikernels = self.unikernels.values().flat_map(Unikernel::records);
        let volumes = self.volumes.records().map(Record::Volume);
        let events = self.events.latest(history_bytes).cloned();
        let events = events.map(|event| Record::Happened(Box::new(event)));
        let complete = self.complete.then_some(Record::Complete);
        unikernels.chain(volumes).chain(complete).chain(self.settings.records()).chain(events)
    }

    /// What takes `record` back, if nothing may be left of it when it could not be made durable. Ask before it is
    /// applied.
    pub fn before(&self, record: &Record) -> Option<Before> {
        let name = match record {
            Record::Created { generation, .. } => &generation.spec.name,
            Record::Updated { name, .. }
            | Record::Switched { name, .. }
            | Record::Accepted(name)
            | Record::RolledBack { name, .. }
            | Record::Wished { name, .. }
            | Record::Starting { name, .. } => name,
            Record::Volume(record) => {
                return self.volumes.undo(record).map(|undo| Before::Record(Record::Volume(undo)));
            }
            Record::PolicySet { path, .. } | Record::PolicyRemoved(path) => {
                return Some(Before::Record(self.settings.record_for(path)));
            }
            // Who was found out is not let in again.
            Record::Revoked(_) => return None,
            // What has happened on the host has happened.
            Record::Started { .. }
            | Record::Ended { .. }
            | Record::Absent(_)
            | Record::Past { .. }
            | Record::Removed(_)
            | Record::Complete
            | Record::Happened(_) => return None,
        };
        let unikernel = self.unikernels.get(name).cloned().map(Box::new);
        Some(Before::Unikernel { name: name.clone(), unikernel })
    }

    /// Makes a unikernel what it was.
    pub fn restore(&mut self, name: &Name, unikernel: Option<Box<Unikernel>>) {
        self.remove(name);
        if let Some(unikernel) = unikernel {
            self.instances.insert(unikernel.instance, name.clone());
            self.taps.extend(&unikernel.taps);
            self.unikernels.insert(name.clone(), *unikernel);
            self.count(name);
        }
    }

    fn change(&mut self, name: &Name, change: impl FnOnce(&mut Unikernel)) {
        if let Some(unikernel) = self.unikernels.get_mut(name) {
            change(unikernel);
            self.count(name);
        }
    }

    fn change_volume(&mut self, record: VolumeRecord) {
        let name = record.name().clone();
        if let Some(before) = self.volumes.held(&name) {
            self.usage.remove(&name, before);
        }
        self.volumes.apply(record);
        if let Some(after) = self.volumes.held(&name) {
            self.usage.add(&name, after);
        }
    }

    fn change_instance(&mut self, instance: InstanceId, change: impl FnOnce(&mut Unikernel)) {
        if let Some(name) = self.instances.get(&instance).cloned() {
            self.change(&name, change);
        }
    }

    fn starting(&mut self, name: &Name, instance: InstanceId, taps: Vec<TapId>) {
        let Some(unikernel) = self.unikernels.get(name) else { return };
        let earlier = unikernel.instance;
        self.free_taps(earlier);
        self.instances.remove(&earlier);
        self.instances.insert(instance, name.clone());
        for tap in &taps {
            let is_its = |other: &&mut Unikernel| other.taps.contains(tap);
            // One that the host has given to another since, while nothing could be kept.
            if !self.taps.insert(*tap)
                && let Some(other) = self.unikernels.values_mut().find(is_its)
            {
                other.taps.retain(|of| of != tap);
            }
        }
        self.change(name, |unikernel| unikernel.starting(instance, taps));
        for block in self.unikernels.get(name).iter().flat_map(|unikernel| &unikernel.spec().blocks) {
            if let Some(volume) = self.volumes.get_mut(&block.volume) {
                volume.last_user = Some(instance);
            }
        }
    }

    fn remove(&mut self, name: &Name) {
        let Some(unikernel) = self.unikernels.get(name) else { return };
        let instance = unikernel.instance;
        self.free_taps(instance);
        self.instances.remove(&instance);
        self.unikernels.remove(name);
        self.count(name);
    }

    fn free_taps(&mut self, instance: InstanceId) {
        let Some(name) = self.instances.get(&instance) else { return };
        let Some(unikernel) = self.unikernels.get_mut(name) else { return };
        for tap in unikernel.taps.drain(..) {
            self.taps.remove(&tap);
        }
    }

    /// Counts anew what a unikernel holds.
    fn count(&mut self, name: &Name) {
        self.count_for_policies(name);
        self.count_needs(name);
    }

    fn count_for_policies(&mut self, name: &Name) {
        let held = self.unikernels.get(name).map(Unikernel::held);
        if self.counted.get(name) == held.as_ref() {
            return;
        }
        if let Some(before) = self.counted.remove(name) {
            self.usage.remove(name, before);
        }
        if let Some(held) = held {
            self.usage.add(name, held);
            self.counted.insert(name.clone(), held);
        }
    }

    fn count_needs(&mut self, name: &Name) {
        let needs = self.unikernels.get(name).map(Unikernel::needs);
        if self.held.get(name) == needs.as_ref() {
            return;
        }
        if let Some(before) = self.held.remove(name) {
            if !planted::is(Planted::KeepMemory) {
                self.memory_given_mib -= u64::from(before.memory_mib);
            }
            self.nets -= before.nets;
            for volume in before.volumes {
                // Adopted unikernels may have been given one volume by different control planes.
                if self.holders.get(&volume) == Some(name) {
                    self.holders.remove(&volume);
                }
            }
        }
        if let Some(needs) = needs {
            self.memory_given_mib += u64::from(needs.memory_mib);
            self.nets += needs.nets;
            for volume in &needs.volumes {
                self.holders.entry(volume.clone()).or_insert_with(|| name.clone());
            }
            self.held.insert(name.clone(), needs);
        }
    }

    /// Whether all that is ours on the host is here.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The unikernel whose latest instance this is.
    pub fn by_id(&self, instance: InstanceId) -> Option<&Unikernel> {
        self.unikernels.get(self.instances.get(&instance)?)
    }

    /// The unikernel with this name, and its latest instance.
    pub fn by_name(&self, name: &Name) -> Option<(InstanceId, &Unikernel)> {
        let unikernel = self.unikernels.get(name)?;
        Some((unikernel.instance, unikernel))
    }

    /// The unikernel with this name.
    pub fn get(&self, name: &Name) -> Option<&Unikernel> {
        self.unikernels.get(name)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.unikernels.len()
    }

    /// The latest instances of all.
    pub fn ids(&self) -> impl Iterator<Item = InstanceId> {
        self.instances.keys().copied()
    }

    /// The names of all.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.unikernels.keys()
    }

    /// The names below `scope` that are greater than `after`, in their order.
    pub fn below(&self, scope: &Path, after: Option<&Name>) -> impl Iterator<Item = &Name> {
        let from = after.map_or_else(|| scope.before_all_below(), |after| (**after).into());
        let behind = self.unikernels.range::<str, _>((Bound::Excluded(&*from), Bound::Unbounded));
        behind.map(|(name, _)| name).take_while(|name| scope.holds(name))
    }

    /// The images that unikernels are, were or may be again of, each with the unikernel's name, in the order of the names.
    pub fn images(&self) -> impl Iterator<Item = (Digest, &Name)> {
        self.unikernels.iter().flat_map(|(name, unikernel)| {
            let images: BTreeSet<_> = unikernel.generations().map(|kept| kept.spec.image).collect();
            images.into_iter().map(move |image| (image, name))
        })
    }

    /// The unikernels that are, were or may be again of this image.
    pub fn image_users(&self, image: Digest) -> impl Iterator<Item = &Name> {
        self.images().filter(move |(digest, _)| *digest == image).map(|(_, name)| name)
    }

    /// Whether there is such a unikernel.
    pub fn uses_image(&self, image: Digest) -> bool {
        self.image_users(image).next().is_some()
    }

    /// What a unikernel holds of the host.
    pub fn held(&self, name: &Name) -> Option<&Needs> {
        self.held.get(name)
    }

    /// Who holds this volume.
    pub fn volume_holder(&self, volume: &Name) -> Option<&Name> {
        self.holders.get(volume)
    }

    /// Whether a unikernel that has not ended has this tap.
    pub fn tap_taken(&self, tap: TapId) -> bool {
        self.taps.contains(&tap)
    }

    /// How many taps are taken.
    pub fn taps_len(&self) -> usize {
        self.taps.len()
    }

    /// The network devices of all unikernels that run or are to run.
    pub fn nets_len(&self) -> usize {
        self.nets
    }

    /// The memory of all unikernels that run or are to run, in MiB.
    pub fn memory_given_mib(&self) -> u64 {
        self.memory_given_mib
    }
}

#[cfg(feature = "inspect")]
impl State {
    /// Counts everything anew.
    ///
    /// # Errors
    /// What is out of step.
    pub fn audit(&self) -> Result<(), &'static str> {
        use crate::inspect::ensure;
        let needs: Vec<Needs> = self.unikernels.values().map(Unikernel::needs).collect();
        let memory_mib: u64 = needs.iter().map(|needs| u64::from(needs.memory_mib)).sum();
        ensure(memory_mib == self.memory_given_mib, "memory is taken that nobody has")?;
        ensure(needs.iter().map(|needs| needs.nets).sum::<usize>() == self.nets, "nets are out of step")?;
        let taps: usize = self.unikernels.values().map(|unikernel| unikernel.taps.len()).sum();
        ensure(taps == self.taps.len(), "taps are taken that nobody has")?;
        let known = self.instances.iter().all(|(id, name)| self.get(name).is_some_and(|u| u.instance == *id));
        ensure(known && self.instances.len() == self.unikernels.len(), "instances are out of step")?;
        let named = self.unikernels.iter().all(|(name, unikernel)| unikernel.name() == name);
        ensure(named && self.held.len() == self.unikernels.len(), "names and unikernels are out of step")?;
        let held = |(volume, name): (&Name, &Name)| {
            self.held(name).is_some_and(|needs| needs.volumes.contains(volume))
        };
        ensure(self.holders.iter().all(held), "a volume is taken that nobody has")?;
        ensure(self.volumes.audit(), "the space of volumes is not the sum of their sizes")?;
        let mut usage = Usage::default();
        self.unikernels.iter().for_each(|(name, unikernel)| usage.add(name, unikernel.held()));
        let volumes = self.volumes.after(None).filter_map(|(name, _)| Some((name, self.volumes.held(name)?)));
        volumes.for_each(|(name, held)| usage.add(name, held));
        ensure(usage == self.usage, "what policies count is out of step")
    }
}

#[cfg(test)]
mod tests {
    use alloc::{format, vec};

    use petrel_wire::{
        ExitStatus, List,
        operator::{Block, RestartWhen, Wish},
    };

    use super::*;
    use crate::record::{Generation, Spec, Trial};

    fn name(number: u64) -> Name {
        format!("u{}", number % 5).parse().unwrap()
    }

    /// A generation that differs from others in what it needs.
    fn generation(of: u64, number: u32) -> Generation {
        let volume = format!("v{}-{}", of % 5, number % 3).parse().unwrap();
        let block = Block { device: "disk".parse().unwrap(), volume };
        let mut spec = Spec {
            name: name(of),
            image: Digest([0; 32]),
            memory_mib: 10 + number,
            cpus: List::new(),
            nets: List::new(),
            blocks: vec![block].try_into().unwrap(),
            args: List::new(),
            supervision: Default::default(),
            monitor: "petrel-tender".parse().unwrap(),
            created_ms: 0,
            made_ms: 0,
        };
        if of.is_multiple_of(2) {
            spec.supervision.restart.when = RestartWhen::OnFailure;
        }
        Generation { number, faulty: false, spec: spec.into() }
    }

    /// What may happen next to the unikernel `of`, by chance.
    fn any_record(state: &State, of: u64, chance: u64, next: u64) -> Record {
        let name = name(of);
        let Some(unikernel) = state.get(&name) else {
            return Record::Created { instance: InstanceId(next), generation: generation(of, 1) };
        };
        let instance = unikernel.instance;
        let trial =
            chance.is_multiple_of(3).then_some(Trial { from: unikernel.current.number, window_s: None });
        match chance % 12 {
            0 | 1 => Record::Updated { name, generation: generation(of, unikernel.next_number()), trial },
            2 => Record::Switched {
                name,
                number: unikernel.others.first().map_or(1, |other| other.number),
                trial,
            },
            3 => Record::Accepted(name),
            4 => Record::RolledBack { name, faulty: true },
            5 => Record::Wished { name, wish: if chance > 600 { Wish::Running } else { Wish::Stopped } },
            6 | 7 => Record::Starting {
                name,
                instance: InstanceId(next),
                taps: vec![TapId(u32::try_from(next).unwrap())],
            },
            8 => Record::Started { instance, pid: 7 },
            9 | 10 => {
                Record::Ended { instance, status: ExitStatus::Code((chance % 3) as u8), at_ms: Some(next) }
            }
            _ if chance > 990 => Record::Removed(name),
            _ => Record::Absent(instance),
        }
    }

    #[test]
    fn a_tap_is_of_who_was_given_it_last() {
        let mut state = State::default();
        let (tap, first, second) = (TapId(7), InstanceId(1), InstanceId(2));
        for (of, instance) in [(1, first), (2, second)] {
            state.apply(Record::Created { instance, generation: generation(of, 1) });
            state.apply(Record::Starting { name: name(of), instance, taps: vec![tap] });
        }
        state.apply(Record::Ended { instance: first, status: ExitStatus::Unknown, at_ms: None });
        assert!(state.tap_taken(tap));
        state.apply(Record::Ended { instance: second, status: ExitStatus::Unknown, at_ms: None });
        assert!(!state.tap_taken(tap));
    }

    #[test]
    fn a_state_is_the_same_when_it_is_made_again_from_its_records() {
        let mut random = 1u64;
        let mut below = |bound: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        let mut state = State::default();
        for next in 1..4000 {
            let record = any_record(&state, below(5), below(1000), next);
            state.apply(record.clone());
            let mut again = State::default();
            state.records(usize::MAX).for_each(|record| {
                let bytes = postcard::to_allocvec(&record).unwrap();
                again.apply(petrel_wire::frame::decode(&bytes).unwrap());
            });
            assert!(
                again.records(usize::MAX).eq(state.records(usize::MAX)),
                "after {next} records, the last of them {record:?}"
            );
        }
    }

    #[test]
    fn what_nobody_needs_any_more_is_given_back() {
        let mut state = State::default();
        state.apply(Record::Created { instance: InstanceId(1), generation: generation(1, 1) });
        assert_eq!((state.memory_given_mib(), state.holders.len()), (11, 1));
        state.apply(Record::Starting { name: name(1), instance: InstanceId(1), taps: vec![TapId(1)] });
        state.apply(Record::Updated { name: name(1), generation: generation(1, 2), trial: None });
        assert_eq!((state.memory_given_mib(), state.holders.len()), (12, 2), "what runs, and what will");
        state.apply(Record::Ended { instance: InstanceId(1), status: ExitStatus::Signal(9), at_ms: None });
        assert_eq!((state.memory_given_mib(), state.holders.len()), (12, 1), "only what will");
        state.apply(Record::Wished { name: name(1), wish: Wish::Stopped });
        assert_eq!((state.memory_given_mib(), state.holders.len(), state.taps.len()), (0, 0, 0));
        state.apply(Record::Removed(name(1)));
        assert_eq!(state, State::default());
    }
}
