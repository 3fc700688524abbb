//! The bounded tables of what there is. Pure: what stands behind an entry (a process `P`, a tap's descriptor `T`, a
//! file being written `U`) is the caller's, so that a simulation can keep the same ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use petrel_wire::limits::{BLOCKS_MAX, NETS_MAX, TAG_BYTES_MAX};
use petrel_wire::shim::{InstanceId, LIST_PAGE_MAX, Listed, Reply, TapId};
use petrel_wire::{Blob, Digest, ExitStatus, List, VolumeName};
use serde::{Deserialize, Serialize};

/// All that the shim holds for its peer. [`crate::check`] keeps each table within its bound.
pub struct Ledger<P, T, U> {
    /// Whether the peer on the link has said hello.
    pub greeted: bool,
    /// The images stored.
    pub images: BTreeSet<Digest>,
    /// The uploads under way on this link.
    pub uploads: BTreeMap<Digest, Upload<U>>,
    /// The taps, those that a monitor has taken included.
    pub taps: BTreeMap<TapId, Tap<T>>,
    /// The volumes that there are, drafts included, with the size of each in bytes.
    pub volume_bytes: BTreeMap<VolumeName, u64>,
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
    /// Nobody has taken it: it goes when the link ends.
    Free(T),
    /// A monitor has it: it goes with the monitor.
    Taken,
}

/// A monitor.
pub struct Monitor<P> {
    /// What a later shim has to know of it.
    pub record: Record,
    /// Whether it runs.
    pub state: State<P>,
}

/// Whether a monitor runs.
pub enum State<P> {
    /// It runs, or its last console bytes and its end are still to be told.
    Running(P),
    /// It has ended, and the peer was told if one was there.
    Ended(ExitStatus),
}

/// What is kept of a monitor on disk, for a shim that has to adopt it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its process.
    pub pid: u32,
    /// When that started: the host's boot id and, in clock ticks, how long after. With `pid` it is one process for good.
    pub started: (String, u64),
    /// Its user and group, if it has its own.
    pub uid: Option<u32>,
    /// The taps it took.
    pub taps: List<TapId, NETS_MAX>,
    /// The volumes it has while it runs.
    pub volumes: List<VolumeName, BLOCKS_MAX>,
    /// The control plane's own note.
    pub tag: Blob<TAG_BYTES_MAX>,
}

impl<P, T, U> Default for Ledger<P, T, U> {
    fn default() -> Self {
        Self {
            greeted: false,
            images: BTreeSet::new(),
            uploads: BTreeMap::new(),
            taps: BTreeMap::new(),
            volume_bytes: BTreeMap::new(),
            volumes: BTreeSet::new(),
            monitors: BTreeMap::new(),
        }
    }
}

impl<P, T, U> Ledger<P, T, U> {
    /// A monitor runs: from here on its taps and volumes are its own.
    pub fn started(&mut self, instance: InstanceId, record: Record, process: P) {
        self.taps.extend(record.taps.iter().map(|tap| (*tap, Tap::Taken)));
        self.volumes.extend(record.volumes.iter().cloned());
        self.monitors.insert(instance, Monitor { record, state: State::Running(process) });
    }

    /// A monitor has ended: its taps are gone and its volumes free.
    pub fn ended(&mut self, instance: InstanceId, status: ExitStatus) {
        let Some(monitor) = self.monitors.get_mut(&instance) else { return };
        monitor.state = State::Ended(status);
        let Record { taps, volumes, .. } = &monitor.record;
        for tap in taps {
            self.taps.remove(tap);
        }
        for volume in volumes {
            self.volumes.remove(volume);
        }
    }

    /// The link is gone, and with it what only served the peer on it.
    pub fn link_ended(&mut self) {
        self.greeted = false;
        self.uploads.clear();
        self.taps.retain(|_, tap| matches!(tap, Tap::Taken));
    }

    /// The running monitor `instance`.
    pub fn running(&mut self, instance: InstanceId) -> Option<&mut P> {
        match &mut self.monitors.get_mut(&instance)?.state {
            State::Running(process) => Some(process),
            State::Ended(_) => None,
        }
    }

    /// The page of monitors with ids greater than `after`.
    pub fn page(&self, after: Option<InstanceId>) -> Reply {
        let first = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut following = self.monitors.range((first, Bound::Unbounded));
        let mut page = List::new();
        for (instance, monitor) in following.by_ref().take(LIST_PAGE_MAX) {
            let Record { pid, ref taps, ref tag, .. } = monitor.record;
            let exited = match monitor.state {
                State::Running(_) => None,
                State::Ended(status) => Some(status),
            };
            let listed = Listed { instance: *instance, pid, exited, taps: taps.clone(), tag: tag.clone() };
            let _ = page.push(listed); // as many as fit are taken
        }
        Reply::Listed { page, more: following.next().is_some() }
    }
}
