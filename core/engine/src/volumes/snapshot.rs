//! A new volume that is the same as another: by sharing its blocks where the file system can, else by copying them
//! piece by piece. It is made as a draft, so that no half of one is ever taken for a volume.

use petrel_wire::{
    Name, VolumeName,
    operator::{Refusal, VolumeRefusal},
    shim::{Fault, Reply, VolumeOp},
};

use super::{Job, JobId, Task, VolumeRecord, Watch};
use crate::{
    Engine,
    limits::SYNC_BYTES,
    policy::Grant,
    session::Asker,
    shim_client::{Handled, Nonsense},
};

/// A snapshot under way. The job's volume is the new one.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub from: Watch,
    draft: VolumeName,
    bytes: u64,
    phase: Phase,
    pub consistent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The draft is being made.
    Creating,
    Cloning,
    /// All before `next` is the same; so much of it is not durable yet. The next piece is read.
    Reading {
        next: u64,
        unsynced: u64,
    },
    /// It is written; then this is so.
    Writing {
        next: u64,
        unsynced: u64,
    },
    /// What was copied is made durable; the copy goes on from there.
    Syncing {
        next: u64,
    },
    /// The draft becomes the new volume.
    Renaming,
}

impl Engine {
    pub(super) fn volume_snapshot(
        &mut self,
        asker: Asker,
        grant: Grant,
        name: Name,
        new: Name,
    ) -> Result<(), Refusal> {
        self.check_transfers(&grant)?;
        let bytes = self.check_volume(&name)?;
        self.check_new_volume(&new, bytes)?;
        self.check_volume_policy(&grant, &new, bytes)?;
        let Some(from) = self.watch_volume(&name) else { return Err(VolumeRefusal::Unknown(name).into()) };
        self.record(VolumeRecord::Creating { name: new.clone(), bytes });
        let draft = self.volumes.new_draft();
        let op = VolumeOp::Create { volume: draft.clone(), bytes };
        let snapshot = Snapshot { from, draft, bytes, phase: Phase::Creating, consistent: true };
        self.begin_job(Some(asker), grant, new, Task::Snapshot(snapshot), op);
        Ok(())
    }

    pub(super) fn snapshot_replied(&mut self, id: JobId, result: Result<Reply, Fault>) -> Handled {
        let Some(Job { name, task: Task::Snapshot(snapshot), .. }) = self.volumes.jobs.get(&id) else {
            return Ok(());
        };
        let Snapshot { from, draft, bytes, phase, .. } = snapshot;
        let (new, from, draft, bytes) = (name.clone(), from.name.clone(), draft.clone(), *bytes);
        match (*phase, result) {
            // The file system cannot share blocks.
            (Phase::Cloning, Err(_)) => self.snapshot_copies(id, 0, 0),
            (Phase::Reading { .. }, Err(fault)) => {
                let refusal = self.volume_fault(&from, fault);
                self.snapshot_fails(id, refusal);
            }
            (_, Err(fault)) => self.snapshot_fails(id, Refusal::Shim(fault)),
            (Phase::Creating, Ok(Reply::Done)) => {
                let op = VolumeOp::Clone { from: (&from).into(), to: draft };
                self.snapshot_asks(id, Phase::Cloning, op);
            }
            (Phase::Cloning, Ok(Reply::Done)) => self.snapshot_renames(id),
            (Phase::Reading { next, unsynced }, Ok(Reply::Extent { offset, data })) => {
                let end = offset.saturating_add(data.len() as u64);
                if offset < next {
                    return Err(Nonsense("another part of a volume than was asked for"));
                } else if offset >= bytes {
                    self.snapshot_copies(id, bytes, unsynced);
                } else if data.is_empty() || end > bytes {
                    // It has become shorter or longer, by somebody's hand.
                    self.snapshot_fails(id, VolumeRefusal::Changed(from).into());
                } else {
                    let unsynced = unsynced.saturating_add(data.len() as u64);
                    let op = VolumeOp::Write { volume: draft, offset, data };
                    self.snapshot_asks(id, Phase::Writing { next: end, unsynced }, op);
                }
            }
            (Phase::Writing { next, unsynced }, Ok(Reply::Done)) => self.snapshot_copies(id, next, unsynced),
            (Phase::Syncing { next }, Ok(Reply::Done)) => self.snapshot_copies(id, next, 0),
            (Phase::Renaming, Ok(Reply::Done)) => {
                self.record(VolumeRecord::Kept(new));
                self.end_job(id, Ok(()));
            }
            (_, Ok(_)) => return Err(Nonsense("another reply than was asked for to a step of a copy")),
        }
        Ok(())
    }

    fn snapshot_of(&mut self, id: JobId) -> Option<&mut Snapshot> {
        match &mut self.volumes.jobs.get_mut(&id)?.task {
            Task::Snapshot(snapshot) => Some(snapshot),
            _ => None,
        }
    }

    fn snapshot_asks(&mut self, id: JobId, phase: Phase, op: VolumeOp) {
        if let Some(snapshot) = self.snapshot_of(id) {
            snapshot.phase = phase;
            self.ask_for_job(id, op);
        }
    }

    /// Goes on with the copy from `next`, unless the old volume has been changed meanwhile.
    fn snapshot_copies(&mut self, id: JobId, next: u64, unsynced: u64) {
        let Some(Job { task: Task::Snapshot(snapshot), .. }) = self.volumes.jobs.get(&id) else { return };
        if let Some(refusal) = self.changed(&snapshot.from) {
            return self.snapshot_fails(id, refusal);
        }
        let (from, to) = (VolumeName::from(&snapshot.from.name), snapshot.draft.clone());
        if next >= snapshot.bytes {
            // A copy takes its time: a unikernel may have written to the old volume meanwhile.
            let consistent = self.stayed_unused(&snapshot.from);
            if let Some(snapshot) = self.snapshot_of(id) {
                snapshot.consistent = consistent;
            }
            self.snapshot_renames(id);
        } else if unsynced >= SYNC_BYTES {
            self.snapshot_asks(id, Phase::Syncing { next }, VolumeOp::Sync(to));
        } else {
            let op = VolumeOp::Read { volume: from, offset: next };
            self.snapshot_asks(id, Phase::Reading { next, unsynced }, op);
        }
    }

    fn snapshot_renames(&mut self, id: JobId) {
        let Some(Job { name, task: Task::Snapshot(snapshot), .. }) = self.volumes.jobs.get(&id) else {
            return;
        };
        let op = VolumeOp::Rename { from: snapshot.draft.clone(), to: name.into() };
        self.snapshot_asks(id, Phase::Renaming, op);
    }

    fn snapshot_fails(&mut self, id: JobId, refusal: Refusal) {
        let Some(Job { name, task: Task::Snapshot(snapshot), .. }) = self.volumes.jobs.get(&id) else {
            return;
        };
        let (name, draft, begun) = (name.clone(), snapshot.draft.clone(), snapshot.phase != Phase::Creating);
        if begun {
            self.remove_draft(draft);
        }
        self.record(VolumeRecord::Removed(name));
        self.end_job(id, Err(refusal));
    }
}
