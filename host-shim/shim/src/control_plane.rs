//! The control plane's own monitor: the first guest of the host, brought back whenever it ends.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use petrel_shim::ledger::Record;
use petrel_wire::Mac;
use ring::digest::{SHA256, digest};
use rustix::fs::{IFlags, Mode, OFlags, fstat, ftruncate, ioctl_getflags, ioctl_setflags, open};

use crate::config::{Cidr, ControlPlane as Settings, Uids};
use crate::interface::{create_tap, set_address};
use crate::process::{Process, Runner};
use crate::program::{Guest, Program};
use crate::{give, log};

/// Its number in the run folder.
pub const INSTANCE: u64 = 0;
const LINK_TAP: &str = "petrel-link";
const SERVICE_TAP: &str = "petrel-service";
const TAPS_TAKE: &str = "taps take /dev/net/tun, CAP_NET_ADMIN in the network namespace, and the bridge";
/// One that lived so long is brought back at once, any other after twice the last delay.
const LIFE_MIN: Duration = Duration::from_secs(10);
const DELAY_MIN: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(5);
const LINE_BYTES_MAX: usize = 1024;

pub struct ControlPlane {
    settings: Settings,
    uids: Option<Uids>,
    /// Its own, and the same each time: neighbours remember them.
    macs: [Mac; 2],
    /// "service" and "shim". They stay while it is brought back; none are ours if an earlier shim has started it.
    taps: Option<[OwnedFd; 2]>,
    pub process: Option<Process>,
    /// When to start it, if it does not run.
    pub due: Option<Instant>,
    started: Instant,
    delay: Duration,
    line: Vec<u8>,
}

impl ControlPlane {
    /// With `process` if it runs already. `public_key` tells it from those of other hosts.
    pub fn new(settings: Settings, uids: Option<Uids>, public_key: &[u8], process: Option<Process>) -> Self {
        let hash = digest(&SHA256, public_key);
        let mac = |first| {
            let mut mac = Mac([first; 6]);
            mac.0[1..].copy_from_slice(&hash.as_ref()[..5]);
            mac
        };
        let (started, delay, line) = (Instant::now(), Duration::ZERO, Vec::new());
        let macs = [mac(0x02), mac(0x06)]; // both locally administered
        Self { settings, uids, macs, taps: None, process, due: None, started, delay, line }
    }

    /// Makes its taps if there are none. The link's has the shim's address, so this comes before listening.
    pub fn make_taps(&mut self) -> Result<(), String> {
        if self.taps.is_none() {
            let Settings { bridge, link_ipv4: Cidr(address, prefix_bits), .. } = &self.settings;
            let link =
                create_tap(LINK_TAP, None).map_err(|errno| format!("{LINK_TAP}: {errno}; {TAPS_TAKE}"))?;
            set_address(LINK_TAP, *address, *prefix_bits)
                .map_err(|errno| format!("{LINK_TAP}: address: {errno}"))?;
            let service = create_tap(SERVICE_TAP, Some(bridge));
            let service =
                service.map_err(|errno| format!("{SERVICE_TAP} on bridge {bridge}: {errno}; {TAPS_TAKE}"))?;
            self.taps = Some([service, link]);
        }
        Ok(())
    }

    /// Starts it. A failure is logged, and like an early end it is tried again.
    pub fn start(&mut self, runner: &Runner, programs: &[Program]) {
        self.started = Instant::now();
        match self.make_taps().and_then(|()| self.launch(runner, programs)) {
            Ok((process, Record { pid, .. })) => {
                log(format_args!("control plane started, process {pid}"));
                (self.process, self.due) = (Some(process), None);
            }
            Err(error) => self.retry(&format!("not started: {error}")),
        }
    }

    fn launch(&self, runner: &Runner, programs: &[Program]) -> Result<(Process, Record), String> {
        let Settings { seal, state, memory_mib, image, monitor, args, .. } = &self.settings;
        let program = programs.iter().find(|program| program.told.name == *monitor).ok_or("no monitor")?;
        let [service, link] = self.taps.as_ref().ok_or("no taps")?;
        let file = open(seal, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let file = file.map_err(|errno| format!("{}: {errno}", seal.display()))?;
        let uid = self.uids.map(|uids| uids.first);
        if !program.takes_files() {
            give(&file, uid).map_err(|error| format!("{}: {error}", seal.display()))?;
        }
        let state_file = self.open_state(program).map_err(|error| format!("{}: {error}", state.display()))?;
        let guest = Guest {
            memory_mib: *memory_mib,
            cpus: &[],
            nets: vec![("service", service.as_fd(), self.macs[0]), ("shim", link.as_fd(), self.macs[1])],
            blocks: vec![("seal", file, seal.clone()), ("state", state_file, state.clone())],
            image: image.clone(),
            args: args.iter().map(Into::into).collect(),
        };
        let started = runner.start(INSTANCE, program, &guest, Record { uid, ..Record::default() });
        started.map_err(|error| format!("{}: {error}", program.path.display()))
    }

    /// What it keeps its state on, made when it is not there. A write is on the disk when it is done, whoever opens it.
    fn open_state(&self, program: &Program) -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::DSYNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = open(&self.settings.state, flags, Mode::RUSR | Mode::WUSR)?;
        if fstat(&file)?.st_size == 0 {
            ftruncate(&file, u64::from(self.settings.state_mib.get()) << 20)?;
        }
        let sync = || ioctl_setflags(&file, ioctl_getflags(&file)? | IFlags::SYNC);
        if !program.takes_files() && sync().is_err() {
            log(format_args!("control_plane.state: its file system is not synchronous: use petrel-tender"));
        }
        give(&file, self.uids.map(|uids| uids.first)).map(|()| file)
    }

    /// Whether it has ended. Then it is started again in a while.
    pub fn has_ended(&mut self, runner: &Runner) -> bool {
        let Some(status) = self.process.as_mut().and_then(Process::reap) else { return false };
        while self.log_console() {}
        self.process = None;
        let _ = runner.forget(INSTANCE);
        self.retry(&format!("ended: {status}"));
        true
    }

    fn retry(&mut self, why: &str) {
        if self.started.elapsed() >= LIFE_MIN {
            self.delay = Duration::ZERO;
        }
        log(format_args!("control plane {why}; started again in {} ms", self.delay.as_millis()));
        self.due = Some(Instant::now() + self.delay);
        self.delay = (2 * self.delay).clamp(DELAY_MIN, DELAY_MAX);
    }

    /// Logs a piece of its console, line by line; whether there was one.
    pub fn log_console(&mut self) -> bool {
        let mut data = [0; 4096];
        let count = self.process.as_mut().map_or(0, |process| process.read_console(&mut data));
        for byte in &data[..count] {
            if *byte != b'\n' {
                self.line.push(*byte);
            }
            if *byte == b'\n' || self.line.len() == LINE_BYTES_MAX {
                // Without control characters: logs are looked at in terminals.
                let line: String =
                    String::from_utf8_lossy(&self.line).chars().filter(|c| !c.is_control()).collect();
                let _ = writeln!(io::stderr(), "petrel.hvt: {line}");
                self.line.clear();
            }
        }
        count > 0
    }
}
