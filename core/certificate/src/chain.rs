//! A chain of certificates, from an operator's own upwards to the one that the operators' CA has signed.

use alloc::{string::String, vec::Vec};

use petrel_wire::limits::CHAIN_CERTIFICATES_MAX;
use petrel_wire::operator::{CertificateFault, ChainIndex, Policy, Rights, Serial};
use petrel_wire::{Digest, Label, Path};

use crate::Certificate;

/// What a chain says. It names no certificate that it does not hold: whether it was verified is TLS's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The operator's own common name; empty if it has none.
    pub name: String,
    /// Below what all names of the operator lie: the label of each CA between it and the operators' CA.
    pub scope: Path,
    /// What the policy of each such CA says, for the CA's own path; from the root downwards.
    pub policies: Vec<(Path, Policy)>,
    /// What all certificates of the chain permit.
    pub rights: Rights,
    /// When the first of them expires, in milliseconds since 1970.
    pub not_after_ms: u64,
    /// What each can be revoked by, the operator's own first.
    pub links: Vec<Link>,
}

/// What a certificate of a chain can be revoked by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The path of the CA that issued it.
    pub issuer: Path,
    /// The number that this CA gave to it.
    pub serial: Serial,
    /// The SHA-256 of its SubjectPublicKeyInfo.
    pub key: Digest,
}

/// A certificate at fault, and why.
type Fault = (ChainIndex, CertificateFault);

impl Chain {
    /// Reads a chain (DER, the operator's own certificate first).
    ///
    /// # Errors
    /// The first certificate, from the root downwards, that opens no session, and why.
    pub fn read<T: AsRef<[u8]>>(chain: &[T]) -> Result<Self, Fault> {
        let own = chain.first().filter(|_| chain.len() <= CHAIN_CERTIFICATES_MAX);
        let own = own.ok_or((0, CertificateFault::Malformed))?.as_ref();
        let mut read = Self {
            name: String::new(),
            scope: Path::ROOT,
            policies: Vec::new(),
            rights: Rights::ALL,
            not_after_ms: u64::MAX,
            links: Vec::new(),
        };
        for (index, der) in chain.iter().enumerate().skip(1).rev() {
            // The length of a chain is bounded above.
            let index = ChainIndex::try_from(index).unwrap_or(ChainIndex::MAX);
            read.descend(der.as_ref()).map_err(|fault| (index, fault))?;
        }
        read.arrive(own).map_err(|fault| (0, fault))?;
        read.links.reverse();
        Ok(read)
    }

    /// Takes in the certificate of the next CA below.
    fn descend(&mut self, der: &[u8]) -> Result<(), CertificateFault> {
        let certificate = Certificate::read(der)?;
        self.take(&certificate)?;
        self.scope = scope(&self.scope, &certificate)?;
        if let Some(policy) = certificate.policy? {
            self.policies.push((self.scope.clone(), policy));
        }
        Ok(())
    }

    /// Takes in the operator's own certificate.
    fn arrive(&mut self, der: &[u8]) -> Result<(), CertificateFault> {
        let certificate = Certificate::read(der)?;
        if !certificate.is_client {
            return Err(CertificateFault::Purpose);
        }
        // albatross puts a command where a CA has its policy, and means the certificate for that one alone.
        match certificate.policy {
            Ok(None) => {}
            Ok(Some(_)) => return Err(CertificateFault::Command),
            Err(fault) => return Err(fault),
        }
        self.take(&certificate)?;
        self.name = certificate.name.unwrap_or_default();
        Ok(())
    }

    /// What any certificate of a chain does to it.
    fn take(&mut self, certificate: &Certificate) -> Result<(), CertificateFault> {
        self.rights = self.rights.and(certificate.rights?);
        self.not_after_ms = self.not_after_ms.min(certificate.not_after_ms);
        let Certificate { serial, key, .. } = certificate;
        self.links.push(Link { issuer: self.scope.clone(), serial: serial.clone(), key: *key });
        Ok(())
    }
}

/// The path of the CA whose certificate this is, if its issuer's is `issuer`.
///
/// # Errors
/// If its common name is no label, or the path would exceed the bounds of one.
pub fn scope(issuer: &Path, certificate: &Certificate) -> Result<Path, CertificateFault> {
    let label = certificate.name.as_deref().and_then(|name| name.parse::<Label>().ok());
    let label = label.ok_or(CertificateFault::Label)?;
    issuer.join(&label).map_err(|_| CertificateFault::Depth)
}
