//! The common name in a certificate.

use alloc::string::String;

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
/// id-at-commonName, 2.5.4.3.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// The last common name of the certificate's subject: the most specific one.
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let mut rest = certificate.subject();
    let mut name = None;
    // Name ::= SEQUENCE OF SET OF SEQUENCE { type, value }; webpki gives the content of the outermost.
    while let Some((SET, mut set, after)) = element(rest) {
        rest = after;
        while let Some((SEQUENCE, attribute, after)) = element(set) {
            set = after;
            name = attribute_value(attribute).or(name);
        }
    }
    name
}

/// The value of an attribute, if it is a common name and a string.
fn attribute_value(attribute: &[u8]) -> Option<String> {
    let (OBJECT_IDENTIFIER, kind, rest) = element(attribute)? else { return None };
    let (UTF8_STRING | PRINTABLE_STRING, value, _) = element(rest)? else { return None };
    (kind == COMMON_NAME).then(|| core::str::from_utf8(value).ok().map(String::from)).flatten()
}

/// The first DER element of `bytes`: its tag, its content, and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => rest.split_first().map(|(&low, rest)| (usize::from(low), rest))?,
        0x82 => rest.split_first_chunk().map(|(two, rest)| (usize::from(u16::from_be_bytes(*two)), rest))?,
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}
