//! Carries out what the check has let through, and tells what happens to monitors.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use petrel_shim::check::{Checked, Refusal};
use petrel_shim::ledger::{Ledger, Monitor, Record, State, Tap, Upload};
use petrel_wire::limits::CONSOLE_BYTES_MAX;
use petrel_wire::shim::{Event, Fault, FromShim, Host, InstanceId, Op, Reply, Spawn};
use petrel_wire::{Blob, ExitStatus, VolumeName};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;

use crate::config::Uids;
use crate::images::{Images, Receiving};
use crate::interface::create_tap;
use crate::link::Link;
use crate::process::{Process, Runner};
use crate::program::{Guest, Program};
use crate::usage::usage;
use crate::{fault, give};

/// The monitors whose consoles, or ends, are looked at in one turn of the loop.
const WATCHED_PER_TURN: usize = 32;

/// The host, as far as the peer reaches it.
pub struct Ops {
    /// Told to the peer, and what its requests are held against.
    pub host: Host,
    pub ledger: Ledger<Process, OwnedFd, Receiving>,
    pub programs: Vec<Program>,
    pub runner: Runner,
    pub uids: Option<Uids>,
    pub images: Images,
    pub volumes: PathBuf,
    /// Readable when a monitor has ended.
    pub exits: OwnedFd,
    /// Readable when a guest has written to its console.
    pub consoles: OwnedFd,
    /// Monitors that have ended, whose last console bytes go before that is told.
    pub ending: VecDeque<InstanceId>,
}

impl Ops {
    /// Does one operation. `None` where there is nothing to answer.
    pub fn carry_out(&mut self, op: Checked) -> Result<Option<Reply>, Refusal> {
        self.reply(op.into_op()).transpose()
    }

    fn reply(&mut self, op: Op) -> Option<Result<Reply, Refusal>> {
        let done = match op {
            Op::Hello { .. } => {
                self.ledger.greeted = true;
                return Some(Ok(Reply::Hello { release: release() }));
            }
            Op::Host => return Some(Ok(Reply::Host(Box::new(self.host.clone())))),
            Op::List { after } => return Some(Ok(self.ledger.page(after))),
            Op::Stats(instances) => {
                let stats = usage(&instances, &self.ledger).try_into();
                return Some(Ok(Reply::Stats(stats.unwrap_or_default()))); // no more than were asked for
            }
            Op::ImageBegin { digest, .. } if self.ledger.images.contains(&digest) => {
                return Some(Ok(Reply::Stored));
            }
            Op::ImageBegin { digest, bytes } => self.images.begin().map(|file| {
                self.ledger.uploads.insert(digest, Upload { bytes, received: 0, file });
            }),
            Op::ImageChunk { digest, data } => {
                let upload = self.ledger.uploads.get_mut(&digest)?;
                upload.received += data.len() as u64;
                upload.file.append(&data);
                return None;
            }
            Op::ImageCommit(digest) => {
                let upload = self.ledger.uploads.remove(&digest)?;
                let stored = self.images.commit(digest, upload.file);
                return Some(stored.map(|()| {
                    self.ledger.images.insert(digest);
                    Reply::Done
                }));
            }
            Op::ImageAbort(digest) => {
                self.ledger.uploads.remove(&digest);
                Ok(())
            }
            Op::ImageRead { digest, offset, bytes } => {
                let read = self.images.read(&digest, offset, bytes as usize);
                let data = read.map(|data| Reply::Bytes(Blob::try_from(data).unwrap_or_default()));
                return Some(data.map_err(|error| fault(&error).into()));
            }
            Op::ImageRemove(digest) => {
                fs::remove_file(self.images.path(&digest)).map(|()| drop(self.ledger.images.remove(&digest)))
            }
            Op::TapCreate { tap, bridge } => {
                let created = create_tap(&format!("pt{}", tap.0), Some(&bridge));
                created
                    .map(|descriptor| drop(self.ledger.taps.insert(tap, Tap::Free(descriptor))))
                    .map_err(Into::into)
            }
            Op::TapDestroy(tap) => {
                self.ledger.taps.remove(&tap);
                Ok(())
            }
            Op::Spawn(spawn) => return Some(self.spawn(*spawn).map_err(Into::into)),
            Op::Kill(instance) => self.ledger.running(instance).map_or(Ok(()), |process| process.kill()),
            // As long as something of it is on disk, a later shim takes it over: so long this one has it too.
            Op::Forget(instance) => {
                self.runner.forget(instance.0).map(|()| drop(self.ledger.monitors.remove(&instance)))
            }
        };
        Some(done.map(|()| Reply::Done).map_err(|error| fault(&error).into()))
    }

    fn spawn(&mut self, spawn: Spawn) -> Result<Reply, Fault> {
        let program =
            self.programs.iter().find(|program| program.told.name == spawn.monitor).ok_or(Fault::NotFound)?;
        let uid = self.free_uid(spawn.instance)?;
        let mut nets = Vec::new();
        for net in &spawn.nets {
            let Some(Tap::Free(tap)) = self.ledger.taps.get(&net.tap) else { return Err(Fault::NotFound) };
            nets.push((&*net.device, tap.as_fd(), net.mac));
        }
        let mut blocks = Vec::new();
        for block in &spawn.blocks {
            let (path, file) = self.open_volume(&block.volume)?;
            if !program.takes_files() {
                give(&file, uid).map_err(|error| fault(&error))?;
            }
            blocks.push((&*block.device, file, path));
        }
        let guest = Guest {
            memory_mib: spawn.memory_mib,
            cpus: if spawn.cpus.is_empty() { &self.host.cpus } else { &spawn.cpus },
            nets,
            blocks,
            image: self.images.path(&spawn.image),
            args: spawn.args.iter().map(|arg| OsString::from_vec(arg.to_vec())).collect(),
        };
        let taps: Vec<_> = spawn.nets.iter().map(|net| net.tap).collect();
        let volumes: Vec<_> = spawn.blocks.iter().map(|block| block.volume.clone()).collect();
        let record = Record {
            uid,
            taps: taps.try_into().unwrap_or_default(), // as many as there are devices
            volumes: volumes.try_into().unwrap_or_default(),
            tag: spawn.tag,
            ..Record::default()
        };
        let started = self.runner.start(spawn.instance.0, program, &guest, record);
        let (process, record) = started.map_err(|error| fault(&error))?;
        let pid = record.pid;
        self.enter(spawn.instance, record, Some(process)).map_err(|error| fault(&error))?;
        Ok(Reply::Spawned { pid })
    }

    /// Enters a monitor into the ledger: one that was started, or one that an earlier shim has left.
    pub fn enter(
        &mut self,
        instance: InstanceId,
        record: Record,
        process: Option<Process>,
    ) -> io::Result<()> {
        let Some(process) = process else {
            self.ledger
                .monitors
                .insert(instance, Monitor { record, state: State::Ended(ExitStatus::Unknown) });
            return Ok(());
        };
        let data = epoll::EventData::new_u64(instance.0);
        let watched = epoll::add(&self.exits, &process.pidfd, data, epoll::EventFlags::IN)
            .and_then(|()| epoll::add(&self.consoles, &process.console, data, epoll::EventFlags::IN));
        if let Err(errno) = watched {
            process.kill()?;
            self.runner.forget(instance.0)?;
            return Err(errno.into());
        }
        self.ledger.started(instance, record, process);
        Ok(())
    }

    /// A user that no other running monitor has.
    fn free_uid(&self, InstanceId(id): InstanceId) -> Result<Option<u32>, Fault> {
        let Some(Uids { first, count }) = self.uids else { return Ok(None) };
        let running =
            self.ledger.monitors.values().filter(|monitor| matches!(monitor.state, State::Running(_)));
        let taken: Vec<_> = running.filter_map(|monitor| monitor.record.uid).collect();
        let others = count - 1; // the first is the control plane's
        let start = u32::try_from(id % u64::from(others)).unwrap_or(0);
        let mut users = (start..others).chain(0..start).map(|index| first + 1 + index);
        users.find(|uid| !taken.contains(uid)).map(Some).ok_or(Fault::Full)
    }

    /// A volume is a regular file of its folder; a link to elsewhere is none.
    fn open_volume(&self, volume: &VolumeName) -> Result<(PathBuf, OwnedFd), Fault> {
        let path = self.volumes.join(&**volume);
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = open(&path, flags, Mode::empty()).and_then(|file| Ok((fstat(&file)?, file)));
        match opened {
            Ok((status, file)) if FileType::from_raw_mode(status.st_mode) == FileType::RegularFile => {
                Ok((path, file))
            }
            Ok(_) | Err(Errno::NOENT | Errno::LOOP | Errno::ISDIR | Errno::NXIO) => Err(Fault::NoVolume),
            Err(errno) => Err(fault(&errno.into())),
        }
    }

    /// Reaps the monitors that have ended.
    pub fn reap(&mut self) {
        for instance in ready(&self.exits) {
            let Some(process) = self.ledger.running(instance) else { continue };
            if process.reap().is_some() {
                self.runner.limits.remove(instance.0);
                let _ = epoll::delete(&self.exits, &process.pidfd);
                self.ending.push_back(instance);
            }
        }
    }

    /// Sends one piece of each console that has any, then tells the ends of those that have none left.
    pub fn tell(&mut self, link: &mut Link) {
        for instance in ready(&self.consoles) {
            self.tell_console(instance, link);
        }
        for _ in 0..self.ending.len() {
            let Some(instance) = self.ending.pop_front() else { break };
            if !link.has_room() || self.tell_console(instance, link) {
                self.ending.push_back(instance);
            } else if let Some(status) = self.ledger.running(instance).and_then(|process| process.ended) {
                self.ledger.ended(instance, status);
                link.send(&FromShim::Event(Event::Exited { instance, status }));
            }
        }
    }

    /// Sends one piece of a console; whether there was one.
    fn tell_console(&mut self, instance: InstanceId, link: &mut Link) -> bool {
        let Some(process) = self.ledger.running(instance) else { return false };
        if process.lost.0 > 0 {
            let (bytes, lines) = std::mem::take(&mut process.lost);
            link.send(&FromShim::Event(Event::ConsoleLost { instance, bytes, lines }));
        }
        let mut data = [0; CONSOLE_BYTES_MAX];
        let count = process.read_console(&mut data);
        if count > 0 {
            let data = Blob::try_from(&data[..count]).unwrap_or_default();
            link.send(&FromShim::Event(Event::Console { instance, data }));
        }
        count > 0
    }

    /// While nobody takes consoles: keeps guests from waiting for that.
    pub fn shed_consoles(&mut self) {
        for monitor in self.ledger.monitors.values_mut() {
            if let State::Running(process) = &mut monitor.state {
                process.shed_console();
            }
        }
    }
}

fn release() -> [u16; 3] {
    [env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"), env!("CARGO_PKG_VERSION_PATCH")]
        .map(|number| number.parse().unwrap_or(0))
}

/// The monitors that an epoll set has something of. Those that are left over come first the next time.
fn ready(set: &OwnedFd) -> Vec<InstanceId> {
    let mut events = Vec::with_capacity(WATCHED_PER_TURN);
    let _ = epoll::wait(set, spare_capacity(&mut events), Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    events.into_iter().map(|event: epoll::Event| InstanceId(event.data.u64())).collect()
}
