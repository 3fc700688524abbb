//! A driver: one engine, one host, any number of clients, and a clock that goes only when told to.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use petrel_engine::{
    Config, Engine, Input, Level, Now, Output, Peer, ProbeId, ProbeKind, SessionId, StateDevice,
};
use petrel_wire::{
    Blob, Digest, List, Name, frame,
    limits::{CHUNK_BYTES_MAX, OPERATOR_VERSION},
    operator::{
        ClientMessage, ConsoleAsked, Create, Download, Hello, ImageResponse, Net, Refusal, Request, Response,
        ServerMessage, State, Supervision, Table, Unikernel, UnikernelInfo, VolumeRequest, VolumeResponse,
    },
    shim::InstanceId,
};

use crate::{disk::Disk, host::Host};

pub struct World {
    pub engine: Engine,
    pub host: Host,
    /// The block device "state", if one is attached.
    pub disk: Option<Disk>,
    pub now: Now,
    pub linked: bool,
    /// On their way to the host.
    pub requests: VecDeque<petrel_wire::shim::Request>,
    /// What each client has got and not looked at yet.
    pub inboxes: BTreeMap<SessionId, VecDeque<ServerMessage>>,
    /// Clients that do not read, and the bytes queued towards each.
    pub stalled: BTreeMap<SessionId, usize>,
    /// Sessions that the engine has closed.
    pub closed: BTreeSet<SessionId>,
    /// The requests that have not got their last answer.
    pub unanswered: BTreeMap<(SessionId, u32), String>,
    /// The uploads whose bytes have been asked for.
    pub wanted: BTreeSet<(SessionId, u32)>,
    /// Clients ask by accident: answers to what the test has not noted are no failure.
    pub lenient: bool,
    pub log: Vec<(Level, String)>,
    pub resets: usize,
    /// The probes that nothing has answered yet.
    pub probes: VecDeque<(ProbeId, ProbeKind, String)>,
    /// The kinds of outputs that there were, in their order.
    pub order: Vec<&'static str>,
    /// How long the engine was at work.
    pub in_engine: Duration,
    next_session: u32,
}

impl World {
    /// A world whose link is up and at rest.
    pub fn new() -> Self {
        let mut world = Self::unlinked();
        world.link_up();
        world.run();
        world
    }

    /// A world whose host has all the memory that one can ask for.
    pub fn with_endless_memory() -> Self {
        let mut world = Self::unlinked();
        world.host.facts.memory_mib = u64::MAX;
        world.link_up();
        world.run();
        world
    }

    /// A world that keeps what it knows on a disk of so many bytes, whose link is up and at rest.
    pub fn with_disk(bytes: usize) -> Self {
        let mut world = Self::unlinked();
        world.disk = Some(Disk::new(bytes));
        world.restart();
        world.run();
        world
    }

    pub fn unlinked() -> Self {
        Self {
            engine: engine(None),
            host: Host::new(),
            disk: None,
            now: Now { monotonic_ns: 1_000_000_000, wall_ms: 1_700_000_000_000 },
            linked: false,
            requests: VecDeque::new(),
            inboxes: BTreeMap::new(),
            stalled: BTreeMap::new(),
            closed: BTreeSet::new(),
            unanswered: BTreeMap::new(),
            wanted: BTreeSet::new(),
            lenient: false,
            log: Vec::new(),
            resets: 0,
            probes: VecDeque::new(),
            order: Vec::new(),
            in_engine: Duration::ZERO,
            next_session: 0,
        }
    }

    // The link.

    pub fn link_up(&mut self) {
        self.linked = true;
        self.input(Input::LinkOpened);
    }

    pub fn link_down(&mut self) {
        self.linked = false;
        self.requests.clear();
        self.host.link_ended();
        self.input(Input::LinkClosed);
    }

    /// The link breaks and opens again; faults that are planned stay so.
    pub fn restart_link(&mut self) {
        let faults = std::mem::take(&mut self.host.faults);
        self.link_down();
        self.host.faults = faults;
        self.link_up();
        self.run();
    }

    /// The control plane dies and comes back, with no memory but what is on its disk.
    pub fn restart(&mut self) {
        self.engine = engine(self.disk.as_ref());
        self.unanswered.clear();
        self.inboxes.clear();
        self.stalled.clear();
        self.linked = false;
        self.requests.clear();
        self.host.link_ended();
        self.probes.clear();
        self.now.wall_ms += 1000;
        self.link_up();
    }

    /// The host takes in its next request.
    pub fn step_host(&mut self) -> bool {
        let Some(request) = self.requests.pop_front() else { return false };
        self.host.handle(request);
        true
    }

    /// The engine takes in what the host sent next.
    pub fn step_link(&mut self) -> bool {
        let Some(message) = self.host.sent.pop_front() else { return false };
        let payload = encoded(&message);
        self.input(Input::LinkFrame { payload: &payload });
        true
    }

    /// One step of what is under way anywhere, if anything is.
    pub fn step(&mut self) -> bool {
        self.step_link() || self.step_host() || (self.host.reap() && self.linked)
    }

    /// All that is under way comes to rest.
    pub fn run(&mut self) {
        let mut steps = 0;
        while self.step() {
            steps += 1;
            assert!(steps < 100_000, "it never comes to rest");
        }
    }

    // Clients.

    /// A client whose hello has been answered.
    pub fn client(&mut self) -> SessionId {
        self.client_as(crate::chain::plain())
    }

    /// … whose certificates are these.
    pub fn client_as(&mut self, chain: &[Vec<u8>]) -> SessionId {
        let session = self.connect_as(chain);
        self.send(session, 0, hello());
        self.expect(session, 0, |response| matches!(response, Response::Hello(_)));
        session
    }

    /// A client that has said nothing yet.
    pub fn connect(&mut self) -> SessionId {
        self.connect_as(crate::chain::plain())
    }

    /// … whose certificates are these.
    pub fn connect_as(&mut self, chain: &[Vec<u8>]) -> SessionId {
        self.next_session += 1;
        let session = SessionId(self.next_session);
        let peer = Peer { name: "alice".into(), chain: chain.to_vec() };
        self.inboxes.insert(session, VecDeque::new());
        self.input(Input::SessionOpened { session, peer });
        session
    }

    pub fn disconnect(&mut self, session: SessionId) {
        self.unanswered.retain(|(of, _), _| *of != session);
        self.inboxes.remove(&session);
        self.stalled.remove(&session);
        self.input(Input::SessionClosed { session });
    }

    /// A client asks something under a number that it does not use for anything else.
    pub fn send(&mut self, session: SessionId, id: u32, request: Request) {
        match &request {
            Request::ImageChunk(_)
            | Request::StateChunk(_)
            | Request::Volume(VolumeRequest::Chunk { .. } | VolumeRequest::PushEnd) => {}
            Request::Cancel => drop(self.unanswered.remove(&(session, id))),
            request => {
                let earlier = self.unanswered.insert((session, id), format!("{request:?}"));
                assert_eq!(earlier, None, "the test uses a number twice");
            }
        }
        self.send_unchecked(session, id, request);
    }

    pub fn send_unchecked(&mut self, session: SessionId, id: u32, request: Request) {
        let payload = encoded(&ClientMessage { id, request });
        self.input(Input::SessionFrame { session, payload: &payload });
    }

    /// The next answer to a client, which must be this one's.
    pub fn next(&mut self, session: SessionId, id: u32) -> Response {
        let message = self.inboxes.get_mut(&session).and_then(VecDeque::pop_front);
        let message = message.unwrap_or_else(|| panic!("no answer to {id}: {:?}", self.log));
        assert_eq!(message.id, id, "{message:?}");
        message.response
    }

    pub fn expect(&mut self, session: SessionId, id: u32, wanted: fn(&Response) -> bool) -> Response {
        let response = self.next(session, id);
        assert!(wanted(&response), "{response:?}");
        response
    }

    pub fn nothing_for(&self, session: SessionId) -> bool {
        self.inboxes.get(&session).is_none_or(VecDeque::is_empty)
    }

    /// Asks, lets everything come to rest, and takes the one answer.
    pub fn ask(&mut self, session: SessionId, id: u32, request: Request) -> Response {
        self.send(session, id, request);
        self.run();
        self.next(session, id)
    }

    pub fn refused(&mut self, session: SessionId, id: u32, request: Request) -> Refusal {
        match self.ask(session, id, request) {
            Response::Refused(refusal) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// A client that did not read takes all that is queued, and from here on reads at once.
    pub fn unstall(&mut self, session: SessionId) {
        self.stalled.remove(&session);
        self.input(Input::SessionDrained { session, queued: 0 });
    }

    // Whole conversations.

    pub fn send_chunks(&mut self, session: SessionId, id: u32, image: &[u8]) {
        for chunk in image.chunks(CHUNK_BYTES_MAX) {
            self.send(session, id, Request::ImageChunk(Blob::try_from(chunk).unwrap()));
        }
    }

    pub fn push(&mut self, session: SessionId, id: u32, image: &[u8]) -> Response {
        let digest = crate::image::digest(image);
        match self.ask(session, id, push(digest, image.len())) {
            Response::ImageWanted => {
                self.send_chunks(session, id, image);
                self.run();
                self.next(session, id)
            }
            other => other,
        }
    }

    pub fn create(&mut self, session: SessionId, id: u32, create: Create) -> Unikernel {
        match self.ask(session, id, Request::Create(create.into())) {
            Response::Created(unikernel) => *unikernel,
            other => panic!("not created: {other:?}"),
        }
    }

    /// The listing, as a client sees it that has nothing else to do.
    pub fn list(&mut self) -> Vec<Unikernel> {
        let session = self.client();
        self.send(session, 1, Request::List);
        let mut all = Vec::new();
        loop {
            match self.next(session, 1) {
                Response::Listed { page, more } => {
                    all.extend(page.into_vec());
                    if !more {
                        break;
                    }
                }
                other => panic!("not a listing: {other:?}"),
            }
        }
        self.disconnect(session);
        all
    }

    pub fn instance(&self, index: usize) -> InstanceId {
        self.host.spawned[index].instance
    }

    // Inputs and outputs.

    pub fn input(&mut self, input: Input<'_>) {
        self.now.monotonic_ns += 1000;
        let start = Instant::now();
        self.engine.handle(self.now, input);
        self.in_engine += start.elapsed();
        self.take_outputs();
    }

    pub fn wait_ms(&mut self, ms: u64) {
        self.now.monotonic_ns += ms * 1_000_000;
        self.now.wall_ms += ms;
        if self.engine.poll_at().is_some_and(|at_ns| at_ns <= self.now.monotonic_ns) {
            let start = Instant::now();
            self.engine.handle_timeout(self.now);
            self.in_engine += start.elapsed();
            self.take_outputs();
        }
    }

    /// Time passes until something is due, at most so long; what follows from it comes to rest.
    pub fn sleep_ms(&mut self, ms: u64) {
        let end_ns = self.now.monotonic_ns + ms * 1_000_000;
        self.run();
        while let Some(at_ns) = self.engine.poll_at().filter(|at_ns| *at_ns <= end_ns) {
            let passes_ms = at_ns.saturating_sub(self.now.monotonic_ns).div_ceil(1_000_000);
            self.wait_ms(passes_ms);
            self.run();
        }
        self.wait_ms(end_ns.saturating_sub(self.now.monotonic_ns) / 1_000_000);
    }

    /// The next probe comes to its end, and what follows from it to rest. Returns what it tried.
    pub fn probed(&mut self, passed: bool) -> String {
        let tried = self.answer_probe(passed);
        self.run();
        tried
    }

    pub fn answer_probe(&mut self, passed: bool) -> String {
        let (id, kind, to) = self.probes.pop_front().expect("a probe is under way");
        self.input(Input::Probed { id, passed });
        match kind {
            ProbeKind::Tcp => format!("tcp:{to}"),
            ProbeKind::Http { path } => format!("http:{to}{}", &*path),
        }
    }

    /// What is shown of a unikernel.
    pub fn info(&mut self, unikernel: &str) -> UnikernelInfo {
        let session = self.client();
        let Response::Info(info) = self.ask(session, 1, info(unikernel)) else {
            panic!("there is no {unikernel}")
        };
        self.disconnect(session);
        *info
    }

    pub fn state(&mut self, unikernel: &str) -> State {
        self.info(unikernel).unikernel.state
    }

    /// The instance that runs as this unikernel.
    pub fn running(&self, unikernel: &str) -> InstanceId {
        let tagged = |instance: &InstanceId| {
            let spawned = self.host.spawned.iter().find(|spawn| spawn.instance == *instance);
            spawned.is_some_and(|spawn| spawn.tag.windows(unikernel.len()).any(|w| w == unikernel.as_bytes()))
        };
        *self.host.running().iter().find(|instance| tagged(instance)).expect("it runs")
    }

    fn take_outputs(&mut self) {
        let mut drained = BTreeSet::new();
        while let Some(output) = self.engine.poll_output() {
            self.order.push(kind_of(&output));
            match output {
                Output::ToSession { session, message } => {
                    drained.insert(session);
                    self.deliver(session, message);
                }
                Output::CloseSession { session } => {
                    self.closed.insert(session);
                    self.unanswered.retain(|(of, _), _| *of != session);
                }
                Output::ToShim(request) => {
                    assert!(self.linked, "sent without a link: {request:?}");
                    let payload = encoded(&request);
                    self.requests.push_back(frame::decode(&payload).unwrap());
                }
                Output::ResetLink => {
                    self.resets += 1;
                    self.linked = false;
                    self.requests.clear();
                    self.host.link_ended();
                }
                Output::Probe { id, kind, address, port, .. } => {
                    self.probes.push_back((id, kind, format!("{address}:{port}")));
                }
                Output::Persist { offset, data } => {
                    let disk = self.disk.as_mut().expect("there is a disk to write to");
                    if !disk.write(offset, &data) {
                        self.engine.handle(self.now, Input::StateFailed);
                    }
                }
                Output::Log { level, line } => {
                    assert!(!line.contains('\n'));
                    self.log.push((level, line));
                }
            }
        }
        drained.retain(|session| !self.stalled.contains_key(session) && self.inboxes.contains_key(session));
        for session in drained {
            self.input(Input::SessionDrained { session, queued: 0 });
        }
    }

    fn deliver(&mut self, session: SessionId, message: ServerMessage) {
        assert!(!self.closed.contains(&session), "sent after it was closed: {message:?}");
        let payload = encoded(&message);
        if let Some(queued) = self.stalled.get_mut(&session) {
            *queued += frame::HEADER_BYTES + payload.len();
        }
        if matches!(message.response, Response::ImageWanted | Response::Volume(VolumeResponse::Wanted)) {
            self.wanted.insert((session, message.id));
        }
        if is_last(&message.response) {
            self.wanted.remove(&(session, message.id));
            let asked = self.unanswered.remove(&(session, message.id));
            let stray = matches!(
                message.response,
                Response::Refused(
                    Refusal::UnexpectedChunk
                        | Refusal::Malformed
                        | Refusal::FrameTooLong { .. }
                        | Refusal::Certificate { .. }
                        | Refusal::Full(Table::Sessions)
                )
            );
            assert!(asked.is_some() || stray || self.lenient, "a last answer to nothing: {message:?}");
        } else {
            let asked = self.unanswered.contains_key(&(session, message.id));
            assert!(asked || self.lenient, "an answer to nothing: {message:?}");
        }
        self.inboxes.entry(session).or_default().push_back(message);
    }
}

fn kind_of(output: &Output) -> &'static str {
    match output {
        Output::ToSession { .. } => "answer",
        Output::CloseSession { .. } => "close",
        Output::ToShim(_) => "request",
        Output::ResetLink => "reset",
        Output::Probe { .. } => "probe",
        Output::Persist { .. } => "persist",
        Output::Log { .. } => "log",
    }
}

fn is_last(response: &Response) -> bool {
    match response {
        Response::ImageWanted
        | Response::Console { .. }
        | Response::ConsoleMissed { .. }
        | Response::ConsoleBegan { .. }
        | Response::Ended(_)
        | Response::Events(_)
        | Response::EventsMissed(_) => false,
        Response::Listed { more, .. } | Response::Consoles { more, .. } | Response::Stats { more, .. } => {
            !more
        }
        Response::StateWanted | Response::StateData(_) => false,
        Response::Generation { more, .. }
        | Response::Policies { more, .. }
        | Response::Revocations { more, .. }
        | Response::Volume(VolumeResponse::Listed { more, .. })
        | Response::Image(ImageResponse::Listed { more, .. }) => !more,
        Response::Volume(VolumeResponse::Wanted)
        | Response::Download(Download::Begin { .. } | Download::Data { .. }) => false,
        _ => true,
    }
}

fn engine(disk: Option<&Disk>) -> Engine {
    let config = Config { host: "alpha".parse().unwrap(), release: [0, 1, 0] };
    let Some(disk) = disk else { return Engine::new(config) };
    let device = StateDevice { bytes: disk.bytes.len() as u64, block_bytes: 512, seed: disk.writes as u64 };
    Engine::recover(config, &device, |offset, data| disk.read(offset, data))
}

pub fn encoded<T: serde::Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(message, &mut bytes).expect("every message fits a frame");
    bytes.split_off(frame::HEADER_BYTES)
}

pub fn hello() -> Request {
    Request::Hello(Hello { oldest: OPERATOR_VERSION, newest: OPERATOR_VERSION })
}

pub fn push(digest: Digest, bytes: usize) -> Request {
    Request::ImagePush { digest, bytes: bytes as u64 }
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A unikernel without devices.
pub fn plain(unikernel: &str, image: Digest) -> Create {
    Create {
        name: name(unikernel),
        image,
        memory_mib: 32,
        cpus: List::new(),
        nets: List::new(),
        blocks: List::new(),
        args: List::new(),
        supervision: Supervision::default(),
        force: false,
    }
}

/// A unikernel with these network devices, all on bridge `service`.
pub fn networked(unikernel: &str, image: Digest, devices: &[&str]) -> Create {
    let net = |device: &&str| Net { device: device.parse().unwrap(), bridge: "service".parse().unwrap() };
    let nets = devices.iter().map(net).collect::<Vec<_>>().try_into().unwrap();
    Create { nets, ..plain(unikernel, image) }
}

pub fn create(create: Create) -> Request {
    Request::Create(create.into())
}

pub fn info(unikernel: &str) -> Request {
    Request::Info(name(unikernel))
}

pub fn destroy(unikernel: &str) -> Request {
    Request::Destroy(name(unikernel))
}

pub fn console(unikernel: &str, follow: bool) -> Request {
    Request::Console(ConsoleAsked { name: name(unikernel), follow, since: None, tail: None, latest: false })
}
