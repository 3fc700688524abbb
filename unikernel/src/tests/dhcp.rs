//! A control plane whose address a DHCP server leases. The server speaks smoltcp's wire formats and knows no client.

use petrel_wire::operator::Address;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType as Kind, DhcpPacket, DhcpRepr, EthernetAddress,
    EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

use super::*;

const SERVER_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 9]);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
const LEASED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 78);
const MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);

/// A server that has one address to give.
pub struct Server {
    /// Which; it says nothing while it has none.
    gives: Option<Ipv4Addr>,
    lease_s: u32,
    router: Ipv4Addr,
    /// Whom its packets are from.
    source: Ipv4Addr,
    /// What it was asked, and by which name.
    asked: Vec<(Kind, String)>,
}

impl Server {
    fn new(gives: Option<Ipv4Addr>) -> Self {
        Self { gives, lease_s: 1000, router: CLIENT, source: SERVER, asked: vec![] }
    }

    /// Answers what is for it, and leaves the rest of what is on its way.
    pub fn serve(&mut self, requests: &Queue, replies: &Queue) {
        requests.borrow_mut().retain(|frame| {
            let reply = self.answer(frame);
            replies.borrow_mut().extend(reply.clone().flatten());
            reply.is_none()
        });
    }

    /// Nothing if the frame is not for it; else its answer, if it has one.
    fn answer(&mut self, frame: &[u8]) -> Option<Option<Vec<u8>>> {
        let ethernet = EthernetFrame::new_checked(frame).unwrap();
        if ethernet.ethertype() == EthernetProtocol::Arp {
            return arp_reply(&ArpPacket::new_checked(ethernet.payload()).unwrap()).map(Some);
        }
        let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
        let udp = UdpPacket::new_checked(ip.payload()).ok().filter(|udp| udp.dst_port() == 67)?;
        let packet = DhcpPacket::new_checked(udp.payload()).unwrap();
        let request = DhcpRepr::parse(&packet).unwrap();
        let name = packet.options().find(|option| option.kind == 12).unwrap();
        self.asked.push((request.message_type, String::from_utf8(name.data.to_vec()).unwrap()));
        Some(self.gives.map(|address| self.reply(&request, address)))
    }

    fn reply(&self, request: &DhcpRepr<'_>, address: Ipv4Addr) -> Vec<u8> {
        let wants = request.requested_ip.unwrap_or(request.client_ip);
        let message_type = match request.message_type {
            Kind::Discover => Kind::Offer,
            Kind::Request if wants == address => Kind::Ack,
            _ => Kind::Nak,
        };
        frame(
            self.source,
            &DhcpRepr {
                message_type,
                your_ip: address,
                server_ip: SERVER,
                router: Some(self.router),
                subnet_mask: Some(MASK),
                client_ip: Ipv4Addr::UNSPECIFIED,
                requested_ip: None,
                client_identifier: None,
                server_identifier: Some(SERVER),
                parameter_request_list: None,
                max_size: None,
                lease_duration: Some(self.lease_s),
                additional_options: &[],
                ..request.clone()
            },
        )
    }
}

/// To who asks for the server's hardware address.
fn arp_reply(packet: &ArpPacket<&[u8]>) -> Option<Vec<u8>> {
    let ArpRepr::EthernetIpv4 { source_hardware_addr, source_protocol_addr, target_protocol_addr, .. } =
        ArpRepr::parse(packet).unwrap()
    else {
        return None;
    };
    if target_protocol_addr != SERVER {
        return None;
    }
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: SERVER_MAC,
        source_protocol_addr: SERVER,
        target_hardware_addr: source_hardware_addr,
        target_protocol_addr: source_protocol_addr,
    };
    let ethernet = EthernetRepr {
        src_addr: SERVER_MAC,
        dst_addr: source_hardware_addr,
        ethertype: EthernetProtocol::Arp,
    };
    let mut bytes = vec![0; ethernet.buffer_len() + reply.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    ethernet.emit(&mut frame);
    reply.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    Some(bytes)
}

/// A server's message as it goes over the cable, to everybody.
fn frame(source: Ipv4Addr, message: &DhcpRepr<'_>) -> Vec<u8> {
    let checksums = ChecksumCapabilities::default();
    let udp = UdpRepr { src_port: 67, dst_port: 68 };
    let ip = Ipv4Repr {
        src_addr: source,
        dst_addr: Ipv4Addr::BROADCAST,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + message.buffer_len(),
        hop_limit: 64,
    };
    let ethernet = EthernetRepr {
        src_addr: SERVER_MAC,
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Ipv4,
    };
    let mut bytes = vec![0; ethernet.buffer_len() + ip.buffer_len() + ip.payload_len];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    ethernet.emit(&mut frame);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &checksums);
    let mut datagram = UdpPacket::new_unchecked(packet.payload_mut());
    let fill = |payload: &mut [u8]| message.emit(&mut DhcpPacket::new_unchecked(payload)).unwrap();
    let (from, to) = (ip.src_addr.into(), ip.dst_addr.into());
    udp.emit(&mut datagram, &from, &to, message.buffer_len(), fill, &checksums);
    bytes
}

/// A host on a network where a server gives this address.
fn world(gives: Option<Ipv4Addr>) -> World {
    let mut world = World::with(Addressing::Dhcp, None);
    world.service = LEASED;
    world.dhcp = Some(Server::new(gives));
    world
}

fn asked(world: &World) -> Vec<Kind> {
    world.dhcp.as_ref().unwrap().asked.iter().map(|(kind, _)| *kind).collect()
}

fn address(world: &mut World, operator: usize) -> Option<Address> {
    world.request(operator, 1, Request::Host);
    let answers = world.answers(operator);
    let [Response::Host(host)] = &answers[..] else { panic!("{answers:?}") };
    host.address
}

#[test]
fn given_a_server_then_operators_reach_the_address_that_it_leases() {
    let mut world = world(Some(LEASED));
    world.settle();
    assert_eq!(asked(&world), [Kind::Discover, Kind::Request]);
    assert!(world.dhcp.as_ref().unwrap().asked.iter().all(|(_, name)| name == "alpha"));
    let operator = world.session();
    let leased = Address { ipv4: (LEASED, 24), gateway: Some(CLIENT), is_leased: true };
    assert_eq!(address(&mut world, operator), Some(leased));
    let log = LOG.take();
    assert!(log.contains("[INFO] [application] net: asking for an address by DHCP"), "{log}");
    assert!(
        log.contains("[INFO] [application] net: DHCP has leased 10.0.0.77/24, gateway 10.0.0.1"),
        "{log}"
    );
}

#[test]
fn given_a_router_that_is_no_machine_then_there_is_no_gateway_and_nobody_far_away_is_answered() {
    for router in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 1)] {
        let mut world = world(Some(LEASED));
        world.dhcp.as_mut().unwrap().router = router;
        world.settle();
        let operator = world.session();
        let leased = Address { ipv4: (LEASED, 24), gateway: None, is_leased: true };
        assert_eq!(address(&mut world, operator), Some(leased));
        world.first_packet_from(Ipv4Addr::new(192, 0, 2, 1));
        world.settle();
        assert!(address(&mut world, operator).is_some());
    }
}

#[test]
fn given_a_server_without_an_address_then_its_lease_is_not_taken() {
    let mut world = world(Some(LEASED));
    world.dhcp.as_mut().unwrap().source = Ipv4Addr::UNSPECIFIED;
    world.pass(1100 * SECOND_NS);
    assert_eq!(LOG.take().matches("DHCP has leased").count(), 0);
    world.dhcp.as_mut().unwrap().source = SERVER;
    world.pass(60 * SECOND_NS);
    world.session();
}

#[test]
fn given_an_address_that_was_set_then_nobody_is_asked_and_the_host_says_so() {
    let mut world = World::new();
    world.dhcp = Some(Server::new(Some(LEASED)));
    let operator = world.session();
    let set = Address { ipv4: (SERVICE, 24), gateway: None, is_leased: false };
    assert_eq!(address(&mut world, operator), Some(set));
    assert_eq!(asked(&world), []);
}

#[test]
fn given_no_server_then_it_is_asked_for_until_there_is_one() {
    let mut world = world(None);
    world.pass(60 * SECOND_NS);
    let asked = asked(&world);
    assert!(asked.len() > 10 && asked.iter().all(|kind| *kind == Kind::Discover), "{asked:?}");
    assert!(world.plane.link_is_open(), "the shim is not kept waiting for it");
    world.dhcp.as_mut().unwrap().gives = Some(LEASED);
    world.pass(10 * SECOND_NS);
    world.session();
}

#[test]
fn given_a_lease_then_it_is_renewed_in_time_and_sessions_notice_nothing() {
    let mut world = world(Some(LEASED));
    world.settle();
    let operator = world.session();
    for _ in 0..30 {
        world.pass(100 * SECOND_NS);
    }
    let asked = asked(&world);
    assert!(asked.len() > 5, "{asked:?}");
    assert_eq!(asked.iter().filter(|kind| **kind == Kind::Discover).count(), 1);
    assert!(address(&mut world, operator).is_some());
    assert_eq!(LOG.take().matches("DHCP has leased").count(), 1);
}

#[test]
fn given_a_lease_that_nobody_renews_then_the_address_is_given_up_and_another_asked_for() {
    let mut world = world(Some(LEASED));
    world.settle();
    let operator = world.session();
    world.dhcp.as_mut().unwrap().gives = None;
    world.pass(1100 * SECOND_NS);
    assert_eq!(world.plane.sessions(), 0);
    assert_eq!(world.state(operator), tcp::State::Closed, "the client is told");
    let stranger = world.stranger();
    world.pass(5 * SECOND_NS);
    assert_ne!(world.state(stranger), tcp::State::Established);
    let socket = world.programs.remove(stranger).socket;
    world.operators.remove_socket(socket);
    let log = LOG.take();
    assert!(
        log.contains("[WARNING] [application] net: the lease of 10.0.0.77 is over: asking for another"),
        "{log}"
    );
    world.dhcp.as_mut().unwrap().gives = Some(OTHER);
    world.pass(10 * SECOND_NS);
    world.service = OTHER;
    let operator = world.session();
    assert_eq!(address(&mut world, operator).map(|address| address.ipv4.0), Some(OTHER));
}

#[test]
fn given_a_server_that_takes_the_lease_back_then_the_new_one_takes_its_place() {
    let mut world = world(Some(LEASED));
    world.settle();
    world.session();
    world.dhcp.as_mut().unwrap().gives = Some(OTHER);
    // At the half of the lease it is to be renewed, and refused.
    world.pass(600 * SECOND_NS);
    assert_eq!(world.plane.sessions(), 0);
    world.service = OTHER;
    world.session();
}

#[test]
fn given_dhcp_and_a_gateway_then_one_of_them_has_to_go() {
    let overrides = Overrides { gateway: Some(CLIENT), ..Overrides::default() };
    let machine = Machine {
        service: cable().0,
        shim: cable().0,
        clock: june,
        log: Log::new(None, |_| {}),
        state: None,
        seeds: [1, 2, 3, 4],
        now_ns: 0,
    };
    let seal = World::seal(Addressing::Dhcp, &Ca::new("operators"), &Ca::new("host"), &World::keys());
    let error = boot::control_plane::<_, Infallible>(seal, overrides, machine).err().unwrap();
    assert!(format!("{error}").contains("--ipv4-gateway: the gateway is the one that DHCP names"), "{error}");
}
