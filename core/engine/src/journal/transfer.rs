//! State files: the state goes out as one, and comes in as one.

use alloc::{boxed::Box, format, vec::Vec};

use petrel_wire::{
    Blob,
    limits::{CHUNK_BYTES_MAX, STATE_FILE_BYTES_MAX},
    operator::{Refusal, Response, StateFault, Table, What, Who},
};

use super::{
    file::{self, Reader},
    possible,
};
use crate::{
    Engine, Level, Output,
    policy::Grant,
    record::Record,
    session::{Asker, Kind},
    state::State,
    stream::Source,
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
    /// What it has told that cannot be, first.
    impossible: Option<&'static str>,
}

impl Transfer {
    fn take(&mut self, bytes: &[u8]) -> Result<(), StateFault> {
        let Self { reader, state, impossible, .. } = self;
        reader.push(bytes, |record| match possible::check(state, &record) {
            Ok(()) => state.apply(record),
            Err(why) => *impossible = impossible.or(Some(why)),
        })
    }

    /// All bytes have come. What they tell, and in how many records.
    fn finish(self) -> Result<(Box<State>, u32), StateFault> {
        let records = self.reader.finish()?;
        match self.impossible {
            Some(_) => Err(StateFault::Impossible),
            None => Ok((self.state, records)),
        }
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
        self.transfer = Some(Transfer { asker, force, left: bytes, reader, state, impossible: None });
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
        if let Some(why) = transfer.impossible {
            self.log(Level::Warning, format!("state file: not taken in: it tells of {why}"));
        }
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
