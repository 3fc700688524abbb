//! Whose certificates are revoked: who must be turned out, and who may.

use std::collections::BTreeSet;

use petrel_wire::{
    Path,
    limits::SESSIONS_MAX,
    operator::{CertificateFault, Refusal, Table},
};

use super::{Checked, Model, ensure};
use crate::grants::{Grant, within};

/// What was revoked: certificates of this number that were issued at this path or below.
pub type Revoked = (u8, Path);

/// All that was.
#[derive(Debug, Default)]
pub struct Standing {
    /// What was acknowledged, and must hold.
    sure: BTreeSet<Revoked>,
    /// All that was ever asked, and may hold: in a state file, or because nobody was told what came of it.
    asked: BTreeSet<Revoked>,
}

impl Standing {
    /// An operator asks for it.
    pub fn asked(&mut self, revoked: &Revoked) {
        self.asked.insert(revoked.clone());
    }

    /// An operator was told that it is done.
    pub fn done(&mut self, revoked: &Revoked) {
        self.sure.insert(revoked.clone());
    }

    /// Nobody knows what is revoked.
    pub fn leave_open(&mut self) {
        self.sure.clear();
    }

    /// Whether sessions with this grant must be over.
    pub fn must_end(&self, grant: &Grant) -> bool {
        hits(&self.sure, grant)
    }
}

fn hits(revoked: &BTreeSet<Revoked>, grant: &Grant) -> bool {
    !revoked.is_empty()
        && grant.links().iter().any(|(serial, issuer)| {
            revoked.iter().any(|(number, path)| number == serial && within(path.labels(), issuer.labels()))
        })
}

impl Model {
    /// A session is turned out, or not let in, for a certificate, or as so many are `open`, this one included.
    pub fn turned_out(&self, grant: &Grant, refusal: &Refusal, wall_ms: u64, open: usize) -> Checked {
        let holds = match refusal {
            Refusal::Certificate { fault: CertificateFault::Expired, .. } => grant.has_expired(wall_ms),
            Refusal::Certificate { fault: CertificateFault::Revoked, .. } => {
                hits(&self.standing.asked, grant)
            }
            // Those with a scope leave half of them to those without.
            Refusal::Full(Table::Sessions) => {
                open > if grant.scope.is_root() { SESSIONS_MAX } else { SESSIONS_MAX / 2 }
            }
            _ => false,
        };
        ensure(holds, || format!("{refusal:?} was told to one with {grant:?}"))
    }
}
