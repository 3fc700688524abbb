//! How full the engine's tables are, and whether they are in step: for simulators and tests, which ask after every
//! input. Whoever adds a table adds its line here.

use petrel_wire::{
    Name,
    limits::{
        CONSOLE_HISTORY_BYTES, CONSOLES_DEAD_BYTES_MAX, CONSOLES_DEAD_MAX, EVENTS_MAX, IMAGES_MAX,
        REQUESTS_MAX, SESSION_QUEUE_BYTES, SESSIONS_MAX, SHIM_REQUESTS_MAX, TAPS_MAX, TRANSFERS_MAX,
        UNIKERNELS_MAX, UPLOADS_MAX, VOLUMES_MAX,
    },
    operator::{Event, ReadOnly, State, Wish},
    shim::InstanceId,
};

use crate::{
    Engine,
    limits::{CONSOLE_ENTRIES_MAX, CREATES_WAITING_MAX, PROBES_MAX, RECORDS_WAITING_MAX},
    session::Session,
    supervise::Step,
    unikernel::Run,
};

/// One of the engine's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// What it holds.
    pub name: &'static str,
    /// How many entries it has; where there are many tables of a kind, the fullest.
    pub entries: usize,
    /// The most that it may have.
    pub max: usize,
    /// It is empty when nothing is under way.
    pub passing: bool,
}

impl Engine {
    /// All tables.
    pub fn tables(&self) -> impl Iterator<Item = Table> {
        let stays = |name, entries, max| Table { name, entries, max, passing: false };
        let passes = |name, entries, max| Table { name, entries, max, passing: true };
        let fullest = |count: fn(&Session) -> usize| self.sessions.values().map(count).max().unwrap_or(0);
        let askers = SESSIONS_MAX * REQUESTS_MAX;
        let consoles = || self.consoles.iter();
        let (dead, dead_bytes) = self.consoles.dead();
        [
            stays("sessions", self.sessions.len(), SESSIONS_MAX),
            stays("requests of a session", fullest(|session| session.requests.len()), REQUESTS_MAX),
            stays("streams of a session", fullest(|session| session.streams.len()), REQUESTS_MAX),
            stays("bytes queued for a session", fullest(|session| session.queued), 2 * SESSION_QUEUE_BYTES),
            passes("outputs", self.outputs.len(), 0),
            passes("records that wait", self.journal.waiting_len(), RECORDS_WAITING_MAX),
            stays("state files on their way", usize::from(self.transfer.is_some()), 1),
            passes("requests to the shim", self.shim.unanswered(), SHIM_REQUESTS_MAX),
            passes("unlisted unikernels", self.shim.unlisted.len(), UNIKERNELS_MAX),
            stays("unikernels", self.state.len(), UNIKERNELS_MAX),
            stays("taps", self.state.taps_len() + self.foreign_taps.len(), 2 * TAPS_MAX),
            stays("consoles", consoles().count(), 2 * UNIKERNELS_MAX + CONSOLES_DEAD_MAX),
            stays("consoles of the dead", dead, CONSOLES_DEAD_MAX),
            stays("bytes of the consoles of the dead", dead_bytes, CONSOLES_DEAD_BYTES_MAX),
            stays(
                "bytes of a console",
                consoles().map(|console| console.bytes()).max().unwrap_or(0),
                CONSOLE_HISTORY_BYTES,
            ),
            stays(
                "entries of a console",
                consoles().map(|console| console.entries()).max().unwrap_or(0),
                CONSOLE_ENTRIES_MAX,
            ),
            stays("readers", consoles().map(|console| console.readers.len()).sum(), askers),
            stays("events", self.state.events.iter().count(), EVENTS_MAX),
            stays("known images", self.images.known_len(), IMAGES_MAX),
            passes("inspections", self.images.inspections_len(), UPLOADS_MAX + CREATES_WAITING_MAX),
            passes("creates that wait", self.images.creates_waiting, CREATES_WAITING_MAX),
            passes("uploads", self.uploads.len(), UPLOADS_MAX),
            stays("volumes", self.state.volumes.len(), VOLUMES_MAX),
            stays("stored images", self.store.len(), IMAGES_MAX + 1),
            passes("images on their way out", self.store.removals_len(), IMAGES_MAX),
            passes("collections", self.store.collections_len(), askers),
            passes("jobs at volumes", self.volumes.jobs_len(), 2 * VOLUMES_MAX),
            passes("who waits for volumes", self.volumes.survey_askers(), askers),
            passes("volumes that were not told", usize::from(self.volumes.is_untold()), 1),
            stays("files without a record", self.volumes.orphans_len(), 2 * VOLUMES_MAX),
            passes("downloads", self.downloads.len(), TRANSFERS_MAX),
            stays("watches", self.watches.len(), UNIKERNELS_MAX),
            stays("timers", self.timers.len(), UNIKERNELS_MAX),
            stays("unikernels that wait for others", self.waiting.len(), UNIKERNELS_MAX),
            stays("probes", self.probes.len(), PROBES_MAX),
            passes("launches", self.launches.len(), UNIKERNELS_MAX),
            passes("reaps", self.reaps.len(), 2 * UNIKERNELS_MAX),
            passes("doomed instances", self.doomed.len(), 2 * UNIKERNELS_MAX),
            passes("unsure instances", self.unsure.len(), UNIKERNELS_MAX),
        ]
        .into_iter()
    }

    /// The unikernels that are known.
    pub fn known(&self) -> impl Iterator<Item = (InstanceId, &Name)> {
        let known = self.state.ids().filter_map(|id| Some((id, self.state.by_id(id)?)));
        known.map(|(id, unikernel)| (id, unikernel.name()))
    }

    /// What the unikernels are doing, and what they are to be. One that runs and will make way after a while is stopping.
    pub fn states(&self) -> impl Iterator<Item = (State, Wish)> {
        self.state.names().filter_map(|name| {
            let brief = self.brief(name)?;
            let makes_way = matches!(brief.state, State::Running | State::Ready)
                && matches!(self.next_step(name), Step::WaitUntil(_));
            Some((if makes_way { State::Stopping } else { brief.state }, brief.wish))
        })
    }

    /// What happened, as far as it is kept, the latest first.
    pub fn happenings(&self) -> impl Iterator<Item = &Event> {
        self.state.events.iter().rev()
    }

    /// Why nothing can be kept, if so.
    pub fn read_only(&self) -> Option<ReadOnly> {
        self.journal.read_only()
    }

    /// Whether what is counted as it goes is what a count of everything gives. Says what is not.
    ///
    /// # Errors
    /// What is out of step.
    pub fn audit(&self) -> Result<(), &'static str> {
        self.state.audit()?;
        let readers: usize = self.consoles.iter().map(|console| console.readers.len()).sum();
        let reading: usize = self.sessions.values().map(Session::consoles_read).sum();
        ensure(readers == reading, "the consoles' readers are not the sessions' streams")?;
        let watched = self.state.names().all(|name| self.watches.contains_key(name));
        ensure(watched && self.watches.len() == self.state.len(), "watches and unikernels are out of step")?;
        let starting = |id: &InstanceId| self.state.by_id(*id).is_some_and(|u| u.run == Run::Starting);
        ensure(self.launches.keys().all(starting), "a launch of what is not starting")?;
        // Without the link nobody knows what became of those that were starting.
        let all = self.state.ids().filter(starting).count();
        ensure(
            !self.shim.is_ready() || self.launches.len() == all,
            "something is starting, and nobody does it",
        )
    }
}

pub(crate) fn ensure(holds: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(otherwise) }
}
