use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use petrel_wire::seal::{Addressing, Seal};
use rustls::client::verify_server_name;
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;

use crate::site::{Site, failure, petrel, stderr, stdout, tree};

const FILES: [&str; 13] = [
    "ca",
    "ca/ca-key.pem",
    "ca/ca.pem",
    "host",
    "host/control-plane-public.der",
    "host/seal.img",
    "host/shim-key.der",
    "host/shim.toml",
    "profile",
    "profile/ca.pem",
    "profile/operator-key.pem",
    "profile/operator.pem",
    "profile/profile.toml",
];

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn given_a_free_place_when_init_then_a_whole_site_that_only_its_owner_reads() {
    let site = Site::new();
    let made = site.path("site");
    assert_eq!(tree(&made), FILES);
    assert_eq!(mode(&made), 0o700);
    for name in FILES {
        let path = made.join(name);
        assert_eq!(mode(&path), if path.is_dir() { 0o700 } else { 0o600 }, "{name}");
    }
    // Nothing half made beside it.
    assert_eq!(tree(site.folder.path()).iter().filter(|name| name.starts_with('.')).count(), 0);
}

#[test]
fn given_a_site_when_init_again_then_refused_and_nothing_changes() {
    let site = Site::new();
    let read = |name: &str| std::fs::read(site.path("site").join(name)).unwrap();
    let before = read("profile/operator-key.pem");
    let (code, said) = failure(&mut site.init(&["--no-profile"]));
    assert_eq!(code, 4);
    assert!(said.contains("exists already") && said.contains("nothing is ever overwritten"), "{said}");
    assert_eq!(read("profile/operator-key.pem"), before);
    assert_eq!(tree(&site.path("site")), FILES);
}

#[test]
fn the_seal_and_the_keys_of_the_link_belong_together() {
    let site = Site::new();
    let seal = site.seal();
    let ipv4 = (std::net::Ipv4Addr::LOCALHOST, 8);
    let set = Addressing::Static { ipv4, gateway: None };
    assert_eq!((&*seal.host, seal.service.addressing), ("alpha", set));
    let key = std::fs::read(site.path("site/host/shim-key.der")).unwrap();
    let public = |key: &[u8]| {
        use ring::signature::{Ed25519KeyPair, KeyPair};
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(key).unwrap().public_key().as_ref().to_vec()
    };
    assert!(seal.link.shim_public_key.ends_with(&public(&key)));
    let control_plane = std::fs::read(site.path("site/host/control-plane-public.der")).unwrap();
    assert!(control_plane.ends_with(&public(&seal.link.key)));
    assert_ne!(seal.link.shim_public_key, control_plane);
}

#[test]
fn the_shims_configuration_says_what_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site { folder, listener: std::net::TcpListener::bind("127.0.0.1:0").unwrap() };
    let more = ["--no-profile", "--bridge", "front", "--bridge", "back", "--uids", "200000:65536"];
    let output = site.init(&more).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = std::fs::read_to_string(site.path("site/host/shim.toml")).unwrap();
    let config: toml::Table = toml::from_str(&text).unwrap();
    assert_eq!(config["bridges"], toml::Value::from(vec!["front", "back"]));
    assert_eq!(config["listen"].as_str(), Some("169.254.25.1:1026"));
    assert_eq!(config["uids"]["start"].as_integer(), Some(200_000));
    assert_eq!(config["uids"]["end"].as_integer(), Some(265_535));
    let control_plane = &config["control_plane"];
    assert_eq!(control_plane["bridge"].as_str(), Some("front"));
    let image = site.path("petrel.hvt").canonicalize().unwrap();
    assert_eq!(control_plane["image"].as_str(), image.to_str());
    assert_eq!(config["monitors"][0]["name"], control_plane["monitor"]);
    assert_eq!(
        config["monitors"][0]["path"].as_str(),
        site.path("petrel-tender").canonicalize().unwrap().to_str()
    );
}

#[test]
fn a_host_whose_address_dhcp_gives_is_known_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let site = folder.path().join("site");
    let mut command = petrel();
    command.arg("init").arg(&site).args(["--appliance", "--no-profile", "--host", "alpha", "--ipv4", "dhcp"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let said = stdout(&output);
    assert!(said.contains("reaches the host as alpha:1025") && said.contains("on its console"), "{said}");
    let profile = std::fs::read_to_string(site.join("profile/profile.toml")).unwrap();
    assert!(profile.contains("address = \"alpha:1025\"\nhost = \"alpha\"\n"), "{profile}");
    let seal = Seal::decode(&std::fs::read(site.join("host/seal.img")).unwrap()).unwrap();
    assert_eq!(seal.service.addressing, Addressing::Dhcp);
    // What its certificate holds of addresses, as rustls reads it.
    let certificate = CertificateDer::from(seal.service.certificate);
    let certificate = ParsedCertificate::try_from(&certificate).unwrap();
    let is_for = |name: &'static str| verify_server_name(&certificate, &name.try_into().unwrap()).is_ok();
    assert_eq!((is_for("alpha"), is_for("10.0.0.2")), (true, false));
}

#[test]
fn the_profile_is_installed_as_default_and_a_second_one_never_replaces_it() {
    let first = tempfile::tempdir().unwrap();
    let home = first.path().join("home");
    let site = Site { folder: first, listener: std::net::TcpListener::bind("127.0.0.1:0").unwrap() };
    let output = site.init(&[]).env("HOME", &home).output().unwrap();
    assert!(output.status.success() && stdout(&output).contains("also installed"), "{}", stderr(&output));
    let installed = home.join(".config/petrel/default");
    assert_eq!(tree(&installed), ["ca.pem", "operator-key.pem", "operator.pem", "profile.toml"]);
    assert_eq!((mode(&installed), mode(&installed.join("operator-key.pem"))), (0o700, 0o600));
    let before = std::fs::read(installed.join("operator.pem")).unwrap();

    std::fs::rename(site.path("site"), site.path("first")).unwrap();
    let again = site.init(&[]).env("HOME", &home).output().unwrap();
    assert!(again.status.success() && stdout(&again).contains("is another and stays"), "{}", stdout(&again));
    assert_eq!(std::fs::read(installed.join("operator.pem")).unwrap(), before);

    std::fs::rename(site.path("site"), site.path("second")).unwrap();
    let (code, said) = failure(site.init(&["--profile", "default"]).env("HOME", &home));
    assert_eq!(code, 4);
    assert!(said.contains("default exists already"), "{said}");
    assert!(!site.path("site").exists());
}

#[test]
fn addresses_that_cannot_work_are_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let site = folder.path().join("site");
    for (ipv4, gateway, word) in [
        ("10.0.0.2/24", "10.0.1.1", "neighbour"),
        ("10.0.0.2/24", "10.0.0.2", "neighbour"),
        ("169.254.25.9/24", "169.254.25.10", "overlaps"),
        ("dhcp", "10.0.0.1", "DHCP names another"),
    ] {
        let mut command = petrel();
        command.arg("init").arg(&site).args(["--host", "alpha", "--ipv4", ipv4, "--ipv4-gateway", gateway]);
        let (code, said) = failure(&mut command);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(word), "{said}");
    }
    assert_eq!(tree(folder.path()), Vec::<String>::new());
}

#[test]
fn a_host_whose_name_no_certificate_can_hold_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in [".alpha", "a..b", "10.0.0.2"] {
        let mut command = petrel();
        command.arg("init").arg(folder.path().join("site")).args(["--host", name, "--ipv4", "10.0.0.2/24"]);
        let (code, said) = failure(&mut command);
        assert!(code == 2 && said.contains("cannot stand in a certificate"), "{said}");
    }
}

#[test]
fn a_control_plane_that_is_no_image_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    std::fs::write(&text, "hello").unwrap();
    let mut command = petrel();
    command.arg("init").arg(folder.path().join("site")).args(["--host", "alpha", "--ipv4", "10.0.0.2/24"]);
    command.arg("--no-profile").arg("--image").arg(&text).arg("--tender").arg(&text);
    let (code, said) = failure(&mut command);
    assert_eq!(code, 4);
    assert!(said.contains("is not an executable for x86_64"), "{said}");
    assert_eq!(tree(folder.path()), ["text"]);
}

#[test]
fn openssl_agrees_with_the_certificates_where_it_is_installed() {
    let site = Site::new();
    let openssl = |arguments: &[&str]| {
        Command::new("openssl").args(arguments).current_dir(site.path("site")).output().map(|output| {
            assert!(output.status.success(), "openssl {arguments:?}: {}", stderr(&output));
            stdout(&output)
        })
    };
    if Command::new("openssl").arg("version").output().is_err() {
        return;
    }
    let operator =
        ["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "ca/ca.pem", "profile/operator.pem"];
    openssl(&operator).unwrap();
    let text = openssl(&["x509", "-in", "profile/operator.pem", "-noout", "-text"]).unwrap();
    for expected in ["ED25519", "TLS Web Client Authentication", "Digital Signature", "CA:FALSE"] {
        assert!(text.contains(expected), "{expected} is missing in {text}");
    }
    let ca = openssl(&["x509", "-in", "ca/ca.pem", "-noout", "-text"]).unwrap();
    assert!(ca.contains("CA:TRUE") && ca.contains("Certificate Sign"), "{ca}");
    std::fs::write(site.path("site/server.der"), site.seal().service.certificate).unwrap();
    let server = openssl(&["x509", "-inform", "der", "-in", "server.der", "-noout", "-text"]).unwrap();
    for expected in ["DNS:alpha", "IP Address:127.0.0.1", "TLS Web Server Authentication"] {
        assert!(server.contains(expected), "{expected} is missing in {server}");
    }
}
