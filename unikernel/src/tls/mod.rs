//! One TLS 1.3 connection without I/O: ciphertext in, plaintext out, and the other way round.
//!
//! rustls is used through its unbuffered interface, the one that it has without `std`. Its names appear
//! nowhere outside this module.

mod aead;
mod channel;
mod ed25519;
mod failure;
mod operators;
mod provider;
mod sha256;
mod subject;
mod x25519;

#[cfg(test)]
pub(crate) mod tests;

use alloc::sync::Arc;
use alloc::{boxed::Box, string::String, vec::Vec};
use core::time::Duration;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{
    CertificateDer, IpAddr, Ipv4Addr, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime,
};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, UnbufferedServerConnection};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, Error, RootCertStore, ServerConfig};

pub use channel::{SecureChannel, State};
pub use failure::Failure;

/// The protocol that operators speak inside TLS.
pub const ALPN: &[u8] = b"petrel/1";

/// Tells the time since 1970, to judge whether certificates are valid.
pub type WallClock = fn() -> Duration;

/// Which part of the seal cannot be used, and why.
#[derive(Debug)]
pub struct SetupError {
    /// Which part.
    pub part: &'static str,
    /// Why, in the words of the library.
    pub reason: String,
}

impl SetupError {
    fn at(part: &'static str) -> impl Fn(Error) -> Self {
        move |error| Self { part, reason: alloc::format!("{error}") }
    }
}

impl core::fmt::Display for SetupError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "the seal's {} cannot be used: {}", self.part, self.reason)
    }
}

impl core::error::Error for SetupError {}

/// The side that operators connect to: X.509 both ways.
pub struct OperatorsServer(Arc<ServerConfig>);

impl OperatorsServer {
    /// A server with this certificate and key (DER) for the clients whose certificates chain to the CA
    /// certificate `operators`.
    ///
    /// # Errors
    /// If one of the three is malformed, or the key is not the certificate's.
    pub fn new(
        certificate: &[u8],
        key: &[u8],
        operators: &[u8],
        clock: WallClock,
    ) -> Result<Self, SetupError> {
        let provider = Arc::new(provider::provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificate_der(operators)).map_err(SetupError::at("operators' CA certificate"))?;
        let key = CertifiedKey::from_der(
            alloc::vec![certificate_der(certificate)],
            private_key_der(key),
            &provider,
        )
        .map_err(SetupError::at("server certificate or key"))?;
        let mut config = ServerConfig::builder_with_details(provider, Arc::new(Clock(clock)))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(SetupError::at("server certificate or key"))?
            .with_client_cert_verifier(Arc::new(operators::OperatorsCa::new(roots)))
            .with_cert_resolver(Arc::new(OnlyWithAlpn(Arc::new(key))));
        config.alpn_protocols = alloc::vec![ALPN.to_vec()];
        // No resumption: each session proves its certificate anew, and nothing is kept for those that ended.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self(Arc::new(config)))
    }

    /// The server's end of a new connection.
    ///
    /// # Errors
    /// None in practice; rustls reserves the right.
    pub fn accept(&self) -> Result<SecureChannel, Failure> {
        let connection = UnbufferedServerConnection::new(self.0.clone())?;
        Ok(SecureChannel::server(Box::new(connection)))
    }
}

/// The side that connects to the shim: raw public keys (RFC 7250), the shim's pinned.
pub struct LinkClient(Arc<ClientConfig>);

impl LinkClient {
    /// A client with the private key `key` (PKCS #8 DER) for the server whose SubjectPublicKeyInfo (DER) is
    /// `server_public_key`.
    ///
    /// # Errors
    /// If the key is malformed.
    pub fn new(key: &[u8], server_public_key: &[u8]) -> Result<Self, SetupError> {
        let config = petrel_link::client(provider::provider(), key, server_public_key);
        Ok(Self(Arc::new(config.map_err(SetupError::at("link key"))?)))
    }

    /// The client's end of a new connection.
    ///
    /// # Errors
    /// When there is no entropy.
    pub fn connect(&self) -> Result<SecureChannel, Failure> {
        let nameless = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0; 4])));
        let connection = UnbufferedClientConnection::new(self.0.clone(), nameless)?;
        Ok(SecureChannel::client(Box::new(connection)))
    }
}

/// rustls goes on with a client that offers no ALPN at all, so the certificate is kept from such a client.
#[derive(Debug)]
struct OnlyWithAlpn(Arc<CertifiedKey>);

impl ResolvesServerCert for OnlyWithAlpn {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        hello.alpn().is_some().then(|| self.0.clone())
    }
}

#[derive(Debug)]
struct Clock(WallClock);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch((self.0)()))
    }
}

fn certificate_der(bytes: &[u8]) -> CertificateDer<'static> {
    CertificateDer::from(bytes.to_vec())
}

fn private_key_der(bytes: &[u8]) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(bytes.to_vec()))
}

/// Who is at the other end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The common name of the certificate's subject; empty if it has none, or for a raw public key.
    pub name: String,
    /// The certificates of the path that was verified, from the peer's own upwards and without the CA that is trusted
    /// here, DER; or the raw public key.
    pub chain: Vec<Vec<u8>>,
}
