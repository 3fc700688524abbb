//! What the shim has of volumes, asked whenever the link has opened, and when somebody wants to see the listing.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    vec::Vec,
};

use petrel_wire::{
    List, Name, Path, VolumeName,
    limits::{PAGE_ENTRIES_MAX, VOLUMES_MAX},
    operator::{Refusal, Volume as Shown, VolumeState, What, Who},
    shim::{Fault, Op, Reply, VolumeFile, VolumeOp},
};

use super::{File, Phase, VolumeRecord};
use crate::{
    Engine, Level,
    limits::SURVEY_RETRY_NS,
    policy::{self, Grant},
    record::Record,
    session::Asker,
    shim_client::{Handled, Nonsense, Waiting},
    stream::Source,
};

/// A look at all files of the volume folder.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    under_way: bool,
    /// The volumes that it has not come across yet.
    pub unlisted: BTreeSet<Name>,
    last: Option<VolumeName>,
    seen: usize,
    orphans: BTreeMap<Name, VolumeFile>,
    /// Who waits for the listing of what lies below which path.
    askers: Vec<(Asker, Path)>,
}

impl Survey {
    /// Ends it; returns who waited.
    pub fn give_up(&mut self) -> Vec<(Asker, Path)> {
        core::mem::take(self).askers
    }

    #[cfg(feature = "inspect")]
    pub fn askers_len(&self) -> usize {
        self.askers.len()
    }
}

impl Engine {
    /// The listing: with what the files take now, or while the shim is away with what it told last.
    pub(super) fn volume_list(&mut self, asker: Asker, grant: &Grant) {
        let scope = grant.scope();
        if !self.shim.ever_ready() {
            return self.refuse(asker, Refusal::ShimAway);
        }
        if !self.shim.is_ready() {
            return self.open_stream(asker, Source::Volumes { scope, after: None });
        }
        // Sessions that have closed wait no longer, so that there are no more of them than of open requests.
        let mut askers = core::mem::take(&mut self.volumes.survey.askers);
        askers.retain(|(asker, _)| self.waits(*asker));
        askers.push((asker, scope));
        self.volumes.survey.askers = askers;
        if !self.volumes.survey.under_way {
            self.survey_volumes();
        }
    }

    /// Asks for the first page.
    pub(crate) fn survey_volumes(&mut self) {
        let kept = self.state.volumes.after(None).filter(|(_, volume)| volume.phase == Phase::Kept);
        let kept: BTreeSet<Name> = kept.map(|(name, _)| name.clone()).collect();
        let survey = &mut self.volumes.survey;
        let askers = survey.give_up();
        *survey = Survey { under_way: true, unlisted: kept, askers, ..Survey::default() };
        self.ask_for_volumes(None);
    }

    fn ask_for_volumes(&mut self, after: Option<VolumeName>) {
        self.ask(&policy::upkeep(), Op::Volume(VolumeOp::List { after }), Waiting::Volumes);
    }

    pub(crate) fn volumes_listed(&mut self, result: Result<Reply, Fault>) -> Handled {
        let (page, more) = match result {
            Ok(Reply::Volumes { page, more }) => (page.into_vec(), more),
            Ok(_) => return Err(Nonsense("another reply than volumes to the question for them")),
            Err(fault) => {
                self.log(Level::Error, format!("volumes: cannot be listed: {fault:?}"));
                self.survey_over(Some(fault));
                return Ok(());
            }
        };
        if more && page.is_empty() {
            return Err(Nonsense("an empty page of the volumes, and more to follow"));
        }
        for file in page {
            if Some(&file.volume) <= self.volumes.survey.last.as_ref() {
                return Err(Nonsense("volumes that are not in the order of their names"));
            }
            self.volumes.survey.seen += 1;
            self.volumes.survey.last = Some(file.volume.clone());
            self.volume_found(file);
        }
        if self.volumes.survey.seen > 2 * VOLUMES_MAX {
            return Err(Nonsense("more volumes than there can be"));
        }
        if more {
            let after = self.volumes.survey.last.clone();
            self.ask_for_volumes(after);
        } else {
            self.compare_volumes();
            self.survey_over(None);
        }
        Ok(())
    }

    fn volume_found(&mut self, file: VolumeFile) {
        let learning = self.shim.is_learning();
        let Some(name) = file.volume.volume() else {
            // It may not go at once.
            self.volumes.last_draft = self.volumes.last_draft.max(file.volume.draft_number().unwrap_or(0));
            if learning {
                // Of a push or a pull that went down with its control plane or its link.
                self.remove_draft(file.volume);
            }
            return;
        };
        self.volumes.survey.unlisted.remove(&name);
        match self.state.volumes.get(&name).map(|volume| volume.phase) {
            Some(Phase::Kept) => self.volume_told(name, file.bytes, file.disk_bytes),
            // It was being made or deleted, and nobody was promised that it stays.
            Some(_) if learning && self.journal.read_only().is_none() => {
                self.remove_job(None, policy::upkeep(), name)
            }
            Some(_) => {}
            None if self.adopts_volumes() && self.state.volumes.len() < VOLUMES_MAX => {
                self.log(Level::Info, format!("volume {name}: adopted"));
                self.note(Record::Volume(VolumeRecord::Creating { name: name.clone(), bytes: file.bytes }));
                self.note(Record::Volume(VolumeRecord::Kept(name.clone())));
                self.volume_told(name, file.bytes, file.disk_bytes);
            }
            None => drop(self.volumes.survey.orphans.insert(name, file)),
        }
    }

    /// The shim has told of a volume's file.
    fn volume_told(&mut self, name: Name, bytes: u64, disk_bytes: u64) {
        let busy = self.volumes.job_of(&name).is_some();
        let Some(volume) = self.state.volumes.get_mut(&name) else { return };
        volume.file = File::There { disk_bytes };
        if volume.bytes != bytes && !busy {
            self.state.volumes.new_edition(&name);
            self.log(Level::Warning, format!("volume {name}: has {bytes} bytes"));
            self.note(Record::Volume(VolumeRecord::Resized { name, bytes }));
        }
    }

    /// Whether files that no record tells of are volumes: a control plane that has no records of this host, or not all,
    /// has to believe what it finds first.
    fn adopts_volumes(&self) -> bool {
        !self.volumes.known && !self.knows_all()
    }

    /// All files are known.
    fn compare_volumes(&mut self) {
        let survey = &mut self.volumes.survey;
        let (unlisted, orphans) =
            (core::mem::take(&mut survey.unlisted), core::mem::take(&mut survey.orphans));
        for name in unlisted {
            let Some(volume) = self.state.volumes.get_mut(&name) else { continue };
            if volume.file != File::Missing {
                volume.file = File::Missing;
                self.happened(Who::ControlPlane, What::VolumeMissing, Some(name));
            }
        }
        for name in orphans.keys().filter(|name| !self.volumes.orphans.contains_key(*name)) {
            let line = format!("volume {name}: a file without a record: left alone");
            self.outputs.push_back(crate::Output::Log { level: Level::Warning, line });
        }
        self.volumes.orphans = orphans;
        self.volumes.known = true;
        self.note_completeness();
        if self.shim.is_learning() {
            self.forget_unmade();
        }
    }

    /// The survey has ended, at all files or at a fault: then what there is stays unknown, nothing is missing, and nothing
    /// an orphan.
    fn survey_over(&mut self, fault: Option<Fault>) {
        let due_ns = self.now.monotonic_ns.saturating_add(SURVEY_RETRY_NS);
        self.volumes.untold = fault.map(|fault| (fault, due_ns));
        for (asker, scope) in self.volumes.survey.give_up() {
            if self.waits(asker) {
                self.open_stream(asker, Source::Volumes { scope, after: None });
            }
        }
        if self.shim.is_learning() {
            self.survey_images();
        }
    }

    /// When the shim is asked again for what it could not tell, in monotonic nanoseconds.
    pub(crate) fn survey_due_ns(&self) -> Option<u64> {
        let idle = self.shim.is_ready() && !self.volumes.survey.under_way;
        self.volumes.untold.filter(|_| idle).map(|(_, due_ns)| due_ns)
    }

    /// Asks again for that, if it is time.
    pub(crate) fn survey_deadline(&mut self) {
        if self.survey_due_ns().is_some_and(|due_ns| self.now.monotonic_ns >= due_ns) {
            self.survey_volumes();
        }
    }

    /// What was being made or deleted when the records ended, and is not there: nothing is left of it.
    fn forget_unmade(&mut self) {
        let unmade = self.state.volumes.after(None).filter(|(_, volume)| volume.phase != Phase::Kept);
        let unmade = unmade.filter(|(name, _)| self.volumes.job_of(name).is_none());
        let unmade: Vec<Name> = unmade.map(|(name, _)| name.clone()).collect();
        for name in unmade {
            self.note(Record::Volume(VolumeRecord::Removed(name)));
        }
    }

    /// A page of the listing: those below `scope` with greater names, and whether more follow.
    pub(crate) fn volume_page(
        &self,
        scope: &Path,
        after: Option<&Name>,
    ) -> (List<Shown, PAGE_ENTRIES_MAX>, bool) {
        let own = self.state.volumes.after(after).map(|(name, _)| name).filter(|name| scope.is_above(name));
        let own = own.take(PAGE_ENTRIES_MAX + 1);
        let others = self.volumes.orphans.keys().filter(|name| after.is_none_or(|after| *name > after));
        let others = others.filter(|name| scope.is_above(name));
        let mut names: Vec<&Name> = own.chain(others.take(PAGE_ENTRIES_MAX + 1)).collect();
        names.sort_unstable();
        names.dedup();
        let more = names.len() > PAGE_ENTRIES_MAX;
        names.truncate(PAGE_ENTRIES_MAX);
        let page: Vec<Shown> = names
            .into_iter()
            .filter_map(|name| {
                self.volume_shown(name)
                    .or_else(|| self.volumes.orphans.get(name).map(|file| orphan(name, file)))
            })
            .collect();
        (List::try_from(page).unwrap_or_default(), more)
    }
}

fn orphan(name: &Name, file: &VolumeFile) -> Shown {
    let (bytes, disk_bytes) = (file.bytes, Some(file.disk_bytes));
    Shown { name: name.clone(), bytes, disk_bytes, state: VolumeState::Orphan, user: None }
}
