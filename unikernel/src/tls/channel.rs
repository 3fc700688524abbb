//! The state of one connection.

use alloc::boxed::Box;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{CommonState, Error};

use super::{Failure, PeerIdentity, subject};
use crate::queue::ByteQueue;

/// The most ciphertext that may wait to be understood: a handshake message of the largest size that rustls
/// takes, in records. What is more is an attempt to fill the memory.
const INCOMING_BYTES_MAX: usize = 80 * 1024;
/// The plaintext of one record: RFC 8446, section 5.1.
const RECORD_BYTES_MAX: usize = 16 * 1024;
/// What a record adds to its plaintext: header, inner type, tag.
const RECORD_OVERHEAD_BYTES: usize = 5 + 1 + 16;
/// The size of a close_notify alert, protected, with room to spare.
const ALERT_BYTES_MAX: usize = 64;

/// How far a connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Neither side can be sure of the other yet.
    Handshaking,
    /// The peer has proved who it is; plaintext flows.
    Open,
    /// The peer has said that it will send no more.
    PeerClosed,
    /// It failed. The alert that tells the peer is in the ciphertext to be sent.
    Failed(Failure),
}

enum Connection {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

/// A TLS connection between two streams of bytes: ciphertext of the transport, plaintext of ours.
pub struct SecureChannel {
    connection: Connection,
    state: State,
    /// Ciphertext that is not yet a whole record.
    incoming: ByteQueue,
    /// Ciphertext to be sent.
    outgoing: ByteQueue,
    /// Plaintext that nobody has taken yet.
    received: ByteQueue,
}

impl SecureChannel {
    pub(super) fn server(connection: Box<UnbufferedServerConnection>) -> Self {
        Self::new(Connection::Server(connection))
    }

    pub(super) fn client(connection: Box<UnbufferedClientConnection>) -> Self {
        let mut channel = Self::new(Connection::Client(connection));
        channel.advance(None);
        channel
    }

    fn new(connection: Connection) -> Self {
        Self {
            connection,
            state: State::Handshaking,
            incoming: ByteQueue::default(),
            outgoing: ByteQueue::default(),
            received: ByteQueue::default(),
        }
    }

    /// How far the connection is.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Who the peer has proved to be, once the connection is open.
    pub fn peer(&self) -> Option<PeerIdentity> {
        if !matches!(self.state, State::Open | State::PeerClosed) {
            return None;
        }
        let certificates = self.common().peer_certificates()?;
        Some(PeerIdentity {
            name: certificates.first().and_then(subject::common_name).unwrap_or_default(),
            chain: certificates.iter().map(|certificate| certificate.to_vec()).collect(),
        })
    }

    /// Takes ciphertext from the transport and works on it.
    pub fn receive(&mut self, ciphertext: &[u8]) {
        if matches!(self.state, State::Failed(_)) {
            return;
        }
        self.incoming.push(ciphertext);
        self.advance(None);
        if self.incoming.len() > INCOMING_BYTES_MAX {
            self.incoming = ByteQueue::default();
            self.state = State::Failed(Failure::Oversized);
        }
    }

    #[cfg(test)]
    pub(super) fn incoming_bytes(&self) -> usize {
        self.incoming.len()
    }

    /// The plaintext that has come in and was not yet [consumed](Self::consume).
    pub fn plaintext(&self) -> &[u8] {
        self.received.as_slice()
    }

    /// Drops the first `count` bytes of the plaintext.
    pub fn consume(&mut self, count: usize) {
        self.received.take(count);
    }

    /// Enciphers `plaintext`. Dropped unless the connection is open or the peer alone has closed it.
    pub fn send(&mut self, plaintext: &[u8]) {
        if matches!(self.state, State::Open | State::PeerClosed) {
            self.advance(Some(Write::Plaintext(plaintext)));
        }
    }

    /// Tells the peer that no more will be sent.
    pub fn close(&mut self) {
        if matches!(self.state, State::Open | State::PeerClosed) {
            self.advance(Some(Write::CloseNotify));
        }
    }

    /// The ciphertext that the transport shall send.
    pub fn ciphertext(&self) -> &[u8] {
        self.outgoing.as_slice()
    }

    /// Drops the first `count` bytes of the ciphertext: the transport has them.
    pub fn sent(&mut self, count: usize) {
        self.outgoing.take(count);
    }

    fn common(&self) -> &CommonState {
        match &self.connection {
            Connection::Server(connection) => connection,
            Connection::Client(connection) => connection,
        }
    }

    /// Lets rustls work until it needs more ciphertext, writing `write` as soon as it may be written.
    ///
    /// The bytes given to rustls must stay what they are, but for those it discards: it remembers where in
    /// them a handshake message began. After a failure it must not look at them again; it does not as long
    /// as it still has something for the peer, the alert.
    fn advance(&mut self, mut write: Option<Write<'_>>) {
        loop {
            let failed = matches!(self.state, State::Failed(_));
            if failed && !self.common().wants_write() {
                return;
            }
            let Self { connection, incoming, outgoing, received, .. } = self;
            let bytes = incoming.as_mut_slice();
            let (taken, step) = match connection {
                Connection::Server(connection) => {
                    step(connection.process_tls_records(bytes), outgoing, received, write.take())
                }
                Connection::Client(connection) => {
                    step(connection.process_tls_records(bytes), outgoing, received, write.take())
                }
            };
            incoming.take(taken);
            match step {
                Step::Again(unwritten) => write = unwritten,
                Step::Failed(error) if !failed => self.state = State::Failed(error.into()),
                Step::PeerClosed if !failed => self.state = State::PeerClosed,
                Step::Writable if self.state == State::Handshaking => {
                    self.state = State::Open;
                    return;
                }
                _ => return,
            }
        }
    }
}

/// What is to be written once the handshake allows it.
enum Write<'a> {
    Plaintext(&'a [u8]),
    CloseNotify,
}

/// What one status of rustls means for the channel.
enum Step<'a> {
    /// Ask again, with what could not be written yet.
    Again(Option<Write<'a>>),
    /// More ciphertext is needed before anything else can happen.
    Blocked,
    /// The handshake is over, and all that came is worked on.
    Writable,
    PeerClosed,
    Failed(Error),
}

/// Does what rustls asks for. Returns how many bytes of the incoming ciphertext are used up.
fn step<'a, Side>(
    status: UnbufferedStatus<'_, '_, Side>,
    outgoing: &mut ByteQueue,
    received: &mut ByteQueue,
    write: Option<Write<'a>>,
) -> (usize, Step<'a>) {
    let mut taken = status.discard;
    let step = match status.state {
        Err(error) => Step::Failed(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                None => break Step::Again(write),
                Some(Err(error)) => break Step::Failed(error),
                Some(Ok(record)) => {
                    taken += record.discard;
                    received.push(record.payload);
                }
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            // An empty space tells the size.
            let needed = match data.encode(&mut []) {
                Err(EncodeError::InsufficientSize(size)) => size.required_size,
                _ => 0,
            };
            match outgoing.push_with(needed, |space| data.encode(space)) {
                Ok(()) => Step::Again(write),
                Err(error) => Step::Failed(Error::General(alloc::format!("{error}"))),
            }
        }
        // What was encoded is in `outgoing`, in order: as good as transmitted.
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Step::Again(write)
        }
        Ok(ConnectionState::WriteTraffic(traffic)) => match write {
            None => Step::Writable,
            Some(write) => write_out(traffic, write, outgoing),
        },
        Ok(ConnectionState::PeerClosed) => Step::PeerClosed,
        // Closed, BlockedHandshake; early data is never offered here.
        Ok(_) => Step::Blocked,
    };
    (taken, step)
}

fn write_out<'a, Side>(
    mut traffic: WriteTraffic<'_, Side>,
    write: Write<'a>,
    outgoing: &mut ByteQueue,
) -> Step<'a> {
    let mut space = match write {
        Write::Plaintext(bytes) => {
            bytes.len() + bytes.len().div_ceil(RECORD_BYTES_MAX) * RECORD_OVERHEAD_BYTES
        }
        Write::CloseNotify => ALERT_BYTES_MAX,
    };
    loop {
        let written = outgoing.push_with(space, |space| match write {
            Write::Plaintext(bytes) => traffic.encrypt(bytes, space),
            Write::CloseNotify => traffic.queue_close_notify(space),
        });
        match written {
            Ok(()) => return Step::Again(None),
            // A key update goes out with it.
            Err(EncryptError::InsufficientSize(size)) if size.required_size > space => {
                space = size.required_size
            }
            Err(error) => return Step::Failed(Error::General(alloc::format!("{error}"))),
        }
    }
}
