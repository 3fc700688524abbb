//! The monitors that are installed: what they can do, and their command lines.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use petrel_wire::Mac;
use petrel_wire::shim::{Backend, Monitor as Told};
use rustix::event::{PollFd, PollFlags, poll};

use crate::config::{Kind, Monitor, Uids};

const PROBE_TIME_MAX: Duration = Duration::from_secs(5);
const PROBE_BYTES_MAX: usize = 4096;

/// A monitor that is known to work.
pub struct Program {
    pub path: PathBuf,
    /// What the control plane is told of it.
    pub told: Told,
    kind: Kind,
    first_options: Vec<String>,
}

/// A guest, as it is given to a monitor.
pub struct Guest<'a> {
    pub memory_mib: u32,
    /// Its CPUs on the host; all if none.
    pub cpus: &'a [u16],
    /// Devices, their taps, and their addresses.
    pub nets: Vec<(&'a str, BorrowedFd<'a>, Mac)>,
    /// Devices, and their files twice over: upstream's monitors open them themselves.
    pub blocks: Vec<(&'a str, OwnedFd, PathBuf)>,
    pub image: PathBuf,
    pub args: Vec<OsString>,
}

impl Program {
    /// Asks a monitor what it can do, as one of the users that monitors run as: what is open to root may be closed
    /// to them.
    pub fn probe(monitor: &Monitor, uids: Option<Uids>) -> Result<Self, String> {
        let option = if monitor.kind == Kind::Petrel { "--probe" } else { "--version" };
        let failed = |what: String| format!("monitors: {} {option}: {what}", monitor.path.display());
        let said = ask(monitor, option, uids).ok_or_else(|| failed("no answer in time".into()))?;
        let word = |key| said.split_once(key).and_then(|(_, rest)| rest.split_whitespace().next());
        let version = word("ABI version ").and_then(|word| word.parse().ok());
        let (target, version, backend) = match (monitor.kind, word("backend="), version) {
            (Kind::Petrel, Some("kvm"), _) => (1, 2, Backend::Kvm),
            (Kind::Petrel, Some("ring3"), _) => (1, 2, Backend::Ring3),
            (Kind::Solo5Hvt, _, Some(version)) => (1, version, Backend::Kvm),
            (Kind::Solo5Spt, _, Some(version)) => (2, version, Backend::Ring3),
            _ => return Err(failed(format!("not understood: {said:?}"))),
        };
        let mut first_options = Vec::new();
        if let (Some(backend), Some(khz)) = (word("backend="), word("tsc_khz=")) {
            first_options.extend([format!("--backend={backend}"), format!("--tsc-khz={khz}")]);
        }
        let told = Told { name: monitor.name.clone(), target, version, backend };
        Ok(Self { path: monitor.path.clone(), told, kind: monitor.kind, first_options })
    }

    /// Whether it takes block devices as descriptors. If not it opens them itself, so its user must be able to.
    pub fn takes_files(&self) -> bool {
        self.kind == Kind::Petrel
    }

    /// The command line that runs `guest`, in the syntax of upstream's solo5-hvt.
    pub fn arguments(&self, guest: &Guest<'_>) -> Vec<OsString> {
        let mut line: Vec<OsString> = self.first_options.iter().map(OsString::from).collect();
        line.push(format!("--mem={}", guest.memory_mib).into());
        for (device, tap, mac) in &guest.nets {
            line.push(format!("--net:{device}=@{}", tap.as_raw_fd()).into());
            line.push(format!("--net-mac:{device}={mac}").into());
        }
        for (device, file, path) in &guest.blocks {
            let mut option = OsString::from(format!("--block:{device}="));
            let descriptor = PathBuf::from(format!("@{}", file.as_raw_fd()));
            option.push(if self.takes_files() { &descriptor } else { path });
            line.push(option);
        }
        line.extend(["--".into(), guest.image.clone().into()]);
        line.extend(guest.args.iter().cloned());
        line
    }

    /// The descriptors in that command line.
    pub fn descriptors<'a>(&self, guest: &'a Guest<'_>) -> Vec<BorrowedFd<'a>> {
        let files = guest.blocks.iter().map(|(_, file, _)| file.as_fd()).filter(|_| self.takes_files());
        guest.nets.iter().map(|(_, tap, _)| *tap).chain(files).collect()
    }
}

/// What a monitor says to `option`; `None` if it does not end in time.
fn ask(monitor: &Monitor, option: &str, uids: Option<Uids>) -> Option<String> {
    let (pipe, said) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).ok()?;
    let mut command = Command::new(&monitor.path);
    command.arg(option).env_clear().stdin(Stdio::null()).stdout(said.try_clone().ok()?).stderr(said);
    if let Some(Uids { first, .. }) = uids {
        command.uid(first).gid(first);
    }
    let mut child = command.spawn().ok()?;
    drop(command); // and with it our copies of the pipe's other end
    let answer = read_to_end(&pipe, Instant::now() + PROBE_TIME_MAX);
    let _ = child.kill();
    let _ = child.wait();
    answer
}

fn read_to_end(pipe: &OwnedFd, deadline: Instant) -> Option<String> {
    let (mut said, mut data) = (Vec::new(), [0; 1024]);
    while said.len() < PROBE_BYTES_MAX {
        let left = deadline.checked_duration_since(Instant::now())?.try_into().ok()?;
        poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&left)).ok().filter(|ready| *ready > 0)?;
        match rustix::io::read(pipe, &mut data).ok()? {
            0 => return Some(String::from_utf8_lossy(&said).into_owned()),
            count => said.extend_from_slice(&data[..count]),
        }
    }
    None
}
