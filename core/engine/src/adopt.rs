//! After the link has opened: what the shim's ledger holds is made one with what the control plane knows.
//!
//! * What both know goes on; if it ended meanwhile, it has ended.
//! * What only the ledger knows: if the control plane began without any memory, or with a part of it, it was started by an
//!   earlier one, and its tag tells all that is needed to take it over. Otherwise nobody was promised it, and it is ended. A tag that is
//!   not ours is left alone.
//! * But what an earlier control plane started in the place of one that is known, while nothing could be kept, is that one
//!   now: the workload goes on.
//! * What no operator was promised (its create was refused when the link broke) is ended.
//! * What only the control plane knows has ended unseen. But when it has just begun with a memory, the host may have
//!   been started anew: then what ran is started again, whatever its policy says of its own ends.

use alloc::{format, vec::Vec};

use petrel_wire::{
    ExitStatus, Name,
    limits::{TAPS_MAX, UNIKERNELS_MAX},
    operator::{ReadOnly, What, Who},
    shim::{Fault, InstanceId, Listed, Op, Reply, TapId},
};

use crate::{
    Engine, Level,
    planted::{self, Planted},
    policy,
    record::{Generation, Record},
    shim_client::{Handled, Nonsense, Waiting},
    unikernel::Run,
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
        // Whatever becomes of it here, its taps are its own until it has ended.
        let taps_end = taps.iter().map(|tap| tap.0.saturating_add(1)).max();
        self.next_tap = self.next_tap.max(taps_end.unwrap_or(0));
        self.shim.unlisted.remove(&instance);
        self.unsure.remove(&instance);
        if self.doomed.remove(&instance) {
            if planted::is(Planted::ForgetOrphan) {
                return;
            }
            self.log(Level::Info, format!("instance {}: ended: nobody was promised it", instance.0));
            self.reap(instance, exited.is_some());
            return;
        }
        let generation = Generation::from_tag(&tag);
        let told = generation.as_ref().map(|generation| &generation.spec.name);
        let known = self.state.by_id(instance);
        if let Some(unikernel) = known.filter(|known| told.is_none_or(|name| name == known.name())) {
            let (name, first) = (unikernel.name().clone(), unikernel.started.is_none());
            match (unikernel.run, exited) {
                // It was started while nothing could be kept.
                (Run::Absent, _) if first => {
                    self.note(Record::Starting { name: name.clone(), instance, taps: taps.into_vec() });
                    self.adopt_started(&name, instance, pid, exited);
                }
                (Run::Starting | Run::Running { .. }, _) => self.adopt_started(&name, instance, pid, exited),
                (Run::Ended { .. }, Some(_)) => {}
                // Another was to take its place and it was not forgotten yet; or it was started under an old number, by
                // a control plane that could not read what is kept.
                (Run::Absent | Run::Ended { .. }, exited) => self.reap(instance, exited.is_some()),
            }
        } else if known.is_some() {
            // Numbers are given once, but for a control plane that could not read which were. That one is not ours.
            self.log(Level::Warning, format!("instance {}: under a number of another's: ended", instance.0));
            self.shim.unlisted.insert(instance);
            self.reap(instance, exited.is_some());
        } else {
            self.adopt_unknown(instance, pid, exited, taps.into_vec(), generation);
        }
    }

    /// Takes over a monitor whose start is known by now.
    fn adopt_started(&mut self, name: &Name, instance: InstanceId, pid: u32, exited: Option<ExitStatus>) {
        match exited {
            None => self.adopt_running(name, instance, pid),
            Some(status) => self.ended(instance, status, None),
        }
    }

    /// Takes over a monitor that runs. If it was known to run before, its probes go on as they were.
    fn adopt_running(&mut self, name: &Name, instance: InstanceId, pid: u32) {
        let known = self.watches.get(name).is_some_and(|watch| watch.started_ns > 0);
        let run = self.state.by_id(instance).map(|unikernel| unikernel.run);
        self.apply(Record::Started { instance, pid });
        if !known || run == Some(Run::Starting) {
            self.launched(name, None);
            self.presume_ready(name);
        }
    }

    fn adopt_unknown(
        &mut self,
        instance: InstanceId,
        pid: u32,
        exited: Option<ExitStatus>,
        taps: Vec<TapId>,
        generation: Option<Generation>,
    ) {
        let Some(generation) = generation.filter(|_| self.state.len() < UNIKERNELS_MAX) else {
            self.log(Level::Warning, format!("instance {}: not ours: left alone", instance.0));
            return self.keep_off(taps);
        };
        let name = generation.spec.name.clone();
        if self.is_next_of(&name, instance, &generation) {
            return self.adopt_next(&name, instance, pid, exited, taps);
        }
        if self.knows_all() || self.shim.ever_ready() {
            self.log(Level::Warning, format!("instance {}: nobody's: ended", instance.0));
            self.keep_off(taps);
            return self.reap(instance, exited.is_some());
        }
        // Names are given once, so the older one has been killed or has ended, and the control plane went down before it
        // could have it forgotten.
        if let Some(other) = self.state.get(&name) {
            let (other, ended) = (other.instance, other.ended());
            let (older, newer) = (other.min(instance), other.max(instance));
            self.log(Level::Warning, format!("instance {}: superseded by {}", older.0, newer.0));
            if older == instance {
                self.keep_off(taps);
                return self.reap(instance, exited.is_some());
            }
            self.note(Record::Removed(name.clone()));
            self.unwatch(&name);
            self.console_removed(older, ended);
            self.reap(older, ended.is_some());
        }
        self.happened(Who::ControlPlane, What::Adopted, Some(name.clone()));
        self.note(Record::Created { instance, generation });
        self.watch(&name);
        self.note(Record::Starting { name: name.clone(), instance, taps });
        self.adopt_started(&name, instance, pid, exited);
    }

    /// Whether an unknown instance is what an earlier control plane started in the place of one that is known, while
    /// nothing could be kept.
    fn is_next_of(&self, name: &Name, instance: InstanceId, generation: &Generation) -> bool {
        let Some(known) = self.state.get(name).filter(|_| !self.shim.ever_ready()) else { return false };
        let gone = !known.is_up() || self.shim.unlisted.contains(&known.instance);
        known.instance < instance
            && known.started == Some(generation.number)
            && known.current == *generation
            && gone
    }

    fn adopt_next(
        &mut self,
        name: &Name,
        instance: InstanceId,
        pid: u32,
        exited: Option<ExitStatus>,
        taps: Vec<TapId>,
    ) {
        let Some(known) = self.state.get(name) else { return };
        let (earlier, up, ended) = (known.instance, known.is_up(), known.ended().is_some());
        self.log(Level::Info, format!("{name}: was started again as instance {}", instance.0));
        if up {
            self.shim.unlisted.remove(&earlier);
            self.apply(Record::Absent(earlier));
        } else if ended {
            self.reap(earlier, true);
        }
        self.note(Record::Starting { name: name.clone(), instance, taps });
        self.console_moved(earlier, instance);
        self.adopt_started(name, instance, pid, exited);
    }

    /// These taps are not to be given to others.
    fn keep_off(&mut self, taps: Vec<TapId>) {
        let room = TAPS_MAX.saturating_sub(self.foreign_taps.len());
        self.foreign_taps.extend(taps.into_iter().take(room));
    }

    /// Whether what is ours and runs is in the state. It is not when nothing is remembered, or only a part; that the
    /// disk takes nothing more does not take away what was read.
    pub(crate) fn knows_all(&self) -> bool {
        let whole = matches!(self.journal.read_only(), None | Some(ReadOnly::Unwritable));
        self.state.is_complete() && whole
    }

    /// The whole ledger has been read: what it does not hold is no more.
    fn ledger_read(&mut self) {
        for instance in core::mem::take(&mut self.shim.unlisted) {
            // What was listed and could not be ended is doomed again, and stays so.
            if self.doomed.remove(&instance) {
                continue;
            }
            let Some(unikernel) = self.state.by_id(instance) else { continue };
            let (name, run, ended) = (unikernel.name().clone(), unikernel.run, unikernel.ended());
            match run {
                _ if self.unsure.remove(&instance) => {
                    self.note(Record::Removed(name.clone()));
                    self.console_removed(instance, ended);
                    self.unwatch(&name);
                }
                Run::Absent | Run::Ended { .. } => {}
                Run::Running { .. } if self.shim.ever_ready() => {
                    self.ended(instance, ExitStatus::Unknown, None);
                }
                Run::Starting | Run::Running { .. } => self.apply(Record::Absent(instance)),
            }
        }
        self.consoles_claimed();
        self.shim_ready();
        self.note_completeness();
        self.reconcile_all();
    }

    /// Once the shim has told all that runs and all volumes, whatever it tells besides is nobody's.
    pub(crate) fn note_completeness(&mut self) {
        let told = self.shim.ever_ready() && self.volumes.known;
        if told && self.journal.is_sound() && !self.state.is_complete() {
            self.note(Record::Complete);
        }
    }
}
