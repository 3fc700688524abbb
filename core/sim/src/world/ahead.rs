//! No effect before its record: what leaves is held against what a control plane that came up now would know. Each
//! such look reads the whole journal, so it is taken now and then.

use petrel_wire::{
    Name,
    operator::Response,
    shim::{Op, Spawn},
};

use super::World;
use crate::{
    host::name_of,
    model::{Checked, ensure},
};

/// In so many of a thousand cases a look is taken.
const LOOKS: u64 = 100;

impl World {
    /// A request is about to leave for the shim.
    pub(super) fn check_ahead(&mut self, op: &Op) -> Checked {
        match op {
            // Where nothing can be kept, what is wanted is kept running all the same.
            _ if self.model.disk_failed => Ok(()),
            Op::Spawn(spawn) if self.random.chance(LOOKS) => self.check_recorded(spawn),
            _ => Ok(()),
        }
    }

    fn check_recorded(&self, spawn: &Spawn) -> Checked {
        let (Some(known), Some(name)) = (self.remembered(), name_of(&spawn.tag)) else { return Ok(()) };
        ensure(known.get(&name) == Some(&spawn.instance), || {
            format!("{name} is to be started as {:?}, and no record tells it: {known:?}", spawn.instance)
        })
    }

    /// An answer is about to leave for an operator who asked for this unikernel to be, or to be gone.
    pub(super) fn check_kept(&mut self, response: &Response, name: &Name) -> Checked {
        let (Response::Created(_) | Response::Destroyed) = response else { return Ok(()) };
        if self.model.disk_failed || !self.random.chance(LOOKS) {
            return Ok(());
        }
        let Some(known) = self.remembered() else { return Ok(()) };
        let there = known.contains_key(name);
        let fate = self.model.fate(name);
        ensure(!fate.must_be() || there, || format!("{name} was acknowledged, and no record tells it"))?;
        ensure(fate.may_be() || !there, || format!("{name} is gone, and its record is there"))
    }
}
