//! One operator's connection, from its first packet to its last.

use petrel_engine::SessionId;
use petrel_wire::limits::SESSION_QUEUE_BYTES;
use smoltcp::socket::tcp;

use crate::conversation::Conversation;
use crate::limits::{FAREWELL_NS, HANDSHAKE_NS};

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// TCP and TLS are being set up, until this moment at the latest (monotonic nanoseconds).
    Opening(u64),
    /// The engine knows it.
    Open,
    /// What is queued is being sent, and the peer's goodbye awaited, until this moment at the latest.
    Closing(u64),
}

/// One operator's connection.
pub struct Session {
    /// Its number, which is that of its place in the table.
    pub id: SessionId,
    /// How far it is.
    pub phase: Phase,
    /// The frames.
    pub conversation: Conversation,
    /// Whether nothing more that it sends can be understood.
    unreadable: bool,
    /// Whether the end of our bytes has been given to TCP.
    finished: bool,
}

impl Session {
    /// A session that begins now.
    pub fn new(id: SessionId, conversation: Conversation, now_ns: u64) -> Self {
        Self {
            id,
            phase: Phase::Opening(now_ns + HANDSHAKE_NS),
            conversation,
            unreadable: false,
            finished: false,
        }
    }

    /// Whether the engine knows it.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether its frames may be read: not while a client that reads no answers goes on asking.
    pub fn may_be_read(&self) -> bool {
        self.is_open() && !self.unreadable && self.conversation.queued() <= SESSION_QUEUE_BYTES
    }

    /// Never reads it again.
    pub fn stop_reading(&mut self) {
        self.unreadable = true;
    }

    /// Whether a whole frame waits to be read.
    pub fn has_frame(&self) -> bool {
        !self.unreadable && matches!(self.conversation.frame(), Ok(Some(_)))
    }

    /// When it must be looked at even if nothing happens, in monotonic nanoseconds.
    pub fn deadline(&self) -> Option<u64> {
        match self.phase {
            Phase::Opening(deadline) | Phase::Closing(deadline) => Some(deadline),
            Phase::Open => None,
        }
    }

    /// Begins the end: what is queued is still sent, with TLS's own goodbye after it.
    pub fn close(&mut self, now_ns: u64) {
        if !matches!(self.phase, Phase::Closing(_)) {
            self.conversation.close();
            self.phase = Phase::Closing(now_ns + FAREWELL_NS);
        }
    }

    /// Hands what is queued to the socket, and in the end the end. Returns whether bytes moved.
    pub fn flush(&mut self, socket: &mut tcp::Socket<'_>) -> bool {
        let moved = self.conversation.write(socket);
        if matches!(self.phase, Phase::Closing(_)) {
            // What still comes is of no use, but a full window would keep the peer from saying goodbye.
            let _ = socket.recv(|bytes| (bytes.len(), ()));
            if self.conversation.queued() == 0 && !self.finished {
                socket.close();
                self.finished = true;
            }
        }
        moved
    }
}
