//! What operators were told, and so what must be true: held against each answer as it leaves, against each effect
//! as the host meets it, and against all there is whenever the world rests.
//!
//! An answer leaves in the same moment in which the engine decides, so the order of the answers is the order
//! of the engine's own decisions, and most can be judged exactly. Where nobody was told how something ended (the
//! control plane or a session went away over it), both outcomes are right until the next rest shows which it was.
//!
//! | room | what it does |
//! |---|---|
//! | `answers` | whether each answer is right, and ends its request once |
//! | `refusals` | whether a refusal has its reason |
//! | `effects` | whether what the host is asked for has a reason |
//! | `audit` | the engine's tables: within their bounds, in step with each other |

mod answers;
mod audit;
mod effects;
mod refusals;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use petrel_wire::{Digest, Name, operator::Create, shim::InstanceId};

pub use answers::{kind_of, shows_truth};
pub use audit::audit;
pub use refusals::dishonest;

use crate::{
    host::Host,
    operator::{Asked, Operator},
};

/// Something that must not be. Says what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

/// Something was checked.
pub type Checked = Result<(), Violation>;

/// Checks that something holds.
pub fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Violation(otherwise())) }
}

/// What must be true.
#[derive(Default)]
pub struct Model {
    /// Of each name that anybody has used.
    pub fates: BTreeMap<Name, Fate>,
    /// The images that operators were told are stored.
    pub images: BTreeSet<Digest>,
    /// How often console bytes may have been lost without being counted.
    pub console_epoch: u64,
    /// The operating system has refused something since the last rest.
    pub host_failed: bool,
    /// The disk has refused something since the last rest.
    pub disk_failed: bool,
    /// It may be full.
    pub disk_may_fill: bool,
    /// The latest state files that operators have got.
    pub files: VecDeque<Arc<[u8]>>,
}

/// What must be true of a name.
#[derive(Debug, Default)]
pub struct Fate {
    /// What there is.
    pub known: Known,
    /// Creates that are not answered.
    pub creating: usize,
    /// Destroys that are not answered.
    pub destroying: usize,
    /// A create was refused because the shim was away: what became of it is known at the next rest.
    pub doubtful: bool,
}

/// What is known of a name.
#[derive(Debug, Default)]
pub enum Known {
    /// There is no such unikernel.
    #[default]
    Absent,
    /// There is.
    Present(Present),
    /// Nobody was told.
    Open,
}

/// A unikernel that there is.
#[derive(Debug)]
pub struct Present {
    /// What was asked for, if it is known.
    pub create: Option<Box<Create>>,
    /// Its monitor, if it is known.
    pub instance: Option<InstanceId>,
    /// The console's epoch in which it was created.
    pub console_epoch: u64,
}

impl Fate {
    /// Whether there may be a unikernel of this name.
    pub fn may_be(&self) -> bool {
        self.creating > 0 || !matches!(self.known, Known::Absent)
    }

    /// Whether there must be one.
    pub fn must_be(&self) -> bool {
        matches!(self.known, Known::Present(_))
    }

    /// Nobody will be told what came of something.
    pub fn leave_open(&mut self) {
        self.known = Known::Open;
    }
}

impl Model {
    /// What must be true of `name`.
    pub fn fate(&mut self, name: &Name) -> &mut Fate {
        if !self.fates.contains_key(name) {
            self.fates.insert(name.clone(), Fate::default());
        }
        self.fates.entry(name.clone()).or_default()
    }

    /// An operator will not be told what came of this.
    pub fn abandoned(&mut self, operator: &mut Operator, id: u32) {
        if let Some(Asked::Create(create)) = operator.asked.get(&id) {
            self.fate(&create.name).leave_open();
        }
        if let Some(Asked::Destroy(name)) = operator.asked.get(&id) {
            self.fate(name).leave_open();
        }
        self.done(operator, id);
    }

    /// The control plane is gone, and with it every session. What it had not answered is open. If it keeps no record,
    /// so is what it had refused while the shim was away, and what the shim has nothing of.
    pub fn plane_crashed(&mut self, records: bool, host: &Host) {
        self.console_epoch += 1;
        let forgets = !records || self.disk_failed;
        for (name, fate) in &mut self.fates {
            let untold = fate.doubtful || (fate.must_be() && host.newest_of(name).is_none());
            if fate.creating + fate.destroying > 0 || (forgets && untold) {
                fate.leave_open();
            }
            (fate.creating, fate.destroying) = (0, 0);
        }
    }

    /// A control plane came up that cannot read its disk: it knows what the shim tells, and nothing can be said.
    pub fn blinded(&mut self) {
        self.disk_failed = true;
        self.fates.values_mut().for_each(Fate::leave_open);
    }

    /// The world is at rest, and this is all that is shown: nothing is open any more, but for what is `going`: it will
    /// be destroyed when it can be.
    pub fn settled(&mut self, shown: &BTreeSet<Name>, going: &BTreeSet<Name>, host: &Host) {
        (self.host_failed, self.disk_failed) = (false, false);
        for (name, fate) in &mut self.fates {
            fate.doubtful = false;
            if going.contains(name) {
                fate.leave_open();
            } else if matches!(fate.known, Known::Open) {
                fate.known = Known::Absent;
                if shown.contains(name) {
                    let (create, instance) = (None, host.newest_of(name));
                    fate.known =
                        Known::Present(Present { create, instance, console_epoch: self.console_epoch });
                    // Its console began before.
                    self.console_epoch += 1;
                }
            }
        }
    }
}
