//! Ending a monitor, and taking in that it has ended.
//!
//! A Solo5 guest cannot be told to end: the hvt tender answers SIGTERM by exiting with 1 at once, whatever the guest is
//! doing, and offers nothing else. So a stop is a kill. Should a monitor ever be able to tell its guest, the place for
//! it is [`Engine::kill`]: a softer operation first, and the kill at its deadline.

use petrel_wire::{
    ExitStatus, Name,
    operator::{Refusal, Response, Setback, What, Who, Wish},
    shim::{Fault, InstanceId, Op, Reply},
};

use crate::{
    Engine,
    limits::{KILL_DEADLINE_NS, LONG_LIFE_NS, RETRY_NS},
    planted::{self, Planted},
    record::Record,
    shim_client::{Handled, Nonsense, Waiting},
    supervise::{Asked, order::Goal, pace, probes::Probing},
    unikernel::Run,
};

impl Engine {
    pub(crate) fn kill(&mut self, name: &Name) {
        let Some(instance) = self.state.get(name).map(|unikernel| unikernel.instance) else { return };
        let overdue_ns = self.now.monotonic_ns.saturating_add(KILL_DEADLINE_NS);
        self.watch(name).asked = Some(Asked::Kill { overdue_ns });
        self.ask_about(name, Op::Kill(instance), Waiting::Kill(instance));
    }

    pub(crate) fn forget(&mut self, name: &Name) {
        let Some(instance) = self.state.get(name).map(|unikernel| unikernel.instance) else { return };
        // What the shim has under its number is another's, which is being ended: of itself nothing is left.
        if self.reaps.contains_key(&instance) {
            return self.remove(name);
        }
        self.watch(name).asked = Some(Asked::Forget);
        self.ask_about(name, Op::Forget(instance), Waiting::Forget(instance));
    }

    pub(crate) fn killed(&mut self, instance: InstanceId, result: Result<Reply, Fault>) -> Handled {
        if self.reaps.contains_key(&instance) {
            return self.reap_killed(instance, result);
        }
        match result {
            Ok(Reply::Done) if planted::is(Planted::DestroyEarly) => {
                self.name_of(instance).iter().for_each(|name| self.remove(name));
            }
            Ok(Reply::Done) => {
                self.name_of(instance).iter().for_each(|name| self.watch(name).killed = true);
            }
            Ok(_) => return Err(Nonsense("another reply than done to a kill")),
            // It is not there, so it has ended.
            Err(Fault::NotFound) => self.ended(instance, ExitStatus::Unknown, None),
            Err(fault) => self.ending_failed(instance, fault),
        }
        Ok(())
    }

    pub(crate) fn exited(&mut self, instance: InstanceId, status: ExitStatus) -> Handled {
        if planted::is(Planted::DropEvent) && instance.0.is_multiple_of(4) {
            return Ok(());
        }
        if self.launches.contains_key(&instance) {
            return Err(Nonsense("the end of a monitor that has not been started"));
        }
        if self.reaps.contains_key(&instance) {
            self.reap_exited(instance);
        } else if self.state.by_id(instance).is_some_and(|unikernel| unikernel.ended().is_none()) {
            self.ended(instance, status, Some(self.now.wall_ms));
        }
        Ok(())
    }

    /// The monitor of a unikernel has ended.
    pub(crate) fn ended(&mut self, instance: InstanceId, status: ExitStatus, at_ms: Option<u64>) {
        let Some(unikernel) = self.state.by_id(instance) else { return };
        let (name, stale, on_trial) =
            (unikernel.name().clone(), unikernel.is_stale(), unikernel.trial.is_some());
        self.apply(Record::Ended { instance, status, at_ms });
        self.happened(Who::ControlPlane, What::Exited(status), Some(name.clone()));
        let again = self.state.get(&name).is_some_and(|unikernel| unikernel.starts_again());
        let now_ns = self.now.monotonic_ns;
        let watch = self.watch(&name);
        let asked = matches!(watch.asked.take(), Some(Asked::Kill { .. }));
        let killed = (core::mem::take(&mut watch.killed) || asked) && !watch.unhealthy;
        watch.unhealthy = false;
        watch.failure = None;
        watch.probing = Probing::default();
        if now_ns.saturating_sub(watch.started_ns) >= LONG_LIFE_NS {
            watch.quick_ends = 0;
        }
        let by_itself = !watch.replace && !stale && !killed;
        if by_itself && on_trial {
            self.fail_trial(&name, Setback::Ended(status));
        } else if by_itself && again {
            watch.quick_ends = watch.quick_ends.saturating_add(1);
            let delay_ns = pace::delay_ns(&name, watch.quick_ends);
            watch.not_before_ns = now_ns.saturating_add(delay_ns);
            self.happened(Who::ControlPlane, What::BackOff(delay_ns / 1_000_000), Some(name.clone()));
        }
        let replace = core::mem::take(&mut self.watch(&name).replace);
        if replace || killed {
            self.clear_way(&name);
        }
        if self.goal(&name) == Some(&Goal::Stop) {
            self.order_done(&name);
        }
        self.reconcile(&name);
        // Only now is it known whether its console goes on.
        let instance = self.state.get(&name).map_or(instance, |unikernel| unikernel.instance);
        self.console_changed(instance);
    }

    /// An instance that has ended is forgotten, whatever the policy says of its end: another one takes its place.
    pub(crate) fn clear_way(&mut self, name: &Name) {
        let Some(unikernel) = self.state.get(name) else { return };
        if unikernel.wish == Wish::Running && unikernel.ended().is_some() {
            let instance = unikernel.instance;
            self.apply(Record::Absent(instance));
            self.reap(instance, true);
        }
    }

    pub(crate) fn forgotten(&mut self, instance: InstanceId, result: Result<Reply, Fault>) -> Handled {
        if self.reaps.contains_key(&instance) {
            return self.reap_forgotten(instance, result);
        }
        match result {
            Ok(Reply::Done) | Err(Fault::NotFound) => {
                if let Some(name) = self.name_of(instance) {
                    self.remove(&name);
                }
            }
            Ok(_) => return Err(Nonsense("another reply than done to a forget")),
            Err(fault) => self.ending_failed(instance, fault),
        }
        Ok(())
    }

    /// The shim could not end it: if that is still to be, it is tried again after a while, and told once.
    fn ending_failed(&mut self, instance: InstanceId, fault: Fault) {
        let Some(name) = self.name_of(instance) else { return };
        let failure = Some(Refusal::Shim(fault));
        if self.watch(&name).failure != failure {
            self.happened(Who::ControlPlane, What::EndFailed(fault), Some(name.clone()));
        }
        let not_before_ns = self.now.monotonic_ns.saturating_add(RETRY_NS);
        let watch = self.watch(&name);
        watch.asked = None;
        watch.failure = failure;
        watch.not_before_ns = not_before_ns;
        self.order_undone(&name, Refusal::Shim(fault));
        self.reconcile(&name);
    }

    /// Reports a kill that shows no end, and kills once more: it costs nothing, and may help.
    pub(crate) fn overdue(&mut self, name: &Name) {
        let Some(Asked::Kill { overdue_ns }) = self.watches.get(name).and_then(|watch| watch.asked) else {
            return;
        };
        if overdue_ns > self.now.monotonic_ns {
            return;
        }
        let seconds = u32::try_from(KILL_DEADLINE_NS / 1_000_000_000).unwrap_or(u32::MAX);
        self.happened(Who::ControlPlane, What::NotEnding(seconds), Some(name.clone()));
        if let Some(order) = self.take_order(name) {
            for asker in order.askers {
                self.refuse(asker, Refusal::NotEnding { seconds });
            }
        }
        if self.shim.is_ready() {
            self.kill(name);
        }
    }

    pub(crate) fn name_of(&self, instance: InstanceId) -> Option<Name> {
        self.state.by_id(instance).map(|unikernel| unikernel.name().clone())
    }

    /// Nothing of the unikernel is left on the host.
    pub(crate) fn remove(&mut self, name: &Name) {
        self.forget_unikernel(name, Response::Destroyed);
    }

    /// A unikernel is no more. Who waited for its destruction is answered so.
    pub(crate) fn forget_unikernel(&mut self, name: &Name, answer: Response) {
        let Some(unikernel) = self.state.get(name) else { return };
        let (instance, ended) = (unikernel.instance, unikernel.ended());
        let (who, ordered) = (self.who_orders(name), unikernel.wish == Wish::Destroyed);
        self.apply(Record::Removed(name.clone()));
        self.console_removed(instance, ended);
        if ordered && answer == Response::Destroyed {
            self.happened(who, What::Destroyed, Some(name.clone()));
        }
        let Some(order) = self.unwatch(name).and_then(|watch| watch.order) else { return };
        let answer = match (&order.goal, answer) {
            (Goal::Destroy, Response::Refused(_)) => Response::Refused(Refusal::BeingDestroyed),
            (Goal::Destroy, answer) | (_, answer @ Response::Refused(_)) => answer,
            _ => Response::Refused(Refusal::NoSuchUnikernel),
        };
        for asker in order.askers {
            self.answer(asker, answer.clone());
        }
    }

    /// The link is gone: what the shim was asked to end is as it was, as far as is known.
    pub(crate) fn endings_lost(&mut self) {
        for (name, watch) in &mut self.watches {
            let asked = watch.asked.take();
            // It may have got there.
            watch.killed |= matches!(asked, Some(Asked::Kill { .. }));
            if asked == Some(Asked::Forget)
                && let Some(unikernel) = self.state.get(name)
                && let Run::Ended { .. } = unikernel.run
            {
                self.unsure.insert(unikernel.instance);
            }
        }
    }
}
