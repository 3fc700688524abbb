//! Monitors: the programs that run guests, and their processes: started, watched, and found again after the shim was
//! restarted. Each has a folder `run/<instance>` with its console (a FIFO), its `record`, and for scripts its `pid`.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{ffi::OsStr, mem, os::unix::process::CommandExt, thread, time::Duration};

use petrel_shim::ledger::Record;
use petrel_wire::frame::{self, Inbox};
use petrel_wire::shim::{Backend, Event, InstanceId, Monitor as Told};
use petrel_wire::{Blob, ExitStatus, Mac, limits::CONSOLE_BYTES_MAX};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchown, mkfifoat, open};
use rustix::io::{Errno, dup};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::{about, config::Monitor, limits::Limits, log};

/// The console bytes that are dropped at once: most of a pipe, whose rest is what the control plane would keep.
const SHED_BYTES: usize = 48 * 1024;

/// A program that runs guests.
pub struct Program {
    /// What the control plane is told of it.
    pub told: Told,
    path: PathBuf,
    first_options: Vec<String>,
    is_upstream: bool,
}

impl Program {
    /// `uid` is one of the users that it may run as: what is open to root may be closed to them.
    pub fn new(monitor: &Monitor, uid: Option<u32>) -> Result<Self, String> {
        let path = monitor.path.canonicalize().map_err(about(monitor.path.display()))?;
        let (backend, first_options) = match monitor.backend {
            Some(backend) => (backend, Vec::new()),
            None => probe(&path, uid).map_err(about(format_args!("{} --probe", path.display())))?,
        };
        let Monitor { target, version, .. } = *monitor;
        let told = Told { name: monitor.name.clone(), target, version, backend };
        Ok(Self { told, path, first_options, is_upstream: monitor.backend.is_some() })
    }

    /// Begins a command line, of a process that will run on `cpus` as `uid`.
    pub fn launch(&self, memory_mib: u32, cpus: &[u16], uid: Option<u32>) -> Launch {
        let (mut command, mut set) = (command(&self.path, uid), CpuSet::new());
        command.args(&self.first_options).arg(format!("--mem={memory_mib}"));
        cpus.iter().for_each(|cpu| set.set(usize::from(*cpu)));
        Launch { command, cpus: set, uid, memory_mib, is_upstream: self.is_upstream, inherited: Vec::new() }
    }
}

/// A monitor about to be started: its command line, in the syntax of upstream's solo5-hvt.
pub struct Launch {
    command: Command,
    cpus: CpuSet,
    uid: Option<u32>,
    memory_mib: u32,
    is_upstream: bool,
    /// What the command line names. Not closed on exec: this is the only thread, so nothing else inherits them.
    inherited: Vec<OwnedFd>,
}

impl Launch {
    /// Attaches a network device.
    pub fn net(&mut self, device: &str, tap: impl AsFd, mac: Mac) -> io::Result<()> {
        let tap = dup(tap)?;
        let options = [format!("--net:{device}=@{}", tap.as_raw_fd()), format!("--net-mac:{device}={mac}")];
        self.command.args(options);
        self.inherited.push(tap);
        Ok(())
    }

    /// Attaches a block device.
    pub fn block(&mut self, device: &str, file: impl AsFd) -> io::Result<()> {
        let (file, mut prefix) = (dup(file)?, "@");
        if self.is_upstream {
            // It opens its files itself, so its user must be able to. This is the path of an open one.
            fchown(&file, self.uid.map(Uid::from_raw), self.uid.map(Gid::from_raw))?;
            prefix = "/proc/self/fd/";
        }
        self.command.arg(format!("--block:{device}={prefix}{}", file.as_raw_fd()));
        self.inherited.push(file);
        Ok(())
    }

    /// Ends the command line.
    pub fn guest(&mut self, image: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>) {
        self.command.arg("--").arg(image).args(args);
    }

    /// Starts it. Its record is completed and kept in `folder`, and `news` is readable when there are any.
    pub fn start(
        mut self,
        folder: &Path,
        record: &mut Record,
        news: &OwnedFd,
        limits: &Limits,
    ) -> io::Result<Process> {
        let fifo = folder.join("console");
        mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR)?;
        // Open for reading too: its writes find a reader whatever becomes of the shim.
        let output = File::options().read(true).write(true).open(&fifo)?;
        self.command.stdout(output.try_clone()?).stderr(output.try_clone()?);
        let mut child = self.command.spawn()?;
        let pid = child.id();
        let mut keep = || {
            limits.hold(record.listed.instance, self.memory_mib, pid)?;
            sched_setaffinity(Some(Pid::from_child(&child)), &self.cpus)?;
            (record.listed.pid, record.started, record.uid) = (pid, started(pid)?, self.uid);
            let mut bytes = Vec::new();
            frame::encode(record, &mut bytes).map_err(io::Error::other)?;
            fs::write(folder.join("record"), bytes)?;
            fs::write(folder.join("pid"), format!("{pid}\n"))?;
            Process::open(record, &fifo, news)
        };
        keep().inspect_err(|_| drop(child.kill().and_then(|()| child.wait())))
    }
}

/// A monitor's process, which runs or whose console has not been read to its end.
pub struct Process {
    /// Readable once it has ended.
    pidfd: OwnedFd,
    /// What the guest writes. It is open for writing too: it never comes to an end, it only has nothing to read.
    console: File,
    /// Console bytes that were dropped and not told yet, and the lines that ended in them.
    lost: (u64, u64),
}

impl Process {
    fn open(record: &Record, fifo: &Path, news: &OwnedFd) -> io::Result<Self> {
        let pidfd = open_pidfd(record.listed.pid)?;
        let console = open(fifo, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
        let instance = epoll::EventData::new_u64(record.listed.instance.0);
        epoll::add(news, &pidfd, instance, epoll::EventFlags::IN)?;
        epoll::add(news, &console, instance, epoll::EventFlags::IN)?;
        Ok(Self { pidfd, console: console.into(), lost: (0, 0) })
    }

    /// Takes over what an earlier shim started: its record, and its process if that still runs. One without a whole
    /// record was never acknowledged: it is ended and forgotten.
    pub fn adopt(folder: &Path, news: &OwnedFd) -> io::Result<Option<(Record, Option<Self>)>> {
        let (fifo, mut inbox) = (folder.join("console"), Inbox::default());
        match File::open(folder.join("record")) {
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            record => record?.read_to_end(inbox.back())?,
        };
        let Some(record) = inbox.next_message::<Record>().map_err(io::Error::other)? else {
            end_writers(&fifo)?;
            return fs::remove_dir_all(folder).map(|()| None);
        };
        let is_same = || started(record.listed.pid).map(|started| started == record.started);
        let process = match Self::open(&record, &fifo, news) {
            // There is no process of this number, or another's, or a thread.
            Err(_) if !is_same().unwrap_or(false) => return Ok(Some((record, None))),
            process => process?,
        };
        // It was open before this, so if the pid has the recorded start, both are of the same process. One that has ended
        // is still there until its new parent reaps it.
        let (started, is_over) = (is_same(), is_ready(&process.pidfd, PollFlags::IN, Timespec::default()));
        let is_same = !is_over && started?;
        Ok(Some((record, is_same.then_some(process))))
    }

    /// Readable when it has something to tell.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.pidfd.as_fd(), self.console.as_fd()]
    }

    /// Kills it, if it has not ended.
    pub fn kill(&self) -> io::Result<()> {
        let killed = pidfd_send_signal(&self.pidfd, Signal::KILL);
        Ok(killed.or_else(|errno| if errno == Errno::SRCH { Ok(()) } else { Err(errno) })?)
    }

    /// What is to be told of it next. All that it wrote comes before its end.
    pub fn news(&mut self, instance: InstanceId) -> Option<Event> {
        if let (bytes @ 1.., lines) = mem::take(&mut self.lost) {
            return Some(Event::ConsoleLost { instance, bytes, lines });
        }
        // Looked at before the console: what is not there once it has ended never comes.
        let is_over = is_ready(&self.pidfd, PollFlags::IN, Timespec::default());
        let mut data = [0; CONSOLE_BYTES_MAX];
        let count = self.console.read(&mut data).unwrap_or(0);
        // Guests that flood their consoles keep nobody busy: all of them together get about 2.5 MiB/s told, and wait.
        thread::sleep(Duration::from_micros(1500) * u32::from(count == CONSOLE_BYTES_MAX));
        match count {
            0 if is_over => Some(Event::Exited { instance, status: self.reap() }),
            0 => None,
            count => Blob::try_from(&data[..count]).ok().map(|data| Event::Console { instance, data }),
        }
    }

    fn reap(&self) -> ExitStatus {
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        // An earlier shim's child is not ours to wait for.
        let Ok(Some(status)) = status else { return ExitStatus::Unknown };
        ExitStatus::new(status.exit_status(), status.terminating_signal())
    }

    /// Drops the oldest bytes of a console that nobody takes and that makes its guest wait.
    pub fn shed_console(&mut self) {
        if !is_ready(&self.console, PollFlags::OUT, Timespec::default()) {
            let mut data = [0; SHED_BYTES];
            let count = self.console.read(&mut data).unwrap_or(0);
            let lines = data[..count].iter().filter(|byte| **byte == b'\n').count();
            self.lost = (self.lost.0 + count as u64, self.lost.1 + lines as u64);
        }
    }
}

/// Ends the processes whose standard output is `fifo`, and waits until they have.
fn end_writers(fifo: &Path) -> io::Result<()> {
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if fs::read_link(format!("/proc/{pid}/fd/1")).is_ok_and(|target| target == fifo) {
            log(format_args!("process {pid} was started and never acknowledged: ended"));
            let pidfd = open_pidfd(pid)?;
            pidfd_send_signal(&pidfd, Signal::KILL)?;
            is_ready(&pidfd, PollFlags::IN, Timespec { tv_sec: 1, tv_nsec: 0 });
        }
    }
    Ok(())
}

fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Whether a descriptor is ready, or gets so in time. A process's is readable once it has ended.
fn is_ready(descriptor: impl AsFd, flags: PollFlags, within: Timespec) -> bool {
    poll(&mut [PollFd::new(&descriptor, flags)], Some(&within)).is_ok_and(|ready| ready > 0)
}

/// What tells a process from all others that had or will have its pid: the host's boot, and when after that, in clock
/// ticks, it started (field 22 of proc(5)'s `stat`; the second, in parentheses, may hold anything).
fn started(pid: u32) -> io::Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19));
    Ok(boot + ticks.ok_or(Errno::SRCH)?)
}

/// A program in an empty environment, out of the terminal's reach.
fn command(path: &Path, uid: Option<u32>) -> Command {
    let mut command = Command::new(path);
    command.env_clear().process_group(0).stdin(Stdio::null());
    if let Some(uid) = uid {
        command.uid(uid).gid(uid); // which drops the supplementary groups as well
    }
    command
}

/// Asks petrel-tender what it can do here. The options spare it to find that out again for each guest. It is not waited
/// for in vain: the tender gives its trial of KVM a tenth of a second, and leaves it alone after one more.
fn probe(path: &Path, uid: Option<u32>) -> io::Result<(Backend, Vec<String>)> {
    let output = command(path, uid).arg("--probe").output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    log(format_args!("{} --probe: {}", path.display(), said.trim()));
    let word = |key| said.split_whitespace().find_map(|word| word.strip_prefix(key));
    let (Some(backend), Some(khz)) = (word("backend="), word("tsc_khz=")) else {
        return Err(io::Error::other(format!("not understood: {output:?}")));
    };
    let options = vec![format!("--backend={backend}"), format!("--tsc-khz={khz}")];
    Ok((if backend == "kvm" { Backend::Kvm } else { Backend::Ring3 }, options))
}
