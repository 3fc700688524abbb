//! The requests about policies and certificates, and the sessions that end by them.

use alloc::{boxed::Box, collections::BTreeSet, sync::Arc, vec::Vec};

use petrel_wire::operator::{
    Policy, PolicyEntry, PolicyPage, Refusal, Response, Revocable, Revocation, RevocationPage, Table, What,
};
use petrel_wire::{List, Path, limits::POLICY_PAGE_ENTRIES_MAX};

use crate::{
    Engine, Now, SessionId,
    limits::CLOCK_CHECK_NS,
    policy::{Authority, Grant},
    record::Record,
    session::Asker,
    state::State,
    stream::Source,
};

/// A listing of policies, as far as it has got.
#[derive(Debug)]
pub(crate) struct PolicyListing {
    authority: Arc<Authority>,
    /// This path and those below it.
    within: Path,
    /// The last one that was listed.
    after: Option<Path>,
}

/// A listing of what is revoked, as far as it has got.
#[derive(Debug)]
pub(crate) struct RevocationListing {
    scope: Path,
    after: Option<(Revocable, Path)>,
}

impl Engine {
    pub(crate) fn policy_set(&mut self, asker: Asker, grant: &Grant, path: Path, policy: Box<Policy>) {
        let settings = &self.state.settings;
        let known = settings.policy(path.labels()).is_some();
        let refusal = match grant.authority() {
            Some(authority) if !authority.rules(&path) => Refusal::OutsideScope,
            Some(authority) if !known && !settings.has_room_for_policy(authority.scope()) => {
                Refusal::Full(Table::Policies)
            }
            _ => {
                self.happened_at(grant.who(), What::PolicySet, path.clone());
                self.apply(Record::PolicySet { path, policy });
                return self.answer(asker, Response::PolicySet);
            }
        };
        self.refuse(asker, refusal);
    }

    pub(crate) fn policy_remove(&mut self, asker: Asker, grant: &Grant, path: Path) {
        let refusal = match grant.authority() {
            Some(authority) if !authority.rules(&path) => Refusal::OutsideScope,
            _ if self.state.settings.policy(path.labels()).is_none() => Refusal::NoSuchPolicy,
            _ => {
                self.happened_at(grant.who(), What::PolicyRemoved, path.clone());
                self.apply(Record::PolicyRemoved(path));
                return self.answer(asker, Response::PolicyRemoved);
            }
        };
        self.refuse(asker, refusal);
    }

    pub(crate) fn policy_list(&mut self, asker: Asker, grant: &Grant, within: Path) {
        if let Some(authority) = grant.authority() {
            let listing = PolicyListing { authority: authority.clone(), within, after: None };
            self.open_stream(asker, Source::Policies(listing));
        }
    }

    pub(crate) fn cert_revocations(&mut self, asker: Asker, grant: &Grant) {
        if let Some(authority) = grant.authority() {
            let listing = RevocationListing { scope: authority.scope().clone(), after: None };
            self.open_stream(asker, Source::Revocations(listing));
        }
    }

    pub(crate) fn cert_revoke(&mut self, asker: Asker, grant: &Grant, path: Path, what: Revocable) {
        let settings = &self.state.settings;
        let room = grant.authority().is_some_and(|by| settings.has_room_for_revocation(by.scope()));
        if !settings.has_revocation(&path, &what) {
            if !room {
                return self.refuse(asker, Refusal::Full(Table::Revocations));
            }
            self.happened_at(grant.who(), What::CertificateRevoked(what.clone()), path.clone());
            let at_ms = self.now.wall_ms;
            self.apply(Record::Revoked(Revocation { path, what, at_ms }));
        }
        let ended = self.sessions_where(|authority, state| state.revoked(authority)).len();
        self.answer(asker, Response::CertRevoked { sessions: u32::try_from(ended).unwrap_or(u32::MAX) });
        self.end_revoked();
    }

    /// Ends the sessions one of whose certificates is revoked.
    pub(crate) fn end_revoked(&mut self) {
        for (id, refusal) in self.sessions_where(|authority, state| state.revoked(authority)) {
            self.expel(id, 0, refusal);
        }
    }

    /// Ends the sessions one of whose certificates has expired.
    pub(crate) fn end_expired(&mut self) {
        if self.now.wall_ms <= self.first_expiry_ms {
            return;
        }
        let wall_ms = self.now.wall_ms;
        for (id, refusal) in self.sessions_where(|authority, _| authority.expired(wall_ms)) {
            self.expel(id, 0, refusal);
        }
        let ends = self.sessions.values().map(|session| session.authority.not_after_ms());
        self.first_expiry_ms = ends.min().unwrap_or(u64::MAX);
    }

    fn sessions_where(
        &self,
        refusal: impl Fn(&Authority, &State) -> Option<Refusal>,
    ) -> Vec<(SessionId, Refusal)> {
        let sessions = self.sessions.iter();
        sessions.filter_map(|(id, open)| Some((*id, refusal(&open.authority, &self.state)?))).collect()
    }
}

impl State {
    /// The certificate of a chain that is revoked, if one is.
    pub fn revoked(&self, authority: &Authority) -> Option<Refusal> {
        authority.revoked(|link| self.settings.is_revoked(link))
    }

    /// The next page of a listing, and whether another follows.
    pub fn policies(&self, listing: &mut PolicyListing) -> (PolicyPage, bool) {
        const MAX: usize = POLICY_PAGE_ENTRIES_MAX;
        // The path itself is told even if there is nothing of it.
        let itself = listing.after.is_none().then_some(&listing.within);
        let within = &listing.within;
        let after =
            listing.after.as_ref().map_or_else(|| within.before_all_below(), |after| after.labels().into());
        let below = |path: &&Path| within.holds(path.labels());
        let set = self.settings.paths(&after).take_while(below).take(MAX + 1);
        let used = self.usage.paths(&after).take_while(below).take(MAX + 1);
        let found: BTreeSet<&Path> = itself.into_iter().chain(set).chain(used).collect();
        let more = found.len() > MAX;
        let entry = |path: &Path| self.policy_entry(path, &listing.authority);
        let page: Vec<_> = found.into_iter().take(MAX).map(entry).collect();
        listing.after = page.last().map(|last| last.path.clone());
        (List::try_from(page).unwrap_or_default(), more)
    }

    fn policy_entry(&self, path: &Path, authority: &Authority) -> PolicyEntry {
        PolicyEntry {
            path: path.clone(),
            set: self.settings.policy(path.labels()).cloned(),
            certificate: authority.policy(path.labels()).cloned(),
            held: self.usage.below(path.labels()),
        }
    }

    /// The next page of a listing, and whether another follows.
    pub fn revocations(&self, listing: &mut RevocationListing) -> (RevocationPage, bool) {
        let (page, more) = self.settings.revocations(&listing.scope, listing.after.take());
        listing.after = page.last().map(|last| (last.what.clone(), last.path.clone()));
        (page, more)
    }
}

/// When the first session ends by the certificate that expires at `first_ms`, in monotonic nanoseconds. The wall clock
/// may jump without anything else happening, so it is looked at now and then.
pub(crate) fn expiry_deadline(now: Now, first_ms: u64) -> Option<u64> {
    if first_ms == u64::MAX {
        return None;
    }
    let left_ms = first_ms.saturating_sub(now.wall_ms).saturating_add(1);
    let wait_ns = left_ms.saturating_mul(1_000_000).min(CLOCK_CHECK_NS);
    Some(now.monotonic_ns.saturating_add(wait_ns))
}
