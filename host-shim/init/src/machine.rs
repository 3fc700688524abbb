//! File systems, modules, kernel settings.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_remount};
use rustix::system::{finit_module, sethostname};

use crate::{about, log};

/// Each with its type and its data.
const MOUNTS: &[(&str, &str, &str)] = &[
    ("/proc", "proc", "hidepid=invisible"),
    ("/sys", "sysfs", ""),
    ("/dev", "devtmpfs", "mode=0755"),
    ("/run", "tmpfs", "mode=0755,size=16m"),
    ("/sys/fs/cgroup", "cgroup2", ""),
];

/// The modules, each below its folder, in the order in which they are loaded.
const MODULES: &str = "/modules";

/// What the kernel is told once all modules are loaded; each below `/proc/sys`.
const SETTINGS: &[(&str, &str)] = &[
    // Not everything can be taken back: no more modules, no other kernel.
    ("kernel/modules_disabled", "1"),
    ("kernel/kexec_load_disabled", "1"),
    ("kernel/sysrq", "0"),
    ("kernel/kptr_restrict", "2"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("kernel/yama/ptrace_scope", "3"),
    ("kernel/core_pattern", "/dev/null"),
    // A kernel that has failed starts again, and so does all that runs on it.
    ("kernel/panic", "5"),
    ("kernel/panic_on_oops", "1"),
    // The host itself talks to nobody but its own control plane.
    ("net/ipv4/ip_forward", "0"),
    ("net/ipv4/icmp_echo_ignore_all", "1"),
    // Its end of the link to the control plane is on no other wire.
    ("net/ipv4/conf/all/arp_ignore", "1"),
    ("net/ipv4/conf/all/rp_filter", "1"),
    ("net/ipv6/conf/all/disable_ipv6", "1"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
];

pub fn mount_all() -> Result<(), String> {
    for (target, kind, data) in MOUNTS {
        fs::create_dir_all(target).map_err(about(target))?;
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
        let flags = if *kind == "devtmpfs" { flags } else { flags | MountFlags::NODEV };
        let data = CString::new(*data).map_err(about(target))?;
        let mounted = mount(*kind, *target, *kind, flags, data.as_c_str());
        // The kernel may have mounted its devices itself.
        mounted
            .or_else(|errno| if errno == Errno::BUSY { Ok(()) } else { Err(errno) })
            .map_err(about(target))?;
    }
    Ok(())
}

/// What the kernel's command line says to modules: `kvm_amd.npt=0`.
pub struct Parameters(BTreeMap<String, Vec<String>>);

impl Parameters {
    pub fn read() -> Result<Self, String> {
        let line = fs::read_to_string("/proc/cmdline").map_err(about("/proc/cmdline"))?;
        let cpu = fs::read_to_string("/proc/cpuinfo").map_err(about("/proc/cpuinfo"))?;
        // QEMU's emulated nested paging now and then ends a busy guest. What the command line says comes later, and wins.
        let usual = if cpu.contains("QEMU TCG CPU") { "kvm_amd.npt=0 " } else { "" };
        Ok(Self::of(&(usual.to_owned() + &line)))
    }

    fn of(line: &str) -> Self {
        let mut all = BTreeMap::<_, Vec<_>>::new();
        for (module, setting) in line.split_whitespace().filter_map(|word| word.split_once('.')) {
            all.entry(module.replace('-', "_")).or_default().push(setting.to_owned());
        }
        Self(all)
    }

    /// The parameters of a module, by its name or its file's.
    fn of_module(&self, name: &str) -> String {
        self.0.get(&name.replace('-', "_")).map(|settings| settings.join(" ")).unwrap_or_default()
    }
}

/// Loads all modules. One that finds nothing to drive here says so, and is not needed.
pub fn load_modules(parameters: &Parameters) -> Result<(), String> {
    let order = fs::read_to_string(format!("{MODULES}/order")).map_err(about("modules"))?;
    let (mut loaded, mut needless) = (0, Vec::new());
    for name in order.lines() {
        let file = File::open(format!("{MODULES}/{name}.ko")).map_err(about(name))?;
        let given = CString::new(parameters.of_module(name)).map_err(about(name))?;
        match finit_module(file, &given, 0) {
            Ok(()) | Err(Errno::EXIST) => loaded += 1,
            Err(Errno::NODEV | Errno::OPNOTSUPP | Errno::IO) => needless.push(name),
            Err(error) => log(format_args!("module {name}: {error}")),
        }
    }
    log(format_args!("{loaded} modules loaded; nothing here for {}", needless.join(", ")));
    Ok(())
}

pub fn set_name(host: &str) -> Result<(), String> {
    sethostname(host.as_bytes()).map_err(about("host name"))
}

/// Makes the machine what it stays: from here on it gets no modules, and the system's files cannot be written.
pub fn harden() -> Result<(), String> {
    for (setting, value) in SETTINGS {
        if let Err(error) = fs::write(format!("/proc/sys/{setting}"), value) {
            log(format_args!("{setting}: {error}"));
        }
    }
    // Monitors, each another user, open it themselves.
    fs::set_permissions("/dev/kvm", Permissions::from_mode(0o666)).map_err(about("/dev/kvm"))?;
    mount_remount("/", MountFlags::RDONLY, c"").map_err(about("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_modules_stand_in_the_kernels_own_syntax() {
        let parameters = Parameters::of("console=ttyS0 kvm_amd.npt=0 quiet kvm-amd.nested=0 tun.a=b\n");
        assert_eq!(parameters.of_module("kvm-amd"), "npt=0 nested=0");
        assert_eq!(parameters.of_module("tun"), "a=b");
        assert_eq!(parameters.of_module("kvm"), "");
    }
}
