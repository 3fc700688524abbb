//! The other side of the link: a host that keeps the shim's own ledger and makes the shim's own checks, with
//! memory in the place of files, taps and processes. A request that no honest control plane sends fails the test.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use petrel_shim::{
    check::{Refusal, check},
    ledger::{Ledger, Record},
};
use petrel_wire::{
    ApplianceOp, Blob, Digest, ExitStatus, List, VolumeName,
    limits::{APPLIANCE_TEXT_BYTES_MAX, CHUNK_BYTES_MAX, CONSOLE_BYTES_MAX, SHIM_VERSION, TAG_BYTES_MAX},
    shim::{
        Backend, Event, Fault, FromShim, Host as Facts, InstanceId, Listed, Monitor, Op, Reply, Request,
        Spawn, TapId, Usage, VolumeFile, VolumeOp,
    },
};

/// Tells the requests that a fault is for.
pub type Applies = fn(&Op) -> bool;

pub struct Host {
    pub facts: Facts,
    pub ledger: Ledger,
    /// What has come of the images on their way.
    received: BTreeMap<Digest, Vec<u8>>,
    pub images: BTreeMap<Digest, Vec<u8>>,
    pub volumes: BTreeMap<VolumeName, Vec<u8>>,
    /// Its file system can share blocks.
    pub shares_blocks: bool,
    /// What it sends, the oldest first.
    pub sent: VecDeque<FromShim>,
    /// The next requests of which this is true meet this fault.
    pub faults: Vec<(Applies, Fault)>,
    /// Monitors that were told to end, and will when [`Self::reap`] is called.
    killed: BTreeSet<InstanceId>,
    /// Every spawn that went well.
    pub spawned: Vec<Spawn>,
    /// Guests that end as soon as they are started.
    pub brief_guests: bool,
    /// The kernel does not let go of what was killed.
    pub immortal: bool,
    /// What the machine was told, if that is an appliance.
    pub orders: Option<Vec<ApplianceOp>>,
}

impl Host {
    pub fn new() -> Self {
        let monitor = |name: &str, target, version| Monitor {
            name: name.parse().unwrap(),
            target,
            version,
            backend: Backend::Ring3,
        };
        let monitors = vec![monitor("old", 1, 1), monitor("petrel-tender", 1, 2), monitor("other", 1, 2)];
        let bridges = vec!["service".parse().unwrap(), "lan".parse().unwrap()];
        let mut host = Self {
            facts: Facts {
                cpus: vec![0, 1].try_into().unwrap(),
                memory_mib: 2048,
                bridges: bridges.try_into().unwrap(),
                volumes_mib: None,
                monitors: monitors.try_into().unwrap(),
                limits: Default::default(),
            },
            ledger: Ledger::default(),
            received: BTreeMap::new(),
            images: BTreeMap::new(),
            volumes: BTreeMap::new(),
            shares_blocks: false,
            sent: VecDeque::new(),
            faults: Vec::new(),
            killed: BTreeSet::new(),
            spawned: Vec::new(),
            brief_guests: false,
            immortal: false,
            orders: None,
        };
        host.put_volume("data", vec![0; 4096]);
        host.put_volume("more", vec![0; 4096]);
        host
    }

    /// A file of the volume folder, put there by hand.
    pub fn put_volume(&mut self, volume: &str, content: Vec<u8>) {
        let volume: VolumeName = volume.parse().unwrap();
        self.ledger.volume_bytes.insert(volume.clone(), content.len() as u64);
        self.volumes.insert(volume, content);
    }

    /// A file of the volume folder, taken away by hand.
    pub fn lose_volume(&mut self, volume: &str) {
        let volume: VolumeName = volume.parse().unwrap();
        self.volumes.remove(&volume).expect("it is there");
        self.ledger.volume_bytes.remove(&volume);
    }

    /// What is in a file of the volume folder.
    pub fn volume(&mut self, volume: &str) -> &mut Vec<u8> {
        self.volumes.get_mut(volume).expect("it is there")
    }

    pub fn volume_files(&self) -> Vec<&str> {
        self.volumes.keys().map(|volume| &**volume).collect()
    }

    pub fn handle(&mut self, request: Request) {
        let Request { id, op } = request;
        let chunk = matches!(op, Op::ImageChunk { .. });
        let planned = self.faults.iter().position(|(applies, _)| applies(&op));
        let result = match planned.map(|index| self.faults.remove(index)) {
            Some((_, fault)) => {
                if let Op::ImageCommit(digest) = op {
                    self.ledger.uploads.remove(&digest);
                }
                Err(fault)
            }
            None => match check(op, &self.facts, &self.ledger) {
                Ok(checked) => self.carry_out(checked.into_op()),
                Err(Refusal::Fault(fault)) => Err(fault),
                Err(Refusal::Violation(violation)) => panic!("not an honest request: {violation:?}"),
            },
        };
        let instance = match (&result, self.spawned.last()) {
            (Ok(Reply::Spawned { .. }), Some(spawn)) if self.brief_guests => Some(spawn.instance),
            _ => None,
        };
        if !chunk {
            self.sent.push_back(FromShim::Reply { id, result });
        }
        if let Some(instance) = instance {
            self.write(instance, b"bye\n");
            self.end(instance, ExitStatus::Code(0));
        }
    }

    fn carry_out(&mut self, op: Op) -> Result<Reply, Fault> {
        match op {
            Op::Hello { version } => {
                assert_eq!(version, SHIM_VERSION);
                self.ledger.greeted = true;
                return Ok(Reply::Hello { release: [0, 1, 0] });
            }
            Op::Host => return Ok(Reply::Host(self.facts.clone().into())),
            Op::ImageBegin { digest, .. } if self.ledger.images.contains(&digest) => {
                let bytes = self.images.get(&digest).map_or(0, Vec::len) as u64;
                return Ok(Reply::Stored { bytes });
            }
            Op::ImageBegin { digest, bytes } => {
                self.ledger.uploads.insert(digest, bytes);
                self.received.insert(digest, Vec::new());
            }
            Op::ImageChunk { digest, data } => {
                if let Some(left) = self.ledger.uploads.get_mut(&digest) {
                    *left -= data.len() as u64;
                    self.received.entry(digest).or_default().extend_from_slice(&data);
                }
            }
            Op::ImageCommit(digest) => {
                self.ledger.uploads.remove(&digest);
                let image = self.received.remove(&digest).unwrap();
                assert_eq!(crate::image::digest(&image), digest, "the control plane has checked it");
                self.store(image);
            }
            Op::ImageAbort(digest) => drop(self.ledger.uploads.remove(&digest)),
            Op::ImageRead { digest, offset, bytes } => {
                let rest = self.images[&digest].get(offset as usize..).unwrap_or(&[]);
                let data = &rest[..rest.len().min(bytes as usize)];
                return Ok(Reply::Bytes(Blob::try_from(data).unwrap()));
            }
            Op::ImageRemove(digest) => {
                self.images.remove(&digest);
                self.ledger.images.remove(&digest);
            }
            Op::ImageList { after } => return Ok(self.image_page(after)),
            Op::Volume(op) => return self.volume_op(op),
            Op::TapCreate { tap, .. } => drop(self.ledger.taps.insert(tap, None)),
            Op::TapDestroy(tap) => drop(self.ledger.taps.remove(&tap)),
            Op::Spawn(spawn) => return self.spawn(*spawn),
            Op::Kill(instance) => {
                // The end comes after the answer.
                if self.is_running(instance) {
                    self.killed.insert(instance);
                }
            }
            Op::Forget(instance) => drop(self.ledger.monitors.remove(&instance)),
            Op::List { after } => return Ok(self.ledger.page(after)),
            Op::Appliance(op) => match &mut self.orders {
                None => return Err(Fault::NotFound),
                Some(_) if op == ApplianceOp::Status => {
                    return Ok(Reply::Bytes(Blob::try_from(&b"state kept\n"[..]).unwrap()));
                }
                Some(_) if op == ApplianceOp::Log => {
                    let whole = vec![b'x'; APPLIANCE_TEXT_BYTES_MAX];
                    return Ok(Reply::Bytes(whole.try_into().unwrap()));
                }
                Some(orders) => orders.push(op),
            },
            Op::Stats(instances) => {
                let running = instances.iter().filter(|of| self.is_running(**of)).map(|of| self.usage(*of));
                let page = running.collect::<Vec<_>>().try_into().unwrap();
                return Ok(Reply::Stats { uptime: Blob::try_from(&b"100.00 1.00\n"[..]).unwrap(), page });
            }
        }
        Ok(Reply::Done)
    }

    /// What a monitor uses: numbers that tell whose they are.
    pub fn usage(&self, instance: InstanceId) -> Usage {
        let text = |text: String| text.into_bytes();
        let started = 10_000 - instance.0 % 100;
        let stat = format!("7 (a b) S{} 4 6 0 0 0 0 0 0 {started} 0 5 0", " 0".repeat(10));
        let taps = &self.ledger.monitors[&instance].listed.taps;
        let line =
            |tap: &TapId| text(format!("pt{}: 1 2 0 3 0 0 0 0 {} 5 0 6", tap.0, tap.0)).try_into().unwrap();
        Usage {
            instance,
            stat: text(stat).try_into().unwrap(),
            io: text("read_bytes: 1\nwrite_bytes: 2\n".into()).try_into().unwrap(),
            nets: taps.iter().map(line).collect::<Vec<_>>().try_into().unwrap(),
        }
    }

    fn image_page(&self, after: Option<Digest>) -> Reply {
        let rest = self.images.iter().filter(|(digest, _)| Some(**digest) > after);
        let (page, more) = List::page(rest, |(digest, image)| (*digest, image.len() as u64));
        Reply::Images { page, more }
    }

    fn volume_op(&mut self, op: VolumeOp) -> Result<Reply, Fault> {
        match op {
            VolumeOp::Create { volume, bytes } => self.put_volume(&volume, vec![0; bytes as usize]),
            VolumeOp::Remove(volume) => self.lose_volume(&volume),
            VolumeOp::Resize { volume, bytes } => {
                self.volumes.get_mut(&volume).unwrap().resize(bytes as usize, 0);
                self.ledger.volume_bytes.insert(volume, bytes);
            }
            VolumeOp::Rename { from, to } => {
                let content = self.volumes[&from].clone();
                self.lose_volume(&from);
                self.put_volume(&to, content);
            }
            VolumeOp::Clone { .. } if !self.shares_blocks => return Err(Fault::Os { errno: 95 }),
            VolumeOp::Clone { from, to } => {
                let content = self.volumes[&from].clone();
                self.put_volume(&to, content);
            }
            VolumeOp::Read { volume, offset } => {
                let content = &self.volumes[&volume];
                let start = data_from(content, offset);
                let data = &content[start..content.len().min(start + CHUNK_BYTES_MAX)];
                return Ok(Reply::Extent { offset: start as u64, data: Blob::try_from(data).unwrap() });
            }
            VolumeOp::Write { volume, offset, data } => {
                let content = self.volumes.get_mut(&volume).unwrap();
                content[offset as usize..][..data.len()].copy_from_slice(&data);
            }
            VolumeOp::Sync(_) => {}
            VolumeOp::List { after } => {
                let rest = self.volumes.iter().filter(|(volume, _)| Some(*volume) > after.as_ref());
                let (page, more) = List::page(rest, |(volume, content)| VolumeFile {
                    volume: volume.clone(),
                    bytes: content.len() as u64,
                    disk_bytes: content.chunks(BLOCK).filter(|block| !is_hole(block)).count() as u64
                        * BLOCK as u64,
                });
                return Ok(Reply::Volumes { page, more });
            }
        }
        Ok(Reply::Done)
    }

    /// Killed monitors end. Returns whether there were any.
    pub fn reap(&mut self) -> bool {
        if self.immortal {
            return false;
        }
        let killed = std::mem::take(&mut self.killed);
        let still_running = |instance: &InstanceId| self.is_running(*instance);
        let killed: Vec<_> = killed.into_iter().filter(still_running).collect();
        killed.iter().for_each(|&instance| self.end(instance, ExitStatus::Signal(9)));
        !killed.is_empty()
    }

    fn is_running(&self, instance: InstanceId) -> bool {
        self.ledger.monitor(instance).is_some_and(|record| record.listed.exited.is_none())
    }

    fn spawn(&mut self, spawn: Spawn) -> Result<Reply, Fault> {
        let pid = 1000 + u32::try_from(self.spawned.len()).unwrap();
        let taps: Vec<TapId> = spawn.nets.iter().map(|net| net.tap).collect();
        let volumes: Vec<_> = spawn.blocks.iter().map(|block| block.volume.clone()).collect();
        let record = record(spawn.instance, pid, taps, volumes, spawn.tag.clone());
        self.ledger.started(record);
        self.spawned.push(spawn);
        Ok(Reply::Spawned { pid })
    }

    /// An image that is there without having been uploaded.
    pub fn store(&mut self, image: Vec<u8>) -> Digest {
        let digest = crate::image::digest(&image);
        self.images.insert(digest, image);
        self.ledger.images.insert(digest);
        digest
    }

    /// A monitor that no control plane of ours has started.
    pub fn start_foreign(&mut self, instance: InstanceId, taps: &[TapId], tag: &[u8]) {
        let record = record(instance, 7, taps.to_vec(), Vec::new(), Blob::try_from(tag).unwrap());
        self.ledger.started(record);
    }

    /// A guest writes to its console.
    pub fn write(&mut self, instance: InstanceId, bytes: &[u8]) {
        for data in bytes.chunks(CONSOLE_BYTES_MAX) {
            let event = Event::Console { instance, data: Blob::try_from(data).unwrap() };
            self.tell(event);
        }
    }

    /// A monitor ends.
    pub fn end(&mut self, instance: InstanceId, status: ExitStatus) {
        self.ledger.ended(instance, status);
        self.tell(Event::Exited { instance, status });
    }

    pub fn tell(&mut self, event: Event) {
        if self.ledger.greeted {
            self.sent.push_back(FromShim::Event(event));
        }
    }

    /// The link is gone, with all that was under way on it.
    pub fn link_ended(&mut self) {
        self.ledger.link_ended();
        self.sent.clear();
        self.faults.clear();
    }

    /// The taps that no monitor has.
    pub fn free_taps(&self) -> usize {
        self.ledger.taps.values().filter(|tap| tap.is_none()).count()
    }

    pub fn running(&self) -> Vec<InstanceId> {
        let running = self.ledger.monitors.iter().filter(|(_, m)| m.listed.exited.is_none());
        running.map(|(id, _)| *id).collect()
    }
}

/// What a hole is made of, as on most disks.
const BLOCK: usize = 4096;

fn is_hole(block: &[u8]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

/// Where the first byte from `offset` on is that is in no hole; the size if there is none.
fn data_from(content: &[u8], offset: u64) -> usize {
    let offset = (offset as usize).min(content.len());
    match content[offset..].iter().position(|byte| *byte != 0) {
        Some(distance) => offset.max((offset + distance) / BLOCK * BLOCK),
        None => content.len(),
    }
}

fn record(
    instance: InstanceId,
    pid: u32,
    taps: Vec<TapId>,
    volumes: Vec<VolumeName>,
    tag: Blob<TAG_BYTES_MAX>,
) -> Record {
    let taps = taps.try_into().unwrap();
    Record {
        listed: Listed { instance, pid, exited: None, taps, tag },
        volumes: volumes.try_into().unwrap(),
        ..Record::default()
    }
}
