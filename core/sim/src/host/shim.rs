//! The shim: the real one's checks and ledger, with memory in the place of files, taps and processes. What each
//! operation does, in which order, and what a fault or a sudden end leaves behind, is as in the real one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use petrel_shim::{
    check::{Refusal, check},
    ledger::{Ledger, Record},
};
use petrel_wire::{
    Blob, Digest, ExitStatus, List, frame,
    limits::CONSOLE_BYTES_MAX,
    shim::{Event, Fault, FromShim, InstanceId, Listed, Op, Reply, Request, Spawn, Usage},
};
use sha2::Digest as _;

use super::{Host, Process, name_of};
use crate::images;

/// `EIO`.
const EIO: Fault = Fault::Os { errno: 5 };

/// The shim's memory.
pub struct Shim {
    /// What it holds for its peer.
    pub ledger: Ledger,
    /// The monitors that run, or whose end has not been told.
    watched: BTreeMap<InstanceId, Watched>,
    /// What stands behind the ledger's uploads.
    receiving: BTreeMap<Digest, Receiving>,
    /// Monitors that have ended, whose last console bytes go before that is told.
    ending: VecDeque<InstanceId>,
}

/// A monitor that the shim watches.
pub struct Watched {
    /// Started by this shim, which so learns how it ends.
    child: bool,
    ended: Option<ExitStatus>,
    /// Console bytes that were dropped and not told yet.
    lost: u64,
}

/// An image being written.
#[derive(Default)]
pub struct Receiving {
    bytes: Vec<u8>,
    failed: bool,
}

/// Why the shim ends the link.
#[derive(Debug)]
pub struct Broken(pub &'static str);

/// What the shim sends in one turn of its loop.
pub type Turn = Vec<FromShim>;

impl Host {
    /// The shim comes up: it takes over what runs.
    pub fn start_shim(&mut self) {
        let images = self.images.keys().copied().collect();
        let volume_bytes = self.volume_sizes();
        let ledger = Ledger { images, volume_bytes, ..Ledger::default() };
        let (watched, receiving, ending) = (BTreeMap::new(), BTreeMap::new(), VecDeque::new());
        let mut shim = Shim { ledger, watched, receiving, ending };
        // One without a record was never acknowledged: it is ended, and waited for.
        self.processes.retain(|instance, _| self.records.contains_key(instance));
        for (&instance, record) in &self.records {
            if self.processes.get(&instance).is_some_and(Process::is_running) {
                shim.watched.insert(instance, Watched { child: false, ended: None, lost: 0 });
                shim.ledger.started(record.clone());
            } else {
                self.processes.remove(&instance);
                let mut record = record.clone();
                record.listed.exited = Some(ExitStatus::Unknown);
                shim.ledger.started(record);
            }
        }
        self.shim = Some(shim);
    }

    /// The shim is killed.
    pub fn kill_shim(&mut self, back_ns: u64) {
        self.shim = None;
        self.shim_back_ns = back_ns;
    }

    /// The shim is killed while it carries out a request: how far it got is `progress`, of four.
    pub fn kill_shim_at(&mut self, payload: &[u8], progress: u64, back_ns: u64) {
        if let Ok(Request { op, .. }) = frame::decode(payload) {
            match (op, progress) {
                // The process is there, its record is not.
                (Op::Spawn(spawn), 1) if self.is_possible(&Op::Spawn(spawn.clone())) => {
                    self.processes
                        .insert(spawn.instance, Process::new(name_of(&spawn.tag), spawn.memory_mib));
                }
                (_, 0 | 1) => {}
                (op, _) => drop(self.carry_out_if_possible(op)),
            }
        }
        self.kill_shim(back_ns);
    }

    fn is_possible(&self, op: &Op) -> bool {
        self.shim.as_ref().is_some_and(|shim| check(op.clone(), &self.facts, &shim.ledger).is_ok())
    }

    fn carry_out_if_possible(&mut self, op: Op) -> Option<Result<Reply, Refusal>> {
        let checked = check(op, &self.facts, &self.shim.as_ref()?.ledger).ok()?;
        self.carry_out(checked.into_op())
    }

    /// The shim takes in one request. Returns its answer, if there is one.
    pub fn handle(&mut self, request: Request) -> Result<Option<FromShim>, Broken> {
        let Some(shim) = &self.shim else { return Ok(None) };
        let Request { id, op } = request;
        let done = match check(op, &self.facts, &shim.ledger) {
            Ok(checked) => self.carry_out(checked.into_op()),
            Err(refusal) => Some(Err(refusal)),
        };
        let result = match done {
            None => return Ok(None),
            Some(Ok(reply)) => Ok(reply),
            Some(Err(Refusal::Fault(fault))) => Err(fault),
            Some(Err(Refusal::Violation(violation))) => return Err(Broken(violation)),
        };
        Ok(Some(FromShim::Reply { id, result }))
    }

    fn carry_out(&mut self, op: Op) -> Option<Result<Reply, Refusal>> {
        let failing = self.fails(&op);
        let shim = self.shim.as_mut()?;
        let ledger = &mut shim.ledger;
        match op {
            Op::Hello { .. } => {
                ledger.greeted = true;
                return Some(Ok(Reply::Hello { release: [0, 1, 0] }));
            }
            Op::Host => return Some(Ok(Reply::Host(Box::new(self.facts.clone())))),
            Op::List { after } => return Some(Ok(ledger.page(after))),
            Op::Appliance(_) => return Some(Err(Fault::NotFound.into())), // it is none
            Op::Stats(instances) => {
                let known = instances.iter().filter_map(|instance| ledger.monitor(*instance));
                let running = known.filter(|record| record.listed.exited.is_none());
                // Of what there is nothing here to be told, the kernel tells nothing.
                let usages = &mut running.map(|record| Usage {
                    instance: record.listed.instance,
                    stat: Blob::default(),
                    io: Blob::default(),
                    nets: List::new(),
                });
                return Some(Ok(Reply::Stats { uptime: Blob::default(), page: List::fill(usages) }));
            }
            Op::ImageBegin { digest, .. } if ledger.images.contains(&digest) => {
                let bytes = self.images.get(&digest).map_or(0, |image| image.len() as u64);
                return Some(Ok(Reply::Stored { bytes }));
            }
            Op::ImageList { after } => return Some(Ok(self.image_page(after))),
            Op::Volume(_) if failing => return Some(Err(EIO.into())),
            Op::Volume(op) => return self.volume(op).map(Ok),
            Op::ImageBegin { .. }
            | Op::ImageRead { .. }
            | Op::ImageRemove(_)
            | Op::TapCreate { .. }
            | Op::Forget(_)
                if failing =>
            {
                return Some(Err(EIO.into()));
            }
            Op::ImageBegin { digest, bytes } => {
                ledger.uploads.insert(digest, bytes);
                shim.receiving.insert(digest, Receiving::default());
            }
            Op::ImageChunk { digest, data } => {
                *ledger.uploads.get_mut(&digest)? -= data.len() as u64;
                let receiving = shim.receiving.get_mut(&digest)?;
                receiving.bytes.extend_from_slice(&data);
                receiving.failed |= failing;
                return None;
            }
            Op::ImageCommit(digest) => return Some(self.commit(digest, failing)),
            Op::ImageAbort(digest) => {
                ledger.uploads.remove(&digest);
                shim.receiving.remove(&digest);
            }
            Op::ImageRead { digest, offset, bytes } => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let rest = self.images.get(&digest).and_then(|image| image.get(from..)).unwrap_or(&[]);
                let data = &rest[..rest.len().min(bytes as usize)];
                return Some(Ok(Reply::Bytes(Blob::try_from(data).unwrap_or_default())));
            }
            Op::ImageRemove(digest) => {
                ledger.images.remove(&digest);
                self.images.remove(&digest);
            }
            Op::TapCreate { tap, .. } => drop(ledger.taps.insert(tap, None)),
            Op::TapDestroy(tap) => drop(ledger.taps.remove(&tap)),
            Op::Spawn(spawn) => return Some(self.spawn(*spawn, failing).map_err(Into::into)),
            Op::Kill(instance) => {
                if shim.watched.contains_key(&instance)
                    && let Some(process) = self.processes.get_mut(&instance)
                {
                    process.killed = true;
                }
            }
            Op::Forget(instance) => {
                ledger.monitors.remove(&instance);
                self.records.remove(&instance);
                self.ends.remove(&instance);
            }
        }
        Some(Ok(Reply::Done))
    }

    /// Whether the operating system refuses this. Only what asks something of it can fail; a SIGKILL through a pidfd
    /// of one's own is not refused.
    fn fails(&mut self, op: &Op) -> bool {
        let can = matches!(
            op,
            Op::ImageBegin { .. }
                | Op::ImageChunk { .. }
                | Op::ImageCommit(_)
                | Op::ImageRead { .. }
                | Op::ImageRemove(_)
                | Op::Volume(_)
                | Op::TapCreate { .. }
                | Op::Spawn(_)
                | Op::Forget(_)
        );
        let fails = can && self.failures > 0;
        self.failures -= u64::from(fails);
        fails
    }

    fn commit(&mut self, digest: Digest, failing: bool) -> Result<Reply, Refusal> {
        let Some(shim) = &mut self.shim else { return Err(EIO.into()) };
        shim.ledger.uploads.remove(&digest);
        let received = shim.receiving.remove(&digest).ok_or(Fault::NotFound)?;
        if Digest(sha2::Sha256::digest(&received.bytes).into()) != digest {
            return Err(Refusal::Violation("other bytes of an image than its digest names"));
        }
        if failing || received.failed {
            return Err(EIO.into());
        }
        self.images.insert(digest, received.bytes.into());
        shim.ledger.images.insert(digest);
        Ok(Reply::Done)
    }

    fn spawn(&mut self, spawn: Spawn, failing: bool) -> Result<Reply, Fault> {
        let pid = self.new_pid();
        if failing {
            return Err(EIO);
        }
        let taps: Vec<_> = spawn.nets.iter().map(|net| net.tap).collect();
        let volumes: Vec<_> = spawn.blocks.iter().map(|block| block.volume.clone()).collect();
        self.processes.insert(spawn.instance, Process::new(name_of(&spawn.tag), spawn.memory_mib));
        let listed = Listed {
            instance: spawn.instance,
            pid,
            exited: None,
            taps: taps.try_into().unwrap_or_default(),
            tag: spawn.tag,
        };
        let volumes = volumes.try_into().unwrap_or_default();
        let record = Record { listed, volumes, ..Record::default() };
        self.records.insert(spawn.instance, record.clone());
        if images::all().iter().any(|image| image.digest == spawn.image && image.crashes) {
            self.end(spawn.instance, ExitStatus::Code(7));
        }
        let Some(shim) = &mut self.shim else { return Err(EIO) };
        shim.ledger.started(record);
        shim.watched.insert(spawn.instance, Watched { child: true, ended: None, lost: 0 });
        Ok(Reply::Spawned { pid })
    }

    /// The link is gone.
    pub fn link_ended(&mut self) {
        if let Some(shim) = &mut self.shim {
            shim.ledger.link_ended();
            shim.receiving.clear();
        }
    }

    /// Learns which monitors have ended.
    pub fn reap(&mut self) {
        let Some(Shim { watched, ending, .. }) = &mut self.shim else { return };
        for (&instance, process) in &self.processes {
            let (Some(status), Some(watched)) = (process.ended, watched.get_mut(&instance)) else { continue };
            if watched.ended.is_none() {
                watched.ended = Some(if watched.child { status } else { ExitStatus::Unknown });
                ending.push_back(instance);
            }
        }
    }

    /// Sends one piece of each console that has any, then tells the ends of those that have none left.
    pub fn tell(&mut self) -> Turn {
        let mut turn = Vec::new();
        let written = self.processes.iter().filter(|(_, process)| process.has_written());
        for instance in written.map(|(&instance, _)| instance).collect::<BTreeSet<_>>() {
            self.tell_console(instance, &mut turn);
        }
        let ending = self.shim.as_mut().map(|shim| std::mem::take(&mut shim.ending)).unwrap_or_default();
        for instance in ending {
            let more = self.tell_console(instance, &mut turn);
            let Some(shim) = &mut self.shim else { break };
            if more {
                shim.ending.push_back(instance);
            } else if let Some(status) = shim.watched.get(&instance).and_then(|watched| watched.ended) {
                shim.watched.remove(&instance);
                shim.ledger.ended(instance, status);
                self.processes.remove(&instance);
                turn.push(FromShim::Event(Event::Exited { instance, status }));
            }
        }
        turn
    }

    /// Sends one piece of a console; whether there was one.
    fn tell_console(&mut self, instance: InstanceId, turn: &mut Turn) -> bool {
        let Some(watched) = self.shim.as_mut().and_then(|shim| shim.watched.get_mut(&instance)) else {
            return false;
        };
        let Some(process) = self.processes.get_mut(&instance) else { return false };
        if watched.lost > 0 {
            let bytes = std::mem::take(&mut watched.lost);
            turn.push(FromShim::Event(Event::ConsoleLost { instance, bytes, lines: 0 }));
        }
        let data = process.read(CONSOLE_BYTES_MAX);
        let some = !data.is_empty();
        if some {
            let data = Blob::try_from(data).unwrap_or_default();
            turn.push(FromShim::Event(Event::Console { instance, data }));
        }
        some
    }

    /// While nobody takes consoles: keeps guests from waiting for that.
    pub fn shed_consoles(&mut self) {
        let Some(shim) = &mut self.shim else { return };
        for (&instance, process) in &mut self.processes {
            if let Some(watched) = shim.watched.get_mut(&instance) {
                watched.lost += process.shed();
            }
        }
    }
}
