//! Carries out what the check has let through, and tells what happens to monitors.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::{fs, io};

use petrel_shim::check::{Refusal, check};
use petrel_shim::ledger::{Ledger, Monitor, Record, Tap, Upload};
use petrel_wire::shim::{Event, Fault, FromShim, Host, InstanceId, Listed, Op, Reply, Request, Spawn};
use petrel_wire::{Label, List, RELEASE, VolumeName};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fs::{Mode, OFlags, open};
use rustix::system::sysinfo;
use rustix::thread::{CpuSet, sched_getaffinity};

use crate::about;
use crate::config::Config;
use crate::control_plane;
use crate::images::{Images, Receiving};
use crate::interface::create_tap;
use crate::link::Link;
use crate::monitor::{Launch, Process, Program};

/// The monitors that are looked at in one turn of the loop.
const MONITORS_PER_TURN: usize = 32;

/// The host, as far as the peer reaches it.
pub struct Ops {
    pub config: Config,
    /// Told to the peer, and what its requests are held against.
    host: Host,
    pub ledger: Ledger<Process, OwnedFd, Receiving>,
    programs: Vec<Program>,
    images: Images,
    /// Readable when a monitor has something to tell.
    pub news: OwnedFd,
}

impl Ops {
    pub fn new(config: Config) -> Result<Self, String> {
        let uid = config.uids.as_ref().map(|uids| *uids.start());
        let programs = config.monitors.iter().map(|monitor| Program::new(monitor, uid));
        let programs = programs.collect::<Result<Vec<_>, _>>()?;
        let usable = sched_getaffinity(None).map_err(about("cpus"))?;
        let is_given = |cpu: &u16| config.cpus.as_ref().is_none_or(|given| given.contains(cpu));
        let cpus = (0..u16::MAX).take(CpuSet::MAX_CPU).filter(|cpu| usable.is_set(usize::from(*cpu)));
        let memory = sysinfo();
        let host = Host {
            cpus: List::fill(&mut cpus.filter(is_given)),
            memory_mib: memory.totalram.saturating_mul(u64::from(memory.mem_unit)) >> 20,
            bridges: config.bridges.clone(),
            monitors: List::fill(&mut programs.iter().map(|program| program.told.clone())),
        };
        let images = Images(config.state_dir.join("images"));
        let ledger = Ledger::new(images.list().map_err(about("images"))?);
        let news = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(about("epoll"))?;
        Ok(Self { config, host, ledger, programs, images, news })
    }

    /// Takes over what an earlier shim started. Returns the control plane, if that runs.
    pub fn adopt(&mut self) -> Result<Option<Process>, String> {
        let mut control_plane = None;
        for entry in fs::read_dir(self.config.state_dir.join("run")).map_err(about("run"))? {
            let folder = entry.map_err(about("run"))?.path();
            let Some((record, process)) = Process::adopt(&folder).map_err(about(folder.display()))? else {
                continue;
            };
            if record.listed.instance == control_plane::INSTANCE {
                control_plane = process;
            } else {
                let mut watched =
                    process.iter().map(|process| process.watch(record.listed.instance, &self.news));
                watched.try_for_each(|done| done).map_err(about(folder.display()))?;
                self.ledger.enter(record, process);
            }
        }
        Ok(control_plane)
    }

    /// Does what is asked, and answers; chunks of images are not answered. The error is a violation.
    pub fn answer(&mut self, Request { id, op }: Request, link: &mut Link) -> Result<(), &'static str> {
        let is_chunk = matches!(op, Op::ImageChunk { .. });
        let done = check(op, &self.host, &self.ledger).and_then(|op| self.carry_out(op.into_op()));
        let result = match done {
            Err(Refusal::Violation(violation)) => return Err(violation),
            Err(Refusal::Fault(fault)) => Err(fault),
            Ok(reply) => Ok(reply),
        };
        if !is_chunk {
            link.send(&FromShim::Reply { id, result });
        }
        Ok(())
    }

    fn carry_out(&mut self, op: Op) -> Result<Reply, Refusal> {
        match op {
            Op::Hello { .. } => {
                self.ledger.greeted = true;
                return Ok(Reply::Hello { release: RELEASE });
            }
            Op::Host => return Ok(Reply::Host(Box::new(self.host.clone()))),
            Op::List { after } => return Ok(self.ledger.page(after)),
            Op::ImageBegin { digest, .. } if self.ledger.images.contains(&digest) => {
                return Ok(Reply::Stored);
            }
            Op::ImageBegin { digest, bytes } => {
                let file = self.images.begin()?;
                self.ledger.uploads.insert(digest, Upload { bytes, received: 0, file });
            }
            Op::ImageChunk { digest, data } => {
                if let Some(upload) = self.ledger.uploads.get_mut(&digest) {
                    upload.received += data.len() as u64;
                    upload.file.append(&data);
                }
            }
            Op::ImageCommit(digest) => {
                if let Some(upload) = self.ledger.uploads.remove(&digest) {
                    self.images.commit(digest, upload.file)?;
                    self.ledger.images.insert(digest);
                }
            }
            Op::ImageAbort(digest) => drop(self.ledger.uploads.remove(&digest)),
            Op::ImageRead { digest, offset, bytes } => {
                return Ok(Reply::Bytes(self.images.read(&digest, offset, bytes as usize)?));
            }
            Op::ImageRemove(digest) => {
                fs::remove_file(self.images.path(&digest))?;
                self.ledger.images.remove(&digest);
            }
            Op::TapCreate { tap, bridge } => {
                let descriptor = create_tap(&format!("pt{}", tap.0), Some(&bridge))?;
                self.ledger.taps.insert(tap, Tap::Free(descriptor));
            }
            Op::TapDestroy(tap) => drop(self.ledger.taps.remove(&tap)),
            Op::Spawn(spawn) => return self.spawn(*spawn),
            Op::Kill(instance) => self.ledger.running(instance).map_or(Ok(()), |process| process.kill())?,
            Op::Forget(instance) => {
                fs::remove_dir_all(self.folder(instance))?;
                self.ledger.monitors.remove(&instance);
            }
        }
        Ok(Reply::Done)
    }

    fn spawn(&mut self, spawn: Spawn) -> Result<Reply, Refusal> {
        let mut launch = self.launch(spawn.instance, &spawn.monitor, spawn.memory_mib, &spawn.cpus)?;
        for net in &spawn.nets {
            let Some(Tap::Free(tap)) = self.ledger.taps.get(&net.tap) else {
                return Err(Fault::NotFound.into());
            };
            launch.net(&net.device, tap, net.mac)?;
        }
        for block in &spawn.blocks {
            launch.block(&block.device, self.open_volume(&block.volume)?)?;
        }
        launch.guest(&self.images.path(&spawn.image), spawn.args.iter().map(|arg| OsStr::from_bytes(arg)));
        let taps = List::fill(&mut spawn.nets.iter().map(|net| net.tap));
        let volumes = List::fill(&mut spawn.blocks.into_vec().into_iter().map(|block| block.volume));
        let listed = Listed { instance: spawn.instance, taps, tag: spawn.tag, ..Listed::default() };
        let mut record = Record { listed, volumes, ..Record::default() };
        let process = self.start(launch, &mut record, &self.news)?;
        let pid = record.listed.pid;
        self.ledger.enter(record, Some(process));
        Ok(Reply::Spawned { pid })
    }

    /// Begins the command line of an installed monitor. Without `cpus` it runs on all that the host has for guests.
    pub fn launch(
        &self,
        instance: InstanceId,
        monitor: &Label,
        memory_mib: u32,
        cpus: &[u16],
    ) -> Result<Launch, Fault> {
        let mut programs = self.programs.iter();
        let program = programs.find(|program| program.told.name == *monitor).ok_or(Fault::NotFound)?;
        let cpus = if cpus.is_empty() { &self.host.cpus } else { cpus };
        Ok(program.launch(memory_mib, cpus, self.free_uid(instance)?))
    }

    /// Starts a monitor; from then on `news` is readable when it has something to tell. On error nothing is left of it.
    pub fn start(&self, launch: Launch, record: &mut Record, news: &OwnedFd) -> io::Result<Process> {
        let folder = self.folder(record.listed.instance);
        fs::create_dir(&folder)?;
        launch.start(&folder, record, news).inspect_err(|_| drop(fs::remove_dir_all(folder)))
    }

    /// Where what is kept of a monitor is.
    pub fn folder(&self, InstanceId(id): InstanceId) -> PathBuf {
        self.config.state_dir.join(format!("run/{id}"))
    }

    /// A user that no other running monitor has.
    fn free_uid(&self, InstanceId(id): InstanceId) -> Result<Option<u32>, Fault> {
        let Some(uids) = &self.config.uids else { return Ok(None) };
        let (own, last) = (*uids.start(), *uids.end());
        // The first is the control plane's, which is instance 0.
        let first = own + u32::from(id > 0);
        let start = first + u32::try_from(id % u64::from(last - own)).unwrap_or(0);
        let has = |monitor: &Monitor<_>, uid| monitor.process.is_some() && monitor.record.uid == Some(uid);
        let is_free = |uid: &u32| !self.ledger.monitors.values().any(|monitor| has(monitor, *uid));
        (start..=last).chain(first..start).find(is_free).map(Some).ok_or(Fault::Full)
    }

    /// A volume is a regular file of its folder; a link to elsewhere is none.
    fn open_volume(&self, volume: &VolumeName) -> Result<OwnedFd, Refusal> {
        let path = self.config.state_dir.join("volumes").join(&**volume);
        if !path.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err(Fault::NoVolume.into());
        }
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(open(path, flags, Mode::empty()).map_err(io::Error::from)?)
    }

    /// Tells of each monitor that has any news one piece. Those that are left over come first the next time.
    pub fn tell(&mut self, link: &mut Link) {
        let mut ready = Vec::with_capacity(MONITORS_PER_TURN);
        let _ = epoll::wait(&self.news, spare_capacity(&mut ready), Some(&Timespec::default()));
        for instance in ready.iter().map(|event: &epoll::Event| InstanceId(event.data.u64())) {
            let news = self.ledger.running(instance).and_then(|process| process.news(instance));
            if let Some(Event::Exited { status, .. }) = news {
                self.ledger.ended(instance, status);
            }
            if let Some(event) = news {
                link.send(&FromShim::Event(event));
            }
        }
    }

    /// While nobody takes consoles: keeps guests from waiting for that.
    pub fn shed_consoles(&mut self) {
        let running = self.ledger.monitors.values_mut().filter_map(|monitor| monitor.process.as_mut());
        running.for_each(Process::shed_console);
    }
}
