//! State files: the state goes out as one, and comes in as one.

use alloc::{boxed::Box, vec::Vec};

use petrel_wire::{
    Blob, Path,
    limits::{CHUNK_BYTES_MAX, NETS_MAX, STATE_FILE_BYTES_MAX, UNIKERNELS_MAX, VOLUMES_MAX},
    operator::{Refusal, Response, StateFault, Table, What, Who},
};

use super::file::{self, Reader};
use crate::{
    Engine, Output,
    policy::Grant,
    record::Record,
    session::{Asker, Kind},
    state::State,
    stream::Source,
    unikernel::Unikernel,
    volumes::VolumeRecord,
};

/// A state file on its way out. It was made at once, so it tells of one moment.
#[derive(Debug)]
pub(crate) struct Export {
    file: Vec<u8>,
    sent: usize,
    records: u32,
}

impl Export {
    /// The next bytes.
    pub fn next(&mut self) -> Option<Blob<CHUNK_BYTES_MAX>> {
        let rest = &self.file[self.sent..];
        let piece = &rest[..rest.len().min(CHUNK_BYTES_MAX)];
        self.sent += piece.len();
        (!piece.is_empty()).then(|| Blob::try_from(piece).unwrap_or_default())
    }

    /// What is said at its end.
    pub fn end(&self) -> Response {
        Response::StateExported { records: self.records }
    }
}

/// A state file on its way in.
#[derive(Debug)]
pub(crate) struct Transfer {
    asker: Asker,
    force: bool,
    /// The bytes still to come.
    left: u64,
    reader: Reader,
    /// What it has told so far.
    state: Box<State>,
    /// It has told what cannot be.
    impossible: bool,
}

impl Transfer {
    fn take(&mut self, bytes: &[u8]) -> Result<(), StateFault> {
        let Self { reader, state, impossible, .. } = self;
        reader.push(bytes, |record| {
            let possible = is_possible(state, &record);
            *impossible |= !possible;
            if possible {
                state.apply(record);
            }
        })
    }

    fn finish(self) -> Result<(Box<State>, u32), StateFault> {
        let records = self.reader.finish()?;
        if self.impossible { Err(StateFault::Impossible) } else { Ok((self.state, records)) }
    }
}

/// Whether a record can follow what is in `state`.
fn is_possible(state: &State, record: &Record) -> bool {
    match record {
        Record::Created { instance, generation } => {
            state.by_id(*instance).is_none()
                && state.get(&generation.spec.name).is_none()
                && state.len() < UNIKERNELS_MAX
        }
        Record::Updated { name, generation, .. } => generation.spec.name == *name,
        Record::Starting { name, instance, taps } => {
            let own = |unikernel: &Unikernel| unikernel.name() == name;
            state.by_id(*instance).is_none_or(own) && taps.len() <= NETS_MAX
        }
        Record::Happened(event) => event.sequence >= state.events.next(),
        Record::PolicySet { .. } => state.settings.has_room_for_policy(&Path::ROOT),
        Record::Revoked(_) => state.settings.has_room_for_revocation(&Path::ROOT),
        Record::Volume(VolumeRecord::Creating { name, .. }) => {
            state.volumes.get(name).is_none() && state.volumes.len() < VOLUMES_MAX
        }
        // About one that is not there, these change nothing.
        Record::Switched { .. }
        | Record::Accepted(_)
        | Record::RolledBack { .. }
        | Record::Wished { .. }
        | Record::Started { .. }
        | Record::Ended { .. }
        | Record::Absent(_)
        | Record::Past { .. }
        | Record::Removed(_)
        | Record::Volume(_)
        | Record::PolicyRemoved(_)
        | Record::Complete => true,
    }
}

impl Engine {
    pub(crate) fn state_export(&mut self, asker: Asker) {
        if !self.shim.ever_ready() {
            // It may not be all yet.
            return self.refuse(asker, Refusal::ShimAway);
        }
        if self.is_exporting() {
            return self.refuse(asker, Refusal::Full(Table::StateFiles));
        }
        let (file, records) = file::write(self.state.records(usize::MAX));
        self.open_stream(asker, Source::Export(Box::new(Export { file, sent: 0, records })));
    }

    /// A file takes as much memory as the state: there is one at a time.
    fn is_exporting(&self) -> bool {
        let mut streams = self.sessions.values().flat_map(|session| &session.streams);
        streams.any(|stream| matches!(stream.source, Source::Export(_)))
    }

    pub(crate) fn state_import(&mut self, asker: Asker, _grant: Grant, bytes: u64, force: bool) {
        if bytes > STATE_FILE_BYTES_MAX {
            return self.refuse(asker, Refusal::StateFile(StateFault::Impossible));
        }
        if self.transfer.is_some() {
            return self.refuse(asker, Refusal::Full(Table::StateFiles));
        }
        if let Err(refusal) = self.check_replaceable(force) {
            return self.refuse(asker, refusal);
        }
        self.set_kind(asker, Kind::Import);
        let (reader, state) = (Reader::default(), Box::default());
        self.transfer = Some(Transfer { asker, force, left: bytes, reader, state, impossible: false });
        self.tell(asker, Response::StateWanted);
        if bytes == 0 {
            self.import_complete();
        }
    }

    /// Whether another state may take the place of this one.
    fn check_replaceable(&self, force: bool) -> Result<(), Refusal> {
        if !self.shim.is_ready() {
            return Err(Refusal::ShimAway);
        }
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let running = self.state.ids().filter_map(|instance| self.state.by_id(instance));
        let running = count(running.filter(|unikernel| unikernel.is_up()).count());
        let unikernels = count(self.state.len());
        if running > 0 || (unikernels > 0 && !force) {
            return Err(Refusal::StateInUse { unikernels, running });
        }
        Ok(())
    }

    pub(crate) fn import_chunk(&mut self, asker: Asker, data: &[u8]) {
        let Some(transfer) = self.transfer.as_mut().filter(|transfer| transfer.asker == asker) else {
            return;
        };
        let bytes = data.len() as u64;
        if bytes > transfer.left {
            return self.import_refused(Refusal::UnexpectedChunk);
        }
        transfer.left -= bytes;
        let complete = transfer.left == 0;
        if let Err(fault) = transfer.take(data) {
            self.import_refused(Refusal::StateFile(fault));
        } else if complete {
            self.import_complete();
        }
    }

    fn import_refused(&mut self, refusal: Refusal) {
        if let Some(Transfer { asker, .. }) = self.transfer.take() {
            self.refuse(asker, refusal);
        }
    }

    /// Nobody waits any more for what comes of the file: nothing does.
    pub(crate) fn import_abandoned(&mut self, asker: Asker) {
        if self.transfer.as_ref().is_some_and(|transfer| transfer.asker == asker) {
            self.transfer = None;
        }
    }

    /// The whole file has come: if it is good, it is the state from here on.
    fn import_complete(&mut self) {
        let Some(transfer) = self.transfer.take() else { return };
        let Transfer { asker, force, .. } = transfer;
        // Much may have happened while it was on its way.
        let checked = self.check_replaceable(force);
        let finished = checked.and_then(|()| transfer.finish().map_err(Refusal::StateFile));
        let (state, records) = match finished {
            Ok(finished) => finished,
            Err(refusal) => return self.refuse(asker, refusal),
        };
        self.orders_lost();
        let before = core::mem::replace(&mut self.state, *state);
        self.state.events.go_on_from(before.events.next());
        // Nothing runs, so what the shim still has is what was given up.
        self.state.apply(Record::Complete);
        for instance in before.ids() {
            let ended = before.by_id(instance).and_then(|unikernel| unikernel.ended());
            self.console_removed(instance, ended);
        }
        self.journal.replace(before);
        self.number_from_state();
        self.watch_anew();
        let who =
            self.sessions.get(&asker.session).map_or(Who::ControlPlane, |session| session.authority.who());
        self.happened(who, What::StateImported(records), None);
        self.answer(asker, Response::StateImported { records });
        self.end_revoked();
        // What the host has is asked for again, and made one with what is known now.
        self.outputs.push_back(Output::ResetLink);
        self.link_lost();
        // What was to be ended may be what the file tells of.
        self.doomed.retain(|instance| self.state.by_id(*instance).is_none());
    }
}
