//! Whether every policy above a name allows what is asked for at it.
//!
//! For each ancestor of the name, the root included, two policies may hold: what the session's certificates say for
//! that path, and what an operator has set for it. Each of them is kept, by all that there is below the ancestor
//! together.

use alloc::vec::Vec;

use petrel_wire::operator::{Cpus, Held, Policy, Refusal, Resource};
use petrel_wire::{BridgeName, List, Path, ancestors};

use crate::{
    planted::{self, Planted},
    policy::{Authority, Grant},
    state::State,
};

/// What is asked for at a name.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub name: &'a str,
    pub held: Held,
    /// What is there under this name already, and will be no longer.
    pub instead_of: Held,
    /// The CPUs that a unikernel shall run on, any when empty; `None` for what is none.
    pub cpus: Option<&'a [u16]>,
    pub bridges: Vec<&'a BridgeName>,
}

impl State {
    /// Whether there may be such a thing. Returns the CPUs that it may run on, any when empty: if a policy names CPUs
    /// and none were asked for, those that are allowed and that the host has.
    pub fn admit(&self, grant: &Grant, asked: &Asked<'_>, host_cpus: &[u16]) -> Result<Cpus, Refusal> {
        let authority = self.standing(grant)?;
        let mut cpus = CpusAllowed { asked: asked.cpus.unwrap_or_default(), allowed: None };
        let exact = planted::is(Planted::CountExactPath);
        for path in ancestors(asked.name).skip_while(|path| exact && !is_right_above(path, asked.name)) {
            for policy in self.policies_at(authority, path) {
                self.check_held(path, policy, asked)?;
                check_bridges(path, policy, &asked.bridges)?;
                if asked.cpus.is_some() {
                    cpus.narrow(path, policy)?;
                }
            }
        }
        cpus.given(host_cpus)
    }

    /// On whose behalf; refused if it was revoked since it asked.
    fn standing<'a>(&self, grant: &'a Grant) -> Result<Option<&'a Authority>, Refusal> {
        let authority = grant.authority().map(|authority| &**authority);
        match authority.and_then(|authority| self.revoked(authority)) {
            Some(refusal) => Err(refusal),
            None => Ok(authority),
        }
    }

    fn policies_at<'a>(
        &'a self,
        authority: Option<&'a Authority>,
        path: &str,
    ) -> impl Iterator<Item = &'a Policy> + use<'a> {
        let certified = authority.and_then(|authority| authority.policy(path));
        certified.into_iter().chain(self.settings.policy(path))
    }

    /// What does not grow is allowed even where a limit has been set below what there is.
    fn check_held(&self, path: &str, policy: &Policy, asked: &Asked<'_>) -> Result<(), Refusal> {
        let held = self.usage.below(path);
        let Asked { held: new, instead_of: old, .. } = asked;
        for (resource, limit, asked, old, held) in [
            (
                Resource::Unikernels,
                policy.unikernels.map(u64::from),
                new.unikernels.into(),
                old.unikernels.into(),
                held.unikernels.into(),
            ),
            (Resource::Memory, policy.memory_mib, new.memory_mib, old.memory_mib, held.memory_mib),
            (Resource::VolumeSpace, policy.volume_mib, new.volume_mib, old.volume_mib, held.volume_mib),
        ] {
            let Some(limit) = limit else { continue };
            let used = held.saturating_sub(old);
            if asked > old && used.saturating_add(asked) > limit {
                return Err(Refusal::OverPolicy { path: path_of(path), resource, limit, used, asked });
            }
        }
        Ok(())
    }
}

/// The CPUs that remain on the way from the root to a name.
struct CpusAllowed<'a> {
    asked: &'a [u16],
    /// What all policies so far allow, and the path of the last that narrowed it.
    allowed: Option<(Path, Vec<u16>)>,
}

impl CpusAllowed<'_> {
    fn narrow(&mut self, path: &str, policy: &Policy) -> Result<(), Refusal> {
        let Some(named) = &policy.cpus else { return Ok(()) };
        let mut allowed = match self.allowed.take() {
            Some((_, before)) => before.into_iter().filter(|cpu| named.contains(cpu)).collect(),
            None => named.to_vec(),
        };
        allowed.sort_unstable();
        allowed.dedup();
        let refused = self.asked.iter().find(|cpu| !allowed.contains(cpu));
        if let Some(&cpu) = refused {
            return Err(refusal(path_of(path), Some(cpu), allowed));
        }
        self.allowed = Some((path_of(path), allowed));
        Ok(())
    }

    /// Those that a unikernel gets.
    fn given(self, host: &[u16]) -> Result<Cpus, Refusal> {
        let (asked, Some((path, allowed))) = (self.asked, self.allowed) else {
            return Ok(List::try_from(self.asked.to_vec()).unwrap_or_default());
        };
        if !asked.is_empty() {
            return Ok(List::try_from(asked.to_vec()).unwrap_or_default());
        }
        let there: Vec<u16> = allowed.iter().copied().filter(|cpu| host.contains(cpu)).collect();
        if there.is_empty() {
            return Err(refusal(path, None, allowed));
        }
        Ok(List::try_from(there).unwrap_or_default())
    }
}

fn refusal(path: Path, asked: Option<u16>, allowed: Vec<u16>) -> Refusal {
    // A part of a bounded list.
    Refusal::CpuPolicy { path, asked, allowed: List::try_from(allowed).unwrap_or_default() }
}

fn check_bridges(path: &str, policy: &Policy, asked: &[&BridgeName]) -> Result<(), Refusal> {
    let Some(allowed) = &policy.bridges else { return Ok(()) };
    match asked.iter().find(|bridge| !allowed.contains(bridge)) {
        Some(&bridge) => Err(Refusal::BridgePolicy {
            path: path_of(path),
            asked: bridge.clone(),
            allowed: allowed.clone(),
        }),
        None => Ok(()),
    }
}

fn is_right_above(path: &str, name: &str) -> bool {
    path == name.rsplit_once(':').map_or("", |(above, _)| above)
}

/// A name's ancestor as a path, which it always is.
fn path_of(ancestor: &str) -> Path {
    Path::ROOT.join(ancestor).unwrap_or_default()
}
