//! petrel-shim: the files that it wants, its process, the orders that it passes on, and its guests when all ends.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Instant;

use petrel_wire::{ApplianceOp, NotAnOrder};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

use crate::identity::Identity;
use crate::limits::{DISK_LOOK, END_LOOKS, TICK, TRIAL};
use crate::slots::{self, Booted};
use crate::watchdog::Watchdog;
use crate::{about, log, log::pass_on, state};

const FOLDER: &str = "/run/petrel";
const SHIM: &str = "/petrel/petrel-shim";
const TENDER: &str = "/petrel/petrel-tender";
const ORDERS: &str = "/run/petrel/orders";
const STATUS: &str = "/run/petrel/status";
/// Where the shim keeps what it knows of monitors: `<instance>/pid`.
const MONITORS: &str = "/state/host/run";
/// One of those that monitors run as.
const ANY_UID: u32 = 200_000;

/// How this machine's boot ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Reboot,
    PowerOff,
    /// Nobody has kept the system that was booted once.
    NotKept,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reboot => "rebooting",
            Self::PowerOff => "powering off",
            Self::NotKept => "this system was not kept: rebooting into the one before",
        })
    }
}

/// Writes what the shim reads at its start, where nothing outlives the boot.
pub fn write_files(identity: &Identity) -> Result<(), String> {
    fs::create_dir(FOLDER).map_err(about(FOLDER))?;
    let files: [(&str, &[u8]); 4] = [
        ("shim.toml", identity.shim_toml.as_bytes()),
        ("shim-key.der", &identity.shim_key),
        ("control-plane-public.der", &identity.control_plane_public_key),
        ("seal.img", &identity.seal),
    ];
    for (name, bytes) in files {
        let path = Path::new(FOLDER).join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(bytes)).map_err(about(path.display()))?;
    }
    mkfifoat(CWD, ORDERS, Mode::RUSR | Mode::WUSR).map_err(about(ORDERS))
}

/// An appliance runs guests on KVM or not at all.
pub fn require_kvm() -> Result<(), String> {
    let device = "/dev/kvm";
    let none = "no guest can run: this machine has no /dev/kvm. Turn virtualisation (AMD-V or VT-x) on in its firmware";
    if !Path::new(device).exists() {
        return Err(none.into());
    }
    // Monitors, each another user, open it themselves.
    rustix::fs::chmod(device, Mode::from_raw_mode(0o666)).map_err(about(device))?;
    let probe = Command::new(TENDER).arg("--probe").env_clear().uid(ANY_UID).gid(ANY_UID).output();
    let probe = probe.map_err(about(TENDER))?;
    let said = String::from_utf8_lossy(&probe.stdout);
    log(format_args!("petrel-tender --probe: {}", said.trim()));
    if said.split_whitespace().any(|word| word == "backend=kvm") {
        Ok(())
    } else {
        Err(format!("no guest can run on KVM: {}", said.trim()))
    }
}

/// Starts the shim, again whenever it ends: guests live on meanwhile, and the next one takes them over.
pub fn keep_running(identity: &Identity, watchdog: &mut Watchdog) -> Result<End, String> {
    // Open for writing too: so it never comes to an end.
    let mut orders = File::options().read(true).write(true).open(ORDERS).map_err(about(ORDERS))?;
    let mut system = System::booted(identity.signer);
    system.tell()?;
    loop {
        let started = Instant::now();
        let mut shim = start()?;
        if let Some(end) = watch(&mut shim, &mut orders, &mut system, watchdog)? {
            // Whoever has ordered it hears first that it was taken in, by way of those that now end.
            sleep(TICK);
            end_all(&mut shim, watchdog);
            return Ok(end);
        }
        sleep(TICK.saturating_sub(started.elapsed()));
    }
}

fn start() -> Result<Child, String> {
    let mut command = Command::new(SHIM);
    command.args(["--config", "shim.toml"]).current_dir(FOLDER).env_clear().stdin(Stdio::null());
    let mut shim = command.stderr(Stdio::piped()).spawn().map_err(about(SHIM))?;
    if let Some(output) = shim.stderr.take() {
        pass_on(output).map_err(about(SHIM))?;
    }
    Ok(shim)
}

/// Until the shim has ended or the boot is to.
fn watch(
    shim: &mut Child,
    orders: &mut File,
    system: &mut System,
    watchdog: &mut Watchdog,
) -> Result<Option<End>, String> {
    let tick = Timespec { tv_sec: 1, tv_nsec: 0 };
    let shim_pid = Pid::from_child(shim);
    loop {
        watchdog.feed();
        let is_order = poll(&mut [PollFd::new(orders, PollFlags::IN)], Some(&tick)) == Ok(1);
        let end = if is_order { system.obey(&read_orders(orders)?)? } else { None };
        if let Some(end) = end.or_else(|| system.is_given_up().then_some(End::NotKept)) {
            return Ok(Some(end));
        }
        // The shim's children are ours once it has ended.
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == shim_pid {
                log(format_args!("petrel-shim has ended ({status:?}): starting it again"));
                return Ok(None);
            }
        }
    }
}

/// Lines that were written whole, each at once.
fn read_orders(orders: &mut File) -> Result<String, String> {
    let mut bytes = [0; 1024];
    let count = orders.read(&mut bytes).map_err(about(ORDERS))?;
    Ok(String::from_utf8_lossy(&bytes[..count]).into_owned())
}

/// The system that was booted, and what became of the last order about systems.
struct System {
    booted: Booted,
    since: Instant,
    signer: [u8; 32],
    upgrade: String,
}

impl System {
    fn booted(signer: [u8; 32]) -> Self {
        Self { booted: slots::booted(), since: Instant::now(), signer, upgrade: "none".into() }
    }

    /// Carries orders out. Some end the boot.
    fn obey(&mut self, lines: &str) -> Result<Option<End>, String> {
        for line in lines.lines() {
            log(format_args!("ordered: {line:?}"));
            match line.parse() {
                Ok(ApplianceOp::Reboot) => return Ok(Some(End::Reboot)),
                Ok(ApplianceOp::PowerOff) => return Ok(Some(End::PowerOff)),
                Ok(ApplianceOp::Upgrade(digest)) => {
                    let done = slots::install(digest, &self.signer, &self.booted);
                    let (Ok(told) | Err(told)) =
                        done.map(|name| format!("done {name}")).map_err(|error| format!("failed {error}"));
                    self.upgrade = format!("{digest} {told}");
                }
                Ok(ApplianceOp::Confirm) => {
                    if let Err(error) = slots::keep(&mut self.booted) {
                        log(format_args!("not kept: {error}"));
                    }
                }
                Ok(ApplianceOp::Status | ApplianceOp::Log) | Err(NotAnOrder) => {
                    log(format_args!("that is no order"))
                }
            }
            self.tell()?;
        }
        Ok(None)
    }

    /// Writes what operators are told of it.
    fn tell(&self) -> Result<(), String> {
        let Booted { file, is_trial } = &self.booted;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(about("boot_id"))?;
        let (file, keep) = (file.as_deref().unwrap_or("none"), if *is_trial { "trial" } else { "kept" });
        let upgrade = self.upgrade.replace(char::is_control, " ");
        let text = format!("boot {}\nsystem {file}\nstate {keep}\nupgrade {upgrade:.400}\n", boot.trim());
        log(format_args!("system {file}, {keep}; upgrade {upgrade}"));
        let new = format!("{STATUS}.new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, STATUS)).map_err(about(STATUS))
    }

    fn is_given_up(&self) -> bool {
        self.booted.is_trial && self.since.elapsed() > TRIAL
    }
}

/// Ends all that runs: first the shim, so that it brings nothing back; then guests, the youngest first, as what was
/// started after others relies on them; the control plane is the oldest.
fn end_all(shim: &mut Child, watchdog: &mut Watchdog) {
    let _ = shim.kill().and_then(|()| shim.wait());
    let entries = fs::read_dir(MONITORS).into_iter().flatten().flatten();
    let mut monitors: Vec<(u64, Pid)> = entries
        .filter_map(|entry| {
            let instance = entry.file_name().to_str()?.parse().ok()?;
            let pid = fs::read_to_string(entry.path().join("pid")).ok()?.trim().parse().ok()?;
            Some((instance, Pid::from_raw(pid)?))
        })
        .collect();
    monitors.sort_unstable_by_key(|(instance, _)| std::cmp::Reverse(*instance));
    for (instance, pid) in monitors {
        end(instance, pid);
        watchdog.feed();
    }
    // A process that was killed has its files open for a moment yet.
    for look in 1..=END_LOOKS {
        match unmount(state::FOLDER, UnmountFlags::empty()) {
            Ok(()) => return,
            Err(error) if look == END_LOOKS => log(format_args!("{}: {error}", state::FOLDER)),
            Err(_) => sleep(DISK_LOOK),
        }
        watchdog.feed();
    }
}

/// Ends a monitor of ours; a record of an earlier boot may name the pid of something else.
fn end(instance: u64, pid: Pid) {
    let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
    let is_monitor = || fs::read(&path).is_ok_and(|line| line.starts_with(b"/petrel/"));
    if !is_monitor() {
        return;
    }
    log(format_args!("ending instance {instance}, process {}", pid.as_raw_nonzero()));
    let _ = kill_process(pid, Signal::KILL);
    for _ in 0..END_LOOKS {
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        if !is_monitor() {
            return;
        }
        sleep(DISK_LOOK);
    }
}
