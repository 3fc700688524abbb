//! The volumes that a manifest names, against those that are there.
//!
//! What would lose data is never done: no volume is shrunk, and none is removed because a manifest does not name it.

use std::cmp::Ordering;

use petrel_wire::Name;
use petrel_wire::operator::{
    Block, Refusal, Request, Response, Volume, VolumeRefusal, VolumeRequest, VolumeResponse, VolumeState,
};

use super::{Action, Difference, Step};
use crate::cli;
use crate::error::Error;
use crate::failure::Failure;
use crate::manifest::Manifest;
use crate::session::Session;
use crate::units;

/// What is to be done about a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// There is none of this name.
    Create {
        /// How large it is to be.
        bytes: u64,
    },
    /// It is to be larger.
    Grow {
        /// How large.
        bytes: u64,
    },
    /// It is to be smaller, which is shown and not done.
    Shrink {
        /// What it has.
        from: u64,
        /// What the manifest says.
        to: u64,
    },
}

/// What is to be done about volumes, in this order.
pub(super) fn plan(session: &mut Session, manifest: &Manifest) -> Result<Vec<Step>, Failure> {
    let uses_some = manifest.unikernels.iter().any(|entry| !entry.create.blocks.is_empty());
    if manifest.volumes.is_empty() && !uses_some {
        return Ok(Vec::new());
    }
    let there = session.volumes()?;
    check_used(manifest, &there)?;
    let steps = manifest.volumes.iter().map(|wanted| match find(&there, &wanted.name) {
        Some(volume) => resize(volume, wanted.bytes),
        None => Ok(Some(step(&wanted.name, Change::Create { bytes: wanted.bytes }, Vec::new()))),
    });
    steps.filter_map(Result::transpose).collect()
}

/// Refuses a plan that would shrink a volume.
pub(super) fn check_plan(steps: &[Step]) -> Result<(), Failure> {
    let refused = steps.iter().find_map(|step| match step.action {
        Action::Volume(Change::Shrink { from, to }) => Some(refuse_to_shrink(&step.name, from, to)),
        _ => None,
    });
    refused.map_or(Ok(()), Err)
}

/// Makes a volume what the manifest says, unless it would have to shrink.
pub(super) fn carry_out(session: &mut Session, name: Name, change: Change) -> Result<(), Failure> {
    let request = match change {
        Change::Create { bytes } => VolumeRequest::Create { name, bytes },
        Change::Grow { bytes } => VolumeRequest::Resize { name, bytes },
        Change::Shrink { from, to } => return Err(refuse_to_shrink(&name, from, to)),
    };
    match session.request(Request::Volume(request))? {
        Response::Volume(VolumeResponse::Is(_)) => Ok(()),
        _ => Err(cli::stray()),
    }
}

/// Whether each volume that a unikernel shall have is there or will be.
fn check_used(manifest: &Manifest, there: &[Volume]) -> Result<(), Failure> {
    let wanted = |name: &Name| manifest.volumes.iter().any(|wanted| wanted.name == *name);
    for create in manifest.unikernels.iter().map(|entry| &entry.create) {
        for Block { device, volume } in create.blocks.iter() {
            if !wanted(volume) && find(there, volume).is_none() {
                return Err(unknown(&create.name, device, volume));
            }
        }
    }
    Ok(())
}

fn unknown(user: &Name, device: &str, volume: &Name) -> Failure {
    Failure::local(
        format!(
            "the block device {device} of \"{user}\" is to store on the volume \"{volume}\", which is neither in the \
             manifest nor on the host"
        ),
        "a volume that is in one of the two",
        format!(
            "add a table [volume.\"{volume}\"] with its size, or correct the name; `petrel volume ls` lists what there is"
        ),
    )
}

/// What is to be done about a volume that is there.
fn resize(volume: &Volume, bytes: u64) -> Result<Option<Step>, Failure> {
    let name = || volume.name.clone();
    let unusable = match volume.state {
        VolumeState::Ready => None,
        VolumeState::Creating | VolumeState::Removing => Some(VolumeRefusal::Busy(name())),
        VolumeState::Missing => Some(VolumeRefusal::Missing(name())),
        VolumeState::Orphan => Some(VolumeRefusal::Orphan(name())),
    };
    if let Some(reason) = unusable {
        return Err(Error::Refused(Refusal::Volume(reason)).into());
    }
    let from = volume.bytes;
    let change = match bytes.cmp(&from) {
        Ordering::Equal => return Ok(None),
        Ordering::Greater => Change::Grow { bytes },
        Ordering::Less => Change::Shrink { from, to: bytes },
    };
    let size = Difference { field: "size", is: units::exact(from), shall_be: units::exact(bytes) };
    Ok(Some(step(&volume.name, change, vec![size])))
}

fn refuse_to_shrink(name: &Name, from: u64, to: u64) -> Failure {
    let (from, to) = (units::exact(from), units::exact(to));
    Failure::refused(
        format!(
            "the volume \"{name}\" has {from}, and the manifest says {to}: apply shrinks none, since that loses data"
        ),
        format!("a size of {from} or more"),
        format!(
            "correct the manifest; or, if what is stored behind {to} may go, `petrel stop` the unikernel that has the volume, \
             and then `petrel volume resize {name} {to}`"
        ),
    )
}

fn step(name: &Name, change: Change, differences: Vec<Difference>) -> Step {
    Step { name: name.clone(), action: Action::Volume(change), differences }
}

fn find<'a>(all: &'a [Volume], name: &Name) -> Option<&'a Volume> {
    all.iter().find(|volume| volume.name == *name)
}
