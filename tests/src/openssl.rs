//! Certificates made by OpenSSL, as another program than ours would make them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Ended;

/// A folder of certificates and keys: `NAME.pem` (the certificate and those above it, but for the root's) and
/// `NAME-key.pem`.
pub struct Openssl {
    folder: PathBuf,
}

/// What a certificate shall be.
#[derive(Clone, Copy)]
pub struct Certificate<'a> {
    /// Its file's name, without .pem.
    pub file: &'a str,
    /// Its common name.
    pub name: &'a str,
    /// Its extensions, as OpenSSL's configuration has them, one in each line.
    pub extensions: &'a str,
    /// From when to when it is valid, as YYYYMMDDHHMMSSZ.
    pub valid: (&'a str, &'a str),
}

/// Valid now.
pub const NOW: (&str, &str) = ("20200101000000Z", "20990101000000Z");
/// A CA.
pub const CA: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign";
/// An operator.
pub const OPERATOR: &str =
    "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth";

impl Openssl {
    /// In `folder`, which holds the root already as `ca.pem` and `ca-key.pem`.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        fs::write(folder.join("index.txt"), "").expect("the folder can be written");
        Self { folder: folder.into() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Runs `openssl` in the folder.
    #[must_use]
    pub fn run(&self, words: &[&str]) -> Ended {
        Command::new("openssl").args(words).current_dir(&self.folder).output().expect("openssl runs").into()
    }

    /// Makes a certificate with a key of its own, signed by the CA in `issuer`.pem.
    pub fn certificate(&self, issuer: &str, wanted: Certificate<'_>) {
        let Certificate { file, name, extensions, valid: (from, to) } = wanted;
        let (key, csr, own) = (format!("{file}-key.pem"), format!("{file}.csr"), format!("{file}.own"));
        let _ = self.run(&["genpkey", "-algorithm", "ed25519", "-out", &key]).ok();
        let _ = self.run(&["req", "-new", "-key", &key, "-subj", &format!("/CN={name}"), "-out", &csr]).ok();
        let configuration = format!(
            "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nnew_certs_dir=.\nunique_subject=no\nrand_serial=yes\n\
             default_md=default\npolicy=p\ncertificate={issuer}.pem\nprivate_key={issuer}-key.pem\n\
             [p]\ncommonName=supplied\n[e]\n{extensions}\n"
        );
        fs::write(self.path("openssl.cnf"), configuration).expect("the folder can be written");
        let _ = self
            .run(&[
                "ca",
                "-batch",
                "-notext",
                "-config",
                "openssl.cnf",
                "-extensions",
                "e",
                "-startdate",
                from,
                "-enddate",
                to,
                "-in",
                &csr,
                "-out",
                &own,
            ])
            .ok();
        let read = |name: &str| fs::read_to_string(self.path(name)).expect("a certificate");
        let above = if issuer == "ca" { String::new() } else { read(&format!("{issuer}.pem")) };
        fs::write(self.path(&format!("{file}.pem")), read(&own) + &above).expect("the folder can be written");
    }
}
