//! What the kernel holds each monitor to: control groups of its own, `petrel-…/<instance>` below the shim's. They are in the
//! unified hierarchy (v2), or in those of single controllers (v1) where the host has them there.

use std::path::{Path, PathBuf};
use std::{fs, io, process};

use petrel_wire::List;
use petrel_wire::limits::LIMITS_MAX;
use petrel_wire::shim::Limit;
use rustix::fs::stat;

use crate::control_plane::INSTANCE;
use crate::log;

/// What a monitor may have beside its guest's memory: itself, page tables, what its console's pipe holds.
const OVERHEAD_MIB: u64 = 32;
/// A monitor is one thread; KVM may give it another.
const PROCESSES_MAX: u64 = 16;
/// The files of a group, of v2 and of v1, that set limits, and what a 1 in them stands for.
const KNOBS: [(Limit, &str, u64); 5] = [
    (Limit::Memory, "memory.max", 1 << 20),
    (Limit::Memory, "memory.limit_in_bytes", 1 << 20),
    (Limit::Processes, "pids.max", 1),
    (Limit::CpuShare, "cpu.weight", 100),
    (Limit::CpuShare, "cpu.shares", 1024),
];

const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// The knobs that there are, each with the folder of the groups that have it.
pub struct Limits(Vec<(PathBuf, (Limit, &'static str, u64))>);

impl Limits {
    /// Finds what the host offers. The groups are named after the `run` folder, so that two shims keep apart.
    pub fn find(run: &Path) -> io::Result<Self> {
        let (own, id) = (fs::read_to_string("/proc/self/cgroup").unwrap_or_default(), stat(run)?);
        let name = format!("petrel-{:x}-{:x}", id.st_dev, id.st_ino);
        let folders: Vec<_> = own.lines().filter_map(|line| prepare(line, &name)).collect();
        // What an earlier shim has left. The kernel keeps groups that still have a process.
        for left in folders.iter().flat_map(fs::read_dir).flatten().flatten() {
            let _ = fs::remove_dir(left.path());
        }
        let has = |folder: &PathBuf, (_, file, _)| folder.join(file).exists().then(|| folder.clone());
        let held = folders.iter().flat_map(|folder| KNOBS.map(|knob| Some((has(folder, knob)?, knob))));
        let limits = Self(held.flatten().collect());
        log(format_args!("monitors are held to their {:?} by control groups", limits.told()));
        Ok(limits)
    }

    /// As the peer is told.
    pub fn told(&self) -> List<Limit, LIMITS_MAX> {
        self.0.iter().map(|(_, (limit, ..))| *limit).collect::<Vec<_>>().try_into().unwrap_or_default()
    }

    /// Puts a monitor that was just started into groups of its own.
    pub fn hold(&self, instance: u64, memory_mib: u32, pid: u32) -> io::Result<()> {
        // Operators are heard on a busy host.
        let share = if instance == INSTANCE { 10 } else { 1 };
        for (folder, (limit, file, unit)) in &self.0 {
            let most = match limit {
                Limit::Memory => u64::from(memory_mib) + OVERHEAD_MIB,
                Limit::Processes => PROCESSES_MAX,
                Limit::CpuShare => share,
            };
            let group = folder.join(instance.to_string());
            fs::create_dir_all(&group)?;
            fs::write(group.join(file), (most * unit).to_string())?;
            enter(&group, pid)?;
        }
        Ok(())
    }

    /// Removes the groups of a monitor that has ended.
    pub fn remove(&self, instance: u64) {
        for (folder, _) in &self.0 {
            let _ = fs::remove_dir(folder.join(instance.to_string())); // gone already where knobs share it
        }
    }
}

fn enter(group: &Path, pid: u32) -> io::Result<()> {
    fs::write(group.join("cgroup.procs"), pid.to_string())
}

/// Makes the folder for our groups, below that which a line of cgroups(7)'s `/proc/self/cgroup` says the shim is in.
fn prepare(line: &str, name: &str) -> Option<PathBuf> {
    let (controllers, path) = line.split_once(':')?.1.split_once(":/")?;
    let is_v2 = controllers.is_empty();
    let mounts = if is_v2 { ["unified", "."] } else { [controllers, controllers] };
    let mount =
        mounts.into_iter().map(|mount| Path::new("/sys/fs/cgroup").join(mount)).find(|it| it.exists())?;
    let mut base = mount.join(path);
    let offered =
        if is_v2 { fs::read_to_string(base.join("cgroup.controllers")).ok()? } else { controllers.into() };
    offered.split([',', ' ', '\n']).find(|offered| CONTROLLERS.contains(offered))?;
    if is_v2 && base.ends_with("shim") {
        base.pop();
    } else if is_v2 && base != mount {
        // But for the root, a group of v2 that has groups with limits has no processes: the shim moves on.
        fs::create_dir_all(base.join("shim")).and_then(|()| enter(&base.join("shim"), process::id())).ok()?;
    }
    let folder = base.join(name);
    fs::create_dir_all(&folder).ok()?;
    for (parent, controller) in
        CONTROLLERS.iter().flat_map(|controller| [(&base, controller), (&folder, controller)])
    {
        let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}")); // v2's, where it has them
    }
    Some(folder)
}
