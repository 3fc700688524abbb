//! Ending what is nobody's: instances that no operator was promised, and earlier ones of a unikernel that goes on.

use alloc::{collections::BTreeSet, format};

use petrel_wire::shim::{Fault, InstanceId, Op, Reply};

use crate::{
    Engine, Level,
    policy::upkeep,
    shim_client::{Handled, Nonsense, Waiting},
};

/// The instances that are being ended and are nobody's.
pub(crate) type Reaps = BTreeSet<InstanceId>;

impl Engine {
    /// Ends an instance and has the shim forget it.
    pub(crate) fn reap(&mut self, instance: InstanceId, ended: bool) {
        self.reaps.insert(instance);
        if ended {
            self.reap_exited(instance)
        } else {
            self.ask(&upkeep(), Op::Kill(instance), Waiting::Kill(instance))
        }
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
        self.ask(&upkeep(), Op::Forget(instance), Waiting::Forget(instance));
    }

    pub(super) fn reap_forgotten(&mut self, instance: InstanceId, result: Result<Reply, Fault>) -> Handled {
        match result {
            Ok(Reply::Done) | Err(Fault::NotFound) => drop(self.reaps.remove(&instance)),
            Ok(_) => return Err(Nonsense("another reply than done to a forget")),
            Err(fault) => self.reap_failed(instance, fault),
        }
        Ok(())
    }

    /// Tried again when the link has been opened anew.
    fn reap_failed(&mut self, instance: InstanceId, fault: Fault) {
        self.log(Level::Error, format!("instance {}: could not be ended: {fault:?}", instance.0));
        self.reaps.remove(&instance);
        self.doomed.insert(instance);
    }

    /// The link is gone: what was being ended is ended when it is back.
    pub(crate) fn reaps_lost(&mut self) {
        self.doomed.append(&mut self.reaps);
    }
}
