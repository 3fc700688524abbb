//! A new volume that is the same as another: by sharing its blocks where the file system can, else by copying them.

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
    from: Watch,
    bytes: u64,
    phase: Phase,
    pub consistent: bool,
    /// Why it does not succeed.
    failure: Option<Refusal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Creating,
    Cloning,
    /// All before `next` is the same; so much of it is not durable yet.
    Copying {
        next: u64,
        unsynced: u64,
    },
    /// What was copied is made durable; the copy goes on from there.
    Syncing {
        next: u64,
    },
    /// It has failed: the new volume is deleted.
    Leaving,
}

impl Engine {
    pub(super) fn volume_snapshot(
        &mut self,
        asker: Asker,
        grant: Grant,
        name: Name,
        new: Name,
    ) -> Result<(), Refusal> {
        self.check_transfers()?;
        let bytes = self.check_volume(&name)?;
        self.check_new_volume(&new, bytes)?;
        let Some(from) = self.watch(&name) else { return Err(VolumeRefusal::Unknown(name).into()) };
        self.record(VolumeRecord::Creating { name: new.clone(), bytes });
        let op = VolumeOp::Create { volume: VolumeName::from(&new), bytes };
        let snapshot = Snapshot { from, bytes, phase: Phase::Creating, consistent: true, failure: None };
        self.begin_job(Some(asker), grant, new, Task::Snapshot(snapshot), op);
        Ok(())
    }

    pub(super) fn snapshot_replied(&mut self, id: JobId, result: Result<Reply, Fault>) -> Handled {
        let Some(Job { name, task: Task::Snapshot(snapshot), .. }) = self.volumes.jobs.get(&id) else {
            return Ok(());
        };
        let (new, from, bytes) = (name.clone(), snapshot.from.name.clone(), snapshot.bytes);
        match snapshot.phase {
            Phase::Creating => match self.done(&new, result)? {
                Ok(()) => {
                    let op = VolumeOp::Clone { from: (&from).into(), to: (&new).into() };
                    self.snapshot_asks(id, Phase::Cloning, op);
                }
                Err(refusal) => {
                    self.record(VolumeRecord::Removed(new));
                    self.end_job(id, Err(refusal));
                }
            },
            Phase::Cloning => match result {
                Ok(Reply::Done) => self.snapshot_made(id),
                Ok(_) => return Err(Nonsense("another reply than done to a clone")),
                Err(_) => self.snapshot_copies(id, 0, 0),
            },
            Phase::Copying { next: before, unsynced } => match result {
                Ok(Reply::Copied { next }) if next > before || next >= bytes => {
                    self.snapshot_copies(id, next, unsynced.saturating_add(next.saturating_sub(before)));
                }
                // It has become shorter, by somebody's hand.
                Ok(Reply::Copied { .. }) => self.snapshot_fails(id, VolumeRefusal::Changed(from).into()),
                Ok(_) => return Err(Nonsense("another reply than how far to a copy")),
                Err(fault) => {
                    let refusal = self.volume_fault(&from, fault);
                    self.snapshot_fails(id, refusal);
                }
            },
            Phase::Syncing { next } => match self.done(&new, result)? {
                Ok(()) if next >= bytes => self.snapshot_copied(id),
                Ok(()) => self.snapshot_copies(id, next, 0),
                Err(refusal) => self.snapshot_fails(id, refusal),
            },
            Phase::Leaving => {
                if let Err(refusal) = self.done(&new, result)? {
                    // The record stays: it is deleted when the link has been opened anew.
                    self.log(crate::Level::Error, alloc::format!("volume {new}: is left: {refusal:?}"));
                } else {
                    self.record(VolumeRecord::Removed(new));
                }
                self.snapshot_ended(id);
            }
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
        let Some(Job { name, task: Task::Snapshot(snapshot), .. }) = self.volumes.jobs.get(&id) else {
            return;
        };
        if let Some(refusal) = self.changed(&snapshot.from) {
            return self.snapshot_fails(id, refusal);
        }
        let (from, to) = (VolumeName::from(&snapshot.from.name), VolumeName::from(name));
        if next >= snapshot.bytes || unsynced >= SYNC_BYTES {
            self.snapshot_asks(id, Phase::Syncing { next }, VolumeOp::Sync(to));
        } else {
            let op = VolumeOp::Copy { from, to, offset: next };
            self.snapshot_asks(id, Phase::Copying { next, unsynced }, op);
        }
    }

    /// A copy takes its time: a unikernel may have written to the old volume meanwhile.
    fn snapshot_copied(&mut self, id: JobId) {
        let Some(Job { task: Task::Snapshot(snapshot), .. }) = self.volumes.jobs.get(&id) else { return };
        if let Some(refusal) = self.changed(&snapshot.from) {
            return self.snapshot_fails(id, refusal);
        }
        let consistent = self.stayed_unused(&snapshot.from);
        if let Some(snapshot) = self.snapshot_of(id) {
            snapshot.consistent = consistent;
        }
        self.snapshot_made(id);
    }

    fn snapshot_made(&mut self, id: JobId) {
        let Some(Job { name, .. }) = self.volumes.jobs.get(&id) else { return };
        let name = name.clone();
        self.record(VolumeRecord::Kept(name));
        self.end_job(id, Ok(()));
    }

    fn snapshot_fails(&mut self, id: JobId, refusal: Refusal) {
        let Some(Job { name, .. }) = self.volumes.jobs.get(&id) else { return };
        let (name, volume) = (name.clone(), VolumeName::from(name));
        if let Some(snapshot) = self.snapshot_of(id) {
            snapshot.failure = Some(refusal);
        }
        self.record(VolumeRecord::Removing(name));
        self.snapshot_asks(id, Phase::Leaving, VolumeOp::Remove(volume));
    }

    fn snapshot_ended(&mut self, id: JobId) {
        let failure = self.snapshot_of(id).and_then(|snapshot| snapshot.failure.take());
        self.end_job(id, Err(failure.unwrap_or(Refusal::ShimAway)));
    }
}
