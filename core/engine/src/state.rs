//! What there is: the unikernels of the host. Changes only through [`State::apply`].

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::ops::Bound;

use petrel_wire::{
    ExitStatus, List, Name, VolumeName,
    limits::PAGE_ENTRIES_MAX,
    operator::{State as Shown, Unikernel as Brief, UnikernelInfo},
    shim::{InstanceId, TapId},
};

use crate::{
    events::Events,
    planted::{self, Planted},
    record::{Record, Spec},
};

/// A unikernel.
#[derive(Debug)]
pub(crate) struct Unikernel {
    pub spec: Box<Spec>,
    pub run: Run,
    /// An operator wants it gone.
    destroying: bool,
    taps: Vec<TapId>,
}

/// What its monitor is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    Starting,
    Running { pid: u32 },
    Ended { status: ExitStatus, at_ms: Option<u64> },
}

impl Unikernel {
    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        match self.run {
            Run::Ended { status, .. } => Some(status),
            Run::Starting | Run::Running { .. } => None,
        }
    }

    /// Records that make it again. That it runs, and as which process, the shim tells.
    fn records(&self, instance: InstanceId) -> impl Iterator<Item = Record> {
        let creating = Record::Creating { instance, spec: self.spec.clone(), taps: self.taps.clone() };
        let ended = match self.run {
            Run::Ended { status, at_ms } => Some(Record::Ended { instance, status, at_ms }),
            Run::Starting | Run::Running { .. } => None,
        };
        let destroying = self.destroying.then_some(Record::Destroying(instance));
        core::iter::once(creating).chain(ended).chain(destroying)
    }

    /// In brief.
    pub fn brief(&self) -> Brief {
        let state = match self.run {
            Run::Ended { status, .. } => Shown::Ended(status),
            _ if self.destroying => Shown::Stopping,
            Run::Starting => Shown::Starting,
            Run::Running { .. } => Shown::Running,
        };
        Brief {
            name: self.spec.name.clone(),
            state,
            image: self.spec.image,
            memory_mib: self.spec.memory_mib,
            created_ms: self.spec.created_ms,
            ended_ms: if let Run::Ended { at_ms, .. } = self.run { at_ms } else { None },
        }
    }

    /// Whole.
    pub fn info(&self) -> UnikernelInfo {
        UnikernelInfo {
            unikernel: self.brief(),
            cpus: self.spec.cpus.clone(),
            nets: self.spec.nets.clone(),
            blocks: self.spec.blocks.clone(),
            args: self.spec.args.clone(),
            monitor: self.spec.monitor.clone(),
            pid: if let Run::Running { pid } = self.run { pid } else { 0 },
        }
    }
}

/// The unikernels of the host, and what they hold of it.
#[derive(Debug, Default)]
pub(crate) struct State {
    unikernels: BTreeMap<InstanceId, Unikernel>,
    names: BTreeMap<Name, InstanceId>,
    volumes: BTreeMap<VolumeName, InstanceId>,
    taps: BTreeSet<TapId>,
    memory_given_mib: u64,
    complete: bool,
    pub events: Events,
}

impl State {
    /// Makes a change. One about a unikernel that is not there changes nothing.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Creating { instance, spec, taps } => self.insert(instance, spec, taps),
            Record::Started { instance, pid } => self.set_run(instance, Run::Running { pid }),
            Record::Ended { instance, status, at_ms } => {
                self.release(instance);
                self.set_run(instance, Run::Ended { status, at_ms });
            }
            Record::Destroying(instance) => self.set_destroying(instance, true),
            Record::Happened(event) => self.events.push(*event),
            Record::Kept(instance) => self.set_destroying(instance, false),
            Record::Removed(instance) => {
                self.release(instance);
                if let Some(unikernel) = self.unikernels.remove(&instance) {
                    self.names.remove(&unikernel.spec.name);
                }
            }
            Record::Complete => self.complete = true,
        }
    }

    /// Records that make this state again, but for what is learned anew: the journal's snapshot. Of what has happened,
    /// the latest, up to `history_bytes`.
    pub fn records(&self, history_bytes: usize) -> impl Iterator<Item = Record> {
        let unikernels = self.unikernels.iter().flat_map(|(&id, unikernel)| unikernel.records(id));
        let events = self.events.latest(history_bytes).cloned();
        let events = events.map(|event| Record::Happened(Box::new(event)));
        unikernels.chain(self.complete.then_some(Record::Complete)).chain(events)
    }

    /// What takes `record` back, if nothing may be left of it when it could not be made durable. Ask before it is
    /// applied.
    pub fn undo(&self, record: &Record) -> Option<Record> {
        match record {
            Record::Creating { instance, .. } => Some(Record::Removed(*instance)),
            Record::Destroying(instance) => {
                let wanted = self.by_id(*instance).is_some_and(|unikernel| !unikernel.destroying);
                wanted.then_some(Record::Kept(*instance))
            }
            // What has happened on the host has happened.
            Record::Started { .. }
            | Record::Ended { .. }
            | Record::Kept(_)
            | Record::Removed(_)
            | Record::Complete
            | Record::Happened(_) => None,
        }
    }

    fn insert(&mut self, instance: InstanceId, spec: Box<Spec>, taps: Vec<TapId>) {
        self.memory_given_mib += u64::from(spec.memory_mib);
        self.names.insert(spec.name.clone(), instance);
        self.volumes.extend(spec.blocks.iter().map(|block| (block.volume.clone(), instance)));
        self.taps.extend(&taps);
        let unikernel = Unikernel { spec, run: Run::Starting, destroying: false, taps };
        self.unikernels.insert(instance, unikernel);
    }

    fn set_run(&mut self, instance: InstanceId, run: Run) {
        if let Some(unikernel) = self.unikernels.get_mut(&instance) {
            unikernel.run = run;
        }
    }

    fn set_destroying(&mut self, instance: InstanceId, destroying: bool) {
        if let Some(unikernel) = self.unikernels.get_mut(&instance) {
            unikernel.destroying = destroying;
        }
    }

    /// Gives back what a unikernel holds, unless it has ended and so holds nothing.
    fn release(&mut self, instance: InstanceId) {
        let Some(unikernel) = self.unikernels.get_mut(&instance) else { return };
        if unikernel.ended().is_some() {
            return;
        }
        if !planted::is(Planted::KeepMemory) {
            self.memory_given_mib -= u64::from(unikernel.spec.memory_mib);
        }
        for tap in unikernel.taps.drain(..) {
            self.taps.remove(&tap);
        }
        for block in &unikernel.spec.blocks {
            // Adopted unikernels may have been given one volume by different control planes.
            if self.volumes.get(&block.volume) == Some(&instance) {
                self.volumes.remove(&block.volume);
            }
        }
    }

    /// Whether all that is ours on the host is here.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The unikernel with this id.
    pub fn by_id(&self, instance: InstanceId) -> Option<&Unikernel> {
        self.unikernels.get(&instance)
    }

    /// The unikernel with this name, and its id.
    pub fn by_name(&self, name: &Name) -> Option<(InstanceId, &Unikernel)> {
        let instance = *self.names.get(name)?;
        Some((instance, self.unikernels.get(&instance)?))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.unikernels.len()
    }

    /// The ids of all.
    pub fn ids(&self) -> impl Iterator<Item = InstanceId> {
        self.unikernels.keys().copied()
    }

    /// A page of the listing: those with greater names, and whether more follow.
    pub fn page(&self, after: Option<&Name>) -> (List<Brief, PAGE_ENTRIES_MAX>, bool) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.names.range((from, Bound::Unbounded));
        let briefs = rest.by_ref().take(PAGE_ENTRIES_MAX);
        let briefs: Vec<_> = briefs.filter_map(|(_, id)| self.by_id(*id)).map(Unikernel::brief).collect();
        (List::try_from(briefs).unwrap_or_default(), rest.next().is_some())
    }

    /// The unikernels of this name and below it, or all, with names greater than `after`.
    pub fn within(
        &self,
        path: Option<&Name>,
        after: Option<&Name>,
    ) -> impl Iterator<Item = (&Name, InstanceId, &Unikernel)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let names = self.names.range((from, Bound::Unbounded));
        let within = names.filter(move |(name, _)| path.is_none_or(|path| name.is_within(path)));
        within.filter_map(|(name, id)| Some((name, *id, self.by_id(*id)?)))
    }

    /// Whether a unikernel that has not ended has this volume.
    pub fn volume_taken(&self, volume: &VolumeName) -> bool {
        self.volumes.contains_key(volume)
    }

    /// Whether a unikernel that has not ended has this tap.
    pub fn tap_taken(&self, tap: TapId) -> bool {
        self.taps.contains(&tap)
    }

    /// The taps of all unikernels that have not ended.
    pub fn taps_len(&self) -> usize {
        self.taps.len()
    }

    /// The memory of all unikernels that have not ended, in MiB.
    pub fn memory_given_mib(&self) -> u64 {
        self.memory_given_mib
    }
}

#[cfg(feature = "inspect")]
impl State {
    /// Those whose monitors do not run yet.
    pub fn starting(&self) -> impl Iterator<Item = InstanceId> {
        let starting = self.unikernels.iter().filter(|(_, unikernel)| unikernel.run == Run::Starting);
        starting.map(|(id, _)| *id)
    }

    /// Counts everything anew.
    ///
    /// # Errors
    /// What is out of step.
    pub fn audit(&self) -> Result<(), &'static str> {
        use crate::inspect::ensure;
        let holding = || self.unikernels.values().filter(|unikernel| unikernel.ended().is_none());
        let memory_mib: u64 = holding().map(|unikernel| u64::from(unikernel.spec.memory_mib)).sum();
        ensure(memory_mib == self.memory_given_mib, "memory is taken that nobody has")?;
        let taps: usize = holding().map(|unikernel| unikernel.taps.len()).sum();
        ensure(taps == self.taps.len(), "taps are taken that nobody has")?;
        let named = self.names.iter().all(|(name, id)| self.by_id(*id).is_some_and(|u| u.spec.name == *name));
        ensure(named && self.names.len() == self.unikernels.len(), "names and unikernels are out of step")?;
        let held = |(volume, id): (&VolumeName, &InstanceId)| {
            let unikernel = self.by_id(*id).filter(|unikernel| unikernel.ended().is_none());
            unikernel.is_some_and(|unikernel| unikernel.spec.blocks.iter().any(|b| b.volume == *volume))
        };
        ensure(self.volumes.iter().all(held), "a volume is taken that nobody has")
    }
}
