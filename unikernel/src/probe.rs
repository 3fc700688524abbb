//! Probes of unikernels: short TCP connections on net "service".
//!
//! The engine says what to try and never has more than a few under way; each has a socket of its own while it lasts.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use petrel_engine::{ProbeId, ProbeKind};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;

use crate::limits::{EPHEMERAL_FIRST, PROBE_ASKS_AFTER_NS, PROBE_BUFFER_BYTES};
use crate::net::{Nic, Stack};

/// The longest beginning of a status line: `HTTP/1.1 200`.
const STATUS_BYTES: usize = 12;

/// The probes under way.
pub struct Probes {
    under_way: Vec<Probe>,
    local_port: u16,
}

/// A probe under way.
struct Probe {
    id: ProbeId,
    socket: SocketHandle,
    to: Ipv4Addr,
    /// When it asks who has that address. smoltcp asks once a second, for one of all that it waits for.
    asks_ns: Option<u64>,
    deadline_ns: u64,
    /// What is still to be sent, if anything is asked for beyond the connection.
    request: Option<String>,
    /// What has come of the answer's status line.
    status: Vec<u8>,
}

impl Probes {
    /// None. The first port follows from `seed`, so that a control plane that came back does not meet its
    /// predecessor's connections.
    pub fn new(seed: u64) -> Self {
        let [_, _, low, high, ..] = seed.to_le_bytes();
        Self { under_way: Vec::new(), local_port: EPHEMERAL_FIRST | u16::from_le_bytes([low, high]) }
    }

    /// Begins a probe. It fails at its deadline if it cannot even be begun.
    pub fn start<N: Nic>(
        &mut self,
        stack: &mut Stack<N>,
        id: ProbeId,
        kind: ProbeKind,
        to: (Ipv4Addr, u16),
        now_ns: u64,
        deadline_ns: u64,
    ) {
        let socket = stack.add_socket(PROBE_BUFFER_BYTES);
        self.local_port = EPHEMERAL_FIRST | self.local_port.wrapping_add(1);
        stack.connect(socket, to, self.local_port);
        let request = match kind {
            ProbeKind::Tcp => None,
            ProbeKind::Http { path } => Some(format!(
                "GET {} HTTP/1.1\r\nHost: {}:{}\r\nUser-Agent: petrel\r\nConnection: close\r\n\r\n",
                &*path, to.0, to.1
            )),
        };
        let asks_ns = Some(now_ns.saturating_add(PROBE_ASKS_AFTER_NS));
        let (to, status) = (to.0, Vec::new());
        self.under_way.push(Probe { id, socket, to, asks_ns, deadline_ns, request, status });
    }

    /// Goes on with all of them. Returns one that has come to its end, and whether it succeeded.
    pub fn advance<N: Nic>(&mut self, stack: &mut Stack<N>, now_ns: u64) -> Option<(ProbeId, bool)> {
        let mut outcomes = self.under_way.iter_mut().map(|probe| probe.advance(stack, now_ns));
        let (index, passed) =
            outcomes.by_ref().enumerate().find_map(|(index, outcome)| Some((index, outcome?)))?;
        let probe = self.under_way.swap_remove(index);
        stack.socket(probe.socket).abort();
        // The reset leaves before the socket does.
        stack.egress(now_ns);
        stack.remove_socket(probe.socket);
        Some((probe.id, passed))
    }

    /// When [`Self::advance`] is due even if nothing happens, in monotonic nanoseconds.
    pub fn deadline(&self) -> Option<u64> {
        let all = self.under_way.iter();
        all.map(|probe| probe.asks_ns.map_or(probe.deadline_ns, |asks| asks.min(probe.deadline_ns))).min()
    }
}

impl Probe {
    /// Whether it succeeded, once that is known.
    fn advance<N: Nic>(&mut self, stack: &mut Stack<N>, now_ns: u64) -> Option<bool> {
        let socket = stack.socket(self.socket);
        if now_ns >= self.deadline_ns || !socket.is_active() {
            return Some(false);
        }
        if matches!(socket.state(), tcp::State::SynSent | tcp::State::SynReceived) {
            if self.asks_ns.take_if(|asks_ns| now_ns >= *asks_ns).is_some() {
                stack.ask(self.to);
            }
            return None;
        }
        self.asks_ns = None;
        let Some(request) = &mut self.request else { return Some(true) };
        if !request.is_empty() {
            let sent = socket.send_slice(request.as_bytes()).unwrap_or(0);
            request.drain(..sent);
        }
        let left = STATUS_BYTES.saturating_sub(self.status.len());
        let status = &mut self.status;
        let _ = socket.recv(|bytes| {
            let taken = bytes.len().min(left);
            status.extend(bytes.iter().take(taken));
            (taken, ())
        });
        match self.status.len() == STATUS_BYTES {
            true => Some(is_well(&self.status)),
            false => (!socket.may_recv()).then_some(false),
        }
    }
}

/// Whether an answer that begins so has a status of 200 to 399.
fn is_well(status: &[u8]) -> bool {
    let text = core::str::from_utf8(status).unwrap_or_default();
    let code = text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..)).and_then(|code| code.parse().ok());
    code.is_some_and(|code: u16| (200..400).contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{CableEnd, cable};

    const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
    const SECOND_NS: u64 = 1_000_000_000;

    /// What a unikernel does with a connection to its port 80.
    #[derive(Clone, Copy, PartialEq)]
    enum Does {
        Refuse,
        Accept,
        Answer(&'static [u8]),
        Close,
    }

    /// A control plane's network and that of a unikernel.
    struct World {
        ours: Stack<CableEnd>,
        theirs: Stack<CableEnd>,
        probes: Probes,
        now_ns: u64,
        heard: Vec<u8>,
    }

    impl World {
        fn new() -> Self {
            let (ours, theirs) = cable();
            Self {
                ours: Stack::new(ours, (OURS, 24), None, 1, 0),
                theirs: Stack::new(theirs, (THEIRS, 24), None, 2, 0),
                probes: Probes::new(7),
                now_ns: SECOND_NS,
                heard: Vec::new(),
            }
        }

        /// One probe of a unikernel that does this, to its end.
        fn probe(&mut self, kind: ProbeKind, does: Does) -> (bool, u64) {
            self.begin(kind);
            self.finish(does)
        }

        fn begin(&mut self, kind: ProbeKind) {
            let deadline_ns = self.now_ns + 2 * SECOND_NS;
            self.probes.start(&mut self.ours, ProbeId(1), kind, (THEIRS, 80), self.now_ns, deadline_ns);
        }

        fn finish(&mut self, does: Does) -> (bool, u64) {
            let socket = self.theirs.add_socket(4096);
            if does != Does::Refuse {
                self.theirs.socket(socket).listen(80).unwrap();
            }
            let begin_ns = self.now_ns;
            loop {
                if let Some((id, passed)) = self.probes.advance(&mut self.ours, self.now_ns) {
                    assert_eq!((id, self.probes.deadline()), (ProbeId(1), None));
                    self.theirs.remove_socket(socket);
                    return (passed, (self.now_ns - begin_ns) / SECOND_NS);
                }
                for stack in [&mut self.ours, &mut self.theirs] {
                    stack.egress(self.now_ns);
                    while stack.ingress(self.now_ns, 1) {}
                }
                self.serve(socket, does);
                self.now_ns += 10_000_000;
            }
        }

        fn serve(&mut self, socket: SocketHandle, does: Does) {
            let socket = self.theirs.socket(socket);
            let _ = socket.recv(|bytes| (bytes.len(), self.heard.extend_from_slice(bytes)));
            match does {
                Does::Answer(bytes) if socket.may_send() && !self.heard.is_empty() => {
                    socket.send_slice(bytes).unwrap();
                    socket.close();
                }
                Does::Close if socket.may_send() => socket.close(),
                _ => {}
            }
        }
    }

    fn get() -> ProbeKind {
        ProbeKind::Http { path: "/health?a=1".parse().unwrap() }
    }

    #[test]
    fn a_port_that_is_listened_at_answers_a_tcp_probe() {
        assert_eq!(World::new().probe(ProbeKind::Tcp, Does::Accept), (true, 0));
        assert_eq!(World::new().probe(ProbeKind::Tcp, Does::Refuse), (false, 0));
    }

    #[test]
    fn a_status_answers_an_http_probe_and_nothing_else_does() {
        for (does, passed) in [
            (Does::Answer(b"HTTP/1.1 204 No Content\r\n\r\n"), true),
            (Does::Answer(b"HTTP/1.1 503 Busy\r\n\r\nHTTP/1.1 200"), false),
            (Does::Answer(b"HTTP/1.1"), false),
            (Does::Close, false),
            (Does::Refuse, false),
        ] {
            let mut world = World::new();
            assert_eq!(world.probe(get(), does), (passed, 0));
            if let Does::Answer(_) = does {
                let heard = core::str::from_utf8(&world.heard).unwrap();
                assert!(heard.starts_with("GET /health?a=1 HTTP/1.1\r\nHost: 10.0.0.9:80\r\n"), "{heard}");
                assert!(heard.ends_with("\r\n\r\n"), "{heard}");
            }
        }
    }

    #[test]
    fn silence_is_an_answer_when_the_time_is_over() {
        assert_eq!(World::new().probe(get(), Does::Accept), (false, 2));
        let mut world = World::new();
        // Nobody has this address.
        world.theirs = Stack::new(cable().0, (THEIRS, 24), None, 2, 0);
        assert_eq!(world.probe(ProbeKind::Tcp, Does::Accept), (false, 2));
    }

    #[test]
    fn a_unikernel_that_comes_up_while_it_is_probed_answers_at_once() {
        let (ours, mut theirs) = cable();
        let mut world = World { ours: Stack::new(ours, (OURS, 24), None, 1, 0), ..World::new() };
        world.begin(ProbeKind::Tcp);
        world.ours.egress(world.now_ns);
        // Who asks for its hardware address now, asks nobody.
        while theirs.receive(&mut [0; 1514]).is_some() {}
        world.theirs = Stack::new(theirs, (THEIRS, 24), None, 2, 0);
        assert_eq!(world.finish(Does::Accept), (true, 0));
    }

    #[test]
    fn many_neighbours_that_are_not_known_yet_are_probed_at_once() {
        let (ours, mut theirs) = cable();
        let mut world = World { ours: Stack::new(ours, (OURS, 24), None, 1, 0), ..World::new() };
        let mut unknown: Vec<_> = (100..116).map(|host| Ipv4Addr::new(10, 0, 0, host)).collect();
        for (number, &address) in (1..).zip(&unknown) {
            let (now_ns, to) = (world.now_ns, (address, 80));
            let deadline_ns = now_ns + 2 * SECOND_NS;
            world.probes.start(&mut world.ours, ProbeId(number), ProbeKind::Tcp, to, now_ns, deadline_ns);
        }
        let mut frame = [0; 1514];
        while !unknown.is_empty() {
            assert_eq!(world.probes.advance(&mut world.ours, world.now_ns), None, "{unknown:?}");
            world.ours.egress(world.now_ns);
            while let Some(len) = theirs.receive(&mut frame) {
                match frame[12..14] {
                    [0x08, 0x06] => theirs.transmit(&arp_reply(&frame[..len])),
                    _ => unknown.retain(|address| address.octets() != frame[30..34]),
                }
            }
            while world.ours.ingress(world.now_ns, 1) {}
            world.now_ns += 10_000_000;
        }
    }

    /// To whoever asks for anybody's hardware address.
    fn arp_reply(question: &[u8]) -> Vec<u8> {
        let mac = [2, 0, 0, 0, 0, 9];
        let mut reply = question.to_vec();
        let (header, packet) = reply.split_at_mut(14);
        header[..6].copy_from_slice(&question[6..12]);
        header[6..12].copy_from_slice(&mac);
        packet[7] = 2;
        packet[8..14].copy_from_slice(&mac);
        packet[14..18].copy_from_slice(&question[38..42]);
        packet[18..28].copy_from_slice(&question[22..32]);
        reply
    }

    #[test]
    fn a_status_is_read_from_its_line() {
        for (line, well) in [
            ("HTTP/1.1 200", true),
            ("HTTP/1.0 399", true),
            ("HTTP/1.1 404", false),
            ("HTTP/1.1 199", false),
            ("HTTP/1.1 2x0", false),
            ("SSH-2.0-abcd", false),
        ] {
            assert_eq!(is_well(line.as_bytes()), well, "{line}");
        }
        assert!(!is_well(&[0xff; 12]));
    }
}
