//! A network device as the link layer of smoltcp's TCP/IP stack.
//!
//! smoltcp learns who has an IP address only from ARP packets meant for it, and asks no more than once a second, whoever
//! it asks for. A stack that has just come up, or whose peer has, would so be silent for up to a second. What frames tell
//! besides is therefore put before it as ARP answers: from announcements, and from the beginnings of TCP connections.
//! It believes no more by that than it did: whoever could send these could send the answers.

use crate::Net;
use crate::limits::{ETHERNET_HEADER_BYTES, MTU_MIN};
use alloc::vec;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
    IpProtocol, Ipv4Packet, TcpPacket,
};

/// Bytes of a frame with an ARP packet for IPv4: RFC 826.
const ARP_FRAME: usize = 42;

/// A network device, as Solo5 has them.
///
/// smoltcp has no word for a device that fails, so a frame that cannot be read or written is a frame lost, which its
/// protocols mend or report.
pub trait Nic {
    /// Its hardware address.
    fn mac(&self) -> [u8; 6];
    /// The largest IP packet that it carries, in bytes.
    fn mtu(&self) -> usize;
    /// Copies the next frame that came in, if there is one, to the start of `frame` and returns its length.
    fn receive(&mut self, frame: &mut [u8]) -> Option<usize>;
    /// Sends a frame, or drops it where the device cannot take it.
    fn transmit(&mut self, frame: &[u8]);
}

impl Nic for Net {
    fn mac(&self) -> [u8; 6] {
        Self::mac(self)
    }

    fn mtu(&self) -> usize {
        Self::mtu(self)
    }

    fn receive(&mut self, frame: &mut [u8]) -> Option<usize> {
        self.read(frame).ok()?
    }

    fn transmit(&mut self, frame: &[u8]) {
        let _ = self.write(frame);
    }
}

/// A network device with room for a frame each way.
pub struct Ethernet<N = Net> {
    nic: N,
    address: Ipv4Addr,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// What is put before the incoming frame, which then is as long as this.
    introduction: [u8; ARP_FRAME],
    held: Option<usize>,
}

/// Who has which address.
type Neighbor = (EthernetAddress, Ipv4Addr);

impl<N: Nic> Ethernet<N> {
    /// The link layer over `nic`.
    pub fn new(nic: N) -> Self {
        let frame = vec![0; nic.mtu().max(MTU_MIN) + ETHERNET_HEADER_BYTES];
        let (incoming, outgoing) = (frame.clone(), frame);
        Self { nic, address: Ipv4Addr::UNSPECIFIED, incoming, outgoing, introduction: [0; _], held: None }
    }

    /// Tells its network that it has come up under `address` (RFC 5227, section 2.3): who asked for that in vain, or
    /// knows a predecessor's hardware address, need not wait until they ask again.
    pub fn announce(&mut self, address: Ipv4Addr) {
        self.address = address;
        self.ask(address);
    }

    /// Asks its network who has `address`, whatever smoltcp asks.
    pub fn ask(&mut self, address: Ipv4Addr) {
        let nobody = (EthernetAddress([0; 6]), address);
        let frame = arp(ArpOperation::Request, self.ours(), nobody, EthernetAddress::BROADCAST);
        self.nic.transmit(&frame);
    }

    fn ours(&self) -> Neighbor {
        (EthernetAddress(self.nic.mac()), self.address)
    }
}

/// A frame with an ARP packet.
fn arp(operation: ArpOperation, source: Neighbor, target: Neighbor, to: EthernetAddress) -> [u8; ARP_FRAME] {
    let header = EthernetRepr { src_addr: source.0, dst_addr: to, ethertype: EthernetProtocol::Arp };
    let packet = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: source.0,
        source_protocol_addr: source.1,
        target_hardware_addr: target.0,
        target_protocol_addr: target.1,
    };
    let mut bytes = [0; ARP_FRAME];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    header.emit(&mut frame);
    packet.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    bytes
}

/// What is done about a frame beyond giving it to smoltcp.
enum Care {
    /// It introduces somebody whom smoltcp would not come to know by it.
    Introduce(Neighbor),
    /// Its packet is from no address. Only those who have none yet send such, to servers that we are not; smoltcp would take
    /// the nameless for a server and fail when it is to answer it.
    Drop,
}

fn care(frame: &[u8]) -> Option<Care> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    match frame.ethertype() {
        EthernetProtocol::Arp => {
            let packet = ArpPacket::new_checked(frame.payload()).ok()?;
            let ArpRepr::EthernetIpv4 {
                source_hardware_addr,
                source_protocol_addr,
                target_protocol_addr,
                ..
            } = ArpRepr::parse(&packet).ok()?
            else {
                return None;
            };
            let announces = source_protocol_addr == target_protocol_addr;
            announces.then_some(Care::Introduce((source_hardware_addr, source_protocol_addr)))
        }
        EthernetProtocol::Ipv4 => {
            let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
            if packet.src_addr().is_unspecified() {
                return Some(Care::Drop);
            }
            let is_tcp = packet.next_header() == IpProtocol::Tcp;
            let segment = TcpPacket::new_checked(packet.payload()).ok().filter(|_| is_tcp)?;
            let begins = segment.syn() && !segment.ack();
            begins.then_some(Care::Introduce((frame.src_addr(), packet.src_addr())))
        }
        _ => None,
    }
}

/// A frame that has come in.
pub struct Incoming<'a>(&'a [u8]);

/// The right to send a frame.
pub struct Outgoing<'a, N> {
    nic: &'a mut N,
    frame: &'a mut [u8],
}

impl phy::RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl<N: Nic> phy::TxToken for Outgoing<'_, N> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        // smoltcp asks for no more than the capabilities say, so the frame has room.
        let frame = &mut self.frame[..len];
        let result = f(frame);
        self.nic.transmit(frame);
        result
    }
}

impl<N: Nic> Device for Ethernet<N> {
    type RxToken<'a>
        = Incoming<'a>
    where
        N: 'a;
    type TxToken<'a>
        = Outgoing<'a, N>
    where
        N: 'a;

    fn receive(&mut self, _now: Instant) -> Option<(Incoming<'_>, Outgoing<'_, N>)> {
        let frame = if let Some(len) = self.held.take() {
            self.incoming.get(..len)?
        } else {
            let len = self.nic.receive(&mut self.incoming)?;
            let frame = self.incoming.get(..len)?;
            match care(frame) {
                Some(Care::Introduce(neighbor)) => {
                    let ours = self.ours();
                    self.introduction = arp(ArpOperation::Reply, neighbor, ours, ours.0);
                    self.held = Some(len);
                    &self.introduction[..]
                }
                Some(Care::Drop) => &[],
                None => frame,
            }
        };
        Some((Incoming(frame), Outgoing { nic: &mut self.nic, frame: &mut self.outgoing }))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Outgoing<'_, N>> {
        Some(Outgoing { nic: &mut self.nic, frame: &mut self.outgoing })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.outgoing.len();
        capabilities
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::VecDeque;
    use smoltcp::phy::{ChecksumCapabilities, RxToken};
    use smoltcp::wire::{Ipv4Repr, TcpControl, TcpRepr, TcpSeqNumber};

    const OURS: Neighbor = (EthernetAddress([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(10, 0, 0, 1));
    const THEIRS: Neighbor = (EthernetAddress([2, 0, 0, 0, 0, 2]), Ipv4Addr::new(10, 0, 0, 2));
    const NOBODY: EthernetAddress = EthernetAddress([0; 6]);

    /// A device that some frames have come to.
    struct Wire(VecDeque<Vec<u8>>);

    impl Nic for Wire {
        fn mac(&self) -> [u8; 6] {
            OURS.0.0
        }

        fn mtu(&self) -> usize {
            1500
        }

        fn receive(&mut self, frame: &mut [u8]) -> Option<usize> {
            let bytes = self.0.pop_front()?;
            frame[..bytes.len()].copy_from_slice(&bytes);
            Some(bytes.len())
        }

        fn transmit(&mut self, _: &[u8]) {}
    }

    /// What smoltcp sees of a frame.
    fn seen(frame: &[u8]) -> Vec<Vec<u8>> {
        let mut ethernet = Ethernet::new(Wire([frame.to_vec()].into()));
        ethernet.announce(OURS.1);
        let next = || ethernet.receive(Instant::ZERO).map(|(frame, _)| frame.consume(<[u8]>::to_vec));
        core::iter::from_fn(next).collect()
    }

    /// A segment from them to us.
    fn segment(control: TcpControl, ack_number: Option<TcpSeqNumber>) -> Vec<u8> {
        let tcp = TcpRepr {
            src_port: 1025,
            dst_port: 80,
            control,
            seq_number: TcpSeqNumber(1),
            ack_number,
            window_len: 1,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        };
        let ip = Ipv4Repr {
            src_addr: THEIRS.1,
            dst_addr: OURS.1,
            next_header: IpProtocol::Tcp,
            payload_len: tcp.buffer_len(),
            hop_limit: 64,
        };
        let header = EthernetRepr { src_addr: THEIRS.0, dst_addr: OURS.0, ethertype: EthernetProtocol::Ipv4 };
        let mut bytes = vec![0; ETHERNET_HEADER_BYTES + ip.buffer_len() + tcp.buffer_len()];
        let sums = ChecksumCapabilities::default();
        let mut frame = EthernetFrame::new_unchecked(&mut bytes);
        header.emit(&mut frame);
        let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
        ip.emit(&mut packet, &sums);
        let (from, to) = (THEIRS.1.into(), OURS.1.into());
        tcp.emit(&mut TcpPacket::new_unchecked(packet.payload_mut()), &from, &to, &sums);
        bytes
    }

    #[test]
    fn who_announces_himself_or_connects_is_introduced_first() {
        let introduction = arp(ArpOperation::Reply, THEIRS, OURS, OURS.0).to_vec();
        let announcement =
            arp(ArpOperation::Request, THEIRS, (NOBODY, THEIRS.1), EthernetAddress::BROADCAST).to_vec();
        for frame in [announcement, segment(TcpControl::Syn, None)] {
            assert_eq!(seen(&frame), [introduction.clone(), frame]);
        }
    }

    #[test]
    fn nobody_else_is() {
        let question =
            arp(ArpOperation::Request, THEIRS, (NOBODY, OURS.1), EthernetAddress::BROADCAST).to_vec();
        let answer = segment(TcpControl::Syn, Some(TcpSeqNumber(2)));
        for frame in [question, answer, segment(TcpControl::Rst, None)] {
            assert_eq!(seen(&frame), [frame]);
        }
    }

    #[test]
    fn a_frame_may_end_anywhere() {
        let whole = segment(TcpControl::Syn, None);
        for len in 0..whole.len() {
            assert_eq!(seen(&whole[..len]), [&whole[..len]]);
        }
    }
}
