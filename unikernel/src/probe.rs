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

use crate::limits::{EPHEMERAL_FIRST, PROBE_BUFFER_BYTES};
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
        self.under_way.push(Probe { id, socket, deadline_ns, request, status: Vec::new() });
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
        self.under_way.iter().map(|probe| probe.deadline_ns).min()
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
            return None;
        }
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
