//! Ending a unikernel: kill its monitor, wait until it has ended, have the shim forget it, answer.

use alloc::{collections::BTreeMap, format, vec::Vec};

use petrel_wire::{
    ExitStatus, Name,
    operator::{Refusal, Response, What, Who},
    shim::{Fault, InstanceId, Op, Reply},
};

use crate::{
    Engine, Level,
    planted::{self, Planted},
    policy,
    policy::Grant,
    record::Record,
    session::{Asker, Kind},
    shim_client::{Handled, Nonsense, Waiting},
    state::Run,
};

pub(crate) type Stops = BTreeMap<InstanceId, Stop>;

/// A unikernel that is being ended, or a monitor that is nobody's.
#[derive(Debug)]
pub(crate) struct Stop {
    grant: Grant,
    /// Those who wait until it is gone.
    askers: Vec<Asker>,
    phase: Phase,
}

/// What a stop waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// For its create to succeed or fail.
    Creating,
    /// For its monitor to end.
    Killing,
    /// For the answer to the `Forget`.
    Forgetting,
}

impl Engine {
    pub(crate) fn destroy(&mut self, asker: Asker, grant: Grant, name: &Name) {
        if !self.shim.is_ready() {
            return self.refuse(asker, Refusal::ShimAway);
        }
        let Some((instance, unikernel)) = self.state.by_name(name) else {
            return self.refuse(asker, Refusal::NoSuchUnikernel);
        };
        let phase = match unikernel.run {
            Run::Starting => Phase::Creating,
            Run::Running { .. } => Phase::Killing,
            Run::Ended { .. } => Phase::Forgetting,
        };
        self.set_kind(asker, Kind::Destroy(instance));
        if let Some(stop) = self.stops.get_mut(&instance) {
            return stop.askers.push(asker);
        }
        self.happened(grant.who(), What::Destroying, Some(name.clone()));
        self.apply(Record::Destroying(instance));
        self.stops.insert(instance, Stop { grant, askers: alloc::vec![asker], phase });
        self.stop_go_on(instance, phase);
    }

    /// Ends what no operator was promised.
    pub(crate) fn reap(&mut self, instance: InstanceId, ended: bool) {
        let phase = if ended { Phase::Forgetting } else { Phase::Killing };
        self.stops.insert(instance, Stop { grant: policy::upkeep(), askers: Vec::new(), phase });
        self.stop_go_on(instance, phase);
    }

    /// Enters a phase.
    fn stop_go_on(&mut self, instance: InstanceId, phase: Phase) {
        let Some(stop) = self.stops.get_mut(&instance) else { return };
        stop.phase = phase;
        let (op, waiting) = match phase {
            Phase::Creating => return,
            Phase::Killing => (Op::Kill(instance), Waiting::Kill(instance)),
            Phase::Forgetting => (Op::Forget(instance), Waiting::Forget(instance)),
        };
        self.shim.ask(self.now, &stop.grant, op, waiting, &mut self.outputs);
    }

    /// Its monitor runs now: if somebody waits to end it, it is killed.
    pub(crate) fn stop_after_create(&mut self, instance: InstanceId) {
        if self.stops.contains_key(&instance) {
            self.stop_go_on(instance, Phase::Killing);
        }
    }

    pub(crate) fn killed(&mut self, instance: InstanceId, result: Result<Reply, Fault>) -> Handled {
        match result {
            Ok(Reply::Done) if planted::is(Planted::DestroyEarly) => self.gone(instance),
            Ok(Reply::Done) => {}
            Ok(_) => return Err(Nonsense("another reply than done to a kill")),
            Err(Fault::NotFound) => self.gone(instance),
            Err(fault) => self.stop_failed(instance, Phase::Killing, fault),
        }
        Ok(())
    }

    pub(crate) fn exited(&mut self, instance: InstanceId, status: ExitStatus) -> Handled {
        if planted::is(Planted::DropEvent) && instance.0.is_multiple_of(4) {
            return Ok(());
        }
        if self.creations.contains_key(&instance) {
            return Err(Nonsense("the end of a monitor that has not been started"));
        }
        if let Some(unikernel) = self.state.by_id(instance)
            && unikernel.ended().is_none()
        {
            let (name, at_ms) = (unikernel.spec.name.clone(), Some(self.now.wall_ms));
            self.apply(Record::Ended { instance, status, at_ms });
            self.happened(Who::ControlPlane, What::Exited(status), Some(name));
            self.console_changed(instance);
        }
        if self.stops.get(&instance).is_some_and(|stop| stop.phase == Phase::Killing) {
            self.stop_go_on(instance, Phase::Forgetting);
        }
        Ok(())
    }

    pub(crate) fn forgotten(&mut self, instance: InstanceId, result: Result<Reply, Fault>) -> Handled {
        match result {
            Ok(Reply::Done) | Err(Fault::NotFound) => self.gone(instance),
            Ok(_) => return Err(Nonsense("another reply than done to a forget")),
            Err(fault) => self.stop_failed(instance, Phase::Forgetting, fault),
        }
        Ok(())
    }

    /// The shim could not do it: the unikernel stays as it is.
    fn stop_failed(&mut self, instance: InstanceId, phase: Phase, fault: Fault) {
        if self.stops.get(&instance).is_none_or(|stop| stop.phase != phase) {
            return;
        }
        self.apply(Record::Kept(instance));
        if let Some(unikernel) = self.state.by_id(instance) {
            let name = unikernel.spec.name.clone();
            self.happened(Who::ControlPlane, What::DestroyFailed(fault), Some(name));
        } else {
            // Nobody's: tried again when the link has been opened anew.
            self.log(Level::Error, format!("instance {}: could not be ended: {fault:?}", instance.0));
            self.doomed.insert(instance);
        }
        for asker in self.stops.remove(&instance).map(|stop| stop.askers).unwrap_or_default() {
            self.refuse(asker, Refusal::Shim(fault));
        }
    }

    /// Nothing of the unikernel is left on the host.
    pub(crate) fn gone(&mut self, instance: InstanceId) {
        let unikernel = self.state.by_id(instance);
        let ended = unikernel.and_then(|unikernel| unikernel.ended());
        let name = unikernel.map(|unikernel| unikernel.spec.name.clone());
        self.apply(Record::Removed(instance));
        self.console_removed(instance, ended);
        let Some(stop) = self.stops.remove(&instance) else { return };
        if name.is_some() {
            self.happened(stop.grant.who(), What::Destroyed, name);
        }
        for asker in stop.askers {
            self.answer(asker, Response::Destroyed);
        }
    }

    /// Nobody waits any more for the answer to this destroy, which goes on all the same.
    pub(crate) fn destroy_abandoned(&mut self, asker: Asker, instance: InstanceId) {
        if let Some(stop) = self.stops.get_mut(&instance) {
            stop.askers.retain(|waiting| *waiting != asker);
        }
    }

    /// The link is gone: the destroys under way are refused, what is nobody's is ended when it is back.
    pub(crate) fn stops_lost(&mut self) {
        for (instance, stop) in core::mem::take(&mut self.stops) {
            for asker in stop.askers {
                self.refuse(asker, Refusal::ShimAway);
            }
            if self.state.by_id(instance).is_none() {
                self.doomed.insert(instance);
            } else {
                self.apply(Record::Kept(instance));
                if stop.phase == Phase::Forgetting {
                    self.unsure.insert(instance);
                }
            }
        }
    }
}
