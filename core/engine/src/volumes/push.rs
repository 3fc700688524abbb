//! New content for a volume: written to a draft, which takes the volume's place when all of it has arrived.

use petrel_wire::{
    Name, VolumeName,
    operator::{Refusal, Response, VolumeRefusal, VolumeResponse},
    shim::{Fault, Reply, VolumeOp},
};

use super::{Job, JobId, Task};
use crate::{
    Engine, SessionId,
    limits::SYNC_BYTES,
    policy::Grant,
    session::{Asker, Kind},
    shim_client::Handled,
    upload::Chunk,
};

/// A push under way.
#[derive(Debug)]
pub(crate) struct Push {
    draft: VolumeName,
    /// The size of the draft, which is the volume's.
    pub draft_bytes: u64,
    /// What was offered.
    bytes: u64,
    /// Where the next chunk may begin.
    next: u64,
    /// The writes and syncs that the shim has not answered.
    unanswered: usize,
    unsynced: u64,
    phase: Phase,
    /// Why it does not succeed; `None` inside if nobody wants to know.
    failure: Option<Option<Refusal>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The draft is being made.
    Beginning,
    /// Chunks come.
    Receiving,
    /// All chunks have come, and are being written.
    Writing,
    /// The draft takes the volume's place.
    Renaming,
    /// The draft is being deleted.
    Leaving,
}

/// Something that a client sends of a push.
#[derive(Debug)]
pub(crate) enum Piece {
    Chunk { offset: u64, data: Chunk },
    End,
}

impl Engine {
    pub(super) fn volume_push(
        &mut self,
        asker: Asker,
        grant: Grant,
        name: Name,
        bytes: u64,
    ) -> Result<(), Refusal> {
        self.check_transfers(&grant)?;
        let draft_bytes = self.check_volume(&name)?;
        self.check_volume_free(&name)?;
        if bytes > draft_bytes {
            return Err(VolumeRefusal::TooSmall { bytes: draft_bytes, offered: bytes }.into());
        }
        self.check_space(draft_bytes)?;
        let draft = self.volumes.new_draft();
        let op = VolumeOp::Create { volume: draft.clone(), bytes: draft_bytes };
        let push = Push {
            draft,
            draft_bytes,
            bytes,
            next: 0,
            unanswered: 0,
            unsynced: 0,
            phase: Phase::Beginning,
            failure: None,
        };
        let id = self.begin_job(Some(asker), grant, name, Task::Push(push), op);
        self.set_kind(asker, Kind::Push(id));
        Ok(())
    }

    fn push_of(&mut self, id: JobId) -> Option<&mut Push> {
        match &mut self.volumes.jobs.get_mut(&id)?.task {
            Task::Push(push) => Some(push),
            _ => None,
        }
    }

    /// The writes of a session's pushes that the shim has not answered.
    pub(crate) fn unanswered_writes(&self, session: SessionId) -> usize {
        let writes = self.volumes.jobs.values().map(|job| match &job.task {
            Task::Push(push) if job.asker.is_some_and(|asker| asker.session == session) => push.unanswered,
            _ => 0,
        });
        writes.sum()
    }

    pub(crate) fn push_piece(&mut self, id: JobId, piece: Piece) {
        let Some(push) = self.push_of(id) else { return };
        if push.failure.is_some() {
            return;
        }
        match piece {
            Piece::Chunk { offset, data } => {
                let end = offset.saturating_add(data.len() as u64);
                if push.phase != Phase::Receiving || offset < push.next || end > push.bytes {
                    return self.push_give_up(id, Some(Refusal::UnexpectedChunk));
                }
                push.next = end;
                self.push_write(id, offset, data);
            }
            Piece::End if push.phase == Phase::Receiving => {
                push.phase = Phase::Writing;
                self.push_go_on(id);
            }
            Piece::End => self.push_give_up(id, Some(Refusal::UnexpectedChunk)),
        }
    }

    fn push_write(&mut self, id: JobId, offset: u64, data: Chunk) {
        let Some(push) = self.push_of(id) else { return };
        let volume = push.draft.clone();
        push.unanswered += 1;
        push.unsynced += data.len() as u64;
        let sync = push.unsynced >= SYNC_BYTES;
        if sync {
            push.unanswered += 1;
            push.unsynced = 0;
        }
        self.ask_for_job(id, VolumeOp::Write { volume: volume.clone(), offset, data });
        if sync {
            self.ask_for_job(id, VolumeOp::Sync(volume));
        }
    }

    /// If all is written: the draft takes the volume's place.
    fn push_go_on(&mut self, id: JobId) {
        let Some(push) = self.push_of(id) else { return };
        if push.phase != Phase::Writing || push.unanswered > 0 {
            return;
        }
        push.phase = Phase::Renaming;
        let from = push.draft.clone();
        let Some(Job { name, .. }) = self.volumes.jobs.get(&id) else { return };
        let name = name.clone();
        self.state.volumes.new_edition(&name);
        self.ask_for_job(id, VolumeOp::Rename { from, to: VolumeName::from(&name) });
    }

    pub(super) fn push_replied(&mut self, id: JobId, result: Result<Reply, Fault>) -> Handled {
        let Some(job) = self.volumes.jobs.get(&id) else { return Ok(()) };
        let (name, asker) = (job.name.clone(), job.asker);
        let outcome = match result {
            // All else is about the draft, which no operator knows of.
            Err(fault) if fault != Fault::InUse => Err(Refusal::Shim(fault)),
            result => self.done(&name, result)?,
        };
        let Some(push) = self.push_of(id) else { return Ok(()) };
        match push.phase {
            Phase::Beginning => match outcome {
                Err(refusal) => self.end_job(id, Err(refusal)),
                Ok(()) if push.failure.is_some() => self.push_leave(id),
                Ok(()) => {
                    push.phase = Phase::Receiving;
                    if let Some(asker) = asker {
                        self.tell(asker, Response::Volume(VolumeResponse::Wanted));
                    }
                }
            },
            Phase::Receiving | Phase::Writing | Phase::Leaving if push.unanswered > 0 => {
                push.unanswered -= 1;
                match outcome {
                    Ok(()) => self.push_go_on(id),
                    Err(refusal) => self.push_give_up(id, Some(refusal)),
                }
            }
            Phase::Renaming => match outcome {
                Ok(()) => self.end_job(id, Ok(())),
                Err(refusal) => self.push_give_up(id, Some(refusal)),
            },
            Phase::Receiving | Phase::Writing | Phase::Leaving => {
                let failure = push.failure.take().flatten();
                match failure {
                    Some(refusal) => self.end_job(id, Err(refusal)),
                    None => drop(self.volumes.jobs.remove(&id)),
                }
            }
        }
        Ok(())
    }

    /// It cannot go on. What is under way at the shim is awaited first.
    fn push_give_up(&mut self, id: JobId, failure: Option<Refusal>) {
        let Some(push) = self.push_of(id) else { return };
        if push.failure.is_some() {
            return;
        }
        push.failure = Some(failure);
        if push.phase != Phase::Beginning {
            self.push_leave(id);
        }
    }

    fn push_leave(&mut self, id: JobId) {
        let Some(push) = self.push_of(id) else { return };
        push.phase = Phase::Leaving;
        let draft = push.draft.clone();
        self.ask_for_job(id, VolumeOp::Remove(draft));
    }

    /// Nobody waits any more for the answer to this push. One that has all its content is carried out.
    pub(crate) fn push_abandoned(&mut self, id: JobId) {
        let Some(push) = self.push_of(id) else { return };
        if push.phase != Phase::Renaming {
            self.push_give_up(id, None);
        }
    }
}
