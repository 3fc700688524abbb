//! The control plane's side of one session, on a thread of its own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use petrel_wire::frame::{self, Inbox};
use petrel_wire::operator::{ClientMessage, Request, Response, ServerMessage, Welcome};
use petrel_wire::seal::Seal;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// What a control plane that holds this seal presents and trusts.
pub fn config(seal: &Seal) -> ServerConfig {
    config_of(&seal.service.certificate, &seal.service.key, &seal.service.operators)
}

pub fn config_of(certificate: &[u8], key: &[u8], operators: &[u8]) -> ServerConfig {
    config_with(vec![certificate.to_vec()], key, operators)
}

/// … with further certificates that lead from its own to a root.
pub fn config_with(chain: Vec<Vec<u8>>, key: &[u8], operators: &[u8]) -> ServerConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(operators.to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec()));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.into_iter().map(CertificateDer::from).collect(), key)
        .unwrap();
    config.alpn_protocols = vec![b"petrel/1".to_vec()];
    config
}

/// One session, seen from the control plane.
pub struct Peer {
    stream: StreamOwned<ServerConnection, TcpStream>,
    inbox: Inbox,
}

impl Peer {
    /// The next message, or nothing when the client is gone.
    pub fn try_read(&mut self) -> Option<ClientMessage> {
        loop {
            if let Some(message) = self.inbox.next_message().unwrap() {
                return Some(message);
            }
            let mut bytes = [0; 65536];
            match self.stream.read(&mut bytes) {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.inbox.back().extend_from_slice(&bytes[..read]),
            }
        }
    }

    pub fn read(&mut self) -> (u32, Request) {
        let message = self.try_read().expect("the client ended the session");
        (message.id, message.request)
    }

    pub fn write(&mut self, id: u32, response: Response) {
        let mut bytes = Vec::new();
        frame::encode(&ServerMessage { id, response }, &mut bytes).unwrap();
        self.write_raw(&bytes);
    }

    pub fn write_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    /// Takes the greeting and answers it.
    pub fn greet(&mut self) {
        let (id, request) = self.read();
        assert!(matches!(request, Request::Hello(hello) if hello.oldest <= 1 && hello.newest >= 1));
        self.write(id, Response::Hello(Welcome { version: 1, host: "alpha".parse().unwrap() }));
    }
}

/// Accepts one connection and plays the control plane's part as told.
pub fn serve(
    listener: &TcpListener,
    config: ServerConfig,
    part: impl FnOnce(&mut Peer) + Send + 'static,
) -> JoinHandle<()> {
    let listener = listener.try_clone().unwrap();
    std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let connection = ServerConnection::new(Arc::new(config)).unwrap();
        let mut peer = Peer { stream: StreamOwned::new(connection, socket), inbox: Inbox::default() };
        part(&mut peer);
        peer.stream.conn.send_close_notify();
        let _ = peer.stream.flush();
    })
}

/// The same without TLS.
pub fn serve_plain(listener: &TcpListener, part: impl FnOnce(TcpStream) + Send + 'static) -> JoinHandle<()> {
    let listener = listener.try_clone().unwrap();
    std::thread::spawn(move || part(listener.accept().unwrap().0))
}
