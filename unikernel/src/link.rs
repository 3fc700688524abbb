//! The link to the shim: connected, and connected again whenever it is over.

use core::net::Ipv4Addr;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;

use crate::conversation::Conversation;
use crate::limits::{
    EPHEMERAL_FIRST, LINK_BUFFER_BYTES, LINK_OPENING_NS, LINK_RETRY_MAX_NS, LINK_RETRY_MIN_NS,
};
use crate::net::{Nic, Stack};
use crate::tls::{Failure, LinkClient, State};

/// What became of the link in one step.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// The shim has proved who it is.
    Opened,
    /// It did not open, or is over.
    Failed {
        /// Whether it had opened.
        was_open: bool,
        /// The reason, if TLS knows one.
        failure: Option<Failure>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing, until this moment (monotonic nanoseconds).
    Waiting(u64),
    /// TCP, then TLS are being set up, until this moment at the latest.
    Opening(u64),
    /// Requests and answers flow.
    Open,
}

/// The link to the shim.
pub struct Link {
    tls: LinkClient,
    shim: (Ipv4Addr, u16),
    socket: SocketHandle,
    local_port: u16,
    retry_ns: u64,
    phase: Phase,
    /// There unless it is waiting.
    conversation: Option<Conversation>,
}

impl Link {
    /// A link to be, over a socket of `stack`. Its first port follows from `seed`, so that a control plane
    /// that was killed and came back does not meet its predecessor's connections.
    pub fn new<N: Nic>(tls: LinkClient, shim: (Ipv4Addr, u16), stack: &mut Stack<N>, seed: u64) -> Self {
        let [low, high, ..] = seed.to_le_bytes();
        Self {
            tls,
            shim,
            socket: stack.add_socket(LINK_BUFFER_BYTES),
            local_port: EPHEMERAL_FIRST | u16::from_le_bytes([low, high]),
            retry_ns: LINK_RETRY_MIN_NS,
            phase: Phase::Waiting(0),
            conversation: None,
        }
    }

    /// The conversation, while the link is open.
    pub fn conversation(&mut self) -> Option<&mut Conversation> {
        self.conversation.as_mut().filter(|_| self.phase == Phase::Open)
    }

    /// The bytes that wait for the shim.
    pub fn queued(&self) -> usize {
        self.conversation.as_ref().map_or(0, Conversation::queued)
    }

    /// When [`Self::advance`] is due even if nothing happens, in monotonic nanoseconds.
    pub fn deadline(&self) -> Option<u64> {
        match self.phase {
            Phase::Waiting(moment) | Phase::Opening(moment) => Some(moment),
            Phase::Open => None,
        }
    }

    /// Reads what has come. Returns whether there was anything.
    pub fn read<N: Nic>(&mut self, stack: &mut Stack<N>) -> bool {
        self.conversation.as_mut().is_some_and(|conversation| conversation.read(stack.socket(self.socket)))
    }

    /// Hands what is queued to the socket. Returns whether bytes moved.
    pub fn flush<N: Nic>(&mut self, stack: &mut Stack<N>) -> bool {
        self.conversation.as_mut().is_some_and(|conversation| conversation.write(stack.socket(self.socket)))
    }

    /// Connects, opens, gives up: whatever is due.
    pub fn advance<N: Nic>(&mut self, stack: &mut Stack<N>, now_ns: u64) -> Option<Change> {
        let deadline_ns = match self.phase {
            Phase::Waiting(until) if now_ns < until => return None,
            Phase::Waiting(_) => return self.connect(stack, now_ns),
            Phase::Opening(deadline) => deadline,
            Phase::Open => u64::MAX,
        };
        let state = self.conversation.as_ref()?.state();
        let failure = match state {
            State::Failed(failure) => Some(failure.clone()),
            State::Open if self.phase != Phase::Open => {
                self.phase = Phase::Open;
                self.retry_ns = LINK_RETRY_MIN_NS;
                return Some(Change::Opened);
            }
            State::Open | State::Handshaking if !self.tcp_over(stack) && now_ns < deadline_ns => return None,
            _ => None,
        };
        Some(self.fail(failure, stack, now_ns))
    }

    /// Whether the shim can send no more over TCP, and all that it sent was read.
    fn tcp_over<N: Nic>(&self, stack: &mut Stack<N>) -> bool {
        let socket = stack.socket(self.socket);
        socket.state() != tcp::State::SynSent && (!socket.is_active() || !socket.may_recv())
    }

    fn connect<N: Nic>(&mut self, stack: &mut Stack<N>, now_ns: u64) -> Option<Change> {
        self.local_port = EPHEMERAL_FIRST | self.local_port.wrapping_add(1);
        match self.tls.connect() {
            Ok(channel) if stack.connect(self.socket, self.shim, self.local_port) => {
                self.conversation = Some(Conversation::new(channel));
                self.phase = Phase::Opening(now_ns + LINK_OPENING_NS);
                None
            }
            Ok(_) => Some(self.fail(None, stack, now_ns)),
            Err(failure) => Some(self.fail(Some(failure), stack, now_ns)),
        }
    }

    /// Sends the alert, if there is one, and drops the connection.
    fn fail<N: Nic>(&mut self, failure: Option<Failure>, stack: &mut Stack<N>, now_ns: u64) -> Change {
        let was_open = self.phase == Phase::Open;
        self.flush(stack);
        stack.egress(now_ns);
        self.reset(stack, now_ns);
        Change::Failed { was_open, failure }
    }

    /// Drops the connection, if any, at once; the next one is tried after a wait.
    pub fn reset<N: Nic>(&mut self, stack: &mut Stack<N>, now_ns: u64) {
        stack.socket(self.socket).abort();
        // The socket forgets whom to send the reset to when it is used again.
        stack.egress(now_ns);
        self.conversation = None;
        self.phase = Phase::Waiting(now_ns + self.retry_ns);
        self.retry_ns = (self.retry_ns * 2).min(LINK_RETRY_MAX_NS);
    }
}
