//! TLS 1.3 to the one peer. Both sides show a raw public key (RFC 7250) that the other has pinned: no certificates,
//! no names, no dates.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use petrel_wire::frame;
use petrel_wire::shim::{FromShim, Request};
use rustix::event::PollFlags;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, ServerConnection,
    SignatureScheme, version::TLS13,
};

use crate::config::Config;

/// With so much waiting to be sent, requests and consoles wait too.
const QUEUE_BYTES_MARK: usize = 256 * 1024;
/// Reads of a socket in one turn of the loop, each of a few KiB.
const READS_PER_TURN: usize = 64;
/// Connections that may wait to be accepted: the peer makes one at a time.
const BACKLOG: i32 = 8;
/// A peer that has not shown its key by then is let go.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);

/// Lets in whoever has the pinned key, and nobody else.
#[derive(Debug)]
struct PinnedKey {
    /// The whole SubjectPublicKeyInfo.
    spki: Vec<u8>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for PinnedKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if key.as_ref() == self.spki {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::HandshakeNotComplete) // never called: TLS 1.2 is not compiled in
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The TLS side of the configuration. The error is a sentence with the key of the configuration.
pub fn tls_config(config: &Config) -> Result<Arc<ServerConfig>, String> {
    let spki = fs::read(&config.control_plane_public_key)
        .map_err(|error| format!("control_plane_public_key: {error}"))?;
    let provider = Arc::new(ring::default_provider());
    let key = fs::read(&config.key).map_err(|error| format!("key: {error}"))?;
    let key = provider.key_provider.load_private_key(PrivatePkcs8KeyDer::from(key).into());
    let key = key.map_err(|error| format!("key: expected PKCS #8 DER: {error}"))?;
    let public = key.public_key().ok_or("key: expected one with a public half")?.to_vec();
    let own = Arc::new(CertifiedKey::new(vec![public.into()], key));
    let peer = Arc::new(PinnedKey { spki, algorithms: provider.signature_verification_algorithms });
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
    let builder = builder.map_err(|error| error.to_string())?.with_client_cert_verifier(peer);
    let mut tls = builder.with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(own)));
    // Each connection proves the keys anew.
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(tls))
}

/// Listens for the peer, also while its tap is not there: a control plane that an earlier shim has started holds the
/// tap, and it may be about to end.
pub fn listen(address: SocketAddrV4) -> io::Result<TcpListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_ip_freebind(&socket, true)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, &address)?;
    net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// A connection, in its handshake or with the peer on it.
pub struct Link {
    socket: TcpStream,
    tls: ServerConnection,
    /// Frames received; the first `handled` bytes are done with.
    received: Vec<u8>,
    handled: usize,
    /// Frames to be sent.
    queued: Vec<u8>,
    /// When the handshake has to be done.
    pub deadline: Instant,
}

impl Link {
    /// Takes a connection that waits.
    pub fn accept(listener: &TcpListener, config: &Arc<ServerConfig>) -> io::Result<Self> {
        let (socket, _) = listener.accept()?;
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let tls = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
        let deadline = Instant::now() + HANDSHAKE_TIME_MAX;
        Ok(Self { socket, tls, received: Vec::new(), handled: 0, queued: Vec::new(), deadline })
    }

    /// Whether the peer has shown the pinned key.
    pub fn is_authenticated(&self) -> bool {
        !self.tls.is_handshaking()
    }

    /// Whether more may be queued; if not, nothing is read either.
    pub fn has_room(&self) -> bool {
        self.queued.len() < QUEUE_BYTES_MARK
    }

    /// What the link waits for.
    pub fn interest(&self) -> (BorrowedFd<'_>, PollFlags) {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.has_room());
        flags.set(PollFlags::OUT, self.tls.wants_write());
        (self.socket.as_fd(), flags)
    }

    /// Takes what has come. An error means that the connection is over.
    pub fn read(&mut self) -> io::Result<()> {
        for _ in 0..READS_PER_TURN {
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            let state =
                self.tls.process_new_packets().inspect_err(|_| drop(self.tls.write_tls(&mut self.socket)));
            let plaintext = state.map_err(io::Error::other)?.plaintext_bytes_to_read() as u64;
            self.tls.reader().take(plaintext).read_to_end(&mut self.received)?;
        }
        Ok(())
    }

    /// The next request that has come whole.
    pub fn next_request(&mut self) -> Result<Option<Request>, frame::FrameError> {
        match frame::split(&self.received[self.handled..])? {
            Some((payload, taken)) => {
                let request = frame::decode(payload)?;
                self.handled += taken;
                Ok(Some(request))
            }
            None => {
                self.received.drain(..self.handled);
                self.handled = 0;
                Ok(None)
            }
        }
    }

    /// Queues a message.
    pub fn send(&mut self, message: &FromShim) {
        // The wire's bounds are such that every message fits a frame.
        let _ = frame::encode(message, &mut self.queued);
    }

    /// Sends what is queued, as far as the socket takes it now.
    pub fn flush(&mut self) -> io::Result<()> {
        loop {
            while self.tls.wants_write() {
                match self.tls.write_tls(&mut self.socket) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            if self.queued.is_empty() || !self.is_authenticated() {
                return Ok(());
            }
            let taken = self.tls.writer().write(&self.queued)?;
            self.queued.drain(..taken);
        }
    }
}
