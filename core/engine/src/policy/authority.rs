//! What the certificates of a session permit.

use petrel_certificate::{Chain, Link};
use petrel_wire::operator::{CertificateFault, ChainIndex, Policy, Refusal, Rights, Who};
use petrel_wire::{CommonName, Path};

use crate::Peer;

/// What a session may do, and below which path. Made once, from the chain that TLS has verified.
#[derive(Debug)]
pub(crate) struct Authority {
    chain: Chain,
    name: CommonName,
}

impl Authority {
    /// Reads the peer's chain.
    pub fn new(peer: &Peer) -> Result<Self, Refusal> {
        let chain =
            Chain::read(&peer.chain).map_err(|(index, fault)| Refusal::Certificate { index, fault })?;
        Ok(Self { chain, name: CommonName::lossy(&peer.name) })
    }

    /// Whose it is.
    pub fn who(&self) -> Who {
        Who::Operator { name: self.name.clone(), scope: self.scope().clone() }
    }

    /// Below what all its names lie.
    pub fn scope(&self) -> &Path {
        &self.chain.scope
    }

    /// Which requests it may make.
    pub fn rights(&self) -> Rights {
        self.chain.rights
    }

    /// Its last moment, in milliseconds since 1970: certificates are valid through their last second.
    pub fn not_after_ms(&self) -> u64 {
        self.chain.not_after_ms.saturating_add(999)
    }

    /// What its certificates say for what lies below `path`.
    pub fn policy(&self, path: &str) -> Option<&Policy> {
        self.chain.policies.iter().find(|(of, _)| of.labels() == path).map(|(_, policy)| policy)
    }

    /// Whether it may rule over what lies below `path`: if it is not its own path, for which those above it decide.
    pub fn rules(&self, path: &Path) -> bool {
        self.scope().is_root() || (path != self.scope() && self.scope().holds(path.labels()))
    }

    /// The certificate that has expired by `wall_ms`, if it is so.
    pub fn expired(&self, wall_ms: u64) -> Option<Refusal> {
        let fault = CertificateFault::Expired;
        // Which one of them it was is for its holder to see: only the first end is kept.
        (self.not_after_ms() < wall_ms).then_some(Refusal::Certificate { index: 0, fault })
    }

    /// The first certificate that `is_revoked`.
    pub fn revoked(&self, is_revoked: impl Fn(&Link) -> bool) -> Option<Refusal> {
        let index = self.chain.links.iter().position(is_revoked)?;
        let index = ChainIndex::try_from(index).unwrap_or(ChainIndex::MAX);
        Some(Refusal::Certificate { index, fault: CertificateFault::Revoked })
    }
}
