//! One network device with its addresses and its TCP sockets. smoltcp's interface is used nowhere else.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use petrel_wire::Label;
use petrel_wire::operator::Address;
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::{Socket, dhcpv4, tcp};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{DhcpOption, EthernetAddress, HardwareAddress, IpCidr, Ipv4Cidr};
use solo5::ethernet::Ethernet;
pub use solo5::ethernet::Nic;

/// An idle connection is probed this often...
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// ...and one whose peer stays silent so long is over.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// A DHCP server that does not answer is asked again this often.
const DISCOVER_EVERY: Duration = Duration::from_secs(4);
/// The client's name, which many servers tell their network's DNS: RFC 2132, section 3.14.
const DHCP_HOST_NAME: u8 = 12;

/// Monotonic nanoseconds as smoltcp counts time.
pub fn instant(monotonic_ns: u64) -> Instant {
    Instant::from_micros(i64::try_from(monotonic_ns / 1000).unwrap_or(i64::MAX))
}

/// A device, its address, its sockets.
pub struct Stack<N: Nic> {
    device: Ethernet<N>,
    interface: Interface,
    sockets: SocketSet<'static>,
    address: Option<Address>,
    /// What asks for an address where none is set.
    dhcp: Option<SocketHandle>,
    /// Whether it has been told what the address is at the start.
    is_told: bool,
}

/// What became of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressChange {
    /// What it was.
    pub before: Option<Address>,
    /// What it is.
    pub now: Option<Address>,
}

impl<N: Nic> Stack<N> {
    /// Puts `nic` to use under the address `ipv4` (with its prefix length), and tells its network.
    ///
    /// `seed` makes sequence numbers hard to guess; it must differ from boot to boot.
    pub fn new(nic: N, ipv4: (Ipv4Addr, u8), gateway: Option<Ipv4Addr>, seed: u64, now_ns: u64) -> Self {
        let mut stack = Self::without_address(nic, seed, now_ns);
        let (address, prefix) = ipv4;
        stack.set_address(
            Some(Address { ipv4: (address, prefix.min(32)), gateway, is_leased: false }),
            now_ns,
        );
        stack
    }

    /// Puts `nic` to use under the addresses that DHCP servers lease to a host of this name.
    pub fn with_dhcp(nic: N, host: &Label, seed: u64, now_ns: u64) -> Self {
        let mut stack = Self::without_address(nic, seed, now_ns);
        let mut socket = dhcpv4::Socket::new();
        let mut retry = socket.get_retry_config();
        retry.discover_timeout = DISCOVER_EVERY;
        socket.set_retry_config(retry);
        // For as long as the control plane is there, of which a machine has one.
        let name = Box::leak(Box::<[u8]>::from(host.as_bytes()));
        socket.set_outgoing_options(Box::leak(Box::new([DhcpOption { kind: DHCP_HOST_NAME, data: name }])));
        stack.dhcp = Some(stack.sockets.add(socket));
        stack
    }

    fn without_address(nic: N, seed: u64, now_ns: u64) -> Self {
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(nic.mac())));
        config.random_seed = seed;
        let mut device = Ethernet::new(nic);
        let interface = Interface::new(config, &mut device, instant(now_ns));
        let sockets = SocketSet::new(Vec::new());
        Self { device, interface, sockets, address: None, dhcp: None, is_told: false }
    }

    /// What has become of the address since this was last asked, if anything: at first, what it is.
    pub fn address_change(&mut self, now_ns: u64) -> Option<AddressChange> {
        let before = self.address;
        if let Some(leased) = self.lease()
            && leased != before
        {
            self.set_address(leased, now_ns);
        }
        let is_news = self.address != before || !self.is_told;
        let before = before.filter(|_| self.is_told);
        self.is_told = true;
        is_news.then_some(AddressChange { before, now: self.address })
    }

    /// What DHCP gives now, if that is another than before.
    fn lease(&mut self) -> Option<Option<Address>> {
        let socket = self.sockets.get_mut::<dhcpv4::Socket>(self.dhcp?);
        Some(match socket.poll()? {
            dhcpv4::Event::Configured(config) => Some(Address {
                ipv4: (config.address.address(), config.address.prefix_len()),
                // smoltcp takes it as it comes, and cannot send to what is no machine.
                gateway: config.router.filter(|router| is_machine(*router)),
                is_leased: true,
            }),
            dhcpv4::Event::Deconfigured => None,
        })
    }

    fn set_address(&mut self, address: Option<Address>, now_ns: u64) {
        if self.address.map(|address| address.ipv4) != address.map(|address| address.ipv4) {
            self.end_connections(now_ns);
        }
        // Both tables have room for one entry, so neither push can fail.
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            if let Some(Address { ipv4: (address, prefix), .. }) = address {
                let _ = addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(address, prefix)));
            }
        });
        let routes = self.interface.routes_mut();
        routes.remove_default_ipv4_route();
        if let Some(gateway) = address.and_then(|address| address.gateway) {
            let _ = routes.add_default_ipv4_route(gateway);
        }
        if let Some(Address { ipv4: (address, _), .. }) = address {
            self.device.announce(address);
        }
        self.address = address;
    }

    /// Resets all connections, while the address that they are from is still there to say so.
    fn end_connections(&mut self, now_ns: u64) {
        for (_, socket) in self.sockets.iter_mut() {
            if let Socket::Tcp(socket) = socket
                && socket.remote_endpoint().is_some()
            {
                socket.abort();
            }
        }
        self.egress(now_ns);
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

    /// Asks who has an address, if it is one of this network's.
    pub fn ask(&mut self, address: Ipv4Addr) {
        if self.interface.ip_addrs().iter().any(|own| own.contains_addr(&address.into())) {
            self.device.ask(address);
        }
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

/// Whether an address can be a single machine's.
fn is_machine(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_multicast() || address.is_broadcast())
}
