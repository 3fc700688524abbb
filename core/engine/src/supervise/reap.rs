//! Ending what is nobody's: instances that no operator was promised, and earlier ones of a unikernel that goes on.

use alloc::{collections::BTreeMap, format, vec::Vec};

use petrel_wire::shim::{Fault, InstanceId, Op, Reply};

use crate::{
    Engine, Level,
    limits::RETRY_NS,
    policy::upkeep,
    shim_client::{Handled, Nonsense, Waiting},
};

/// The instances that are being ended and are nobody's.
pub(crate) type Reaps = BTreeMap<InstanceId, Reap>;

/// How far the end of an instance has got.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reap {
    /// Its monitor has ended: it is only to be forgotten.
    ended: bool,
    /// The shim could not do it, and is asked again at this moment (monotonic nanoseconds).
    again_ns: Option<u64>,
}

impl Engine {
    /// Ends an instance and has the shim forget it.
    pub(crate) fn reap(&mut self, instance: InstanceId, ended: bool) {
        let asked = self.reaps.get(&instance).filter(|reap| reap.again_ns.is_none());
        if asked.is_some_and(|reap| reap.ended || !ended) {
            return;
        }
        self.reaps.insert(instance, Reap { ended, again_ns: None });
        let (op, waiting) = match ended {
            true => (Op::Forget(instance), Waiting::Forget(instance)),
            false => (Op::Kill(instance), Waiting::Kill(instance)),
        };
        self.ask(&upkeep(), op, waiting);
    }

    pub(super) fn reap_killed(&mut self, instance: InstanceId, result: Result<Reply, Fault>) -> Handled {
        match result {
            Ok(Reply::Done) => {}
            Ok(_) => return Err(Nonsense("another reply than done to a kill")),
            Err(Fault::NotFound) => drop(self.reaps.remove(&instance)),
            Err(fault) => self.reap_failed(instance, fault),
        }
        Ok(())
    }

    pub(super) fn reap_exited(&mut self, instance: InstanceId) {
        self.reap(instance, true);
    }

    pub(super) fn reap_forgotten(&mut self, instance: InstanceId, result: Result<Reply, Fault>) -> Handled {
        match result {
            Ok(Reply::Done) | Err(Fault::NotFound) => drop(self.reaps.remove(&instance)),
            Ok(_) => return Err(Nonsense("another reply than done to a forget")),
            Err(fault) => self.reap_failed(instance, fault),
        }
        Ok(())
    }

    /// Tried again after a while.
    fn reap_failed(&mut self, instance: InstanceId, fault: Fault) {
        self.log(Level::Error, format!("instance {}: could not be ended: {fault:?}", instance.0));
        if let Some(reap) = self.reaps.get_mut(&instance) {
            reap.again_ns = Some(self.now.monotonic_ns.saturating_add(RETRY_NS));
        }
    }

    /// When the first of those is tried again, in monotonic nanoseconds.
    pub(crate) fn reap_deadline(&self) -> Option<u64> {
        self.reaps.values().filter_map(|reap| reap.again_ns).min()
    }

    /// Tries again what is due by now.
    pub(crate) fn reaps_due(&mut self) {
        let now_ns = self.now.monotonic_ns;
        let is_due = |reap: &Reap| reap.again_ns.is_some_and(|at_ns| at_ns <= now_ns);
        let due = self.reaps.iter().filter(|(_, reap)| is_due(reap));
        let due: Vec<_> = due.map(|(&instance, reap)| (instance, reap.ended)).collect();
        for (instance, ended) in due {
            self.reap(instance, ended);
        }
    }

    /// The link is gone: what was being ended is ended when it is back.
    pub(crate) fn reaps_lost(&mut self) {
        self.doomed.extend(core::mem::take(&mut self.reaps).into_keys());
    }
}
