//! Who may do what, on a whole host: certificates made by openssl and by the client, shown to the real control plane.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use petrel_tests::openssl::{CA, Certificate, NOW, OPERATOR, Openssl};
use petrel_tests::{Devhost, Ended, image, out};

/// The client's exit code when the host refused.
const REFUSED: i32 = 1;
/// … when one side does not trust the other.
const NOT_TRUSTED: i32 = 3;
/// … when a local file is at fault.
const LOCAL: i32 = 4;

/// albatross's extension, byte for byte: one unikernel, 64 MiB, CPU 0, no block, no bridge.
const SMALL_POLICY: &str =
    "1.3.6.1.4.1.49836.42=DER:30:16:02:01:05:a4:11:a1:0f:30:0d:30:03:02:01:00:02:01:01:02:01:40:30:00";

struct Given {
    host: Devhost,
    openssl: Openssl,
    certs: PathBuf,
}

/// A host, and a folder for certificates in which its CA is.
fn given_a_host() -> Given {
    let host = Devhost::up();
    let certs = host.folder().join("certs");
    fs::create_dir(&certs).unwrap();
    for file in ["ca.pem", "ca-key.pem"] {
        fs::copy(host.folder().join("site/ca").join(file), certs.join(file)).unwrap();
    }
    Given { openssl: Openssl::new(&certs), host, certs }
}

impl Given {
    /// `petrel cert …` in the folder, without any host.
    fn cert(&self, words: &[&str]) -> Ended {
        let mut command = std::process::Command::new(out("petrel"));
        command.arg("cert").args(words).current_dir(&self.certs).output().unwrap().into()
    }

    /// The profile of who has `chain`.pem and `key`-key.pem.
    fn profile(&self, chain: &str, key: &str) -> String {
        let folder = self.certs.join(format!("profile-{chain}"));
        if !folder.exists() {
            fs::create_dir(&folder).unwrap();
        }
        let site = self.host.folder().join("site/profile");
        let copy = |from: &Path, to: &str| fs::copy(from, folder.join(to)).unwrap();
        copy(&site.join("profile.toml"), "profile.toml");
        copy(&site.join("ca.pem"), "ca.pem");
        copy(&self.certs.join(format!("{chain}.pem")), "operator.pem");
        copy(&self.certs.join(format!("{key}-key.pem")), "operator-key.pem");
        folder.display().to_string()
    }

    /// `petrel` as the operator who has `name`.pem and its key.
    fn petrel_as(&self, name: &str, words: &[&str]) -> Ended {
        let profile = self.profile(name, name);
        self.host.petrel(&[&["--profile", &profile], words].concat())
    }

    fn create(&self, operator: &str, name: &str, more: &[&str]) -> Ended {
        self.petrel_as(operator, &[&["create", name, &image("hello.hvt"), "--wait"], more].concat())
    }

    /// Makes a key and a certificate for an operator or a CA: `petrel cert request`, then `words`.
    fn signed(&self, name: &str, words: &[&str]) {
        let _ = self.cert(&["request", name]).ok();
        let csr = format!("{name}.csr");
        let _ = self.cert(&[words, &["--csr", &csr]].concat()).ok();
    }

    fn names(&self) -> Vec<String> {
        let listed = self.host.json(&["ps"]);
        listed.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_string()).collect()
    }

    /// The operator who has `name`.pem is turned away with `code`, and told each of `words`.
    #[track_caller]
    fn turns_away(&self, name: &str, code: i32, words: &[&str]) {
        let said = self.petrel_as(name, &["ps"]).refused(code);
        for word in words {
            assert!(said.contains(word), "{name} should be told {word:?}: {said}");
        }
    }
}

#[track_caller]
fn says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "it should say {word:?}: {said}");
    }
}

#[test]
fn a_chain_made_by_openssl_with_albatrosss_policy_gives_a_scope_and_its_limits() {
    let given = given_a_host();
    let ca = format!("{CA}\n{SMALL_POLICY}");
    given.openssl.certificate("ca", Certificate { file: "acme", name: "acme", extensions: &ca, valid: NOW });
    given
        .openssl
        .certificate("acme", Certificate { file: "olga", name: "olga", extensions: OPERATOR, valid: NOW });
    assert!(given.petrel_as("olga", &["ps"]).ok().lines().count() <= 1);

    let said = given.create("olga", "big", &["--mem", "65"]).refused(REFUSED);
    says(&said, &["\"acme\"", "64 MiB", "0 used and 65 asked"]);
    let said = given.create("olga", "cpu", &["--cpu", "1"]).refused(REFUSED);
    says(&said, &["\"acme\"", "CPU 1"]);
    let web = image("web.hvt");
    let said = given.petrel_as("olga", &["create", "web", &web, "--net", "service=service"]).refused(REFUSED);
    says(&said, &["\"acme\"", "\"service\"", "no bridge"]);
    assert_eq!(given.names(), [""; 0], "nothing is left of what was refused");

    let _ = given.create("olga", "web:blog", &["--mem", "64"]).ok();
    assert_eq!(given.names(), ["acme:web:blog"]);
    let said = given.create("olga", "second", &[]).refused(REFUSED);
    says(&said, &["\"acme\"", "1 unikernels", "1 used and 1 asked"]);

    // The operator of the root sees all of it, the operator below only what lies below.
    let _ = given.host.petrel(&["create", "other", &image("hello.hvt"), "--wait"]).ok();
    let listed = given.petrel_as("olga", &["ps", "--json"]).ok();
    says(&listed, &["\"web:blog\""]);
    assert!(!listed.contains("other") && !listed.contains("acme"), "{listed}");
    let _ = given.petrel_as("olga", &["info", "other"]).refused(REFUSED);
    let policies: serde_json::Value =
        serde_json::from_str(&given.petrel_as("olga", &["policy", "ls", "--json"]).ok()).unwrap();
    assert_eq!(policies[0]["path"], ":", "{policies}");
    assert_eq!(policies[0]["used"]["memory_mib"], 64, "{policies}");
    assert_eq!(policies[0]["certificate"]["memory_mib"], 64, "{policies}");
    assert_eq!(policies[0]["certificate"]["bridges"], serde_json::json!([]), "{policies}");
}

#[test]
fn chains_that_open_no_session_are_told_why() {
    let given = given_a_host();
    let openssl = &given.openssl;
    let make = |issuer: &str, file: &str, name: &str, extensions: &str, valid| {
        openssl.certificate(issuer, Certificate { file, name, extensions, valid });
    };
    // What TLS refuses, by its alerts.
    make("ca", "expired", "olga", OPERATOR, ("20200101000000Z", "20210101000000Z"));
    given.turns_away("expired", NOT_TRUSTED, &["expired"]);
    make("ca", "early", "olga", OPERATOR, ("20980101000000Z", "20990101000000Z"));
    given.turns_away("early", NOT_TRUSTED, &["not valid yet"]);
    make("ca", "server", "olga", &OPERATOR.replace("clientAuth", "serverAuth"), NOW);
    given.turns_away("server", NOT_TRUSTED, &["not for clients", "clientAuth"]);
    let words = ["req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=root", "-days", "9"];
    let _ = openssl.run(&[&words[..], &["-keyout", "other-key.pem", "-out", "other.pem"]].concat()).ok();
    make("other", "stray", "olga", OPERATOR, NOW);
    given.turns_away("stray", NOT_TRUSTED, &["does not trust this operator's certificate"]);
    let mut issuer = "ca".to_string();
    for depth in 1..=7 {
        let file = format!("deep{depth}");
        make(&issuer, &file, &format!("l{depth}"), CA, NOW);
        issuer = file;
    }
    make("deep6", "deepest", "olga", OPERATOR, NOW);
    let _ = given.petrel_as("deepest", &["ps"]).ok();
    make("deep7", "deeper", "olga", OPERATOR, NOW);
    given.turns_away("deeper", NOT_TRUSTED, &["at most 7 certificates"]);
    make("ca", "acme", "acme", CA, NOW);
    make("ca", "zeta", "zeta", CA, NOW);
    make("acme", "olga", "olga", OPERATOR, NOW);
    let read = |name: &str| fs::read_to_string(given.certs.join(name)).unwrap();
    fs::write(given.certs.join("smuggled.pem"), read("olga.pem") + &read("zeta.pem")).unwrap();
    fs::copy(given.certs.join("olga-key.pem"), given.certs.join("smuggled-key.pem")).unwrap();
    given.turns_away("smuggled", NOT_TRUSTED, &["finds no way", "no others"]);
    given.turns_away("acme", NOT_TRUSTED, &["not for clients"]);
    make("olga", "impostor", "eve", OPERATOR, NOW);
    given.turns_away("impostor", NOT_TRUSTED, &["finds no way"]);

    // What the certificates say, which TLS does not read.
    make("ca", "nolabel", "Acme Inc.", CA, NOW);
    make("nolabel", "of-nolabel", "olga", OPERATOR, NOW);
    given.turns_away("of-nolabel", REFUSED, &["certificate 2 in this operator's chain", "no label"]);
    make("ca", "old", "old", &format!("{CA}\n{}", SMALL_POLICY.replace("02:01:05", "02:01:04")), NOW);
    make("old", "of-old", "olga", OPERATOR, NOW);
    given.turns_away("of-old", REFUSED, &["certificate 2", "version 4"]);
    let junk = "1.3.6.1.4.1.49836.42=DER:04:02:68:69";
    make("ca", "junk", "junk", &format!("{CA}\n{junk}"), NOW);
    make("junk", "of-junk", "olga", OPERATOR, NOW);
    given.turns_away("of-junk", REFUSED, &["certificate 2", "policy", "cannot be read"]);
    // albatross's certificate for one question about policies: [4] PolicyCmd, [0] info.
    let command = "1.3.6.1.4.1.49836.42=DER:30:09:02:01:05:a4:04:a0:02:05:00";
    make("acme", "command", "olga", &format!("{OPERATOR}\n{command}"), NOW);
    given.turns_away("command", REFUSED, &["one command of albatross's"]);
    make("acme", "any-use", "olga", "basicConstraints=CA:FALSE", NOW);
    given.turns_away("any-use", REFUSED, &["clientAuth"]);
}

#[test]
fn siblings_share_what_their_parent_has_and_an_older_certificate_widens_nothing() {
    let given = given_a_host();
    let limits = |mem| ["--unikernels", "9", "--mem", mem, "--cpu", "0", "--bridge", "service"];
    given.signed("acme", &[&["delegate", "acme"], &limits("100")[..]].concat());
    for team in ["red", "blue"] {
        given.signed(team, &[&["delegate", team, "--ca", "acme.pem"], &limits("80")[..]].concat());
        let ca = format!("{team}.pem");
        given.signed(&format!("{team}-op"), &["sign", "--ca", &ca]);
    }
    let _ = given.create("red-op", "a", &["--mem", "80"]).ok();
    let said = given.create("blue-op", "a", &["--mem", "80"]).refused(REFUSED);
    says(
        &said,
        &["the policy of \"acme\" allows 100 MiB", "80 used and 80 asked for are 160", "at most 20 more"],
    );
    let _ = given.create("blue-op", "a", &["--mem", "20"]).ok();
    assert_eq!(given.names(), ["acme:blue:a", "acme:red:a"]);

    // The root narrows: no certificate, however large, is in the way of that.
    let _ = given.petrel_as("red-op", &["destroy", "a"]).ok();
    let _ = given.host.petrel(&["policy", "set", "acme", "--mem", "40"]).ok();
    let said = given.create("red-op", "a", &["--mem", "32"]).refused(REFUSED);
    says(&said, &["the policy of \"acme\" allows 40 MiB", "20 used and 32 asked"]);
    let said = given.petrel_as("red-op", &["policy", "set", ":", "--mem", "1000"]).refused(REFUSED);
    says(&said, &["for those above"]);
    let _ = given.petrel_as("red-op", &["policy", "set", "sub", "--mem", "1000"]).ok();
    let _ = given.create("red-op", "sub:a", &["--mem", "32"]).refused(REFUSED);
    let table = given.host.petrel(&["policy", "ls"]).ok();
    says(&table, &["acme", "20 of 40", "acme:red:sub", "0 of 1000"]);
    let _ = given.host.petrel(&["policy", "rm", "acme"]).ok();
    let _ = given.create("red-op", "sub:a", &["--mem", "32"]).ok();
    let said = given.host.petrel(&["policy", "rm", "acme"]).refused(REFUSED);
    says(&said, &["no policy was set"]);
    // The CPUs that the certificates name are given where none were asked for.
    assert_eq!(given.host.json(&["info", "acme:red:sub:a"])["cpus"], serde_json::json!([0]));
}

#[test]
fn an_older_larger_certificate_gives_nothing_back() {
    let given = given_a_host();
    let limits = |mem| ["--unikernels", "9", "--mem", mem, "--cpu", "0", "--bridge", "service"];
    // The same CA, certified twice: first with more, then with less.
    given.signed("acme", &[&["delegate", "acme", "--out", "larger.pem"], &limits("96")[..]].concat());
    let again = ["delegate", "acme", "--csr", "acme.csr", "--out", "smaller.pem"];
    let _ = given.cert(&[&again, &limits("48")[..]].concat()).ok();
    for (operator, ca) in [("old", "larger.pem"), ("new", "smaller.pem")] {
        given.signed(operator, &["sign", "--ca", ca, "--ca-key", "acme-key.pem"]);
    }

    // Each is held to its own certificate, and to what both have together. To present one changes nothing.
    let _ = given.create("new", "first", &["--mem", "48"]).ok();
    let said = given.create("new", "second", &["--mem", "16"]).refused(REFUSED);
    says(&said, &["the policy of \"acme\" allows 48 MiB", "48 used and 16 asked"]);
    let said = given.create("old", "second", &["--mem", "64"]).refused(REFUSED);
    says(&said, &["the policy of \"acme\" allows 96 MiB", "48 used and 64 asked"]);
    let listed = given.host.json(&["policy", "ls"]);
    assert!(!listed.to_string().contains("96"), "nothing of a certificate is kept: {listed}");

    // What the host says holds, however large an older certificate is; and the certificate can be revoked.
    let _ = given.host.petrel(&["policy", "set", "acme", "--mem", "50"]).ok();
    let said = given.create("old", "second", &["--mem", "16"]).refused(REFUSED);
    says(&said, &["the policy of \"acme\" allows 50 MiB", "48 used and 16 asked"]);
    let shown = given.cert(&["show", "larger.pem", "--json"]).ok();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let _ = given.host.petrel(&["cert", "revoke", shown[0]["serial"].as_str().unwrap()]).ok();
    given.turns_away("old", REFUSED, &["certificate 2 in this operator's chain", "revoked"]);
    let _ = given.petrel_as("new", &["destroy", "first"]).ok();
    assert_eq!(given.names(), [""; 0]);
}

#[test]
fn rights_are_kept_apart() {
    let given = given_a_host();
    given.signed("reader", &["sign", "--rights", "read"]);
    given.signed("doer", &["sign", "--rights", "read,operate"]);
    given.signed("ruler", &["sign", "--rights", "read,delegate"]);
    let said = given.create("reader", "a", &[]).refused(REFUSED);
    says(&said, &["right to operate"]);
    let _ = given.create("doer", "a", &[]).ok();
    let said = given.petrel_as("doer", &["policy", "set", "a", "--mem", "1"]).refused(REFUSED);
    says(&said, &["right to delegate"]);
    let _ = given.petrel_as("ruler", &["policy", "set", "a", "--mem", "1"]).ok();
    let said = given.petrel_as("ruler", &["destroy", "a"]).refused(REFUSED);
    says(&said, &["right to operate"]);
    let _ = given.petrel_as("reader", &["info", "a"]).ok();
    assert_eq!(given.names(), ["a"]);
    // A CA without a right cannot give it.
    given.signed("readers", &["delegate", "readers", "--rights", "read"]);
    given.signed("wishful", &["sign", "--ca", "readers.pem", "--rights", "read,operate,delegate"]);
    let said = given.create("wishful", "a", &[]).refused(REFUSED);
    says(&said, &["right to operate"]);
}

#[test]
fn a_revoked_certificate_ends_the_session_that_lives() {
    let given = given_a_host();
    given.signed("acme", &["delegate", "acme"]);
    for operator in ["olga", "olaf"] {
        given.signed(operator, &["sign", "--ca", "acme.pem"]);
    }
    let web = image("web.hvt");
    let ipv4 = "--arg=--ipv4=10.99.0.10/24";
    let _ = given.petrel_as("olga", &["create", "web", &web, "--net", "service=service", ipv4]).ok();
    let profile = given.profile("olga", "olga");
    let mut follower = given.host.petrel_in_background(&["--profile", &profile, "console", "web", "-f"]);
    // It follows from its first byte on.
    let mut first = [0; 1];
    follower.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();

    let serial = |name: &str| {
        let shown = given.cert(&["show", &format!("{name}.pem"), "--json"]).ok();
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        shown[0]["serial"].as_str().unwrap().to_string()
    };
    let told = given.host.json(&["cert", "revoke", &serial("olga")]);
    assert_eq!(told["sessions"], 1, "{told}");
    let ended: Ended = follower.wait_with_output().unwrap().into();
    says(&ended.refused(REFUSED), &["this operator's certificate is revoked"]);
    given.turns_away("olga", REFUSED, &["this operator's certificate is revoked"]);
    // What it made goes on, and who else there is.
    assert_eq!(given.host.json(&["info", "acme:web"])["state"], "running");
    let _ = given.petrel_as("olaf", &["info", "web"]).ok();

    // A renewed certificate has another number, but no other key.
    let _ = given.cert(&["renew", "olaf.pem", "--ca", "acme.pem"]).ok();
    let _ = given.petrel_as("olaf", &["ps"]).ok();
    // Below acme one revokes what acme has signed, and neither acme itself nor others.
    given.signed("boss", &["sign", "--ca", "acme.pem"]);
    given.signed("zoe", &["sign"]);
    let certs = |name: &str| given.certs.join(format!("{name}.pem")).display().to_string();
    for (file, still) in [("olaf", false), ("acme", true), ("zoe", true)] {
        let _ = given.petrel_as("boss", &["cert", "revoke", &certs(file)]).ok();
        let operator = if file == "acme" { "boss" } else { file };
        let answer = given.petrel_as(operator, &["ps"]);
        assert_eq!(answer.code == 0, still, "{file}: {answer:?}");
    }
    let _ = given.cert(&["renew", "olaf.pem", "--ca", "acme.pem"]).ok();
    given.turns_away("olaf", REFUSED, &["is revoked"]);
    let listed = given.host.petrel(&["cert", "revoked"]).ok();
    says(&listed, &[&format!("serial {}", serial("olga")), "acme"]);
    // The root revokes acme, and with it all below.
    let _ = given.host.petrel(&["cert", "revoke", &certs("acme")]).ok();
    given.turns_away("boss", REFUSED, &["certificate 2 in this operator's chain", "revoked"]);
}

#[test]
fn a_session_that_lives_when_its_certificate_expires_ends() {
    let given = given_a_host();
    let web = ["create", "web", &image("web.hvt"), "--net", "service=service", "--arg=--ipv4=10.99.0.10/24"];
    let _ = given.host.petrel(&web).ok();
    // Long enough for a busy machine to connect meanwhile.
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 20;
    let until = given.host.run(&["date", "-u", "-d", &format!("@{seconds}"), "+%Y%m%d%H%M%SZ"]).ok();
    let valid = (NOW.0, until.trim());
    given.openssl.certificate("ca", Certificate { file: "brief", name: "olga", extensions: OPERATOR, valid });
    let profile = given.profile("brief", "brief");
    let follower = given.host.petrel_in_background(&["--profile", &profile, "console", "web", "-f"]);
    let ended: Ended = follower.wait_with_output().unwrap().into();
    assert!(!ended.stdout.is_empty(), "it was let in");
    says(&ended.refused(REFUSED), &["a certificate in this operator's chain has expired"]);
    given.turns_away("brief", NOT_TRUSTED, &["expired"]);
    assert_eq!(given.host.json(&["info", "web"])["state"], "running");
}

#[test]
fn what_the_client_signs_openssl_understands_and_shows_alike() {
    let given = given_a_host();
    let limits = ["--unikernels", "1", "--mem", "64", "--cpu", "0"];
    given.signed("acme", &[&["delegate", "acme", "--rights", "read,operate"], &limits[..]].concat());
    given.signed("olga", &["sign", "--ca", "acme.pem"]);
    let verified = given.openssl.run(&[
        "verify",
        "-CAfile",
        "ca.pem",
        "-untrusted",
        "acme.pem",
        "-purpose",
        "sslclient",
        "olga.pem",
    ]);
    says(&verified.ok(), &["olga.pem: OK"]);
    let parsed = given.openssl.run(&["asn1parse", "-in", "acme.pem"]).ok();
    let der = SMALL_POLICY.split_once("DER:").unwrap().1.replace(':', "").to_uppercase();
    says(&parsed, &["1.3.6.1.4.1.49836.42", &der]);
    let shown = given.cert(&["show", "olga.pem"]).ok();
    says(&shown, &["acme", "memory MiB 64", "bridges none", "read, operate\n", "valid now"]);
    let said = given.cert(&["delegate", "x", "--csr", "olga.csr", "--mem", "3"]);
    assert_eq!(said.code, 2, "{said:?}");
    says(&said.stderr, &["--unikernels, --mem and --cpu"]);
    let said =
        given.cert(&["sign", "--csr", "acme.csr", "--ca", "olga.pem", "--out", "x.pem"]).refused(LOCAL);
    says(&said, &["not a CA's"]);
}
