//! One certificate.

use alloc::{string::String, vec::Vec};

use der::asn1::ObjectIdentifier;
use der::{Decode, Encode, Tag, Tagged};
use petrel_wire::Digest;
use petrel_wire::operator::{CertificateFault, Policy, Rights, Serial};
use sha2::{Digest as _, Sha256};
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage};
use x509_cert::name::Name;
use x509_cert::time::Time;

use crate::{POLICY_OID, RIGHTS_OID, extension};

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");

/// What a certificate says, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its subject's common name, if it has exactly one that is text.
    pub name: Option<String>,
    /// Its number, given by its issuer.
    pub serial: Serial,
    /// From when on it is valid, in milliseconds since 1970.
    pub not_before_ms: u64,
    /// Until when it is valid, in milliseconds since 1970.
    pub not_after_ms: u64,
    /// The SHA-256 of its SubjectPublicKeyInfo.
    pub key: Digest,
    /// Whether it may sign others.
    pub is_ca: bool,
    /// Whether its holder may be a TLS client.
    pub is_client: bool,
    /// Its policy extension, if it has one.
    pub policy: Result<Option<Policy>, CertificateFault>,
    /// Its rights; all, if it has no extension with them.
    pub rights: Result<Rights, CertificateFault>,
}

impl Certificate {
    /// Reads a certificate (DER).
    ///
    /// # Errors
    /// [`CertificateFault::Malformed`]
    pub fn read(der: &[u8]) -> Result<Self, CertificateFault> {
        let certificate = x509_cert::Certificate::from_der(der).map_err(|_| CertificateFault::Malformed)?;
        let tbs = certificate.tbs_certificate();
        let key = tbs.subject_public_key_info().to_der().map_err(|_| CertificateFault::Malformed)?;
        let extensions = Extensions(tbs.extensions().map_or(&[][..], Vec::as_slice));
        let serial = tbs.serial_number().as_bytes();
        let serial = &serial[serial.iter().take_while(|&&byte| byte == 0).count()..];
        Ok(Self {
            name: only_common_name(tbs.subject()),
            serial: Serial::try_from(serial).map_err(|_| CertificateFault::Malformed)?,
            not_before_ms: milliseconds(tbs.validity().not_before),
            not_after_ms: milliseconds(tbs.validity().not_after),
            key: Digest(Sha256::digest(&key).into()),
            is_ca: extensions.is_ca()?,
            is_client: extensions.is_client()?,
            policy: extensions.policy(),
            rights: extensions.rights(),
        })
    }
}

struct Extensions<'a>(&'a [x509_cert::ext::Extension]);

impl<'a> Extensions<'a> {
    /// The value of the extension `id`, if there is one. RFC 5280 allows no second.
    fn only(
        &self,
        id: ObjectIdentifier,
        twice: CertificateFault,
    ) -> Result<Option<&'a [u8]>, CertificateFault> {
        let mut all = self.0.iter().filter(|extension| extension.extn_id == id);
        match (all.next(), all.next()) {
            (_, Some(_)) => Err(twice),
            (found, None) => Ok(found.map(|extension| extension.extn_value.as_bytes())),
        }
    }

    fn is_ca(&self) -> Result<bool, CertificateFault> {
        let Some(value) = self.only(BASIC_CONSTRAINTS, CertificateFault::Malformed)? else {
            return Ok(false);
        };
        let constraints = BasicConstraints::from_der(value).map_err(|_| CertificateFault::Malformed)?;
        Ok(constraints.ca)
    }

    fn is_client(&self) -> Result<bool, CertificateFault> {
        let Some(value) = self.only(EXTENDED_KEY_USAGE, CertificateFault::Malformed)? else {
            return Ok(false);
        };
        let usage = ExtendedKeyUsage::from_der(value).map_err(|_| CertificateFault::Malformed)?;
        Ok(usage.0.contains(&CLIENT_AUTH))
    }

    fn policy(&self) -> Result<Option<Policy>, CertificateFault> {
        let fault = CertificateFault::Policy;
        self.only(oid(&POLICY_OID, fault)?, fault)?.map(extension::read_policy).transpose()
    }

    fn rights(&self) -> Result<Rights, CertificateFault> {
        let fault = CertificateFault::Rights;
        self.only(oid(&RIGHTS_OID, fault)?, fault)?.map_or(Ok(Rights::ALL), extension::read_rights)
    }
}

/// An object identifier by its arcs; both of ours are well-formed, see the test.
fn oid(arcs: &[u64], fault: CertificateFault) -> Result<ObjectIdentifier, CertificateFault> {
    let arcs: Vec<u32> =
        arcs.iter().copied().map(u32::try_from).collect::<Result<_, _>>().map_err(|_| fault)?;
    ObjectIdentifier::from_arcs(arcs).map_err(|_| fault)
}

fn milliseconds(time: Time) -> u64 {
    u64::try_from(time.to_unix_duration().as_millis()).unwrap_or(u64::MAX)
}

fn only_common_name(subject: &Name) -> Option<String> {
    let mut names = subject.iter().filter(|attribute| attribute.oid == COMMON_NAME);
    let (Some(only), None) = (names.next(), names.next()) else { return None };
    // UTF8String, PrintableString and IA5String are all UTF-8; other kinds are not for labels.
    match only.value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => {
            core::str::from_utf8(only.value.value()).ok().map(String::from)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_identifiers_are_well_formed() {
        use alloc::string::ToString;
        let text = |arcs: &[u64]| oid(arcs, CertificateFault::Malformed).unwrap().to_string();
        assert_eq!(text(&POLICY_OID), "1.3.6.1.4.1.49836.42");
        assert_eq!(
            text(&RIGHTS_OID),
            "1.2.840.113556.1.8000.2554.40804.9692.3148.17385.34912.16528470.5298057"
        );
    }
}
