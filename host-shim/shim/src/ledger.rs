//! The bounded tables of what there is. Pure: what stands behind an entry (a process `P`, a tap's descriptor `T`, a
//! file being written `U`) is the caller's, so that a simulation can keep the same ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use petrel_wire::limits::BLOCKS_MAX;
use petrel_wire::shim::{InstanceId, Listed, Reply, TapId};
use petrel_wire::{Digest, ExitStatus, List, VolumeName};
use serde::{Deserialize, Serialize};

/// All that the shim holds for its peer. [`crate::check`] keeps each table within its bound.
pub struct Ledger<P, T, U> {
    /// Whether the peer on the link has said hello.
    pub greeted: bool,
    /// The images stored.
    pub images: BTreeSet<Digest>,
    /// The uploads under way on this link.
    pub uploads: BTreeMap<Digest, Upload<U>>,
    /// The taps. One that a monitor has taken goes with it; one that nobody has, when the link ends.
    pub taps: BTreeMap<TapId, Tap<T>>,
    /// The volumes that monitors have.
    pub volumes: BTreeSet<VolumeName>,
    /// The monitors that have not been forgotten.
    pub monitors: BTreeMap<InstanceId, Monitor<P>>,
}

/// An image on its way.
pub struct Upload<U> {
    /// Its size.
    pub bytes: u64,
    /// How much has come, never more than `bytes`.
    pub received: u64,
    /// Where it goes.
    pub file: U,
}

/// A tap.
pub enum Tap<T> {
    /// Nobody has taken it.
    Free(T),
    /// A monitor has it.
    Taken,
}

/// A monitor.
pub struct Monitor<P> {
    /// What a later shim has to know of it.
    pub record: Record,
    /// While it runs, or its last console bytes and its end are still to be told.
    pub process: Option<P>,
}

/// What is kept of a monitor on disk, for a shim that has to adopt it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What the peer is told of it.
    pub listed: Listed,
    /// Which one of all processes with its pid it is.
    pub started: String,
    /// Its user and group, if it has its own.
    pub uid: Option<u32>,
    /// The volumes it has while it runs.
    pub volumes: List<VolumeName, BLOCKS_MAX>,
}

impl<P, T, U> Ledger<P, T, U> {
    /// A ledger of a host where only these images are.
    pub fn new(images: BTreeSet<Digest>) -> Self {
        Self {
            greeted: false,
            images,
            uploads: BTreeMap::new(),
            taps: BTreeMap::new(),
            volumes: BTreeSet::new(),
            monitors: BTreeMap::new(),
        }
    }

    /// Enters a monitor. While it runs, its taps and volumes are its own; if it does not, nobody saw how it ended.
    pub fn enter(&mut self, mut record: Record, process: Option<P>) {
        if process.is_some() {
            self.taps.extend(record.listed.taps.iter().map(|tap| (*tap, Tap::Taken)));
            self.volumes.extend(record.volumes.iter().cloned());
        } else {
            record.listed.exited = Some(ExitStatus::Unknown);
        }
        self.monitors.insert(record.listed.instance, Monitor { record, process });
    }

    /// A monitor has ended: its taps are gone and its volumes free.
    pub fn ended(&mut self, instance: InstanceId, status: ExitStatus) {
        let Some(Monitor { record, process }) = self.monitors.get_mut(&instance) else { return };
        *process = None;
        record.listed.exited = Some(status);
        record.listed.taps.iter().for_each(|tap| drop(self.taps.remove(tap)));
        record.volumes.iter().for_each(|volume| _ = self.volumes.remove(volume));
    }

    /// The link is gone, and with it what only served the peer on it.
    pub fn link_ended(&mut self) {
        self.greeted = false;
        self.uploads.clear();
        self.taps.retain(|_, tap| matches!(tap, Tap::Taken));
    }

    /// The running monitor `instance`.
    pub fn running(&mut self, instance: InstanceId) -> Option<&mut P> {
        self.monitors.get_mut(&instance)?.process.as_mut()
    }

    /// The page of monitors with ids greater than `after`.
    pub fn page(&self, after: Option<InstanceId>) -> Reply {
        let first = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut following = self.monitors.range((first, Bound::Unbounded));
        let listed = following.by_ref().map(|(_, monitor)| monitor.record.listed.clone());
        let page = List::fill(&mut { listed });
        Reply::Listed { page, more: following.next().is_some() }
    }
}
