//! The engine: its tables, and where each input goes. What is done with an input is in the rooms.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    string::String,
};

use petrel_wire::{
    Name,
    operator::{Address, What, Who},
    shim::{InstanceId, TapId},
};

use crate::{
    Config, Input, Level, Now, Output, SessionId,
    consoles::Consoles,
    download::Downloads,
    images::Images,
    journal::{Journal, Transfer},
    limits::PUSH_WRITES_MAX,
    policy,
    session::{Kind, Session},
    shim_client::ShimClient,
    state::State,
    store::Store,
    supervise::{Watches, launch::Launches, probes::Probes, reap::Reaps},
    upload::Uploads,
    volumes::Volumes,
};

/// The control plane's decisions; see the [crate's page](crate).
///
/// All tables are ordered, so what comes out depends on nothing but what went in.
pub struct Engine {
    pub(crate) config: Config,
    /// The time of the present input.
    pub(crate) now: Now,
    /// The time of the first input, in monotonic nanoseconds.
    pub(crate) started_ns: Option<u64>,
    /// On the operators' network.
    pub(crate) address: Option<Address>,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    /// When the first certificate of an open session expires, or before: milliseconds since 1970.
    pub(crate) first_expiry_ms: u64,
    /// The number of the last request.
    pub(crate) serial: u64,
    pub(crate) shim: ShimClient,
    pub(crate) state: State,
    pub(crate) watches: Watches,
    /// When something is due about which unikernel, in monotonic nanoseconds.
    pub(crate) timers: BTreeSet<(u64, Name)>,
    /// The unikernels that wait until others are ready.
    pub(crate) waiting: BTreeSet<Name>,
    pub(crate) probes: Probes,
    pub(crate) journal: Journal,
    /// What follows from the present handle is being taken back: nothing new is begun.
    pub(crate) withholding: bool,
    /// A state file that is on its way in.
    pub(crate) transfer: Option<Transfer>,
    pub(crate) consoles: Consoles,
    pub(crate) images: Images,
    pub(crate) store: Store,
    pub(crate) uploads: Uploads,
    pub(crate) downloads: Downloads,
    pub(crate) volumes: Volumes,
    pub(crate) launches: Launches,
    pub(crate) reaps: Reaps,
    /// Nobody was promised these, and the shim may have them: ended when it lists them.
    pub(crate) doomed: BTreeSet<InstanceId>,
    /// The shim may have forgotten these: gone unless it lists them.
    pub(crate) unsure: BTreeSet<InstanceId>,
    /// The taps of monitors that are not ours.
    pub(crate) foreign_taps: BTreeSet<TapId>,
    pub(crate) next_instance: u64,
    pub(crate) next_tap: u32,
}

impl Engine {
    /// An engine that knows nothing yet of the host it runs on, and keeps what it learns in memory only.
    pub fn new(config: Config) -> Self {
        let mut engine = Self::with_journal(config, Journal::in_memory());
        engine.log(Level::Info, "state: no block device \"state\": kept in memory only".into());
        engine
    }

    pub(crate) fn with_journal(config: Config, journal: Journal) -> Self {
        Self {
            config,
            now: Now::default(),
            started_ns: None,
            address: None,
            outputs: VecDeque::new(),
            sessions: BTreeMap::new(),
            first_expiry_ms: u64::MAX,
            serial: 0,
            shim: ShimClient::new(),
            state: State::default(),
            watches: Watches::new(),
            timers: BTreeSet::new(),
            waiting: BTreeSet::new(),
            probes: Probes::new(),
            journal,
            withholding: false,
            transfer: None,
            consoles: Consoles::default(),
            images: Images::default(),
            store: Store::default(),
            uploads: Uploads::new(),
            downloads: Downloads::new(),
            volumes: Volumes::default(),
            launches: Launches::new(),
            reaps: Reaps::new(),
            doomed: BTreeSet::new(),
            unsure: BTreeSet::new(),
            foreign_taps: BTreeSet::new(),
            next_instance: 1,
            next_tap: 1,
        }
    }

    /// Takes in what happened. Take the outputs before the next input.
    pub fn handle(&mut self, now: Now, input: Input<'_>) {
        self.set_now(now);
        if matches!(input, Input::StateFailed) {
            return self.state_failed();
        }
        let (mark, events) = (self.begin(), self.state.events.next());
        // To what has ended nothing is said any more; who has expired is not heard any more.
        let ends = matches!(input, Input::LinkClosed | Input::SessionClosed { .. });
        if !ends {
            self.end_expired();
        }
        match input {
            Input::SessionOpened { session, peer } => self.session_opened(session, peer),
            Input::SessionFrame { session, payload } => self.session_frame(session, payload),
            Input::SessionFrameTooLong { session, claimed } => self.session_frame_too_long(session, claimed),
            Input::SessionDrained { session, queued } => self.session_drained(session, queued),
            Input::SessionClosed { session } => self.session_closed(session),
            Input::LinkOpened => self.link_opened(),
            Input::LinkClosed => self.link_closed(),
            Input::LinkFrame { payload } => self.link_frame(payload),
            Input::Probed { id, passed } => self.probed(id, passed),
            Input::Addressed(address) => self.address = address,
            Input::StateFailed => {}
        }
        if ends {
            self.end_expired();
        }
        self.tell_events(events);
        self.commit(mark);
    }

    /// The next thing to be done, until there is nothing left to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] is due, in monotonic nanoseconds, unless an input comes before.
    pub fn poll_at(&self) -> Option<u64> {
        let rooms = [
            self.shim.deadline(),
            self.watch_deadline(),
            self.reap_deadline(),
            self.journal.deadline(),
            self.survey_due_ns(),
            policy::expiry_deadline(self.now, self.first_expiry_ms),
        ];
        rooms.into_iter().flatten().min()
    }

    /// Does what is due by now.
    pub fn handle_timeout(&mut self, now: Now) {
        self.set_now(now);
        let (mark, events) = (self.begin(), self.state.events.next());
        self.end_expired();
        self.shim_deadline();
        self.survey_deadline();
        // What is nobody's may have the name of what is started next.
        self.reaps_due();
        self.watches_due();
        self.tell_events(events);
        self.commit(mark);
    }

    /// Whether this session sends an image or a volume: the driver stops reading it while its queue towards the shim is long.
    pub fn uploading(&self, session: SessionId) -> bool {
        let requests = self.sessions.get(&session).map(|session| session.requests.values());
        requests
            .is_some_and(|mut all| all.any(|request| matches!(request.kind, Kind::Upload(_) | Kind::Push(_))))
    }

    /// Whether this session has sent more of a volume than the shim has written: the driver stops reading it until the shim
    /// has answered.
    pub fn overtaken(&self, session: SessionId) -> bool {
        self.unanswered_writes(session) >= PUSH_WRITES_MAX
    }

    pub(crate) fn log(&mut self, level: Level, line: String) {
        self.outputs.push_back(Output::Log { level, line });
    }

    fn set_now(&mut self, now: Now) {
        self.now = now;
        if self.started_ns.is_none() {
            self.started_ns = Some(now.monotonic_ns);
            self.happened(Who::ControlPlane, What::ControlPlaneStarted(self.config.release), None);
        }
    }
}
