//! Who the control plane and the shim are to each other: TLS 1.3 in which each side shows a raw public key
//! (RFC 7250) that the other has pinned. No certificates, no names, no dates; and nothing is resumed, so each
//! connection proves both keys anew.
//!
//! Private keys are PKCS #8, public keys SubjectPublicKeyInfo, both DER.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};

/// The shim's side, with its private key, for the control plane of this public key.
///
/// # Errors
/// If the private key is malformed.
pub fn server(provider: CryptoProvider, key: &[u8], control_plane: &[u8]) -> Result<ServerConfig, Error> {
    let own = Arc::new(own_key(&provider, key)?);
    let peer = Arc::new(PinnedKey::new(&provider, control_plane));
    let mut config = ServerConfig::builder_with_details(Arc::new(provider), Arc::new(Timeless))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(peer)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(own)));
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// The control plane's side, with its private key, for the shim of this public key.
///
/// # Errors
/// If the private key is malformed.
pub fn client(provider: CryptoProvider, key: &[u8], shim: &[u8]) -> Result<ClientConfig, Error> {
    let own = Arc::new(own_key(&provider, key)?);
    let peer = Arc::new(PinnedKey::new(&provider, shim));
    let mut config = ClientConfig::builder_with_details(Arc::new(provider), Arc::new(Timeless))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(peer)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(own)));
    config.resumption = Resumption::disabled();
    // A raw public key has no name to ask for.
    config.enable_sni = false;
    Ok(config)
}

fn own_key(provider: &CryptoProvider, key: &[u8]) -> Result<CertifiedKey, Error> {
    let key = PrivatePkcs8KeyDer::from(key.to_vec());
    let key = provider.key_provider.load_private_key(key.into())?;
    let public = key.public_key().ok_or(Error::General("a private key without its public half".into()))?;
    Ok(CertifiedKey::new(alloc::vec![public.to_vec().into()], key))
}

/// Lets in whoever proves to hold this key, and nobody else.
#[derive(Debug)]
struct PinnedKey {
    public: Vec<u8>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinnedKey {
    fn new(provider: &CryptoProvider, public: &[u8]) -> Self {
        Self { public: public.to_vec(), algorithms: provider.signature_verification_algorithms }
    }

    /// rustls carries raw public keys in the place of certificates.
    fn expect(&self, shown: &CertificateDer<'_>) -> Result<(), Error> {
        if shown.as_ref() == self.public {
            Ok(())
        } else {
            // Apart from what the control plane says to operators' certificates.
            Err(CertificateError::NotValidForName.into())
        }
    }

    fn verify(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }
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
        self.expect(key).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(NOT_TLS13)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ServerCertVerifier for PinnedKey {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.expect(key).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(NOT_TLS13)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Never met: only TLS 1.3 is offered.
const NOT_TLS13: Error = Error::HandshakeNotComplete;

/// rustls wants to know the time, to hand it to verifiers that have no use for it here.
#[derive(Debug)]
struct Timeless;

impl TimeProvider for Timeless {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::ZERO))
    }
}
