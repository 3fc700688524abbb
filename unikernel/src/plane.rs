//! The control plane: what the engine decides, put on the wire, and what comes off the wire, told to the engine.
//!
//! A turn of the loop takes in what the devices have, works until nothing moves any more, and has sent all it
//! can before it says until when to sleep. The time is read once a turn.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt::{self, Arguments, Display, Formatter};
use core::net::Ipv4Addr;

use petrel_engine::{Config, Engine, Input, Level, Now, Output, Peer, SessionId, StateDevice};
use petrel_wire::frame::FrameError;
use petrel_wire::limits::SESSION_QUEUE_BYTES;
use petrel_wire::operator::Address;
use smoltcp::socket::tcp;
use smoltcp::wire::IpEndpoint;

use crate::conversation::Conversation;
use crate::disk::Disk;
use crate::limits::{BURST_FRAMES, LINK_QUEUE_BYTES, ROUNDS_MAX};
use crate::link::{Change, Link};
use crate::log::Log;
use crate::net::{AddressChange, Nic, Stack};
use crate::probe::Probes;
use crate::session::{Phase, Session};
use crate::table::Table;
use crate::tls::{LinkClient, OperatorsServer, State};

/// What a control plane is made of.
pub struct Parts<N: Nic> {
    /// The operators' network.
    pub service: Stack<N>,
    /// The port that operators connect to.
    pub port: u16,
    /// Who operators are, and who we are to them.
    pub operators: OperatorsServer,
    /// The network that the shim is on, and nobody else.
    pub shim: Stack<N>,
    /// Where the shim listens.
    pub shim_endpoint: (Ipv4Addr, u16),
    /// Who the shim is, and who we are to it.
    pub link: LinkClient,
    /// What the state is kept on, if anything.
    pub state: Option<Box<dyn Disk>>,
    /// A random number for what is written there.
    pub state_seed: u64,
    /// What decides.
    pub engine: Config,
    /// What is written down.
    pub log: Log,
    /// A random number, which the ports that we connect from follow from.
    pub port_seed: u64,
}

/// The control plane.
pub struct ControlPlane<N: Nic> {
    service: Stack<N>,
    shim: Stack<N>,
    operators: OperatorsServer,
    sessions: Table,
    link: Link,
    probes: Probes,
    state: Option<Box<dyn Disk>>,
    engine: Engine,
    log: Log,
    now: Now,
    /// Where messages are encoded before they are enciphered.
    scratch: Vec<u8>,
}

impl<N: Nic> ControlPlane<N> {
    /// A control plane that knows what its disk holds, and begins to listen and to connect with its first turn.
    pub fn new(mut parts: Parts<N>) -> Self {
        let engine = match parts.state.as_deref_mut() {
            Some(disk) => recover(parts.engine, disk, parts.state_seed),
            None => Engine::new(parts.engine),
        };
        let link = Link::new(parts.link, parts.shim_endpoint, &mut parts.shim, parts.port_seed);
        Self {
            service: parts.service,
            shim: parts.shim,
            operators: parts.operators,
            sessions: Table::new(parts.port),
            link,
            probes: Probes::new(parts.port_seed),
            state: parts.state,
            engine,
            log: parts.log,
            now: Now::default(),
            scratch: Vec::new(),
        }
    }

    /// Does all that can be done now. Returns when the next turn is due, in monotonic nanoseconds, unless a
    /// frame comes before.
    pub fn turn(&mut self, now: Now) -> u64 {
        self.now = now;
        // After the start, what was found on the disk.
        self.carry_out();
        if self.engine.poll_at().is_some_and(|at| at <= now.monotonic_ns) {
            self.engine.handle_timeout(now);
            self.carry_out();
        }
        for _ in 0..ROUNDS_MAX {
            if !self.round() {
                return self.deadline();
            }
        }
        now.monotonic_ns
    }

    /// Takes in a burst of frames from each device and works on it. Returns whether there may be more to do.
    fn round(&mut self) -> bool {
        let now_ns = self.now.monotonic_ns;
        let mut moved = self.shim.ingress(now_ns, BURST_FRAMES);
        moved |= self.service.ingress(now_ns, BURST_FRAMES);
        moved |= self.serve_address();
        moved |= self.serve_link();
        self.sessions.keep_listening(&mut self.service, now_ns);
        for index in 0..self.sessions.count() {
            moved |= self.serve_session(index);
        }
        moved |= self.serve_probes();
        moved |= self.link.flush(&mut self.shim);
        self.shim.egress(now_ns);
        self.service.egress(now_ns);
        moved
    }

    #[cfg(test)]
    pub(crate) fn queued_for_shim(&self) -> usize {
        self.link.queued()
    }

    #[cfg(test)]
    pub(crate) fn link_is_open(&mut self) -> bool {
        self.link.conversation().is_some()
    }

    #[cfg(test)]
    pub(crate) fn sessions(&mut self) -> usize {
        (0..self.sessions.count()).filter(|&index| self.sessions.place(index).session.is_some()).count()
    }

    fn deadline(&mut self) -> u64 {
        let now_ns = self.now.monotonic_ns;
        [
            self.engine.poll_at(),
            self.link.deadline(),
            self.sessions.deadline(),
            self.probes.deadline(),
            self.service.poll_at(now_ns),
            self.shim.poll_at(now_ns),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(u64::MAX)
    }

    fn log(&self, level: Level, line: Arguments<'_>) {
        self.log.write(level, self.now.wall_ms, line);
    }

    /// Tells of another address, or of none. Returns whether there was anything to tell.
    fn serve_address(&mut self) -> bool {
        let Some(AddressChange { before, now }) = self.service.address_change(self.now.monotonic_ns) else {
            return false;
        };
        match (before, now) {
            (_, Some(address)) if address.is_leased => {
                self.log(Level::Info, format_args!("net: DHCP has leased {}", Leased(address)));
            }
            (_, Some(_)) => {}
            (Some(lost), None) => self.log(
                Level::Warning,
                format_args!("net: the lease of {} is over: asking for another by DHCP", lost.ipv4.0),
            ),
            (None, None) => self.log(Level::Info, format_args!("net: asking for an address by DHCP")),
        }
        self.engine.handle(self.now, Input::Addressed(now));
        self.carry_out();
        true
    }

    /// Reads the link and tells the engine. Returns whether anything moved.
    fn serve_link(&mut self) -> bool {
        let mut moved = self.link.read(&mut self.shim);
        while let Some(conversation) = self.link.conversation() {
            match conversation.frame() {
                Ok(None) => break,
                Ok(Some((payload, length))) => {
                    self.engine.handle(self.now, Input::LinkFrame { payload });
                    conversation.consume(length);
                }
                Err(error) => {
                    self.log(Level::Error, format_args!("link: the shim sent {error}"));
                    self.drop_link();
                }
            }
            self.carry_out();
        }
        if let Some(change) = self.link.advance(&mut self.shim, self.now.monotonic_ns) {
            self.link_changed(&change);
            moved = true;
        }
        moved
    }

    fn link_changed(&mut self, change: &Change) {
        match change {
            Change::Opened => {
                self.log(Level::Debug, format_args!("link: open"));
                self.engine.handle(self.now, Input::LinkOpened);
            }
            Change::Failed { was_open, failure } => {
                match failure {
                    Some(failure) => self.log(Level::Error, format_args!("link: {failure}")),
                    None if *was_open => self.log(Level::Warning, format_args!("link: the shim is gone")),
                    None => self.log(Level::Debug, format_args!("link: the shim does not answer")),
                }
                if *was_open {
                    self.engine.handle(self.now, Input::LinkClosed);
                }
            }
        }
        self.carry_out();
    }

    fn drop_link(&mut self) {
        self.link.reset(&mut self.shim, self.now.monotonic_ns);
        self.engine.handle(self.now, Input::LinkClosed);
    }

    /// Goes on with the probes and tells the engine. Returns whether any has come to its end.
    fn serve_probes(&mut self) -> bool {
        let mut moved = false;
        while let Some((id, passed)) = self.probes.advance(&mut self.service, self.now.monotonic_ns) {
            self.engine.handle(self.now, Input::Probed { id, passed });
            self.carry_out();
            moved = true;
        }
        moved
    }

    /// Does what the engine has decided.
    fn carry_out(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::ToSession { session, message } => {
                    if let Some(session) = self.sessions.open_session(session)
                        && let Err(error) = session.conversation.send(&message, &mut self.scratch)
                    {
                        self.log(Level::Error, format_args!("a message to a session was not sent: {error}"));
                    }
                }
                Output::CloseSession { session: id } => {
                    if let Some(session) = self.sessions.open_session(id) {
                        session.close(self.now.monotonic_ns);
                        self.engine.handle(self.now, Input::SessionClosed { session: id });
                    }
                }
                Output::ToShim(request) => {
                    if let Some(conversation) = self.link.conversation()
                        && let Err(error) = conversation.send(&request, &mut self.scratch)
                    {
                        self.log(Level::Error, format_args!("a request to the shim was not sent: {error}"));
                    }
                }
                Output::Probe { id, kind, address, port, timeout_ms } => {
                    let now_ns = self.now.monotonic_ns;
                    let deadline_ns = now_ns.saturating_add(u64::from(timeout_ms) * 1_000_000);
                    self.probes.start(&mut self.service, id, kind, (address, port), now_ns, deadline_ns);
                }
                Output::ResetLink => self.drop_link(),
                Output::Persist { offset, data } => self.persist(offset, &data),
                Output::Log { level, line } => self.log(level, format_args!("{line}")),
            }
        }
    }

    /// Writes what the outputs behind it rely on. The engine takes those back if it cannot be done.
    fn persist(&mut self, offset: u64, data: &[u8]) {
        let written = self.state.as_mut().map_or(Ok(()), |disk| disk.write(offset, data));
        if let Err(error) = written {
            self.log(Level::Error, format_args!("block device \"state\", offset {offset}: {error}"));
            self.engine.handle(self.now, Input::StateFailed);
        }
    }

    /// Goes on with whatever one place of the table has to do. Returns whether anything moved.
    fn serve_session(&mut self, index: usize) -> bool {
        let mut moved = self.accept(index);
        moved |= self.read_session(index);
        moved |= self.advance_session(index);
        moved |= self.read_frames(index);
        moved |= self.flush_session(index);
        self.end_session(index);
        moved
    }

    /// Begins a session where a client has come to a listening socket.
    fn accept(&mut self, index: usize) -> bool {
        let now_ns = self.now.monotonic_ns;
        let place = self.sessions.place(index);
        if place.session.is_some() || !self.service.socket(place.socket).is_active() {
            return false;
        }
        match (self.operators.accept(), u32::try_from(index)) {
            (Ok(channel), Ok(id)) => {
                place.session = Some(Session::new(SessionId(id), Conversation::new(channel), now_ns));
            }
            _ => self.service.socket(place.socket).abort(),
        }
        true
    }

    /// Reads a session's socket, unless what it sent before has to be worked off first.
    fn read_session(&mut self, index: usize) -> bool {
        let (link, engine) = (&self.link, &self.engine);
        let Some((session, socket)) = self.sessions.session(index, &mut self.service) else { return false };
        match session.phase {
            Phase::Opening(_) => session.conversation.read(socket),
            Phase::Open if may_be_read(session, link, engine) => session.conversation.read(socket),
            Phase::Open | Phase::Closing(_) => false,
        }
    }

    /// Tells the engine of a session that has opened or is over.
    fn advance_session(&mut self, index: usize) -> bool {
        let now_ns = self.now.monotonic_ns;
        let Some((session, socket)) = self.sessions.session(index, &mut self.service) else { return false };
        let opening = match session.phase {
            Phase::Closing(_) => return false,
            Phase::Opening(_) => true,
            Phase::Open => false,
        };
        let tcp_over =
            !socket.is_active() || (socket.state() != tcp::State::SynReceived && !socket.may_recv());
        let timed_out = session.deadline().is_some_and(|deadline| now_ns >= deadline);
        let from = Origin(socket.remote_endpoint());
        match session.conversation.state() {
            State::Failed(failure) => {
                let failure = failure.clone();
                self.log(Level::Warning, format_args!("session from {from}: {failure}"));
                self.close_session(index);
            }
            State::Open | State::PeerClosed if opening => self.open_session(index),
            // What came before the peer's goodbye is read first.
            State::PeerClosed if !session.has_frame() => self.close_session(index),
            _ if tcp_over && !session.has_frame() => self.close_session(index),
            // It takes no answers any more, so what it asks is not read any more either.
            _ if !socket.is_active() && session.conversation.queued() > SESSION_QUEUE_BYTES => {
                self.close_session(index);
            }
            State::Handshaking if timed_out => {
                self.log(Level::Warning, format_args!("session from {from}: no TLS handshake in time"));
                self.close_session(index);
            }
            _ => return false,
        }
        true
    }

    fn open_session(&mut self, index: usize) {
        let Some((session, _)) = self.sessions.session(index, &mut self.service) else { return };
        session.phase = Phase::Open;
        let id = session.id;
        let identity = session.conversation.peer().unwrap_or_default();
        let peer = Peer { name: identity.name, chain: identity.chain };
        self.engine.handle(self.now, Input::SessionOpened { session: id, peer });
        self.carry_out();
    }

    /// Begins the end of a session, and tells the engine if it knew it.
    fn close_session(&mut self, index: usize) {
        let Some((session, _)) = self.sessions.session(index, &mut self.service) else { return };
        let (id, was_open) = (session.id, session.is_open());
        session.close(self.now.monotonic_ns);
        if was_open {
            self.engine.handle(self.now, Input::SessionClosed { session: id });
            self.carry_out();
        }
    }

    /// Gives a session's whole frames to the engine, as long as it may be read.
    fn read_frames(&mut self, index: usize) -> bool {
        let mut moved = false;
        loop {
            let Some((session, _)) = self.sessions.session(index, &mut self.service) else { return moved };
            if !may_be_read(session, &self.link, &self.engine) {
                return moved;
            }
            let id = session.id;
            match session.conversation.frame() {
                Ok(None) => return moved,
                Ok(Some((payload, length))) => {
                    self.engine.handle(self.now, Input::SessionFrame { session: id, payload });
                    session.conversation.consume(length);
                }
                Err(FrameError::TooLong { claimed }) => {
                    session.stop_reading();
                    self.engine.handle(self.now, Input::SessionFrameTooLong { session: id, claimed });
                }
                Err(FrameError::Malformed) => return moved,
            }
            moved = true;
            self.carry_out();
        }
    }

    /// Sends what is queued for a session, and tells the engine how much is left.
    fn flush_session(&mut self, index: usize) -> bool {
        let Some((session, socket)) = self.sessions.session(index, &mut self.service) else { return false };
        let moved = session.flush(socket);
        let (id, queued) = (session.id, session.conversation.queued());
        if moved && session.is_open() && queued < SESSION_QUEUE_BYTES {
            self.engine.handle(self.now, Input::SessionDrained { session: id, queued });
            self.carry_out();
        }
        moved
    }

    /// Gives up the place of a session whose end has come.
    fn end_session(&mut self, index: usize) {
        let now_ns = self.now.monotonic_ns;
        let Some((session, socket)) = self.sessions.session(index, &mut self.service) else { return };
        let Phase::Closing(deadline) = session.phase else { return };
        if !socket.is_active() || now_ns >= deadline {
            self.sessions.place(index).vacate(&mut self.service, now_ns);
        }
    }
}

/// An engine that knows what `disk` holds.
fn recover(config: Config, disk: &mut dyn Disk, seed: u64) -> Engine {
    let device = StateDevice { bytes: disk.bytes(), block_bytes: disk.block_bytes(), seed };
    Engine::recover(config, &device, |offset, data| disk.read(offset, data))
}

/// An address, for the log.
struct Leased(Address);

impl Display for Leased {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Address { ipv4: (address, prefix), gateway, .. } = self.0;
        match gateway {
            Some(gateway) => write!(f, "{address}/{prefix}, gateway {gateway}"),
            None => write!(f, "{address}/{prefix}, without a gateway"),
        }
    }
}

/// Where a session comes from, for the log.
struct Origin(Option<IpEndpoint>);

impl Display for Origin {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(endpoint) => write!(f, "{}", endpoint.addr),
            None => f.write_str("a machine that is gone"),
        }
    }
}

/// Whether a session's frames may be read: not while it does not take its answers, nor, if it sends an image or a
/// volume, while the shim cannot take so much.
fn may_be_read(session: &Session, link: &Link, engine: &Engine) -> bool {
    let link_is_full = link.queued() > LINK_QUEUE_BYTES && engine.uploading(session.id);
    session.may_be_read() && !link_is_full && !engine.overtaken(session.id)
}
