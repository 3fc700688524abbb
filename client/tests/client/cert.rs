//! Requests and signatures, all without any host.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;

use petrel_wire::operator::{Request, Response, Revocable};
use serde_json::{Value, json};

use crate::peer::{config, serve};
use crate::site::{Site, failure, stdout};

struct Desk {
    site: Site,
}

impl Desk {
    /// A folder that holds the CA of a site's operators.
    fn new() -> Self {
        let desk = Self { site: Site::new() };
        for file in ["ca.pem", "ca-key.pem"] {
            fs::copy(desk.site.path("site/ca").join(file), desk.path(file)).unwrap();
        }
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.site.path(name)
    }

    fn command(&self, words: &[&str]) -> std::process::Command {
        let mut command = crate::site::petrel();
        command.arg("cert").args(words).current_dir(self.site.folder.path());
        command
    }

    #[track_caller]
    fn cert(&self, words: &[&str]) -> Output {
        let output = self.command(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        output
    }

    #[track_caller]
    fn show(&self, file: &str) -> Vec<Value> {
        serde_json::from_str(&stdout(&self.cert(&["show", file, "--json"]))).unwrap()
    }

    /// A CA acme with a policy, and its operator olga.
    fn with_acme() -> Self {
        let desk = Self::new();
        desk.cert(&["request", "acme"]);
        desk.cert(&[
            "delegate",
            "acme",
            "--csr",
            "acme.csr",
            "--unikernels",
            "3",
            "--mem",
            "64",
            "--cpu",
            "1",
            "--cpu",
            "0",
            "--bridge",
            "service",
            "--rights",
            "read,operate",
            "--days",
            "30",
        ]);
        desk.cert(&["request", "olga"]);
        desk.cert(&["sign", "--csr", "olga.csr", "--ca", "acme.pem"]);
        desk
    }
}

#[test]
fn a_request_leaves_the_key_with_its_owner() {
    let desk = Desk::new();
    let said = stdout(&desk.cert(&["request", "olga"]));
    assert!(said.contains("olga-key.pem  the key: keep it") && said.contains("olga.csr"), "{said}");
    let mode = desk.path("olga-key.pem").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!fs::read_to_string(desk.path("olga.csr")).unwrap().contains("PRIVATE"));
    let (code, said) = failure(&mut desk.command(&["request", "olga"]));
    assert!(code == 4 && said.contains("olga-key.pem exists already"), "{said}");
    // For a key that there is already, only the request is made.
    fs::remove_file(desk.path("olga.csr")).unwrap();
    let said = stdout(&desk.cert(&["request", "olga", "--key", "olga-key.pem"]));
    assert!(said.contains("olga.csr") && !said.contains("key.pem"), "{said}");
}

#[test]
fn what_is_signed_is_shown() {
    let desk = Desk::with_acme();
    let shown = desk.show("olga.pem");
    assert_eq!(shown.len(), 2, "the operator's, then the CA's; the root's is the host's to know");
    let (olga, acme) = (&shown[0], &shown[1]);
    assert_eq!(
        (&olga["name"], &olga["role"], &olga["path"]),
        (&json!("olga"), &json!("operator"), &json!("acme"))
    );
    assert_eq!((&olga["policy"], &olga["rights"]), (&Value::Null, &json!(["read", "operate", "delegate"])));
    let hours =
        (olga["not_after_ms"].as_u64().unwrap() - olga["not_before_ms"].as_u64().unwrap()) / 3_600_000;
    assert_eq!(hours, 25, "24, and one for clocks that differ");
    assert_eq!((&acme["name"], &acme["role"], &acme["path"]), (&json!("acme"), &json!("ca"), &json!("acme")));
    assert_eq!(acme["rights"], json!(["read", "operate"]));
    let policy = json!({
        "unikernels": 3, "memory_mib": 64, "cpus": [0, 1], "volume_mib": 0, "bridges": ["service"],
    });
    assert_eq!(acme["policy"], policy);
    assert_eq!(acme["faults"], json!([]));
    assert_eq!(olga["serial"].as_str().unwrap().len(), 32);
    let root = desk.show("ca.pem");
    assert_eq!((root.len(), &root[0]["path"]), (1, &json!(":")));
    let profile = stdout(&desk.site.petrel(&["cert", "show"]).output().unwrap());
    assert!(profile.contains("name    \"operator\"") && profile.contains("path    :\n"), "{profile}");
    let text = stdout(&desk.cert(&["show", "olga.pem"]));
    assert!(text.contains("rights  read, operate\n") && text.contains("memory MiB 64"), "{text}");
}

#[test]
fn below_a_delegate_there_may_be_another() {
    let desk = Desk::with_acme();
    desk.cert(&["request", "web"]);
    desk.cert(&["delegate", "web", "--csr", "web.csr", "--ca", "acme.pem", "--out", "acme-web.pem"]);
    desk.cert(&["request", "ted"]);
    desk.cert(&[
        "sign",
        "--csr",
        "ted.csr",
        "--ca",
        "acme-web.pem",
        "--ca-key",
        "web-key.pem",
        "--hours",
        "1",
    ]);
    let paths: Vec<_> = desk.show("ted.pem").iter().map(|one| one["path"].clone()).collect();
    assert_eq!(paths, ["acme:web", "acme:web", "acme"]);
}

#[test]
fn a_ca_may_be_called_as_the_one_above_it() {
    let desk = Desk::with_acme();
    desk.cert(&["request", "inner"]);
    desk.cert(&["delegate", "acme", "--csr", "inner.csr", "--ca", "acme.pem", "--out", "acme-acme.pem"]);
    desk.cert(&["request", "ted"]);
    desk.cert(&["sign", "--csr", "ted.csr", "--ca", "acme-acme.pem", "--ca-key", "inner-key.pem"]);
    let paths: Vec<_> = desk.show("ted.pem").iter().map(|one| one["path"].clone()).collect();
    assert_eq!(paths, ["acme:acme", "acme:acme", "acme"]);
}

#[test]
fn a_certificate_that_lasts_for_ever_is_renewed_until_its_ca_ends() {
    let desk = Desk::new();
    let key = || rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut root = rcgen::CertificateParams::default();
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    root.not_after = rcgen::date_time_ymd(2100, 1, 1);
    let root = rcgen::CertifiedIssuer::self_signed(root, key()).unwrap();
    fs::write(desk.path("ca.pem"), root.pem()).unwrap();
    fs::write(desk.path("ca-key.pem"), root.key().serialize_pem()).unwrap();
    let mut olga = rcgen::CertificateParams::default();
    olga.distinguished_name.push(rcgen::DnType::CommonName, "olga");
    olga.not_after = rcgen::date_time_ymd(9999, 12, 31);
    let signed = olga.signed_by(&key(), &root).unwrap();
    fs::write(desk.path("olga.pem"), signed.pem()).unwrap();
    desk.cert(&["renew", "olga.pem"]);
    assert_eq!(desk.show("olga.pem")[0]["not_after_ms"], desk.show("ca.pem")[0]["not_after_ms"]);
}

#[test]
fn a_certificate_does_not_outlive_its_ca() {
    let desk = Desk::with_acme();
    desk.cert(&["request", "late"]);
    desk.cert(&["sign", "--csr", "late.csr", "--ca", "acme.pem", "--hours", "9999"]);
    let shown = desk.show("late.pem");
    assert_eq!(shown[0]["not_after_ms"], shown[1]["not_after_ms"]);
}

#[test]
fn renewing_changes_number_and_validity_and_nothing_else() {
    let desk = Desk::with_acme();
    let before = desk.show("acme.pem").remove(0);
    desk.cert(&["renew", "acme.pem", "--hours", "48"]);
    let after = desk.show("acme.pem").remove(0);
    assert_ne!(before["serial"], after["serial"]);
    assert!(after["not_after_ms"].as_u64() < before["not_after_ms"].as_u64());
    for same in ["name", "role", "path", "policy", "rights", "key"] {
        assert_eq!(before[same], after[same], "{same}");
    }
    // olga's is acme's to renew, by its renewed certificate too, and nobody else's.
    let olga = desk.show("olga.pem").remove(0);
    let (code, said) = failure(&mut desk.command(&["renew", "olga.pem"]));
    assert!(code == 4 && said.contains("another CA has signed it"), "{said}");
    assert_eq!(desk.show("olga.pem").remove(0), olga, "the file is as it was");
    desk.cert(&["renew", "olga.pem", "--ca", "acme.pem"]);
    let renewed = desk.show("olga.pem");
    assert_ne!(renewed[0]["serial"], olga["serial"]);
    assert_eq!(renewed[1], desk.show("acme.pem").remove(0), "with the CA's present certificate behind");
    let lasts =
        |shown: &Value| shown["not_after_ms"].as_u64().unwrap() - shown["not_before_ms"].as_u64().unwrap();
    assert_eq!(lasts(&renewed[0]), lasts(&olga));
}

#[test]
fn what_cannot_be_signed_is_refused_with_the_reason() {
    let desk = Desk::with_acme();
    let refused = |words: &[&str], code: i32, expected: &str| {
        let (exit, said) = failure(&mut desk.command(words));
        assert!(exit == code && said.contains(expected), "{words:?}: {exit} {said}");
    };
    let sign = |csr: &'static str| ["sign", "--csr", csr, "--out", "x.pem"];
    refused(&sign("nowhere.csr"), 4, "there is no file");
    refused(&sign("ca.pem"), 4, "no certificate request");
    refused(&sign("acme-key.pem"), 4, "no certificate request");
    refused(&["sign", "--csr", "olga.csr", "--ca", "acme.pem"], 4, "olga.pem exists already");
    refused(&[&sign("olga.csr")[..], &["--ca-key", "acme-key.pem"]].concat(), 4, "not the key of the CA's");
    refused(&[&sign("olga.csr")[..], &["--ca", "olga.pem"]].concat(), 4, "not a CA's");
    refused(&[&sign("olga.csr")[..], &["--ca", "olga.csr"]].concat(), 4, "no certificate in PEM");
    // A request that was changed on its way.
    let der = pem_der(&fs::read_to_string(desk.path("olga.csr")).unwrap());
    let at = der.windows(4).position(|window| window == b"olga").unwrap();
    let mut changed = der;
    changed[at] = b'0';
    fs::write(desk.path("changed.csr"), pem("CERTIFICATE REQUEST", &changed)).unwrap();
    refused(&sign("changed.csr"), 4, "its signature is not by the key");
    let delegate = ["delegate", "x", "--csr", "olga.csr", "--out", "x.pem"];
    refused(&[&delegate[..], &["--mem", "64"]].concat(), 2, "--unikernels, --mem and --cpu");
    assert!(!desk.path("x.pem").exists());
}

fn pem_der(text: &str) -> Vec<u8> {
    use rustls::pki_types::{CertificateSigningRequestDer, pem::PemObject};
    CertificateSigningRequestDer::from_pem_slice(text.as_bytes()).unwrap().to_vec()
}

fn pem(label: &str, der: &[u8]) -> String {
    x509_cert::der::pem::encode_string(label, x509_cert::der::pem::LineEnding::LF, der).unwrap()
}

#[test]
fn what_is_revoked_is_a_number_or_the_key_of_a_file() {
    let desk = Desk::with_acme();
    let key = desk.show("olga.pem")[0]["key"].as_str().unwrap().to_string();
    let cases = [
        ("00:A1:b2", Revocable::Serial(vec![0xa1, 0xb2].try_into().unwrap())),
        ("olga.pem", Revocable::Key(key.parse().unwrap())),
    ];
    for (word, expected) in cases {
        let peer = serve(&desk.site.listener, config(&desk.site.seal()), move |peer| {
            peer.greet();
            let (id, request) = peer.read();
            assert_eq!(request, Request::CertRevoke { path: "acme:web".parse().unwrap(), what: expected });
            peer.write(id, Response::CertRevoked { sessions: 2 });
        });
        let output =
            desk.site.petrel(&["cert", "revoke", word, "--path", "acme:web", "--json"]).output().unwrap();
        peer.join().unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(told["sessions"], 2);
        assert_eq!(told["key"].is_null(), word != "olga.pem");
    }
}

#[test]
fn policies_are_set_as_they_are_given_and_shown_as_they_are_told() {
    let desk = Desk::new();
    let peer = serve(&desk.site.listener, config(&desk.site.seal()), |peer| {
        peer.greet();
        let (id, request) = peer.read();
        let Request::PolicySet { path, policy } = request else { panic!("{request:?}") };
        assert_eq!(path.labels(), "acme");
        assert_eq!((policy.memory_mib, policy.unikernels), (Some(64), None));
        assert_eq!(policy.cpus.as_deref(), Some(&[0, 3][..]));
        assert_eq!(policy.bridges.as_deref(), Some(&[][..]));
        peer.write(id, Response::PolicySet);
    });
    let words =
        ["policy", "set", "acme", "--mem", "64", "--cpu", "3", "--cpu", "0", "--cpu", "3", "--no-bridge"];
    assert!(desk.site.petrel(&words).output().unwrap().status.success());
    peer.join().unwrap();
    let (code, said) = failure(&mut desk.site.petrel(&["policy", "set", "acme"]));
    assert!(code == 2 && said.contains("no limit is given"), "{said}");
}
