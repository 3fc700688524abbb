//! Orders about unikernels that there are: their answers, and what holds after them.

use petrel_wire::{
    ExitStatus,
    operator::{
        Create, GenerationInfo, Refusal, Response, Restart, RestartWhen, State, Unikernel, VolumeRefusal,
        Wish,
    },
};

use super::{Checked, Fate, Model, Violation, ensure};
use crate::{
    asked::{Kind, Order},
    host::Host,
};

impl Model {
    /// An order has done well.
    pub fn order_answered(&mut self, order: &Order, response: &Response) -> Checked {
        let (brief, wish) = match (&order.kind, response) {
            (Kind::Start | Kind::Restart(_), Response::Started(brief)) => (brief, Some(Wish::Running)),
            (Kind::Stop, Response::Stopped(brief)) => (brief, Some(Wish::Stopped)),
            // What is stopped gets another generation and stays stopped.
            (Kind::Update(_) | Kind::Rollback, Response::Updated(brief)) => (brief, None),
            (kind, response) => return Err(Violation(format!("{kind:?} was answered by {response:?}"))),
        };
        ensure(brief.name == order.name, || format!("{order:?} was answered with {brief:?}"))?;
        let moment = self.policies.tick();
        let fate = self.fate(&order.name);
        fate.since = moment;
        ensure(fate.may_be(), || format!("{} was destroyed, and obeys an order", order.name))?;
        let last = is_last_word(order, fate);
        let Some(present) = fate.present() else { return Ok(()) };
        if brief.state == State::Waiting {
            // It is to be started, however its latest monitor ended.
            present.instance = None;
        }
        (present.create, present.wish) = if last { (order.after(), wish) } else { (None, None) };
        present.create.as_deref().map_or(Ok(()), |create| is_what_was_ordered(create, brief))
    }

    /// An order is refused, with or without reason.
    pub fn order_refused(&mut self, order: &Order, refusal: &Refusal, host: &Host) -> bool {
        let after = order.after();
        let fate = self.fate(&order.name);
        let (last, must_be) = (is_last_word(order, fate), fate.must_be());
        let busy = !is_alone(order, fate);
        let holds = match refusal {
            Refusal::ShimAway => true,
            Refusal::Shim(fault) => self.is_possible(*fault),
            Refusal::OverPolicy { .. } | Refusal::CpuPolicy { .. } | Refusal::BridgePolicy { .. } => {
                self.policies.forbids(&order.name, refusal)
            }
            Refusal::NoSuchUnikernel => !must_be,
            Refusal::BeingDestroyed => busy || !must_be,
            Refusal::Superseded => busy || !must_be,
            Refusal::NoSuchGeneration => matches!(order.kind, Kind::Rollback),
            Refusal::RolledBack { failed, generation, .. } => {
                !matches!(order.kind, Kind::Stop) && failed != generation
            }
            Refusal::NotEnding { .. } => true,
            // What an earlier one of its generations was started after may be gone.
            // … and need not be seen by whoever asks.
            Refusal::AfterUnknown(_) | Refusal::AfterCycle(_) | Refusal::OutsideScope => true,
            Refusal::Supervision => matches!(order.kind, Kind::Update(_)),
            refusal => {
                // A change is one of what there is when its image has been looked into, which others may have made.
                let known = last && after.is_some();
                after.is_some_and(|create| self.create_refused(&create, refusal, host))
                    || !known && self.is_about_resources(refusal, host)
            }
        };
        // It goes on with what was asked for, or nobody can say.
        let lasting = self.disk_failed
            || matches!(refusal, Refusal::NotEnding { .. } | Refusal::ReadOnly(_) | Refusal::Superseded);
        let fate = self.fate(&order.name);
        if lasting {
            fate.leave_loose();
        } else if let Some(present) = fate.present() {
            present.create = order.before.clone().filter(|_| last);
            // It may have been ended for what could not be done, and is started again.
            present.instance = None;
        }
        holds
    }

    /// Whether a refusal is one that a generation that is not known can meet.
    fn is_about_resources(&self, refusal: &Refusal, host: &Host) -> bool {
        match refusal {
            Refusal::NoSuchImage => true,
            Refusal::Memory { max_mib, .. } => u64::from(*max_mib) <= host.facts.memory_mib,
            Refusal::MemoryGiven { host_mib, given_mib, asked_mib } => {
                given_mib + u64::from(*asked_mib) > *host_mib
            }
            Refusal::Volume(VolumeRefusal::InUse { volume, .. }) => host.has_volume(volume),
            Refusal::Volume(
                VolumeRefusal::Unknown(volume)
                | VolumeRefusal::Busy(volume)
                | VolumeRefusal::Missing(volume)
                | VolumeRefusal::Orphan(volume),
            ) => !host.has_volume(volume) || self.is_unsure(volume),
            Refusal::DeviceMissing { .. }
            | Refusal::DeviceUnknown { .. }
            | Refusal::NotAnImage(_)
            | Refusal::NoMonitor { .. }
            | Refusal::Arguments { .. } => true,
            Refusal::Full(_) => true,
            _ => false,
        }
    }

    /// A generation of a unikernel is told.
    pub fn generation_told(&mut self, last: &mut u32, told: &GenerationInfo) -> Checked {
        ensure(told.number > *last, || format!("generation {} after {last}", told.number))?;
        *last = told.number;
        Ok(())
    }
}

/// Whether nothing else was asked about the unikernel since, nor is.
fn is_alone(order: &Order, fate: &Fate) -> bool {
    let alone = fate.ordered == 1 && fate.creating + fate.destroying == 0;
    alone && fate.orders == order.number && !fate.loose && !fate.doubtful
}

/// … and it is known what was before.
pub fn is_last_word(order: &Order, fate: &Fate) -> bool {
    is_alone(order, fate) && order.before.is_some()
}

fn is_what_was_ordered(create: &Create, brief: &Unikernel) -> Checked {
    let same = brief.image == create.image && brief.memory_mib == create.memory_mib;
    ensure(same, || format!("{create:?} was ordered, and it is {brief:?}"))
}

/// Whether one that ended so by itself is to be started again.
pub fn starts_again(restart: &Restart, status: ExitStatus) -> bool {
    let code = match status {
        ExitStatus::Code(code) => Some(code),
        ExitStatus::Signal(_) | ExitStatus::Unknown => None,
    };
    let listed = code.is_some_and(|code| restart.codes.contains(&code));
    // A tender or a guest that says it was started wrongly says so the next time.
    let wrongly = code.is_some_and(|code| code == 1 || (60..65).contains(&code));
    match restart.when {
        RestartWhen::Never => false,
        RestartWhen::Always => listed || !wrongly,
        RestartWhen::OnFailure => {
            listed || (!wrongly && code != Some(0) && (code.is_none() || restart.codes.is_empty()))
        }
    }
}
