//! What the kernel holds each monitor to: control groups of its own, `petrel-…/<instance>` below the shim's. They are in the
//! unified hierarchy (v2), or in those of single controllers (v1) where the host has them there.

use std::path::{Path, PathBuf};
use std::{fs, io, process};

use petrel_wire::{List, limits::LIMITS_MAX, shim::InstanceId, shim::Limit};

type Knob = (Limit, &'static str, u64, u64);

/// The files that set limits, of v2 and of v1: what is written there, and what is added for each MiB of the guest's memory. A
/// monitor may have 32 MiB beside that: itself, page tables, its console's pipe. It is one thread; KVM may add another.
const KNOBS: [Knob; 5] = [
    (Limit::Memory, "memory.max", 32 << 20, 1 << 20),
    (Limit::Memory, "memory.limit_in_bytes", 32 << 20, 1 << 20),
    (Limit::Processes, "pids.max", 16, 0),
    (Limit::CpuShare, "cpu.weight", 100, 0),
    (Limit::CpuShare, "cpu.shares", 1024, 0),
];

/// The knobs that there are, each with the folder of the groups that have it.
pub struct Limits(Vec<(PathBuf, Knob)>);

impl Limits {
    /// Finds what the host offers. The groups are named after the `run` folder, so that two shims keep apart.
    pub fn find(run: &Path) -> io::Result<Self> {
        let (own, id) = (fs::read_to_string("/proc/self/cgroup").unwrap_or_default(), rustix::fs::stat(run)?);
        let name = format!("petrel-{:x}-{:x}", id.st_dev, id.st_ino);
        let folders: Vec<_> = own.lines().filter_map(|line| prepare(line, &name)).collect();
        // What an earlier shim has left. The kernel keeps groups that still have a process.
        let left = folders.iter().flat_map(fs::read_dir).flatten().flatten();
        left.for_each(|group| _ = fs::remove_dir(group.path()));
        let all = folders.into_iter().flat_map(|folder| KNOBS.map(|knob| (folder.clone(), knob)));
        Ok(Self(all.filter(|(folder, knob)| folder.join(knob.1).exists()).collect()))
    }

    /// As the peer is told.
    pub fn told(&self) -> List<Limit, LIMITS_MAX> {
        List::fill(&mut self.0.iter().map(|(_, knob)| knob.0))
    }

    /// Puts a monitor that was just started into groups of its own.
    pub fn hold(&self, InstanceId(id): InstanceId, memory_mib: u32, pid: u32) -> io::Result<()> {
        self.0.iter().try_for_each(|(folder, (_, file, fixed, per_mib))| {
            let group = folder.join(id.to_string());
            fs::create_dir_all(&group)?;
            fs::write(group.join(file), (fixed + per_mib * u64::from(memory_mib)).to_string())?;
            fs::write(group.join("cgroup.procs"), pid.to_string())
        })
    }

    /// Removes the groups of a monitor that has ended. One that several knobs share is removed once.
    pub fn remove(&self, InstanceId(id): InstanceId) {
        self.0.iter().for_each(|(folder, _)| _ = fs::remove_dir(folder.join(id.to_string())));
    }
}

/// Makes the folder for our groups, below that which a line of cgroups(7)'s `/proc/self/cgroup` says the shim is in.
fn prepare(line: &str, name: &str) -> Option<PathBuf> {
    const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
    let (controllers, path) = line.split_once(':')?.1.split_once(":/")?;
    let is_hybrid = controllers.is_empty() && Path::new("/sys/fs/cgroup/unified").exists();
    let mount = Path::new("/sys/fs/cgroup").join(if is_hybrid { "unified" } else { controllers });
    let mut base = mount.join(path);
    let offered = fs::read_to_string(base.join("cgroup.controllers")).unwrap_or(controllers.into());
    offered.split([',', ' ', '\n']).find(|offered| CONTROLLERS.contains(offered))?;
    if base.ends_with("shim") {
        base.pop();
    } else if controllers.is_empty() && base != mount {
        // But for the root, a group of v2 that has groups with limits has no processes: the shim moves on.
        fs::create_dir_all(base.join("shim")).ok()?;
        fs::write(base.join("shim/cgroup.procs"), process::id().to_string()).ok()?;
    }
    let folder = base.join(name);
    fs::create_dir_all(&folder).ok()?;
    let both = [&base, &folder].map(|parent| parent.join("cgroup.subtree_control"));
    // Where there is no such file (v1) or controller, that shows in what limits there are.
    let _ = CONTROLLERS.map(|name| both.each_ref().map(|file| _ = fs::write(file, format!("+{name}"))));
    Some(folder)
}
