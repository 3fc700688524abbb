//! What operators were told, and so what must be true: held against each answer as it leaves, against each effect
//! as the host meets it, and against all there is whenever the world rests.
//!
//! An answer leaves in the same moment in which the engine decides, so the order of the answers is the order
//! of the engine's own decisions, and most can be judged exactly. Where nobody was told how something ended (the
//! control plane or a session went away over it), both outcomes are right until the next rest shows which it was.
//!
//! | room | what it does |
//! |---|---|
//! | `fates` | what must be true of a name |
//! | `answers` | whether each answer is right, and ends its request once |
//! | `orders` | what holds after orders about what there is |
//! | `policies` | whether anything was taken in that a policy does not allow |
//! | `refusals` | whether a refusal has its reason |
//! | `effects` | whether what the host is asked for has a reason |
//! | `volumes` | what was acknowledged of volumes and images |
//! | `standing` | whose certificates are revoked |
//! | `rest` | whether what is shown at rest is what there is |
//! | `audit` | the engine's tables: within their bounds, in step with each other |

mod answers;
mod audit;
mod effects;
mod fates;
mod orders;
mod policies;
mod refusals;
mod rest;
mod standing;
mod volumes;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use petrel_wire::{
    Digest, Name,
    operator::{Create, State, UnikernelInfo, Wish},
};

pub use answers::kind_of;
pub use audit::audit;
pub use fates::{Fate, Known, Present};
pub use orders::starts_again;
pub use policies::Policies;
pub use refusals::dishonest;
pub use rest::shows_truth;
pub use standing::Standing;
pub use volumes::{VolumeFate, Volumes};

use crate::{asked::Asked, host::Host, operator::Operator};

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
    /// What operators have set for paths.
    pub policies: Policies,
    /// Whose certificates are revoked.
    pub standing: Standing,
    /// Of each volume that anybody has named.
    pub volumes: Volumes,
    /// The shim could not list the volumes once: then a control plane that comes up takes over all that runs.
    pub untold: bool,
    /// Images were to be deleted since the last rest.
    pub images_unsure: bool,
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
    /// Another state has taken the place of what there was.
    pub imported: bool,
    /// The latest state files that operators have got.
    pub files: VecDeque<Arc<[u8]>>,
}

impl Model {
    /// What must be true of `name`.
    pub fn fate(&mut self, name: &Name) -> &mut Fate {
        if !self.fates.contains_key(name) {
            self.fates.insert(name.clone(), Fate::default());
        }
        self.fates.entry(name.clone()).or_default()
    }

    /// Whether anybody has ever named this.
    pub fn has_heard_of(&self, name: &Name) -> bool {
        self.fates.contains_key(name) || self.volumes.contains_key(name)
    }

    /// An operator asks this.
    pub fn asked(&mut self, asked: &mut Asked) {
        let moment = self.policies.tick();
        match asked {
            Asked::Create(create) => {
                let fate = self.fate(&create.name);
                fate.asked_at(moment);
                // If it is gone already, there may be another at the next rest.
                (fate.creating, fate.going) = (fate.creating + 1, false);
                if create.force {
                    fate.orders += 1;
                    fate.forget();
                }
            }
            Asked::Destroy(name) => self.fate(name).destroying += 1,
            Asked::Volume(order) => self.volume_asked(order),
            Asked::Pull(pull) => self.pull_asked(pull),
            Asked::Images => self.images_unsure = true,
            Asked::Revoke(serial, path) => self.standing.asked(&(*serial, path.clone())),
            Asked::Console(reading) => {
                reading.of = self.fate(&reading.name).present().and_then(|present| present.instance);
            }
            Asked::Order(order) => {
                let fate = self.fate(&order.name);
                fate.asked_at(moment);
                (order.number, order.before) = fate.order();
            }
            _ => {}
        }
    }

    /// An operator will not be told what came of this.
    pub fn abandoned(&mut self, operator: &mut Operator, id: u32) {
        match operator.asked.get(&id) {
            Some(Asked::Create(create)) => self.fate(&create.name).leave_open(),
            Some(Asked::Destroy(name)) => self.fate(name).leave_open(),
            Some(Asked::Order(order)) => self.fate(&order.name).leave_loose(),
            Some(Asked::Policy(_)) => self.policies.leave_open(),
            Some(Asked::Volume(order)) => {
                self.volumes.entry(order.name.clone()).or_default().leave_open();
            }
            _ => {}
        }
        self.done(operator, id);
    }

    /// The control plane is gone, and with it every session. What it had not answered is open. If it keeps no record,
    /// so is all but what runs and was left alone; of that the shim tells what it was when it was last started.
    pub fn plane_crashed(&mut self, records: bool, host: &Host) {
        self.console_epoch += 1;
        let forgets = !records || self.disk_failed;
        self.volumes.values_mut().for_each(VolumeFate::interrupted);
        if forgets {
            self.policies.leave_open();
            self.standing.leave_open();
        }
        for (name, fate) in &mut self.fates {
            let is_told = fate.is_left_alone() && host.knows_running(name);
            let untold = fate.doubtful || (fate.must_be() && !is_told);
            let taken_over = self.untold && (fate.doubtful || fate.going);
            if fate.creating + fate.destroying > 0 || (forgets && (untold || fate.going)) || taken_over {
                fate.leave_open();
            } else if fate.ordered > 0 || forgets {
                fate.leave_loose();
            }
            (fate.creating, fate.destroying, fate.ordered) = (0, 0, 0);
        }
    }

    /// Another state has taken the place of what there was, or nobody was told whether. What it says, the next rest
    /// shows.
    pub fn replaced(&mut self) {
        self.imported = true;
        self.policies.leave_open();
        self.standing.leave_open();
        self.volumes.values_mut().for_each(VolumeFate::leave_open);
        self.fates.values_mut().for_each(Fate::leave_open);
    }

    /// A control plane came up that cannot read its disk: it knows what the shim tells, and nothing can be said.
    pub fn blinded(&mut self) {
        self.disk_failed = true;
        self.policies.leave_open();
        self.standing.leave_open();
        self.volumes.values_mut().for_each(VolumeFate::leave_open);
        self.fates.values_mut().for_each(Fate::leave_open);
    }

    /// The world is at rest, and this is all that is shown: nothing is open any more.
    pub fn settled(&mut self, shown: &BTreeSet<Name>, host: &Host) {
        (self.host_failed, self.disk_failed) = (false, false);
        // The consoles of those that were open began before.
        self.console_epoch += 1;
        for (name, fate) in &mut self.fates {
            (fate.doubtful, fate.loose, fate.going) = (false, false, false);
            if matches!(fate.known, Known::Open) {
                let instance = host.newest_of(name);
                let present = Present { create: None, wish: None, instance, console_epoch: None };
                fate.known = if shown.contains(name) { Known::Present(present) } else { Known::Absent };
            }
        }
    }

    /// At rest, what is shown of a unikernel is what it is to be, and is known from here on. One that is on trial may
    /// yet become what it was.
    pub fn learn(&mut self, info: &UnikernelInfo) -> Checked {
        let name = &info.unikernel.name;
        self.shown("", name, info)?;
        let fate = self.fate(name);
        if info.watching.trial_from.is_some() {
            fate.leave_loose();
            return Ok(());
        }
        let Some(present) = fate.present() else { return Ok(()) };
        let wish = info.unikernel.wish;
        let as_wished = present.wish.is_none_or(|wished| wished == wish) && wish != Wish::Destroyed;
        ensure(as_wished, || format!("{name} was to be {:?}, and is to be {wish:?}", present.wish))?;
        present.wish = Some(wish);
        if !matches!(info.unikernel.state, State::Running | State::Ready | State::Ended(_) | State::Stopped) {
            // It is to be started, however its latest monitor ended.
            present.instance = None;
        }
        let create = present.create.take();
        present.create = Some(create.unwrap_or_else(|| Box::new(as_asked(info))));
        Ok(())
    }
}

/// What was asked for, as far as it is shown.
fn as_asked(info: &UnikernelInfo) -> Create {
    let nets: Vec<_> = info.nets.iter().map(|(net, _)| net.clone()).collect();
    Create {
        name: info.unikernel.name.clone(),
        image: info.unikernel.image,
        memory_mib: info.unikernel.memory_mib,
        cpus: info.cpus.clone(),
        nets: nets.try_into().unwrap_or_default(),
        blocks: info.blocks.clone(),
        args: info.args.clone(),
        supervision: info.watching.supervision.clone(),
        force: false,
    }
}
