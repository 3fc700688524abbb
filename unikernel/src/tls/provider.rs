//! The cryptography behind TLS: one suite, one group, one signature.
//!
//! TLS_AES_128_GCM_SHA256 is the suite that every TLS 1.3 peer must have (RFC 8446, section 9.1); keys and
//! certificates are Ed25519. What no peer needs is left out, as attack surface and as bytes of the image.
//!
//! This is glue between rustls and the crates of RustCrypto and dalek, which find the CPU's AES, SHA and vector
//! instructions by CPUID. Entropy is the CPU's, by way of Solo5's bindings.

use alloc::sync::Arc;

use rustls::crypto::tls13::HkdfUsingHmac;
use rustls::crypto::{CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::SigningKey;
use rustls::{
    CipherSuite, CipherSuiteCommon, Error, SignatureScheme, SupportedCipherSuite, Tls13CipherSuite,
};

use super::aead::Aes128GcmSuite;
use super::ed25519::{Ed25519Key, VERIFIER};
use super::sha256::{HmacSha256, Sha256Hash};
use super::x25519::X25519;

pub(super) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: alloc::vec![SupportedCipherSuite::Tls13(&AES_128_GCM_SHA256)],
        kx_groups: alloc::vec![&X25519],
        signature_verification_algorithms: SIGNATURES,
        secure_random: &Entropy,
        key_provider: &Ed25519Keys,
    }
}

pub(super) const SIGNATURES: WebPkiSupportedAlgorithms =
    WebPkiSupportedAlgorithms { all: &[VERIFIER], mapping: &[(SignatureScheme::ED25519, &[VERIFIER])] };

static AES_128_GCM_SHA256: Tls13CipherSuite = Tls13CipherSuite {
    common: CipherSuiteCommon {
        suite: CipherSuite::TLS13_AES_128_GCM_SHA256,
        hash_provider: &Sha256Hash,
        // Records under one key: RFC 8446, section 5.5.
        confidentiality_limit: 1 << 24,
    },
    hkdf_provider: &HkdfUsingHmac(&HmacSha256),
    aead_alg: &Aes128GcmSuite,
    quic: None,
};

#[derive(Debug)]
struct Entropy;

impl SecureRandom for Entropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        solo5::entropy::fill(bytes);
        Ok(())
    }
}

#[derive(Debug)]
struct Ed25519Keys;

impl KeyProvider for Ed25519Keys {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Ok(Arc::new(Ed25519Key::from_pkcs8(key.secret_der())?))
    }
}
