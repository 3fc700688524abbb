//! The connections: each is a socket that listens, serves one client, and listens again.

use crate::http::{self, Facts, REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX, Step};
use alloc::vec;
use alloc::vec::Vec;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};

/// Clients served at once; one more is refused.
const CONNECTIONS_MAX: usize = 64;

/// Bytes of a connection that the network may be ahead of the server.
const RECEIVE_BYTES: usize = 4 << 10;

/// How long a client may take for a request, or say nothing between two.
const IDLE_MAX_NS: u64 = 15_000_000_000;

/// All connections, and what the page tells about them.
pub struct Server {
    port: u16,
    started_ns: u64,
    served: u64,
    connections: Vec<Connection>,
}

struct Connection {
    socket: SocketHandle,
    /// What the client has sent and nobody has answered, in one piece (the socket's own buffer is a ring).
    request: Vec<u8>,
    /// When the client gets on with it, or goes; set while there is one.
    deadline_ns: Option<u64>,
}

impl Server {
    /// A server on TCP port `port`, with its sockets in `sockets`. It has yet to [`listen`](Self::listen).
    pub fn new(port: u16, sockets: &mut SocketSet<'static>, now_ns: u64) -> Self {
        let open = || {
            let incoming = SocketBuffer::new(vec![0; RECEIVE_BYTES]);
            let outgoing = SocketBuffer::new(vec![0; 2 * RESPONSE_BYTES_MAX]);
            let mut socket = Socket::new(incoming, outgoing);
            // Both save packets on bulk transfers, and cost a request its latency.
            socket.set_nagle_enabled(false);
            socket.set_ack_delay(None);
            Connection { socket: sockets.add(socket), request: Vec::new(), deadline_ns: None }
        };
        let connections = core::iter::repeat_with(open).take(CONNECTIONS_MAX).collect();
        Self { port, started_ns: now_ns, served: 0, connections }
    }

    /// Has every socket listen whose client is gone. For after the interface was polled: an aborted socket tells its
    /// client so only there.
    pub fn listen(&mut self, sockets: &mut SocketSet<'static>) {
        for connection in &self.connections {
            let socket = sockets.get_mut::<Socket>(connection.socket);
            // With both sides closed it would wait for stray segments for a while. Others need it more.
            if socket.state() == State::TimeWait {
                socket.abort();
            }
            if socket.state() == State::Closed {
                // Only port 0 and an open socket are refused.
                let _ = socket.listen(self.port);
            }
        }
    }

    /// Answers what has come in. The answers leave when the interface is polled.
    pub fn serve(&mut self, sockets: &mut SocketSet<'static>, now_ns: u64) {
        let uptime_s = (now_ns - self.started_ns) / 1_000_000_000;
        for connection in &mut self.connections {
            let socket = sockets.get_mut::<Socket>(connection.socket);
            let facts = Facts { served: self.served, uptime_s };
            self.served += connection.serve(socket, facts, now_ns);
        }
    }

    /// When the next client's time is up, on the clock that `serve` is told.
    pub fn deadline_ns(&self) -> Option<u64> {
        self.connections.iter().filter_map(|connection| connection.deadline_ns).min()
    }
}

impl Connection {
    /// Answers the requests that are there, and tells how many.
    fn serve(&mut self, socket: &mut Socket<'_>, facts: Facts, now_ns: u64) -> u64 {
        if !socket.is_active() {
            self.request.clear();
            self.deadline_ns = None;
            return 0;
        }
        let deadline_ns = *self.deadline_ns.get_or_insert(now_ns + IDLE_MAX_NS);
        let answered = self.answer_all(socket, facts);
        if answered > 0 {
            self.deadline_ns = Some(now_ns + IDLE_MAX_NS);
        } else if now_ns >= deadline_ns {
            socket.abort();
            self.deadline_ns = None;
        } else if socket.state() == State::CloseWait {
            // The client sends nothing more, and what it sent has been answered as far as it was complete.
            socket.close();
        }
        answered
    }

    fn answer_all(&mut self, socket: &mut Socket<'_>, facts: Facts) -> u64 {
        let mut answered = 0;
        while socket.may_send() && socket.send_capacity() - socket.send_queue() >= RESPONSE_BYTES_MAX {
            self.receive(socket);
            let facts = Facts { served: facts.served + answered, ..facts };
            let Step::Answer { used, response, close } = http::step(&self.request, facts) else { break };
            self.request.drain(..used);
            // There is room for it, and the socket may send.
            let _ = socket.send_slice(&response);
            if close {
                socket.close();
            }
            answered += 1;
        }
        answered
    }

    /// Moves what has come in to the request, as far as that may grow.
    fn receive(&mut self, socket: &mut Socket<'_>) {
        while socket.can_recv() && self.request.len() < REQUEST_BYTES_MAX {
            let room = REQUEST_BYTES_MAX - self.request.len();
            let take = |bytes: &mut [u8]| {
                let len = bytes.len().min(room);
                self.request.extend_from_slice(&bytes[..len]);
                (len, ())
            };
            // can_recv has ruled out the errors.
            let _ = socket.recv(take);
        }
    }
}
