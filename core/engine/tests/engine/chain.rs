//! Certificates of operators, real but for who signed them: TLS verifies that, not the engine.

use std::sync::OnceLock;

use petrel_certificate::{POLICY_OID, RIGHTS_OID, policy_extension, rights_extension};
use petrel_wire::operator::{Policy, Rights};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, SerialNumber, date_time_ymd,
};

/// What one certificate of a chain shall say.
#[derive(Clone, Default)]
pub struct Says {
    pub name: String,
    pub serial: u64,
    pub policy: Option<Policy>,
    pub rights: Option<Rights>,
    /// The year at whose beginning it expires; 2099 when absent.
    pub until: Option<i32>,
}

pub fn says(name: &str) -> Says {
    Says { name: name.into(), serial: 7, ..Says::default() }
}

/// A chain as TLS has it, of CAs from the root downwards and the operator.
pub fn chain(certificates: &[Says]) -> Vec<Vec<u8>> {
    let last = certificates.len() - 1;
    certificates.iter().enumerate().rev().map(|(i, says)| certificate(says, i < last)).collect()
}

pub fn certificate(says: &Says, is_ca: bool) -> Vec<u8> {
    static KEY: OnceLock<KeyPair> = OnceLock::new();
    certificate_for(KEY.get_or_init(|| KeyPair::generate().unwrap()), says, is_ca)
}

/// A certificate for a key of its own.
pub fn certificate_for(key: &KeyPair, says: &Says, is_ca: bool) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, says.name.as_str());
    params.serial_number = Some(SerialNumber::from(says.serial));
    params.not_after = date_time_ymd(says.until.unwrap_or(2099), 1, 1);
    let policy = says.policy.as_ref().map(|policy| (&POLICY_OID[..], policy_extension(policy).unwrap()));
    let rights = says.rights.map(|rights| (&RIGHTS_OID[..], rights_extension(rights)));
    let extensions = policy.into_iter().chain(rights);
    params.custom_extensions =
        extensions.map(|(oid, value)| CustomExtension::from_oid_content(oid, value)).collect();
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    } else {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    }
    params.self_signed(key).unwrap().der().to_vec()
}

/// The chain of an operator who may do everything everywhere.
pub fn plain() -> &'static [Vec<u8>] {
    static PLAIN: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    PLAIN.get_or_init(|| chain(&[says("alice")]))
}
