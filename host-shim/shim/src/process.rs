//! Monitors' processes: starting them, watching them, finding them again after the shim was restarted.
//!
//! Each has a folder `run/<instance>` with its console (a FIFO), its `record`, and for scripts its `pid`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use petrel_shim::ledger::Record;
use petrel_wire::{ExitStatus, frame};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, mkfifoat, open};
use rustix::io::{Errno, FdFlags, fcntl_setfd, ioctl_fionread};
use rustix::pipe::{fcntl_getpipe_size, fcntl_setpipe_size};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::limits::Limits;
use crate::log;
use crate::program::{Guest, Program};

/// The console bytes that wait for the shim before a guest has to.
const CONSOLE_PIPE_BYTES: usize = 256 * 1024;

/// A monitor's process, which runs or whose console has not been read to its end.
pub struct Process {
    /// Readable once it has ended.
    pub pidfd: OwnedFd,
    /// What the guest writes. It is open for writing too: it never comes to an end, it only has nothing to read.
    pub console: File,
    pub ended: Option<ExitStatus>,
    /// Console bytes, and lines that end in them, that were dropped and not told yet.
    pub lost: (u64, u64),
}

/// Starts and finds processes.
pub struct Runner {
    /// Absolute, without symbolic links.
    folder: PathBuf,
    all_cpus: CpuSet,
    boot_id: String,
    pub limits: Limits,
}

impl Runner {
    pub fn new(folder: PathBuf) -> io::Result<Self> {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let limits = Limits::find(&folder)?;
        Ok(Self { folder, all_cpus: sched_getaffinity(None)?, boot_id, limits })
    }

    fn folder(&self, instance: u64) -> PathBuf {
        self.folder.join(instance.to_string())
    }

    /// Starts a monitor, as the user of `record`, which is then kept. On error nothing is left of it.
    pub fn start(
        &self,
        instance: u64,
        program: &Program,
        guest: &Guest<'_>,
        record: Record,
    ) -> io::Result<(Process, Record)> {
        let folder = self.folder(instance);
        fs::create_dir(&folder)?;
        let started = self.start_in(instance, program, guest, record);
        if started.is_err() {
            self.forget(instance)?;
        }
        started
    }

    fn start_in(
        &self,
        instance: u64,
        program: &Program,
        guest: &Guest<'_>,
        mut record: Record,
    ) -> io::Result<(Process, Record)> {
        let folder = self.folder(instance);
        let fifo = folder.join("console");
        mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR)?;
        let console = open_console(&fifo)?;
        let mut child = self.spawn(&fifo, program, guest, record.uid)?;
        let mut keep = || {
            self.limits.hold(instance, guest.memory_mib, child.id())?;
            record.pid = child.id();
            record.started = (self.boot_id.clone(), start_ticks(child.id())?);
            let mut bytes = Vec::new();
            frame::encode(&record, &mut bytes).map_err(|_| Errno::TOOBIG)?;
            fs::write(folder.join("record"), bytes)?;
            fs::write(folder.join("pid"), format!("{}\n", record.pid))?;
            open_pidfd(record.pid)
        };
        match keep() {
            Ok(pidfd) => Ok((Process { pidfd, console, ended: None, lost: (0, 0) }, record)),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    fn spawn(
        &self,
        fifo: &Path,
        program: &Program,
        guest: &Guest<'_>,
        uid: Option<u32>,
    ) -> io::Result<Child> {
        // Open for reading too: its writes find a reader whatever becomes of the shim.
        let stdout = open(fifo, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let mut command = Command::new(&program.path);
        command.args(program.arguments(guest)).env_clear().process_group(0);
        command.stdin(Stdio::null()).stderr(stdout.try_clone()?).stdout(stdout);
        if let Some(uid) = uid {
            command.uid(uid).gid(uid); // which drops the supplementary groups as well
        }
        // This is the only thread, so nothing else is started that would inherit these.
        let pass = |flags| {
            program.descriptors(guest).iter().try_for_each(|descriptor| fcntl_setfd(descriptor, flags))
        };
        self.bind(guest.cpus)?;
        pass(FdFlags::empty())?;
        let child = command.spawn();
        pass(FdFlags::CLOEXEC)?;
        self.bind(&[])?;
        child
    }

    /// Binds the shim, and what it starts, to `cpus`; to all if none.
    fn bind(&self, cpus: &[u16]) -> io::Result<()> {
        let mut set = CpuSet::new();
        cpus.iter().for_each(|cpu| set.set(usize::from(*cpu)));
        Ok(sched_setaffinity(None, if cpus.is_empty() { &self.all_cpus } else { &set })?)
    }

    /// Takes over what an earlier shim started: instances, records, and the processes that still run. One without a
    /// whole record was never acknowledged: it is ended and forgotten.
    pub fn adopt(&self) -> io::Result<Vec<(u64, Record, Option<Process>)>> {
        let mut adopted = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let Some(instance) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let folder = self.folder(instance);
            let bytes = fs::read(folder.join("record")).unwrap_or_default();
            let record = frame::split(&bytes)
                .ok()
                .flatten()
                .and_then(|(bytes, _)| frame::decode::<Record>(bytes).ok());
            if let Some(record) = record {
                let process = self.find(&record, &folder)?;
                adopted.push((instance, record, process));
            } else {
                end_writers(&folder.join("console"))?;
                self.forget(instance)?;
            }
        }
        Ok(adopted)
    }

    fn find(&self, record: &Record, folder: &Path) -> io::Result<Option<Process>> {
        // The pidfd first: if the process has the recorded start after that, it is the one that the pidfd is of.
        let Ok(pidfd) = open_pidfd(record.pid) else { return Ok(None) };
        if record.started.0 != self.boot_id || start_ticks(record.pid).ok() != Some(record.started.1) {
            return Ok(None);
        }
        // One that has ended is still there until its new parent reaps it.
        if poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0 {
            return Ok(None);
        }
        Ok(Some(Process {
            pidfd,
            console: open_console(&folder.join("console"))?,
            ended: None,
            lost: (0, 0),
        }))
    }

    /// Removes what is kept of a process.
    pub fn forget(&self, instance: u64) -> io::Result<()> {
        self.limits.remove(instance);
        fs::remove_dir_all(self.folder(instance))
    }
}

impl Process {
    /// Kills it, if it has not ended.
    pub fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Err(Errno::SRCH) => Ok(()),
            result => Ok(result?),
        }
    }

    /// How it ended, once its pidfd is readable.
    pub fn reap(&mut self) -> Option<ExitStatus> {
        let byte = |number: Option<i32>| number.and_then(|number| u8::try_from(number).ok());
        self.ended =
            match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
                Ok(None) => None,
                Ok(Some(status)) => match (byte(status.exit_status()), byte(status.terminating_signal())) {
                    (Some(code), _) => Some(ExitStatus::Code(code)),
                    (None, Some(signal)) => Some(ExitStatus::Signal(signal)),
                    (None, None) => Some(ExitStatus::Unknown),
                },
                Err(_) => Some(ExitStatus::Unknown), // an earlier shim's child, not ours
            };
        self.ended
    }

    /// The next bytes of its console; none if there are none now.
    pub fn read_console(&mut self, data: &mut [u8]) -> usize {
        self.console.read(data).unwrap_or(0)
    }

    /// Drops the oldest bytes of a console that nobody takes and that is about to make its guest wait.
    pub fn shed_console(&mut self) {
        let most = fcntl_getpipe_size(&self.console).unwrap_or(0) as u64 / 4 * 3;
        let mut data = [0; 4096];
        while ioctl_fionread(&self.console).is_ok_and(|waiting| waiting > most) {
            let count = self.read_console(&mut data);
            self.lost.0 += count as u64;
            self.lost.1 += data[..count].iter().filter(|byte| **byte == b'\n').count() as u64;
        }
    }
}

fn open_console(fifo: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let console = open(fifo, flags, Mode::empty())?;
    // An ordinary user with many of them gets less: then a guest waits a little earlier.
    let _ = fcntl_setpipe_size(&console, CONSOLE_PIPE_BYTES);
    Ok(console.into())
}

fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// When a process started, in clock ticks since the host did.
fn start_ticks(pid: u32) -> io::Result<u64> {
    stat(pid)?.get(19).copied().ok_or(Errno::SRCH.into())
}

/// The fields of proc(5)'s `stat` from the third on, those that are no number as 0. The second, in parentheses, may hold
/// anything.
pub fn stat(pid: u32) -> io::Result<Vec<u64>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    Ok(fields.map(|field| field.parse().unwrap_or(0)).collect())
}

/// Ends the processes whose standard output is `fifo`, and waits until they have.
fn end_writers(fifo: &Path) -> io::Result<()> {
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if fs::read_link(format!("/proc/{pid}/fd/1")).is_ok_and(|target| target == fifo) {
            log(format_args!("process {pid} was started and never acknowledged: ended"));
            let pidfd = open_pidfd(pid)?;
            pidfd_send_signal(&pidfd, Signal::KILL)?;
            poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&Timespec { tv_sec: 1, tv_nsec: 0 }))?;
        }
    }
    Ok(())
}
