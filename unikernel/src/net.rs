//! One network device with its addresses and its TCP sockets. smoltcp's interface is used nowhere else.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{self, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, HardwareAddress,
    IpCidr, Ipv4Cidr,
};
use solo5::ethernet::announcement;

const ETHERNET_HEADER_BYTES: usize = 14;
/// The least MTU that IPv4 allows a network to have: RFC 791.
const MTU_MIN: usize = 576;
/// An idle connection is probed this often...
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// ...and one whose peer stays silent so long is over.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A network device, as Solo5 has them.
pub trait Nic {
    /// Its hardware address.
    fn mac(&self) -> [u8; 6];
    /// The largest IP packet that it carries, in bytes.
    fn mtu(&self) -> usize;
    /// Copies the next frame that came in, if there is one, to the start of `frame` and returns its length.
    fn receive(&mut self, frame: &mut [u8]) -> Option<usize>;
    /// Sends a frame, or drops it where the device cannot take it: TCP sends it again.
    fn transmit(&mut self, frame: &[u8]);
}

/// Monotonic nanoseconds as smoltcp counts time.
pub fn instant(monotonic_ns: u64) -> Instant {
    Instant::from_micros(i64::try_from(monotonic_ns / 1000).unwrap_or(i64::MAX))
}

/// A device, its addresses, its sockets.
pub struct Stack<N: Nic> {
    device: Device<N>,
    interface: Interface,
    sockets: SocketSet<'static>,
}

impl<N: Nic> Stack<N> {
    /// Puts `nic` to use under the address `ipv4` (with its prefix length), and tells its network.
    ///
    /// `seed` makes sequence numbers hard to guess; it must differ from boot to boot.
    pub fn new(nic: N, ipv4: (Ipv4Addr, u8), gateway: Option<Ipv4Addr>, seed: u64, now_ns: u64) -> Self {
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(nic.mac())));
        config.random_seed = seed;
        let mut device = Device::new(nic, ipv4.0);
        let mut interface = Interface::new(config, &mut device, instant(now_ns));
        // Both tables have room for one entry, so neither push can fail.
        interface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(ipv4.0, ipv4.1.min(32))));
        });
        if let Some(gateway) = gateway {
            let _ = interface.routes_mut().add_default_ipv4_route(gateway);
        }
        device.nic.transmit(&announcement(EthernetAddress(device.nic.mac()), ipv4.0));
        Self { device, interface, sockets: SocketSet::new(Vec::new()) }
    }

    /// A new closed socket with buffers of `buffer_bytes` each way, set up for requests and answers: what is
    /// written leaves at once, what comes is acknowledged at once, and a dead peer is noticed.
    pub fn add_socket(&mut self, buffer_bytes: usize) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(alloc::vec![0; buffer_bytes]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        socket.set_keep_alive(Some(KEEP_ALIVE));
        socket.set_timeout(Some(SILENCE_MAX));
        self.sockets.add(socket)
    }

    /// Forgets a socket.
    pub fn remove_socket(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
    }

    /// A socket of this stack.
    pub fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Begins to connect a closed socket. False if smoltcp sees no way to.
    pub fn connect(&mut self, handle: SocketHandle, to: (Ipv4Addr, u16), local_port: u16) -> bool {
        let socket = self.sockets.get_mut::<tcp::Socket>(handle);
        socket.connect(self.interface.context(), to, local_port).is_ok()
    }

    /// Takes in at most `frames_max` frames. False when the device had fewer.
    pub fn ingress(&mut self, now_ns: u64, frames_max: usize) -> bool {
        let now = instant(now_ns);
        (0..frames_max).all(|_| {
            let result = self.interface.poll_ingress_single(now, &mut self.device, &mut self.sockets);
            result != PollIngressSingleResult::None
        })
    }

    /// Sends what the sockets have to send: data, acknowledgements, probes.
    pub fn egress(&mut self, now_ns: u64) {
        let now = instant(now_ns);
        while self.interface.poll_egress(now, &mut self.device, &mut self.sockets) != PollResult::None {}
    }

    /// When [`Self::egress`] is due even if nothing happens, in monotonic nanoseconds.
    pub fn poll_at(&mut self, now_ns: u64) -> Option<u64> {
        let at = self.interface.poll_at(instant(now_ns), &self.sockets)?;
        // Rounded up: `now` in microseconds is rounded down, and too early is a turn for nothing.
        Some(u64::try_from(at.total_micros()).unwrap_or(0).saturating_add(1).saturating_mul(1000))
    }
}

/// A [`Nic`] with a buffer for each direction, as smoltcp wants it.
struct Device<N> {
    nic: N,
    address: Ipv4Addr,
    received: Vec<u8>,
    sent: Vec<u8>,
}

impl<N: Nic> Device<N> {
    fn new(nic: N, address: Ipv4Addr) -> Self {
        let frame_bytes = nic.mtu().max(MTU_MIN) + ETHERNET_HEADER_BYTES;
        Self { nic, address, received: alloc::vec![0; frame_bytes], sent: alloc::vec![0; frame_bytes] }
    }
}

/// Makes of an announcement (RFC 5227, section 2.3) an answer to us. smoltcp takes no notice of announcements, and asks
/// no more than once a second: a probe that came before its unikernel was there would wait that long.
fn heed_announcement(frame: &mut [u8], ours: Ipv4Addr) {
    let Ok(mut frame) = EthernetFrame::new_checked(frame) else { return };
    if frame.ethertype() != EthernetProtocol::Arp {
        return;
    }
    let Ok(mut packet) = ArpPacket::new_checked(frame.payload_mut()) else { return };
    let Ok(mut arp) = ArpRepr::parse(&packet) else { return };
    if let ArpRepr::EthernetIpv4 { operation, source_protocol_addr, target_protocol_addr, .. } = &mut arp
        && source_protocol_addr == target_protocol_addr
    {
        (*operation, *target_protocol_addr) = (ArpOperation::Reply, ours);
        arp.emit(&mut packet);
    }
}

impl<N: Nic> phy::Device for Device<N> {
    type RxToken<'a>
        = Received<'a>
    where
        N: 'a;
    type TxToken<'a>
        = Sending<'a, N>
    where
        N: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sending<'_, N>)> {
        let length = self.nic.receive(&mut self.received)?;
        let frame = self.received.get_mut(..length)?;
        heed_announcement(frame, self.address);
        Some((Received(frame), Sending { nic: &mut self.nic, buffer: &mut self.sent }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_, N>> {
        Some(Sending { nic: &mut self.nic, buffer: &mut self.sent })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.sent.len();
        capabilities.checksum = ChecksumCapabilities::default();
        capabilities
    }
}

struct Received<'a>(&'a [u8]);

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

struct Sending<'a, N> {
    nic: &'a mut N,
    buffer: &'a mut [u8],
}

impl<N: Nic> phy::TxToken for Sending<'_, N> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        // smoltcp keeps to `max_transmission_unit`, which is the buffer's length.
        let frame = &mut self.buffer[..length];
        let result = write(frame);
        self.nic.transmit(frame);
        result
    }
}
