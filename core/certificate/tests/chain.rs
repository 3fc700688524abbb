//! Chains of real certificates, made by another library.

use petrel_certificate::{Certificate, Chain, POLICY_OID, RIGHTS_OID, policy_extension, rights_extension};
use petrel_wire::List;
use petrel_wire::operator::{CertificateFault as Fault, Policy, Rights};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, PKCS_ED25519, SerialNumber, date_time_ymd,
};

const READ: Rights = Rights { read: true, operate: false, delegate: false };
const READ_OPERATE: Rights = Rights { read: true, operate: true, delegate: false };

fn policy(unikernels: u32) -> Policy {
    Policy {
        unikernels: Some(unikernels),
        memory_mib: Some(64),
        cpus: Some(vec![0].try_into().unwrap()),
        volume_mib: Some(0),
        bridges: Some(List::new()),
    }
}

fn with_policy(policy: &Policy) -> (&'static [u64], Vec<u8>) {
    (&POLICY_OID, policy_extension(policy).unwrap())
}

fn with_rights(rights: Rights) -> (&'static [u64], Vec<u8>) {
    (&RIGHTS_OID, rights_extension(rights))
}

/// A certificate to be made: its common name, what else it carries, and the year until which it is valid.
struct Made<'a>(&'a str, Vec<(&'static [u64], Vec<u8>)>, i32);

/// A chain, the outermost CA first, the operator last; returned as TLS has it.
fn chain(certificates: &[Made<'_>]) -> Vec<Vec<u8>> {
    let root = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut issuer = Issuer::new(params("Petrel operators of alpha", true, 2099), root);
    let mut chain = Vec::new();
    for (i, Made(name, extensions, year)) in certificates.iter().enumerate() {
        let mut params = params(name, i + 1 < certificates.len(), *year);
        params.serial_number = Some(SerialNumber::from(100 + i as u64));
        params.custom_extensions = extensions
            .iter()
            .map(|(oid, value)| CustomExtension::from_oid_content(oid, value.clone()))
            .collect();
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        chain.push(params.signed_by(&key, &issuer).unwrap().der().to_vec());
        issuer = Issuer::new(params, key);
    }
    chain.reverse();
    chain
}

fn params(name: &str, is_ca: bool, year: i32) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_after = date_time_ymd(year, 1, 1);
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    } else {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    }
    params
}

#[test]
fn an_operator_of_the_root_has_no_scope_and_all_rights() {
    let read = Chain::read(&chain(&[Made("ada", vec![], 2050)])).unwrap();
    assert_eq!((&*read.name, read.scope.is_root(), read.rights), ("ada", true, Rights::ALL));
    assert_eq!((read.policies.len(), read.not_after_ms), (0, 2_524_608_000_000));
}

#[test]
fn labels_policies_and_rights_come_together_from_the_root_downwards() {
    let read = Chain::read(&chain(&[
        Made("acme", vec![with_policy(&policy(9)), with_rights(READ_OPERATE)], 2050),
        Made("web", vec![], 2040),
        Made("blog", vec![with_policy(&policy(3))], 2045),
        Made("Ada Lovelace", vec![with_rights(Rights { operate: false, ..Rights::ALL })], 2060),
    ]))
    .unwrap();
    assert_eq!((&*read.name, read.scope.labels()), ("Ada Lovelace", "acme:web:blog"));
    let paths: Vec<_> =
        read.policies.iter().map(|(path, policy)| (path.labels(), policy.unikernels)).collect();
    assert_eq!(paths, [("acme", Some(9)), ("acme:web:blog", Some(3))]);
    assert_eq!(read.rights, READ);
    assert_eq!(read.not_after_ms, 2_208_988_800_000, "the first to expire");
    let links: Vec<_> = read.links.iter().map(|link| (link.issuer.labels(), &*link.serial)).collect();
    assert_eq!(links, [("acme:web:blog", &[103][..]), ("acme:web", &[102]), ("acme", &[101]), ("", &[100])]);
}

#[test]
fn what_opens_no_session_is_named_with_its_place() {
    let fault = |made: &[Made<'_>]| Chain::read(&chain(made)).unwrap_err();
    let ada = || Made("ada", vec![], 2050);
    assert_eq!(fault(&[Made("Acme Inc.", vec![], 2050), ada()]), (1, Fault::Label));
    assert_eq!(fault(&[Made("a:b", vec![], 2050), ada()]), (1, Fault::Label));
    let long = "x".repeat(63);
    let deep: Vec<_> = (0..3).map(|_| Made(&long, vec![], 2050)).chain([ada()]).collect();
    assert_eq!(fault(&deep), (1, Fault::Depth));
    let junk = || (&POLICY_OID[..], b"junk".to_vec());
    assert_eq!(fault(&[Made("a", vec![], 2050), Made("b", vec![junk()], 2050), ada()]), (1, Fault::Policy));
    assert_eq!(fault(&[Made("a", vec![junk()], 2050), Made("b", vec![], 2050), ada()]), (2, Fault::Policy));
    let twice = vec![with_policy(&policy(1)), with_policy(&policy(9))];
    assert_eq!(fault(&[Made("a", twice, 2050), ada()]), (1, Fault::Policy));
    let rights = vec![(&RIGHTS_OID[..], b"junk".to_vec())];
    assert_eq!(fault(&[Made("ada", rights, 2050)]), (0, Fault::Rights));
    assert_eq!(fault(&[Made("ada", vec![with_policy(&policy(1))], 2050)]), (0, Fault::Command));
    let server = chain(&[Made("a", vec![], 2050), ada()]).pop().unwrap();
    assert_eq!(Chain::read(&[server]).unwrap_err(), (0, Fault::Purpose));
    assert_eq!(Chain::read::<Vec<u8>>(&[]).unwrap_err(), (0, Fault::Malformed));
    let many: Vec<_> = (0..7).map(|_| Made("a", vec![], 2050)).chain([ada()]).collect();
    assert_eq!(fault(&many), (0, Fault::Malformed), "more than any path has");
}

#[test]
fn damaged_certificates_are_read_or_refused_and_nothing_else() {
    let made = chain(&[
        Made("acme", vec![with_policy(&policy(9)), with_rights(READ)], 2050),
        Made("ada", vec![], 2050),
    ]);
    let mut refused = 0;
    for (which, certificate) in made.iter().enumerate() {
        for at in 0..certificate.len() {
            for flip in [1, 0x20, 0x80, 0xff] {
                let mut damaged = made.clone();
                damaged[which][at] ^= flip;
                refused += usize::from(Chain::read(&damaged).is_err());
            }
            assert!(Certificate::read(&certificate[..at]).is_err());
        }
    }
    assert!(refused > 500, "{refused}");
}
