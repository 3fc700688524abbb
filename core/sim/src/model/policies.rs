//! What operators have set for paths, and that nothing was taken in which one of them does not allow.
//!
//! The arithmetic is the model's own: what must be below a path is added up from what was acknowledged, each time anew.

use std::collections::BTreeMap;

use petrel_wire::{
    Name, Path, ancestors,
    operator::{Held, Policy, PolicyEntry, Refusal, Resource},
};

use super::{Checked, Model, ensure};
use crate::{asked::PolicyOrder, grants::within};

/// What was set.
#[derive(Debug, Default)]
pub struct Policies {
    /// By path, and when.
    set: BTreeMap<Path, (Policy, u64)>,
    /// What the certificates of whoever is being answered say.
    pub certified: &'static [(Path, Policy)],
    /// Nobody was told what came of a change: until the next rest anything may be set.
    doubtful: bool,
    /// Goes on with whatever is asked and set.
    moment: u64,
}

impl Policies {
    /// A new moment.
    pub fn tick(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    /// A change was acknowledged.
    pub fn changed(&mut self, order: &PolicyOrder) {
        let moment = self.tick();
        match &order.policy {
            Some(policy) => drop(self.set.insert(order.path.clone(), (policy.clone(), moment))),
            None => drop(self.set.remove(&order.path)),
        }
    }

    /// Nobody knows what is set.
    pub fn leave_open(&mut self) {
        (self.doubtful, self.set) = (true, BTreeMap::new());
    }

    /// Whether volumes of so many MiB are within what had been set for each path above `name` at the moment `asked`.
    pub fn volumes_within<'a>(
        &self,
        name: &Name,
        asked: u64,
        volumes: impl Iterator<Item = (&'a Name, u64, u64)> + Clone,
    ) -> Checked {
        for path in ancestors(name) {
            for (policy, until) in self.at(path, asked) {
                let Some(most) = policy.volume_mib else { continue };
                let counts = |of: &Name, since: u64| of == name || since <= until;
                let below = volumes.clone().filter(|(of, _, since)| within(path, of) && counts(of, *since));
                let mib: u64 = below.map(|(_, mib, _)| mib).sum();
                ensure(mib <= most, || {
                    format!("with volume {name}, {mib} MiB are below \"{path}\", and {most} are the most")
                })?;
            }
        }
        Ok(())
    }

    /// What held for a path at the moment `asked` and must have been kept; and up to which moment what is there counts:
    /// certificates bind nobody else, who may have made more since.
    fn at(&self, path: &str, asked: u64) -> impl Iterator<Item = (&Policy, u64)> {
        let set = self.set.get(path).filter(|(_, set)| *set <= asked && !self.doubtful);
        let certified = self.certified_for(path).map(|policy| (policy, asked));
        set.map(|(policy, _)| (policy, u64::MAX)).into_iter().chain(certified)
    }

    fn certified_for(&self, path: &str) -> Option<&Policy> {
        self.certified.iter().find(|(of, _)| of.labels() == path).map(|(_, policy)| policy)
    }

    /// Whether something must be set for a path.
    pub fn has(&self, path: &Path) -> bool {
        self.set.contains_key(path)
    }

    /// At rest: what is listed is what was set.
    pub fn learn(&mut self, listed: &[PolicyEntry]) -> Checked {
        let moment = self.tick();
        let set = listed.iter().filter_map(|entry| Some((entry.path.clone(), (entry.set.clone()?, moment))));
        let set: BTreeMap<_, _> = set.collect();
        let same = set.len() == self.set.len() && set.iter().all(|(path, (policy, _))| self.is(path, policy));
        ensure(same || self.doubtful, || format!("{:?} is set, listed is {set:?}", self.set))?;
        (self.doubtful, self.set) = (false, set);
        Ok(())
    }

    fn is(&self, path: &Path, policy: &Policy) -> bool {
        self.set.get(path).is_some_and(|(set, _)| set == policy)
    }

    /// Whether the policy of a refusal is set and would have been exceeded, by what is said.
    pub fn forbids(&self, name: &Name, refusal: &Refusal) -> bool {
        let (path, is_forbidden): (_, &dyn Fn(&Policy) -> bool) = match refusal {
            Refusal::OverPolicy { path, resource, limit, used, asked } => (path, &move |policy| {
                let set = match resource {
                    Resource::Unikernels => policy.unikernels.map(u64::from),
                    Resource::Memory => policy.memory_mib,
                    Resource::VolumeSpace => policy.volume_mib,
                };
                set == Some(*limit) && used + asked > *limit
            }),
            Refusal::BridgePolicy { path, asked, .. } => {
                (path, &move |policy| policy.bridges.as_ref().is_some_and(|allowed| !allowed.contains(asked)))
            }
            Refusal::CpuPolicy { path, .. } => (path, &|policy| policy.cpus.is_some()),
            _ => return false,
        };
        let above = ancestors(name).any(|above| above == path.labels());
        let set = self.set.get(path).map(|(policy, _)| policy);
        above && (self.doubtful || set.into_iter().chain(self.certified_for(path.labels())).any(is_forbidden))
    }
}

impl Model {
    /// Something more was taken in under `name`: what lies below each path above it is within what had been set when it
    /// was asked for. What does not grow is allowed where a limit was set below what there was.
    pub fn within_policies(&self, name: &Name, is_new: bool) -> Checked {
        let asked = self.fates.get(name).map_or(0, |fate| fate.asked_at);
        for path in ancestors(name) {
            for (policy, until) in self.policies.at(path, asked) {
                let held = self.must_be_below(path, name, until);
                let few = !is_new || policy.unikernels.is_none_or(|most| held.unikernels <= most);
                let small = policy.memory_mib.is_none_or(|most| held.memory_mib <= most);
                ensure(few && small, || {
                    format!(
                        "with {name}, {held:?} is below \"{path}\", of which {policy:?} was to be the most"
                    )
                })?;
            }
        }
        Ok(())
    }

    /// What there must be below a path, `name` included: those that are known, and have been what they are since then.
    fn must_be_below(&self, path: &str, name: &Name, until: u64) -> Held {
        let all = self.fates.iter().filter(|(of, fate)| fate.must_be() && within(path, of));
        let counted = all.filter(|(of, fate)| *of == name || fate.since <= until);
        counted.filter_map(|(_, fate)| fate.created()).fold(Held::default(), |sum, create| Held {
            unikernels: sum.unikernels + 1,
            memory_mib: sum.memory_mib + u64::from(create.memory_mib),
            ..sum
        })
    }
}
