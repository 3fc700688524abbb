//! What operators have set and revoked. Changes only by records.

use alloc::{boxed::Box, collections::BTreeMap};
use core::ops::Bound;

use petrel_certificate::Link;
use petrel_wire::operator::{Policy, Revocable, Revocation, RevocationPage};
use petrel_wire::{
    List, Path,
    limits::{POLICIES_MAX, REVOCATIONS_MAX},
};

use crate::{policy::share, record::Record};

/// The policies that were set, and what is revoked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    policies: BTreeMap<Path, Box<Policy>>,
    /// For each revocation, when it was made.
    revoked: BTreeMap<(Revocable, Path), u64>,
}

impl Settings {
    /// A policy holds from here on, in place of the one before.
    pub fn set_policy(&mut self, path: Path, policy: Box<Policy>) {
        self.policies.insert(path, policy);
    }

    /// A policy holds no longer.
    pub fn remove_policy(&mut self, path: &Path) {
        self.policies.remove(path);
    }

    /// Certificates are revoked.
    pub fn revoke(&mut self, revocation: Revocation) {
        let Revocation { path, what, at_ms } = revocation;
        self.revoked.entry((what, path)).or_insert(at_ms);
    }

    /// The records that make these settings of none: their part of a snapshot.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let policies = self.policies.iter();
        let policies =
            policies.map(|(path, policy)| Record::PolicySet { path: path.clone(), policy: policy.clone() });
        policies.chain(self.revoked.iter().map(|entry| Record::Revoked(revocation(entry))))
    }

    /// The record that makes what is set for `path` what it is now.
    pub fn record_for(&self, path: &Path) -> Record {
        match self.policies.get(path) {
            Some(policy) => Record::PolicySet { path: path.clone(), policy: policy.clone() },
            None => Record::PolicyRemoved(path.clone()),
        }
    }

    /// What was set for `path`.
    pub fn policy(&self, path: &str) -> Option<&Policy> {
        self.policies.get(path).map(|policy| &**policy)
    }

    /// The paths for which something was set, from behind `after` on.
    pub fn paths<'a>(&'a self, after: &str) -> impl Iterator<Item = &'a Path> + use<'a> {
        self.policies.range::<str, _>((Bound::Excluded(after), Bound::Unbounded)).map(|(path, _)| path)
    }

    /// Whether an operator of `scope` may set one more policy.
    pub fn has_room_for_policy(&self, scope: &Path) -> bool {
        self.policies.len() < share(scope, POLICIES_MAX)
    }

    /// Whether an operator of `scope` may revoke one more certificate.
    pub fn has_room_for_revocation(&self, scope: &Path) -> bool {
        self.revoked.len() < share(scope, REVOCATIONS_MAX)
    }

    /// Whether a certificate is revoked: by its number or its key, by somebody at its issuer's path or above.
    pub fn is_revoked(&self, link: &Link) -> bool {
        let by = |what: Revocable| {
            let of_it = self.revoked.range((what.clone(), Path::ROOT)..);
            let mut paths = of_it.take_while(|((revoked, _), _)| *revoked == what).map(|((_, path), _)| path);
            paths.any(|path| path.holds(link.issuer.labels()))
        };
        by(Revocable::Serial(link.serial.clone())) || by(Revocable::Key(link.key))
    }

    /// Whether this is revoked already, for `path`.
    pub fn has_revocation(&self, path: &Path, what: &Revocable) -> bool {
        self.revoked.contains_key(&(what.clone(), path.clone()))
    }

    /// A page of what was revoked within `scope`, behind `after`; and whether more follows.
    pub fn revocations(&self, scope: &Path, after: Option<(Revocable, Path)>) -> (RevocationPage, bool) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let all = self.revoked.range((from, Bound::Unbounded));
        List::page(all.filter(|((_, path), _)| scope.holds(path.labels())), revocation)
    }
}

fn revocation(((what, path), at_ms): (&(Revocable, Path), &u64)) -> Revocation {
    Revocation { path: path.clone(), what: what.clone(), at_ms: *at_ms }
}

#[cfg(test)]
mod tests {
    use petrel_wire::Digest;

    use super::*;
    use crate::state::State;

    #[test]
    fn the_records_of_a_snapshot_make_the_same_settings() {
        let mut state = State::default();
        let path = |text: &str| text.parse::<Path>().unwrap();
        let policy = |mib| Box::new(Policy { memory_mib: Some(mib), ..Policy::default() });
        let key = |byte| Revocable::Key(Digest([byte; 32]));
        state.apply(Record::PolicySet { path: path(":"), policy: policy(1) });
        state.apply(Record::PolicySet { path: path("acme"), policy: policy(2) });
        state.apply(Record::PolicySet { path: path("acme"), policy: policy(3) });
        state.apply(Record::PolicySet { path: path("zeta"), policy: policy(4) });
        state.apply(Record::PolicyRemoved(path("zeta")));
        for (what, at) in [(key(1), ":"), (key(1), "acme"), (key(2), "acme")] {
            state.apply(Record::Revoked(Revocation { path: path(at), what, at_ms: 7 }));
        }
        // What is revoked stays so from the first time on.
        state.apply(Record::Revoked(Revocation { path: path("acme"), what: key(2), at_ms: 9 }));
        let mut again = State::default();
        state.settings.records().for_each(|record| again.apply(record));
        assert_eq!(again.settings, state.settings);
        assert_eq!((again.settings.policies.len(), again.settings.revoked.len()), (2, 3));
        assert!(again.settings.revoked.values().all(|&at_ms| at_ms == 7));
    }
}
