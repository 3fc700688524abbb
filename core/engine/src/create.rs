//! Creating a unikernel.
//!
//! All that can be wrong is found before anything is done. Then the taps and the monitor are asked for at once,
//! without waiting in between: the shim works in order, so the create costs one round trip. If one of them
//! fails, the taps are destroyed, and the operator is told when nothing is left.

use alloc::{boxed::Box, collections::BTreeMap, format, vec::Vec};

use petrel_wire::{
    DeviceName, ExitStatus, List, Mac,
    limits::{CMDLINE_BYTES_MAX, MEMORY_MIB_MAX, MEMORY_MIB_MIN, TAPS_MAX, UNIKERNELS_MAX},
    operator::{Create, DeviceKind, Net, Refusal, Response, Table, What},
    shim::{Fault, Host, InstanceId, Op, Reply, Spawn, SpawnBlock, SpawnNet, TapId},
};
use sha2::{Digest as _, Sha256};

use crate::{
    Engine, Level,
    images::{Image, Learner},
    limits::CREATES_WAITING_MAX,
    planted::{self, Planted},
    policy::Grant,
    record::{Record, Spec, Tag},
    session::Asker,
    shim_client::{Handled, Nonsense, Waiting},
    state::State,
};

pub(crate) type Creations = BTreeMap<InstanceId, Creation>;

/// A create that has not been admitted yet.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub asker: Asker,
    grant: Grant,
    create: Box<Create>,
}

/// A create that the shim is at.
#[derive(Debug)]
pub(crate) struct Creation {
    asker: Asker,
    grant: Grant,
    /// The replies that have not come yet: to what was asked for, then to what undoes it.
    unanswered: usize,
    /// The taps that there are.
    taps: Vec<TapId>,
    /// The first thing that failed.
    failure: Option<Refusal>,
    /// The monitor's process, once it runs.
    pid: Option<u32>,
}

impl Engine {
    pub(crate) fn create(&mut self, asker: Asker, grant: Grant, create: Box<Create>) {
        let digest = create.image;
        if let Some(image) = self.images.known(digest).cloned() {
            return self.admit(Wanted { asker, grant, create }, &image);
        }
        if let Err(refusal) = self.check_fits(&create, MEMORY_MIB_MIN) {
            return self.refuse(asker, refusal);
        }
        let wanted = Wanted { asker, grant, create };
        if self.images.creates_waiting >= CREATES_WAITING_MAX || !self.shim.has_room(1) {
            self.refuse(asker, Refusal::Full(Table::ShimRequests));
        } else {
            self.learn(digest, None, Learner::Create(wanted));
        }
    }

    /// The image is known: the create is carried out, or refused.
    pub(crate) fn admit(&mut self, wanted: Wanted, image: &Image) {
        let Wanted { asker, grant, create } = wanted;
        match self.plan(*create, image) {
            Ok((spec, tag)) => self.start(asker, grant, spec, tag),
            Err(refusal) => self.refuse(asker, refusal),
        }
    }

    /// Checks a create against the host and what there is; it needs at least `min_mib` of memory. This comes before
    /// the image is asked for: a client uploads one only when nothing else is wrong, and so leaves none behind.
    fn check_fits(&self, create: &Create, min_mib: u32) -> Result<(), Refusal> {
        let host = self.shim.host_if_ready().ok_or(Refusal::ShimAway)?;
        check_arguments(create)?;
        check_name(create, &self.state)?;
        check_memory(create, min_mib, host, &self.state)?;
        check_places(create, host, &self.state)?;
        self.check_bounds(create.nets.len())
    }

    /// Checks a create against all there is.
    fn plan(&self, create: Create, image: &Image) -> Result<(Spec, Tag), Refusal> {
        self.check_fits(&create, image.memory_min_mib.max(MEMORY_MIB_MIN))?;
        let monitor = self.shim.monitor_for(image)?;
        check_devices(&create, image)?;
        let Create { name, image, memory_mib, cpus, nets, blocks, args } = create;
        let mac = |net: Net| (net.clone(), mac_address(&net.device, &name));
        let nets = nets.into_vec().into_iter().map(mac).collect::<Vec<_>>();
        let mut cpus = cpus.into_vec();
        cpus.sort_unstable();
        cpus.dedup();
        let spec = Spec {
            nets: List::try_from(nets).unwrap_or_default(),
            cpus: List::try_from(cpus).unwrap_or_default(),
            created_ms: self.now.wall_ms,
            name,
            image,
            memory_mib,
            blocks,
            args,
            monitor,
        };
        let tag = spec.to_tag().ok_or(Refusal::Arguments { max: ARGUMENTS_MAX })?;
        Ok((spec, tag))
    }

    fn check_bounds(&self, nets: usize) -> Result<(), Refusal> {
        if self.state.len() >= UNIKERNELS_MAX {
            return Err(Refusal::Full(Table::Unikernels));
        }
        if self.state.taps_len() + self.foreign_taps.len() + nets > TAPS_MAX {
            return Err(Refusal::Full(Table::Taps));
        }
        if !self.shim.has_room(nets + 1) {
            return Err(Refusal::Full(Table::ShimRequests));
        }
        Ok(())
    }

    /// Takes what the unikernel needs, then asks the shim for it.
    fn start(&mut self, asker: Asker, grant: Grant, spec: Spec, tag: Tag) {
        let instance = InstanceId(self.next_instance);
        self.next_instance = self.next_instance.saturating_add(1);
        let taps: Vec<TapId> = spec.nets.iter().map(|_| self.new_tap()).collect();
        self.happened(grant.who(), What::Created(spec.image), Some(spec.name.clone()));
        let spec = Box::new(spec);
        self.apply(Record::Creating { instance, spec: spec.clone(), taps: taps.clone() });
        for (&tap, (net, _)) in taps.iter().zip(&spec.nets) {
            let op = Op::TapCreate { tap, bridge: net.bridge.clone() };
            self.ask(&grant, op, Waiting::TapCreate(instance, tap));
        }
        let spawn = spawn(instance, *spec, &taps, tag);
        self.ask(&grant, Op::Spawn(Box::new(spawn)), Waiting::Spawn(instance));
        let unanswered = taps.len() + 1;
        let creation = Creation { asker, grant, unanswered, taps: Vec::new(), failure: None, pid: None };
        self.creations.insert(instance, creation);
    }

    /// A tap that nobody has.
    fn new_tap(&mut self) -> TapId {
        loop {
            let tap = TapId(self.next_tap);
            self.next_tap = self.next_tap.checked_add(1).unwrap_or(1);
            if !self.state.tap_taken(tap) && !self.foreign_taps.contains(&tap) {
                return tap;
            }
        }
    }

    pub(crate) fn tap_created(
        &mut self,
        instance: InstanceId,
        tap: TapId,
        result: Result<Reply, Fault>,
    ) -> Handled {
        let Some(creation) = self.creations.get_mut(&instance) else { return Ok(()) };
        match result {
            Ok(Reply::Done) => creation.taps.push(tap),
            Ok(_) => return Err(Nonsense("another reply than done to a tap")),
            Err(Fault::Full) => {
                creation.failure.get_or_insert(Refusal::Full(Table::Taps));
            }
            Err(fault) => {
                creation.failure.get_or_insert(Refusal::Shim(fault));
            }
        }
        creation.unanswered -= 1;
        Ok(())
    }

    /// The last reply to what was asked for.
    pub(crate) fn spawned(&mut self, instance: InstanceId, result: Result<Reply, Fault>) -> Handled {
        let Some(creation) = self.creations.get_mut(&instance) else { return Ok(()) };
        creation.unanswered -= 1;
        match result {
            Ok(Reply::Spawned { .. }) if creation.failure.is_some() => {
                return Err(Nonsense("a monitor that runs without all of its taps"));
            }
            Ok(Reply::Spawned { pid }) => creation.pid = Some(pid),
            Ok(_) => return Err(Nonsense("another reply than a process to a spawn")),
            Err(fault) => self.spawn_failed(instance, fault),
        }
        self.settle(instance);
        Ok(())
    }

    fn spawn_failed(&mut self, instance: InstanceId, fault: Fault) {
        let Some(unikernel) = self.state.by_id(instance) else { return };
        let Some(creation) = self.creations.get_mut(&instance) else { return };
        if creation.failure.is_some() {
            // It could only fail, without the tap.
            return;
        }
        let volume = match &*unikernel.spec.blocks {
            [only] => Some(only.volume.clone()),
            _ => None,
        };
        creation.failure = Some(match (fault, volume) {
            (Fault::NotFound, _) => Refusal::NoSuchImage,
            (Fault::NoVolume, Some(volume)) => Refusal::VolumeUnknown(volume),
            (Fault::InUse, Some(volume)) => Refusal::VolumeInUse(volume),
            (Fault::Full, _) => Refusal::Full(Table::Unikernels),
            (fault, _) => Refusal::Shim(fault),
        });
        if fault == Fault::NotFound {
            let image = unikernel.spec.image;
            self.images.forget(image);
        }
    }

    pub(crate) fn tap_destroyed(&mut self, instance: InstanceId, result: Result<Reply, Fault>) -> Handled {
        match result {
            Ok(Reply::Done) | Err(Fault::NotFound) => {}
            Ok(_) => return Err(Nonsense("another reply than done to the end of a tap")),
            Err(fault) => {
                self.log(Level::Error, format!("instance {}: a tap is left: {fault:?}", instance.0));
            }
        }
        if let Some(creation) = self.creations.get_mut(&instance) {
            creation.unanswered -= 1;
            self.settle(instance);
        }
        Ok(())
    }

    /// If all that was asked for has been answered: the create succeeds, or is undone, or has been undone.
    fn settle(&mut self, instance: InstanceId) {
        let Some(creation) = self.creations.get_mut(&instance) else { return };
        if creation.unanswered > 0 {
            return;
        }
        if creation.failure.is_some() && !creation.taps.is_empty() && !planted::is(Planted::LeakTaps) {
            let taps = core::mem::take(&mut creation.taps);
            creation.unanswered = taps.len();
            for tap in taps {
                let (op, waiting) = (Op::TapDestroy(tap), Waiting::TapDestroy(instance));
                self.shim.ask(self.now, &creation.grant, op, waiting, &mut self.outputs);
            }
            return;
        }
        let Some(Creation { asker, grant, pid, failure, .. }) = self.creations.remove(&instance) else {
            return;
        };
        match (pid, failure) {
            (Some(pid), None) => self.created(instance, asker, &grant, pid),
            (_, failure) => {
                self.create_failed(instance, asker, &grant, failure.unwrap_or(Refusal::ShimAway));
            }
        }
    }

    fn created(&mut self, instance: InstanceId, asker: Asker, grant: &Grant, pid: u32) {
        self.apply(Record::Started { instance, pid });
        if let Some(unikernel) = self.state.by_id(instance) {
            let brief = unikernel.brief();
            self.happened(grant.who(), What::Started(pid), Some(brief.name.clone()));
            self.answer(asker, Response::Created(Box::new(brief)));
        }
        self.stop_after_create(instance);
    }

    fn create_failed(&mut self, instance: InstanceId, asker: Asker, grant: &Grant, refusal: Refusal) {
        let name = self.state.by_id(instance).map(|unikernel| unikernel.spec.name.clone());
        self.happened(grant.who(), What::CreateFailed(Box::new(refusal.clone())), name);
        self.refuse(asker, refusal);
        self.gone(instance);
    }

    /// The link is gone: the creates under way are refused, and what became of them is ended when it is back.
    pub(crate) fn creates_lost(&mut self) {
        for learner in self.images.give_up() {
            if let Learner::Create(wanted) = learner {
                self.refuse(wanted.asker, Refusal::ShimAway);
            }
        }
        for (instance, creation) in core::mem::take(&mut self.creations) {
            if !planted::is(Planted::ForgetOrphan) {
                self.doomed.insert(instance);
            }
            let refusal = creation.failure.unwrap_or(Refusal::ShimAway);
            let name = self.state.by_id(instance).map(|unikernel| unikernel.spec.name.clone());
            self.happened(creation.grant.who(), What::CreateFailed(Box::new(refusal.clone())), name);
            self.refuse(creation.asker, refusal);
            self.apply(Record::Removed(instance));
            self.console_removed(instance, None::<ExitStatus>);
        }
    }
}

/// Solo5's command line with its NUL, in bytes.
#[expect(clippy::cast_possible_truncation, reason = "8192")]
const ARGUMENTS_MAX: u32 = CMDLINE_BYTES_MAX as u32;

fn check_arguments(create: &Create) -> Result<(), Refusal> {
    // Each is followed by a space, the last by the NUL.
    let joined: usize = create.args.iter().map(|arg| arg.len() + 1).sum();
    if joined > CMDLINE_BYTES_MAX || create.args.iter().any(|arg| arg.contains(&0)) {
        return Err(Refusal::Arguments { max: ARGUMENTS_MAX });
    }
    Ok(())
}

fn check_name(create: &Create, state: &State) -> Result<(), Refusal> {
    let taken = state.by_name(&create.name).is_some() && !planted::is(Planted::NameTwice);
    if taken { Err(Refusal::NameTaken) } else { Ok(()) }
}

/// The devices given must be those declared.
fn check_devices(create: &Create, image: &Image) -> Result<(), Refusal> {
    let nets = create.nets.iter().map(|net| (&net.device, DeviceKind::Net));
    let blocks = create.blocks.iter().map(|block| (&block.device, DeviceKind::Block));
    let given: Vec<(&DeviceName, DeviceKind)> = nets.chain(blocks).collect();
    for (i, &(device, kind)) in given.iter().enumerate() {
        if !image.devices.iter().any(|(declared, k)| declared == device && *k == kind) {
            return Err(Refusal::DeviceUnknown { device: device.clone(), kind });
        }
        if given.iter().take(i).any(|(earlier, _)| *earlier == device) {
            return Err(Refusal::DeviceTwice(device.clone()));
        }
    }
    let missing = image.devices.iter().find(|(device, _)| !given.iter().any(|(name, _)| *name == device));
    match missing {
        Some((device, kind)) => Err(Refusal::DeviceMissing { device: device.clone(), kind: *kind }),
        None => Ok(()),
    }
}

fn check_memory(create: &Create, min_mib: u32, host: &Host, state: &State) -> Result<(), Refusal> {
    let left_mib = host.memory_mib.saturating_sub(state.memory_given_mib());
    let max_mib = u32::try_from(left_mib).unwrap_or(u32::MAX).min(MEMORY_MIB_MAX);
    let asked_mib = create.memory_mib;
    if asked_mib < min_mib || asked_mib > max_mib {
        return Err(Refusal::Memory { asked_mib, min_mib, max_mib });
    }
    Ok(())
}

/// The CPUs, the bridges and the volumes must be there to be had.
fn check_places(create: &Create, host: &Host, state: &State) -> Result<(), Refusal> {
    if let Some(cpu) = create.cpus.iter().find(|cpu| !host.cpus.contains(cpu)) {
        return Err(Refusal::CpuUnknown(*cpu));
    }
    if let Some(net) = create.nets.iter().find(|net| !host.bridges.contains(&net.bridge)) {
        let known = host.bridges.clone();
        return Err(Refusal::BridgeUnknown { bridge: net.bridge.clone(), known });
    }
    for (i, block) in create.blocks.iter().enumerate() {
        let twice = create.blocks.iter().take(i).any(|earlier| earlier.volume == block.volume);
        if twice || state.volume_taken(&block.volume) {
            return Err(Refusal::VolumeInUse(block.volume.clone()));
        }
    }
    Ok(())
}

/// A device's hardware address: the same whenever a unikernel of this name is created.
fn mac_address(device: &DeviceName, name: &str) -> Mac {
    let hash = Sha256::new().chain_update(device.as_bytes()).chain_update([0]).chain_update(name).finalize();
    Mac([0x00, 0x80, 0x41, hash[0], hash[1], hash[2]])
}

fn spawn(instance: InstanceId, spec: Spec, taps: &[TapId], tag: Tag) -> Spawn {
    let nets = spec.nets.into_vec().into_iter().zip(taps);
    let nets: Vec<_> = nets.map(|((net, mac), &tap)| SpawnNet { device: net.device, tap, mac }).collect();
    let blocks = spec.blocks.into_vec().into_iter();
    let blocks: Vec<_> =
        blocks.map(|block| SpawnBlock { device: block.device, volume: block.volume }).collect();
    Spawn {
        instance,
        monitor: spec.monitor,
        image: spec.image,
        memory_mib: spec.memory_mib,
        cpus: spec.cpus,
        nets: List::try_from(nets).unwrap_or_default(),
        blocks: List::try_from(blocks).unwrap_or_default(),
        args: spec.args,
        tag,
    }
}
