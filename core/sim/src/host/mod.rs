//! A simulated host: what is on its disk and in its kernel, which outlives the shim, and the shim itself.
//!
//! | room | what it does |
//! |---|---|
//! | `shim` | the shim's loop and its operations, with the real one's checks and ledger |
//! | `volumes` | the shim's operations on volumes |
//! | `process` | monitors' processes and what their guests write |

mod process;
mod shim;
mod volumes;

use std::{collections::BTreeMap, sync::Arc};

use petrel_shim::ledger::Record;
use petrel_wire::{
    Digest, ExitStatus, Name, VolumeName,
    shim::{Backend, Host as Facts, InstanceId, Listed, Monitor},
};

pub use process::{Process, console_byte, name_of};
pub use shim::{Broken, Shim};

use crate::{plan::Plan, random::Random};

/// The volumes of every host.
pub const VOLUMES: [&str; 3] = ["data", "more", "spare"];
/// The bridges of every host.
pub const BRIDGES: [&str; 2] = ["service", "lan"];

/// A host.
pub struct Host {
    /// What the shim tells of it.
    pub facts: Facts,
    /// The processes of monitors, those included that have ended and that nobody has reaped.
    pub processes: BTreeMap<InstanceId, Process>,
    /// How the monitors ended that the ledger has not forgotten.
    pub ends: BTreeMap<InstanceId, ExitStatus>,
    /// All ways in which monitors of a name have ever ended.
    ended: BTreeMap<Name, Vec<ExitStatus>>,
    /// The run records on disk.
    records: BTreeMap<InstanceId, Record>,
    /// The image store on disk.
    pub images: BTreeMap<Digest, Arc<[u8]>>,
    /// The volumes on disk, which are small.
    volumes: BTreeMap<VolumeName, Vec<u8>>,
    next_pid: u32,
    /// The shim, unless it is down.
    pub shim: Option<Shim>,
    /// When it comes back, in monotonic nanoseconds.
    pub shim_back_ns: u64,
    /// What the operating system refuses next.
    pub failures: u64,
}

impl Host {
    /// A host whose shim has just come up.
    pub fn new(plan: &Plan) -> Self {
        let mut host = Self {
            facts: facts(plan.memory_mib),
            processes: BTreeMap::new(),
            ends: BTreeMap::new(),
            ended: BTreeMap::new(),
            records: BTreeMap::new(),
            images: BTreeMap::new(),
            volumes: VOLUMES.iter().filter_map(|name| Some((name.parse().ok()?, vec![0; 4096]))).collect(),
            next_pid: 1000,
            shim: None,
            shim_back_ns: 0,
            failures: 0,
        };
        for number in 1..=plan.foreign as u64 {
            host.start_foreign(InstanceId(number));
        }
        host.start_shim();
        host
    }

    /// A monitor that no control plane of ours has started.
    fn start_foreign(&mut self, instance: InstanceId) {
        let tag = vec![0xff; 9].try_into().unwrap_or_default();
        let listed = Listed { instance, pid: self.new_pid(), tag, ..Listed::default() };
        let record = Record { listed, ..Record::default() };
        self.processes.insert(instance, Process::new(None, 0));
        self.records.insert(instance, record);
    }

    fn new_pid(&mut self) -> u32 {
        self.next_pid += 1;
        self.next_pid
    }

    /// The monitors that run and that nobody has told to end.
    pub fn guests(&self) -> impl Iterator<Item = InstanceId> + Clone {
        let processes = self.processes.iter();
        processes.filter(|(_, process)| process.is_running() && !process.killed).map(|(id, _)| *id)
    }

    /// The monitors that have been killed and have not ended yet.
    pub fn dying(&self) -> impl Iterator<Item = InstanceId> + Clone {
        let processes = self.processes.iter();
        processes.filter(|(_, process)| process.is_running() && process.killed).map(|(id, _)| *id)
    }

    /// Whether the shim's peer has said hello.
    pub fn is_greeted(&self) -> bool {
        self.shim.as_ref().is_some_and(|shim| shim.ledger.greeted)
    }

    /// Whether the shim has something to tell that it was not asked.
    pub fn has_news(&self) -> bool {
        self.processes.values().any(|process| process.has_written() || !process.is_running())
    }

    /// Whether there is such a volume.
    pub fn has_volume(&self, volume: &Name) -> bool {
        self.volumes.contains_key(&**volume)
    }

    /// The size of a volume, if there is one.
    pub fn volume_bytes(&self, volume: &Name) -> Option<u64> {
        self.volumes.get(&**volume).map(|content| content.len() as u64)
    }

    /// Whether every volume that a monitor has is there.
    ///
    /// # Errors
    /// What is not so.
    pub fn volumes_are_whole(&self) -> Result<(), String> {
        let has = |volume: &VolumeName| self.volumes.contains_key(volume);
        for (instance, process) in &self.processes {
            let volumes = self.records.get(instance).map(|record| &record.volumes);
            if process.is_running() && volumes.is_some_and(|all| !all.iter().all(has)) {
                return Err(format!("{instance:?} runs, and one of {volumes:?} is not there"));
            }
        }
        Ok(())
    }

    /// Whether a monitor is another's.
    pub fn is_foreign(&self, instance: InstanceId) -> bool {
        self.records.get(&instance).is_some_and(|record| name_of(&record.listed.tag).is_none())
    }

    /// Whether there is something left of a monitor.
    pub fn has_record(&self, instance: InstanceId) -> bool {
        self.records.contains_key(&instance)
    }

    /// The monitors that there are, or were until they are forgotten, of a name.
    fn instances_of(&self, name: &Name) -> impl Iterator<Item = InstanceId> {
        let of_name = |record: &Record| name_of(&record.listed.tag).as_ref() == Some(name);
        self.records.iter().filter(move |(_, record)| of_name(record)).map(|(id, _)| *id)
    }

    /// The youngest monitor of a name.
    pub fn newest_of(&self, name: &Name) -> Option<InstanceId> {
        self.instances_of(name).last()
    }

    /// Whether a monitor of a name has ever ended like this.
    pub fn has_ended(&self, name: &Name, status: ExitStatus) -> bool {
        self.ended.get(name).is_some_and(|ends| ends.contains(&status))
    }

    /// How the youngest monitor of a name ended.
    pub fn end_of(&self, name: &Name) -> Option<ExitStatus> {
        self.ends.get(&self.newest_of(name)?).copied()
    }

    /// Whether a monitor of a name runs that was not told to end, and that the shim knows of, also if it was killed in the
    /// middle of starting another.
    pub fn knows_running(&self, name: &Name) -> bool {
        let runs = |process: &Process| process.is_running() && !process.killed;
        self.instances_of(name).any(|instance| self.processes.get(&instance).is_some_and(runs))
    }

    /// How many monitors of a name run that were not told to end.
    pub fn running_of(&self, name: &Name) -> usize {
        let running = self.processes.values().filter(|process| process.is_running() && !process.killed);
        running.filter(|process| process.name.as_ref() == Some(name)).count()
    }

    /// The memory of the monitors that run and were not told to end, in MiB.
    pub fn memory_given_mib(&self) -> u64 {
        let running = self.processes.values().filter(|process| process.is_running() && !process.killed);
        running.map(|process| u64::from(process.memory_mib)).sum()
    }

    /// Whose monitors the ledger holds, and whether they run.
    pub fn entries(&self) -> BTreeMap<Name, bool> {
        let monitors = self.shim.iter().flat_map(|shim| shim.ledger.monitors.values());
        let entry = |record: &Record| Some((name_of(&record.listed.tag)?, record.listed.exited.is_none()));
        monitors.filter_map(entry).collect()
    }

    /// A monitor ends. Who watches it learns of it later.
    pub fn end(&mut self, instance: InstanceId, status: ExitStatus) {
        if let Some(process) = self.processes.get_mut(&instance).filter(|process| process.is_running()) {
            process.ended = Some(status);
            self.ends.insert(instance, status);
            let ends = process.name.clone().map(|name| self.ended.entry(name).or_default());
            if let Some(ends) = ends.filter(|ends| !ends.contains(&status)) {
                ends.push(status);
            }
        }
    }

    /// A killed monitor ends.
    pub fn end_dying(&mut self, random: &mut Random) {
        let stuck = |id: &InstanceId| self.processes.get(id).is_some_and(|process| process.stuck);
        if let Some(instance) = random.pick_from(self.dying().filter(|id| !stuck(id))) {
            self.end(instance, ExitStatus::Signal(9));
        }
    }

    /// All processes are gone at once, and the shim with them.
    pub fn lose_power(&mut self, back_ns: u64) {
        self.kill_shim(back_ns);
        for instance in self.processes.keys().copied().collect::<Vec<_>>() {
            self.end(instance, ExitStatus::Unknown);
        }
    }

    /// Nothing is out of order any more.
    pub fn heal(&mut self) {
        self.failures = 0;
        self.shim_back_ns = 0;
        self.processes.values_mut().for_each(|process| process.stuck = false);
    }
}

fn facts(memory_mib: u64) -> Facts {
    let monitor = |name: &str, target, version| {
        Some(Monitor { name: name.parse().ok()?, target, version, backend: Backend::Ring3 })
    };
    let monitors = [monitor("old", 1, 1), monitor("petrel-tender", 1, 2)].into_iter().flatten();
    let bridges = BRIDGES.iter().filter_map(|name| name.parse().ok());
    Facts {
        cpus: vec![0, 1, 2, 3].try_into().unwrap_or_default(),
        memory_mib,
        bridges: bridges.collect::<Vec<_>>().try_into().unwrap_or_default(),
        volumes_mib: None,
        monitors: monitors.collect::<Vec<_>>().try_into().unwrap_or_default(),
        limits: Default::default(),
    }
}
