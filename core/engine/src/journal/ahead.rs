//! Write-ahead: what an input changes is on the disk before anything that follows from it leaves.
//!
//! The records of one handle go in front of its outputs, as [`Output::Persist`]. If they cannot be written, nothing
//! of what they explain has left yet, and nothing does: requests to the shim are answered here, as if the shim
//! could not do them, so that every flow takes its own way back; the good news in the answers becomes a refusal.

use petrel_wire::{
    Name,
    operator::{ImageResponse, ReadOnly, Refusal, Request, Response, Right, VolumeResponse, What, Who},
    shim::{Fault, Op, VolumeOp},
};

use super::{Journal, Undo, recover};
use crate::{
    Config, Engine, Level, Output, SessionId, StateDevice,
    planted::{self, Planted},
    policy::rights_for,
    record::{Durability, Record},
    shim_client::Nonsense,
    state::Before,
    unikernel::Run,
};

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt::Display;

/// What a flow is told of a request that never left.
const NOT_SENT: Fault = Fault::Os { errno: 5 };
/// How often flows may answer that with something that wants to be kept again.
const WITHHOLD_ROUNDS_MAX: usize = 8;

impl Engine {
    /// An engine that knows what its block device "state" holds. `read(offset, bytes)` fills `bytes`, whole blocks of
    /// the device. Whatever is on it, there is an engine; the first outputs say what was found.
    pub fn recover<E: Display>(
        config: Config,
        device: &StateDevice,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Self {
        let mut failure: Option<String> = None;
        let recovered = recover(device, &mut |offset, bytes| {
            read(offset, bytes).map_err(|error| failure = Some(error.to_string()))
        });
        let mut engine = Self::with_journal(config, recovered.journal);
        engine.state = recovered.state;
        engine.number_from_state();
        engine.watch_anew();
        engine.outputs.extend(recovered.repair);
        let level = if engine.journal.read_only().is_some() { Level::Error } else { Level::Info };
        engine.log(level, format!("state: {}", recovered.found));
        if let Some(failure) = failure {
            engine.log(Level::Error, format!("state: block device \"state\" cannot be read: {failure}"));
        }
        engine
    }

    /// Numbers that the state holds are given to nobody else.
    pub(crate) fn number_from_state(&mut self) {
        let last = self.state.ids().max().map_or(0, |instance| instance.0);
        self.next_instance = self.next_instance.max(last.saturating_add(1));
    }

    /// Makes a change to the state: the only way there is.
    pub(crate) fn apply(&mut self, record: Record) {
        self.journal.gather(&record, record.durability(), &self.state);
        self.state.apply(record);
    }

    /// Makes a change that the shim's ledger tells of, and would tell again: it can wait for the disk, and is true
    /// whether it gets there or not.
    pub(crate) fn note(&mut self, record: Record) {
        let durability = match record.durability() {
            Durability::Never => Durability::Never,
            Durability::Later | Durability::Before { .. } => Durability::Later,
        };
        self.journal.gather(&record, durability, &self.state);
        self.state.apply(record);
    }

    /// A handle begins. Returns where its outputs will.
    pub(crate) fn begin(&mut self) -> usize {
        self.journal.begin();
        self.outputs.len()
    }

    /// A handle ends: its records go in front of its outputs, which begin at `mark`.
    pub(crate) fn commit(&mut self, mark: usize) {
        match self.journal.commit(self.now.monotonic_ns, &self.state) {
            Ok(writes) if writes.is_empty() => {}
            Ok(writes) => {
                let mark = if planted::is(Planted::SkipWriteAhead) { self.outputs.len() } else { mark };
                let held = self.outputs.split_off(mark);
                self.outputs.extend(writes);
                self.outputs.extend(held);
            }
            Err(reason) => self.withhold(mark, reason),
        }
    }

    /// The device did not take what it was given last.
    pub(crate) fn state_failed(&mut self) {
        self.journal.fail(ReadOnly::Unwritable);
        self.withhold(0, ReadOnly::Unwritable);
        self.happened(Who::ControlPlane, What::JournalFailed(ReadOnly::Unwritable), None);
    }

    /// Takes back the outputs from `mark` on, and what they follow from: it cannot be kept. What the flows do about it
    /// may want to be kept as well, and is taken back too.
    fn withhold(&mut self, mark: usize, reason: ReadOnly) {
        let mut from = mark;
        for _ in 0..WITHHOLD_ROUNDS_MAX {
            let unsent = self.take_back(from, reason);
            from = self.outputs.len();
            self.journal.urgent = false;
            // What is begun now would follow from a state that is about to be another one.
            self.withholding = true;
            for id in unsent {
                if let Err(Nonsense(why)) = self.unsent(id, NOT_SENT) {
                    self.reset_link(why);
                }
            }
            self.withholding = false;
            self.reasons_renamed(&Refusal::Shim(NOT_SENT), &Refusal::ReadOnly(reason));
            self.refuse_for(from, reason);
            if !self.journal.urgent {
                break;
            }
        }
        if self.journal.urgent {
            // A flow that never gives in: the link's end is the end of all flows.
            self.take_back(from, reason);
            self.reset_link("what was asked for cannot be kept");
        }
        self.undo(reason);
    }

    /// Takes the outputs from `from` on back, but for those that change nothing and say nothing of a change. Returns the
    /// requests to the shim among them.
    fn take_back(&mut self, from: usize, reason: ReadOnly) -> Vec<u32> {
        let mut unsent = Vec::new();
        for output in self.outputs.split_off(from) {
            match output {
                Output::Persist { .. } => {}
                Output::ToShim(request) if is_effect(&request.op) => unsent.push(request.id),
                Output::ToSession { session, mut message } if self.is_undone(session, &message.response) => {
                    message.response = Response::Refused(Refusal::ReadOnly(reason));
                    self.outputs.push_back(Output::ToSession { session, message });
                }
                output => self.outputs.push_back(output),
            }
        }
        unsent
    }

    /// Whether an answer says that a change was made which is being taken back. What was made in earlier handles stands,
    /// whatever else follows from the news of it: a create, when it is known that it runs.
    fn is_undone(&self, session: SessionId, response: &Response) -> bool {
        match response {
            Response::Created(brief) => self.is_changed(session, &brief.name, true),
            Response::Started(brief) | Response::Stopped(brief) | Response::Updated(brief) => {
                self.is_changed(session, &brief.name, false)
            }
            other => acknowledges(other),
        }
    }

    /// Whether a unikernel is being made what it was, or with `is_new`, whether it is made to be no more.
    fn is_changed(&self, session: SessionId, of: &Name, is_new: bool) -> bool {
        // Answers name what there is as their session does.
        let scope = self.sessions.get(&session).map(|session| session.authority.scope());
        self.journal.undo.iter().any(|undo| match undo {
            Undo::Change(Before::Unikernel { name, unikernel }) => {
                let counts = unikernel.is_none() || !is_new;
                counts && scope.is_none_or(|scope| scope.relative(name) == Some(&**of))
            }
            Undo::Change(Before::Record(_)) => false,
            Undo::State(_) => true,
        })
    }

    /// What was refused from output `from` on was refused for this reason, whatever the flows made of it.
    fn refuse_for(&mut self, from: usize, reason: ReadOnly) {
        for output in self.outputs.range_mut(from..) {
            if let Output::ToSession { message, .. } = output
                && let Response::Refused(refusal) = &mut message.response
            {
                *refusal = Refusal::ReadOnly(reason);
            }
        }
    }

    /// Makes the state what it was before this handle, but for what has happened on the host.
    fn undo(&mut self, reason: ReadOnly) {
        for undo in core::mem::take(&mut self.journal.undo).into_iter().rev() {
            match undo {
                Undo::Change(before) => self.restore(before, reason),
                Undo::State(state) => {
                    let next = self.state.events.next();
                    self.state = *state;
                    self.state.events.go_on_from(next);
                    self.watch_anew();
                }
            }
        }
        let waiting = self.journal.waiting;
        self.journal.forget(waiting);
    }
}

impl Engine {
    fn restore(&mut self, before: Before, reason: ReadOnly) {
        let (name, unikernel) = match before {
            Before::Unikernel { name, unikernel } => (name, unikernel),
            Before::Record(record) => return self.state.apply(record),
        };
        let instance = self.state.get(&name).map(|unikernel| unikernel.instance);
        self.state.restore(&name, unikernel);
        // It has its monitor again, which was to make way for another.
        if let Some(unikernel) = self.state.get(&name).filter(|unikernel| unikernel.run != Run::Absent) {
            self.reaps.remove(&unikernel.instance);
        }
        self.order_taken_back(&name, Refusal::ReadOnly(reason));
        match (self.state.get(&name).map(|unikernel| unikernel.instance), instance) {
            (Some(earlier), Some(instance)) => self.console_moved(instance, earlier),
            (Some(_), None) => drop(self.watch(&name)),
            (None, _) => drop(self.unwatch(&name)),
        }
        self.taken_back(&name);
    }
}

impl Journal {
    /// Why this request cannot be carried out, if so: it changes something, and nothing can be kept.
    pub fn refuses(&self, request: &Request) -> Option<Refusal> {
        self.read_only().filter(|_| changes(request)).map(Refusal::ReadOnly)
    }
}

/// Whether a request may change what there is: it takes more than the right to read. What an appliance is told, its
/// machine remembers, not the journal. A revocation holds also if it cannot be kept: who was found out is turned out.
fn changes(request: &Request) -> bool {
    let only_reads = rights_for(request).iter().all(|right| *right == Right::Read);
    !only_reads && !matches!(request, Request::Appliance(_) | Request::CertRevoke { .. })
}

/// Whether an answer says that a change was made.
fn acknowledges(response: &Response) -> bool {
    match response {
        Response::ImageStored(_)
        | Response::Created(_)
        | Response::Started(_)
        | Response::Stopped(_)
        | Response::Updated(_)
        | Response::Destroyed
        | Response::StateImported { .. }
        | Response::Image(ImageResponse::Removed | ImageResponse::Collected { .. })
        | Response::Volume(VolumeResponse::Is(_) | VolumeResponse::Copied { .. } | VolumeResponse::Removed)
        | Response::PolicySet
        | Response::PolicyRemoved
        | Response::CertRevoked { .. } => true,
        Response::Hello(_)
        | Response::Host(_)
        | Response::Appliance(_)
        | Response::ImageWanted
        | Response::Listed { .. }
        | Response::Info(_)
        | Response::Console { .. }
        | Response::ConsoleMissed { .. }
        | Response::ConsoleBegan { .. }
        | Response::Consoles { .. }
        | Response::Events(_)
        | Response::EventsMissed(_)
        | Response::EventsEnd
        | Response::Stats { .. }
        | Response::Ended(_)
        | Response::ConsoleEnd
        | Response::Generation { .. }
        | Response::Refused(_)
        | Response::StateData(_)
        | Response::StateExported { .. }
        | Response::StateWanted
        | Response::Image(ImageResponse::Listed { .. })
        | Response::Volume(VolumeResponse::Listed { .. } | VolumeResponse::Wanted)
        | Response::Download(_)
        | Response::Policies { .. }
        | Response::Revocations { .. } => false,
    }
}

/// Whether a request to the shim does more than ask.
fn is_effect(op: &Op) -> bool {
    match op {
        // A chunk is of an upload whose beginning was let go; and so may one be given up whose session has ended.
        Op::Hello { .. }
        | Op::Host
        | Op::Appliance(_)
        | Op::List { .. }
        | Op::Stats(_)
        | Op::ImageList { .. }
        | Op::ImageRead { .. }
        | Op::ImageChunk { .. }
        | Op::ImageAbort(_)
        | Op::Volume(VolumeOp::List { .. } | VolumeOp::Read { .. }) => false,
        Op::ImageBegin { .. }
        | Op::ImageCommit(_)
        | Op::ImageRemove(_)
        | Op::Volume(_)
        | Op::TapCreate { .. }
        | Op::TapDestroy(_)
        | Op::Spawn(_)
        | Op::Kill(_)
        | Op::Forget(_) => true,
    }
}
