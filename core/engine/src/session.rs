//! Operators' sessions: the hello, the requests that are still unanswered, and what they may ask next.
//!
//! A request's answer goes through [`Engine::answer`], which takes the request off its session: none is ever
//! answered twice, nor after it was cancelled or its session closed.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use petrel_wire::{
    CommonName, Path, frame,
    limits::{OPERATOR_VERSION, REQUESTS_MAX, SESSIONS_MAX},
    operator::{
        self, ClientMessage, Hello, HostInfo, Refusal, Request, Response, ServerMessage, Table,
        VolumeRequest, Welcome, What,
    },
};

use crate::{
    Engine, Output, Peer, SessionId,
    planted::{self, Planted},
    policy::{self, Authority, Grant, Inward, Outward},
    stream::{Source, Stream, response_bytes},
    supervise::order::{Manner, Who},
    upload::Chunk,
    volumes::{JobId, Piece},
};

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    /// What its certificates permit.
    pub authority: Arc<Authority>,
    /// Its hello has been answered.
    greeted: bool,
    /// The unanswered requests, by the client's number.
    pub requests: BTreeMap<u32, Unanswered>,
    /// Those of them that are streams, the next to be served first.
    pub streams: VecDeque<Stream>,
    /// The bytes queued towards the client, about.
    pub queued: usize,
    /// The latest uploads that were refused: chunks of theirs may still be on the way.
    refused_uploads: VecDeque<u32>,
}

#[cfg(feature = "inspect")]
impl Session {
    /// How many of its streams read a console.
    pub fn consoles_read(&self) -> usize {
        self.streams.iter().filter(|stream| stream.is_console()).count()
    }
}

/// An unanswered request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unanswered {
    /// Unlike the client's number, never used again.
    serial: u64,
    pub kind: Kind,
}

/// What its session has to know of an unanswered request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// It is answered some day, come what may.
    Plain,
    /// It uploads this image, or waits for another's upload of it.
    Upload(petrel_wire::Digest),
    /// It sends new content for a volume.
    Push(JobId),
    /// It is one of the session's streams.
    Stream,
    /// It sends a state file.
    Import,
}

impl Kind {
    /// Whether chunks of it come.
    fn is_upload(self) -> bool {
        matches!(self, Self::Upload(_) | Self::Push(_) | Self::Import)
    }
}

/// A part of an upload.
enum Sent {
    Image(Chunk),
    Volume(Piece),
    State(Chunk),
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    pub session: SessionId,
    pub id: u32,
    serial: u64,
}

impl Engine {
    pub(crate) fn session_opened(&mut self, id: SessionId, peer: Peer) {
        self.session_closed(id);
        let authority = match self.authorize(&peer) {
            Ok(authority) => Arc::new(authority),
            Err(refusal) => return self.turn_away(id, &peer, refusal),
        };
        self.happened(authority.who(), What::SessionOpened, None);
        self.first_expiry_ms = self.first_expiry_ms.min(authority.not_after_ms());
        let session = Session {
            authority,
            greeted: false,
            requests: BTreeMap::new(),
            streams: VecDeque::new(),
            queued: 0,
            refused_uploads: VecDeque::new(),
        };
        self.sessions.insert(id, session);
    }

    /// What the certificates of a peer permit, if they open a session and there may be one more of their scope.
    fn authorize(&self, peer: &Peer) -> Result<Authority, Refusal> {
        let authority = Authority::new(peer)?;
        let revoked = self.state.revoked(&authority);
        let full = self.sessions.len() >= policy::share(authority.scope(), SESSIONS_MAX);
        let full = full.then_some(Refusal::Full(Table::Sessions));
        match revoked.or_else(|| authority.expired(self.now.wall_ms)).or(full) {
            Some(refusal) => Err(refusal),
            None => Ok(authority),
        }
    }

    /// Ends a connection that TLS let in, and says why.
    fn turn_away(&mut self, id: SessionId, peer: &Peer, refusal: Refusal) {
        self.happened(stranger(peer), What::SessionRefused(Box::new(refusal.clone())), None);
        let message = ServerMessage { id: 0, response: Response::Refused(refusal) };
        self.outputs.push_back(Output::ToSession { session: id, message });
        self.outputs.push_back(Output::CloseSession { session: id });
    }

    /// Forgets a session. Its uploads are given up, its streams end; what else it asked for is carried out.
    pub(crate) fn session_closed(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else { return };
        if self.sessions.is_empty() {
            self.first_expiry_ms = u64::MAX;
        }
        for (number, Unanswered { serial, kind }) in session.requests {
            self.abandon(Asker { session: id, id: number, serial }, kind);
        }
        for stream in session.streams {
            self.stream_closed(id, &stream);
        }
    }

    /// Nobody waits any more for what `asker` asked.
    fn abandon(&mut self, asker: Asker, kind: Kind) {
        match kind {
            Kind::Upload(digest) => self.upload_abandoned(asker, digest),
            Kind::Push(job) => self.push_abandoned(job),
            Kind::Import => self.import_abandoned(asker),
            Kind::Plain | Kind::Stream => {}
        }
    }

    pub(crate) fn session_drained(&mut self, id: SessionId, queued: usize) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.queued = queued;
            self.pump(id);
        }
    }

    pub(crate) fn session_frame(&mut self, id: SessionId, payload: &[u8]) {
        let Some(session) = self.sessions.get(&id) else { return };
        let Ok(ClientMessage { id: number, request }) = frame::decode(payload) else {
            // A client that speaks of what we do not know is still told which of its requests it was.
            let number = postcard::take_from_bytes(payload).map_or(0, |(number, _)| number);
            return self.expel(id, number, Refusal::Malformed);
        };
        match (session.greeted, request) {
            (false, Request::Hello(hello)) => self.hello(id, number, hello),
            (true, Request::Cancel) => self.cancel(id, number),
            (true, Request::ImageChunk(data)) => self.chunk(id, number, Sent::Image(data)),
            (true, Request::StateChunk(data)) => self.chunk(id, number, Sent::State(data)),
            (true, Request::Volume(VolumeRequest::Chunk { offset, data })) => {
                self.chunk(id, number, Sent::Volume(Piece::Chunk { offset, data }));
            }
            (true, Request::Volume(VolumeRequest::PushEnd)) => {
                self.chunk(id, number, Sent::Volume(Piece::End))
            }
            (false, _) | (true, Request::Hello(_)) => self.expel(id, number, Refusal::HelloExpected),
            (true, request) => self.request(id, number, request),
        }
    }

    pub(crate) fn session_frame_too_long(&mut self, id: SessionId, claimed: u32) {
        if self.sessions.contains_key(&id) {
            self.expel(id, 0, Refusal::FrameTooLong { claimed });
        }
    }

    fn hello(&mut self, id: SessionId, number: u32, hello: Hello) {
        if !(hello.oldest..=hello.newest).contains(&OPERATOR_VERSION) {
            let ours = Hello { oldest: OPERATOR_VERSION, newest: OPERATOR_VERSION };
            return self.expel(id, number, Refusal::Version(ours));
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            session.greeted = true;
        }
        let welcome = Welcome { version: OPERATOR_VERSION, host: self.config.host.clone() };
        self.send(id, number, Response::Hello(welcome));
    }

    /// Takes in a request, if there may be one more, and starts to carry it out.
    fn request(&mut self, id: SessionId, number: u32, request: Request) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.requests.contains_key(&number) {
            return self.expel(id, number, Refusal::IdInUse);
        }
        session.refused_uploads.retain(|&upload| upload != number);
        if session.requests.len() >= REQUESTS_MAX {
            return self.send(id, number, Response::Refused(Refusal::Full(Table::Requests)));
        }
        let authority = &session.authority;
        let refused = self.journal.refuses(&request);
        let permitted = policy::permit(authority, &request)
            .and_then(|grant| refused.map_or(Ok(grant), Err))
            .and_then(|grant| Ok((grant, request.map_names(&Inward(authority.scope()))?)));
        match permitted {
            Ok((grant, request)) => {
                self.serial += 1;
                let asker = Asker { session: id, id: number, serial: self.serial };
                session.requests.insert(number, Unanswered { serial: self.serial, kind: Kind::Plain });
                self.carry_out(asker, grant, request);
            }
            Err(refusal) => self.send(id, number, Response::Refused(refusal)),
        }
    }

    fn carry_out(&mut self, asker: Asker, grant: Grant, request: Request) {
        match request {
            Request::Host => self.host(asker),
            Request::Appliance(op) => self.appliance(asker, &grant, op),
            Request::ImagePush { digest, bytes } => self.image_push(asker, grant, digest, bytes),
            Request::Create(create) => self.create(Who { asker, grant }, create),
            Request::List => self.list(asker, &grant),
            Request::Info(name) => self.info(asker, &name),
            Request::Console(asked) => self.console(asker, asked),
            Request::Consoles => {
                self.open_stream(asker, Source::Consoles { scope: grant.scope(), after: None })
            }
            Request::Events(asked) => self.events(asker, grant.scope(), *asked),
            Request::Stats(name) => self.stats(asker, grant, name),
            Request::Destroy(name) => self.destroy(Who { asker, grant }, &name),
            Request::Start(name) => self.start(Who { asker, grant }, &name),
            Request::Stop(name) => self.stop(Who { asker, grant }, &name),
            Request::Restart { name, change } if change.is_empty() => {
                self.restart(Who { asker, grant }, &name)
            }
            Request::Restart { name, change } => {
                let manner = Manner { answer: Response::Started, window_s: None, starts: true };
                self.change(Who { asker, grant }, &name, change, manner);
            }
            Request::Update { name, change, window_s } => {
                let manner = Manner { answer: Response::Updated, window_s: Some(window_s), starts: false };
                self.change(Who { asker, grant }, &name, change, manner);
            }
            Request::Rollback { name, generation } => self.rollback(Who { asker, grant }, &name, generation),
            Request::History(name) => self.history(asker, name),
            Request::PolicySet { path, policy } => self.policy_set(asker, &grant, path, policy),
            Request::PolicyRemove(path) => self.policy_remove(asker, &grant, path),
            Request::PolicyList(path) => self.policy_list(asker, &grant, path),
            Request::CertRevoke { path, what } => self.cert_revoke(asker, &grant, path, what),
            Request::CertRevocations => self.cert_revocations(asker, &grant),
            Request::StateExport => self.state_export(asker),
            Request::StateImport { bytes, force } => self.state_import(asker, grant, bytes, force),
            Request::Image(request) => self.image_request(asker, grant, request),
            Request::Volume(request) => self.volume_request(asker, grant, request),
            // Told apart before they get here.
            Request::Hello(_) | Request::ImageChunk(_) | Request::StateChunk(_) | Request::Cancel => {}
        }
    }

    fn host(&mut self, asker: Asker) {
        let Some(host) = self.shim.host_if_ready() else { return self.refuse(asker, Refusal::ShimAway) };
        let info = HostInfo {
            host: self.config.host.clone(),
            control_plane: self.config.release,
            shim: self.shim.release(),
            uptime_ms: self.now.monotonic_ns.saturating_sub(self.started_ns.unwrap_or(0)) / 1_000_000,
            cpus: host.cpus.clone(),
            memory_mib: host.memory_mib,
            memory_used_mib: self.state.memory_given_mib(),
            unikernels: u32::try_from(self.state.len()).unwrap_or(u32::MAX),
            volumes_mib: host.volumes_mib,
            volumes_used_mib: self.state.volumes.bytes().div_ceil(1 << 20),
            bridges: host.bridges.clone(),
            monitors: host.monitors.clone(),
            limits: host.limits.clone(),
            journal: self.journal.told(),
            address: self.address,
        };
        self.answer(asker, Response::Host(info.into()));
    }

    fn list(&mut self, asker: Asker, grant: &Grant) {
        if self.shim.ever_ready() {
            self.open_stream(asker, Source::List { scope: grant.scope(), after: None });
        } else {
            // An empty list would be a lie: the shim has not told yet what runs.
            self.refuse(asker, Refusal::ShimAway);
        }
    }

    fn info(&mut self, asker: Asker, name: &petrel_wire::Name) {
        let response = match self.info_of(name) {
            Some(info) => Response::Info(info.into()),
            None => Response::Refused(self.unknown_name()),
        };
        self.answer(asker, response);
    }

    fn history(&mut self, asker: Asker, name: petrel_wire::Name) {
        if self.state.get(&name).is_some() {
            self.open_stream(asker, Source::History { name, after: 0 });
        } else {
            let refusal = self.unknown_name();
            self.refuse(asker, refusal);
        }
    }

    /// Why there is no unikernel of some name.
    pub(crate) fn unknown_name(&self) -> Refusal {
        if self.shim.ever_ready() { Refusal::NoSuchUnikernel } else { Refusal::ShimAway }
    }

    fn cancel(&mut self, id: SessionId, number: u32) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        match session.requests.get(&number) {
            Some(&Unanswered { serial, kind }) if kind.is_upload() => {
                session.requests.remove(&number);
                self.abandon(Asker { session: id, id: number, serial }, kind);
            }
            Some(Unanswered { kind: Kind::Stream, .. }) => {
                session.requests.remove(&number);
                let index = session.streams.iter().position(|stream| stream.asker.id == number);
                if let Some(stream) = index.and_then(|index| session.streams.remove(index)) {
                    self.stream_closed(id, &stream);
                }
            }
            // Nothing that can be cancelled, or it was answered while this was on its way.
            Some(_) | None => {}
        }
    }

    fn chunk(&mut self, id: SessionId, number: u32, sent: Sent) {
        let Some(session) = self.sessions.get(&id) else { return };
        match (session.requests.get(&number), sent) {
            (Some(&Unanswered { serial, kind: Kind::Upload(digest) }), Sent::Image(data)) => {
                self.upload_chunk(Asker { session: id, id: number, serial }, digest, data);
            }
            (Some(&Unanswered { kind: Kind::Push(job), .. }), Sent::Volume(piece)) => {
                self.push_piece(job, piece)
            }
            (Some(&Unanswered { serial, kind: Kind::Import }), Sent::State(data)) => {
                self.import_chunk(Asker { session: id, id: number, serial }, &data);
            }
            (Some(_), _) => self.expel(id, number, Refusal::IdInUse),
            // Some may still come of one that was refused.
            (None, _) if session.refused_uploads.contains(&number) => {}
            (None, _) => self.send(id, number, Response::Refused(Refusal::UnexpectedChunk)),
        }
    }

    /// Refuses and ends a session: its client does not keep to the protocol, or a certificate of its is no longer good.
    pub(crate) fn expel(&mut self, id: SessionId, number: u32, refusal: Refusal) {
        if let Some(session) = self.sessions.get(&id) {
            let refused = What::SessionRefused(Box::new(refusal.clone()));
            self.happened(session.authority.who(), refused, None);
        }
        self.send(id, number, Response::Refused(refusal));
        self.outputs.push_back(Output::CloseSession { session: id });
        self.session_closed(id);
    }

    /// Says what an unanswered request waits for.
    pub(crate) fn set_kind(&mut self, asker: Asker, kind: Kind) {
        let session = self.sessions.get_mut(&asker.session);
        let request = session.and_then(|session| session.requests.get_mut(&asker.id));
        if let Some(request) = request.filter(|request| request.serial == asker.serial) {
            request.kind = kind;
        }
    }

    /// Whether the request is still unanswered and its session open.
    pub(crate) fn waits(&self, asker: Asker) -> bool {
        let session = self.sessions.get(&asker.session);
        let request = session.and_then(|session| session.requests.get(&asker.id));
        request.is_some_and(|request| request.serial == asker.serial)
    }

    /// Sends something on the way to a request's answer, if it is still waited for.
    pub(crate) fn tell(&mut self, asker: Asker, response: Response) {
        if self.waits(asker) {
            self.send(asker.session, asker.id, response);
        }
    }

    /// Answers a request, if it is still waited for.
    pub(crate) fn answer(&mut self, asker: Asker, response: Response) {
        if !self.waits(asker) {
            return;
        }
        let Some(session) = self.sessions.get_mut(&asker.session) else { return };
        let request = session.requests.remove(&asker.id);
        let upload = request.is_some_and(|request| request.kind.is_upload());
        if upload && matches!(response, Response::Refused(_)) {
            if session.refused_uploads.len() >= REQUESTS_MAX {
                session.refused_uploads.pop_front();
            }
            session.refused_uploads.push_back(asker.id);
        }
        if planted::is(Planted::AnswerTwice) && asker.serial.is_multiple_of(64) {
            self.send(asker.session, asker.id, response.clone());
        }
        self.send(asker.session, asker.id, response);
    }

    /// Answers a request by refusing it.
    pub(crate) fn refuse(&mut self, asker: Asker, refusal: Refusal) {
        self.answer(asker, Response::Refused(refusal));
    }

    fn send(&mut self, session: SessionId, id: u32, response: Response) {
        if let Some(open) = self.sessions.get_mut(&session) {
            // Nothing is told of what lies outside the session's scope, not even that it is.
            let unseen = Response::Refused(Refusal::NoSuchUnikernel);
            let response = response.map_names(&Outward(open.authority.scope())).unwrap_or(unseen);
            open.queued = open.queued.saturating_add(response_bytes(&response));
            let message = ServerMessage { id, response };
            self.outputs.push_back(Output::ToSession { session, message });
        }
    }
}

/// One who was let in by TLS and no further: what its certificates are for is not known.
fn stranger(peer: &Peer) -> operator::Who {
    operator::Who::Operator { name: CommonName::lossy(&peer.name), scope: Path::ROOT }
}
