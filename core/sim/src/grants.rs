//! The certificate of a simulated operator. What TLS verifies is no part of the simulation; what a certificate says is
//! read by the engine, so it is a real one.

use std::sync::OnceLock;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};

/// The chain of an operator directly below the operators' CA, who may do everything. Its bytes differ from run to run,
/// what it says does not.
pub fn chain() -> Vec<Vec<u8>> {
    static CHAIN: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    CHAIN.get_or_init(make).clone()
}

fn make() -> Vec<Vec<u8>> {
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = KeyPair::generate().and_then(|key| params.self_signed(&key));
    vec![certificate.expect("this machine has randomness").der().to_vec()]
}
