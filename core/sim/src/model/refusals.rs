//! Each refusal, as it leaves: it has the reason that it says, and afterwards nothing of the request is left.

use petrel_wire::{
    limits::{IMAGE_BYTES_MAX, REQUESTS_MAX},
    operator::{Create, ReadOnly, Refusal, Table, VolumeRefusal},
    shim::Fault,
};

use super::{Checked, Known, Model, Violation, ensure};
use crate::{
    asked::{Asked, Push},
    host::Host,
    images,
};

impl Model {
    /// A request is refused, as one of so many unanswered ones.
    pub fn refused(&mut self, asked: &Asked, unanswered: usize, refusal: &Refusal, host: &Host) -> Checked {
        if let (true, Asked::Create(create)) = (self.disk_failed, asked) {
            // That it was undone could not be kept.
            self.fate(&create.name).doubtful = true;
        }
        if let Asked::Create(create) = asked
            && create.force
        {
            // It may have been another generation for a while, or is one on trial.
            self.fate(&create.name).leave_loose();
        }
        let holds = match (refusal, asked) {
            (Refusal::Full(Table::Requests), _) => unanswered > REQUESTS_MAX,
            (Refusal::ShimAway, Asked::Create(create)) => {
                self.fate(&create.name).doubtful = true;
                true
            }
            (Refusal::BeingDestroyed | Refusal::NotEnding { .. }, Asked::Destroy(name)) => {
                self.fate(name).leave_going();
                true
            }
            (refusal, Asked::Forbidden(reason)) if *refusal == **reason => true,
            (Refusal::ReadOnly(reason), asked) => self.cannot_keep(*reason, asked, host),
            (refusal, Asked::Order(order)) => self.order_refused(order, refusal, host),
            (refusal, Asked::Volume(order)) => self.volume_refused(order, refusal),
            (refusal, Asked::Pull(pull)) => self.pull_refused(pull, refusal),
            (Refusal::ShimAway, _) => true,
            (Refusal::Shim(fault), _) => self.is_possible(*fault),
            (Refusal::NoSuchUnikernel, Asked::Info(name) | Asked::Destroy(name)) => {
                !self.fate(name).must_be()
            }
            (Refusal::NoSuchUnikernel, Asked::Console(reading)) => !self.fate(&reading.name).must_be(),
            (Refusal::NoSuchUnikernel, Asked::History(name, last)) => *last > 0 || !self.fate(name).must_be(),
            (Refusal::NoSuchImage | Refusal::ImageInUse(_) | Refusal::Full(_), Asked::Images) => true,
            (Refusal::NoSuchPolicy, Asked::Policy(order)) => {
                order.policy.is_none() && !self.policies.has(&order.path)
            }
            (refusal, Asked::Create(create)) => self.create_refused(create, refusal, host),
            (refusal, Asked::Push(push)) => push_refused(push, refusal),
            (Refusal::Full(Table::StateFiles), Asked::Export(_) | Asked::Import(_)) => true,
            (Refusal::StateInUse { unikernels, .. }, Asked::Import(_)) => *unikernels > 0,
            (Refusal::StateFile(_), Asked::Import(import)) => !import.honest,
            _ => false,
        };
        ensure(holds, || format!("{asked:?} was refused without reason: {refusal:?}"))
    }

    /// Whether it may be that nothing can be kept. When a write has failed, nobody knows what of it is on the disk.
    fn cannot_keep(&mut self, reason: ReadOnly, asked: &Asked, host: &Host) -> bool {
        match asked {
            Asked::Order(order) => {
                self.order_refused(order, &Refusal::ReadOnly(reason), host);
            }
            Asked::Create(create) => self.fate(&create.name).doubtful = true,
            Asked::Policy(_) => self.policies.leave_open(),
            Asked::Volume(order) => self.volumes.entry(order.name.clone()).or_default().leave_open(),
            Asked::Destroy(name) => {
                let fate = self.fate(name);
                if fate.may_be() {
                    fate.leave_open();
                }
            }
            _ => {}
        }
        match reason {
            ReadOnly::Unwritable | ReadOnly::Unreadable => self.disk_failed,
            ReadOnly::Full => self.disk_may_fill,
            _ => false,
        }
    }

    /// Whether the shim may have met this fault.
    pub fn is_possible(&self, fault: Fault) -> bool {
        match fault {
            Fault::Os { .. } | Fault::InUse | Fault::NotFound | Fault::Exists => self.host_failed,
            Fault::Full => false, // has a refusal of its own
            // Has a refusal of its own, unless the unikernel has become another meanwhile.
            Fault::NoVolume => true,
        }
    }

    pub fn create_refused(&mut self, create: &Create, refusal: &Refusal, host: &Host) -> bool {
        let image = images::all().iter().find(|image| image.digest == create.image);
        match refusal {
            Refusal::NameTaken => {
                // It may have been given at that moment, by what could not be kept.
                let in_vain = self.disk_may_fill || self.disk_failed;
                let fate = self.fate(&create.name);
                // It may be on its way, or on its way out.
                in_vain || !create.force && (fate.creating > 1 || !matches!(fate.known, Known::Absent))
            }
            Refusal::Superseded
            | Refusal::BeingDestroyed
            | Refusal::NotEnding { .. }
            | Refusal::RolledBack { .. }
            | Refusal::NoSuchUnikernel => create.force,
            Refusal::AfterUnknown(after) => !self.fate(after).must_be(),
            Refusal::AfterCycle(_) => !create.supervision.after.is_empty(),
            Refusal::Supervision => create.supervision.alive.as_ref().is_some_and(|alive| alive.every_s == 0),
            Refusal::OverPolicy { .. } | Refusal::CpuPolicy { .. } | Refusal::BridgePolicy { .. } => {
                self.policies.forbids(&create.name, refusal)
            }
            // A state file from before it was known.
            Refusal::Volume(VolumeRefusal::Orphan(volume)) => self.imported || self.is_unsure(volume),
            Refusal::Volume(VolumeRefusal::Busy(volume) | VolumeRefusal::Missing(volume)) => {
                self.is_unsure(volume)
            }
            Refusal::NoSuchImage => self.images_unsure || !self.images.contains(&create.image),
            Refusal::Memory { asked_mib, min_mib, max_mib } => {
                *asked_mib == create.memory_mib
                    && (asked_mib < min_mib || asked_mib > max_mib)
                    && u64::from(*max_mib) <= host.facts.memory_mib
            }
            Refusal::MemoryGiven { host_mib, given_mib, asked_mib } => {
                *asked_mib == create.memory_mib
                    && *host_mib == host.facts.memory_mib
                    && given_mib + u64::from(*asked_mib) > *host_mib
            }
            Refusal::CpuUnknown(cpu) => !host.facts.cpus.contains(cpu),
            Refusal::BridgeUnknown { bridge, .. } => !host.facts.bridges.contains(bridge),
            Refusal::Volume(VolumeRefusal::Unknown(volume)) => {
                !host.has_volume(volume) || self.is_unsure(volume)
            }
            Refusal::Volume(VolumeRefusal::InUse { volume, .. }) => {
                create.blocks.iter().any(|block| block.volume == *volume)
            }
            Refusal::Arguments { .. } => create.args.iter().any(|arg| arg.contains(&0)),
            Refusal::NotAnImage(_) | Refusal::NoMonitor { .. } => image.is_some_and(|image| !image.runs),
            Refusal::DeviceMissing { device, .. } => {
                let given = create.nets.iter().map(|net| &net.device);
                let mut given = given.chain(create.blocks.iter().map(|block| &block.device));
                !given.any(|name| name == device)
            }
            Refusal::DeviceUnknown { device, kind } => image.is_some_and(|image| {
                !image.devices.iter().any(|(name, of)| **name == **device && of == kind)
            }),
            Refusal::DeviceTwice(device) => {
                let given = create.nets.iter().map(|net| &net.device);
                given.chain(create.blocks.iter().map(|block| &block.device)).filter(|d| *d == device).count()
                    > 1
            }
            Refusal::Full(Table::Unikernels) => false,
            // Too many creates wait for their image, or too much for the shim.
            Refusal::Full(Table::ShimRequests) => true,
            _ => false,
        }
    }
}

fn push_refused(push: &Push, refusal: &Refusal) -> bool {
    let image = &images::all()[push.image];
    let honest = push.announced == image.bytes.len() as u64 && !push.corrupt;
    match refusal {
        Refusal::ImageSize { .. } => push.announced == 0 || push.announced > IMAGE_BYTES_MAX,
        Refusal::DigestMismatch { .. } => !honest,
        Refusal::UnexpectedChunk => !honest,
        Refusal::NotAnImage(_) | Refusal::NoMonitor { .. } => !image.runs,
        Refusal::Full(Table::Uploads) => true,
        _ => false,
    }
}

/// A violation that says what the shim found.
pub fn dishonest(violation: &impl std::fmt::Debug) -> Violation {
    Violation(format!("the shim was asked what no honest control plane asks: {violation:?}"))
}
