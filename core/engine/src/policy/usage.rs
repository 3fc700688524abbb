//! What there is below each path.
//!
//! Kept as it changes, so that asking costs as much as a name is deep, however many unikernels there are.

use alloc::collections::BTreeMap;
use core::ops::Bound;

use petrel_wire::operator::Held;
use petrel_wire::{Path, ancestors};

/// What is held below each path. Each unikernel and volume is counted at each of its ancestors; a path below which
/// there is nothing has no entry, so there are at most `LABELS_MAX` for each of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage(BTreeMap<Path, Held>);

impl Usage {
    /// There is something more at `name`.
    pub fn add(&mut self, name: &str, more: Held) {
        for path in ancestors(name) {
            let Some(held) = self.0.get_mut(path) else {
                // A name's ancestor is a path.
                let Ok(path) = Path::ROOT.join(path) else { continue };
                self.0.insert(path, more);
                continue;
            };
            held.unikernels += more.unikernels;
            held.memory_mib += more.memory_mib;
            held.volume_mib += more.volume_mib;
        }
    }

    /// What was added at `name` is there no longer.
    pub fn remove(&mut self, name: &str, less: Held) {
        for path in ancestors(name) {
            let Some(held) = self.0.get_mut(path) else { continue };
            held.unikernels -= less.unikernels;
            held.memory_mib -= less.memory_mib;
            held.volume_mib -= less.volume_mib;
            if *held == Held::default() {
                self.0.remove(path);
            }
        }
    }

    /// What there is below `path`.
    pub fn below(&self, path: &str) -> Held {
        self.0.get(path).copied().unwrap_or_default()
    }

    /// The paths below which there is something, from behind `after` on.
    pub fn paths<'a>(&'a self, after: &str) -> impl Iterator<Item = &'a Path> + use<'a> {
        self.0.range::<str, _>((Bound::Excluded(after), Bound::Unbounded)).map(|(path, _)| path)
    }
}

#[cfg(test)]
mod tests {
    use alloc::{collections::BTreeMap, format, string::String, vec::Vec};

    use super::*;

    /// Adds up everything, for every path that there is.
    fn recomputed(all: &[(String, Held)]) -> BTreeMap<Path, Held> {
        let mut sums = BTreeMap::new();
        for (name, held) in all {
            for path in ancestors(name) {
                let sum: &mut Held = sums.entry(Path::ROOT.join(path).unwrap()).or_default();
                sum.unikernels += held.unikernels;
                sum.memory_mib += held.memory_mib;
                sum.volume_mib += held.volume_mib;
            }
        }
        sums
    }

    #[test]
    fn after_any_changes_it_is_what_adding_everything_up_gives() {
        let mut seed = 1u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let (mut usage, mut all) = (Usage::default(), Vec::new());
        for step in 0..20_000u64 {
            if all.is_empty() || random(100) < 52 {
                let labels: Vec<_> = (0..=random(6)).map(|_| format!("l{}", random(3))).collect();
                let name = format!("{}:{step}", labels.join(":"));
                let held = Held { unikernels: 1, memory_mib: random(100), volume_mib: random(2) };
                usage.add(&name, held);
                all.push((name, held));
            } else {
                let at = usize::try_from(random(all.len() as u64)).unwrap();
                let (name, held) = all.swap_remove(at);
                usage.remove(&name, held);
            }
            if step % 200 == 0 {
                assert_eq!(usage.0, recomputed(&all));
            }
        }
        for (name, held) in all {
            usage.remove(&name, held);
        }
        assert!(usage.0.is_empty(), "nothing is left of nothing");
    }
}
