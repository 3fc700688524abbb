//! Each effect, as the host meets it: somebody has asked for it, and nothing runs twice.

use petrel_wire::shim::{InstanceId, Op, Spawn};

use super::{Checked, Known, Model, ensure};
use crate::host::{Host, name_of};

impl Model {
    /// The shim is about to be asked this.
    pub fn asked_of_host(&mut self, op: &Op, host: &Host) -> Checked {
        match op {
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
        let fate = self.fate(&name);
        let kept = match &fate.known {
            Known::Present(present) => present.instance == Some(instance) && fate.destroying == 0,
            Known::Absent | Known::Open => false,
        };
        ensure(!kept, || format!("{name} is killed, and nobody asked for that"))
    }

    /// The shim has started this.
    pub fn started(&mut self, spawn: &Spawn, host: &Host) -> Checked {
        let Some(name) = name_of(&spawn.tag) else {
            return ensure(false, || "a monitor is started with a tag that does not tell its name".into());
        };
        let fate = self.fate(&name);
        let wanted = fate.creating > 0 || fate.doubtful || matches!(fate.known, Known::Open);
        ensure(wanted, || format!("{name} is started, and nobody asked for that"))?;
        let running = host.running_of(&name);
        ensure(running <= 1, || format!("{name} runs {running} times"))
    }
}
