//! TLS 1.3 to the one peer. Both sides show a raw public key (RFC 7250) that the other has pinned: no certificates,
//! no names, no dates.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use petrel_wire::frame::{self, FrameError, Inbox};
use petrel_wire::shim::{FromShim, Request};
use rustix::event::{PollFd, PollFlags};
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

use crate::about;
use crate::config::Config;

/// With so much waiting to be sent, requests and consoles wait too.
const QUEUE_BYTES_MARK: usize = 256 * 1024;
/// Reads of a socket in one turn of the loop, each of a few KiB.
const READS_PER_TURN: usize = 64;

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

/// The TLS side of the configuration.
pub fn tls_config(config: &Config) -> Result<Arc<ServerConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let key = PrivatePkcs8KeyDer::from(config.key.clone());
    let key = provider.key_provider.load_private_key(key.into());
    let key = key.map_err(about("key: expected PKCS #8 DER"))?;
    let public = key.public_key().ok_or("key: expected one with a public half")?.to_vec();
    let own = Arc::new(CertifiedKey::new(vec![public.into()], key));
    let algorithms = provider.signature_verification_algorithms;
    let peer = Arc::new(PinnedKey { spki: config.control_plane_public_key.clone(), algorithms });
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
    let builder = builder.map_err(about("TLS"))?.with_client_cert_verifier(peer);
    let mut tls = builder.with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(own)));
    // Each connection proves the keys anew.
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(tls))
}

/// A connection, in its handshake or with the peer on it.
pub struct Link {
    socket: TcpStream,
    tls: ServerConnection,
    inbox: Inbox,
    /// Frames to be sent.
    queued: Vec<u8>,
}

impl Link {
    /// Takes a connection that waits.
    pub fn accept(listener: &TcpListener, config: &Arc<ServerConfig>) -> io::Result<Self> {
        let (socket, _) = listener.accept()?;
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let tls = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
        Ok(Self { socket, tls, inbox: Inbox::default(), queued: Vec::new() })
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
    pub fn interest(&self) -> PollFd<'_> {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.has_room());
        flags.set(PollFlags::OUT, self.tls.wants_write());
        PollFd::new(&self.socket, flags)
    }

    /// Takes what has come, and does what TLS itself has to. An error means that the connection is over.
    pub fn read(&mut self) -> io::Result<()> {
        for _ in 0..READS_PER_TURN {
            match self.tls.complete_io(&mut self.socket) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                done => drop(done?),
            }
            // All of it: for what TLS has already, the socket wakes nobody.
            match self.tls.reader().read_to_end(self.inbox.back()) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                end => return end.and(Err(ErrorKind::UnexpectedEof.into())),
            }
        }
        Ok(())
    }

    /// The next request that has come whole.
    pub fn next_request(&mut self) -> Result<Option<Request>, FrameError> {
        self.inbox.next_message()
    }

    /// Queues a message.
    pub fn send(&mut self, message: &FromShim) {
        // The wire's bounds are such that every message fits a frame.
        let _ = frame::encode(message, &mut self.queued);
    }

    /// Sends what is queued, as far as the socket takes it now.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.queued.is_empty() || self.tls.wants_write() {
            let taken = self.tls.writer().write(&self.queued)?;
            self.queued.drain(..taken);
            match self.tls.write_tls(&mut self.socket) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                sent => drop(sent?),
            }
        }
        Ok(())
    }
}
