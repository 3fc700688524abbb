//! The link to the shim: requests out, replies and events in.
//!
//! The shim answers in the order of the requests, so what an answer belongs to is the oldest unanswered
//! request. An answer to anything else, of another kind, or none for too long means that the two sides no longer
//! agree: the link is reset, and after the next hello the shim's ledger tells what is true.

use alloc::{
    boxed::Box,
    collections::{BTreeSet, VecDeque},
    format,
};

use petrel_wire::{
    Digest, Label, frame,
    limits::{SHIM_REQUESTS_MAX, SHIM_VERSION, TRANSFERS_MAX, UNIKERNELS_MAX, UPLOADS_MAX},
    operator::{Refusal, What, Who},
    shim::{Backend, Event, Fault, FromShim, Host, InstanceId, Op, Reply, Request, TapId},
};

use crate::{
    Engine, Level, Now, Output,
    images::Image,
    limits::{PUSH_WRITES_MAX, SHIM_SILENCE_NS},
    policy,
    policy::Grant,
    session::Asker,
    volumes::JobId,
};

/// What an unanswered request was for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waiting {
    Hello,
    Host,
    List,
    ImageBegin(Digest),
    ImageCommit(Digest),
    /// An `ImageAbort` or `ImageRemove`.
    ImageGone(Digest),
    ImageRead(Digest),
    TapCreate(InstanceId, TapId),
    TapDestroy(InstanceId),
    Spawn(InstanceId),
    Kill(InstanceId),
    Forget(InstanceId),
    Stats(Asker),
    Appliance(Asker),
    Images,
    ImageRemoved(Digest),
    Volumes,
    /// What a job at a volume has asked for last, or one of its writes.
    Volume(JobId),
    Download(JobId),
    DraftGone,
}

/// What the shim sent cannot be: the link has to be reset. Says what it was.
#[derive(Debug)]
pub(crate) struct Nonsense(pub &'static str);

/// Something from the shim was taken in.
pub(crate) type Handled = Result<(), Nonsense>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// There is no link.
    Away,
    /// The shim tells who it is, what the host has and what runs.
    Learning,
    /// It takes requests.
    Ready,
}

/// The control plane's end of the link.
#[derive(Debug)]
pub(crate) struct ShimClient {
    phase: Phase,
    /// It has been ready since the control plane started.
    ever_ready: bool,
    next_id: u32,
    /// The unanswered requests, the oldest first.
    unanswered: VecDeque<(u32, Waiting)>,
    /// Since when the oldest of them is waited for, or the shim was last heard: monotonic nanoseconds.
    heard_ns: u64,
    release: [u16; 3],
    host: Option<Box<Host>>,
    /// While learning, the unikernels, and what nobody was promised, that the shim has not listed yet.
    pub unlisted: BTreeSet<InstanceId>,
    /// While learning, the greatest id that the shim has listed.
    pub listed_up_to: Option<InstanceId>,
}

impl ShimClient {
    pub fn new() -> Self {
        Self {
            phase: Phase::Away,
            ever_ready: false,
            next_id: 0,
            unanswered: VecDeque::new(),
            heard_ns: 0,
            release: [0; 3],
            host: None,
            unlisted: BTreeSet::new(),
            listed_up_to: None,
        }
    }

    /// Whether the shim takes requests.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Whether it is known what runs, or was when the link broke.
    pub fn ever_ready(&self) -> bool {
        self.ever_ready
    }

    /// Whether the shim is telling what runs.
    pub fn is_learning(&self) -> bool {
        self.phase == Phase::Learning
    }

    /// What the host is and has, while the shim takes requests.
    pub fn host_if_ready(&self) -> Option<&Host> {
        self.host.as_deref().filter(|_| self.is_ready())
    }

    /// How many requests are not answered.
    #[cfg(feature = "inspect")]
    pub fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// The shim's release.
    pub fn release(&self) -> [u16; 3] {
        self.release
    }

    /// The first monitor that can run `image`.
    pub fn monitor_for(&self, image: &Image) -> Result<Label, Refusal> {
        let mut monitors = self.host.iter().flat_map(|host| &host.monitors);
        let monitor = monitors.find(|monitor| image.runs_on(monitor));
        let none = Refusal::NoMonitor { target: image.target, version: image.version };
        monitor.map(|monitor| monitor.name.clone()).ok_or(none)
    }

    /// What isolates the guests of a monitor, if the host offers it.
    pub fn backend_of(&self, name: &Label) -> Option<Backend> {
        let mut monitors = self.host.iter().flat_map(|host| &host.monitors);
        monitors.find(|monitor| monitor.name == *name).map(|monitor| monitor.backend)
    }

    /// Whether so many requests more leave room for those that nobody can be refused: one for each unikernel,
    /// image, volume and upload that there may be, and what moves volumes.
    pub fn has_room(&self, requests: usize) -> bool {
        const RESERVED: usize = UNIKERNELS_MAX + UPLOADS_MAX + 2 * TRANSFERS_MAX * PUSH_WRITES_MAX;
        self.unanswered.len() + requests + RESERVED <= SHIM_REQUESTS_MAX
    }

    /// Sends a request that is not answered.
    pub fn send(&mut self, _grant: &Grant, op: Op, outputs: &mut VecDeque<Output>) {
        outputs.push_back(Output::ToShim(Request { id: self.next_id, op }));
        self.next_id = self.next_id.wrapping_add(1);
    }

    /// Sends a request whose answer is for `waiting`.
    pub fn ask(&mut self, now: Now, grant: &Grant, op: Op, waiting: Waiting, outputs: &mut VecDeque<Output>) {
        if self.unanswered.is_empty() {
            self.heard_ns = now.monotonic_ns;
        }
        self.unanswered.push_back((self.next_id, waiting));
        self.send(grant, op, outputs);
    }

    /// Those who wait for an answer of the machine.
    pub fn appliance_askers(&self) -> impl Iterator<Item = Asker> {
        self.unanswered.iter().filter_map(|(_, waiting)| match waiting {
            Waiting::Appliance(asker) => Some(*asker),
            _ => None,
        })
    }

    /// A request was taken back before it left; what it was for, if its answer was awaited.
    fn take_back(&mut self, id: u32) -> Option<Waiting> {
        let index = self.unanswered.iter().position(|(asked, _)| *asked == id)?;
        self.unanswered.remove(index).map(|(_, waiting)| waiting)
    }

    /// When the shim has been silent for too long, in monotonic nanoseconds.
    pub fn deadline(&self) -> Option<u64> {
        let waits = !self.unanswered.is_empty();
        waits.then_some(self.heard_ns.saturating_add(SHIM_SILENCE_NS))
    }
}

impl Engine {
    pub(crate) fn ask(&mut self, grant: &Grant, op: Op, waiting: Waiting) {
        self.shim.ask(self.now, grant, op, waiting, &mut self.outputs);
    }

    pub(crate) fn link_opened(&mut self) {
        self.link_lost();
        self.shim.phase = Phase::Learning;
        self.shim.unlisted = self.state.ids().chain(self.doomed.iter().copied()).collect();
        self.shim.listed_up_to = None;
        self.foreign_taps.clear();
        let grant = policy::upkeep();
        self.ask(&grant, Op::Hello { version: SHIM_VERSION }, Waiting::Hello);
        self.ask(&grant, Op::Host, Waiting::Host);
        // What is stored is told first, what runs on it last.
        self.survey_volumes();
    }

    pub(crate) fn link_closed(&mut self) {
        if self.shim.phase != Phase::Away {
            self.happened(Who::ControlPlane, What::ShimLost, None);
            self.link_lost();
        }
    }

    /// Gives up what was under way. The shim has all it needs to tell later what became of it.
    pub(crate) fn link_lost(&mut self) {
        self.shim.phase = Phase::Away;
        self.appliance_lost();
        self.shim.unanswered.clear();
        self.uploads_lost();
        self.volumes_lost();
        self.downloads_lost();
        self.images_lost();
        self.learners_lost();
        self.launches_lost();
        self.endings_lost();
        self.reaps_lost();
        self.orders_lost();
        self.stats_lost();
    }

    pub(crate) fn reset_link(&mut self, why: &str) {
        self.log(Level::Error, format!("shim: the link is reset: {why}"));
        self.happened(Who::ControlPlane, What::ShimLost, None);
        self.outputs.push_back(Output::ResetLink);
        self.link_lost();
    }

    pub(crate) fn shim_deadline(&mut self) {
        if self.shim.deadline().is_some_and(|at_ns| self.now.monotonic_ns >= at_ns) {
            self.reset_link("a request was not answered in time");
        }
    }

    pub(crate) fn link_frame(&mut self, payload: &[u8]) {
        if self.shim.phase == Phase::Away {
            return;
        }
        self.shim.heard_ns = self.now.monotonic_ns;
        let handled = match frame::decode(payload) {
            Ok(FromShim::Reply { id, result }) => self.reply(id, result),
            Ok(FromShim::Event(event)) => self.event(event),
            Err(_) => Err(Nonsense("a frame that is not one well-formed message")),
        };
        if let Err(Nonsense(why)) = handled {
            self.reset_link(why);
        }
    }

    fn reply(&mut self, id: u32, result: Result<Reply, Fault>) -> Handled {
        let waiting = match self.shim.unanswered.pop_front() {
            Some((expected, waiting)) if expected == id => waiting,
            _ => return Err(Nonsense("a reply out of order, or to no request")),
        };
        self.answered(waiting, result)
    }

    /// A request that has not left never will: what it was for hears of it as if the shim had failed at it.
    pub(crate) fn unsent(&mut self, id: u32, fault: Fault) -> Handled {
        self.shim.take_back(id).map_or(Ok(()), |waiting| self.answered(waiting, Err(fault)))
    }

    fn answered(&mut self, waiting: Waiting, result: Result<Reply, Fault>) -> Handled {
        match waiting {
            Waiting::Hello => self.greeted(result),
            Waiting::Host => self.host_learned(result),
            Waiting::List => self.listed(result),
            Waiting::ImageBegin(digest) => self.upload_begun(digest, result),
            Waiting::ImageCommit(digest) => self.upload_committed(digest, result),
            Waiting::ImageGone(digest) => self.upload_left(digest, result),
            Waiting::ImageRead(digest) => self.image_read(digest, result),
            Waiting::TapCreate(instance, tap) => self.tap_created(instance, tap, result),
            Waiting::TapDestroy(instance) => self.tap_destroyed(instance, result),
            Waiting::Spawn(instance) => self.spawned(instance, result),
            Waiting::Kill(instance) => self.killed(instance, result),
            Waiting::Forget(instance) => self.forgotten(instance, result),
            Waiting::Appliance(asker) => self.appliance_told(asker, result),
            Waiting::Stats(asker) => self.stats_told(asker, result),
            Waiting::Images => self.images_listed(result),
            Waiting::ImageRemoved(digest) => self.image_removed(digest, result),
            Waiting::Volumes => self.volumes_listed(result),
            Waiting::Volume(job) => self.volume_replied(job, result),
            Waiting::Download(id) => self.download_replied(id, result),
            Waiting::DraftGone => self.draft_gone(result),
        }
    }

    fn greeted(&mut self, result: Result<Reply, Fault>) -> Handled {
        let Ok(Reply::Hello { release }) = result else {
            return Err(Nonsense("another reply than a hello to the hello"));
        };
        self.shim.release = release;
        // The ids of an earlier control plane that nobody remembers were below this: no host starts 1024
        // unikernels in each millisecond.
        self.next_instance = self.next_instance.max(self.now.wall_ms.saturating_mul(1024));
        Ok(())
    }

    fn host_learned(&mut self, result: Result<Reply, Fault>) -> Handled {
        let Ok(Reply::Host(host)) = result else {
            return Err(Nonsense("another reply than the host's facts to the question for them"));
        };
        self.shim.host = Some(host);
        Ok(())
    }

    /// The shim has told what runs: from here on it takes requests.
    pub(crate) fn shim_ready(&mut self) {
        self.shim.phase = Phase::Ready;
        self.shim.ever_ready = true;
        self.happened(Who::ControlPlane, What::ShimConnected(self.shim.release), None);
    }

    fn event(&mut self, event: Event) -> Handled {
        match event {
            Event::Console { instance, data } => {
                let wall_ms = self.now.wall_ms;
                if let Some(console) = self.console_of(instance) {
                    console.push(wall_ms, &data);
                    self.console_changed(instance);
                    self.console_heard(instance, &data);
                }
                Ok(())
            }
            Event::ConsoleLost { instance, bytes, lines } => {
                if let Some(console) = self.console_of(instance) {
                    console.lose(bytes, lines);
                    self.console_changed(instance);
                }
                Ok(())
            }
            Event::Exited { instance, status } => self.exited(instance, status),
        }
    }
}
