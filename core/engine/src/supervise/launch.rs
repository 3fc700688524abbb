//! Starting a monitor.
//!
//! The taps and the monitor are asked for at once, without waiting in between: the shim works in order, so a start costs
//! one round trip. If one of them fails, the taps are destroyed, and who waits is told when nothing is left.

use alloc::{boxed::Box, collections::BTreeMap, format, vec::Vec};

use petrel_wire::{
    List, Name,
    operator::{Refusal, Response, Table, VolumeRefusal, What, Who},
    shim::{Fault, InstanceId, Op, Reply, Spawn, SpawnBlock, SpawnNet, TapId},
};

use crate::{
    Engine, Level,
    limits::RETRY_NS,
    planted::{self, Planted},
    policy::{Grant, upkeep},
    record::{Generation, Record, Tag},
    session::Asker,
    shim_client::{Handled, Nonsense, Waiting},
    supervise::{order::Goal, pace, probes::Probing},
};

pub(crate) type Launches = BTreeMap<InstanceId, Launch>;

/// A start that the shim is at.
#[derive(Debug)]
pub(crate) struct Launch {
    pub name: Name,
    /// Who created the unikernel with it. If it fails, there is none.
    pub creator: Option<Creator>,
    /// The replies that have not come yet: to what was asked for, then to what undoes it.
    unanswered: usize,
    /// The taps that there are.
    taps: Vec<TapId>,
    /// The first thing that failed.
    pub failure: Option<Refusal>,
    /// The monitor's process, once it runs.
    pid: Option<u32>,
}

/// Who waits for the first start of a unikernel.
#[derive(Debug)]
pub(crate) struct Creator {
    pub asker: Asker,
    pub grant: Grant,
}

impl Engine {
    /// Takes what the unikernel needs, then asks the shim for it.
    pub(crate) fn launch(&mut self, name: &Name, creator: Option<Creator>) {
        match self.prepare(name) {
            Ok(tag) => self.ask_for_monitor(name, creator, tag),
            Err(Refusal::Full(Table::ShimRequests)) if creator.is_none() => {
                self.watch(name).not_before_ns = self.now.monotonic_ns.saturating_add(RETRY_NS);
            }
            Err(refusal) => self.launch_failed(name, creator.map(|creator| creator.asker), refusal),
        }
    }

    /// Checks that it can be started: what it needs may have been given to others since it last ran.
    fn prepare(&self, name: &Name) -> Result<Tag, Refusal> {
        let unikernel = self.state.get(name).ok_or(Refusal::NoSuchUnikernel)?;
        self.check_start(unikernel.spec())?;
        unikernel.current.to_tag().ok_or(Refusal::Arguments { max: crate::create::ARGUMENTS_MAX })
    }

    fn ask_for_monitor(&mut self, name: &Name, creator: Option<Creator>, tag: Tag) {
        let Some(unikernel) = self.state.get(name) else { return };
        let (earlier, ended) = (unikernel.instance, unikernel.ended().is_some());
        let first = unikernel.started.is_none();
        let generation = unikernel.current.clone();
        let nets = generation.spec.nets.clone();
        if ended {
            self.reap(earlier, true);
        }
        // What runs under its number may be what a control plane has started that could not read which were given.
        let free = first && !self.reaps.contains_key(&earlier);
        let instance = if free { earlier } else { self.new_instance() };
        let taps: Vec<TapId> = nets.iter().map(|_| self.new_tap()).collect();
        self.store.touch(generation.spec.image);
        self.log(Level::Debug, format!("{name}: starts as instance {}", instance.0));
        self.decide(Record::Starting { name: name.clone(), instance, taps: taps.clone() });
        self.console_moved(earlier, instance);
        if planted::is(Planted::RestartTwice) && !first && instance.0.is_multiple_of(4) {
            let twin = self.new_instance();
            let op = Op::Spawn(Box::new(spawn(twin, generation.clone(), &[], tag.clone())));
            self.ask_about(name, op, Waiting::Spawn(twin));
        }
        let own = upkeep();
        let order = self.watches.get(name).and_then(|watch| watch.order.as_ref()).map(|order| &order.grant);
        let grant = creator.as_ref().map(|creator| &creator.grant).or(order).unwrap_or(&own);
        for (&tap, (net, _)) in taps.iter().zip(&nets) {
            let op = Op::TapCreate { tap, bridge: net.bridge.clone() };
            self.shim.ask(self.now, grant, op, Waiting::TapCreate(instance, tap), &mut self.outputs);
        }
        let op = Op::Spawn(Box::new(spawn(instance, generation, &taps, tag)));
        self.shim.ask(self.now, grant, op, Waiting::Spawn(instance), &mut self.outputs);
        let unanswered = taps.len() + 1;
        let name = name.clone();
        let launch = Launch { name, creator, unanswered, taps: Vec::new(), failure: None, pid: None };
        self.launches.insert(instance, launch);
    }

    pub(crate) fn new_instance(&mut self) -> InstanceId {
        let instance = InstanceId(self.next_instance);
        self.next_instance = self.next_instance.saturating_add(1);
        instance
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
        let Some(launch) = self.launches.get_mut(&instance) else { return Ok(()) };
        match result {
            Ok(Reply::Done) => launch.taps.push(tap),
            Ok(_) => return Err(Nonsense("another reply than done to a tap")),
            Err(Fault::Full) => {
                launch.failure.get_or_insert(Refusal::Full(Table::Taps));
            }
            Err(fault) => {
                launch.failure.get_or_insert(Refusal::Shim(fault));
            }
        }
        launch.unanswered -= 1;
        Ok(())
    }

    /// The last reply to what was asked for.
    pub(crate) fn spawned(&mut self, instance: InstanceId, result: Result<Reply, Fault>) -> Handled {
        let Some(launch) = self.launches.get_mut(&instance) else { return Ok(()) };
        launch.unanswered -= 1;
        match result {
            Ok(Reply::Spawned { .. }) if launch.failure.is_some() => {
                return Err(Nonsense("a monitor that runs without all of its taps"));
            }
            Ok(Reply::Spawned { pid }) => launch.pid = Some(pid),
            Ok(_) => return Err(Nonsense("another reply than a process to a spawn")),
            Err(fault) => self.spawn_failed(instance, fault),
        }
        self.settle(instance);
        Ok(())
    }

    fn spawn_failed(&mut self, instance: InstanceId, fault: Fault) {
        let Some(unikernel) = self.state.by_id(instance) else { return };
        let Some(launch) = self.launches.get(&instance) else { return };
        if launch.failure.is_some() {
            // It could only fail, without the tap.
            return;
        }
        // It may have become another meanwhile.
        let Some(spec) = unikernel.started_spec() else { return };
        let volume = match &*spec.blocks {
            [only] => Some(only.volume.clone()),
            _ => None,
        };
        let image = spec.image;
        let failure = match (fault, volume) {
            (Fault::NotFound, _) => Refusal::NoSuchImage,
            (Fault::NoVolume, Some(volume)) => self.volume_fault(&volume, fault),
            (Fault::InUse, Some(volume)) => VolumeRefusal::InUse { volume, user: None }.into(),
            (Fault::Full, _) => Refusal::Full(Table::Unikernels),
            (fault, _) => Refusal::Shim(fault),
        };
        if fault == Fault::NotFound {
            self.images.forget(image);
            self.store.gone(image);
        }
        if let Some(launch) = self.launches.get_mut(&instance) {
            launch.failure = Some(failure);
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
        if let Some(launch) = self.launches.get_mut(&instance) {
            launch.unanswered -= 1;
            self.settle(instance);
        }
        Ok(())
    }

    /// If all that was asked for has been answered: the start succeeds, or is undone, or has been undone.
    fn settle(&mut self, instance: InstanceId) {
        let Some(launch) = self.launches.get_mut(&instance) else { return };
        if launch.unanswered > 0 {
            return;
        }
        if launch.failure.is_some() && !launch.taps.is_empty() && !planted::is(Planted::LeakTaps) {
            let taps = core::mem::take(&mut launch.taps);
            launch.unanswered = taps.len();
            let name = launch.name.clone();
            for tap in taps {
                self.ask_about(&name, Op::TapDestroy(tap), Waiting::TapDestroy(instance));
            }
            return;
        }
        let Some(launch) = self.launches.remove(&instance) else { return };
        let who = match &launch.creator {
            Some(creator) => creator.grant.who(),
            None => self.who_orders(&launch.name),
        };
        let asker = launch.creator.map(|creator| creator.asker);
        match (launch.pid, launch.failure) {
            (Some(pid), None) => {
                self.apply(Record::Started { instance, pid });
                self.happened(who, What::Started(pid), Some(launch.name.clone()));
                self.launched(&launch.name, asker);
            }
            (_, failure) => {
                if asker.is_none() {
                    self.apply(Record::Absent(instance));
                    // It says nothing of a generation that is on trial since, and was not tried yet.
                    let unikernel = self.state.get(&launch.name);
                    if unikernel.is_some_and(|unikernel| unikernel.trial.is_some() && unikernel.is_stale()) {
                        return self.reconcile(&launch.name);
                    }
                }
                self.launch_failed(&launch.name, asker, failure.unwrap_or(Refusal::ShimAway));
            }
        }
    }

    /// Its monitor runs.
    pub(crate) fn launched(&mut self, name: &Name, creator: Option<Asker>) {
        self.monitor_runs(name);
        if let (Some(asker), Some(brief)) = (creator, self.brief(name)) {
            self.answer(asker, Response::Created(Box::new(brief)));
        }
        // One that is of an earlier generation makes way for what is waited for.
        let current = self.state.get(name).filter(|unikernel| !unikernel.is_stale());
        let (stale, trial) = (current.is_none(), current.and_then(|unikernel| unikernel.trial));
        match &self.watch(name).order {
            _ if stale => {}
            Some(order) if order.goal == Goal::Run => self.order_done(name),
            Some(order) if matches!(order.goal, Goal::Return(_)) => self.order_returned(name),
            _ if trial.is_some_and(|trial| trial.window_s.is_none()) => self.accept(name),
            _ => {}
        }
        self.wake_waiting();
        self.reconcile(name);
    }

    /// Its monitor runs, as far as is known since now.
    fn monitor_runs(&mut self, name: &Name) {
        let now_ns = self.now.monotonic_ns;
        let supervision = self.state.get(name).map(|unikernel| unikernel.spec().supervision.clone());
        let watch = self.watch(name);
        watch.replace = false;
        watch.killed = false;
        watch.unhealthy = false;
        watch.failure = None;
        watch.started_ns = now_ns;
        watch.probing = Probing::new(supervision.as_ref(), now_ns);
    }

    /// It could not be started, and nothing of the attempt is left.
    fn launch_failed(&mut self, name: &Name, creator: Option<Asker>, refusal: Refusal) {
        let reason = Box::new(refusal.clone());
        if let Some(asker) = creator {
            self.happened(Who::ControlPlane, What::CreateFailed(reason), Some(name.clone()));
            self.refuse(asker, refusal);
            self.remove(name);
            return self.trim_images();
        }
        self.happened(Who::ControlPlane, What::StartFailed(reason), Some(name.clone()));
        let now_ns = self.now.monotonic_ns;
        let watch = self.watch(name);
        watch.quick_ends = watch.quick_ends.saturating_add(1);
        watch.not_before_ns = now_ns.saturating_add(pace::delay_ns(name, watch.quick_ends));
        watch.failure = Some(refusal.clone());
        let on_trial = self.state.get(name).is_some_and(|unikernel| unikernel.trial.is_some());
        match self.watch(name).order.as_ref().map(|order| &order.goal) {
            _ if on_trial => self.set_back(name, refusal, true),
            Some(Goal::Run) => self.order_undone(name, refusal),
            Some(Goal::Return(_)) => self.order_returned(name),
            Some(Goal::Stop) => self.order_done(name),
            Some(Goal::Destroy | Goal::Try(_)) | None => {}
        }
        self.reconcile(name);
    }

    /// The link is gone, and what became of the starts under way is told when it is back. Those who created are
    /// refused, and what they created is ended then.
    pub(crate) fn launches_lost(&mut self) {
        for (instance, launch) in core::mem::take(&mut self.launches) {
            if let Some(creator) = launch.creator {
                self.doomed.insert(instance);
                let refusal = launch.failure.unwrap_or(Refusal::ShimAway);
                let what = What::CreateFailed(Box::new(refusal.clone()));
                self.happened(Who::ControlPlane, what, Some(launch.name.clone()));
                self.refuse(creator.asker, refusal);
                self.forget_unikernel(&launch.name, Response::Refused(Refusal::ShimAway));
            }
        }
    }
}

fn spawn(instance: InstanceId, generation: Generation, taps: &[TapId], tag: Tag) -> Spawn {
    let spec = *generation.spec;
    let nets = spec.nets.into_vec().into_iter().zip(taps);
    let nets: Vec<_> = nets.map(|((net, mac), &tap)| SpawnNet { device: net.device, tap, mac }).collect();
    let blocks = spec.blocks.into_vec().into_iter();
    let blocks: Vec<_> =
        blocks.map(|block| SpawnBlock { device: block.device, volume: (&block.volume).into() }).collect();
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
