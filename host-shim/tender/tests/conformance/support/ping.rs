//! A ping flood: ICMP echo requests as fast as the answers come back.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, ipproto};

/// Requests on the way at one time; the others wait for answers. Well below a tap's queue (500 frames).
const WINDOW: u64 = 64;
/// After this long without an answer, those on the way count as lost and are sent again.
const LOST_AFTER: Duration = Duration::from_millis(100);

/// Length of an IPv4 header without options, which a raw socket puts before every message.
const IPV4_HEADER: usize = 20;
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;

/// A flood that goes on until it has its answers or is stopped.
pub struct Flood {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Flood {
    /// Floods `target` from a thread of its own until `count` answers came back.
    pub fn start(target: Ipv4Addr, count: u64) -> Flood {
        let raw = rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP))
            .expect("root of a network namespace may open a raw socket");
        // UdpSocket's send and recv are the plain system calls, which is all that is wanted here.
        let socket = UdpSocket::from(raw);
        socket.connect((target, 0)).expect("the tap's address gives a route");
        socket.set_read_timeout(Some(LOST_AFTER)).expect("a timeout above zero");
        let stop = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(AtomicU64::new(0));
        let (stopped, answered) = (stop.clone(), answers.clone());
        let thread = thread::spawn(move || flood(&socket, count, &answered, &stopped));
        Flood { stop, answers, thread }
    }

    /// How many answers came up to now.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Whether it has its answers.
    pub fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the flood and returns how many answers came.
    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the flood does not panic");
        self.answers.load(Ordering::Relaxed)
    }
}

fn flood(socket: &UdpSocket, count: u64, answered: &AtomicU64, stopped: &AtomicBool) {
    let mut answers = 0;
    let mut on_the_way = 0;
    let mut packet = [0; 256];
    while answers < count && !stopped.load(Ordering::Relaxed) {
        while on_the_way < WINDOW.min(count - answers) {
            // Before the guest is up there is nobody to send to: as good as lost.
            let _ = socket.send(&echo_request());
            on_the_way += 1;
        }
        match socket.recv(&mut packet) {
            Ok(len) if packet[..len].get(IPV4_HEADER) == Some(&ECHO_REPLY) => {
                answers += 1;
                answered.store(answers, Ordering::Relaxed);
                on_the_way = on_the_way.saturating_sub(1);
            }
            Ok(_) => {}
            Err(_) => on_the_way = 0,
        }
    }
}

/// 64 bytes as from ping, all zero but type and checksum.
fn echo_request() -> [u8; 64] {
    let mut message = [0; 64];
    message[0] = ECHO_REQUEST;
    // RFC 1071: the one's complement of the sum, and the sum is the only word that is not zero.
    message[2..4].copy_from_slice(&(!u16::from_be_bytes([ECHO_REQUEST, 0])).to_be_bytes());
    message
}
