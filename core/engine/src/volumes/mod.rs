//! Volumes: what block devices store on.
//!
//! | room | what it does |
//! |---|---|
//! | `book` | what there is, by records |
//! | `survey` | what the shim has, made one with that |
//! | `push` | new content, which appears as a whole or not at all |
//! | `snapshot` | a volume that is the same as another |
//! | `check` | what may be done with which volume |
//! | here | making, resizing and deleting |
//!
//! Reading one is a download, as reading an image is. One job at a time changes a volume; reading is no job. A
//! record comes before what it explains, so what a control plane that went down was making is deleted by the next
//! one, and what it was deleting too.

mod book;
mod check;
mod push;
mod snapshot;
mod survey;

use alloc::{boxed::Box, collections::BTreeMap, format};

use petrel_wire::{
    Name, VolumeName,
    operator::{
        Refusal, Response, Volume as Shown, VolumeRefusal, VolumeRequest, VolumeResponse, VolumeState, What,
    },
    shim::{Fault, InstanceId, Op, Reply, VolumeFile, VolumeOp},
};

pub(crate) use book::{Book, File, Phase, VolumeRecord, space};
pub(crate) use push::Piece;
use push::Push;
use snapshot::Snapshot;
use survey::Survey;

use crate::{
    Engine, Level,
    policy::{self, Grant},
    record::Record,
    session::Asker,
    shim_client::{Handled, Nonsense, Waiting},
};

/// A job's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct JobId(pub u64);

/// What is under way with volumes.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    jobs: BTreeMap<JobId, Job>,
    last_job: u64,
    last_draft: u64,
    /// Files that no record tells of.
    orphans: BTreeMap<Name, VolumeFile>,
    survey: Survey,
    /// The shim has told all of them since the control plane started.
    pub known: bool,
    /// Why the shim could not tell what there is, and when it is asked again, in monotonic nanoseconds.
    untold: Option<(Fault, u64)>,
}

/// A change to a volume, under way at the shim.
#[derive(Debug)]
struct Job {
    /// Nobody if it is of the control plane's own accord.
    asker: Option<Asker>,
    grant: Grant,
    name: Name,
    task: Task,
}

#[derive(Debug)]
enum Task {
    Create,
    /// It stays if it cannot be deleted, unless nobody was promised that it does.
    Remove {
        kept: bool,
    },
    /// From one size to another, in bytes.
    Resize {
        before: u64,
        after: u64,
    },
    /// The job's volume is the new one.
    Snapshot(Snapshot),
    Push(Push),
}

/// Something that is read over some time: whether it stayed the same meanwhile.
#[derive(Debug)]
pub(crate) struct Watch {
    pub name: Name,
    edition: u64,
    /// No unikernel had it at the beginning.
    unused: bool,
    last_user: Option<InstanceId>,
}

impl Volumes {
    /// A number that no other job has.
    pub fn new_job(&mut self) -> JobId {
        self.last_job += 1;
        JobId(self.last_job)
    }

    /// A draft that there is not yet.
    pub fn new_draft(&mut self) -> VolumeName {
        self.last_draft = self.last_draft.wrapping_add(1);
        VolumeName::draft(self.last_draft)
    }

    fn job_of(&self, name: &Name) -> Option<(JobId, &Job)> {
        self.jobs.iter().find(|(_, job)| job.name == *name).map(|(id, job)| (*id, job))
    }

    /// The jobs that move content.
    fn transfers(&self) -> usize {
        self.jobs.values().filter(|job| matches!(job.task, Task::Push(_) | Task::Snapshot(_))).count()
    }

    /// What files take that are no volumes, by their sizes, in bytes.
    fn other_bytes(&self) -> u64 {
        let drafts =
            self.jobs.values().map(|job| if let Task::Push(push) = &job.task { push.draft_bytes } else { 0 });
        drafts.chain(self.orphans.values().map(|file| file.bytes)).fold(0, u64::saturating_add)
    }
}

#[cfg(feature = "inspect")]
impl Volumes {
    pub fn jobs_len(&self) -> usize {
        self.jobs.len()
    }

    pub fn orphans_len(&self) -> usize {
        self.orphans.len()
    }

    pub fn is_untold(&self) -> bool {
        self.untold.is_some()
    }

    pub fn survey_askers(&self) -> usize {
        self.survey.askers_len()
    }
}

impl Engine {
    pub(crate) fn volume_request(&mut self, asker: Asker, grant: Grant, request: VolumeRequest) {
        let begun = match request {
            VolumeRequest::List => return self.volume_list(asker, &grant),
            VolumeRequest::Create { name, bytes } => self.volume_create(asker, grant, name, bytes),
            VolumeRequest::Push { name, bytes } => self.volume_push(asker, grant, name, bytes),
            VolumeRequest::Pull(name) => self.volume_pull(asker, grant, name),
            VolumeRequest::Snapshot { name, new } => self.volume_snapshot(asker, grant, name, new),
            VolumeRequest::Resize { name, bytes } => self.volume_resize(asker, grant, name, bytes),
            VolumeRequest::Remove(name) => self.volume_remove(asker, grant, name),
            // Told apart before they get here.
            VolumeRequest::Chunk { .. } | VolumeRequest::PushEnd => Ok(()),
        };
        if let Err(refusal) = begun {
            self.refuse(asker, refusal);
        }
    }

    fn volume_create(&mut self, asker: Asker, grant: Grant, name: Name, bytes: u64) -> Result<(), Refusal> {
        self.check_shim(1)?;
        check::size(bytes)?;
        self.check_new_volume(&name, bytes)?;
        self.check_volume_policy(&grant, &name, bytes)?;
        self.record(VolumeRecord::Creating { name: name.clone(), bytes });
        let op = VolumeOp::Create { volume: VolumeName::from(&name), bytes };
        self.begin_job(Some(asker), grant, name, Task::Create, op);
        Ok(())
    }

    fn volume_resize(&mut self, asker: Asker, grant: Grant, name: Name, bytes: u64) -> Result<(), Refusal> {
        self.check_shim(1)?;
        check::size(bytes)?;
        let before = self.check_volume(&name)?;
        if bytes < before {
            self.check_volume_free(&name)?;
        } else {
            self.check_space(bytes - before)?;
            self.check_volume_policy(&grant, &name, bytes)?;
            self.record(VolumeRecord::Resized { name: name.clone(), bytes });
        }
        let op = VolumeOp::Resize { volume: VolumeName::from(&name), bytes };
        self.begin_job(Some(asker), grant, name, Task::Resize { before, after: bytes }, op);
        Ok(())
    }

    fn volume_remove(&mut self, asker: Asker, grant: Grant, name: Name) -> Result<(), Refusal> {
        self.check_shim(1)?;
        match self.check_volume(&name) {
            Ok(_) => self.check_volume_free(&name)?,
            // What is missing cannot be in use, what has no record may be: the shim knows.
            Err(Refusal::Volume(VolumeRefusal::Missing(_) | VolumeRefusal::Orphan(_))) => {}
            // It could not be deleted before.
            Err(Refusal::Volume(VolumeRefusal::Busy(_))) if self.volumes.job_of(&name).is_none() => {}
            Err(refusal) => return Err(refusal),
        }
        self.remove_job(Some(asker), grant, name);
        Ok(())
    }

    fn remove_job(&mut self, asker: Option<Asker>, grant: Grant, name: Name) {
        let kept = self.state.volumes.get(&name).is_some_and(|volume| volume.phase == Phase::Kept);
        self.record(VolumeRecord::Removing(name.clone()));
        let op = VolumeOp::Remove(VolumeName::from(&name));
        self.begin_job(asker, grant, name, Task::Remove { kept }, op);
    }

    /// Begins a job with the first that it asks of the shim.
    fn begin_job(
        &mut self,
        asker: Option<Asker>,
        grant: Grant,
        name: Name,
        task: Task,
        op: VolumeOp,
    ) -> JobId {
        let id = self.volumes.new_job();
        self.volumes.survey.unlisted.remove(&name);
        if matches!(task, Task::Resize { .. } | Task::Remove { .. }) {
            self.state.volumes.new_edition(&name);
        }
        self.volumes.jobs.insert(id, Job { asker, grant, name, task });
        self.ask_for_job(id, op);
        id
    }

    fn ask_for_job(&mut self, id: JobId, op: VolumeOp) {
        if let Some(job) = self.volumes.jobs.get(&id) {
            self.shim.ask(self.now, &job.grant, Op::Volume(op), Waiting::Volume(id), &mut self.outputs);
        }
    }

    /// The shim has answered what a job has asked for last.
    pub(crate) fn volume_replied(&mut self, id: JobId, result: Result<Reply, Fault>) -> Handled {
        let Some(job) = self.volumes.jobs.get(&id) else { return Ok(()) };
        let name = job.name.clone();
        match job.task {
            Task::Create => {
                let outcome = self.done(&name, result)?;
                self.record(match outcome {
                    Ok(()) => VolumeRecord::Kept(name),
                    Err(_) => VolumeRecord::Removed(name),
                });
                self.end_job(id, outcome);
            }
            Task::Remove { kept } => {
                let outcome = match self.done(&name, result)? {
                    Err(Refusal::Volume(VolumeRefusal::Missing(_))) => Ok(()),
                    outcome => outcome,
                };
                self.volumes.orphans.retain(|orphan, _| outcome.is_err() || *orphan != name);
                match outcome {
                    Ok(()) => self.record(VolumeRecord::Removed(name)),
                    Err(_) if kept => self.record(VolumeRecord::Kept(name)),
                    // Tried again when the link has been opened anew.
                    Err(_) => {}
                }
                self.end_job(id, outcome);
            }
            Task::Resize { before, after } => {
                let outcome = self.done(&name, result)?;
                let bytes = if outcome.is_ok() { after } else { before };
                self.record(VolumeRecord::Resized { name, bytes });
                self.end_job(id, outcome);
            }
            Task::Snapshot(_) => self.snapshot_replied(id, result)?,
            Task::Push(_) => self.push_replied(id, result)?,
        }
        Ok(())
    }

    /// A reply that can be nothing but done, or a fault in the words of operators.
    fn done(&mut self, name: &Name, result: Result<Reply, Fault>) -> Result<Result<(), Refusal>, Nonsense> {
        match result {
            Ok(Reply::Done) => Ok(Ok(())),
            Ok(_) => Err(Nonsense("another reply than done to a change of a volume")),
            Err(fault) => Ok(Err(self.volume_fault(name, fault))),
        }
    }

    /// Why the shim could not do it.
    pub(crate) fn volume_fault(&mut self, name: &Name, fault: Fault) -> Refusal {
        let volume = name.clone();
        Refusal::Volume(match fault {
            Fault::NoVolume => {
                if let Some(known) = self.state.volumes.get_mut(name) {
                    known.file = File::Missing;
                }
                VolumeRefusal::Missing(volume)
            }
            Fault::InUse => VolumeRefusal::InUse { volume, user: self.state.volume_holder(name).cloned() },
            Fault::Exists => VolumeRefusal::Taken(volume),
            fault => return Refusal::Shim(fault),
        })
    }

    /// Answers a job's asker.
    fn end_job(&mut self, id: JobId, outcome: Result<(), Refusal>) {
        let Some(Job { asker, grant, name, task }) = self.volumes.jobs.remove(&id) else { return };
        let bytes = self.state.volumes.get(&name).map_or(0, |volume| volume.bytes);
        let what = match (&outcome, &task) {
            (Err(refusal), _) => What::VolumeFailed(Box::new(refusal.clone())),
            (Ok(()), Task::Create) => What::VolumeCreated(bytes),
            (Ok(()), Task::Remove { .. }) => What::VolumeRemoved,
            (Ok(()), Task::Resize { .. }) => What::VolumeResized(bytes),
            (Ok(()), Task::Snapshot(snapshot)) => What::VolumeCopied(Some(snapshot.from.name.clone())),
            (Ok(()), Task::Push(_)) => What::VolumePushed(bytes),
        };
        self.happened(grant.who(), what, Some(name.clone()));
        let Some(asker) = asker else { return };
        let response = match (outcome, task) {
            (Err(refusal), _) => Response::Refused(refusal),
            (Ok(()), Task::Remove { .. }) => Response::Volume(VolumeResponse::Removed),
            (Ok(()), Task::Snapshot(snapshot)) => match self.volume_shown(&name) {
                Some(volume) => {
                    Response::Volume(VolumeResponse::Copied { volume, consistent: snapshot.consistent })
                }
                None => Response::Refused(VolumeRefusal::Unknown(name).into()),
            },
            (Ok(()), Task::Create | Task::Resize { .. } | Task::Push(_)) => match self.volume_shown(&name) {
                Some(volume) => Response::Volume(VolumeResponse::Is(volume)),
                None => Response::Refused(VolumeRefusal::Unknown(name).into()),
            },
        };
        self.answer(asker, response);
    }

    fn record(&mut self, record: VolumeRecord) {
        if let VolumeRecord::Creating { name, .. } = &record {
            // The survey under way may have looked before it was there, for another of this name.
            self.volumes.survey.unlisted.remove(name);
        }
        self.apply(Record::Volume(record));
    }

    /// Deletes a draft, or what there may be of one.
    pub(crate) fn remove_draft(&mut self, draft: VolumeName) {
        self.ask(&policy::upkeep(), Op::Volume(VolumeOp::Remove(draft)), Waiting::DraftGone);
    }

    pub(crate) fn draft_gone(&mut self, result: Result<Reply, Fault>) -> Handled {
        match result {
            Ok(Reply::Done) | Err(Fault::NoVolume) => {}
            Ok(_) => return Err(Nonsense("another reply than done to the removal of a draft")),
            Err(fault) => self.log(Level::Error, format!("a volume's draft is left: {fault:?}")),
        }
        Ok(())
    }

    // Reading.

    pub(crate) fn watch_volume(&self, name: &Name) -> Option<Watch> {
        let volume = self.state.volumes.get(name)?;
        let (edition, last_user) = (volume.edition, volume.last_user);
        Some(Watch {
            name: name.clone(),
            edition,
            unused: self.state.volume_holder(name).is_none(),
            last_user,
        })
    }

    /// Why what is being read is not what it was; nothing if it is, but for what a unikernel writes.
    pub(crate) fn changed(&self, watch: &Watch) -> Option<Refusal> {
        let same = self.state.volumes.get(&watch.name).is_some_and(|volume| volume.edition == watch.edition);
        (!same).then(|| VolumeRefusal::Changed(watch.name.clone()).into())
    }

    /// Whether no unikernel had it while it was read.
    pub(crate) fn stayed_unused(&self, watch: &Watch) -> bool {
        let volume = self.state.volumes.get(&watch.name);
        let no_other = volume.is_some_and(|volume| volume.last_user == watch.last_user);
        watch.unused && no_other && self.state.volume_holder(&watch.name).is_none()
    }

    // The link.

    /// The link is gone. What was being made or deleted is, when it is back.
    pub(crate) fn volumes_lost(&mut self) {
        self.volumes.untold = None;
        for (asker, _) in self.volumes.survey.give_up() {
            self.refuse(asker, Refusal::ShimAway);
        }
        for job in core::mem::take(&mut self.volumes.jobs).into_values() {
            if let Some(asker) = job.asker {
                self.refuse(asker, Refusal::ShimAway);
            }
        }
    }

    /// A volume as it is shown.
    fn volume_shown(&self, name: &Name) -> Option<Shown> {
        let volume = self.state.volumes.get(name)?;
        let state = match (volume.phase, volume.file) {
            (Phase::Creating, _) => VolumeState::Creating,
            (Phase::Removing, _) => VolumeState::Removing,
            (Phase::Kept, File::Missing) => VolumeState::Missing,
            (Phase::Kept, _) => VolumeState::Ready,
        };
        let disk_bytes = if let File::There { disk_bytes } = volume.file { Some(disk_bytes) } else { None };
        let user = self.state.volume_holder(name).cloned();
        Some(Shown { name: name.clone(), bytes: volume.bytes, disk_bytes, state, user })
    }
}
