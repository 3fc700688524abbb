//! After the link has opened: what the shim's ledger holds is made one with what the control plane knows.
//!
//! * What both know goes on; if it ended meanwhile, it has ended.
//! * What only the ledger knows was started by a control plane that has lost its memory: its tag tells all that
//!   is needed to take it over. If this one's memory is complete, nobody was promised it, and it is ended. A tag that
//!   is not ours is left alone.
//! * What no operator was promised (its create was refused when the link broke) is ended.
//! * What only the control plane knows has ended unseen.

use alloc::{boxed::Box, format};

use petrel_wire::{
    ExitStatus,
    limits::{TAPS_MAX, UNIKERNELS_MAX},
    operator::{What, Who},
    shim::{Fault, InstanceId, Listed, Op, Reply, TapId},
};

use crate::{
    Engine, Level, policy,
    record::{Record, Spec},
    shim_client::{Handled, Nonsense, Waiting},
    state::Run,
};

impl Engine {
    pub(crate) fn listed(&mut self, result: Result<Reply, Fault>) -> Handled {
        let Ok(Reply::Listed { page, more }) = result else {
            return Err(Nonsense("another reply than a page of the ledger to a list"));
        };
        let before = self.shim.listed_up_to;
        for entry in page.into_vec() {
            if Some(entry.instance) <= self.shim.listed_up_to {
                return Err(Nonsense("a ledger that is not in the order of its ids"));
            }
            self.shim.listed_up_to = Some(entry.instance);
            self.adopt(entry);
        }
        let after = self.shim.listed_up_to;
        if more && after == before {
            return Err(Nonsense("an empty page of the ledger, and more to follow"));
        }
        if more {
            self.ask(&policy::upkeep(), Op::List { after }, Waiting::List);
        } else {
            self.ledger_read();
        }
        Ok(())
    }

    /// Takes in one entry of the ledger.
    fn adopt(&mut self, entry: Listed) {
        let Listed { instance, pid, exited, taps, tag } = entry;
        self.next_instance = self.next_instance.max(instance.0.saturating_add(1));
        self.shim.unlisted.remove(&instance);
        self.unsure.remove(&instance);
        if self.doomed.remove(&instance) {
            self.log(Level::Info, format!("instance {}: ended: its create had been refused", instance.0));
            self.reap(instance, exited.is_some());
        } else if let Some(unikernel) = self.state.by_id(instance) {
            match (unikernel.run, exited) {
                (Run::Starting | Run::Running { .. }, Some(status)) => self.ended_unseen(instance, status),
                (Run::Starting | Run::Running { .. }, None) => {
                    self.apply(Record::Started { instance, pid });
                }
                (Run::Ended { .. }, _) => {}
            }
        } else {
            self.adopt_unknown(instance, pid, exited, taps.into_vec(), Spec::from_tag(&tag));
        }
    }

    fn adopt_unknown(
        &mut self,
        instance: InstanceId,
        pid: u32,
        exited: Option<ExitStatus>,
        taps: alloc::vec::Vec<TapId>,
        spec: Option<Spec>,
    ) {
        let spec = spec.filter(|_| self.state.len() < UNIKERNELS_MAX);
        let nobodys = spec.is_some() && self.knows_all();
        let Some(spec) = spec.filter(|_| !nobodys) else {
            let what = if nobodys { "nobody's: ended" } else { "not ours: left alone" };
            self.log(Level::Warning, format!("instance {}: {what}", instance.0));
            let room = TAPS_MAX.saturating_sub(self.foreign_taps.len());
            self.foreign_taps.extend(taps.into_iter().take(room));
            if nobodys {
                self.reap(instance, exited.is_some());
            }
            return;
        };
        if let Some((older, unikernel)) = self.state.by_name(&spec.name) {
            // Names are given once. That there are two means that the older one's create was refused, that it
            // has been killed, and that the control plane went down before it could forget it.
            let ended = unikernel.ended();
            self.log(Level::Warning, format!("instance {}: superseded by {}", older.0, instance.0));
            self.note(Record::Removed(older));
            self.console_removed(older, ended);
            self.reap(older, ended.is_some());
        }
        self.happened(Who::ControlPlane, What::Adopted, Some(spec.name.clone()));
        self.note(Record::Creating { instance, spec: Box::new(spec), taps });
        self.note(Record::Started { instance, pid });
        if let Some(status) = exited {
            self.ended_unseen(instance, status);
        }
    }

    /// Whether what is ours and runs is in the state. It is not when nothing is remembered, or only a part.
    fn knows_all(&self) -> bool {
        self.state.is_complete() && self.journal.read_only().is_none()
    }

    fn ended_unseen(&mut self, instance: InstanceId, status: ExitStatus) {
        self.apply(Record::Ended { instance, status, at_ms: None });
        let name = self.state.by_id(instance).map(|unikernel| unikernel.spec.name.clone());
        self.happened(Who::ControlPlane, What::Exited(status), name);
        self.console_changed(instance);
    }

    /// The whole ledger has been read: what it does not hold is no more.
    fn ledger_read(&mut self) {
        for instance in core::mem::take(&mut self.shim.unlisted) {
            // What was listed and could not be ended is doomed again, and stays so.
            if self.doomed.remove(&instance) {
                continue;
            }
            let ended = self.state.by_id(instance).and_then(|unikernel| unikernel.ended());
            if self.unsure.remove(&instance) {
                self.note(Record::Removed(instance));
                self.console_removed(instance, ended);
            } else if ended.is_none() {
                self.ended_unseen(instance, ExitStatus::Unknown);
            }
        }
        if self.journal.is_sound() && !self.state.is_complete() {
            self.note(Record::Complete);
        }
        self.consoles_claimed();
        self.shim_ready();
    }
}
