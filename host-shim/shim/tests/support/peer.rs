use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use petrel_wire::frame::{self, Inbox};
use petrel_wire::limits::{CHUNK_BYTES_MAX, SHIM_VERSION};
use petrel_wire::shim::{Event, Fault, FromShim, InstanceId, Op, Reply, Request, Spawn};
use petrel_wire::{Blob, Digest, ExitStatus, List};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

const PATIENCE: Duration = Duration::from_secs(20);
/// RFC 8410: what comes before the 32 bytes of an Ed25519 public key.
const ED25519_SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Both sides' keys, DER.
pub struct Keys {
    pub shim_private: Vec<u8>,
    pub shim_public: Vec<u8>,
    pub peer_private: Vec<u8>,
    pub peer_public: Vec<u8>,
}

impl Keys {
    pub fn new() -> Self {
        let ((shim_private, shim_public), (peer_private, peer_public)) = (key_pair(), key_pair());
        Self { shim_private, shim_public, peer_private, peer_public }
    }
}

fn key_pair() -> (Vec<u8>, Vec<u8>) {
    let private = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref().to_vec();
    let pair = Ed25519KeyPair::from_pkcs8(&private).unwrap();
    (private, [&ED25519_SPKI_PREFIX, pair.public_key().as_ref()].concat())
}

/// The control plane, as far as the shim can tell.
pub struct Peer {
    stream: StreamOwned<ClientConnection, TcpStream>,
    inbox: Inbox,
    events: Vec<Event>,
    last_id: u32,
}

impl Peer {
    /// Connects; an error may also come only when something is first read.
    pub fn connect(keys: &Keys) -> io::Result<Self> {
        let socket = TcpStream::connect("169.254.25.1:1026")?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut tls = ClientConnection::new(client(keys), ServerName::try_from("shim").unwrap()).unwrap();
        let mut socket_again = &socket;
        while tls.is_handshaking() || tls.wants_write() {
            tls.complete_io(&mut socket_again)?;
        }
        Ok(Self {
            stream: StreamOwned::new(tls, socket),
            inbox: Inbox::default(),
            events: Vec::new(),
            last_id: 0,
        })
    }

    pub fn greet(&mut self) {
        let hello = self.ask(Op::Hello { version: SHIM_VERSION });
        assert!(matches!(hello, Ok(Reply::Hello { .. })), "{hello:?}");
    }

    /// Sends `op` without waiting for an answer; its number.
    pub fn send(&mut self, op: Op) -> u32 {
        self.last_id += 1;
        let mut bytes = Vec::new();
        frame::encode(&Request { id: self.last_id, op }, &mut bytes).unwrap();
        self.stream.write_all(&bytes).unwrap();
        self.last_id
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The answer to `op`; events that come before it are kept.
    pub fn ask(&mut self, op: Op) -> Result<Reply, Fault> {
        let expected = self.send(op);
        loop {
            match self.receive().unwrap() {
                FromShim::Reply { id, result } => {
                    assert_eq!(id, expected, "answers come in order");
                    return result;
                }
                FromShim::Event(event) => self.events.push(event),
            }
        }
    }

    pub fn done(&mut self, op: Op) {
        assert_eq!(self.ask(op), Ok(Reply::Done));
    }

    /// The next message.
    pub fn receive(&mut self) -> io::Result<FromShim> {
        loop {
            if let Some(message) = self.inbox.next_message().unwrap() {
                return Ok(message);
            }
            let mut data = [0; 16 * 1024];
            match self.stream.read(&mut data)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.inbox.back().extend_from_slice(&data[..count]),
            }
        }
    }

    /// The next event.
    pub fn event(&mut self) -> Event {
        if !self.events.is_empty() {
            return self.events.remove(0);
        }
        match self.receive().unwrap() {
            FromShim::Event(event) => event,
            reply => panic!("expected an event, got {reply:?}"),
        }
    }

    /// Whether the shim ends the link without another word.
    pub fn is_cut_off(&mut self) -> bool {
        loop {
            match self.receive() {
                Ok(FromShim::Event(_)) => {}
                Ok(FromShim::Reply { .. }) => return false,
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }

    pub fn store(&mut self, image: &[u8]) -> Digest {
        let name = sha256(image);
        match self.ask(Op::ImageBegin { digest: name, bytes: image.len() as u64 }) {
            Ok(Reply::Stored { .. }) => return name,
            begun => assert_eq!(begun, Ok(Reply::Done)),
        }
        for chunk in image.chunks(CHUNK_BYTES_MAX) {
            self.send(Op::ImageChunk { digest: name, data: Blob::try_from(chunk).unwrap() });
        }
        self.done(Op::ImageCommit(name));
        name
    }

    /// Starts the guest `image` with `command` as its argument; its process.
    pub fn spawn(&mut self, instance: u64, image: Digest, command: &str) -> u32 {
        self.spawned(spawn(instance, image, command))
    }

    pub fn spawned(&mut self, spawn: Spawn) -> u32 {
        match self.ask(Op::Spawn(Box::new(spawn))) {
            Ok(Reply::Spawned { pid }) => pid,
            other => panic!("expected it to be spawned, got {other:?}"),
        }
    }

    /// What `instance` writes until it ends, and how it ends. Events of others are dropped.
    pub fn until_exit(&mut self, instance: u64) -> (String, ExitStatus) {
        let mut console = Vec::new();
        loop {
            match self.event() {
                Event::Console { instance: InstanceId(id), data } if id == instance => {
                    console.extend_from_slice(&data)
                }
                Event::Exited { instance: InstanceId(id), status } if id == instance => {
                    return (String::from_utf8(console).unwrap(), status);
                }
                _ => {}
            }
        }
    }

    /// Waits until `instance` has written `text`. What others do meanwhile is told later.
    pub fn until_console(&mut self, instance: u64, text: &str) {
        let (mut console, mut others) = (Vec::new(), Vec::new());
        while !String::from_utf8_lossy(&console).contains(text) {
            match self.event() {
                Event::Console { instance: InstanceId(id), data } if id == instance => {
                    console.extend_from_slice(&data)
                }
                Event::Exited { instance: InstanceId(id), .. } if id == instance => {
                    panic!("it ended: {console:?}")
                }
                other => others.push(other),
            }
        }
        self.events.splice(..0, others);
    }
}

/// A guest with nothing but one argument.
pub fn spawn(instance: u64, image: Digest, command: &str) -> Spawn {
    Spawn {
        instance: InstanceId(instance),
        monitor: "script".parse().unwrap(),
        image,
        memory_mib: 16,
        cpus: List::new(),
        nets: List::new(),
        blocks: List::new(),
        args: vec![Blob::try_from(command.as_bytes()).unwrap()].try_into().unwrap(),
        tag: Blob::try_from(&b"tag"[..]).unwrap(),
    }
}

pub fn sha256(bytes: &[u8]) -> Digest {
    Digest(digest(&SHA256, bytes).as_ref().try_into().unwrap())
}

fn client(keys: &Keys) -> Arc<ClientConfig> {
    let provider = rustls::crypto::ring::default_provider();
    Arc::new(petrel_link::client(provider, &keys.peer_private, &keys.shim_public).unwrap())
}
