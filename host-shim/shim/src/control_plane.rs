//! The control plane's own monitor: the first guest of the host, brought back whenever it ends.

use std::{fs, fs::File, io, os::fd::OwnedFd, time::Duration, time::Instant};

use petrel_shim::ledger::Record;
use petrel_wire::{Mac, shim::Event, shim::InstanceId};
use rustix::fs::{IFlags, Mode, OFlags, ioctl_getflags, ioctl_setflags, open};

use crate::config::{Config, ControlPlane as Settings};
use crate::interface::{create_tap, set_address};
use crate::{about, log, ops::Ops};

const LINK_TAP: &str = "petrel-link";
const SERVICE_TAP: &str = "petrel-service";
const TAPS_TAKE: &str = "its taps take /dev/net/tun, CAP_NET_ADMIN and control_plane.bridge";
/// It is not started more often.
const START_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct ControlPlane {
    /// "service" and "shim". They stay while it is brought back; none are ours if an earlier shim has started it.
    taps: Option<[OwnedFd; 2]>,
    /// When it may be started again.
    due: Option<Instant>,
}

impl ControlPlane {
    /// Starts it if it does not run. A failure is logged, and like an early end it is tried again.
    pub fn keep_running(&mut self, ops: &mut Ops) {
        let now = Instant::now();
        if !ops.processes.contains_key(&InstanceId::CONTROL_PLANE) && self.due.is_none_or(|due| due <= now) {
            self.due = Some(now + START_INTERVAL);
            match self.start(ops) {
                Ok(pid) => log(format_args!("control plane started, process {pid}")),
                Err(error) => log(format_args!("control plane not started: {error}")),
            }
        }
    }

    fn start(&mut self, ops: &mut Ops) -> Result<u32, String> {
        let config = ops.config.clone();
        let Settings { image, seal, memory_mib, monitor, args, .. } = &config.control_plane;
        let taps = self.taps.take().map_or_else(|| make_taps(&config), Ok)?;
        let [service, link] = self.taps.insert(taps);
        let launch = ops.launch(monitor, *memory_mib, &[]);
        let mut launch = launch.ok_or("control_plane.monitor: expected one of [[monitors]]")?;
        // Its own addresses, and the same each time: neighbours remember them. Both are locally administered.
        let [a, b, c, d, e] = config.control_plane_public_key.last_chunk().copied().unwrap_or_default();
        launch.net("service", service, Mac([0x02, a, b, c, d, e])).map_err(about(SERVICE_TAP))?;
        launch.net("shim", link, Mac([0x06, a, b, c, d, e])).map_err(about(LINK_TAP))?;
        let file = File::open(seal).and_then(|file| launch.block("seal", file));
        file.map_err(about(seal.display()))?;
        let file = open_state(&config.control_plane).and_then(|file| launch.block("state", file));
        file.map_err(about(config.control_plane.state.display()))?;
        launch.guest(image, args);
        let _ = fs::remove_dir_all(ops.folder(InstanceId::CONTROL_PLANE)); // the last one's
        ops.start(launch, Record::default()).map_err(about(monitor))
    }
}

/// Logs a piece of its console, or that it has ended; whether it has.
pub fn has_ended(ops: &mut Ops) -> bool {
    let news = ops.news(InstanceId::CONTROL_PLANE);
    if let Some(Event::Console { data, .. }) = &news {
        // Without control characters: logs are looked at in terminals.
        let say = |line: &str| log(format_args!("petrel.hvt: {}", line.replace(char::is_control, "")));
        String::from_utf8_lossy(data).lines().for_each(say);
    }
    let Some(Event::Exited { status, .. }) = news else { return false };
    log(format_args!("control plane ended: {status}"));
    true
}

/// What it keeps its state on, made when it is not there. A write is on the disk when it is done: whoever has the
/// descriptor, and where the file system knows that attribute, whoever opens the file.
fn open_state(settings: &Settings) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::DSYNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(open(&settings.state, flags, Mode::RUSR | Mode::WUSR)?);
    if file.metadata()?.len() == 0 {
        file.set_len(u64::from(settings.state_mib.get()) << 20)?;
    }
    let _ = ioctl_getflags(&file).and_then(|flags| ioctl_setflags(&file, flags | IFlags::SYNC));
    Ok(file)
}

/// The taps of "service" and "shim". The link's has the shim's address.
fn make_taps(config: &Config) -> Result<[OwnedFd; 2], String> {
    let service = create_tap(SERVICE_TAP, Some(&config.control_plane.bridge)).map_err(about(TAPS_TAKE))?;
    let link = create_tap(LINK_TAP, None).map_err(about(TAPS_TAKE))?;
    set_address(LINK_TAP, *config.listen.ip()).map_err(about(TAPS_TAKE))?;
    Ok([service, link])
}
