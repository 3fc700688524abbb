//! Carries out what the check has let through, and tells what happens to monitors.

use std::fs::{self, File};
use std::os::{fd::OwnedFd, unix::ffi::OsStrExt, unix::fs::FileExt};
use std::{collections::BTreeMap, ffi::OsStr, iter::Cycle, ops::RangeInclusive};
use std::{io, path::PathBuf, sync::Arc};

use petrel_shim::check::{Checked, Refusal, check};
use petrel_shim::ledger::{Ledger, Record};
use petrel_wire::shim::{Backend, Event, Fault, FromShim, Host, InstanceId, Listed, Op, Reply, Request};
use petrel_wire::{Blob, Digest, ExitStatus, Label, List, RELEASE, shim::Spawn, shim::TapId};
use rustix::event::{Timespec, epoll};
use rustix::thread::{CpuSet, sched_getaffinity};
use rustix::{buffer::spare_capacity, system::sysinfo};

use crate::monitor::{Launch, Process, Program};
use crate::{about, config::Config, images::Receiving, interface::create_tap, link::Link};
use crate::{limits::Limits, usage::usage, volumes::Volumes};

/// The monitors that are looked at in one turn of the loop.
const MONITORS_PER_TURN: usize = 32;

/// The host, as far as the peer reaches it.
pub struct Ops {
    pub config: Arc<Config>,
    /// Told to the peer, and what its requests are held against.
    host: Host,
    pub ledger: Ledger,
    /// What stands behind the ledger's uploads, its free taps, and its running monitors.
    pub uploads: BTreeMap<Digest, Receiving>,
    pub taps: BTreeMap<TapId, OwnedFd>,
    pub processes: BTreeMap<InstanceId, Process>,
    programs: Vec<Program>,
    /// What monitors run as, each as another; as the shim itself where there are no others.
    users: Option<Cycle<RangeInclusive<u32>>>,
    limits: Limits,
    volumes: Volumes,
    /// Readable when a monitor has something to tell.
    pub watched: OwnedFd,
}

impl Ops {
    pub fn new(config: Config) -> Result<Self, String> {
        let mut users = config.uids.clone().map(Iterator::cycle);
        let any = users.as_mut().and_then(Iterator::next);
        let programs = config.monitors.iter().map(|monitor| Program::new(monitor, any));
        let programs = programs.collect::<Result<Vec<_>, _>>()?;
        let usable = sched_getaffinity(None).map_err(about("cpus"))?;
        let is_given = |cpu: &u16| config.cpus.as_ref().is_none_or(|given| given.contains(cpu));
        let cpus = (0..u16::MAX).take(CpuSet::MAX_CPU).filter(|cpu| usable.is_set(usize::from(*cpu)));
        let memory = sysinfo();
        let limits = Limits::find(&config.state_dir.join("run")).map_err(about("run"))?;
        let offered = programs.iter().map(|program| &program.told);
        let offered = offered.filter(|told| !config.require_kvm || told.backend == Backend::Kvm);
        let host = Host {
            cpus: List::fill(&mut cpus.filter(is_given)),
            memory_mib: memory.totalram.saturating_mul(u64::from(memory.mem_unit)) >> 20,
            bridges: config.bridges.clone(),
            volumes_mib: config.volumes_mib,
            monitors: List::fill(&mut offered.cloned()),
            limits: limits.told(),
        };
        let names = fs::read_dir(config.state_dir.join("images")).map_err(about("images"))?;
        let images = names.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        let volumes = Volumes(config.state_dir.join("volumes"));
        let volume_bytes = volumes.list().map_err(about("volumes"))?;
        let ledger = Ledger { images, volume_bytes, ..Ledger::default() };
        let (uploads, taps, processes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let watched = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(about("epoll"))?;
        let config = Arc::new(config);
        Ok(Self { config, host, ledger, uploads, taps, processes, programs, users, limits, volumes, watched })
    }

    /// Takes over what an earlier shim started.
    pub fn adopt(&mut self) -> Result<(), String> {
        for entry in fs::read_dir(self.config.state_dir.join("run")).map_err(about("run"))? {
            let folder = entry.map_err(about("run"))?.path();
            let adopted = Process::adopt(&folder, &self.watched).map_err(about(folder.display()))?;
            let Some((mut record, process)) = adopted else { continue };
            record.listed.exited = process.is_none().then_some(ExitStatus::Unknown);
            self.processes.extend(process.map(|process| (record.listed.instance, process)));
            self.ledger.started(record);
        }
        Ok(())
    }

    /// Does what is asked, and answers; chunks of images are not answered. The error is a violation.
    pub fn answer(&mut self, Request { id, op }: Request, link: &mut Link) -> Result<(), &'static str> {
        let is_chunk = matches!(op, Op::ImageChunk { .. });
        match check(op, &self.host, &self.ledger).and_then(|op| self.carry_out(op)) {
            Err(Refusal::Violation(violation)) => return Err(violation),
            _ if is_chunk => {}
            Err(Refusal::Fault(fault)) => link.send(&FromShim::Reply { id, result: Err(fault) }),
            Ok(reply) => link.send(&FromShim::Reply { id, result: Ok(reply) }),
        }
        Ok(())
    }

    fn carry_out(&mut self, op: Checked) -> Result<Reply, Refusal> {
        self.ledger.greeted = true; // a hello, or something after it
        match op.into_op() {
            Op::Hello { .. } => return Ok(Reply::Hello { release: RELEASE }),
            Op::Host => return Ok(Reply::Host(Box::new(self.host.clone()))),
            Op::List { after } => return Ok(self.ledger.page(after)),
            #[cfg(feature = "appliance")]
            Op::Appliance(op) => return crate::appliance::pass_on(op),
            #[cfg(not(feature = "appliance"))]
            Op::Appliance(_) => return Err(Refusal::Fault(Fault::NotFound)),
            Op::Stats(instances) => return Ok(usage(&instances, &self.ledger)),
            Op::ImageBegin { digest, .. } if self.ledger.images.contains(&digest) => {
                return Ok(Reply::Stored { bytes: fs::metadata(self.image(digest))?.len() });
            }
            Op::ImageBegin { digest, bytes } => {
                self.uploads.insert(digest, Receiving::begin(&self.config.state_dir.join("images"))?);
                self.ledger.uploads.insert(digest, bytes);
            }
            Op::ImageChunk { digest, data } => {
                self.ledger.uploads.entry(digest).and_modify(|left| *left -= data.len() as u64);
                self.uploads.entry(digest).and_modify(|file| file.append(&data));
            }
            Op::ImageCommit(digest) => {
                self.ledger.uploads.remove(&digest);
                let received = self.uploads.remove(&digest).ok_or(Fault::NotFound)?;
                received.commit(digest, &self.image(digest))?;
                self.ledger.images.insert(digest);
            }
            Op::ImageAbort(digest) => {
                self.ledger.uploads.remove(&digest);
                self.uploads.remove(&digest);
            }
            Op::ImageRead { digest, offset, bytes } => {
                let mut data = vec![0; bytes as usize];
                let count = File::open(self.image(digest))?.read_at(&mut data, offset)?;
                return Ok(Reply::Bytes(Blob::try_from(&data[..count]).unwrap_or_default()));
            }
            Op::ImageRemove(digest) => {
                fs::remove_file(self.image(digest))?;
                self.ledger.images.remove(&digest);
            }
            Op::ImageList { after } => return Ok(self.image_page(after)),
            Op::Volume(op) => return self.volumes.carry_out(op, &mut self.ledger),
            Op::TapCreate { tap, bridge } => {
                self.taps.insert(tap, create_tap(&format!("pt{}", tap.0), Some(&bridge))?);
                self.ledger.taps.insert(tap, None);
            }
            Op::TapDestroy(tap) => {
                self.taps.remove(&tap);
                self.ledger.taps.remove(&tap);
            }
            Op::Spawn(spawn) => return self.spawn(*spawn),
            Op::Kill(instance) => self.processes.get(&instance).map_or(Ok(()), Process::kill)?,
            Op::Forget(instance) => {
                fs::remove_dir_all(self.folder(instance))?;
                self.ledger.monitors.remove(&instance);
            }
        }
        Ok(Reply::Done)
    }

    fn spawn(&mut self, spawn: Spawn) -> Result<Reply, Refusal> {
        let mut launch = self.launch(&spawn.monitor, spawn.memory_mib, &spawn.cpus).ok_or(Fault::NotFound)?;
        for net in &spawn.nets {
            launch.net(&net.device, self.taps.get(&net.tap).ok_or(Fault::NotFound)?, net.mac)?;
        }
        for block in &spawn.blocks {
            launch.block(&block.device, self.volumes.open(&block.volume, false)?)?;
        }
        launch.guest(&self.image(spawn.image), spawn.args.iter().map(|arg| OsStr::from_bytes(arg)));
        let taps = List::fill(&mut spawn.nets.iter().map(|net| net.tap));
        let volumes = List::fill(&mut spawn.blocks.into_vec().into_iter().map(|block| block.volume));
        let listed = Listed { instance: spawn.instance, taps, tag: spawn.tag, ..Listed::default() };
        let record = Record { listed, volumes, ..Record::default() };
        Ok(Reply::Spawned { pid: self.start(launch, record)? })
    }

    /// Begins the command line of an installed monitor. Without `cpus` it runs on all that the host has for guests.
    pub fn launch(&mut self, name: &Label, memory_mib: u32, cpus: &[u16]) -> Option<Launch> {
        // A user that no other monitor has. There are more than monitors, so the search comes to an end.
        let monitors = &self.ledger.monitors;
        let is_free = |uid: &u32| !monitors.values().any(|record| record.uid == Some(*uid));
        let uid = self.users.as_mut().and_then(|users| users.find(is_free));
        let program = self.programs.iter().find(|program| program.told.name == *name)?;
        Some(program.launch(memory_mib, if cpus.is_empty() { &self.host.cpus } else { cpus }, uid))
    }

    /// The page of images with digests greater than `after`.
    fn image_page(&self, after: Option<Digest>) -> Reply {
        let following = self.ledger.images.iter().filter(|digest| Some(**digest) > after);
        let bytes = |digest: &Digest| fs::metadata(self.image(*digest)).map_or(0, |file| file.len());
        let (page, more) = List::page(following, |digest| (*digest, bytes(digest)));
        Reply::Images { page, more }
    }

    /// Starts a monitor, and tells its pid. On error nothing is left of it.
    pub fn start(&mut self, launch: Launch, mut record: Record) -> io::Result<u32> {
        let folder = self.folder(record.listed.instance);
        fs::create_dir(&folder)?;
        let started = launch.start(&folder, &mut record, &self.watched, &self.limits);
        let process = started.inspect_err(|_| {
            self.limits.remove(record.listed.instance);
            drop(fs::remove_dir_all(folder));
        })?;
        record.listed.taps.iter().for_each(|tap| drop(self.taps.remove(tap))); // the monitor's alone now
        self.processes.insert(record.listed.instance, process);
        let pid = record.listed.pid;
        self.ledger.started(record);
        Ok(pid)
    }

    fn image(&self, digest: Digest) -> PathBuf {
        self.config.state_dir.join(format!("images/{digest}"))
    }

    /// Where what is kept of a monitor is.
    pub fn folder(&self, InstanceId(id): InstanceId) -> PathBuf {
        self.config.state_dir.join(format!("run/{id}"))
    }

    /// What there is to be told of a monitor next.
    pub fn news(&mut self, instance: InstanceId) -> Option<Event> {
        let news = self.processes.get_mut(&instance)?.news(instance);
        if let Some(Event::Exited { status, .. }) = news {
            self.processes.remove(&instance);
            self.limits.remove(instance);
            self.ledger.ended(instance, status);
        }
        news
    }

    /// Tells of each monitor that has any news one piece. Those that are left over come first the next time.
    pub fn tell(&mut self, link: &mut Link) {
        let mut ready = Vec::with_capacity(MONITORS_PER_TURN);
        let _ = epoll::wait(&self.watched, spare_capacity(&mut ready), Some(&Timespec::default()));
        let instances = ready.iter().map(|event: &epoll::Event| InstanceId(event.data.u64()));
        for instance in instances.filter(|instance| *instance != InstanceId::CONTROL_PLANE) {
            self.news(instance).into_iter().for_each(|event| link.send(&FromShim::Event(event)));
        }
    }
}
