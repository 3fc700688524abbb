//! Requests for certificates: PKCS #10.

use std::path::Path;

use petrel_wire::Label;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ED25519, PublicKeyData, SignatureAlgorithm,
};
use ring::signature::{ED25519, UnparsedPublicKey};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use x509_cert::Certificate;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::request::CertReq;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::{files, unmade};
use crate::failure::Failure;
use crate::keys::new_key;

/// RFC 8410's id-Ed25519.
pub const ID_ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A request, and that whoever made it has the key.
pub struct CertificateRequest {
    /// Who asks, if it is said.
    pub name: Option<String>,
    /// The key to be certified.
    pub key: PublicKey,
}

/// An Ed25519 public key, as it stands in a certificate.
pub struct PublicKey(Vec<u8>);

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl PublicKey {
    /// Reads a key, if it is of this one kind.
    pub fn new(info: &SubjectPublicKeyInfoOwned) -> Option<Self> {
        let bytes = info.subject_public_key.as_bytes()?;
        (info.algorithm.oid == ID_ED25519).then(|| Self(bytes.to_vec()))
    }

    /// Whether its owner has signed `message`.
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }

    /// Whether its owner has signed `certificate`.
    pub fn has_signed_certificate(&self, certificate: &Certificate) -> bool {
        let signed = certificate.tbs_certificate().to_der().unwrap_or_default();
        self.has_signed(&signed, certificate.signature().as_bytes().unwrap_or_default())
    }
}

/// Makes a request, and a key for it unless one is given. Says what was made.
pub fn make(name: &Label, key: Option<&Path>, folder: &Path) -> Result<String, Failure> {
    let key_path = folder.join(format!("{name}-key.pem"));
    let csr_path = folder.join(format!("{name}.csr"));
    let pair = match key {
        Some(path) => key_pair(path)?,
        None => new_key().map_err(|error| unmade(&error))?,
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, &**name);
    let csr = params.serialize_request(&pair).and_then(|csr| csr.pem()).map_err(|error| unmade(&error))?;
    let mut said = String::new();
    if key.is_none() {
        files::write_new(&key_path, pair.serialize_pem().as_bytes())?;
        said = format!("{}  the key: keep it, and show it to nobody\n", key_path.display());
    }
    files::write_new(&csr_path, csr.as_bytes())?;
    Ok(said + &format!("{}  the request: send it to who signs\n", csr_path.display()))
}

/// The private key in a file.
pub fn key_pair(path: &Path) -> Result<KeyPair, Failure> {
    let text = String::from_utf8(files::read(path)?).unwrap_or_default();
    let pair = KeyPair::from_pem_and_sign_algo(&text, &PKCS_ED25519);
    pair.map_err(|_| files::unusable(path, "it holds no Ed25519 key in PKCS #8"))
}

impl CertificateRequest {
    /// Reads a request and verifies its signature.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let not = |why| files::unusable(path, why);
        let der = CertificateSigningRequestDer::from_pem_slice(&files::read(path)?);
        let der = der.map_err(|_| not("it holds no certificate request in PEM"))?;
        let request = CertReq::from_der(&der).map_err(|_| not("the request is malformed"))?;
        let key = PublicKey::new(&request.info.public_key);
        let key = key.ok_or_else(|| not("its key is not Ed25519, the one kind that control planes take"))?;
        let signed = request.info.to_der().unwrap_or_default();
        if !key.has_signed(&signed, request.signature.as_bytes().unwrap_or_default()) {
            return Err(not("its signature is not by the key that it asks to be certified"));
        }
        let name = request.info.subject.common_name().ok().flatten();
        Ok(Self { name: name.map(|name| name.value().into_owned()), key })
    }
}
