use std::io::{Read, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ED25519, date_time_ymd,
};

use crate::peer::{config, config_of, config_with, serve, serve_plain};
use crate::site::{Site, failure};

/// The client's failure against a TLS server made of this configuration.
fn refused_by(site: &Site, config: rustls::ServerConfig) -> String {
    let peer = serve(&site.listener, config, |peer| while peer.try_read().is_some() {});
    let (code, said) = failure(&mut site.petrel(&["ps"]));
    peer.join().unwrap();
    assert_eq!(code, 3, "{said}");
    said
}

/// A host whose certificate the CA of the site's own profile signed, otherwise as told.
fn host_with(
    site: &Site,
    name: &str,
    expired: bool,
    purpose: ExtendedKeyUsagePurpose,
) -> rustls::ServerConfig {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority =
        CertifiedIssuer::self_signed(authority, KeyPair::generate_for(&PKCS_ED25519).unwrap()).unwrap();
    std::fs::write(site.path("site/profile/ca.pem"), authority.pem()).unwrap();
    let mut host = CertificateParams::new(vec![name.to_string()]).unwrap();
    host.extended_key_usages = vec![purpose];
    if expired {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        host.not_after = date_time_ymd(1970, 1, 1) + (now - Duration::from_secs(60));
    }
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let host = host.signed_by(&key, &authority).unwrap();
    config_of(host.der(), &key.serialize_der(), &site.seal().service.operators)
}

#[test]
fn a_host_of_another_ca_is_not_trusted() {
    let (site, other) = (Site::new(), Site::new());
    let said = refused_by(&site, config(&other.seal()));
    assert!(said.contains("another CA signed its certificate"), "{said}");
}

#[test]
fn an_operator_of_another_ca_is_told_so() {
    let (site, other) = (Site::new(), Site::new());
    for file in ["operator.pem", "operator-key.pem"] {
        std::fs::copy(other.path("site/profile").join(file), site.path("site/profile").join(file)).unwrap();
    }
    let said = refused_by(&site, config(&site.seal()));
    assert!(said.contains("does not trust this operator's certificate"), "{said}");
}

#[test]
fn a_host_with_an_expired_certificate_is_not_trusted() {
    let site = Site::new();
    let said = refused_by(&site, host_with(&site, "alpha", true, ExtendedKeyUsagePurpose::ServerAuth));
    assert!(said.contains("has expired"), "{said}");
}

#[test]
fn another_host_of_the_same_ca_is_not_trusted() {
    let site = Site::new();
    let said = refused_by(&site, host_with(&site, "beta", false, ExtendedKeyUsagePurpose::ServerAuth));
    assert!(said.contains("is another one") && said.contains("beta"), "{said}");
}

#[test]
fn an_operator_who_poses_as_the_host_is_not_trusted() {
    let site = Site::new();
    let said = refused_by(&site, host_with(&site, "alpha", false, ExtendedKeyUsagePurpose::ClientAuth));
    assert!(said.contains("is not a server's"), "{said}");
}

#[test]
fn a_delegate_whose_ca_signs_a_host_is_not_trusted() {
    let site = Site::new();
    let new_key = || KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(root, new_key()).unwrap();
    std::fs::write(site.path("site/profile/ca.pem"), root.pem()).unwrap();
    let mut acme = CertificateParams::default();
    acme.distinguished_name.push(rcgen::DnType::CommonName, "acme");
    acme.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let acme_key = new_key();
    let acme_certificate = acme.clone().signed_by(&acme_key, &root).unwrap();
    let mut host = CertificateParams::new(vec!["alpha".to_string()]).unwrap();
    host.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = new_key();
    let host = host.signed_by(&key, &Issuer::from_params(&acme, &acme_key)).unwrap();
    let chain = vec![host.der().to_vec(), acme_certificate.der().to_vec()];
    let said = refused_by(&site, config_with(chain, &key.serialize_der(), &site.seal().service.operators));
    assert!(said.contains("another CA signed its certificate"), "{said}");
}

#[test]
fn a_tls_server_that_is_no_control_plane_is_told_apart() {
    let site = Site::new();
    let mut other = config(&site.seal());
    other.alpn_protocols = vec![b"http/1.1".to_vec()];
    let said = refused_by(&site, other);
    assert!(said.contains("speaks TLS, but not Petrel's protocol"), "{said}");
    let mut silent = config(&site.seal());
    silent.alpn_protocols = Vec::new();
    let said = refused_by(&site, silent);
    assert!(said.contains("speaks TLS, but not Petrel's protocol"), "{said}");
}

#[test]
fn a_plain_text_server_is_told_apart() {
    let site = Site::new();
    let peer = serve_plain(&site.listener, |mut socket| {
        socket.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
        let _ = socket.read_to_end(&mut Vec::new());
    });
    let (code, said) = failure(&mut site.petrel(&["ps"]));
    assert!(code == 3 && said.contains("does not speak TLS"), "{said}");
    peer.join().unwrap();
}

#[test]
fn a_server_that_hangs_up_is_told_apart() {
    let site = Site::new();
    let peer = serve_plain(&site.listener, drop);
    let (code, said) = failure(&mut site.petrel(&["ps"]));
    assert!(code == 3 && said.contains("closed the connection before it greeted"), "{said}");
    peer.join().unwrap();
}

#[test]
fn nobody_at_the_address_is_told_apart() {
    let Site { folder, listener } = Site::new();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut command = crate::site::petrel();
    command.arg("--profile").arg(folder.path().join("site/profile")).arg("ps");
    let (code, said) = failure(&mut command);
    assert!(code == 3 && said.contains(&format!("127.0.0.1:{port} refused the connection")), "{said}");
}

#[test]
fn a_profile_that_is_missing_or_damaged_is_a_local_problem() {
    let site = Site::new();
    let (code, said) = failure(crate::site::petrel().args(["--profile", "/nonexistent/alpha", "ps"]));
    assert!(code == 4 && said.contains("there is no profile file"), "{said}");
    let (code, said) = failure(crate::site::petrel().arg("ps"));
    assert!(code == 4 && said.contains("nowhere to look"), "{said}");
    std::fs::write(site.path("site/profile/operator-key.pem"), "nothing").unwrap();
    let (code, said) = failure(&mut site.petrel(&["ps"]));
    assert!(code == 4 && said.contains("operator-key.pem") && said.contains("private key"), "{said}");
}

#[test]
fn the_profile_comes_from_the_environment_when_no_flag_names_one() {
    let site = Site::new();
    std::fs::write(site.path("site/profile/operator.pem"), "nothing").unwrap();
    let mut command = crate::site::petrel();
    let (code, said) =
        failure(command.arg("ps").env("PETREL_PROFILE", site.path("site/profile/profile.toml")));
    assert!(code == 4 && said.contains("operator.pem"), "{said}");
}
