//! Volumes: as files without holes.

use std::collections::BTreeMap;

use petrel_wire::{
    Blob, Digest, List, Name, VolumeName,
    limits::CHUNK_BYTES_MAX,
    shim::{InstanceId, Reply, VolumeFile, VolumeOp},
};

use super::Host;
use crate::transfers::Content;

impl Host {
    /// The guest of a monitor writes all over its volumes. Returns what they are now.
    pub fn write_volumes(&mut self, instance: InstanceId, first: u8) -> Vec<(Name, Content)> {
        let Some(record) = self.records.get(&instance) else { return Vec::new() };
        let mut written = Vec::new();
        for volume in &record.volumes {
            let Some(bytes) = self.volumes.get_mut(volume) else { continue };
            let content = Content::written(first, bytes.len() as u64);
            bytes.fill(content.byte(0));
            written.extend(volume.volume().map(|name| (name, content)));
        }
        written
    }

    /// What a volume is.
    pub fn volume_content(&self, volume: &Name) -> Option<&[u8]> {
        self.volumes.get(&**volume).map(|content| &**content)
    }

    /// The volumes that there are, with the size of each.
    pub(super) fn volume_sizes(&self) -> BTreeMap<VolumeName, u64> {
        self.volumes.iter().map(|(volume, content)| (volume.clone(), content.len() as u64)).collect()
    }

    pub(super) fn image_page(&self, after: Option<Digest>) -> Reply {
        let rest = self.images.iter().filter(|(digest, _)| Some(**digest) > after);
        let (page, more) = List::page(rest, |(digest, image)| (*digest, image.len() as u64));
        Reply::Images { page, more }
    }

    /// Carries out what was checked.
    pub(super) fn volume(&mut self, op: VolumeOp) -> Option<Reply> {
        match op {
            VolumeOp::Create { volume, bytes } => {
                self.volumes.insert(volume, vec![0; index(bytes)]);
            }
            VolumeOp::Remove(volume) => drop(self.volumes.remove(&volume)),
            VolumeOp::Resize { volume, bytes } => self.volumes.get_mut(&volume)?.resize(index(bytes), 0),
            VolumeOp::Rename { from, to } => {
                let content = self.volumes.remove(&from)?;
                self.volumes.insert(to, content);
            }
            VolumeOp::Clone { from, to } => {
                let content = self.volumes.get(&from)?.clone();
                self.volumes.insert(to, content);
            }
            VolumeOp::Read { volume, offset } => {
                let content = self.volumes.get(&volume)?;
                let start = index(offset).min(content.len());
                let data = &content[start..content.len().min(start + CHUNK_BYTES_MAX)];
                let data = Blob::try_from(data).unwrap_or_default();
                return Some(Reply::Extent { offset: start as u64, data });
            }
            VolumeOp::Write { volume, offset, data } => {
                let start = index(offset);
                self.volumes.get_mut(&volume)?.get_mut(start..start + data.len())?.copy_from_slice(&data);
            }
            VolumeOp::Sync(_) => {}
            VolumeOp::List { after } => return Some(self.volume_page(after.as_ref())),
        }
        let sizes = self.volume_sizes();
        self.shim.as_mut()?.ledger.volume_bytes = sizes;
        Some(Reply::Done)
    }

    fn volume_page(&self, after: Option<&VolumeName>) -> Reply {
        let rest = self.volumes.iter().filter(|(volume, _)| Some(*volume) > after);
        let (page, more) = List::page(rest, |(volume, content)| VolumeFile {
            volume: volume.clone(),
            bytes: content.len() as u64,
            disk_bytes: content.len() as u64,
        });
        Reply::Volumes { page, more }
    }
}

/// Volumes of a simulated host are small enough.
fn index(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
