//! Each effect, as the host meets it: somebody has asked for it, and nothing runs twice.

use petrel_wire::{
    ExitStatus,
    operator::Wish,
    shim::{InstanceId, Op, Spawn},
};

use super::{Checked, Model, ensure, starts_again};
use crate::host::{Host, name_of};

impl Model {
    /// The shim is about to be asked this.
    pub fn asked_of_host(&mut self, op: &Op, host: &Host) -> Checked {
        match op {
            Op::ImageRemove(digest) => self.image_removed(*digest),
            Op::Kill(instance) => self.may_kill(*instance, host),
            Op::Forget(instance) => {
                ensure(!host.is_foreign(*instance), || format!("{instance:?} is not ours to forget"))
            }
            _ => Ok(()),
        }
    }

    fn may_kill(&mut self, instance: InstanceId, host: &Host) -> Checked {
        ensure(!host.is_foreign(instance), || format!("{instance:?} is not ours to kill"))?;
        let Some(name) = host.processes.get(&instance).and_then(|process| process.name.clone()) else {
            return Ok(());
        };
        let kept = self.fate(&name).certain().is_some_and(|(present, create)| {
            let healthy = create.supervision.alive.is_none() && present.wish == Some(Wish::Running);
            healthy && present.instance == Some(instance)
        });
        ensure(!kept, || format!("{name} is killed, and nobody asked for that"))
    }

    /// The shim has started this.
    pub fn started(&mut self, spawn: &Spawn, host: &Host) -> Checked {
        let Some(name) = name_of(&spawn.tag) else {
            return ensure(false, || "a monitor is started with a tag that does not tell its name".into());
        };
        let fate = self.fate(&name);
        let wanted = fate.may_be() || fate.doubtful;
        ensure(wanted, || format!("{name} is started, and nobody asked for that"))?;
        if let Some((present, create)) = fate.certain() {
            ensure(present.wish != Some(Wish::Stopped), || format!("{name} is started, and was stopped"))?;
            let ended = present.instance.filter(|instance| host.has_record(*instance));
            let ended = ended.and_then(|instance| host.ends.get(&instance).copied());
            let restart = &create.supervision.restart;
            // The shim may not have seen how it ended.
            let again = |status| starts_again(restart, status) || starts_again(restart, ExitStatus::Unknown);
            ensure(ended.is_none_or(again), || {
                format!("{name} is started again after {ended:?} in spite of {restart:?}")
            })?;
        }
        if let Some(present) = fate.present() {
            (present.instance, present.console_epoch) = (Some(spawn.instance), None);
        }
        let (given_mib, host_mib) = (host.memory_given_mib(), host.facts.memory_mib);
        ensure(given_mib <= host_mib, || format!("{given_mib} MiB of {host_mib} are given with {name}"))?;
        let running = host.running_of(&name);
        ensure(running <= 1, || format!("{name} runs {running} times"))
    }
}
