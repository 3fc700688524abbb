//! Frames to and from the one peer, inside TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::{net::TcpListener, net::TcpStream, sync::Arc};

use petrel_wire::frame::{self, FrameError, Inbox};
use petrel_wire::shim::{FromShim, Request};
use rustix::event::{PollFd, PollFlags};
use rustls::{ServerConfig, ServerConnection};

/// With so much waiting to be sent, requests and consoles wait too.
const QUEUE_BYTES_MARK: usize = 256 * 1024;
/// Reads of a socket in one turn of the loop, each of a few KiB.
const READS_PER_TURN: usize = 64;

/// A connection, in its handshake or with the peer on it.
pub struct Link {
    socket: TcpStream,
    tls: ServerConnection,
    inbox: Inbox,
    /// Frames to be sent.
    queued: Vec<u8>,
}

impl Link {
    /// Takes a connection that waits.
    pub fn accept(listener: &TcpListener, config: &Arc<ServerConfig>) -> io::Result<Self> {
        let (socket, _) = listener.accept()?;
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let tls = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
        Ok(Self { socket, tls, inbox: Inbox::default(), queued: Vec::new() })
    }

    /// Whether the peer has shown the pinned key.
    pub fn is_authenticated(&self) -> bool {
        !self.tls.is_handshaking()
    }

    /// Whether more may be queued; if not, nothing is read either.
    pub fn has_room(&self) -> bool {
        self.queued.len() < QUEUE_BYTES_MARK
    }

    /// What the link waits for.
    pub fn interest(&self) -> PollFd<'_> {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.has_room());
        flags.set(PollFlags::OUT, self.tls.wants_write());
        PollFd::new(&self.socket, flags)
    }

    /// Takes what has come if there is room, and does what TLS itself has to. An error means that the connection is
    /// over.
    pub fn read(&mut self) -> io::Result<()> {
        let reads = if self.has_room() { READS_PER_TURN } else { 0 };
        for _ in 0..reads {
            match self.tls.complete_io(&mut self.socket) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                done => drop(done?),
            }
            // All of it: for what TLS has already, the socket wakes nobody.
            match self.tls.reader().read_to_end(self.inbox.back()) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                end => return end.and(Err(ErrorKind::UnexpectedEof.into())),
            }
        }
        Ok(())
    }

    /// The next request that has come whole, if there is room for its answer.
    pub fn next_request(&mut self) -> Result<Option<Request>, FrameError> {
        if self.has_room() { self.inbox.next_message() } else { Ok(None) }
    }

    /// Queues a message.
    pub fn send(&mut self, message: &FromShim) {
        // The wire's bounds are such that every message fits a frame.
        let _ = frame::encode(message, &mut self.queued);
    }

    /// Sends what is queued, as far as the socket takes it now.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.queued.is_empty() || self.tls.wants_write() {
            let taken = self.tls.writer().write(&self.queued)?;
            self.queued.drain(..taken);
            match self.tls.write_tls(&mut self.socket) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                sent => drop(sent?),
            }
        }
        Ok(())
    }
}
