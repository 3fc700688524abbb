//! The whole control plane on virtual cables: real TCP, real TLS, the real engine; time is ours.

mod dhcp;

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::{boxed::Box, format, string::String, vec, vec::Vec};
use core::cell::RefCell;
use core::convert::Infallible;
use core::net::Ipv4Addr;
use std::thread_local;

use petrel_engine::Now;
use petrel_wire::limits::{CHUNK_BYTES_MAX, OPERATOR_VERSION, SEAL_VERSION, SHIM_VERSION};
use petrel_wire::operator::{
    ClientMessage, Hello, ImageFault, Journal, ReadOnly, Refusal, Request, Response, ServerMessage,
};
use petrel_wire::seal::{self, Addressing, Seal};
use petrel_wire::shim::{self, Backend, FromShim, Monitor, Op, Reply};
use petrel_wire::{Digest, frame};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData};
use serde::{Deserialize, Serialize};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;

use crate::boot::{self, Machine, Overrides};
use crate::disk::Disk;
use crate::limits::PLACES_MAX;
use crate::log::Log;
use crate::net::{Nic, Stack};
use crate::plane::ControlPlane;
use crate::tls::ALPN;
use crate::tls::tests::{Ca, Peer, client_connection, june, shim_connection};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const LINK: Ipv4Addr = Ipv4Addr::new(169, 254, 25, 2);
const SHIM: Ipv4Addr = Ipv4Addr::new(169, 254, 25, 1);
const SECOND_NS: u64 = 1_000_000_000;

type Queue = Rc<RefCell<VecDeque<Vec<u8>>>>;

/// One end of a cable.
pub struct CableEnd {
    mac: u8,
    incoming: Queue,
    outgoing: Queue,
}

pub fn cable() -> (CableEnd, CableEnd) {
    let (a, b) = (Queue::default(), Queue::default());
    (
        CableEnd { mac: 1, incoming: a.clone(), outgoing: b.clone() },
        CableEnd { mac: 2, incoming: b, outgoing: a },
    )
}

impl Nic for CableEnd {
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, self.mac]
    }

    fn mtu(&self) -> usize {
        1500
    }

    fn receive(&mut self, frame: &mut [u8]) -> Option<usize> {
        let bytes = self.incoming.borrow_mut().pop_front()?;
        frame[..bytes.len()].copy_from_slice(&bytes);
        Some(bytes.len())
    }

    fn transmit(&mut self, frame: &[u8]) {
        self.outgoing.borrow_mut().push_back(frame.to_vec());
    }
}

/// A disk that outlives the control plane, and may fail.
#[derive(Clone, Default)]
struct MemoryDisk(Rc<RefCell<DiskContent>>);

#[derive(Default)]
struct DiskContent {
    bytes: Vec<u8>,
    broken: bool,
}

impl MemoryDisk {
    fn new(bytes: usize) -> Self {
        let disk = Self::default();
        disk.0.borrow_mut().bytes = vec![0; bytes];
        disk
    }
}

impl Disk for MemoryDisk {
    fn bytes(&self) -> u64 {
        self.0.borrow().bytes.len() as u64
    }

    fn block_bytes(&self) -> usize {
        512
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), String> {
        data.copy_from_slice(&self.0.borrow().bytes[usize::try_from(offset).unwrap()..][..data.len()]);
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), String> {
        let content = &mut *self.0.borrow_mut();
        if content.broken {
            return Err("the disk is broken".into());
        }
        content.bytes[usize::try_from(offset).unwrap()..][..data.len()].copy_from_slice(data);
        Ok(())
    }
}

thread_local!(static LOG: RefCell<String> = const { RefCell::new(String::new()) });

/// A program at the other end of one TCP connection, with TLS or with bytes of its own.
struct Program {
    socket: SocketHandle,
    tls: Option<Peer>,
    /// What it wants to send, as it goes over TCP.
    outgoing: Vec<u8>,
    /// What came without TLS.
    raw: Vec<u8>,
    reads: bool,
    error: Option<rustls::Error>,
}

impl Program {
    fn new(socket: SocketHandle, tls: Option<Peer>) -> Self {
        Self { socket, tls, outgoing: vec![], raw: vec![], reads: true, error: None }
    }

    fn send<T: Serialize>(&mut self, message: &T) {
        let mut bytes = vec![];
        frame::encode(message, &mut bytes).unwrap();
        self.write(&bytes);
    }

    fn write(&mut self, bytes: &[u8]) {
        let tls = self.tls.as_mut().unwrap();
        // rustls takes in what it can buffer; so it is given little at once.
        for bytes in bytes.chunks(16 * 1024) {
            tls.write(bytes);
            self.outgoing.extend(tls.ciphertext());
        }
    }

    /// The messages that have come.
    fn messages<T: for<'a> Deserialize<'a>>(&mut self) -> Vec<T> {
        let read = &mut self.tls.as_mut().unwrap().read;
        let mut messages = vec![];
        while let Some((payload, taken)) = frame::split(read).unwrap() {
            messages.push(frame::decode(payload).unwrap());
            read.drain(..taken);
        }
        messages
    }

    fn run(&mut self, socket: &mut tcp::Socket<'_>) {
        if self.reads && socket.can_recv() {
            let bytes = socket.recv(|bytes| (bytes.len(), bytes.to_vec())).unwrap();
            match &mut self.tls {
                Some(tls) => self.error = tls.receive(&bytes).err().or(self.error.take()),
                None => self.raw.extend(bytes),
            }
        }
        if let Some(tls) = &mut self.tls {
            self.outgoing.extend(tls.ciphertext());
        }
        if socket.can_send() {
            let count = socket.send_slice(&self.outgoing).unwrap();
            self.outgoing.drain(..count);
        }
    }
}

/// A host: the control plane, the operators' machine, the shim's machine.
struct World {
    plane: ControlPlane<CableEnd>,
    now_ns: u64,
    operators: Stack<CableEnd>,
    programs: Vec<Program>,
    /// Where they expect the control plane.
    service: Ipv4Addr,
    /// Who gives addresses on their network.
    dhcp: Option<dhcp::Server>,
    shims: Stack<CableEnd>,
    shim: Program,
    /// The image that the shim was sent.
    stored: Vec<u8>,
    ca: Ca,
    host_ca: Vec<u8>,
    keys: [KeyPair; 2],
    port: u16,
    cables: [Queue; 4],
}

impl World {
    fn new() -> Self {
        Self::with_disk(None)
    }

    fn with_disk(disk: Option<MemoryDisk>) -> Self {
        Self::with(Addressing::Static { ipv4: (SERVICE, 24), gateway: None }, disk)
    }

    fn with(addressing: Addressing, disk: Option<MemoryDisk>) -> Self {
        let (ca, host_ca) = (Ca::new("operators"), Ca::new("host"));
        let keys = Self::keys();
        let seal = Self::seal(addressing, &ca, &host_ca, &keys);
        let ((service, operators), (shim, shims)) = (cable(), cable());
        let cables = [&service, &operators, &shim, &shims].map(|end| end.incoming.clone());
        let print = |line: core::fmt::Arguments<'_>| LOG.with_borrow_mut(|log| *log += &format!("{line}\n"));
        let machine = Machine {
            service,
            shim,
            clock: june,
            log: Log::new(Some(petrel_engine::Level::Debug), print),
            state: disk.map(|disk| Box::new(disk) as Box<dyn Disk>),
            seeds: [1, 2, 3, 4],
            now_ns: 0,
        };
        let plane = boot::control_plane::<_, Infallible>(seal, Overrides::default(), machine).unwrap();
        let mut shims = Stack::new(shims, (SHIM, 30), None, 4, 0);
        let socket = shims.add_socket(256 * 1024);
        let mut world = Self {
            plane,
            now_ns: SECOND_NS,
            operators: Stack::new(operators, (CLIENT, 24), None, 5, 0),
            programs: vec![],
            service: SERVICE,
            dhcp: None,
            shim: Program::new(socket, None),
            shims,
            stored: vec![],
            ca,
            host_ca: host_ca.der(),
            keys,
            port: 50_000,
            cables,
        };
        world.start_shim();
        world
    }

    fn keys() -> [KeyPair; 2] {
        [(), ()].map(|()| KeyPair::generate_for(&PKCS_ED25519).unwrap())
    }

    fn seal(addressing: Addressing, ca: &Ca, host_ca: &Ca, keys: &[KeyPair; 2]) -> Seal {
        let server = host_ca.server();
        Seal {
            version: SEAL_VERSION,
            host: "alpha".parse().unwrap(),
            service: seal::Service {
                addressing,
                port: 1025,
                certificate: server.certificate,
                key: server.key,
                operators: ca.der(),
            },
            link: seal::Link {
                ipv4: (LINK, 30),
                shim_ipv4: SHIM,
                shim_port: 1026,
                key: keys[0].serialize_der(),
                shim_public_key: keys[1].subject_public_key_info(),
            },
        }
    }

    fn start_shim(&mut self) {
        let [ours, shims] = &self.keys;
        self.shims.socket(self.shim.socket).abort();
        self.shims.egress(self.now_ns);
        self.shims.socket(self.shim.socket).listen(1026).unwrap();
        self.shim =
            Program::new(self.shim.socket, Some(shim_connection(shims, &ours.subject_public_key_info())));
    }

    /// Somebody connects who speaks no TLS.
    fn stranger(&mut self) -> usize {
        let socket = self.operators.add_socket(64 * 1024);
        self.port += 1;
        assert!(self.operators.connect(socket, (self.service, 1025), self.port));
        self.programs.push(Program::new(socket, None));
        self.programs.len() - 1
    }

    /// The first packet of a connection comes, and whoever it says it is from will say nothing more.
    fn first_packet_from(&mut self, source: Ipv4Addr) {
        let (ours, theirs) = cable();
        let sent = ours.incoming.clone();
        let mut theirs = Stack::new(theirs, (source, 0), None, 6, 0);
        // It announces itself, so they need not ask for its hardware address.
        let _ours = Stack::new(ours, (self.service, 0), None, 7, 0);
        while theirs.ingress(self.now_ns, 1) {}
        sent.borrow_mut().clear();
        let socket = theirs.add_socket(1024);
        assert!(theirs.connect(socket, (self.service, 1025), 40_000));
        theirs.egress(self.now_ns);
        self.cables[0].borrow_mut().append(&mut sent.borrow_mut());
    }

    /// An operator connects.
    fn operator(&mut self) -> usize {
        let index = self.stranger();
        let identity = self.ca.client("alice");
        self.programs[index].tls = Some(client_connection(&self.host_ca, Some(identity), &[ALPN]));
        index
    }

    /// An operator connects and says hello.
    fn session(&mut self) -> usize {
        let index = self.operator();
        self.request(index, 0, Request::Hello(Hello { oldest: OPERATOR_VERSION, newest: OPERATOR_VERSION }));
        self.settle();
        let answers = self.programs[index].messages::<ServerMessage>();
        assert!(
            matches!(&answers[..], [ServerMessage { id: 0, response: Response::Hello(_) }]),
            "{answers:?}"
        );
        index
    }

    fn request(&mut self, index: usize, id: u32, request: Request) {
        self.settle();
        self.programs[index].send(&ClientMessage { id, request });
    }

    /// An operator asks and asks, and from here on takes no answers.
    fn ask_and_read_nothing(&mut self, index: usize, ids: core::ops::Range<u32>) {
        self.programs[index].reads = false;
        for id in ids {
            self.programs[index].send(&ClientMessage { id, request: Request::Host });
        }
        self.settle();
    }

    fn answers(&mut self, index: usize) -> Vec<Response> {
        self.settle();
        self.programs[index].messages::<ServerMessage>().into_iter().map(|message| message.response).collect()
    }

    fn state(&mut self, index: usize) -> tcp::State {
        let socket = self.programs[index].socket;
        self.operators.socket(socket).state()
    }

    /// Lets everybody work until nothing moves any more, without time passing.
    fn settle(&mut self) {
        for _ in 0..5000 {
            let wall_ms = u64::try_from(june().as_millis()).unwrap();
            let due_ns = self.plane.turn(Now { monotonic_ns: self.now_ns, wall_ms });
            if let Some(dhcp) = &mut self.dhcp {
                dhcp.serve(&self.cables[1], &self.cables[0]);
            }
            while self.operators.ingress(self.now_ns, 1) | self.shims.ingress(self.now_ns, 1) {}
            for program in &mut self.programs {
                program.run(self.operators.socket(program.socket));
            }
            self.shim.run(self.shims.socket(self.shim.socket));
            self.serve_as_shim();
            self.shim.run(self.shims.socket(self.shim.socket));
            self.operators.egress(self.now_ns);
            self.shims.egress(self.now_ns);
            if due_ns > self.now_ns && self.cables.iter().all(|queue| queue.borrow().is_empty()) {
                return;
            }
        }
        panic!("it never settles: {}", LOG.take());
    }

    fn pass(&mut self, ns: u64) {
        for _ in 0..100 {
            self.now_ns += ns / 100;
            self.settle();
        }
    }

    /// Answers what a control plane asks of a host that has nothing yet.
    fn serve_as_shim(&mut self) {
        for request in self.shim.messages::<shim::Request>() {
            let reply = match &request.op {
                Op::ImageChunk { data, .. } => {
                    self.stored.extend_from_slice(data);
                    None
                }
                Op::ImageRead { offset, bytes, .. } => {
                    let from = usize::try_from(*offset).unwrap();
                    let to = (from + usize::try_from(*bytes).unwrap()).min(self.stored.len());
                    Some(Reply::Bytes(self.stored[from..to].to_vec().try_into().unwrap()))
                }
                Op::Hello { version } => {
                    assert_eq!(*version, SHIM_VERSION);
                    Some(Reply::Hello { release: [1, 2, 3] })
                }
                Op::Host => Some(Reply::Host(alloc::boxed::Box::new(shim::Host {
                    cpus: vec![0, 1].try_into().unwrap(),
                    memory_mib: 4096,
                    bridges: vec!["service".parse().unwrap()].try_into().unwrap(),
                    volumes_mib: None,
                    monitors: vec![Monitor {
                        name: "petrel-tender".parse().unwrap(),
                        target: 1,
                        version: 2,
                        backend: Backend::Ring3,
                    }]
                    .try_into()
                    .unwrap(),
                    limits: Vec::new().try_into().unwrap(),
                }))),
                Op::List { .. } => Some(Reply::Listed { page: vec![].try_into().unwrap(), more: false }),
                Op::ImageList { .. } => Some(Reply::Images { page: vec![].try_into().unwrap(), more: false }),
                Op::Volume(_) => Some(Reply::Volumes { page: vec![].try_into().unwrap(), more: false }),
                Op::ImageBegin { .. } | Op::ImageCommit(_) | Op::ImageRemove(_) => Some(Reply::Done),
                _ => None,
            };
            if let Some(reply) = reply {
                self.shim.send(&FromShim::Reply { id: request.id, result: Ok(reply) });
            }
        }
    }
}

/// What becomes of the images of these tests once the shim has them whole: they are no programs.
fn not_an_elf() -> Response {
    Response::Refused(Refusal::NotAnImage(ImageFault::NotElf))
}

fn image(length: usize) -> (Vec<u8>, Digest) {
    let image: Vec<u8> = (0..253).cycle().take(length).collect();
    let digest = Digest(*ring::digest::digest(&ring::digest::SHA256, &image).as_ref().first_chunk().unwrap());
    (image, digest)
}

#[test]
fn given_a_shim_when_an_operator_asks_then_the_host_is_described() {
    let mut world = World::new();
    let operator = world.session();
    world.request(operator, 1, Request::Host);
    let answers = world.answers(operator);
    let [Response::Host(host)] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((&*host.host, host.shim, host.memory_mib), ("alpha", [1, 2, 3], 4096));
    let log = LOG.take();
    assert!(log.contains("-00:00: ["), "{log}");
}

/// What an operator is told of the journal.
fn journal(world: &mut World) -> Journal {
    let operator = world.session();
    world.request(operator, 1, Request::Host);
    let answers = world.answers(operator);
    let [Response::Host(host)] = &answers[..] else { panic!("{answers:?}") };
    host.journal
}

#[test]
fn given_a_disk_then_the_next_control_plane_finds_what_this_one_left() {
    let disk = MemoryDisk::new(1 << 20);
    let mut world = World::with_disk(Some(disk.clone()));
    assert!(matches!(journal(&mut world), Journal::Kept { epoch: 0, used_bytes: 0, .. }));
    assert!(LOG.take().contains("[INFO] [application] state: the journal is new"));
    // What the shim told is on the disk soon.
    world.pass(2 * SECOND_NS);
    let kept = journal(&mut world);
    assert!(matches!(kept, Journal::Kept { epoch: 1, used_bytes: 512, .. }), "{kept:?}");
    let mut next = World::with_disk(Some(disk));
    assert_eq!(journal(&mut next), kept);
    assert!(LOG.take().contains("state: the journal is in epoch 1, with "));
}

#[test]
fn given_a_disk_that_breaks_then_it_is_said_and_changes_are_refused() {
    let disk = MemoryDisk::new(1 << 20);
    let mut world = World::with_disk(Some(disk.clone()));
    disk.0.borrow_mut().broken = true;
    world.settle();
    let nothing = Request::StateImport { bytes: 0, force: false };
    let operator = world.session();
    world.pass(2 * SECOND_NS);
    world.request(operator, 1, nothing);
    let unwritable = Response::Refused(Refusal::ReadOnly(ReadOnly::Unwritable));
    // History waits for company, but what does not get to the disk is no less a failure.
    assert_eq!(world.answers(operator), [unwritable]);
    assert_eq!(journal(&mut world), Journal::ReadOnly(ReadOnly::Unwritable));
    assert!(
        LOG.take().contains("[ERROR] [application] block device \"state\", offset 512: the disk is broken")
    );
}

#[test]
fn given_no_disk_then_it_is_said() {
    let mut world = World::new();
    assert_eq!(journal(&mut world), Journal::InMemory);
    assert!(LOG.take().contains("state: no block device \"state\": kept in memory only"));
}

#[test]
fn given_a_client_that_stalls_in_its_handshake_then_only_its_own_time_runs_out() {
    let mut world = World::new();
    let stranger = world.stranger();
    let operator = world.session();
    world.pass(9 * SECOND_NS);
    assert_eq!(world.state(stranger), tcp::State::Established);
    world.pass(5 * SECOND_NS);
    assert_ne!(world.state(stranger), tcp::State::Established);
    world.request(operator, 1, Request::Host);
    assert!(matches!(world.answers(operator)[..], [Response::Host(_)]));
}

#[test]
fn given_a_client_that_speaks_plain_text_then_it_gets_an_alert_and_the_end() {
    let mut world = World::new();
    let stranger = world.stranger();
    world.settle();
    world.programs[stranger].outgoing = b"GET / HTTP/1.1\r\n\r\n".to_vec();
    world.settle();
    assert_eq!(world.programs[stranger].raw.first(), Some(&0x15), "a TLS alert");
    assert_eq!(world.state(stranger), tcp::State::CloseWait);
    assert!(LOG.take().contains("session from 10.0.0.1: what the peer sends is not TLS"));
}

#[test]
fn given_a_certificate_of_another_ca_then_the_client_learns_it() {
    let mut world = World::new();
    let stranger = world.stranger();
    let identity = Ca::new("operators").client("mallory");
    world.programs[stranger].tls = Some(client_connection(&world.host_ca.clone(), Some(identity), &[ALPN]));
    world.settle();
    let error = world.programs[stranger].error.clone();
    assert_eq!(error, Some(rustls::Error::AlertReceived(rustls::AlertDescription::UnknownCA)));
    assert_eq!(world.state(stranger), tcp::State::CloseWait);
}

#[test]
fn given_a_frame_over_the_cap_then_it_is_refused_and_the_session_ends() {
    let mut world = World::new();
    let operator = world.session();
    world.programs[operator].write(&(1u32 << 31).to_le_bytes());
    let answers = world.answers(operator);
    assert_eq!(answers, [Response::Refused(Refusal::FrameTooLong { claimed: 1 << 31 })]);
    assert!(world.programs[operator].tls.as_ref().unwrap().closed, "with a close_notify");
    assert_eq!(world.state(operator), tcp::State::CloseWait);
}

#[test]
fn given_more_strangers_than_places_then_the_first_make_room_and_operators_come_in() {
    let mut world = World::new();
    let operator = world.session();
    let strangers: Vec<usize> = (0..PLACES_MAX + 10)
        .map(|_| {
            let stranger = world.stranger();
            world.now_ns += 1_000_000;
            world.settle();
            stranger
        })
        .collect();
    let established = |world: &mut World, stranger: usize| world.state(stranger) == tcp::State::Established;
    let (first, rest) = strangers.split_at(12);
    assert!(first.iter().all(|&stranger| world.state(stranger) == tcp::State::Closed));
    assert!(rest.iter().all(|&stranger| established(&mut world, stranger)));
    for _ in 0..10 {
        world.session();
    }
    world.request(operator, 1, Request::Host);
    assert!(matches!(world.answers(operator)[..], [Response::Host(_)]));
}

#[test]
fn given_more_first_packets_that_nobody_stands_by_than_places_then_operators_come_in() {
    let mut world = World::new();
    world.settle();
    for host in 0..u8::try_from(2 * PLACES_MAX).unwrap() {
        world.first_packet_from(Ipv4Addr::new(10, 0, 0, 100 + host));
        world.now_ns += 1_000_000;
        world.settle();
    }
    world.session();
}

#[test]
fn given_an_operator_who_takes_no_answers_and_goes_then_its_place_is_free() {
    let mut world = World::new();
    let operator = world.session();
    world.ask_and_read_nothing(operator, 1..20_000);
    assert_eq!(world.plane.sessions(), 1);
    let socket = world.programs[operator].socket;
    world.operators.socket(socket).abort();
    world.settle();
    world.pass(5 * SECOND_NS);
    assert_eq!(world.plane.sessions(), 0);
}

#[test]
fn given_an_image_then_it_streams_through_to_the_shim() {
    let mut world = World::new();
    let operator = world.session();
    let (image, digest) = image(1_000_000);
    world.request(operator, 1, Request::ImagePush { digest, bytes: 1_000_000 });
    assert_eq!(world.answers(operator), [Response::ImageWanted]);
    for chunk in image.chunks(CHUNK_BYTES_MAX) {
        world.request(operator, 1, Request::ImageChunk(chunk.to_vec().try_into().unwrap()));
    }
    assert_eq!(world.answers(operator), [not_an_elf()]);
    assert!(world.stored == image);
}

#[test]
fn given_a_shim_that_does_not_read_then_the_client_is_made_to_wait() {
    let mut world = World::new();
    let operator = world.session();
    let (image, digest) = image(4_000_000);
    world.request(operator, 1, Request::ImagePush { digest, bytes: 4_000_000 });
    assert_eq!(world.answers(operator), [Response::ImageWanted]);
    world.shim.reads = false;
    for chunk in image.chunks(CHUNK_BYTES_MAX) {
        let message =
            ClientMessage { id: 1, request: Request::ImageChunk(chunk.to_vec().try_into().unwrap()) };
        world.programs[operator].send(&message);
    }
    world.settle();
    let waiting = world.programs[operator].outgoing.len();
    assert!(waiting > 2_500_000, "{waiting} bytes have not left the client");
    assert!(world.plane.queued_for_shim() < 400_000, "{} bytes", world.plane.queued_for_shim());
    // Somebody else is served meanwhile.
    world.session();
    world.shim.reads = true;
    assert_eq!(world.answers(operator), [not_an_elf()]);
}

#[test]
fn given_a_client_that_reads_no_answers_then_it_is_not_read_either() {
    let mut world = World::new();
    let operator = world.session();
    world.ask_and_read_nothing(operator, 1..100_000);
    assert!(
        world.programs[operator].outgoing.len() > 1_000_000,
        "{}",
        world.programs[operator].outgoing.len()
    );
    world.session();
    world.programs[operator].reads = true;
    let answers = world.answers(operator);
    assert_eq!(answers.len(), 99_999);
}

#[test]
fn given_a_shim_that_ends_and_comes_back_then_the_link_opens_again() {
    let mut world = World::new();
    world.settle();
    assert!(world.plane.link_is_open());
    let socket = world.shim.socket;
    world.shims.socket(socket).abort();
    world.settle();
    assert!(!world.plane.link_is_open());
    world.pass(3 * SECOND_NS);
    assert!(!world.plane.link_is_open(), "nobody listens");
    world.start_shim();
    world.pass(2 * SECOND_NS);
    assert!(world.plane.link_is_open());
    let operator = world.session();
    world.request(operator, 1, Request::Host);
    assert!(matches!(world.answers(operator)[..], [Response::Host(_)]));
}

#[test]
fn given_an_operator_whose_machine_dies_then_its_place_is_given_back() {
    let mut world = World::new();
    let operator = world.session();
    assert_eq!(world.plane.sessions(), 1);
    let socket = world.programs.remove(operator).socket;
    world.operators.remove_socket(socket);
    // What goes out goes nowhere.
    world.operators = Stack::new(cable().0, (CLIENT, 24), None, 5, 0);
    world.cables[0] = Queue::default();
    world.cables[1] = Queue::default();
    world.pass(60 * SECOND_NS);
    assert_eq!(world.plane.sessions(), 0);
}

#[test]
fn a_new_machine_announces_its_address_to_its_network() {
    let (ours, theirs) = cable();
    Stack::new(ours, (SERVICE, 24), None, 1, 0);
    let frame = theirs.incoming.borrow_mut().pop_front().unwrap();
    assert_eq!(frame[..6], [0xff; 6], "to everybody");
    assert_eq!(frame[12..14], [0x08, 0x06], "ARP");
    assert_eq!(frame[22..28], [2, 0, 0, 0, 0, 1]);
    assert_eq!((&frame[28..32], &frame[38..42]), (&SERVICE.octets()[..], &SERVICE.octets()[..]));
}
