//! A session with a control plane: one TLS connection, requests and their answers.
//!
//! [`Session::send`] returns at once with the request's number and [`Session::receive`] awaits its next answer,
//! so requests can be pipelined and answers taken in any order. The greeting goes out with the first request and
//! its answer is taken on the way, so it costs no round trip of its own.

mod transfer;

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use petrel_wire::frame::{self, Inbox};
use petrel_wire::limits::{CHUNK_BYTES_MAX, OPERATOR_VERSION, UNIKERNELS_MAX};
use petrel_wire::operator::{
    ClientMessage, Download, Hello, ImageResponse, Refusal, Request, Response, ServerMessage, Unikernel,
    VolumeResponse, Welcome,
};
use petrel_wire::{Blob, Digest, List};
use rustls::ClientConnection;

use crate::error::Error;
use crate::limits::{
    ANSWER_TIMEOUT, BACKLOG_MAX, CONNECT_TIMEOUT, GREETING_TIMEOUT, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL,
    KEEPALIVE_TRIES, REFUSED_AGAIN,
};
use crate::profile::{ALPN, Profile};

const HELLO_ID: u32 = 0;

/// An open session.
pub struct Session {
    address: String,
    socket: TcpStream,
    tls: ClientConnection,
    /// Decrypted bytes.
    inbox: Inbox,
    /// The requests that are unanswered, each with its answers that nobody has asked for yet.
    open: HashMap<u32, VecDeque<Response>>,
    backlog: usize,
    last_id: u32,
    welcome: Option<Welcome>,
    /// How long an answer may take once the host has greeted; forever when `None`.
    patience: Option<Duration>,
}

impl Session {
    /// Connects and starts the TLS handshake, which goes on while the first answer is awaited.
    ///
    /// # Errors
    /// [`Error::Connect`]; what TLS has to say comes with the first answer.
    pub fn connect(profile: &Profile) -> Result<Self, Error> {
        let address = profile.address.clone();
        let socket = dial(&address).map_err(|source| Error::Connect { address: address.clone(), source })?;
        let tls = ClientConnection::new(profile.tls.clone(), profile.host.clone());
        let mut tls = tls.map_err(|fault| Error::Tls { address: address.clone(), fault })?;
        // What is bounded is bounded by flushing: an upload flushes after each chunk.
        tls.set_buffer_limit(None);
        let mut session = Self {
            address,
            socket,
            tls,
            inbox: Inbox::default(),
            open: HashMap::from([(HELLO_ID, VecDeque::new())]),
            backlog: 0,
            last_id: HELLO_ID,
            welcome: None,
            patience: Some(ANSWER_TIMEOUT),
        };
        let hello = Hello { oldest: OPERATOR_VERSION, newest: OPERATOR_VERSION };
        session.put(&ClientMessage { id: HELLO_ID, request: Request::Hello(hello) })?;
        session.flush()?;
        Ok(session)
    }

    /// The host's greeting.
    ///
    /// # Errors
    /// Any but [`Error::Profile`] and [`Error::Image`]; so with all that follow.
    pub fn welcome(&mut self) -> Result<Welcome, Error> {
        loop {
            match &self.welcome {
                Some(welcome) => return Ok(welcome.clone()),
                None => self.take_one()?,
            }
        }
    }

    /// Queues a request and returns its number. It leaves with the next [`Session::flush`] or
    /// [`Session::receive`], so requests that are sent in a row share packets.
    pub fn send(&mut self, request: Request) -> Result<u32, Error> {
        let id = loop {
            self.last_id = self.last_id.wrapping_add(1);
            if self.last_id != HELLO_ID && !self.open.contains_key(&self.last_id) {
                break self.last_id;
            }
        };
        self.put(&ClientMessage { id, request })?;
        self.open.insert(id, VecDeque::new());
        Ok(id)
    }

    /// Awaits the next answer to the request with this number. A refusal is an [`Error::Refused`].
    pub fn receive(&mut self, id: u32) -> Result<Response, Error> {
        self.flush()?;
        loop {
            let Some(answers) = self.open.get_mut(&id) else {
                return Err(self.protocol("no more answers, where one was awaited"));
            };
            if let Some(answer) = answers.pop_front() {
                self.backlog -= 1;
                if ends_request(&answer) {
                    self.open.remove(&id);
                }
                return match answer {
                    Response::Refused(refusal) => Err(Error::Refused(refusal)),
                    answer => Ok(answer),
                };
            }
            self.take_one()?;
        }
    }

    /// Sends a request and awaits its first answer.
    pub fn request(&mut self, request: Request) -> Result<Response, Error> {
        let id = self.send(request)?;
        self.receive(id)
    }

    /// All unikernels of the host, in the order of their names.
    pub fn list(&mut self) -> Result<Vec<Unikernel>, Error> {
        self.pages(Request::List, UNIKERNELS_MAX, |response| match response {
            Response::Listed { page, more } => Some((page, more)),
            _ => None,
        })
    }

    /// All pages of a listing, one behind the other: `page` takes each out of its answer, with whether more follow. One that
    /// goes on behind `most` entries is not believed.
    pub(crate) fn pages<T, const N: usize>(
        &mut self,
        request: Request,
        most: usize,
        page: impl Fn(Response) -> Option<(List<T, N>, bool)>,
    ) -> Result<Vec<T>, Error> {
        let id = self.send(request)?;
        let mut all = Vec::new();
        loop {
            let Some((page, more)) = page(self.receive(id)?) else { return Err(self.unexpected()) };
            all.extend(page.into_vec());
            if !more {
                return Ok(all);
            }
            if all.len() > most {
                return Err(self.protocol("a listing longer than any"));
            }
        }
    }

    /// Uploads an image unless the host has it. `sent` is told the bytes that are on their way so far.
    pub fn push(&mut self, image: &[u8], digest: Digest, mut sent: impl FnMut(u64)) -> Result<(), Error> {
        let id = self.send(Request::ImagePush { digest, bytes: image.len() as u64 })?;
        match self.receive(id)? {
            Response::ImageStored(_) => return Ok(()),
            Response::ImageWanted => {}
            _ => return Err(self.unexpected()),
        }
        self.send_chunks(id, image, Request::ImageChunk, &mut sent)?;
        match self.receive(id)? {
            Response::ImageStored(_) => Ok(()),
            _ => Err(self.unexpected()),
        }
    }

    /// The host's state, in pieces that `take` is given; how many records that were.
    pub fn export_state(&mut self, mut take: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<u32, Error> {
        let id = self.send(Request::StateExport)?;
        loop {
            match self.receive(id)? {
                Response::StateData(bytes) => take(&bytes)?,
                Response::StateExported { records } => return Ok(records),
                _ => return Err(self.unexpected()),
            }
        }
    }

    /// Gives the host another state; how many records that were. `sent` is told the bytes that are on their way so far.
    pub fn import_state(
        &mut self,
        file: &[u8],
        force: bool,
        mut sent: impl FnMut(u64),
    ) -> Result<u32, Error> {
        let id = self.send(Request::StateImport { bytes: file.len() as u64, force })?;
        let Response::StateWanted = self.receive(id)? else { return Err(self.unexpected()) };
        self.send_chunks(id, file, Request::StateChunk, &mut sent)?;
        match self.receive(id)? {
            Response::StateImported { records } => Ok(records),
            _ => Err(self.unexpected()),
        }
    }

    /// Sends the bytes of an upload, until all have left or an answer has come.
    fn send_chunks(
        &mut self,
        id: u32,
        bytes: &[u8],
        request: fn(Blob<CHUNK_BYTES_MAX>) -> Request,
        sent: &mut impl FnMut(u64),
    ) -> Result<(), Error> {
        let mut done = 0;
        for chunk in bytes.chunks(CHUNK_BYTES_MAX) {
            let chunk = Blob::try_from(chunk).map_err(|_| self.protocol("no chunk of this size"))?;
            done += chunk.len() as u64;
            self.put(&ClientMessage { id, request: request(chunk) })?;
            self.flush()?;
            sent(done);
            self.take_what_is_there()?;
            if self.open.get(&id).is_some_and(|answers| !answers.is_empty()) {
                break;
            }
        }
        Ok(())
    }

    /// From here on an answer may take as long as it takes; that the host is still there is TCP's to find out.
    pub fn wait_forever(&mut self) -> Result<(), Error> {
        use rustix::net::sockopt;
        self.patience = None;
        sockopt::set_socket_keepalive(&self.socket, true)
            .and_then(|()| sockopt::set_tcp_keepidle(&self.socket, KEEPALIVE_IDLE))
            .and_then(|()| sockopt::set_tcp_keepintvl(&self.socket, KEEPALIVE_INTERVAL))
            .and_then(|()| sockopt::set_tcp_keepcnt(&self.socket, KEEPALIVE_TRIES))
            .map_err(io::Error::from)
            .and_then(|()| if self.welcome.is_some() { self.socket.set_read_timeout(None) } else { Ok(()) })
            .map_err(|error| self.lost(Some(error)))
    }

    /// Sends what is queued, as far as TLS lets it leave.
    pub fn flush(&mut self) -> Result<(), Error> {
        while self.tls.wants_write() {
            if let Err(error) = self.tls.write_tls(&mut self.socket) {
                return Err(self.why_unsendable(error));
            }
        }
        Ok(())
    }

    /// An answer came that does not belong to the request.
    pub fn unexpected(&self) -> Error {
        self.protocol("an answer to another question")
    }

    fn put(&mut self, message: &ClientMessage) -> Result<(), Error> {
        let mut bytes = Vec::new();
        frame::encode(message, &mut bytes).map_err(|error| self.protocol(&format!("room for no {error}")))?;
        self.tls.writer().write_all(&bytes).map_err(|error| self.lost(Some(error)))
    }

    /// Files the next message under its request.
    fn take_one(&mut self) -> Result<(), Error> {
        loop {
            if let Some(message) = self.next_message()? {
                return self.file(message);
            }
            self.read_once()?;
        }
    }

    /// Files the messages that have come already, without waiting for any.
    fn take_what_is_there(&mut self) -> Result<(), Error> {
        self.socket.set_nonblocking(true).map_err(|error| self.lost(Some(error)))?;
        let read = self.tls.read_tls(&mut self.socket);
        self.socket.set_nonblocking(false).map_err(|error| self.lost(Some(error)))?;
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            read => self.digest_read(read)?,
        }
        while let Some(message) = self.next_message()? {
            self.file(message)?;
        }
        Ok(())
    }

    fn next_message(&mut self) -> Result<Option<ServerMessage>, Error> {
        self.inbox.next_message().map_err(|error| self.protocol(&error.to_string()))
    }

    fn file(&mut self, message: ServerMessage) -> Result<(), Error> {
        if self.welcome.is_none() {
            return self.greet(message);
        }
        match (self.open.get_mut(&message.id), message.response) {
            // A session that ends says so under whatever number it pleases.
            (_, Response::Refused(refusal)) if ends_session(&refusal) => Err(Error::Refused(refusal)),
            (Some(answers), answer) if self.backlog < BACKLOG_MAX => {
                answers.push_back(answer);
                self.backlog += 1;
                Ok(())
            }
            (Some(_), _) => Err(self.protocol("more answers than were taken")),
            (None, _) => Err(self.protocol("an answer to no question")),
        }
    }

    fn greet(&mut self, message: ServerMessage) -> Result<(), Error> {
        match message.response {
            Response::Hello(welcome) if message.id == HELLO_ID && welcome.version == OPERATOR_VERSION => {
                self.open.remove(&HELLO_ID);
                self.welcome = Some(welcome);
                self.socket.set_read_timeout(self.patience).map_err(|error| self.lost(Some(error)))
            }
            Response::Refused(refusal) => Err(Error::Refused(refusal)),
            _ => Err(self.protocol("no greeting")),
        }
    }

    fn read_once(&mut self) -> Result<(), Error> {
        let read = self.tls.read_tls(&mut self.socket);
        self.digest_read(read)?;
        // What TLS itself has to send: the rest of its handshake, and with it what was queued.
        self.flush()
    }

    /// Decrypts what was read into the inbox.
    fn digest_read(&mut self, read: io::Result<usize>) -> Result<(), Error> {
        match read {
            Ok(0) => return Err(self.lost(None)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) if is_timeout(&error) => return Err(self.silent()),
            Err(error) => return Err(self.lost(Some(error))),
        }
        let state = match self.tls.process_new_packets() {
            Ok(state) => state,
            Err(fault) => return Err(self.tls_failed(fault)),
        };
        if !self.tls.is_handshaking() && self.tls.alpn_protocol() != Some(ALPN) {
            return Err(Error::NotPetrel { address: self.address.clone() });
        }
        let inbox = self.inbox.back();
        let start = inbox.len();
        inbox.resize(start + state.plaintext_bytes_to_read(), 0);
        self.tls.reader().read_exact(&mut inbox[start..]).map_err(|error| self.lost(Some(error)))
    }

    fn tls_failed(&mut self, fault: rustls::Error) -> Error {
        // The peer is told why, if it can still be reached; what matters is the fault itself.
        let _ = self.tls.write_tls(&mut self.socket);
        Error::Tls { address: self.address.clone(), fault }
    }

    /// A peer that refuses and hangs up makes writing fail before its reason was read: look for it.
    fn why_unsendable(&mut self, error: io::Error) -> Error {
        if is_timeout(&error) {
            return self.silent();
        }
        while let Ok(1..) = self.tls.read_tls(&mut self.socket) {
            if let Err(fault) = self.tls.process_new_packets() {
                return Error::Tls { address: self.address.clone(), fault };
            }
            let _ = self.tls.reader().read_to_end(self.inbox.back());
            while let Ok(Some(message)) = self.next_message() {
                if let Response::Refused(refusal) = message.response {
                    return Error::Refused(refusal);
                }
            }
        }
        self.lost(Some(error))
    }

    fn lost(&self, source: Option<io::Error>) -> Error {
        Error::Lost { address: self.address.clone(), greeted: self.welcome.is_some(), source }
    }

    fn silent(&self) -> Error {
        let limit = if self.welcome.is_none() { GREETING_TIMEOUT } else { ANSWER_TIMEOUT };
        Error::Silent { address: self.address.clone(), seconds: limit.as_secs() }
    }

    fn protocol(&self, what: &str) -> Error {
        Error::Protocol { address: self.address.clone(), what: what.into() }
    }
}

fn dial(address: &str) -> io::Result<TcpStream> {
    // A literal address is not worth a look at the resolver's configuration.
    let candidates = match address.parse::<SocketAddr>() {
        Ok(address) => vec![address],
        Err(_) => address.to_socket_addrs()?.collect(),
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in candidates {
        match patiently(|| TcpStream::connect_timeout(&candidate, CONNECT_TIMEOUT)) {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                socket.set_read_timeout(Some(GREETING_TIMEOUT))?;
                socket.set_write_timeout(Some(ANSWER_TIMEOUT))?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Connects, and a few times more while the host refuses.
fn patiently(connect: impl Fn() -> io::Result<TcpStream>) -> io::Result<TcpStream> {
    for wait in REFUSED_AGAIN {
        match connect() {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => thread::sleep(wait),
            outcome => return outcome,
        }
    }
    connect()
}

/// A socket reports its own timeout as `WouldBlock`; `TimedOut` is TCP giving the peer up.
fn is_timeout(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

fn ends_request(answer: &Response) -> bool {
    !matches!(
        answer,
        Response::ImageWanted
            | Response::Console { .. }
            | Response::ConsoleMissed { .. }
            | Response::ConsoleBegan { .. }
            | Response::Ended(_)
            | Response::Events(_)
            | Response::EventsMissed(_)
            | Response::Listed { more: true, .. }
            | Response::Consoles { more: true, .. }
            | Response::Stats { more: true, .. }
            | Response::Policies { more: true, .. }
            | Response::Revocations { more: true, .. }
            | Response::Generation { more: true, .. }
            | Response::StateWanted
            | Response::StateData(_)
            | Response::Image(ImageResponse::Listed { more: true, .. })
            | Response::Volume(VolumeResponse::Listed { more: true, .. } | VolumeResponse::Wanted)
            | Response::Download(Download::Begin { .. } | Download::Data { .. })
    )
}

fn ends_session(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::Malformed
            | Refusal::FrameTooLong { .. }
            | Refusal::Version(_)
            | Refusal::HelloExpected
            | Refusal::IdInUse
            | Refusal::Certificate { .. }
    )
}
