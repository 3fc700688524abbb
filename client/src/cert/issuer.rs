//! A CA that signs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use petrel_certificate::Certificate;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, IsCa, KeyIdMethod, KeyPair,
    PublicKeyData, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use x509_cert::der::asn1::OctetStringRef;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::pem::{LineEnding, encode_string};
use x509_cert::der::{Decode, Tag, Tagged};
use x509_cert::name::Name;

use super::request::{PublicKey, key_pair};
use super::{files, unmade};
use crate::args::Authority;
use crate::failure::Failure;
use crate::keys::{BACKDATED, params};
use crate::units;

const SUBJECT_KEY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");

/// A CA's certificate with its key, and the certificates that lead from it to the root.
pub struct Issuer {
    path: PathBuf,
    certificate: x509_cert::Certificate,
    /// What follows a certificate that it signs: its own and those above, but for the root's.
    above: Vec<CertificateDer<'static>>,
    key: KeyPair,
    not_after_ms: u64,
}

impl Issuer {
    /// Reads a CA's files.
    pub fn load(files: &Authority) -> Result<Self, Failure> {
        let path = &files.ca;
        let mut above = files::certificates(path)?;
        let not = |why| files::unusable(path, why);
        let certificate = x509_cert::Certificate::from_der(&above[0]);
        let certificate = certificate.map_err(|_| not("its certificate is malformed"))?;
        let says = Certificate::read(&above[0]).map_err(|_| not("its certificate is malformed"))?;
        if !says.is_ca {
            return Err(not("its first certificate is not a CA's"));
        }
        let key_path = files.ca_key.clone().unwrap_or_else(|| key_beside(path));
        let key = key_pair(&key_path)?;
        let public = PublicKey::new(certificate.tbs_certificate().subject_public_key_info());
        if public.is_none_or(|public| public.der_bytes() != key.der_bytes()) {
            return Err(files::unusable(&key_path, "it is not the key of the CA's certificate"));
        }
        // The root is known to the host, and no part of what an operator shows.
        above.retain(|der| !is_root(der));
        Ok(Self { path: path.clone(), certificate, above, key, not_after_ms: says.not_after_ms })
    }

    /// Signs a certificate for `key`. Returns it and those above it, in PEM.
    pub fn sign(&self, mut params: CertificateParams, key: &PublicKey) -> Result<String, Failure> {
        params.use_authority_key_identifier_extension = self.key_identifier().is_some();
        self.issue(params, key).map(|(_, chain)| chain)
    }

    /// Signs a certificate that has its extensions already. Returns it, and all as [`Self::sign`] does.
    fn issue(
        &self,
        mut params: CertificateParams,
        key: &PublicKey,
    ) -> Result<(x509_cert::Certificate, String), Failure> {
        self.check_valid()?;
        // A certificate is good for nothing once its CA's has expired.
        let end = date_time_ymd(1970, 1, 1) + Duration::from_millis(self.not_after_ms);
        params.not_after = params.not_after.min(end);
        let subject = self.certificate.tbs_certificate().subject();
        let mut own = CertificateParams::default();
        own.distinguished_name = distinguished_name(subject).ok_or_else(|| odd_name(&self.path))?;
        own.key_identifier_method = KeyIdMethod::PreSpecified(self.key_identifier().unwrap_or_default());
        let signed = params.signed_by(key, &rcgen::Issuer::from_params(&own, &self.key));
        let signed = signed.map_err(|error| unmade(&error))?;
        let made = x509_cert::Certificate::from_der(signed.der()).map_err(|_| odd_name(&self.path))?;
        // The names must be the same to the byte, or no chain holds together.
        if made.tbs_certificate().issuer() != subject {
            return Err(odd_name(&self.path));
        }
        let chain = std::iter::once(signed.pem()).chain(self.above.iter().map(pem)).collect();
        Ok((made, chain))
    }

    /// Signs the first certificate in a file anew.
    pub fn renew(&self, path: &Path, validity: Option<Duration>) -> Result<String, Failure> {
        let not = |why| files::unusable(path, why);
        let der = files::certificates(path)?.swap_remove(0);
        let old = x509_cert::Certificate::from_der(&der).map_err(|_| not("its certificate is malformed"))?;
        let says = Certificate::read(&der).map_err(|_| not("its certificate is malformed"))?;
        let tbs = old.tbs_certificate();
        let ours = PublicKey::new(self.certificate.tbs_certificate().subject_public_key_info());
        if !ours.is_some_and(|ours| ours.has_signed_certificate(&old)) {
            return Err(not("another CA has signed it"));
        }
        let key =
            PublicKey::new(tbs.subject_public_key_info()).ok_or_else(|| not("its key is not Ed25519"))?;
        let lasted = Duration::from_millis(says.not_after_ms.saturating_sub(says.not_before_ms));
        let mut renewed = params("", validity.unwrap_or(lasted.saturating_sub(BACKDATED)))
            .map_err(|error| unmade(&error))?;
        renewed.distinguished_name = distinguished_name(tbs.subject()).ok_or_else(|| odd_name(path))?;
        renewed.is_ca = IsCa::NoCa;
        // All that it says, as it says it.
        for extension in tbs.extensions().into_iter().flatten() {
            let arcs: Vec<u64> = extension.extn_id.arcs().map(u64::from).collect();
            let mut copy = CustomExtension::from_oid_content(&arcs, extension.extn_value.as_bytes().to_vec());
            copy.set_criticality(extension.critical);
            renewed.custom_extensions.push(copy);
        }
        let (made, chain) = self.issue(renewed, &key)?;
        if made.tbs_certificate().subject() != tbs.subject() {
            return Err(odd_name(path));
        }
        Ok(chain)
    }

    fn check_valid(&self) -> Result<(), Failure> {
        if self.not_after_ms > units::now_ms() {
            return Ok(());
        }
        Err(Failure::local(
            format!("the CA's certificate in {} has expired", self.path.display()),
            "one that is valid",
            "have it renewed by who signed it",
        ))
    }

    fn key_identifier(&self) -> Option<Vec<u8>> {
        let extensions = self.certificate.tbs_certificate().extensions()?;
        let found = extensions.iter().find(|extension| extension.extn_id == SUBJECT_KEY_IDENTIFIER)?;
        let identifier = <&OctetStringRef>::from_der(found.extn_value.as_bytes()).ok()?;
        Some(identifier.as_bytes().to_vec())
    }
}

/// `ca-key.pem` for `ca.pem`.
fn key_beside(path: &Path) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push("-key.pem");
    path.with_file_name(name)
}

/// Whether a certificate names its own subject as its issuer and its own key has signed it, as far as that can be told:
/// a CA may be called as the one above it.
pub fn is_root(der: &CertificateDer<'_>) -> bool {
    let Ok(certificate) = x509_cert::Certificate::from_der(der) else { return false };
    let tbs = certificate.tbs_certificate();
    let key = PublicKey::new(tbs.subject_public_key_info());
    tbs.issuer() == tbs.subject() && key.is_none_or(|key| key.has_signed_certificate(&certificate))
}

/// A name in the library's form, if it has one for it: one attribute in each part, of the usual kinds of text.
fn distinguished_name(name: &Name) -> Option<DistinguishedName> {
    let mut made = DistinguishedName::new();
    for part in name.iter_rdn() {
        let mut attributes = part.iter();
        let (attribute, None) = (attributes.next()?, attributes.next()) else { return None };
        let kind = DnType::CustomDnType(attribute.oid.arcs().map(u64::from).collect());
        let text = String::from_utf8(attribute.value.value().to_vec()).ok()?;
        let text = match attribute.value.tag() {
            Tag::Utf8String => DnValue::Utf8String(text),
            Tag::PrintableString => DnValue::PrintableString(text.try_into().ok()?),
            Tag::Ia5String => DnValue::Ia5String(text.try_into().ok()?),
            _ => return None,
        };
        made.push(kind, text);
    }
    Some(made)
}

fn odd_name(path: &Path) -> Failure {
    files::unusable(path, "the name in it is of a kind that this program cannot write")
}

fn pem(der: &CertificateDer<'static>) -> String {
    // It fails for lengths that no file here has.
    encode_string("CERTIFICATE", LineEnding::LF, der).unwrap_or_default()
}
