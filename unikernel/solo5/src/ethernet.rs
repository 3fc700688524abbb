//! A network device as the link layer of smoltcp's TCP/IP stack.

use crate::Net;
use alloc::vec;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
};

/// Bytes of a frame with an ARP packet for IPv4: RFC 826.
const ARP_FRAME: usize = 42;

/// The frame by which a machine that has come up says which hardware address its IP address has (RFC 5227, section
/// 2.3): who asked in vain, or knows its predecessor's, need not wait until they ask again.
#[must_use]
pub fn announcement(mac: EthernetAddress, address: Ipv4Addr) -> [u8; ARP_FRAME] {
    let header = EthernetRepr {
        src_addr: mac,
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Arp,
    };
    let packet = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: mac,
        source_protocol_addr: address,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: address,
    };
    let mut bytes = [0; ARP_FRAME];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    header.emit(&mut frame);
    packet.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    bytes
}

/// A network device with room for a frame each way.
///
/// smoltcp has no word for a device that fails, so a frame that cannot be read or written is a frame lost, which its
/// protocols mend or report.
pub struct Ethernet {
    net: Net,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl Ethernet {
    /// The link layer over `net`.
    pub fn new(net: Net) -> Self {
        let frame = vec![0; net.frame_max()];
        Self { net, incoming: frame.clone(), outgoing: frame }
    }

    /// Tells its network that it has come up under `address`.
    pub fn announce(&mut self, address: Ipv4Addr) {
        let _ = self.net.write(&announcement(EthernetAddress(self.net.mac()), address));
    }
}

/// A frame that has come in.
pub struct Incoming<'a>(&'a [u8]);

/// The right to send a frame.
pub struct Outgoing<'a> {
    net: &'a mut Net,
    frame: &'a mut [u8],
}

impl phy::RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        // smoltcp asks for no more than the capabilities say, so the frame has room.
        let frame = &mut self.frame[..len];
        let result = f(frame);
        let _ = self.net.write(frame);
        result
    }
}

impl Device for Ethernet {
    type RxToken<'a> = Incoming<'a>;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let len = self.net.read(&mut self.incoming).ok()??;
        let outgoing = Outgoing { net: &mut self.net, frame: &mut self.outgoing };
        Some((Incoming(&self.incoming[..len]), outgoing))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing { net: &mut self.net, frame: &mut self.outgoing })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.net.frame_max();
        capabilities
    }
}
