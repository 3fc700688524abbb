//! What may be done with which volume.

use alloc::vec::Vec;

use petrel_wire::{
    Name,
    limits::{TRANSFERS_MAX, VOLUME_BLOCK_BYTES, VOLUME_BYTES_MAX, VOLUMES_MAX},
    operator::{Block, Refusal, Table, VolumeRefusal},
};

use super::{File, Phase, space};
use crate::{
    Engine,
    policy::{self, Asked, Grant},
};

impl Engine {
    pub(super) fn check_shim(&self, requests: usize) -> Result<(), Refusal> {
        if !self.shim.is_ready() {
            return Err(Refusal::ShimAway);
        }
        if self.shim.has_room(requests) { Ok(()) } else { Err(Refusal::Full(Table::ShimRequests)) }
    }

    /// Whether one more volume or image may be moved.
    pub(crate) fn check_transfers(&self, grant: &Grant) -> Result<(), Refusal> {
        self.check_shim(1)?;
        let under_way = self.volumes.transfers() + self.downloads.len();
        let max = policy::share(&grant.scope(), TRANSFERS_MAX);
        if under_way < max { Ok(()) } else { Err(Refusal::Full(Table::Transfers)) }
    }

    /// Whether there may be a new volume of this name and size.
    pub(super) fn check_new_volume(&self, name: &Name, bytes: u64) -> Result<(), Refusal> {
        if let Some((fault, _)) = self.volumes.untold {
            // There may be a file of this name, which is not to be taken for what is made now.
            return Err(Refusal::Shim(fault));
        }
        if self.state.volumes.get(name).is_some() || self.volumes.orphans.contains_key(name) {
            return Err(VolumeRefusal::Taken(name.clone()).into());
        }
        if self.state.volumes.len() + self.volumes.orphans.len() + TRANSFERS_MAX >= VOLUMES_MAX {
            return Err(Refusal::Full(Table::Volumes));
        }
        self.check_space(bytes)
    }

    /// Whether volumes may take so much more.
    pub(crate) fn check_space(&self, more: u64) -> Result<(), Refusal> {
        let Some(mib) = self.shim.host_if_ready().and_then(|host| host.volumes_mib) else { return Ok(()) };
        let pulls = self.downloads.values().map(|download| download.draft_bytes());
        let drafts = pulls.fold(self.volumes.other_bytes(), u64::saturating_add);
        let (taken, max) = (self.state.volumes.bytes().saturating_add(drafts), mib.saturating_mul(1 << 20));
        if taken.saturating_add(more) <= max {
            return Ok(());
        }
        Err(VolumeRefusal::Space { asked: more, taken, max }.into())
    }

    /// Whether all policies above a volume allow it to have this size.
    pub(super) fn check_volume_policy(&self, grant: &Grant, name: &Name, bytes: u64) -> Result<(), Refusal> {
        let instead_of = self.state.volumes.held(name).unwrap_or_default();
        let asked = Asked { name, held: space(bytes), instead_of, cpus: None, bridges: Vec::new() };
        self.state.admit(grant, &asked, &[]).map(drop)
    }

    /// Whether there is a volume of this name and no job at it; its size in bytes.
    pub(crate) fn check_volume(&self, name: &Name) -> Result<u64, Refusal> {
        let named = || name.clone();
        let refusal = match self.state.volumes.get(name) {
            None if self.volumes.orphans.contains_key(name) => VolumeRefusal::Orphan(named()),
            // It would be a lie: the shim has not told yet what there is.
            None if !self.shim.ever_ready() => return Err(Refusal::ShimAway),
            None => match self.volumes.untold {
                Some((fault, _)) => return Err(Refusal::Shim(fault)),
                None => VolumeRefusal::Unknown(named()),
            },
            Some(_) if self.volumes.job_of(name).is_some() => VolumeRefusal::Busy(named()),
            Some(volume) if volume.phase != Phase::Kept => VolumeRefusal::Busy(named()),
            Some(volume) if volume.file == File::Missing => VolumeRefusal::Missing(named()),
            Some(volume) => return Ok(volume.bytes),
        };
        Err(refusal.into())
    }

    pub(super) fn check_volume_free(&self, name: &Name) -> Result<(), Refusal> {
        match self.state.volume_holder(name) {
            Some(user) => Err(VolumeRefusal::InUse { volume: name.clone(), user: Some(user.clone()) }.into()),
            None => Ok(()),
        }
    }

    /// Whether the unikernel `name` may have the volumes that it is given. What it holds itself it may have again.
    pub(crate) fn check_volumes(&self, name: &Name, blocks: &[Block]) -> Result<(), Refusal> {
        for (i, Block { volume, .. }) in blocks.iter().enumerate() {
            if blocks.iter().take(i).any(|earlier| earlier.volume == *volume) {
                let (volume, user) = (volume.clone(), Some(name.clone()));
                return Err(VolumeRefusal::InUse { volume, user }.into());
            }
            let own = self.state.volume_holder(volume) == Some(name);
            match self.check_volume(volume) {
                // What is held can only be growing.
                Err(Refusal::Volume(VolumeRefusal::Busy(_))) if own => continue,
                checked => checked?,
            };
            if !own {
                self.check_volume_free(volume)?;
            }
        }
        Ok(())
    }
}

/// Whether a volume can have this size.
pub(super) fn size(asked: u64) -> Result<(), Refusal> {
    let (multiple, max) = (VOLUME_BLOCK_BYTES, VOLUME_BYTES_MAX);
    if asked > 0 && asked <= max && asked.is_multiple_of(multiple) {
        return Ok(());
    }
    Err(VolumeRefusal::Size { asked, multiple, max }.into())
}
