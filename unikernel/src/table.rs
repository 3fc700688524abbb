//! The operators' sockets and the sessions on them.

use alloc::vec::Vec;

use petrel_engine::SessionId;
use petrel_wire::limits::SESSIONS_MAX;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;

use crate::limits::{LISTENING, SESSION_BUFFER_BYTES};
use crate::net::{Nic, Stack};
use crate::session::Session;

/// A socket, which listens while there is no session on it.
pub struct Place {
    /// The socket.
    pub socket: SocketHandle,
    /// The session, from its first packet on.
    pub session: Option<Session>,
}

/// The places of at most [`SESSIONS_MAX`] sessions. A session's number is that of its place.
pub struct Table {
    port: u16,
    places: Vec<Place>,
}

impl Table {
    /// An empty table, for connections to this port.
    pub fn new(port: u16) -> Self {
        Self { port, places: Vec::new() }
    }

    /// How many places there are.
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// A place; `index` is less than [`Self::count`].
    pub fn place(&mut self, index: usize) -> &mut Place {
        &mut self.places[index]
    }

    /// The session at a place, with its socket.
    pub fn session<'a, N: Nic>(
        &'a mut self,
        index: usize,
        stack: &'a mut Stack<N>,
    ) -> Option<(&'a mut Session, &'a mut tcp::Socket<'static>)> {
        let place = &mut self.places[index];
        place.session.as_mut().map(|session| (session, stack.socket(place.socket)))
    }

    /// A session that the engine knows.
    pub fn open_session(&mut self, id: SessionId) -> Option<&mut Session> {
        let index = usize::try_from(id.0).ok()?;
        self.places.get_mut(index)?.session.as_mut().filter(|session| session.is_open())
    }

    /// When a session must be looked at even if nothing happens, in monotonic nanoseconds.
    pub fn deadline(&self) -> Option<u64> {
        self.places.iter().filter_map(|place| place.session.as_ref()?.deadline()).min()
    }

    /// Sees to it that some sockets listen, as long as there is room, and that not many more do.
    pub fn keep_listening<N: Nic>(&mut self, stack: &mut Stack<N>) {
        let busy = self.places.iter().filter(|place| place.session.is_some()).count();
        let idle = LISTENING.min(SESSIONS_MAX - busy);
        while self.places.len() < busy + idle {
            let socket = stack.add_socket(SESSION_BUFFER_BYTES);
            self.places.push(Place { socket, session: None });
        }
        // Only from the end: a place keeps its number.
        while self.places.len() > busy + idle && self.places.last().is_some_and(|last| last.session.is_none())
        {
            if let Some(last) = self.places.pop() {
                stack.remove_socket(last.socket);
            }
        }
        for place in self.places.iter().filter(|place| place.session.is_none()) {
            let socket = stack.socket(place.socket);
            if !socket.is_open() {
                // Fails for port 0 only, which the seal's reader refuses.
                let _ = socket.listen(self.port);
            }
        }
    }
}
