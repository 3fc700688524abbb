//! The bounded tables of what there is. Pure: what stands behind an entry (a process, a descriptor, a file being written)
//! is the caller's, so that a simulation can keep the same ledger.

use std::{collections::BTreeMap, collections::BTreeSet, ops::Bound};

use petrel_wire::limits::BLOCKS_MAX;
use petrel_wire::shim::{InstanceId, Listed, Reply, TapId};
use petrel_wire::{Digest, ExitStatus, List, VolumeName};
use serde::{Deserialize, Serialize};

/// All that the shim holds for its peer. [`crate::check`] keeps each table within its bound.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Whether the peer on the link has said hello.
    pub greeted: bool,
    /// The images stored.
    pub images: BTreeSet<Digest>,
    /// The uploads under way on this link, and how many bytes of each are still to come.
    pub uploads: BTreeMap<Digest, u64>,
    /// The taps, and who has taken each. A taken one goes with its monitor, any other when the link ends.
    pub taps: BTreeMap<TapId, Option<InstanceId>>,
    /// The volumes that there are, drafts included, with the size of each in bytes.
    pub volume_bytes: BTreeMap<VolumeName, u64>,
    /// The volumes that monitors have.
    pub volumes: BTreeSet<VolumeName>,
    /// The monitors that have not been forgotten, the control plane's own included.
    pub monitors: BTreeMap<InstanceId, Record>,
}

/// What is kept of a monitor, on disk too, for a shim that has to adopt it.
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

impl Ledger {
    /// A monitor runs: from here on its taps and volumes are its own. One that has ended has none, and may have had what
    /// another has now.
    pub fn started(&mut self, record: Record) {
        let instance = record.listed.instance;
        if record.listed.exited.is_none() {
            self.taps.extend(record.listed.taps.iter().map(|tap| (*tap, Some(instance))));
            self.volumes.extend(record.volumes.iter().cloned());
        }
        self.monitors.insert(instance, record);
    }

    /// A monitor has ended, and the peer is told: its taps are gone and its volumes free.
    pub fn ended(&mut self, instance: InstanceId, status: ExitStatus) {
        let Some(record) = self.monitors.get_mut(&instance) else { return };
        record.listed.exited = Some(status);
        record.listed.taps.iter().for_each(|tap| _ = self.taps.remove(tap));
        record.volumes.iter().for_each(|volume| _ = self.volumes.remove(volume));
    }

    /// The link is gone, and with it what only served the peer on it.
    pub fn link_ended(&mut self) {
        self.greeted = false;
        self.uploads.clear();
        self.taps.retain(|_, taker| taker.is_some());
    }

    /// A monitor that the peer may know of: any but its own.
    pub fn monitor(&self, instance: InstanceId) -> Option<&Record> {
        self.monitors.get(&instance).filter(|_| instance != InstanceId::CONTROL_PLANE)
    }

    /// The page of monitors with ids greater than `after`; the control plane's has the least.
    pub fn page(&self, after: Option<InstanceId>) -> Reply {
        let after = after.unwrap_or(InstanceId::CONTROL_PLANE);
        let following = self.monitors.range((Bound::Excluded(after), Bound::Unbounded));
        let (page, more) = List::page(following, |(_, record)| record.listed.clone());
        Reply::Listed { page, more }
    }
}
