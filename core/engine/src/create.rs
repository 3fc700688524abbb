//! Admitting a unikernel, or a new generation of one: all that can be wrong is found before anything is done.

use alloc::{boxed::Box, vec::Vec};

use petrel_wire::{
    Blob, BridgeName, DeviceName, List, Mac, Name,
    limits::{CMDLINE_BYTES_MAX, MEMORY_MIB_MAX, MEMORY_MIB_MIN, TAPS_MAX, UNIKERNELS_MAX, WINDOW_S_MAX},
    operator::{
        Block, Change, Cpus, Create, DeviceKind, Held, Net, Refusal, Response, Supervision, Table, What,
    },
    shim::Host,
};
use sha2::{Digest as _, Sha256};

use crate::{
    Engine,
    images::{Image, Learner},
    limits::CREATES_WAITING_MAX,
    planted::{self, Planted},
    policy::{Asked, Grant},
    record::{Generation, Record, Spec},
    supervise::{
        launch::Creator,
        order::{Manner, Who},
    },
    unikernel::{Needs, Unikernel},
};

/// A create or a change that has not been admitted yet.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub who: Who,
    create: Box<Create>,
    /// What it changes of what there is, and how it takes the place of that. `None` unless there has to be something.
    change: Option<(Box<Change>, Manner)>,
}

impl Engine {
    pub(crate) fn create(&mut self, who: Who, create: Box<Create>) {
        self.want(Wanted { who, create, change: None });
    }

    /// Makes a new generation of a unikernel: what it is, but for what `change` says.
    pub(crate) fn change(&mut self, who: Who, name: &Name, change: Box<Change>, manner: Manner) {
        let Some(unikernel) = self.state.get(name) else {
            let refusal = self.unknown_name();
            return self.refuse(who.asker, refusal);
        };
        if manner.window_s.is_some_and(|window_s| window_s == 0 || window_s > WINDOW_S_MAX) {
            return self.refuse(who.asker, Refusal::Supervision);
        }
        let create = Box::new(changed(unikernel.spec(), &change));
        self.want(Wanted { who, create, change: Some((change, manner)) });
    }

    fn want(&mut self, wanted: Wanted) {
        let digest = wanted.create.image;
        if let Some(image) = self.images.known(digest).cloned() {
            return self.admit(wanted, &image);
        }
        if let Err(refusal) = self.check_fits(&wanted, MEMORY_MIB_MIN) {
            return self.refuse(wanted.who.asker, refusal);
        }
        if self.images.creates_waiting >= CREATES_WAITING_MAX || !self.shim.has_room(1) {
            self.refuse(wanted.who.asker, Refusal::Full(Table::ShimRequests));
        } else {
            self.learn(digest, None, Learner::Create(wanted));
        }
    }

    /// The image has been looked into. What is to be changed may have been changed by others in the meantime.
    pub(crate) fn admit_learned(&mut self, mut wanted: Wanted, image: &Image) {
        let looked_into = wanted.create.image;
        if let Some((change, _)) = &wanted.change
            && let Some(unikernel) = self.state.get(&wanted.create.name)
        {
            *wanted.create = changed(unikernel.spec(), change);
        }
        if wanted.create.image == looked_into { self.admit(wanted, image) } else { self.want(wanted) }
    }

    /// The image is known: the create is carried out, or refused.
    fn admit(&mut self, wanted: Wanted, image: &Image) {
        let spec = match self.plan(&wanted, image) {
            Ok(spec) => spec,
            Err(refusal) => {
                self.refuse(wanted.who.asker, refusal);
                return self.trim_images();
            }
        };
        if self.state.get(&spec.name).is_some() && !planted::is(Planted::NameTwice) {
            let created = Manner { answer: Response::Created, window_s: None, starts: true };
            return self.renew(wanted.who, spec, wanted.change.map_or(created, |(_, manner)| manner));
        }
        let Who { asker, grant } = wanted.who;
        let name = spec.name.clone();
        let generation = Generation { number: 1, faulty: false, spec: Box::new(spec) };
        let instance = self.new_instance();
        self.happened(grant.who(), What::Created(generation.spec.image), Some(name.clone()));
        self.apply(Record::Created { instance, generation });
        self.watch(&name);
        let waits = self.state.get(&name).is_some_and(|unikernel| self.waits_for(unikernel).next().is_some());
        if !waits {
            return self.launch(&name, Some(Creator { asker, grant }));
        }
        self.reconcile(&name);
        if let Some(brief) = self.brief(&name) {
            self.answer(asker, Response::Created(Box::new(brief)));
        }
    }

    /// Checks what is wanted against the host, policies and what there is; it needs at least `min_mib` of memory. This
    /// comes before the image is asked for: a client uploads one only when nothing else is wrong, and so leaves none
    /// behind. Returns the CPUs that it gets.
    fn check_fits(&self, wanted: &Wanted, min_mib: u32) -> Result<Cpus, Refusal> {
        let create = &wanted.create;
        let host = self.shim.host_if_ready().ok_or(Refusal::ShimAway)?;
        check_arguments(&create.args)?;
        self.check_name(wanted)?;
        check_supervision(&create.supervision)?;
        self.check_after(&create.name, &create.supervision)?;
        let asked_mib = create.memory_mib;
        let max_mib = u32::try_from(host.memory_mib).unwrap_or(u32::MAX).min(MEMORY_MIB_MAX);
        if asked_mib < min_mib || asked_mib > max_mib {
            return Err(Refusal::Memory { asked_mib, min_mib, max_mib });
        }
        check_places(&create.cpus, create.nets.iter().map(|net| &net.bridge), host)?;
        self.check_room(&create.name, asked_mib, create.nets.len(), &create.blocks, host)?;
        let asked = Asked {
            name: &create.name,
            held: Held { unikernels: 1, memory_mib: asked_mib.into(), volume_mib: 0 },
            instead_of: self.counted(&create.name),
            cpus: Some(&create.cpus),
            bridges: create.nets.iter().map(|net| &net.bridge).collect(),
        };
        self.state.admit(&wanted.who.grant, &asked, &host.cpus)
    }

    /// Checks that an earlier generation, which was admitted once, may be the current one again: policies may have
    /// become narrower since.
    pub(crate) fn check_return(&self, grant: &Grant, spec: &Spec) -> Result<(), Refusal> {
        self.check_after(&spec.name, &spec.supervision)?;
        self.check_start(spec)?;
        self.check_taken_back(grant, spec)?;
        let host = self.shim.host_if_ready().ok_or(Refusal::ShimAway)?;
        let asked = Asked {
            name: &spec.name,
            held: spec.held(),
            instead_of: self.counted(&spec.name),
            // A generation stays as it is: one that runs on any needs all.
            cpus: Some(if spec.cpus.is_empty() { &host.cpus } else { &spec.cpus }),
            bridges: spec.nets.iter().map(|(net, _)| &net.bridge).collect(),
        };
        self.state.admit(grant, &asked, &host.cpus).map(drop)
    }

    /// A volume from outside of the asker's scope, which somebody above has taken back, does not come back with an earlier
    /// generation.
    fn check_taken_back(&self, grant: &Grant, spec: &Spec) -> Result<(), Refusal> {
        let Some(scope) = grant.authority().map(|authority| authority.scope()) else { return Ok(()) };
        let now = self.state.get(&spec.name).map(|unikernel| &unikernel.spec().blocks);
        let has = |volume: &Name| now.is_some_and(|now| now.iter().any(|block| block.volume == *volume));
        let foreign = spec.blocks.iter().find(|block| !scope.is_above(&block.volume) && !has(&block.volume));
        if foreign.is_some() { Err(Refusal::OutsideScope) } else { Ok(()) }
    }

    /// What counts against policies under this name already.
    fn counted(&self, name: &Name) -> Held {
        self.state.get(name).map(Unikernel::held).unwrap_or_default()
    }

    /// Checks that what was admitted once can be started now.
    pub(crate) fn check_start(&self, spec: &Spec) -> Result<(), Refusal> {
        let host = self.shim.host_if_ready().ok_or(Refusal::ShimAway)?;
        if !host.monitors.iter().any(|monitor| monitor.name == spec.monitor) {
            return Err(Refusal::MonitorUnknown(spec.monitor.clone()));
        }
        check_places(&spec.cpus, spec.nets.iter().map(|(net, _)| &net.bridge), host)?;
        self.check_room(&spec.name, spec.memory_mib, spec.nets.len(), &spec.blocks, host)
    }

    /// Checks all there is.
    fn plan(&self, wanted: &Wanted, image: &Image) -> Result<Spec, Refusal> {
        let cpus = self.check_fits(wanted, image.memory_min_mib.max(MEMORY_MIB_MIN))?;
        let monitor = self.shim.monitor_for(image)?;
        check_devices(&wanted.create, image)?;
        let Create { name, image, memory_mib, nets, blocks, args, supervision, .. } =
            (*wanted.create).clone();
        let mac = |net: Net| (net.clone(), mac_address(&net.device, &name));
        let nets = nets.into_vec().into_iter().map(mac).collect::<Vec<_>>();
        let mut cpus = cpus.into_vec();
        cpus.sort_unstable();
        cpus.dedup();
        let made_ms = self.now.wall_ms;
        let created_ms = self.state.get(&name).map_or(made_ms, |unikernel| unikernel.spec().created_ms);
        Ok(Spec {
            nets: List::try_from(nets).unwrap_or_default(),
            cpus: List::try_from(cpus).unwrap_or_default(),
            created_ms,
            made_ms,
            name,
            image,
            memory_mib,
            blocks,
            args,
            supervision,
            monitor,
        })
    }

    fn check_name(&self, wanted: &Wanted) -> Result<(), Refusal> {
        match self.state.get(&wanted.create.name) {
            None if wanted.change.is_some() => Err(Refusal::NoSuchUnikernel),
            None if self.state.len() >= UNIKERNELS_MAX => Err(Refusal::Full(Table::Unikernels)),
            Some(_) if !wanted.create.force && !planted::is(Planted::NameTwice) => Err(Refusal::NameTaken),
            None | Some(_) => Ok(()),
        }
    }

    /// The link is gone: what has not been admitted yet is refused.
    pub(crate) fn learners_lost(&mut self) {
        for learner in self.images.give_up() {
            if let Learner::Create(wanted) = learner {
                self.refuse(wanted.who.asker, Refusal::ShimAway);
            }
        }
    }

    /// What it is to be started after must be there, and must not wait for it in turn.
    pub(crate) fn check_after(&self, name: &Name, supervision: &Supervision) -> Result<(), Refusal> {
        let before = self.state.get(name).map(|unikernel| &unikernel.spec().supervision.after);
        // What it was started after already may have gone, and come back.
        let known =
            |after: &&Name| self.state.get(after).is_some() || before.is_some_and(|all| all.contains(after));
        if let Some(unknown) = supervision.after.iter().find(|after| !known(after)) {
            let itself = unknown == name;
            let unknown = unknown.clone();
            return Err(if itself { Refusal::AfterCycle(unknown) } else { Refusal::AfterUnknown(unknown) });
        }
        for first in &supervision.after {
            let mut seen = alloc::collections::BTreeSet::new();
            let mut rest = alloc::vec![first];
            while let Some(next) = rest.pop() {
                if next == name {
                    return Err(Refusal::AfterCycle(first.clone()));
                }
                if seen.insert(next)
                    && let Some(unikernel) = self.state.get(next)
                {
                    rest.extend(&unikernel.spec().supervision.after);
                }
            }
        }
        Ok(())
    }

    /// Checks that what a unikernel needs is not others'. What it holds itself it may have again.
    fn check_room(
        &self,
        name: &Name,
        memory_mib: u32,
        nets: usize,
        blocks: &[Block],
        host: &Host,
    ) -> Result<(), Refusal> {
        let none = Needs::default();
        let own = self.state.held(name).unwrap_or(&none);
        let given_mib = self.state.memory_given_mib() - u64::from(own.memory_mib);
        if given_mib.saturating_add(memory_mib.into()) > host.memory_mib {
            return Err(Refusal::MemoryGiven { host_mib: host.memory_mib, given_mib, asked_mib: memory_mib });
        }
        self.check_volumes(name, blocks)?;
        if self.state.nets_len() - own.nets + self.foreign_taps.len() + nets > TAPS_MAX {
            return Err(Refusal::Full(Table::Taps));
        }
        // One more to have an earlier instance forgotten.
        if !self.shim.has_room(nets + 2) {
            return Err(Refusal::Full(Table::ShimRequests));
        }
        Ok(())
    }
}

/// What is to be once `change` is made.
fn changed(spec: &Spec, change: &Change) -> Create {
    let nets: Vec<_> = spec.nets.iter().map(|(net, _)| net.clone()).collect();
    Create {
        name: spec.name.clone(),
        image: change.image.unwrap_or(spec.image),
        memory_mib: change.memory_mib.unwrap_or(spec.memory_mib),
        cpus: change.cpus.clone().unwrap_or_else(|| spec.cpus.clone()),
        nets: List::try_from(nets).unwrap_or_default(),
        blocks: spec.blocks.clone(),
        args: change.args.clone().unwrap_or_else(|| spec.args.clone()),
        supervision: spec.supervision.clone(),
        force: true,
    }
}

/// Solo5's command line with its NUL, in bytes.
#[expect(clippy::cast_possible_truncation, reason = "8192")]
pub(crate) const ARGUMENTS_MAX: u32 = CMDLINE_BYTES_MAX as u32;

pub(crate) fn check_arguments(args: &[Blob<CMDLINE_BYTES_MAX>]) -> Result<(), Refusal> {
    // Each is followed by a space, the last by the NUL.
    let joined: usize = args.iter().map(|arg| arg.len() + 1).sum();
    if joined > CMDLINE_BYTES_MAX || args.iter().any(|arg| arg.contains(&0)) {
        return Err(Refusal::Arguments { max: ARGUMENTS_MAX });
    }
    Ok(())
}

pub(crate) fn check_supervision(supervision: &Supervision) -> Result<(), Refusal> {
    let sound = supervision.alive.as_ref().is_none_or(|alive| alive.every_s > 0 && alive.failures > 0);
    if sound { Ok(()) } else { Err(Refusal::Supervision) }
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

/// The CPUs and the bridges must be there to be had.
fn check_places<'a>(
    cpus: &[u16],
    mut bridges: impl Iterator<Item = &'a BridgeName>,
    host: &Host,
) -> Result<(), Refusal> {
    if let Some(cpu) = cpus.iter().find(|cpu| !host.cpus.contains(cpu)) {
        return Err(Refusal::CpuUnknown(*cpu));
    }
    if let Some(bridge) = bridges.find(|bridge| !host.bridges.contains(bridge)) {
        return Err(Refusal::BridgeUnknown { bridge: bridge.clone(), known: host.bridges.clone() });
    }
    Ok(())
}

/// A device's hardware address: the same whenever a unikernel of this name is created.
pub(crate) fn mac_address(device: &DeviceName, name: &str) -> Mac {
    let hash = Sha256::new().chain_update(device.as_bytes()).chain_update([0]).chain_update(name).finalize();
    Mac([0x00, 0x80, 0x41, hash[0], hash[1], hash[2]])
}
