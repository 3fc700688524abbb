//! Profiles: where a host is, whom to expect there, and who the operator is.
//!
//! A profile is a folder with `profile.toml` in it:
//!
//! ```toml
//! address = "10.0.0.2:1025"        # the control plane's address and port
//! host = "alpha"                   # the name that its certificate must be for
//! ca = "ca.pem"                    # who signs the host's certificate; this, and the next two, may be left out
//! certificate = "operator.pem"     # the operator's certificate
//! key = "operator-key.pem"         # and its private key
//! ```

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::ring::{cipher_suite, default_provider, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

use crate::error::{Error, ProfileFault};
use crate::limits::PROFILE_FILE_BYTES_MAX;
use crate::trust::SignedByRoot;

/// The name of a profile's main file.
pub const FILE_NAME: &str = "profile.toml";
/// The profile that is used when none is named.
pub const DEFAULT_NAME: &str = "default";
/// The protocol that is asked for by ALPN.
pub const ALPN: &[u8] = b"petrel/1";

/// All that is needed to reach one host.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The control plane's address and port.
    pub address: String,
    /// The name that its certificate must be for.
    pub host: ServerName<'static>,
    /// Trust roots and identity.
    pub tls: Arc<ClientConfig>,
    /// The file of the operator's certificates.
    pub certificate: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    address: String,
    host: String,
    #[serde(default = "default_ca")]
    ca: PathBuf,
    #[serde(default = "default_certificate")]
    certificate: PathBuf,
    #[serde(default = "default_key")]
    key: PathBuf,
}

fn default_ca() -> PathBuf {
    "ca.pem".into()
}

fn default_certificate() -> PathBuf {
    "operator.pem".into()
}

fn default_key() -> PathBuf {
    "operator-key.pem".into()
}

/// Where the profile is that was asked for by name or path; [`DEFAULT_NAME`] when nothing was asked for.
/// A text with a `/`, and one that begins with `.`, is a path; a path may name the folder or the file in it.
///
/// # Errors
/// [`ProfileFault::NoHome`] when a name is asked for and no folder of profiles is known.
pub fn locate(asked: Option<&OsStr>) -> Result<PathBuf, Error> {
    let asked = asked.unwrap_or(OsStr::new(DEFAULT_NAME));
    let bytes = asked.as_encoded_bytes();
    if bytes.contains(&b'/') || bytes.starts_with(b".") {
        return Ok(PathBuf::from(asked));
    }
    match installed_profiles(|variable| std::env::var_os(variable)) {
        Some(folder) => Ok(folder.join(asked)),
        None => Err(Error::Profile { path: asked.into(), fault: ProfileFault::NoHome }),
    }
}

/// The folder that holds profiles by name: `$XDG_CONFIG_HOME/petrel`, else `~/.config/petrel`.
pub fn installed_profiles(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    // The XDG specification has relative paths ignored.
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
    Some(config.join("petrel"))
}

impl Profile {
    /// Reads a profile from its folder, or from the file in it.
    ///
    /// # Errors
    /// [`Error::Profile`] with the file at fault.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let file = if path.is_dir() { path.join(FILE_NAME) } else { path.to_path_buf() };
        let folder = file.parent().unwrap_or(Path::new("."));
        let text = read(&file)?;
        let form =
            |message: String| Error::Profile { path: file.clone(), fault: ProfileFault::Form(message) };
        let text = String::from_utf8(text).map_err(|_| form("it is not UTF-8 text".into()))?;
        let profile: ProfileFile = toml::from_str(&text).map_err(|error| form(error.message().into()))?;
        let host = ServerName::try_from(profile.host.clone());
        let host = host.map_err(|_| form(format!("host = {:?} is no name of a host", profile.host)))?;
        let certificate = folder.join(profile.certificate);
        let tls = client_config(&folder.join(profile.ca), &certificate, &folder.join(profile.key))?;
        Ok(Self { address: profile.address, host, tls: Arc::new(tls), certificate })
    }
}

fn client_config(ca: &Path, certificate: &Path, key: &Path) -> Result<ClientConfig, Error> {
    let pem =
        |path: &Path, expected| Error::Profile { path: path.into(), fault: ProfileFault::Pem { expected } };
    let authority = CertificateDer::from_pem_slice(&read(ca)?);
    let authority = authority.map_err(|_| pem(ca, "the certificate of the host's CA"))?;
    let mut roots = RootCertStore::empty();
    roots.add(authority).map_err(|_| pem(ca, "the certificate of the host's CA"))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(certificate)?).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| pem(certificate, "the operator's certificate"))?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?);
    let private = private.map_err(|_| pem(key, "the operator's private key"))?;

    let identity = |fault| Error::Profile { path: certificate.into(), fault: ProfileFault::Identity(fault) };
    let provider = Arc::new(provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let verifier = verifier.map_err(|_| pem(ca, "the certificate of the host's CA"))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(identity)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(SignedByRoot(verifier)))
        .with_client_auth_cert(chain, private)
        .map_err(identity)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A process is one session, so a ticket would never be used.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// The control plane takes the first suite it can do: the cheapest of them comes first.
fn provider() -> rustls::crypto::CryptoProvider {
    let mut provider = default_provider();
    provider.cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
    ];
    provider.kx_groups = vec![kx_group::X25519, kx_group::SECP256R1];
    provider
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let fail = |fault| Error::Profile { path: path.into(), fault };
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => fail(ProfileFault::Missing),
        _ => fail(ProfileFault::Read(error)),
    })?;
    let mut bytes = Vec::new();
    let taken = file.take(PROFILE_FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    match taken.map_err(|error| fail(ProfileFault::Read(error)))? as u64 {
        0..=PROFILE_FILE_BYTES_MAX => Ok(bytes),
        _ => Err(fail(ProfileFault::TooLarge)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profiles(xdg: Option<&str>, home: Option<&str>) -> Option<PathBuf> {
        installed_profiles(|name| if name == "HOME" { home } else { xdg }.map(Into::into))
    }

    #[test]
    fn profiles_are_below_the_users_configuration() {
        assert_eq!(profiles(None, Some("/home/ada")), Some("/home/ada/.config/petrel".into()));
        assert_eq!(profiles(Some("/etc/ada"), Some("/home/ada")), Some("/etc/ada/petrel".into()));
        assert_eq!(profiles(Some("relative"), Some("/home/ada")), Some("/home/ada/.config/petrel".into()));
        assert_eq!(profiles(None, None), None);
    }

    #[test]
    fn what_looks_like_a_path_is_a_path() {
        for path in ["./here", "..", ".", "/etc/petrel/alpha", "alpha/profile.toml"] {
            assert_eq!(locate(Some(OsStr::new(path))).unwrap(), PathBuf::from(path));
        }
    }

    #[test]
    fn a_profile_that_is_not_there_is_told_apart_from_one_that_is_wrong() {
        let missing = Profile::load(Path::new("/nonexistent/alpha")).unwrap_err();
        assert!(matches!(missing, Error::Profile { fault: ProfileFault::Missing, .. }), "{missing:?}");
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE_NAME), "address = \"10.0.0.2:1025\"\nhots = \"alpha\"\n")
            .unwrap();
        let wrong = Profile::load(folder.path()).unwrap_err();
        let Error::Profile { fault: ProfileFault::Form(message), .. } = wrong else { panic!("{wrong:?}") };
        assert!(message.contains("hots"), "{message}");
    }
}
