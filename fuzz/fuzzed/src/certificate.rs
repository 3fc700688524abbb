//! A certificate (DER), and the two extensions that are ours to read.

use petrel_certificate::{
    Certificate, Chain, POLICY_OID, RIGHTS_OID, policy_extension, read_policy, read_rights, rights_extension,
};
use petrel_wire::operator::{Policy, Rights};
use rcgen::{CertificateParams, CustomExtension, KeyPair};

pub fn feed(bytes: &[u8]) {
    let _ = Certificate::read(bytes);
    let _ = Chain::read(&[bytes]);
    if let Ok(policy) = read_policy(bytes) {
        let written = policy_extension(&policy).expect("it sets every limit");
        assert_eq!(read_policy(&written), Ok(policy));
    }
    if let Ok(rights) = read_rights(bytes) {
        assert_eq!(read_rights(&rights_extension(rights)), Ok(rights));
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let policy = Policy {
        unikernels: Some(10),
        memory_mib: Some(1024),
        cpus: Some(vec![0, 1].try_into().expect("they are few")),
        volume_mib: Some(2048),
        bridges: Some(vec!["serv0".parse().expect("a bridge")].try_into().expect("one")),
    };
    let policy = policy_extension(&policy).expect("it sets every limit");
    let rights = rights_extension(Rights { read: true, operate: true, delegate: false });
    let mut params = CertificateParams::default();
    params.custom_extensions = [(&POLICY_OID[..], &policy), (&RIGHTS_OID[..], &rights)]
        .map(|(oid, value)| CustomExtension::from_oid_content(oid, value.clone()))
        .into();
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate").der().to_vec();
    vec![certificate, policy, rights]
}
