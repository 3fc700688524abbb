//! File systems, kernel settings.

use std::ffi::CString;
use std::fs;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_remount};
use rustix::system::sethostname;

use crate::{about, log};

/// Each with its type and its data.
const MOUNTS: &[(&str, &str, &str)] = &[
    ("/proc", "proc", "hidepid=invisible"),
    ("/sys", "sysfs", ""),
    ("/dev", "devtmpfs", "mode=0755"),
    ("/run", "tmpfs", "mode=0755,size=16m"),
    ("/sys/fs/cgroup", "cgroup2", ""),
];

/// What the kernel is told once nothing more is loaded; each below `/proc/sys`.
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
    mount_remount("/", MountFlags::RDONLY, c"").map_err(about("/"))
}
