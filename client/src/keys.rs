//! Keys and certificates, all Ed25519.
//!
//! One CA signs the host's certificate and the operators'; extended key usage keeps the two apart, so that an
//! operator cannot pose as the host.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use petrel_wire::Label;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, Error,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType,
    SerialNumber, date_time_ymd,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::PrivatePkcs8KeyDer;

/// A day.
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const AUTHORITY_VALIDITY: Duration = DAY.saturating_mul(3652);
const LEAF_VALIDITY: Duration = DAY.saturating_mul(365);
/// Clocks differ: certificates are valid from a little before they are made.
pub const BACKDATED: Duration = Duration::from_secs(60 * 60);
/// RFC 5280 asks for at most 20; 16 random ones never meet again.
const SERIAL_BYTES: usize = 16;
/// PKCS #8 version 1, algorithm 1.3.101.112, an octet string in an octet string of 32 bytes.
const PKCS8_ED25519_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// The CA of a host's operators.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its private key.
pub struct Identity {
    /// The certificate.
    pub certificate: Certificate,
    /// Its key.
    pub key: KeyPair,
}

/// A raw key of the link between shim and control plane.
pub struct LinkKey {
    /// PKCS #8 DER.
    pub private: Vec<u8>,
    /// SubjectPublicKeyInfo DER.
    pub public: Vec<u8>,
}

impl Authority {
    /// Makes the CA of one host's operators.
    pub fn new(host: &Label) -> Result<Self, Error> {
        let mut params = params(&format!("Petrel operators of {host}"), AUTHORITY_VALIDITY)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        CertifiedIssuer::self_signed(params, new_key()?).map(Self)
    }

    /// The host's certificate, for its name and its address, if that is known.
    pub fn server(&self, host: &Label, address: Option<Ipv4Addr>) -> Result<Identity, Error> {
        let mut names = vec![SanType::DnsName(host.to_string().try_into()?)];
        names.extend(address.map(|address| SanType::IpAddress(IpAddr::V4(address))));
        self.leaf(host, names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// An operator's certificate.
    pub fn operator(&self) -> Result<Identity, Error> {
        self.leaf("operator", Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// The CA's certificate.
    pub fn certificate_pem(&self) -> String {
        self.0.pem()
    }

    /// The CA's certificate.
    pub fn certificate_der(&self) -> &[u8] {
        self.0.der()
    }

    /// The CA's private key, PKCS #8.
    pub fn key_pem(&self) -> String {
        self.0.key().serialize_pem()
    }

    fn leaf(
        &self,
        name: &str,
        names: Vec<SanType>,
        purpose: ExtendedKeyUsagePurpose,
    ) -> Result<Identity, Error> {
        let mut params = params(name, LEAF_VALIDITY)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        let key = new_key()?;
        Ok(Identity { certificate: params.signed_by(&key, &self.0)?, key })
    }
}

impl LinkKey {
    /// Makes a key.
    pub fn new() -> Result<Self, Error> {
        let key = new_key()?;
        Ok(Self { private: key.serialize_der(), public: key.subject_public_key_info() })
    }
}

/// An Ed25519 key as RFC 8410 writes it: ring's own form appends the public key, and OpenSSL does not read that.
pub fn new_key() -> Result<KeyPair, Error> {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| Error::RingUnspecified)?;
    let der = [&PKCS8_ED25519_PREFIX[..], &seed].concat();
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519)
}

/// A certificate to be for `name` and this long.
pub fn params(name: &str, validity: Duration) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| Error::Time)?;
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(now.as_secs());
    params.not_before = now - BACKDATED;
    let end = validity.try_into().ok().and_then(|validity| now.checked_add(validity));
    params.not_after = end.unwrap_or(date_time_ymd(9999, 12, 31));
    let mut serial = [0; SERIAL_BYTES];
    SystemRandom::new().fill(&mut serial).map_err(|_| Error::RingUnspecified)?;
    // Positive, and never with a leading zero byte, so that its encoding has one length.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}
