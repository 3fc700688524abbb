//! The operators' sockets and the sessions on them.

use alloc::vec::Vec;

use petrel_engine::SessionId;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;

use crate::limits::{LISTENING, PLACES_MAX, SESSION_BUFFER_BYTES};
use crate::net::{Nic, Stack};
use crate::session::Session;

/// A socket, which listens while there is no session on it.
pub struct Place {
    /// The socket.
    pub socket: SocketHandle,
    /// The session, from its first packet on.
    pub session: Option<Session>,
}

impl Place {
    /// Gives up its session, with a reset if there is still somebody to send it to.
    pub fn vacate<N: Nic>(&mut self, stack: &mut Stack<N>, now_ns: u64) {
        let socket = stack.socket(self.socket);
        if socket.is_active() {
            socket.abort();
        }
        self.session = None;
        // The socket forgets whom to send the reset to when it listens again.
        stack.egress(now_ns);
    }
}

/// At most [`PLACES_MAX`] places. A session's number is that of its place.
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
    pub fn keep_listening<N: Nic>(&mut self, stack: &mut Stack<N>, now_ns: u64) {
        let mut busy = self.places.iter().filter(|place| place.session.is_some()).count();
        if busy == PLACES_MAX && self.make_room(stack, now_ns) {
            busy -= 1;
        }
        let idle = LISTENING.min(PLACES_MAX - busy);
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

    /// Gives up who has the least time left of those on their way in or out: strangers who say nothing, or whose first
    /// packet was forged, take places from each other, and from no operator who is quicker than all of them.
    /// Whether there was anybody.
    fn make_room<N: Nic>(&mut self, stack: &mut Stack<N>, now_ns: u64) -> bool {
        let deadline = |place: &Place| place.session.as_ref().and_then(Session::deadline);
        let passing = self.places.iter_mut().filter(|place| deadline(place).is_some());
        passing.min_by_key(|place| deadline(place)).map(|place| place.vacate(stack, now_ns)).is_some()
    }
}
